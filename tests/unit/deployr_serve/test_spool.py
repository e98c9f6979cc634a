"""What becomes of what waited in the spool, whatever stands in the store by then."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from deployr_core.forgetting import forgotten
from deployr_core.packet import Abstained, DeliveryState, Failed, Received, Rejected, Scored
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.events import shown
from deployr_serve.core.spool import Fate, Spooled, drain, fate_of
from tests.spools import MemorySpool

DAY = timedelta(hours=24)


@pytest.fixture
def asked_again(packet_of, now):
    """Give a function that makes a packet of the same request, asked again a minute later."""

    def make(**changes):
        trigger = msgspec.structs.replace(
            packet_of().trigger, correlation_id="another", received_at=now + timedelta(minutes=1)
        )
        return packet_of(trigger=trigger, started_at=now + timedelta(minutes=1), **changes)

    return make


@pytest.fixture
def spooled_of(packet_of, delivery_of, now):
    def make(packet=None, *, seconds=0, with_delivery=True):
        packet = packet or packet_of()
        deliveries = (delivery_of(packet.packet_id),) if with_delivery else ()
        spooled_at = now + timedelta(seconds=seconds)
        return Spooled(packet=packet, deliveries=deliveries, events=(), spooled_at=spooled_at)

    return make


@pytest.fixture
def run_drain(clock):
    async def run(spool, store, *, expires_after=DAY, within_s=20.0):
        return await drain(spool, store=store, clock=clock, expires_after=expires_after, within_s=within_s)

    return run


async def stored_in(store, packet):
    received = msgspec.structs.replace(packet, outcome=Received(lease_until=packet.started_at))
    created = await store.create(received)
    return created if isinstance(packet.outcome, Received) else await store.replace(packet, etag=created.etag)


# -- what becomes of an entry


def test_what_nothing_stands_in_the_way_of_is_created(packet_of, now):
    assert fate_of(packet_of(), None, now=now) is Fate.CREATED


def test_the_attempt_that_began_in_the_store_is_finished_there(packet_of, received, now):
    assert fate_of(packet_of(), packet_of(outcome=received), now=now) is Fate.FINISHED


@pytest.mark.parametrize("outcome", [None, Rejected(reason="unknown-patient"), Failed(reason="x", retryable=True)])
def test_the_attempt_that_ended_in_the_store_is_there(packet_of, now, outcome):
    assert fate_of(packet_of(), packet_of(outcome=outcome), now=now) is Fate.THERE


def test_somebody_alive_who_answers_the_same_request_is_waited_for(packet_of, asked_again, now):
    held = asked_again(outcome=Received(lease_until=now + timedelta(microseconds=1)))
    assert fate_of(packet_of(), held, now=now) is Fate.PUT_OFF
    assert fate_of(packet_of(), asked_again(outcome=Received(lease_until=now)), now=now) is Fate.TAKEN_OVER


@pytest.mark.parametrize(
    ("outcome", "fate"),
    [
        (None, Fate.ANSWERED_OTHERWISE),
        (Abstained(reason="sparse"), Fate.ANSWERED_OTHERWISE),
        (Rejected(reason="unknown-patient"), Fate.ANSWERED_OTHERWISE),
        (Abstained(reason="switched-off"), Fate.TAKEN_OVER),
        (Failed(reason="emr-timeout", retryable=True), Fate.TAKEN_OVER),
    ],
)
def test_another_answer_to_the_same_request_stands_unless_it_was_a_failure(packet_of, asked_again, now, outcome, fate):
    assert fate_of(packet_of(), asked_again(outcome=outcome), now=now) is fate


def test_a_failure_takes_nothing_over(packet_of, asked_again, now):
    failed = Failed(reason="emr-timeout", retryable=True)
    assert fate_of(packet_of(outcome=failed), asked_again(outcome=failed), now=now) is Fate.ANSWERED_OTHERWISE


def test_a_key_that_was_used_for_another_request_is_not_overwritten(packet_of, now):
    trigger = msgspec.structs.replace(packet_of().trigger, request_sha256="f" * 64)
    assert fate_of(packet_of(), packet_of(trigger=trigger), now=now) is Fate.KEY_REUSED


def test_what_was_erased_stays_erased(packet_of, now):
    assert fate_of(packet_of(), forgotten(packet_of(), at=now), now=now) is Fate.FORGOTTEN


# -- draining


async def test_a_drained_packet_stands_in_the_store_with_its_deliveries_due_at_once(spooled_of, run_drain, clock, now):
    spool, store = MemorySpool(spooled_of()), MemoryStore()
    clock.pass_time(60)
    assert await run_drain(spool, store) == {Fate.CREATED: 1}
    assert (await store.read("p01")).packet == spooled_of().packet
    delivery = await store.read_delivery("p01.score-column")
    assert (delivery.state, delivery.due_at) == (DeliveryState.PENDING, None)
    assert await store.pending_deliveries(due_before=now + timedelta(seconds=60), limit=10) == (delivery,)
    assert spool.entries == []


async def test_what_is_drained_too_late_is_stored_and_not_sent(spooled_of, run_drain, clock):
    spool, store = MemorySpool(spooled_of()), MemoryStore()
    clock.pass_time(DAY.total_seconds() + 0.001)
    await run_drain(spool, store)
    delivery = await store.read_delivery("p01.score-column")
    assert (delivery.state, delivery.last_error) == (DeliveryState.EXPIRED, "expired")
    assert isinstance((await store.read("p01")).packet.outcome, Scored)


async def test_an_attempt_that_was_begun_in_the_store_is_finished_there(spooled_of, run_drain, packet_of, received):
    spool, store = MemorySpool(spooled_of()), MemoryStore()
    await stored_in(store, packet_of(outcome=received))
    assert await run_drain(spool, store) == {Fate.FINISHED: 1}
    assert (await store.read("p01")).packet == packet_of()
    assert (await store.read_delivery("p01.score-column")).state is DeliveryState.PENDING


async def test_a_failure_that_was_stored_meanwhile_stays_on_record(spooled_of, run_drain, asked_again):
    spool, store = MemorySpool(spooled_of()), MemoryStore()
    await stored_in(store, asked_again(outcome=Failed(reason="emr-timeout", retryable=True)))
    assert await run_drain(spool, store) == {Fate.TAKEN_OVER: 1}
    packet = (await store.read("p01")).packet
    assert isinstance(packet.outcome, Scored)
    assert [attempt.reason for attempt in packet.earlier_attempts] == ["emr-timeout"]


async def test_an_answer_that_was_given_meanwhile_stands_and_nothing_is_owed_for_the_other(
    spooled_of, run_drain, asked_again
):
    spool, store = MemorySpool(spooled_of()), MemoryStore()
    await stored_in(store, asked_again())
    assert await run_drain(spool, store) == {Fate.ANSWERED_OTHERWISE: 1}
    assert (await store.read("p01")).packet == asked_again()
    assert await store.read_delivery("p01.score-column") is None
    assert spool.entries == []


async def test_attempts_at_one_request_come_in_the_order_in_which_they_were_made(
    spooled_of, run_drain, packet_of, asked_again
):
    failed = packet_of(outcome=Failed(reason="emr-timeout", retryable=True))
    spool = MemorySpool(spooled_of(asked_again(), seconds=60), spooled_of(failed, seconds=0, with_delivery=False))
    store = MemoryStore()
    assert await run_drain(spool, store) == {Fate.CREATED: 1, Fate.TAKEN_OVER: 1}
    packet = (await store.read("p01")).packet
    assert [attempt.reason for attempt in packet.earlier_attempts] == ["emr-timeout"]


async def test_draining_twice_or_by_two_workers_at_once_changes_nothing(spooled_of, run_drain, packet_of):
    entries = [spooled_of(packet_of(f"p{number:02d}")) for number in range(40)]
    spool, again, store = MemorySpool(*entries), MemorySpool(*entries), MemoryStore()
    await asyncio.gather(run_drain(spool, store), run_drain(again, store))
    everything = await store.packets(model_id="hematocrit", after=None, limit=100)
    assert everything == tuple(entry.packet for entry in entries)
    assert len(await store.deliveries(state=DeliveryState.PENDING, after=None, limit=100)) == 40
    assert await run_drain(MemorySpool(*entries), store) == {Fate.THERE: 40}


@pytest.mark.parametrize("method", ["create", "replace"])
@pytest.mark.parametrize("did_it", [False, True], ids=["refused", "answer-lost"])
async def test_a_store_that_fails_again_half_way_loses_nothing_and_stores_nothing_twice(
    spooled_of, run_drain, packet_of, method, did_it
):
    store = MemoryStore()
    works = getattr(store, method)

    async def fails(*arguments, **named):
        if did_it:
            await works(*arguments, **named)
        raise StoreUnavailable("expected a store that can be read and written")

    spool = MemorySpool(spooled_of())
    setattr(store, method, fails)
    with pytest.raises(StoreUnavailable):
        await run_drain(spool, store)
    assert len(spool.entries) == 1
    setattr(store, method, works)
    await run_drain(spool, store)
    assert (await store.read("p01")).packet == packet_of()
    assert len(await store.deliveries(state=DeliveryState.PENDING, after=None, limit=10)) == 1
    assert spool.entries == []


async def test_what_is_put_off_waits_on(spooled_of, run_drain, asked_again, now, clock):
    spool, store = MemorySpool(spooled_of()), MemoryStore()
    await store.create(asked_again(outcome=Received(lease_until=now + timedelta(minutes=5))))
    assert await run_drain(spool, store) == {Fate.PUT_OFF: 1}
    assert len(spool.entries) == 1
    clock.pass_time(5 * 60)
    assert await run_drain(spool, store) == {Fate.TAKEN_OVER: 1}


async def test_a_packet_that_everybody_keeps_changing_is_left_for_the_next_time(spooled_of, run_drain, packet_of):
    store = MemoryStore()

    async def changed(*_, **__):
        raise RecordChanged("expected the packet with the tag that was read")

    store.replace = changed
    with pytest.raises(StoreUnavailable, match="others keep changing it"):
        await run_drain(MemorySpool(spooled_of()), store)


@pytest.mark.parametrize("note_first", [False, True])
async def test_a_note_that_waits_apart_from_its_packet_is_added_whichever_comes_first(
    spooled_of, run_drain, packet_of, note_first
):
    store, entries = MemoryStore(), [spooled_of()]
    note = msgspec.structs.replace(spooled_of(seconds=1), deliveries=(), events=shown([packet_of()]))
    entries.insert(0 if note_first else 1, msgspec.structs.replace(note, spooled_at=entries[0].spooled_at))
    assert await run_drain(MemorySpool(*entries), store) == {Fate.CREATED: 1, Fate.THERE: 1}
    assert await store.events("p01") == shown([packet_of()])
    assert (await store.read_delivery("p01.score-column")).state is DeliveryState.PENDING


async def test_what_was_taken_back_in_the_store_gets_nothing_of_the_entry(spooled_of, run_drain, packet_of):
    store = MemoryStore()
    await stored_in(store, packet_of(outcome=Failed(reason="deadline", retryable=True)))
    assert await run_drain(MemorySpool(spooled_of()), store) == {Fate.THERE: 1}
    assert await store.read_delivery("p01.score-column") is None
