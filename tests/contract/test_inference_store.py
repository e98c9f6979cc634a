"""What `deployr_serve.core.ports.InferenceStore` promises, held against every store there is."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from datetime import timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from deployr_core.forgetting import forgotten
from deployr_core.packet import (
    Abstained,
    Attempt,
    Censored,
    DeliveryState,
    Event,
    EventKind,
    Failed,
    FetchRecord,
    InferencePacket,
    Label,
    Observed,
    Received,
    Rejected,
)
from deployr_core.packet_ids import derive_event_id
from deployr_serve.adapters.cosmos_store import CosmosStore
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.ports import Belongings


@pytest.fixture
def store(each_store):
    return each_store


@pytest.fixture
async def sqlite_of():
    """Give a function that opens a SQLite store; all are closed at the end."""
    opened = []

    def make(file, **options):
        opened.append(SqliteStore(file, **options))
        return opened[-1]

    yield make
    for one in opened:
        await one.aclose()


@pytest.fixture
def label_of(now):
    def make(packet_id="p01", *, rule="lab-component", outcome=None, **changes):
        fields = {
            "label_id": f"{packet_id}.{rule}",
            "outcome": outcome or Observed(value=1.0, at=now, known_at=now, source_id="lab1"),
            "attached_at": now,
            **changes,
        }
        return Label(packet_id=packet_id, rule=rule, **fields)

    return make


def ids(packets):
    return [packet.packet_id for packet in packets]


# -- packets


async def test_a_created_packet_is_read_back_with_the_tag_it_was_given(store, packet_of):
    created = await store.create(packet_of())
    assert created.packet == packet_of()
    assert await store.read("p01") == created


async def test_reading_an_id_that_nobody_stored_gives_none(store, packet_of):
    await store.create(packet_of("p01"))
    assert await store.read("p02") is None


async def test_creating_a_taken_id_gives_none_and_changes_nothing(store, packet_of):
    first = await store.create(packet_of())
    assert await store.create(packet_of(outcome=Failed(reason="emr-timeout", retryable=True))) is None
    assert await store.read("p01") == first


async def test_replacing_gives_a_new_tag_and_makes_the_old_one_stale(store, packet_of, received):
    created = await store.create(packet_of(outcome=received))
    replaced = await store.replace(packet_of(), etag=created.etag)
    assert replaced.etag != created.etag
    assert await store.read("p01") == replaced
    with pytest.raises(RecordChanged):
        await store.replace(packet_of(), etag=created.etag)


async def test_a_replacement_with_a_stale_tag_changes_nothing_and_adds_no_delivery(
    store, packet_of, delivery_of, received, now
):
    created = await store.create(packet_of(outcome=received))
    current = await store.replace(packet_of(outcome=Rejected(reason="wrong-patient")), etag=created.etag)
    with pytest.raises(RecordChanged):
        await store.replace(packet_of(), etag=created.etag, deliveries=(delivery_of(),))
    assert await store.read("p01") == current
    assert await store.read_delivery("p01.score-column") is None
    assert await store.pending_deliveries(due_before=now + timedelta(days=1), limit=10) == ()


async def test_replacing_a_packet_that_is_not_there_is_refused_and_stores_nothing(store, packet_of, delivery_of):
    with pytest.raises(RecordChanged):
        await store.replace(packet_of(), etag="1", deliveries=(delivery_of(),))
    assert await store.read("p01") is None
    assert await store.read_delivery("p01.score-column") is None


async def test_a_packet_and_its_deliveries_are_stored_together(store, packet_of, delivery_of, received):
    created = await store.create(packet_of(outcome=received))
    deliveries = (delivery_of(), delivery_of(output="flowsheet"))
    await store.replace(packet_of(), etag=created.etag, deliveries=deliveries)
    assert (await store.read("p01")).packet == packet_of()
    assert await store.read_delivery("p01.score-column") == deliveries[0]
    assert await store.read_delivery("p01.flowsheet") == deliveries[1]


async def test_a_delivery_that_exists_already_stays_as_it_is(store, packet_of, delivery_of, received):
    created = await store.create(packet_of(outcome=received))
    replaced = await store.replace(packet_of(), etag=created.etag, deliveries=(delivery_of(),))
    sent = delivery_of(state=DeliveryState.SENT, attempts=1)
    await store.save_delivery(sent, was=delivery_of())
    await store.replace(packet_of(), etag=replaced.etag, deliveries=(delivery_of(),))
    assert await store.read_delivery("p01.score-column") == sent


async def test_of_two_replacements_with_one_tag_exactly_one_is_made(store, packet_of, received):
    created = await store.create(packet_of(outcome=received))
    answers = await asyncio.gather(
        *(store.replace(packet_of(site=f"site{i}"), etag=created.etag) for i in range(2)), return_exceptions=True
    )
    won = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(won) == 1
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [RecordChanged]
    assert await store.read("p01") == won[0]


def outcomes(now):
    return [
        Received(lease_until=now + timedelta(seconds=16, microseconds=1)),
        Abstained(reason="sparse"),
        Failed(reason="emr-timeout", retryable=True),
        Failed(reason="emr-refused", retryable=False),
        Rejected(reason="wrong-patient"),
        None,  # what `packet_of` makes: Scored
    ]


@pytest.mark.parametrize("number", range(6), ids=["received", "abstained", "failed", "refused", "rejected", "scored"])
async def test_every_outcome_comes_back_equal(store, packet_of, now, number):
    packet = packet_of(
        outcome=outcomes(now)[number],
        fetches=(FetchRecord(resource="Observation", resources=501, pages=2, milliseconds=12.5),),
        earlier_attempts=(Attempt(started_at=now, ended_at=now + timedelta(seconds=8), reason="emr-timeout"),),
        updated_at=now + timedelta(microseconds=123456),
    )
    await store.create(packet)
    assert (await store.read("p01")).packet == packet


async def test_packets_are_listed_by_model_in_order_of_id_from_after_the_given_one(store, packet_of, received):
    for packet_id in ("p03", "p01", "p02"):
        await store.create(packet_of(packet_id, outcome=received))
    await store.create(packet_of("p04", model_id="albumin"))
    assert ids(await store.packets(model_id="hematocrit", after=None, limit=10)) == ["p01", "p02", "p03"]
    assert ids(await store.packets(model_id="hematocrit", after=None, limit=2)) == ["p01", "p02"]
    assert ids(await store.packets(model_id="hematocrit", after="p02", limit=2)) == ["p03"]
    assert ids(await store.packets(model_id="albumin", after=None, limit=10)) == ["p04"]
    assert await store.packets(model_id="unknown", after=None, limit=10) == ()


async def test_a_period_includes_its_first_instant_and_excludes_its_last(store, packet_of, now):
    second = timedelta(seconds=1)
    # A half second: texts of instants with and without a fraction must not be mixed up.
    for number, started_at in enumerate((now - second, now, now + second / 2, now + second), start=1):
        await store.create(packet_of(f"p0{number}", started_at=started_at))
    everything = {"model_id": "hematocrit", "after": None, "limit": 10}
    assert ids(await store.packets(**everything, since=now, until=now + second)) == ["p02", "p03"]
    assert ids(await store.packets(**everything, since=now)) == ["p02", "p03", "p04"]
    assert ids(await store.packets(**everything, until=now)) == ["p01"]
    assert ids(await store.packets(**{**everything, "after": "p02", "limit": 1}, since=now)) == ["p03"]
    elsewhere = now.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert ids(await store.packets(**everything, since=elsewhere, until=elsewhere + second)) == ["p02", "p03"]


# -- deliveries


async def store_with(store, packet_of, deliveries):
    for delivery in deliveries:
        created = await store.create(packet_of(delivery.packet_id))
        await store.replace(packet_of(delivery.packet_id), etag=created.etag, deliveries=(delivery,))


async def test_reading_a_delivery_that_nobody_made_gives_none(store):
    assert await store.read_delivery("p01.score-column") is None


async def test_a_delivery_is_changed_only_from_what_it_was(store, packet_of, delivery_of):
    await store_with(store, packet_of, [delivery_of()])
    sent = delivery_of(state=DeliveryState.SENT, attempts=1)
    tried = delivery_of(attempts=1, last_error="emr-timeout")
    await store.save_delivery(sent, was=delivery_of())
    with pytest.raises(RecordChanged):
        await store.save_delivery(tried, was=delivery_of())
    assert await store.read_delivery("p01.score-column") == sent


async def test_changing_a_delivery_that_is_not_there_is_refused(store, delivery_of):
    with pytest.raises(RecordChanged):
        await store.save_delivery(delivery_of(attempts=1), was=delivery_of())
    assert await store.read_delivery("p01.score-column") is None


async def test_pending_deliveries_come_oldest_first_and_no_more_than_asked_for(store, packet_of, delivery_of, now):
    ages_s = {"p01": 3, "p02": 5, "p03": 4, "p04": 4.5}
    deliveries = [delivery_of(name, created_at=now - timedelta(seconds=age)) for name, age in ages_s.items()]
    await store_with(store, packet_of, deliveries)
    everything = await store.pending_deliveries(due_before=now, limit=10)
    assert ids(everything) == ["p02", "p04", "p03", "p01"]
    assert await store.pending_deliveries(due_before=now, limit=2) == everything[:2]


async def test_pending_deliveries_are_those_created_strictly_before_the_instant(store, packet_of, delivery_of, now):
    await store_with(store, packet_of, [delivery_of(created_at=now)])
    assert await store.pending_deliveries(due_before=now, limit=10) == ()
    just_after = now + timedelta(microseconds=1)
    assert await store.pending_deliveries(due_before=just_after, limit=10) == (delivery_of(created_at=now),)


@pytest.mark.parametrize("state", [DeliveryState.SENT, DeliveryState.DEAD])
async def test_a_settled_delivery_is_no_longer_pending(store, packet_of, delivery_of, now, state):
    await store_with(store, packet_of, [delivery_of()])
    await store.save_delivery(delivery_of(state=state, attempts=1), was=delivery_of())
    assert await store.pending_deliveries(due_before=now + timedelta(days=1), limit=10) == ()


async def test_a_delivery_that_was_put_off_is_pending_from_when_it_is_due(store, packet_of, delivery_of, now):
    await store_with(store, packet_of, [delivery_of("p01"), delivery_of("p02", due_at=now + timedelta(minutes=5))])
    soon = now + timedelta(minutes=1)
    assert ids(await store.pending_deliveries(due_before=soon, limit=10)) == ["p01"]
    put_off = msgspec.structs.replace(delivery_of("p01"), due_at=now + timedelta(minutes=6))
    await store.save_delivery(put_off, was=delivery_of("p01"))
    assert await store.pending_deliveries(due_before=soon, limit=10) == ()
    later = now + timedelta(minutes=6, microseconds=1)
    assert ids(await store.pending_deliveries(due_before=later, limit=10)) == ["p02", "p01"]


async def test_deliveries_are_listed_by_state_page_by_page(store, packet_of, delivery_of):
    dead, sent = DeliveryState.DEAD, DeliveryState.SENT
    states = {"p01": dead, "p02": sent, "p03": dead, "p04": dead}
    await store_with(store, packet_of, [delivery_of(name, state=state) for name, state in states.items()])
    first = await store.deliveries(state=DeliveryState.DEAD, after=None, limit=2)
    assert ids(first) == ["p01", "p03"]
    assert ids(await store.deliveries(state=DeliveryState.DEAD, after=first[-1].delivery_id, limit=2)) == ["p04"]
    assert await store.deliveries(state=DeliveryState.EXPIRED, after=None, limit=2) == ()


# -- labels


async def test_a_label_is_attached_once_and_a_second_one_changes_nothing(store, packet_of, label_of):
    await store.create(packet_of())
    assert await store.attach_label(label_of()) is True
    assert await store.attach_label(label_of(outcome=Censored(reason="no-result"))) is False
    assert await store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10) == (label_of(),)


async def test_labels_are_listed_by_model_and_rule_in_order_of_id(store, packet_of, label_of):
    for packet_id in ("p02", "p01"):
        await store.create(packet_of(packet_id))
        await store.attach_label(label_of(packet_id))
    await store.create(packet_of("p03", model_id="albumin"))
    await store.attach_label(label_of("p03"))
    other_rule = label_of("p01", rule="death", outcome=Censored(reason="no-result"))
    await store.attach_label(other_rule)
    assert await store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10) == (
        label_of("p01"),
        label_of("p02"),
    )
    assert await store.labels(model_id="hematocrit", rule="death", after=None, limit=10) == (other_rule,)
    assert await store.labels(model_id="albumin", rule="death", after=None, limit=10) == ()


async def test_a_label_keeps_its_history(store, packet_of, label_of, now):
    corrected = label_of(
        outcome=Censored(reason="no-reference-range"),
        history=(Observed(value=0.0, at=now, known_at=now + timedelta(hours=1), source_id="lab0"),),
    )
    await store.create(packet_of())
    await store.attach_label(corrected)
    assert await store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10) == (corrected,)


async def test_only_scored_packets_without_a_label_by_that_rule_are_unlabelled(
    store, packet_of, label_of, received, now
):
    await store.create(packet_of("p01"))
    await store.create(packet_of("p02"))
    await store.attach_label(label_of("p02"))
    await store.create(packet_of("p03", model_id="albumin"))
    for number, outcome in enumerate(outcomes(now)[:5]):
        await store.create(packet_of(f"p1{number}", outcome=outcome))
    found = await store.unlabelled(model_id="hematocrit", rule="lab-component", after=None, limit=10)
    assert found == (packet_of("p01"),)
    assert ids(await store.unlabelled(model_id="hematocrit", rule="death", after=None, limit=10)) == ["p01", "p02"]


async def test_a_packet_becomes_unlabelled_when_it_is_scored(store, packet_of, received):
    created = await store.create(packet_of(outcome=received))
    assert await store.unlabelled(model_id="hematocrit", rule="lab-component", after=None, limit=10) == ()
    await store.replace(packet_of(), etag=created.etag)
    assert ids(await store.unlabelled(model_id="hematocrit", rule="lab-component", after=None, limit=10)) == ["p01"]


async def test_a_packet_that_is_written_anew_keeps_its_labels(store, packet_of, label_of):
    await store.create(packet_of())
    await store.attach_label(label_of())
    held = await store.read("p01")
    changed = await store.replace(packet_of(site="other"), etag=held.etag)
    assert changed == await store.read("p01")
    assert not await store.attach_label(label_of())
    assert await store.unlabelled(model_id="hematocrit", rule="lab-component", after=None, limit=10) == ()
    assert ids(await store.unlabelled(model_id="hematocrit", rule="death", after=None, limit=10)) == ["p01"]


async def test_pages_of_unlabelled_packets_follow_each_other_without_gap_or_repeat(store, packet_of, label_of):
    for number in (5, 3, 1, 4, 2):
        await store.create(packet_of(f"p0{number}"))
    await store.attach_label(label_of("p03"))
    after, pages = None, []
    while page := await store.unlabelled(model_id="hematocrit", rule="lab-component", after=after, limit=2):
        pages.append(ids(page))
        after = page[-1].packet_id
    assert pages == [["p01", "p02"], ["p04", "p05"]]


async def test_a_label_is_changed_by_who_read_it_last(store, packet_of, label_of):
    await store.create(packet_of())
    assert await store.read_label("p01.lab-component") is None
    await store.attach_label(label_of())
    held = await store.read_label("p01.lab-component")
    assert held.label == label_of()
    changed = msgspec.structs.replace(
        held.label, outcome=Censored(reason="order-cancelled"), history=(held.label.outcome,)
    )
    after = await store.replace_label(changed, etag=held.etag)
    assert await store.read_label("p01.lab-component") == after
    assert (after.label, after.etag != held.etag) == (changed, True)
    with pytest.raises(RecordChanged):
        await store.replace_label(label_of(), etag=held.etag)
    with pytest.raises(RecordChanged):
        await store.replace_label(label_of("p02"), etag=held.etag)
    assert await store.read_label("p01.lab-component") == after


async def test_labels_come_page_by_page_in_order_of_id(store, packet_of, label_of):
    for number in (3, 1, 2):
        await store.create(packet_of(f"p0{number}"))
        await store.attach_label(label_of(f"p0{number}"))
    asked = {"model_id": "hematocrit", "rule": "lab-component"}
    assert await store.labels(**asked, after=None, limit=2) == (label_of("p01"), label_of("p02"))
    assert await store.labels(**asked, after="p02.lab-component", limit=2) == (label_of("p03"),)
    assert await store.labels(**asked, after="p03.lab-component", limit=2) == ()


async def test_what_was_labelled_lately_is_found_again_from_that_instant_on(store, packet_of, label_of, now):
    second = timedelta(seconds=1)
    for number, attached_at in enumerate((now - second, now, now + second / 2, now + second), start=1):
        await store.create(packet_of(f"p0{number}"))
        await store.attach_label(label_of(f"p0{number}", attached_at=attached_at))
    await store.create(packet_of("p09", model_id="albumin"))
    await store.attach_label(label_of("p09", attached_at=now))
    await store.attach_label(label_of("p04", rule="death", attached_at=now))
    asked = {"model_id": "hematocrit", "rule": "lab-component", "since": now, "until": now + 2 * second}
    assert ids(await store.labelled(**asked, after=None, limit=10)) == ["p02", "p03", "p04"]
    assert ids(await store.labelled(**asked, after=None, limit=2)) == ["p02", "p03"]
    assert ids(await store.labelled(**asked, after="p03", limit=2)) == ["p04"]
    assert ids(await store.labelled(**{**asked, "rule": "death"}, after=None, limit=2)) == ["p04"]
    assert ids(await store.labelled(**{**asked, "until": now + second}, after=None, limit=10)) == ["p02", "p03"]
    held = await store.read_label("p01.lab-component")
    await store.replace_label(msgspec.structs.replace(held.label, attached_at=now), etag=held.etag)
    assert ids(await store.labelled(**asked, after=None, limit=1)) == ["p01"]


async def test_advisories_that_were_shown_are_found_from_an_instant_on(store, now):
    second = timedelta(seconds=1)
    shown = [event_of(f"p0{n}", at=now + n * second / 2) for n in range(4)]
    for event in (*shown, event_of("p01", kind=EventKind.ACCEPTED, at=now + second)):
        await store.append_event(event)
    assert await store.shown(since=now, after=None, limit=10) == tuple(shown)
    assert await store.shown(since=now + second / 2, after=None, limit=2) == tuple(shown[1:3])
    assert await store.shown(since=now, after=shown[2].event_id, limit=2) == (shown[3],)


async def test_a_store_that_works_checks_out_and_is_not_changed_by_it(store, packet_of):
    created = await store.create(packet_of())
    await store.check()
    assert await store.read("p01") == created


# -- what only a file can promise


async def test_what_was_stored_survives_reopening(tmp_path, sqlite_of, packet_of, delivery_of, label_of):
    first = sqlite_of(tmp_path / "store.sqlite")
    await store_with(first, packet_of, [delivery_of()])
    await first.attach_label(label_of())
    held = await first.read("p01")
    await first.aclose()
    second = sqlite_of(tmp_path / "store.sqlite")
    assert await second.read("p01") == held
    assert await second.read_delivery("p01.score-column") == delivery_of()
    assert await second.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10) == (label_of(),)


async def test_a_closed_store_opens_again_when_it_is_used(tmp_path, sqlite_of, packet_of):
    one = sqlite_of(tmp_path / "store.sqlite")
    await one.create(packet_of())
    await one.aclose()
    assert (await one.read("p01")).packet == packet_of()


async def test_of_stores_racing_on_one_new_file_exactly_one_creates_each_packet(tmp_path, sqlite_of, packet_of):
    for round_number in range(10):
        stores = [sqlite_of(tmp_path / f"{round_number}.sqlite") for _ in range(4)]
        answers = await asyncio.gather(
            *(one.create(packet_of(site=f"site{number}")) for number, one in enumerate(stores))
        )
        winners = [answer for answer in answers if answer is not None]
        assert len(winners) == 1
        assert [await one.read("p01") for one in stores] == winners * 4


async def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path, sqlite_of, packet_of):
    file = tmp_path / "store.sqlite"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("CREATE TABLE other (x)")
    other.execute("BEGIN IMMEDIATE")  # which a switch to the write-ahead log is refused beside, without waiting
    asyncio.get_running_loop().call_later(0.05, other.rollback)
    assert await sqlite_of(file).create(packet_of()) is not None
    other.close()


async def test_a_label_attached_through_one_store_is_seen_through_the_other(tmp_path, sqlite_of, packet_of, label_of):
    one, other = sqlite_of(tmp_path / "store.sqlite"), sqlite_of(tmp_path / "store.sqlite")
    await one.create(packet_of())
    attached = await asyncio.gather(one.attach_label(label_of()), other.attach_label(label_of()))
    assert sorted(attached) == [False, True]


def a_folder(path: Path) -> None:
    path.mkdir()


def a_file_of_another_kind(path: Path) -> None:
    path.write_bytes(b"<html>this is no database</html>" * 200)


def a_database_cut_short(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE packets (packet_id TEXT)")
        db.executemany("INSERT INTO packets VALUES (?)", [("x" * 500,)] * 200)
    db.close()
    path.write_bytes(path.read_bytes()[:700])


def tables_of_somebody_else(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE packets (something TEXT)")
    db.close()


@pytest.mark.parametrize(
    "spoil", [a_folder, a_file_of_another_kind, a_database_cut_short, tables_of_somebody_else], ids=lambda f: f.__name__
)
async def test_a_file_that_is_no_store_makes_every_method_say_unavailable(
    tmp_path, sqlite_of, packet_of, delivery_of, label_of, now, spoil
):
    file = tmp_path / "store.sqlite"
    spoil(file)
    broken = sqlite_of(file)
    calls = [
        lambda: broken.check(),
        lambda: broken.create(packet_of()),
        lambda: broken.read("p01"),
        lambda: broken.replace(packet_of(), etag="1"),
        lambda: broken.unlabelled(model_id="hematocrit", rule="lab-component", after=None, limit=1),
        lambda: broken.packets(model_id="hematocrit", after=None, limit=1),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            await call()


async def test_a_file_in_a_folder_that_does_not_exist_is_unavailable(tmp_path, sqlite_of):
    with pytest.raises(StoreUnavailable):
        await sqlite_of(tmp_path / "nowhere" / "store.sqlite").check()


async def test_a_store_that_cannot_be_written_is_unavailable_and_recovers_when_it_can(tmp_path, sqlite_of, packet_of):
    file = tmp_path / "store.sqlite"
    patient = sqlite_of(file, busy_timeout_s=0.05)
    await patient.create(packet_of())
    # Whoever runs the tests may be root, to whom every file is writable: another writer who never ends is as good.
    hog = sqlite3.connect(file, isolation_level=None)
    hog.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await patient.check()
    with pytest.raises(StoreUnavailable):
        await patient.create(packet_of("p02"))
    hog.execute("ROLLBACK")
    hog.close()
    await patient.check()
    assert await patient.create(packet_of("p02")) is not None


async def test_a_stored_packet_that_is_no_longer_readable_is_unavailable_not_a_decoding_error(
    tmp_path, sqlite_of, packet_of
):
    one = sqlite_of(tmp_path / "store.sqlite")
    await one.create(packet_of())
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute("UPDATE packets SET body = ?", (b'{"packet_id":',))
    db.close()
    with pytest.raises(StoreUnavailable):
        await one.read("p01")


class CommitFailsOnce:
    """A connection whose first commit meets a full disk."""

    def __init__(self, connection):
        self._connection = connection
        self._failed = False

    def execute(self, statement, *arguments):
        if statement == "COMMIT" and not self._failed:
            self._failed = True
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *arguments)

    def __getattr__(self, name):
        return getattr(self._connection, name)


async def test_a_commit_that_fails_stores_nothing_and_the_next_write_works(tmp_path, sqlite_of, packet_of):
    one = sqlite_of(tmp_path / "store.sqlite")
    await one.check()
    one._connection = CommitFailsOnce(one._connection)
    with pytest.raises(StoreUnavailable):
        await one.create(packet_of("p01"))
    assert await one.create(packet_of("p02")) is not None
    assert await one.read("p01") is None


KILLED_HALF_WAY = """
import asyncio, os, sys
from pathlib import Path
import msgspec
from deployr_core.packet import Delivery, InferencePacket
from deployr_serve.adapters import sqlite_store

