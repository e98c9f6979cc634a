"""What `deployr_serve.core.spool.Spool` promises, held against a file and against a Storage queue."""

from __future__ import annotations

import secrets
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest

from deployr_serve.adapters import spool_queue
from deployr_serve.adapters.spool_queue import open_queue_spool
from deployr_serve.adapters.spool_sqlite import SqliteSpool
from deployr_serve.core.spool import Spooled, SpoolUnavailable


@pytest.fixture
def entry_of(packet_of, delivery_of, now):
    def make(packet_id="p01", *, seconds=0, **changes):
        spooled_at = now + timedelta(seconds=seconds)
        packet, delivery = packet_of(packet_id, **changes), delivery_of(packet_id)
        return Spooled(packet=packet, deliveries=(delivery,), events=(), spooled_at=spooled_at)

    return make


@pytest.fixture(params=["sqlite", "queue"])
async def spool(request, tmp_path, monkeypatch):
    if request.param == "sqlite":
        made = SqliteSpool(tmp_path / "spool.sqlite")
    else:
        monkeypatch.setattr(spool_queue, "NAME", f"spool-{secrets.token_hex(4)}")
        made = open_queue_spool(request.getfixturevalue("azurite"))
    yield made
    await made.aclose()


def of_many_features(entry):
    """Give the entry with a vector that nothing can be made smaller of."""
    values = tuple(float(number) for number in secrets.token_bytes(60_000))
    vector = msgspec.structs.replace(entry.packet.outcome.vector, indices=tuple(range(60_000)), values=values)
    outcome = msgspec.structs.replace(entry.packet.outcome, vector=vector)
    return msgspec.structs.replace(entry, packet=msgspec.structs.replace(entry.packet, outcome=outcome))


async def test_a_new_spool_holds_nothing(spool):
    assert await spool.oldest(limit=10) == ()
    standing = await spool.standing()
    assert (standing.waiting, standing.oldest_at) == (0, None)


async def test_what_was_put_is_given_as_it_was_the_oldest_first(spool, entry_of):
    entries = [entry_of(f"p0{number}", seconds=number) for number in range(3)]
    for entry in entries:
        await spool.put(entry)
    found = await spool.oldest(limit=10)
    assert [each.entry for each in found] == entries
    standing = await spool.standing()
    assert standing.waiting == 3


async def test_no_more_than_asked_for_are_given(spool, entry_of):
    for number in range(3):
        await spool.put(entry_of(f"p0{number}", seconds=number))
    assert [each.entry.packet.packet_id for each in await spool.oldest(limit=2)] == ["p00", "p01"]


async def test_what_was_removed_is_gone_and_removing_it_twice_is_no_error(spool, entry_of):
    await spool.put(entry_of())
    [waiting] = await spool.oldest(limit=10)
    await spool.remove(waiting)
    await spool.remove(waiting)
    assert await spool.oldest(limit=10) == ()
    assert (await spool.standing()).waiting == 0


async def test_two_attempts_at_one_request_both_wait(spool, entry_of, now):
    await spool.put(entry_of())
    await spool.put(entry_of(started_at=now + timedelta(seconds=1), seconds=1))
    assert len(await spool.oldest(limit=10)) == 2


async def test_a_packet_that_no_message_can_hold_comes_back_whole_and_leaves_nothing(spool, entry_of):
    entry = of_many_features(entry_of())
    await spool.put(entry)
    [waiting] = await spool.oldest(limit=10)
    assert waiting.entry == entry
    await spool.remove(waiting)
    if isinstance(spool, spool_queue.QueueSpool):
        assert [name async for name in spool._blobs._container().list_blob_names()] == []


async def test_a_file_is_read_again_after_the_process_has_gone(tmp_path, entry_of, now):
    file = tmp_path / "spool.sqlite"
    first = SqliteSpool(file)
    await first.put(entry_of())
    second = SqliteSpool(file)
    assert [each.entry for each in await second.oldest(limit=10)] == [entry_of()]
    assert (await second.standing()).oldest_at == now
    await first.aclose()
    await second.aclose()


async def test_a_file_is_for_nobody_else_on_the_machine(tmp_path, entry_of):
    spool = SqliteSpool(tmp_path / "spool.sqlite")
    await spool.put(entry_of())
    modes = {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert modes == {0o600}
    await spool.aclose()


async def test_a_full_file_says_so_and_takes_more_once_something_is_out(tmp_path, entry_of):
    spool = SqliteSpool(tmp_path / "spool.sqlite", most_bytes=64 * 1024)

    async def fill():
        for number in range(1000):
            await spool.put(entry_of(f"p{number}"))

    with pytest.raises(SpoolUnavailable) as caught:
        await fill()
    assert caught.value.reason == "spool-full"
    for waiting in await spool.oldest(limit=10):
        await spool.remove(waiting)
    await spool.put(entry_of("last"))
    await spool.aclose()


async def test_a_file_that_cannot_be_opened_says_so(tmp_path, entry_of):
    spool = SqliteSpool(tmp_path / "no-such-folder" / "spool.sqlite")
    for work in (spool.put(entry_of()), spool.oldest(limit=1), spool.standing()):
        with pytest.raises(SpoolUnavailable) as caught:
            await work
        assert caught.value.reason == "spool-unavailable"


async def test_an_entry_that_cannot_be_read_holds_up_no_other(tmp_path, entry_of, caplog):
    file = tmp_path / "spool.sqlite"
    spool = SqliteSpool(file)
    await spool.put(entry_of("p01"))
    await spool.put(entry_of("p02"))
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE spooled SET body = 'p1 is 41 years old' WHERE place = 1")
        db.commit()
    assert [each.entry.packet.packet_id for each in await spool.oldest(limit=1)] == ["p02"]
    assert "alert=spool-entry-unreadable" in caplog.text
    assert "41" not in caplog.text
    await spool.aclose()


async def test_a_queue_that_nobody_answers_for_says_so(entry_of):
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    base = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key}"
    nowhere = "http://127.0.0.1:9/devstoreaccount1"
    spool = open_queue_spool(f"{base};QueueEndpoint={nowhere};BlobEndpoint={nowhere}")
    with pytest.raises(SpoolUnavailable):
        await spool.put(entry_of())
    await spool.aclose()
