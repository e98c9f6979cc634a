from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import DeliveryState, Mode
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.deliver import HELD_FOR, deliver, relay, wait_after
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrTimeout,
    EmrUnreachable,
    ModelUnavailable,
    WrongPatient,
)
from deployr_serve.core.policy import Policies, Policy
from deployr_serve.core.ports import Budget
from deployr_serve.core.switches import Change, Switches, turn


@pytest.fixture
async def store_of(packet_of):
    """Give a function that makes a store of scored packets with these deliveries."""

    async def make(*deliveries):
        store = MemoryStore()
        for delivery in deliveries:
            created = await store.create(packet_of(delivery.packet_id))
            await store.replace(packet_of(delivery.packet_id), etag=created.etag, deliveries=(delivery,))
        return store

    return make


@pytest.fixture
def send(bundle, packet_of, clock):
    """Give a function that delivers a stored delivery and gives how it stands afterwards, as answered and as stored."""

    async def run(delivery, *, store, output, within_s=60.0):
        budget = Budget(deadline=clock.monotonic() + within_s, correlation_id="c-1")
        after = await deliver(delivery, packet_of(), bundle, store=store, outputs=(output,), clock=clock, budget=budget)
        return after, await store.read_delivery(delivery.delivery_id)

    return run


@pytest.fixture
def run_relay(bundle, models_of, clock):
    async def run(store, *outputs, models=None, limit=500, policies=()):
        in_force = Policies(declared={policy.model: policy for policy in policies})
        return await relay(
            store=store,
            models=models or models_of(hematocrit=bundle),
            outputs=outputs,
            clock=clock,
            switches=Switches(store, clock=clock, site="test", policies=in_force),
            limit=limit,
        )

    return run


async def test_an_accepted_delivery_is_sent_with_its_own_id(store_of, send, delivery_of, output_of, clock, now):
    output = output_of()
    clock.pass_time(3)
    after, stored = await send(delivery_of(), store=await store_of(delivery_of()), output=output)
    sent = delivery_of(state=DeliveryState.SENT, attempts=1)
    assert after == stored == msgspec.structs.replace(sent, updated_at=now + timedelta(seconds=3))
    assert output.sent == ["p01.score-column"]


async def test_an_accepted_delivery_forgets_why_it_failed_before(store_of, send, delivery_of, output_of):
    tried = delivery_of(attempts=3, last_error="emr-timeout")
    after, stored = await send(tried, store=await store_of(tried), output=output_of())
    assert (after.state, after.attempts, after.last_error) == (DeliveryState.SENT, 4, None)
    assert after == stored


@pytest.mark.parametrize(
    "error", [EmrUnreachable("down"), EmrTimeout("slow"), EmrBadResponse("html")], ids=lambda e: e.reason
)
async def test_what_may_heal_stays_pending_with_its_reason(store_of, send, delivery_of, output_of, error):
    after, stored = await send(delivery_of(), store=await store_of(delivery_of()), output=output_of(error))
    assert (after.state, after.attempts, after.last_error) == (DeliveryState.PENDING, 1, error.reason)
    assert after == stored


@pytest.mark.parametrize("error", [EmrRefused("no"), WrongPatient("no")], ids=lambda e: e.reason)
async def test_what_was_refused_is_dead_at_once(store_of, send, delivery_of, output_of, error):
    after, stored = await send(delivery_of(), store=await store_of(delivery_of()), output=output_of(error))
    assert (after.state, after.attempts, after.last_error) == (DeliveryState.DEAD, 1, error.reason)
    assert after == stored


# 30 s, doubled each time, and never more than 5 min.
@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (6, 300), (1000, 300)]
)
def test_the_wait_grows_with_the_attempts_up_to_five_minutes(attempts, seconds):
    assert wait_after(attempts) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("asked_s", "seconds"), [(None, 30), (10.0, 30), (90.0, 90), (1e6, 3600)])
def test_what_the_emr_asks_to_wait_is_heeded_up_to_an_hour(asked_s, seconds):
    assert wait_after(1, asked_s=asked_s) == timedelta(seconds=seconds)


async def test_what_may_heal_is_due_again_after_its_wait(store_of, send, delivery_of, output_of, now):
    tried = delivery_of(attempts=1)
    asked = EmrUnreachable("down")
    after, _ = await send(tried, store=await store_of(tried), output=output_of(asked))
    assert after.due_at == now + timedelta(seconds=60)
    asked.retry_after_s = 200.0
    after, _ = await send(tried, store=await store_of(tried), output=output_of(asked))
    assert after.due_at == now + timedelta(seconds=200)