packet = msgspec.json.decode(sys.argv[2], type=InferencePacket)

class Dying(sqlite_store.SqliteStore):
    async def _write(self, work, **how):
        def and_die(db):
            work(db)
            os._exit(9)
        return await super()._write(and_die, **how)

class DyingDelivery:
    # Its packet is changed already when the first field of the delivery is read.
    def __getattr__(self, name):
        os._exit(9)

async def main():
    file = Path(sys.argv[1])
    if sys.argv[3] == "create":
        await Dying(file).create(packet)
    else:
        store = sqlite_store.SqliteStore(file)
        held = await store.read(packet.packet_id)
        await store.replace(packet, etag=held.etag, deliveries=(DyingDelivery(),))

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["create", "replace"])
async def test_a_process_killed_in_a_transaction_leaves_nothing_half_written(
    tmp_path, sqlite_of, packet_of, received, now, method
):
    file = tmp_path / "store.sqlite"
    before = sqlite_of(file)
    await before.check()
    held = await before.create(packet_of(outcome=received)) if method == "replace" else None
    await before.aclose()
    packet = msgspec.json.encode(packet_of()).decode()
    dying = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_HALF_WAY, str(file), packet, method, stderr=subprocess.PIPE
    )
    _, complaint = await dying.communicate()
    assert (dying.returncode, complaint) == (9, b"")
    after = sqlite_of(file)
    assert await after.read("p01") == held
    assert await after.pending_deliveries(due_before=now + timedelta(days=1), limit=10) == ()
    await after.check()


