"""The kill switch: effective within 5 s on every worker, for what is new, under way, repeated or still to be sent."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from deployr_core.packet import Abstained, DeliveryState, Mode, Scored
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policies, Policy, Suppression
from deployr_serve.core.switches import HOLD_S, KIND, Change, Switches, list_switches, turn

WITHIN_S = 5.0
IN_FLIGHT = 50
OFF = Abstained(reason="switched-off")


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def turned(store, now):
    """Give a function that turns a switch, as another process does."""

    async def run(name, *, is_off, at=now):
        return await turn(store, name, Change(is_off=is_off, by="on-call", why="wrong units", at=at))

    return run


@pytest.fixture
def switches(store, clock):
    return Switches(store, clock=clock, site="test", policies=Policies())


def policy_of(mode, **changes):
    return Policy(schema_version=1, model="hematocrit", mode=mode, **changes)


# -- the switch itself


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("all", {"hematocrit": True, "hemoglobin": True}),
        ("site.test", {"hematocrit": True, "hemoglobin": True}),
        ("site.other", {"hematocrit": False, "hemoglobin": False}),
        ("model.hematocrit", {"hematocrit": True, "hemoglobin": False}),
    ],
)
async def test_a_switch_stops_what_it_names(turned, switches, name, stops):
    await turned(name, is_off=True)
    assert {model: await switches.is_off(model) for model in stops} == stops


async def test_a_model_goes_on_when_every_switch_that_stops_it_is_on_again(turned, switches, clock):
    for name in ("all", "model.hematocrit"):
        await turned(name, is_off=True)
    states = [await switches.is_off("hematocrit")]
    for name in ("all", "model.hematocrit"):
        await turned(name, is_off=False)
        clock.pass_time(HOLD_S)
        states.append(await switches.is_off("hematocrit"))
    assert states == [True, True, False]


async def test_a_worker_goes_by_what_it_read_for_two_seconds_and_no_longer(turned, switches, clock):
    assert not await switches.is_off("hematocrit")
    await turned("all", is_off=True)
    clock.pass_time(HOLD_S - 0.01)
    assert not await switches.is_off("hematocrit")
    clock.pass_time(0.01)
    assert await switches.is_off("hematocrit")


async def test_who_turned_it_and_why_stays_on_record(turned, store, now):
    await turned("all", is_off=True)
    await turned("all", is_off=False)
    changes = (await list_switches(store, now=now))["all"].changes
    assert [(change.is_off, change.by, change.why) for change in changes] == [
        (True, "on-call", "wrong units"),
        (False, "on-call", "wrong units"),
    ]


async def test_of_many_who_turn_it_at_once_nobody_is_forgotten(turned, store, now):
    await asyncio.gather(*(turned("all", is_off=bool(n % 2)) for n in range(10)))
    assert len((await list_switches(store, now=now))["all"].changes) == 10


async def test_a_switch_that_cannot_be_read_counts_as_a_store_that_is_down(store, switches, now):
    await store.create_record(KIND, "all", b"CANARY", now=now)
    with pytest.raises(StoreUnavailable) as caught:
        await switches.is_off("hematocrit")
    assert "CANARY" not in str(caught.value)


# -- what becomes of requests


@pytest.mark.parametrize("turned_after_s", [0.0, 1.9])
async def test_fifty_in_flight_when_it_is_turned_are_neither_scored_nor_sent_five_seconds_later(
    services_of, request_of, source_of, output_of, fetched_of, lab_of, store, turned, clock, turned_after_s
):
    output = output_of()
    under_way, let_go = asyncio.Event(), asyncio.Event()

    async def slow():
        under_way.set()
        await let_go.wait()
        return fetched_of(lab_of())

    services = services_of(store=store, source=source_of(slow), outputs=(output,), deadline_s=60.0)
    asked = [asyncio.create_task(infer(request_of(order_id=f"o{n}"), services)) for n in range(IN_FLIGHT)]
    await under_way.wait()
    clock.pass_time(turned_after_s)
    await turned("model.hematocrit", is_off=True)
    clock.pass_time(WITHIN_S)
    let_go.set()
    answers = await asyncio.gather(*asked)
    assert {answer.packet.outcome.reason for answer in answers} == {"switched-off"}
    packets = await store.packets(model_id="hematocrit", after=None, limit=100)
    assert [packet.outcome.reason for packet in packets] == ["switched-off"] * IN_FLIGHT
    assert output.sent == []


async def test_a_new_request_is_not_even_fetched_and_is_scored_when_it_is_asked_again_later(
    services_of, request_of, source_of, output_of, fetched_of, lab_of, store, turned, clock
):
    source, output = source_of(fetched_of(lab_of())), output_of()
    services = services_of(store=store, source=source, outputs=(output,))
    await turned("site.test", is_off=True)
    first, second = await infer(request_of(), services), await infer(request_of(), services)
    assert (first.packet.outcome, first.replayed, second.packet.outcome, second.replayed) == (OFF, False, OFF, True)
    assert (source.asked, output.sent) == ([], [])
    await turned("site.test", is_off=False)
    clock.pass_time(HOLD_S)
    third = await infer(request_of(), services)
    assert isinstance(third.packet.outcome, Scored)
    assert [attempt.reason for attempt in third.packet.earlier_attempts] == ["switched-off"]
    assert len(output.sent) == 1


async def test_a_repeat_of_what_was_advised_before_is_answered_as_switched_off_and_the_evidence_stays(
    services_of, request_of, store, turned, clock
):
    services = services_of(store=store, policies=(policy_of(Mode.LIVE, threshold=0.5),))
    first = await infer(request_of(), services)
    assert first.packet.outcome.decision.advise
    await turned("all", is_off=True)
    clock.pass_time(HOLD_S)
    repeat = await infer(request_of(), services)
    assert (repeat.packet.outcome, repeat.replayed) == (OFF, True)
    assert (await store.read(first.packet.packet_id)).packet == first.packet
    await turned("all", is_off=False)
    clock.pass_time(HOLD_S)
    assert (await infer(request_of(), services)).packet == first.packet


async def test_mode_off_is_a_switch_that_stays(services_of, request_of, source_of, fetched_of):
    source = source_of(fetched_of())
    services = services_of(source=source, policies=(policy_of(Mode.OFF),))
    assert (await infer(request_of(), services)).packet.outcome == OFF
    assert source.asked == []


async def test_a_repeat_of_what_was_advised_is_not_advised_once_the_model_is_silent(services_of, request_of, store):
    live = services_of(store=store, policies=(policy_of(Mode.LIVE, threshold=0.5),))
    first = await infer(request_of(), live)
    silent = services_of(store=store, policies=(policy_of(Mode.SILENT, threshold=0.5),))
    repeat = await infer(request_of(), silent)
    decision = first.packet.outcome.decision
    expected = msgspec.structs.replace(decision, advise=False, why="silent", mode=Mode.SILENT)
    assert decision.advise
    assert repeat.packet.outcome == msgspec.structs.replace(first.packet.outcome, decision=expected)


# -- what the policy does to deliveries


async def test_silent_mode_scores_and_stores_and_sends_nothing(services_of, request_of, output_of, store, now):
    output = output_of()
    services = services_of(store=store, outputs=(output,), policies=(policy_of(Mode.SILENT, threshold=0.5),))
    answer = await infer(request_of(), services)
    assert (answer.packet.outcome.score, answer.packet.outcome.decision.why) == (3 / 4, "silent")
    assert output.sent == []
    assert await store.pending_deliveries(due_before=now.replace(year=2100), limit=10) == ()


async def test_the_decision_stands_in_the_store_before_anything_is_sent(services_of, request_of, output_of, store):
    output = output_of(store=store)
    services = services_of(store=store, outputs=(output,), policies=(policy_of(Mode.LIVE, threshold=0.5),))
    await infer(request_of(), services)
    [(stored, delivery)] = output.stored_when_sent
    assert (stored.packet.outcome.decision.why, delivery.state) == ("advised", DeliveryState.PENDING)


async def test_a_store_that_fails_while_deciding_shows_and_sends_nothing(services_of, request_of, output_of, store):
    class Failing(MemoryStore):
        async def records(self, kind, *, now):
            return {}

        async def read_record(self, kind, record_id, *, now):
            raise StoreUnavailable("expected a store that can be read")

    output = output_of()
    policy = policy_of(Mode.LIVE, threshold=0.5, suppression=Suppression(hours=1))
    services = services_of(store=store, records=Failing(), outputs=(output,), policies=(policy,))
    answer = await infer(request_of(), services)
    assert (answer.packet.outcome.reason, answer.packet.outcome.retryable) == ("store-unavailable", True)
    assert output.sent == []