async def test_a_delivery_to_an_output_that_is_not_set_up_waits_without_using_up_attempts(
    store_of, send, delivery_of, output_of
):
    other = delivery_of(output="flowsheet")
    output = output_of()
    after, _ = await send(other, store=await store_of(other), output=output)
    assert (after.state, after.attempts, after.last_error) == (DeliveryState.PENDING, 0, "output-not-configured")
    assert output.sent == []


async def test_a_delivery_that_somebody_else_settled_meanwhile_is_left_to_them(store_of, send, delivery_of, output_of):
    store = await store_of(delivery_of())
    settled = delivery_of(state=DeliveryState.SENT, attempts=1)
    await store.save_delivery(settled, was=delivery_of())
    after, stored = await send(delivery_of(), store=store, output=output_of(EmrUnreachable("down")))
    assert after == stored == settled


# -- relay


async def test_the_relay_sends_what_is_pending_and_counts_how_it_ended(
    store_of, run_relay, delivery_of, output_of, clock
):
    store = await store_of(delivery_of("p01"), delivery_of("p02"), delivery_of("p03"))
    clock.pass_time(61)
    output = output_of(None, EmrUnreachable("down"), EmrRefused("no"))
    counts = await run_relay(store, output)
    assert counts == {DeliveryState.SENT: 1, DeliveryState.PENDING: 1, DeliveryState.DEAD: 1}
    assert output.scores == {"p01.score-column": 3 / 4}


async def test_the_relay_leaves_a_delivery_alone_until_it_is_due(
    store_of, run_relay, delivery_of, output_of, clock, now
):
    store, output = await store_of(delivery_of(due_at=now + timedelta(seconds=60))), output_of()
    clock.pass_time(60)
    assert await run_relay(store, output) == {}
    assert output.sent == []
    clock.pass_time(0.001)
    assert await run_relay(store, output) == {DeliveryState.SENT: 1}


async def test_two_relays_at_once_send_a_delivery_once(store_of, run_relay, delivery_of, output_of, clock):
    store, output = await store_of(delivery_of("p01"), delivery_of("p02")), output_of()
    clock.pass_time(1)
    await asyncio.gather(run_relay(store, output), run_relay(store, output))
    assert sorted(output.sent) == ["p01.score-column", "p02.score-column"]


async def test_a_delivery_whose_relay_died_is_sent_again_once_it_is_nobodys(
    store_of, run_relay, delivery_of, output_of, clock
):
    class Killed(BaseException):
        pass

    assert timedelta(minutes=1) == HELD_FOR
    store, output = await store_of(delivery_of()), output_of()
    clock.pass_time(1)
    with pytest.raises(Killed):
        await run_relay(store, output_of(Killed()))
    clock.pass_time(60)
    assert await run_relay(store, output) == {}
    clock.pass_time(0.001)
    assert await run_relay(store, output) == {DeliveryState.SENT: 1}


async def test_the_relay_sends_a_settled_delivery_never_again(store_of, run_relay, delivery_of, output_of, clock):
    store, output = await store_of(delivery_of()), output_of()
    clock.pass_time(61)
    await run_relay(store, output)
    assert await run_relay(store, output) == {}
    assert output.sent == ["p01.score-column"]


async def test_an_emr_that_is_down_for_a_night_turns_no_delivery_dead(
    store_of, run_relay, delivery_of, output_of, clock
):
    store, output = await store_of(delivery_of()), output_of(*[EmrUnreachable("down")] * 1000)
    for _ in range(10 * 60):
        clock.pass_time(60)
        await run_relay(store, output)
    delivery = await store.read_delivery("p01.score-column")
    # A relay each minute, just after which nothing is due yet: tries at minutes 1, 2, 4, 7, 12, 18, and then each 6.
    assert (delivery.state, delivery.last_error) == (DeliveryState.PENDING, "emr-unreachable")
    assert delivery.attempts == 6 + (600 - 18) // 6
    back = output_of()
    clock.pass_time(301)
    assert await run_relay(store, back) == {DeliveryState.SENT: 1}


async def test_what_has_waited_too_long_expires_unsent(store_of, run_relay, delivery_of, output_of, clock):
    store, output = await store_of(delivery_of()), output_of()
    clock.pass_time(24 * 3600 + 0.001)
    assert await run_relay(store, output) == {DeliveryState.EXPIRED: 1}
    assert ((await store.read_delivery("p01.score-column")).last_error, output.sent) == ("expired", [])


async def test_what_has_waited_as_long_as_it_may_is_sent(store_of, run_relay, delivery_of, output_of, clock):
    store, output = await store_of(delivery_of()), output_of()
    clock.pass_time(24 * 3600)
    assert await run_relay(store, output) == {DeliveryState.SENT: 1}