def test_every_method_of_the_port_is_on_every_store():
    from deployr_serve.core.ports import InferenceStore

    promised = {name for name in vars(InferenceStore) if not name.startswith("_")}
    for kind in (MemoryStore, SqliteStore, CosmosStore):
        assert promised <= set(dir(kind))


def test_a_packet_does_not_tell_about_its_patient_when_it_is_shown(packet_of):
    packet: InferencePacket = packet_of(patient_id="CANARY-1", order_id="CANARY-2")
    assert "CANARY" not in repr(packet)


# -- events


def event_of(packet_id="p01", *, kind=EventKind.SHOWN, at, detail="", **changes):
    return Event(
        event_id=derive_event_id(packet_id, kind, at, detail), packet_id=packet_id, kind=kind, at=at, **changes
    )


async def test_events_are_only_added_and_come_in_order_of_time(store, now):
    overridden = event_of(kind=EventKind.OVERRIDDEN, at=now + timedelta(seconds=9), reason="known", comment="chronic")
    shown = event_of(at=now)
    assert [await store.append_event(event) for event in (overridden, shown, event_of("p02", at=now))] == [True] * 3
    assert await store.events("p01") == (shown, overridden)


async def test_an_event_that_is_reported_twice_is_stored_once(store, now):
    assert await store.append_event(event_of(at=now, comment="first"))
    assert not await store.append_event(event_of(at=now, comment="second"))
    assert [event.comment for event in await store.events("p01")] == ["first"]


