"""What is asked of one SQLite file at once is committed at once, and flushed to the disk where it must be.

And what need not be flushed is written without a thread, unless somebody else is writing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from datetime import timedelta

import pytest

from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.caller import USED_TOKENS
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.switches import KIND as SWITCH


class Recorder:
    """A connection that tells how each of its transactions ended, and whether the log was flushed for it."""

    def __init__(self, connection):
        self._connection = connection
        self.commits = []
        self.refuses = False

    def execute(self, statement, *arguments):
        if statement == "COMMIT":
            if self.refuses:
                raise sqlite3.OperationalError("database or disk is full")
            [[level]] = self._connection.execute("PRAGMA synchronous").fetchall()
            self.commits.append({1: "not flushed", 2: "flushed"}[level])
        return self._connection.execute(statement, *arguments)

    def __getattr__(self, name):
        return getattr(self._connection, name)


@pytest.fixture
async def store(tmp_path):
    made = SqliteStore(tmp_path / "store.sqlite")
    await made.check()
    made._connection = Recorder(made._connection)
    made._quick, made._quick_on = Recorder(made._connect_quick()), threading.get_ident()
    yield made
    await made.aclose()


@pytest.fixture
def commits(store):
    return store._connection.commits


@pytest.fixture
def quick_commits(store):
    """Give what the connection of the event loop has committed; `commits` is of the thread's."""
    return store._quick.commits


@pytest.fixture
def at_once(store):
    """Give a function that keeps the store's thread busy until everything is asked, and gives what came of each."""

    async def ask(*asked):
        until = threading.Event()
        busy = asyncio.ensure_future(store._read(lambda _: until.wait()))
        tasks = [asyncio.ensure_future(each) for each in asked]
        # Each begins, and one that gives up has done so, before the loop has come back to this so often.
        for _ in range(5):
            await asyncio.sleep(0)
        until.set()
        await busy
        return await asyncio.gather(*tasks, return_exceptions=True)

    return ask


async def test_writes_that_are_asked_at_once_are_one_transaction(store, commits, at_once, packet_of):
    created = await at_once(*(store.create(packet_of(f"p{number:02}")) for number in range(16)))
    assert [each.packet.packet_id for each in created] == [f"p{number:02}" for number in range(16)]
    assert commits == ["flushed"]


async def test_a_write_that_fails_beside_others_fails_alone_and_leaves_nothing(
    store, commits, at_once, packet_of, delivery_of
):
    await store.create(packet_of("p01"))
    commits.clear()
    first, refused, last = await at_once(
        store.create(packet_of("p02")),
        store.replace(packet_of("p01", site="elsewhere"), etag="7", deliveries=(delivery_of("p01"),)),
        store.create(packet_of("p03")),
    )
    assert (first.packet.packet_id, type(refused), last.packet.packet_id) == ("p02", RecordChanged, "p03")
    assert (await store.read("p01")).packet == packet_of("p01")
    assert await store.read_delivery("p01.score-column") is None
    assert commits == ["flushed"]


async def test_where_the_commit_fails_nobody_who_shared_it_is_told_that_it_was_stored(store, at_once, packet_of):
    store._connection.refuses = True
    answers = await at_once(*(store.create(packet_of(f"p{number}")) for number in range(3)))
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    store._connection.refuses = False
    assert [await store.read(f"p{number}") for number in range(3)] == [None] * 3
    assert await store.create(packet_of("p0")) is not None


async def test_a_read_beside_a_write_sees_nothing_that_is_not_committed(store, at_once, packet_of):
    store._connection.refuses = True
    refused, seen = await at_once(store.create(packet_of("p01")), store.read("p01"))
    assert (type(refused), seen) == (StoreUnavailable, None)


async def test_a_caller_who_gave_up_before_its_turn_has_written_nothing(store, at_once, packet_of):
    async def give_up():
        waiting = asyncio.ensure_future(store.create(packet_of("p01")))
        await asyncio.sleep(0)
        waiting.cancel()

    await at_once(give_up())
    assert await store.read("p01") is None


async def test_a_packet_is_flushed_once_it_holds_its_answer_and_its_claim_is_not(
    store, commits, quick_commits, packet_of, received
):
    created = await store.create(packet_of(outcome=received))
    assert (quick_commits, commits) == (["not flushed"], [])
    await store.replace(packet_of(), etag=created.etag)
    assert (quick_commits, commits) == (["not flushed"], ["flushed"])


async def test_what_only_guards_is_not_flushed_and_a_switch_is(store, commits, quick_commits, now):
    used = await store.create_record(USED_TOKENS, "a", b"", now=now)
    await store.replace_record(USED_TOKENS, "a", b"", etag=used.etag)
    assert (quick_commits, commits) == (["not flushed"] * 2, [])
    await store.create_record(SWITCH, "all", b"{}", now=now)
    assert (quick_commits, commits) == (["not flushed"] * 2, ["flushed"])


async def test_a_guard_waits_on_the_thread_while_somebody_else_is_writing(store, commits, quick_commits, tmp_path, now):
    with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(store.create_record(USED_TOKENS, "a", b"", now=now))
        await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("COMMIT")
        assert await waiting is not None
    assert (quick_commits, commits) == ([], ["not flushed"])