async def test_one_poisoned_delivery_does_not_stop_the_others(store_of, run_relay, delivery_of, output_of, clock):
    store = await store_of(delivery_of("p01"), delivery_of("p02"))
    clock.pass_time(61)
    output = output_of(RuntimeError("a bug"))
    assert await run_relay(store, output) == {DeliveryState.PENDING: 1, DeliveryState.SENT: 1}
    assert (await store.read_delivery("p01.score-column")).last_error == "unexpected"
    assert output.scores == {"p02.score-column": 3 / 4}


async def test_a_delivery_of_a_model_that_is_not_available_waits(
    store_of, run_relay, delivery_of, output_of, models_of, clock
):
    store, output = await store_of(delivery_of()), output_of()
    clock.pass_time(61)
    models = models_of(hematocrit=ModelUnavailable("digest"))
    assert await run_relay(store, output, models=models) == {DeliveryState.PENDING: 1}
    clock.pass_time(301)
    assert await run_relay(store, output, models=models_of()) == {DeliveryState.PENDING: 1}
    assert output.sent == []
    assert (await store.read_delivery("p01.score-column")).attempts == 0


async def test_batches_follow_each_other_until_nothing_is_due_and_each_delivery_is_tried_once(
    store_of, run_relay, delivery_of, output_of, clock
):
    store = await store_of(*(delivery_of(f"p0{number}") for number in range(5)))
    clock.pass_time(1)
    output = output_of(EmrUnreachable("down"))
    assert await run_relay(store, output, limit=2) == {DeliveryState.PENDING: 1, DeliveryState.SENT: 4}
    assert len(output.sent) == 5


async def test_what_goes_to_one_place_for_one_patient_goes_in_the_order_of_the_scores(
    run_relay, packet_of, delivery_of, output_of, clock, now
):
    store, output = MemoryStore(), output_of()
    # The later the score, the sooner it is due.
    for number, minutes in (("p01", 2), ("p02", 0), ("p03", 1)):
        packet = packet_of(number, as_of=now + timedelta(minutes=minutes))
        created = await store.create(packet)
        due_at = now - timedelta(minutes=minutes)
        await store.replace(packet, etag=created.etag, deliveries=(delivery_of(number, due_at=due_at),))
    clock.pass_time(1)
    await run_relay(store, output)
    assert output.sent == ["p02.score-column", "p03.score-column", "p01.score-column"]


async def test_patients_are_served_side_by_side_and_one_that_hangs_holds_up_no_other(
    run_relay, packet_of, delivery_of, clock
):
    store, sent, others_done = MemoryStore(), [], asyncio.Event()
    for number in ("p01", "p02", "p03"):
        created = await store.create(packet_of(number, patient_id=f"patient-{number}"))
        packet = packet_of(number, patient_id=f"patient-{number}")
        await store.replace(packet, etag=created.etag, deliveries=(delivery_of(number),))

    class FirstHangs:
        name = "score-column"

        async def send(self, packet, bundle, *, delivery_id, budget=None):
            if packet.packet_id == "p01":
                await others_done.wait()
            sent.append(packet.packet_id)
            if len(sent) == 2:
                others_done.set()

    clock.pass_time(1)
    assert await run_relay(store, FirstHangs()) == {DeliveryState.SENT: 3}
    assert sent[-1] == "p01"


async def test_nothing_that_is_pending_of_a_model_that_was_switched_off_is_sent_then_or_later(
    store_of, run_relay, delivery_of, output_of, clock, now
):
    output = output_of()
    store = await store_of(delivery_of(created_at=now - timedelta(hours=1)))
    for is_off in (True, False):
        await turn(store, "model.hematocrit", Change(is_off=is_off, by="on-call", why="wrong units", at=now))
        await run_relay(store, output)
    stored = await store.read_delivery("p01.score-column")
    assert (stored.state, stored.last_error, output.sent) == (DeliveryState.DEAD, "switched-off", [])


async def test_nothing_that_is_pending_of_a_model_that_was_made_silent_is_sent(
    store_of, run_relay, delivery_of, output_of, now
):
    output = output_of()
    store = await store_of(delivery_of(created_at=now - timedelta(hours=1)))
    silent = Policy(schema_version=1, model="hematocrit", mode=Mode.SILENT)
    assert await run_relay(store, output, policies=(silent,)) == {DeliveryState.DEAD: 1}
    assert (await store.read_delivery("p01.score-column")).last_error == "silent"
    assert output.sent == []