async def test_events_that_come_with_the_packet_are_stored_with_it_or_not_at_all(store, packet_of, received, now):
    created = await store.create(packet_of(outcome=received))
    with pytest.raises(RecordChanged):
        await store.replace(packet_of(), etag="7", events=(event_of(at=now),))
    assert await store.events("p01") == ()
    await store.replace(packet_of(), etag=created.etag, events=(event_of(at=now, comment="first"),))
    assert [event.comment for event in await store.events("p01")] == ["first"]


async def test_what_is_to_be_done_meanwhile_is_done_once_at_most_and_before_the_answer(store, packet_of, received):
    created, order = await store.create(packet_of(outcome=received)), []
    stored = await store.replace(packet_of(), etag=created.etag, meanwhile=lambda: order.append("meanwhile"))
    order.append("answered")
    assert order in (["answered"], ["meanwhile", "answered"])
    assert (await store.read("p01")) == stored


async def test_an_event_that_is_stored_already_stays_as_it_is_when_it_comes_with_the_packet(store, packet_of, now):
    created = await store.create(packet_of())
    await store.append_event(event_of(at=now, comment="first"))
    await store.replace(packet_of(), etag=created.etag, events=(event_of(at=now, comment="second"),))
    assert [event.comment for event in await store.events("p01")] == ["first"]


