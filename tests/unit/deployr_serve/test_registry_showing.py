"""What may be shown follows the journal, within seconds, on every worker; one that is not whole lets nothing by."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from deployr_core.packet import DeliveryState, Mode, Scored
from deployr_core.registry.journal import Action, entry_bytes
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.deliver import relay
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policies, Policy
from deployr_serve.core.registry_journal import append, read_journal
from deployr_serve.core.registry_showing import HOLD_S, Approvals
from deployr_serve.core.switches import Switches
from tests.registry_parts import deed


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def says(store, clock):
    """Give a function that adds deeds about a bundle to the journal, as another process does."""

    async def run(*actions, run_id="a", digest="b-a", replaces=None):
        for action in actions:
            who = "grace" if action is Action.APPROVED else "dev"
            each = deed(action, run_id, who=who, bundle_sha256=digest, replaces=replaces)
            await append(store, "hematocrit", lambda _, each=each: each, clock=clock)

    return run


@pytest.fixture
def approvals(store, clock):
    return Approvals(store, clock=clock)


TO_LIVE = (Action.REGISTERED, Action.APPROVED, Action.DEPLOYED)


async def test_without_a_journal_nothing_is_shown(approvals):
    assert not await approvals.is_shown("hematocrit", "b-a")


async def test_only_what_was_deployed_is_shown(approvals, clock, says):
    found = []
    for action in TO_LIVE:
        await says(action)
        clock.pass_time(HOLD_S)
        found.append(await approvals.is_shown("hematocrit", "b-a"))
    assert found == [False, False, True]
    assert not await approvals.is_shown("hematocrit", "b-other")
    assert not await approvals.is_shown("anemia", "b-a")


async def test_a_rollback_is_seen_once_what_was_read_is_not_held_any_more(approvals, clock, says):
    await says(*TO_LIVE)
    await says(Action.REGISTERED, Action.APPROVED, run_id="b", digest="b-b")
    await says(Action.DEPLOYED, run_id="b", digest="b-b", replaces="a")
    assert await approvals.is_shown("hematocrit", "b-b")
    await says(Action.ROLLED_BACK, run_id="b", digest="b-b", replaces="a")
    clock.pass_time(HOLD_S - 0.1)
    assert await approvals.is_shown("hematocrit", "b-b")
    clock.pass_time(0.1)
    assert not await approvals.is_shown("hematocrit", "b-b")
    assert await approvals.is_shown("hematocrit", "b-a")


async def test_what_was_shown_is_known_without_the_store(approvals, says):
    await says(*TO_LIVE)
    assert not approvals.was_shown("hematocrit", "b-a")
    await approvals.is_shown("hematocrit", "b-a")
    assert approvals.was_shown("hematocrit", "b-a")


async def cut_off(store, model_id="hematocrit"):
    """Take the last entry and the head out of the store, as somebody does who wants an approval undone unseen."""
    entries = [key for key in store._records if key[0] == f"journal.{model_id}"]
    del store._records[max(entries)]
    del store._records["journal-head", model_id]


async def test_a_journal_that_got_shorter_shows_nothing_from_the_second_look_on(approvals, clock, says, store, caplog):
    await says(*TO_LIVE)
    assert await approvals.is_shown("hematocrit", "b-a")
    await cut_off(store)
    clock.pass_time(HOLD_S)
    assert await approvals.is_shown("hematocrit", "b-a")
    assert "alert=" not in caplog.text
    clock.pass_time(HOLD_S)
    assert not await approvals.is_shown("hematocrit", "b-a")
    assert "alert=journal-broken model=hematocrit" in caplog.text


async def test_a_forged_entry_shows_nothing(clock, says, store, caplog):
    await says(Action.REGISTERED, Action.APPROVED, Action.DEPLOYED)
    record, _ = store._records["journal.hematocrit", "00000002"]
    [_, entry, _] = (await read_journal(store, "hematocrit", now=clock.now())).entries
    forged = entry_bytes(msgspec.structs.replace(entry, who="barbara"))
    store._records["journal.hematocrit", "00000002"] = (type(record)(content=forged, etag="1"), None)
    approvals = Approvals(store, clock=clock)
    for _ in range(2):
        clock.pass_time(HOLD_S)
        assert not await approvals.is_shown("hematocrit", "b-a")
    assert "entry 2: expected the digest of what it says" in caplog.text


async def test_an_entry_that_is_not_there_yet_when_its_head_is_makes_no_alarm(approvals, clock, says, store, caplog):
    await says(*TO_LIVE)
    await approvals.is_shown("hematocrit", "b-a")
    await says(Action.REGISTERED, run_id="b", digest="b-b")
    late = store._records.pop(("journal.hematocrit", "00000004"))
    clock.pass_time(HOLD_S)
    assert await approvals.is_shown("hematocrit", "b-a")
    store._records["journal.hematocrit", "00000004"] = late
    clock.pass_time(HOLD_S)
    assert await approvals.is_shown("hematocrit", "b-a")
    assert "alert=" not in caplog.text


async def test_of_all_who_ask_at_once_one_reads(clock, says, store):
    await says(*TO_LIVE)
    asked = []

    class Counting:
        async def records(self, kind, *, now):
            asked.append(kind)
            await asyncio.sleep(0)
            return await store.records(kind, now=now)

        async def read_record(self, kind, record_id, *, now):
            return await store.read_record(kind, record_id, now=now)

    approvals = Approvals(Counting(), clock=clock)
    assert all(await asyncio.gather(*(approvals.is_shown("hematocrit", "b-a") for _ in range(20))))
    assert sorted(asked) == ["journal-head", "journal.hematocrit"]


# -- and what is not shown


LIVE = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, threshold=0.5)


@pytest.fixture
def registered(services_of, store, clock):
    """Give a function that makes services which go by the registry."""

    def make(policy=LIVE, **changes):
        made = services_of(store=store, policies=(policy,), **changes)
        policies = Policies(declared={"hematocrit": policy})
        approvals = Approvals(store, clock=clock)
        switches = Switches(store, clock=clock, site="test", policies=policies, approvals=approvals)
        return replace(made, switches=switches)

    return make


async def test_an_unapproved_bundle_is_scored_stored_and_shown_to_nobody(registered, request_of, output_of, store):
    output = output_of()
    answer = await infer(request_of(), registered(outputs=(output,)))
    decision = answer.packet.outcome.decision
    assert (answer.packet.outcome.score, answer.packet.is_advised, output.sent) == (3 / 4, False, [])
    assert (decision.mode, decision.why, decision.policy_sha256) == (Mode.SILENT, "not-approved", LIVE.sha256)
    assert (await store.read(answer.packet.packet_id)).packet.outcome.decision == decision


async def test_an_approved_bundle_is_shown(registered, request_of, output_of, says, bundle):
    output = output_of()
    await says(*TO_LIVE, digest=bundle.digest)
    answer = await infer(request_of(), registered(outputs=(output,)))
    assert (answer.packet.is_advised, answer.packet.outcome.decision.why) == (True, "advised")
    assert len(output.sent) == 1


async def test_what_is_silent_says_so_and_asks_nobody(registered, request_of):
    silent = Policy(schema_version=1, model="hematocrit", mode=Mode.SILENT, threshold=0.5)
    answer = await infer(request_of(), registered(silent))
    assert answer.packet.outcome.decision.why == "silent"


async def test_a_repeat_of_what_was_advised_is_not_told_again_once_it_was_withdrawn(
    registered, request_of, says, bundle, clock
):
    await says(*TO_LIVE, digest=bundle.digest)
    services = registered()
    assert (await infer(request_of(), services)).packet.is_advised
    await says(Action.RETIRED, digest=bundle.digest)
    clock.pass_time(HOLD_S)
    answer = await infer(request_of(), services)
    assert (answer.replayed, answer.packet.is_advised) == (True, False)
    assert answer.packet.outcome.decision.why == "not-approved"
    assert isinstance(answer.packet.outcome, Scored)


async def test_what_a_withdrawn_bundle_still_owes_is_not_sent(
    registered, packet_of, delivery_of, says, store, clock, output_of
):
    await says(*TO_LIVE, digest="b" * 64)
    packet = packet_of()
    stored = await store.create(packet)
    await store.replace(packet, etag=stored.etag, deliveries=(delivery_of(),))
    await says(Action.RETIRED, digest="b" * 64)
    output, services = output_of(), registered()
    clock.pass_time(60)
    states = await relay(
        store=store,
        models=services.models,
        outputs=(output,),
        clock=clock,
        switches=services.switches,
        expires_after=services.site.expires_after,
    )
    assert (states, output.sent) == ({DeliveryState.DEAD: 1}, [])
    assert (await store.read_delivery("p01.score-column")).last_error == "not-approved"