async def test_a_guard_that_shares_a_transaction_with_a_packet_is_flushed_with_it(
    store, commits, at_once, packet_of, now
):
    store._quick.refuses = True
    await at_once(store.create_record(USED_TOKENS, "a", b"", now=now), store.create(packet_of()))
    assert commits == ["flushed"]


async def test_a_guard_that_cannot_be_written_at_once_is_left_to_the_thread(store, commits, now):
    store._quick.refuses = True
    assert await store.create_record(USED_TOKENS, "a", b"", now=now) is not None
    assert commits == ["not flushed"]
    assert not store._quick.in_transaction
    store._quick.refuses = False
    assert await store.create_record(USED_TOKENS, "a", b"", now=now) is None


async def test_a_guard_that_is_refused_says_why_and_leaves_nothing_open(store, commits, quick_commits, now):
    used = await store.create_record(USED_TOKENS, "a", b"one", now=now)
    with pytest.raises(RecordChanged):
        await store.replace_record(USED_TOKENS, "a", b"two", etag="7")
    assert not store._quick.in_transaction
    assert await store.read_record(USED_TOKENS, "a", now=now) == used
    assert (quick_commits, commits) == (["not flushed"], [])


async def test_the_loop_of_another_thread_leaves_its_guards_to_the_thread(store, commits, quick_commits, now):
    def elsewhere():
        return asyncio.run(store.create_record(USED_TOKENS, "a", b"", now=now))

    assert await asyncio.to_thread(elsewhere) is not None
    assert (quick_commits, commits) == ([], ["not flushed"])


async def test_what_is_to_be_done_meanwhile_is_done_on_the_loop_before_the_packet_is_stored(store, packet_of, received):
    created = await store.create(packet_of(outcome=received))
    here, done = threading.current_thread(), []
    storing = asyncio.ensure_future(
        store.replace(
            packet_of(),
            etag=created.etag,
            meanwhile=lambda: done.append((threading.current_thread() is here, storing.done())),
        )
    )
    await storing
    assert done == [(True, False)]


async def test_what_was_done_meanwhile_changes_nothing_where_the_commit_fails(store, packet_of, received):
    created, done = await store.create(packet_of(outcome=received)), []
    store._connection.refuses = True
    with pytest.raises(StoreUnavailable):
        await store.replace(packet_of(), etag=created.etag, meanwhile=lambda: done.append(True))
    store._connection.refuses = False
    assert done == [True]
    assert await store.read("p01") == created


async def test_nothing_is_done_meanwhile_for_a_packet_that_somebody_else_has_changed(store, packet_of, received):
    await store.create(packet_of(outcome=received))
    done = []
    with pytest.raises(RecordChanged):
        await store.replace(packet_of(), etag="7", meanwhile=lambda: done.append(True))
    assert done == []


async def test_a_file_that_was_closed_is_opened_again(store, now):
    await store.create_record(USED_TOKENS, "a", b"", now=now)
    await store.aclose()
    for _ in range(2):
        assert await store.create_record(USED_TOKENS, "a", b"", now=now) is None


async def test_a_record_costs_as_much_beside_many_of_its_kind_as_beside_few(store, now):
    steps = []

    async def create(name):
        made = await store.create_record(USED_TOKENS, name, b"", now=now, expires_at=now + timedelta(hours=1))
        assert made is not None

    async def steps_of(name):
        steps.clear()
        store._quick.set_progress_handler(lambda: steps.append(1) and None, 1)
        await create(name)
        store._quick.set_progress_handler(None, 1)
        return len(steps)

    await create("first")
    beside_few = await steps_of("second")
    assert beside_few > 0
    for number in range(500):
        await create(f"t{number}")
    assert await steps_of("last") <= 2 * beside_few


async def test_what_was_not_flushed_is_there_for_every_other_process_and_after_the_death_of_this_one(
    store, tmp_path, packet_of, received, now
):
    await store.create(packet_of(outcome=received))
    await store.create_record(USED_TOKENS, "a", b"", now=now)
    # Whatever another connection sees is in the file as the operating system has it.
    other = SqliteStore(tmp_path / "store.sqlite")
    assert (await other.read("p01")).packet == packet_of(outcome=received)
    assert await other.create_record(USED_TOKENS, "a", b"", now=now) is None
    await other.aclose()


def test_who_is_gone_when_the_work_is_done_is_not_told_and_holds_up_nobody(tmp_path):
    """One gives up while the work is under way; of another, the loop itself has closed by then."""
    store, begun, until = SqliteStore(tmp_path / "store.sqlite"), threading.Event(), threading.Event()
    complaints = []

    def work(_):
        begun.set()
        until.wait()

    async def gone(*, ends_first):
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        task = asyncio.ensure_future(store._read(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        if not ends_first:
            until.set()
            await store.check()

    async def after():
        until.set()
        await store.check()
        await store.aclose()

    asyncio.run(gone(ends_first=False))
    begun.clear()
    until.clear()
    asyncio.run(gone(ends_first=True))
    asyncio.run(after())
    assert complaints == []