# -- small records


async def test_a_record_is_created_once_and_read_by_its_kind_and_id(store, now):
    assert (await store.create_record("switch", "all", b"on", now=now)).content == b"on"
    assert await store.create_record("switch", "all", b"off", now=now) is None
    assert (await store.read_record("switch", "all", now=now)).content == b"on"
    assert await store.read_record("switch", "other", now=now) is None
    assert await store.read_record("lease", "all", now=now) is None


async def test_a_record_is_changed_by_who_read_it_last(store, now):
    created = await store.create_record("stratum", "s", b"0", now=now)
    changed = await store.replace_record("stratum", "s", b"1", etag=created.etag)
    with pytest.raises(RecordChanged):
        await store.replace_record("stratum", "s", b"2", etag=created.etag)
    assert await store.read_record("stratum", "s", now=now) == changed
    with pytest.raises(RecordChanged):
        await store.replace_record("stratum", "nobody", b"1", etag="1")


async def test_an_expired_record_is_as_good_as_none_and_its_id_is_free_again(store, now):
    until = now + timedelta(seconds=10)
    await store.create_record("lease", "slot", b"a", now=now, expires_at=until)
    assert await store.create_record("lease", "slot", b"b", now=until - timedelta(milliseconds=1)) is None
    assert await store.read_record("lease", "slot", now=until) is None
    assert await store.records("lease", now=until) == {}
    assert (await store.create_record("lease", "slot", b"b", now=until)).content == b"b"


