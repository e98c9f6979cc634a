"""Requests while the store is down: scored and kept, and shown only where the site says so."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from deployr_core.packet import DeliveryState, EventKind, Failed, Mode, Received, Scored
from deployr_core.trial import Arm, KeyedHash, RandomizationUnit, Trial
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.deliver import relay
from deployr_serve.core.errors import EmrTimeout, StoreUnavailable
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Advisory, Policy, Suppression
from deployr_serve.core.ports import Lane
from deployr_serve.core.registry_showing import Approvals
from deployr_serve.core.spool import drain
from deployr_serve.core.switches import Change, Switches, turn
from deployr_serve.core.without_store import Spooling
from tests.spools import DeadSpool, MemorySpool

DAY = timedelta(hours=24)
LIVE = Policy(
    schema_version=1, model="hematocrit", mode=Mode.LIVE, threshold=0.5, advisory=Advisory(headline="About hematocrit")
)


class FallibleStore(MemoryStore):
    """Answers while it is up; while it is down every method but those of ``works`` fails."""

    def __init__(self):
        super().__init__()
        self.is_down = False
        self.works = frozenset()

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or name in {"is_down", "works"} or not self.is_down or name in self.works:
            return found

        async def down(*_, **__):
            raise StoreUnavailable("expected a store that can be read and written")

        return down


@pytest.fixture
def site_of(services_of, clock):
    """Give a function that makes services with a store that can be taken down, and a spool."""

    def make(*, spool=None, shows=(), policies=(LIVE,), **named):
        store = FallibleStore()
        services = services_of(store=store, policies=policies, **named)
        spool = MemorySpool() if spool is None else spool
        spooling = Spooling(spool=spool, clock=clock, shows=frozenset(shows))
        return replace(services, spooling=spooling), store, spool

    return make


async def infer_down(request, services, store, *, works=()):
    """Ask while the store is down but for these methods; what is switched off was read before."""
    await services.switches.is_off("hematocrit")
    store.is_down, store.works = True, frozenset(works)
    try:
        return await infer(request, services)
    finally:
        store.is_down = False


async def drained(services, clock):
    await drain(services.spooling.spool, store=services.store, clock=clock, expires_after=DAY)
    clock.pass_time(1)
    await relay(
        store=services.store,
        models=services.models,
        outputs=services.outputs,
        clock=clock,
        switches=services.switches,
    )
    [packet] = await services.store.packets(model_id="hematocrit", after=None, limit=10)
    return packet


async def test_without_a_spool_a_dead_store_is_an_error_and_nothing_is_asked_of_the_emr(
    services_of, request_of, source_of, fetched_of, lab_of
):
    store, source = FallibleStore(), source_of(fetched_of(lab_of()))
    services = services_of(store=store, source=source)
    store.is_down = True
    with pytest.raises(StoreUnavailable):
        await infer(request_of(), services)
    assert source.asked == []


async def test_the_score_is_kept_nothing_is_shown_and_it_is_delivered_later(site_of, request_of, output_of, clock):
    output = output_of()
    services, store, spool = site_of(outputs=(output,))
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)
    [entry] = spool.entries
    assert isinstance(entry.packet.outcome, Scored)
    decision = entry.packet.outcome.decision
    assert (decision.advise, decision.why, decision.mode) == (False, "not-stored", Mode.LIVE)
    assert [delivery.state for delivery in entry.deliveries] == [DeliveryState.PENDING]
    assert (entry.events, output.sent) == ((), [])
    packet = await drained(services, clock)
    assert packet == entry.packet
    assert output.sent == [f"{packet.packet_id}.score-column"]


async def test_asked_again_once_it_is_stored_the_request_gets_what_was_scored_then(site_of, request_of, clock):
    services, store, _ = site_of()
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)
    packet = await drained(services, clock)
    answer = await infer(request_of(), services)
    assert (answer.packet, answer.replayed) == (packet, True)


async def test_asked_again_before_it_is_stored_the_new_answer_stands_and_is_sent_once(
    site_of, request_of, output_of, clock
):
    output = output_of()
    services, store, spool = site_of(outputs=(output,))
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)
    clock.pass_time(5)
    answer = await infer(request_of(), services)
    assert (answer.replayed, answer.packet.is_advised) == (False, True)
    assert await drained(services, clock) == answer.packet
    assert (spool.entries, len(output.sent)) == ([], 1)


async def test_a_channel_that_may_show_gets_its_advisory_once_the_packet_is_in_the_spool(
    site_of, request_of, output_of, clock
):
    output = output_of()
    services, store, spool = site_of(shows=("bpa",), outputs=(output,))
    request = replace(request_of(), channel="bpa", answer_shows=True)
    answer = await infer_down(request, services, store)
    assert answer.packet.is_advised
    [entry] = spool.entries
    assert entry.packet == answer.packet
    assert [event.kind for event in entry.events] == [EventKind.SHOWN]
    assert output.sent == []
    await drained(services, clock)
    assert [event.kind for event in await store.events(answer.packet.packet_id)] == [EventKind.SHOWN]
    assert len(output.sent) == 1


async def test_another_channel_than_those_that_may_show_gets_nothing(site_of, request_of):
    services, store, _ = site_of(shows=("bpa",))
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)


async def test_a_store_that_goes_down_after_the_claim_gets_the_end_of_that_very_attempt(site_of, request_of, clock):
    services, store, _ = site_of()
    works = ("create", "read_record", "create_record", "records", "events")
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store, works=works)
    [held] = await store.packets(model_id="hematocrit", after=None, limit=10)
    assert isinstance(held.outcome, Received)
    packet = await drained(services, clock)
    # It had been decided to advise; that was not shown, and the packet says so.
    assert (packet.outcome.decision.advise, packet.outcome.decision.why) == (False, "not-stored")
    assert packet.earlier_attempts == ()


async def test_where_only_the_store_knows_whom_an_advisory_reached_nobody_is_advised(site_of, request_of):
    policy = Policy(
        schema_version=1,
        model="hematocrit",
        mode=Mode.LIVE,
        threshold=0.5,
        advisory=LIVE.advisory,
        suppression=Suppression(hours=24),
    )
    services, store, _ = site_of(shows=("json",), policies=(policy,))
    answer = await infer_down(request_of(), services, store)
    assert (answer.packet.is_advised, answer.packet.outcome.decision.why) == (False, "not-stored")


async def test_in_a_trial_nobody_is_advised_without_knowing_the_arm(site_of, request_of):
    arms = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))
    trial = Trial(trial_id="t", version=1, unit=RandomizationUnit.PATIENT, arms=arms, method=KeyedHash())
    policy = Policy(schema_version=1, model="hematocrit", mode=Mode.TRIAL, threshold=0.5, trial=trial)
    services, store, spool = site_of(shows=("json",), policies=(policy,))
    answer = await infer_down(request_of(), services, store)
    decision = answer.packet.outcome.decision
    assert (decision.advise, decision.why, decision.assignment) == (False, "not-stored", None)
    assert spool.entries[0].deliveries == ()


async def test_what_is_silent_is_answered_without_asking_the_registry(site_of, request_of, clock):
    """Nothing of it is shown anyway: a run that nobody approved yet may be tried out in silence, an outage included."""
    silent = Policy(schema_version=1, model="hematocrit", mode=Mode.SILENT, threshold=0.5)
    services, store, _ = site_of(shows=("json",), policies=(silent,))
    switches = Switches(
        store,
        clock=clock,
        site=services.site.name,
        policies=services.policies,
        approvals=Approvals(store, clock=clock),
    )
    answer = await infer_down(request_of(), replace(services, switches=switches), store)
    assert answer.packet.outcome.decision.why == "silent"


async def test_what_was_switched_off_stays_off(site_of, request_of, now):
    services, store, spool = site_of(shows=("json",))
    await turn(store, "all", Change(is_off=True, by="on-call", why="wrong units", at=now))
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)
    assert spool.entries[0].packet.outcome.reason == "switched-off"


async def test_a_worker_that_never_could_read_the_switches_shows_nothing(site_of, request_of):
    services, store, spool = site_of(shows=("json",))
    store.is_down = True
    with pytest.raises(StoreUnavailable):
        await infer(request_of(), services)
    assert isinstance(spool.entries[0].packet.outcome, Scored)


async def test_a_failure_is_kept_too(site_of, request_of, source_of):
    services, store, spool = site_of(source=source_of(EmrTimeout("slow")))
    with pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)
    assert spool.entries[0].packet.outcome == Failed(reason="emr-timeout", retryable=True)


async def test_a_batch_is_not_spooled_for_its_queue_keeps_it(site_of, request_of):
    services, store, spool = site_of()
    with pytest.raises(StoreUnavailable):
        await infer_down(replace(request_of(), lane=Lane.BATCH), services, store)
    assert spool.entries == []


@pytest.mark.parametrize("reason", ["spool-full", "spool-unavailable"])
async def test_a_packet_that_nobody_can_keep_is_counted_and_logged_by_its_id_and_not_shown(
    site_of, request_of, caplog, reason
):
    services, store, _ = site_of(spool=DeadSpool(reason), shows=("json",))
    with caplog.at_level(logging.CRITICAL), pytest.raises(StoreUnavailable):
        await infer_down(request_of(), services, store)
    assert (services.spooling.refused, services.spooling.is_losing) == (1, True)
    [line] = caplog.messages
    assert line.startswith("alert=packet-not-kept packet=p")
    assert line.endswith(f" reason={reason}")