async def test_a_kind_that_lives_by_a_later_clock_takes_nothing_of_another_kind(store, now):
    """Hook instances and tokens expire by the machine's clock, also where a past day is replayed."""
    until = now + timedelta(days=1)
    held = await store.create_record("sent", "place", b"a", now=now, expires_at=until)
    await store.create_record("hook-instance", "fired", b"b", now=now + timedelta(days=4000))
    assert await store.read_record("sent", "place", now=now) == held


async def test_changing_a_record_sets_its_expiry_anew(store, now):
    created = await store.create_record("lease", "slot", b"a", now=now, expires_at=now + timedelta(seconds=10))
    later = now + timedelta(seconds=60)
    await store.replace_record("lease", "slot", b"b", etag=created.etag, expires_at=later)
    assert (await store.read_record("lease", "slot", now=later - timedelta(seconds=1))).content == b"b"
    assert await store.read_record("lease", "slot", now=later) is None


async def test_all_records_of_a_kind_come_by_their_ids(store, now):
    for record_id in ("b", "a"):
        await store.create_record("switch", record_id, record_id.encode(), now=now)
    await store.create_record("lease", "c", b"c", now=now)
    found = await store.records("switch", now=now)
    assert {record_id: record.content for record_id, record in found.items()} == {"a": b"a", "b": b"b"}


async def test_of_many_who_create_one_record_at_once_one_does(store, now):
    made = await asyncio.gather(*(store.create_record("jti", "x", bytes([n]), now=now) for n in range(20)))
    assert sum(record is not None for record in made) == 1


# -- whose it is


async def test_a_patients_packets_are_found_by_the_hash_in_order_of_id_and_nobody_elses(store, packet_of):
    for number, whose in ((3, "a"), (1, "a"), (2, "b"), (4, "")):
        await store.create(packet_of(f"p0{number}", patient_hash=whose))
    assert ids(await store.packets_of("a", after=None, limit=10)) == ["p01", "p03"]
    assert ids(await store.packets_of("a", after="p01", limit=10)) == ["p03"]
    assert ids(await store.packets_of("a", after=None, limit=1)) == ["p01"]
    assert ids(await store.packets_of("", after=None, limit=10)) == ["p04"]
    assert await store.packets_of("c", after=None, limit=10) == ()


async def test_a_packet_is_found_by_the_patient_that_it_was_changed_to(store, packet_of):
    created = await store.create(packet_of(patient_hash=""))
    await store.replace(packet_of(patient_hash="a"), etag=created.etag)
    assert ids(await store.packets_of("a", after=None, limit=10)) == ["p01"]
    assert await store.packets_of("", after=None, limit=10) == ()


async def test_all_models_that_have_packets_are_named_once_and_in_order(store, packet_of):
    assert await store.model_ids() == ()
    for number, model_id in enumerate(("b", "a", "b", "c"), start=1):
        await store.create(packet_of(f"p0{number}", model_id=model_id))
    assert await store.model_ids() == ("a", "b", "c")


async def store_with_everything(store, packet_of, delivery_of, label_of, now):
    for packet_id in ("p01", "p02"):
        created = await store.create(packet_of(packet_id, patient_hash="a"))
        await store.replace(
            packet_of(packet_id, patient_hash="a"), etag=created.etag, deliveries=(delivery_of(packet_id),)
        )
        await store.attach_label(label_of(packet_id))
        await store.append_event(event_of(packet_id, at=now))


# -- what has changed


async def changed_since(store, cursor, *, limit=10):
    """Give the ids of what changed, and the cursor, page by page to the end."""
    found = []
    while True:
        page = await store.changed(after=cursor, limit=limit)
        found += ids(page.packets)
        cursor = page.cursor
        if page.is_all:
            return found, cursor


async def test_every_packet_has_changed_since_ever_and_comes_page_by_page(store, packet_of):
    assert (await store.changed(after=None, limit=2)).packets == ()
    for number in range(5):
        await store.create(packet_of(f"p0{number}"))
    found, _ = await changed_since(store, None, limit=2)
    # Whoever tells the seconds only may give some twice.
    assert sorted(set(found)) == ["p00", "p01", "p02", "p03", "p04"]


@pytest.mark.parametrize("what", ["packet", "delivery", "label", "corrected label", "event", "forgotten"])
async def test_a_packet_has_changed_when_anything_of_it_was_written(
    store, packet_of, delivery_of, label_of, received, now, what
):
    for packet_id in ("p01", "p02"):
        created = await store.create(packet_of(packet_id, outcome=received))
        await store.replace(packet_of(packet_id), etag=created.etag, deliveries=(delivery_of(packet_id),))
        await store.attach_label(label_of(packet_id))
    _, cursor = await changed_since(store, None)
    held = await store.read("p01")
    match what:
        case "packet":
            await store.replace(packet_of("p01", as_of=now + timedelta(hours=1)), etag=held.etag)
        case "delivery":
            was = delivery_of("p01")
            await store.save_delivery(msgspec.structs.replace(was, state=DeliveryState.SENT), was=was)
        case "label":
            await store.attach_label(label_of("p01", rule="adherence"))
        case "corrected label":
            label = await store.read_label("p01.lab-component")
            await store.replace_label(msgspec.structs.replace(label.label, attached_at=now), etag=label.etag)
        case "event":
            await store.append_event(event_of("p01", at=now))
        case _:
            await store.erase("p01", leaving=forgotten(held.packet, at=now))
    found, after = await changed_since(store, cursor)
    # The service tells the second only: what was written a moment ago comes again.
    assert "p01" in found
    if not isinstance(store, CosmosStore):
        assert found == ["p01"]
        assert (await store.changed(after=after, limit=10)).packets == ()


async def test_what_was_erased_without_leaving_anything_is_not_given(store, packet_of):
    for packet_id in ("p01", "p02"):
        await store.create(packet_of(packet_id))
    await store.erase("p02", leaving=None)
    found, cursor = await changed_since(store, None)
    assert set(found) == {"p01"}
    # Its place in the order is nobody else's: who has read that far still sees the next change.
    await store.create(packet_of("p03"))
    assert "p03" in (await changed_since(store, cursor))[0]


async def test_of_more_changes_in_one_second_than_a_page_has_none_is_left_out(cosmos_of, packet_of):
    store = cosmos_of()
    await store.init()
    for number in range(7):
        await store.create(packet_of(f"p0{number}"))
    found, _ = await changed_since(store, None, limit=1)
    assert set(found) == {f"p0{number}" for number in range(7)}
    await store.aclose()


async def test_what_belongs_to_a_packet_is_given_with_nothing_of_another(store, packet_of, delivery_of, label_of, now):
    await store_with_everything(store, packet_of, delivery_of, label_of, now)
    belongings = await store.belongings("p01")
    assert [each.packet_id for each in belongings.deliveries] == ["p01"]
    assert [each.packet_id for each in belongings.labels] == ["p01"]
    assert [each.packet_id for each in belongings.events] == ["p01"]
    assert await store.belongings("p09") == Belongings()


@pytest.mark.parametrize("leaves_a_mark", [True, False])
async def test_an_erased_packet_takes_all_that_belongs_to_it_along(
    store, packet_of, delivery_of, label_of, now, leaves_a_mark
):
    await store_with_everything(store, packet_of, delivery_of, label_of, now)
    left = forgotten(packet_of("p01"), at=now) if leaves_a_mark else None
    assert await store.erase("p01", leaving=left)
    held = await store.read("p01")
    assert (held and held.packet) == left
    assert await store.belongings("p01") == Belongings()
    assert await store.read_delivery("p01.score-column") is None
    assert ids(await store.packets_of("a", after=None, limit=10)) == ["p02"]
    assert (await store.belongings("p02")).labels != ()
    assert await store.erase("p09", leaving=None) is False


async def test_what_was_on_its_way_when_a_packet_was_forgotten_is_not_stored(
    store, packet_of, delivery_of, label_of, now
):
    created = await store.create(packet_of("p01", patient_hash="a"))
    await store.erase("p01", leaving=forgotten(packet_of("p01"), at=now))
    with pytest.raises(RecordChanged):
        await store.replace(packet_of("p01"), etag=created.etag, deliveries=(delivery_of("p01"),))
    assert await store.create(packet_of("p01")) is None
    assert not await store.attach_label(label_of("p01"))
    assert not await store.append_event(event_of("p01", at=now))
    assert await store.belongings("p01") == Belongings()
    assert await store.packets_of("", after=None, limit=10) == ()


async def test_a_file_from_before_patients_could_be_found_is_read_and_its_packets_have_no_patient(
    tmp_path, sqlite_of, packet_of
):
    file = tmp_path / "old.sqlite"
    body = json.loads(msgspec.json.encode(packet_of()))
    body |= {"schema_version": 1}
    del body["patient_hash"], body["trigger"]["caller"]
    with sqlite3.connect(file) as db:
        db.execute(
            "CREATE TABLE packets (packet_id TEXT PRIMARY KEY, etag INTEGER NOT NULL, model_id TEXT NOT NULL,"
            " kind TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID"
        )
        row = ("p01", 1, "hematocrit", "scored", json.dumps(body).encode())
        db.execute("INSERT INTO packets VALUES (?, ?, ?, ?, ?)", row)
    db.close()
    store = sqlite_of(file)
    [packet] = await store.packets_of("", after=None, limit=10)
    assert packet == packet_of(schema_version=1)
