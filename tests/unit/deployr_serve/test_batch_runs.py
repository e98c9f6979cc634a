"""Slots of a batch: begun once on however many workers, taken over, never stacked or back-filled; each patient once.

The batch is hourly. The clock stands at 20:55, so the slot that is due is that of 20:00.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deployr_core.packet import Failed, Mode, Scored, Subject
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core import batch_runs as runs
from deployr_serve.core.batch import Band, Batch, CsvDrop, Listed, RollCall, Roster, WorklistUnusable
from deployr_serve.core.batch_chunk import ChunkPutBack, score_chunk
from deployr_serve.core.batch_runs import Run, RunState
from deployr_serve.core.batch_start import LEASE, Batches, start_due
from deployr_serve.core.errors import EmrRefused, EmrUnreachable, StoreUnavailable, WrongPatient
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import Lane

SLOT = datetime(2015, 1, 6, 20, tzinfo=UTC)
HOUR, MINUTE = 3600.0, 60.0


class FakeWorklist:
    """Gives so many patients, or raises what is next in ``failures``."""

    def __init__(self, size=3, failures=()):
        self.size = size
        self.failures = list(failures)
        self.budgets = []

    async def read(self, *, budget):
        self.budgets.append(budget)
        if self.failures:
            raise self.failures.pop(0)
        return Roster(rows=tuple(Listed(patient=("FHIR", f"p{n}"), encounter=None) for n in range(self.size)))


class FakeRollCaller:
    """Lets everybody be there but those in ``gone``."""

    def __init__(self, *gone):
        self.gone = gone

    async def call(self, roster, *, budget):
        named = [row.patient[1] for row in roster.rows if row.patient[1] not in self.gone]
        skipped = {"discharged": len(roster.rows) - len(named)} if self.gone else {}
        return RollCall(present=tuple(Subject(patient_id=name) for name in named), skipped=skipped)


class MemoryQueue:
    """Holds messages until the test takes them."""

    def __init__(self, failures=()):
        self.messages = []
        self.failures = list(failures)

    async def put(self, message):
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        self.messages.append(message)


class PatientSource:
    """Answers well for everybody but those in ``failing``, who get that exception, and notes who was asked about."""

    def __init__(self, answer, **failing):
        self.answer = answer
        self.failing = failing
        self.asked = []
        self.stuck = {}
        self.reached = asyncio.Event()
        self.lanes = set()
        self.under_way = self.peak = 0

    async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
        self.asked.append(subject.patient_id)
        self.lanes.add(budget.lane)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        await asyncio.sleep(0)
        if subject.patient_id in self.stuck:
            self.reached.set()
            await self.stuck[subject.patient_id].wait()
        self.under_way -= 1
        failure = self.failing.get(subject.patient_id) or self.failing.get("everybody")
        if failure is not None:
            raise failure
        return self.answer


@pytest.fixture
def batch():
    return Batch(
        schema_version=1,
        name="icu",
        schedule="0 0 * * * *",
        models=("hematocrit",),
        worklist=CsvDrop(file="unused"),
        chunk_size=2,
        band=Band(at_most=100),
    )


@pytest.fixture
def source(fetched_of, lab_of):
    return PatientSource(fetched_of(lab_of()))


@pytest.fixture
def site_of(batch, services_of, source):
    """Give a function that makes a worker; workers that are given the same store and queue share them."""

    def make(*, store=None, queue=None, worklist=None, roll_caller=None, source=source, **changes):
        return Batches(
            declared=(batch,),
            services=services_of(store=store, source=source, **changes),
            queue=queue or MemoryQueue(),
            roll_caller=roll_caller or FakeRollCaller(),
            worklists={"icu": worklist or FakeWorklist()},
            site_zone=UTC,
        )

    return make


@pytest.fixture
def site(site_of):
    return site_of()


async def run_at(site, slot=SLOT):
    held = await runs.read(site.records, runs.RUN, runs.run_id_of("icu", slot), Run, now=site.services.clock.now())
    return held.content if held else None


async def work(site, *, last_try=True):
    """Take every message from the queue and score it; give what came of each."""
    outcomes = []
    while site.queue.messages:
        done = await score_chunk(site.queue.messages.pop(0), site.services, is_last_try=last_try)
        outcomes.append(done.outcome)
    return outcomes


async def packets(site, model="hematocrit"):
    return await site.services.store.packets(model_id=model, after=None, limit=10_000)


# -- one slot, as it should go


async def test_a_slot_is_listed_handed_out_scored_and_complete(site, batch, source):
    tick = await start_due(batch, site)
    assert tick.outcome == "handed-out"
    assert site.queue.messages == ["icu.20150106T200000Z.1-1", "icu.20150106T200000Z.1-2"]  # of two patients, and one
    assert await work(site) == ["scored", "scored"]
    run = await run_at(site)
    assert (run.state, run.listed, run.patients, run.chunks) == (RunState.COMPLETE, 3, 3, 2)
    assert (run.totals, run.unanswered, run.alerts) == ({"scored": 3}, 0, ())
    assert source.lanes == {Lane.BATCH}


async def test_the_packets_are_as_of_the_slot_and_come_by_the_timer(site, batch):
    await start_due(batch, site)
    await work(site)
    found = await packets(site)
    assert {packet.as_of for packet in found} == {SLOT}
    assert {packet.trigger.channel for packet in found} == {"timer"}
    assert sorted(packet.subject.patient_id for packet in found) == ["p0", "p1", "p2"]
    assert all(isinstance(packet.outcome, Scored) for packet in found)


async def test_no_id_in_queue_or_records_tells_who_it_is_about(site, batch):
    site.worklists["icu"].size = 1
    await start_due(batch, site)
    [message] = site.queue.messages
    await work(site)
    assert "p0" not in message
    for kind in (runs.RUN, runs.CHUNK, runs.WATERMARK):
        held = await site.records.records(kind, now=SLOT)
        assert held
        assert not any("p0" in record_id for record_id in held)


async def test_the_models_of_a_group_share_one_run(site_of, batch, bundle, models_of, source):
    policies = tuple(
        Policy(schema_version=1, model=model, mode=Mode.LIVE, groups=("blood",)) for model in ("anemia", "hematocrit")
    )
    site = site_of(policies=policies, models=models_of(hematocrit=bundle, anemia=bundle))
    batch = msgspec.structs.replace(batch, models=(), group="blood")
    await start_due(batch, site)
    await work(site)
    run = await run_at(site)
    assert (run.state, run.totals) == (RunState.COMPLETE, {"scored": 6})
    assert len(await packets(site, "anemia")) == len(await packets(site)) == 3


async def test_who_is_gone_is_skipped_and_counted(site_of, batch):
    site = site_of(roll_caller=FakeRollCaller("p1"))
    await start_due(batch, site)
    await work(site)
    run = await run_at(site)
    assert (run.state, run.listed, run.patients, run.skipped) == (RunState.COMPLETE, 3, 2, {"discharged": 1})


async def test_no_more_patients_are_read_at_a_time_than_agreed(site_of, batch, source):
    site = site_of(worklist=FakeWorklist(60))
    await start_due(msgspec.structs.replace(batch, chunk_size=60), site)
    await work(site)
    assert len(source.asked) == 60
    assert source.peak == 16


# -- fired twice, on one worker or two


async def test_a_slot_that_fires_again_does_nothing_more(site, batch, clock, source):
    await start_due(batch, site)
    assert (await start_due(batch, site)).outcome == "running"
    await work(site)
    clock.pass_time(MINUTE)
    assert (await start_due(batch, site)).outcome == "done-already"
    assert sorted(source.asked) == ["p0", "p1", "p2"]


async def test_two_workers_that_fire_at_once_score_each_patient_once(
    site_of, batch, clock, tmp_path, source, output_of
):
    # Whoever waits for the other's packet looks for it as often as the machine lets them: no deadline passes by that.
    clock.pass_time = lambda _: None
    stores = [SqliteStore(tmp_path / "store.sqlite") for _ in range(2)]
    queue, output = MemoryQueue(), output_of()
    first, second = (site_of(store=store, queue=queue, outputs=(output,)) for store in stores)
    ticks = await asyncio.gather(*(start_due(batch, site) for site in (first, second, first, second)))
    assert sorted(tick.outcome for tick in ticks if tick.outcome == "handed-out") == ["handed-out"]
    # Both get every chunk, as if each believed that it holds the run alone.
    await asyncio.gather(
        *(
            score_chunk(message, site.services, is_last_try=True)
            for message in queue.messages
            for site in (first, second)
        )
    )
    run = await run_at(first)
    assert (run.state, run.totals) == (RunState.COMPLETE, {"scored": 3})
    assert len(await packets(first)) == 3
    assert len(output.sent) == len(set(output.sent)) == 3
    assert sorted(source.asked) == ["p0", "p1", "p2"]
    for store in stores:
        await store.aclose()


async def test_two_batches_with_the_same_model_slot_and_patient_make_one_packet(site, batch, source):
    other = msgspec.structs.replace(batch, name="ward")
    both = replace(site, worklists={"icu": FakeWorklist(), "ward": FakeWorklist()})
    await start_due(batch, both)
    await start_due(other, both)
    await work(both)
    assert len(await packets(both)) == 3
    assert sorted(source.asked) == ["p0", "p1", "p2"]


async def test_a_chunk_that_is_queued_twice_is_scored_once(site, batch, source):
    await start_due(batch, site)
    site.queue.messages *= 2
    assert sorted(await work(site)) == ["over-already", "over-already", "scored", "scored"]
    assert len(source.asked) == 3


@pytest.mark.parametrize("message", ["", "../../etc", "icu.20150106T200000Z", "icu.20150106T200000Z.1-9", "x" * 5000])
async def test_a_message_about_no_chunk_is_let_go(site, message):
    done = await score_chunk(message, site.services, is_last_try=False)
    assert done.run is None


# -- died half-way


async def die_in_chunk(chunk, site, source):
    """Let a worker end while it reads patient p1, with p0 scored and stored."""
    source.stuck["p1"] = asyncio.Event()
    dying = asyncio.create_task(score_chunk(chunk, site.services, is_last_try=False))
    await source.reached.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    source.stuck.clear()
    assert (await run_at(site)).done == {}


async def test_a_worker_that_dies_in_a_chunk_leaves_the_rest_to_the_next(site, batch, source, clock):
    await start_due(batch, site)
    await die_in_chunk(site.queue.messages[0], site, source)
    clock.pass_time(2 * 8.0 + 1)  # the lease of p1's packet
    await work(site)
    run = await run_at(site)
    assert (run.state, run.totals) == (RunState.COMPLETE, {"scored": 3})
    assert sorted(source.asked) == ["p0", "p1", "p1", "p2"]
    assert len(await packets(site)) == 3


async def test_a_worker_that_dies_before_it_has_queued_all_is_followed_by_another(site_of, batch, clock):
    site = site_of(queue=MemoryQueue(failures=[None, StoreUnavailable("gone")]))
    with pytest.raises(StoreUnavailable):
        await start_due(batch, site)
    assert len(site.queue.messages) == 1
    assert (await start_due(batch, site)).outcome == "running"
    clock.pass_time(LEASE.total_seconds())
    assert (await start_due(batch, site)).outcome == "handed-out-again"
    assert await work(site) == ["scored", "over-already", "scored"]
    assert (await run_at(site)).state is RunState.COMPLETE


async def test_a_worker_that_dies_while_it_lists_is_followed_after_its_lease(site_of, batch, clock):
    store = MemoryStore()
    site = site_of(store=store, worklist=FakeWorklist(failures=[asyncio.CancelledError()]))
    with pytest.raises(asyncio.CancelledError):
        await start_due(batch, site)
    clock.pass_time(LEASE.total_seconds() - 1)
    assert (await start_due(batch, site)).outcome == "running"
    clock.pass_time(1)
    tick = await start_due(batch, site)
    # 20:59: the slot may still be begun.
    assert (tick.outcome, tick.run.attempt) == ("handed-out", 2)
    await work(site)
    assert (await run_at(site)).state is RunState.COMPLETE


async def test_a_chunk_that_comes_again_while_a_patient_is_under_way_elsewhere_is_put_back(site, batch, source):
    await start_due(batch, site)
    first = site.queue.messages[0]
    await die_in_chunk(first, site, source)
    with pytest.raises(ChunkPutBack):
        await score_chunk(first, site.services, is_last_try=False)
    assert (await run_at(site)).done == {}


async def test_a_chunk_of_which_the_store_did_not_take_one_patient_is_put_back(site_of, batch):
    class RefusesTheFirst(MemoryStore):
        refused = False

        async def create(self, packet):
            if not self.refused:
                self.refused = True
                raise StoreUnavailable("expected a store")
            return await super().create(packet)

    site = site_of(store=RefusesTheFirst(), worklist=FakeWorklist(4))
    await start_due(msgspec.structs.replace(batch, chunk_size=4), site)
    [chunk] = site.queue.messages
    with pytest.raises(ChunkPutBack):
        await score_chunk(chunk, site.services, is_last_try=False)
    await work(site)
    assert ((await run_at(site)).state, (await run_at(site)).totals) == (RunState.COMPLETE, {"scored": 4})


async def test_a_worker_that_was_slow_and_wakes_up_changes_nothing(site_of, batch, clock):
    """It lists, its lease ends, another lists and hands out; then the first one comes back with its own list."""
    store, queue = MemoryStore(), MemoryQueue()
    asleep, awake = asyncio.Event(), asyncio.Event()

    class Slow(FakeWorklist):
        async def read(self, *, budget):
            asleep.set()
            await awake.wait()
            return await super().read(budget=budget)

    slow = site_of(store=store, queue=queue, worklist=Slow(9))
    quick = site_of(store=store, queue=queue)
    sleeping = asyncio.create_task(start_due(batch, slow))
    await asleep.wait()
    clock.pass_time(LEASE.total_seconds())
    assert (await start_due(batch, quick)).outcome == "handed-out"
    awake.set()
    assert (await sleeping).outcome == "taken"
    assert len(queue.messages) == 2
    await work(quick)
    assert (await run_at(quick)).totals == {"scored": 3}


async def test_chunks_that_nobody_finishes_are_given_up_after_a_few_goes(site, batch, clock):
    await start_due(msgspec.structs.replace(batch, schedule="0 0 20 * * *"), site)
    daily = msgspec.structs.replace(batch, schedule="0 0 20 * * *")
    outcomes = []
    for _ in range(5):
        site.queue.messages.clear()
        clock.pass_time(LEASE.total_seconds())
        outcomes.append((await start_due(daily, site)).outcome)
    assert outcomes == ["handed-out-again"] * 4 + ["incomplete"]
    run = await run_at(site)
    assert (run.state, run.reason, run.unanswered) == (RunState.INCOMPLETE, "worker-died", 3)
    assert run.alerts == ("run-incomplete",)


# -- missed, late, too long


async def test_slots_that_were_missed_are_a_gap_and_only_the_current_one_is_scored(site, batch, clock):
    await start_due(batch, site)
    await work(site)
    clock.pass_time(4 * HOUR)  # 00:55; the slots of 21, 22 and 23 h came and went
    assert (await start_due(batch, site)).outcome == "handed-out"
    await work(site)
    run = await run_at(site, SLOT + timedelta(hours=4))
    assert (run.state, run.gap, run.alerts) == (RunState.COMPLETE, 3, ("slots-missed",))
    assert {packet.as_of for packet in await packets(site)} == {SLOT, SLOT + timedelta(hours=4)}


async def test_a_slot_that_comes_too_late_is_left_out_and_said(site, batch, clock):
    prompt = msgspec.structs.replace(batch, start_within_minutes=10)
    assert (await start_due(prompt, site)).outcome == "nothing-due"  # never ran: at 20:55 nothing was missed yet
    clock.pass_time(6 * MINUTE)  # 21:01
    await start_due(prompt, site)
    await work(site)
    clock.pass_time(70 * MINUTE)  # 22:11
    assert (await start_due(prompt, site)).outcome == "missed"
    run = await run_at(site, SLOT + timedelta(hours=2))
    assert (run.state, run.alerts) == (RunState.MISSED, ("slots-missed",))
    assert (await start_due(prompt, site)).outcome == "done-already"
    assert len(await packets(site)) == 3


async def test_a_slot_is_begun_at_the_end_of_its_time_and_not_after_it(site_of, batch, clock):
    exact = msgspec.structs.replace(batch, start_within_minutes=55)
    assert (await start_due(exact, site_of())).outcome == "handed-out"
    clock.pass_time(1)
    assert (await start_due(exact, site_of())).outcome == "nothing-due"


async def test_a_run_longer_than_the_interval_is_not_stacked(site, batch, clock, source):
    await start_due(batch, site)
    first, second = site.queue.messages
    clock.pass_time(3 * MINUTE)
    await score_chunk(first, site.services, is_last_try=True)  # a sign of life at 20:58
    clock.pass_time(3 * MINUTE)
    assert (await start_due(batch, site)).outcome == "previous-still-running"  # 21:01
    await score_chunk(second, site.services, is_last_try=True)
    site.queue.messages.clear()
    assert (await start_due(batch, site)).outcome == "handed-out"  # the slot of 21:00, once the other has ended
    assert (await run_at(site, SLOT + timedelta(hours=1))).gap == 0


async def test_a_dead_run_ends_incomplete_when_the_next_slot_is_due(site, batch, clock):
    await start_due(batch, site)
    first, second = site.queue.messages
    await score_chunk(first, site.services, is_last_try=True)
    site.queue.messages.clear()
    clock.pass_time(10 * MINUTE)
    tick = await start_due(batch, site)
    assert (tick.outcome, tick.closed.state) == ("handed-out", RunState.INCOMPLETE)
    run = await run_at(site)
    assert (run.reason, run.totals, run.unanswered) == ("next-slot-due", {"scored": 2}, 1)
    # The old chunk comes late, and is not scored as of an hour ago.
    assert (await score_chunk(second, site.services, is_last_try=True)).outcome == "over-already"


async def test_a_clock_that_went_back_begins_nothing(site, batch, clock):
    await start_due(batch, site)
    clock.pass_time(-2 * HOUR)
    assert (await start_due(batch, site)).outcome == "nothing-due"


# -- the worklist


async def test_a_list_that_cannot_be_had_is_asked_for_again_each_minute(site_of, batch, clock):
    failures = [EmrUnreachable("x"), WorklistUnusable("worklist-damaged", "x")]
    site = site_of(worklist=FakeWorklist(failures=failures))
    assert (await start_due(batch, site)).outcome == "listed-later"
    assert (await run_at(site)).reason == "emr-unreachable"
    clock.pass_time(MINUTE)
    assert (await start_due(batch, site)).outcome == "listed-later"
    clock.pass_time(MINUTE)
    assert (await start_due(batch, site)).outcome == "handed-out"
    await work(site)
    assert ((await run_at(site)).state, (await run_at(site)).attempt) == (RunState.COMPLETE, 3)


async def test_a_list_that_never_comes_is_a_failed_run(site_of, batch, clock):
    site = site_of(worklist=FakeWorklist(failures=[EmrUnreachable("x")] * 2))
    await start_due(batch, site)
    clock.pass_time(5 * MINUTE)  # 21:00: the next slot
    tick = await start_due(batch, site)
    assert (tick.closed.state, tick.closed.reason, tick.closed.alerts) == (
        RunState.FAILED,
        "emr-unreachable",
        ("run-failed",),
    )


@pytest.mark.parametrize(("failure", "reason"), [(EmrRefused("x"), "emr-refused"), (RuntimeError("x"), "unexpected")])
async def test_a_list_that_somebody_must_mend_ends_the_run_at_once(site_of, batch, failure, reason):
    site = site_of(worklist=FakeWorklist(failures=[failure]))
    assert (await start_due(batch, site)).outcome == "failed"
    assert (await run_at(site)).alerts == (reason,)
    assert (await start_due(batch, site)).outcome == "done-already"


async def test_nobody_on_the_list_is_a_failure_and_no_success(site_of, batch):
    site = site_of(worklist=FakeWorklist(0))
    await start_due(batch, site)
    run = await run_at(site)
    assert (run.state, run.reason, run.alerts) == (RunState.FAILED, "worklist-too-small", ("worklist-too-small",))
    assert site.queue.messages == []


async def test_far_too_many_on_the_list_are_not_even_looked_up(site_of, batch, source):
    class Unasked:
        async def call(self, roster, *, budget):
            raise AssertionError("asked")

    site = site_of(worklist=FakeWorklist(101), roll_caller=Unasked())
    await start_due(batch, site)
    run = await run_at(site)
    assert (run.state, run.reason, run.listed) == (RunState.FAILED, "worklist-too-large", 101)
    assert source.asked == []


async def test_what_is_usual_is_learnt_from_the_runs_that_were_handed_out(site_of, batch, clock):
    worklist = FakeWorklist(12)
    site = site_of(worklist=worklist)
    for _ in range(3):
        await start_due(batch, site)
        await work(site)
        clock.pass_time(HOUR)
    worklist.size = 2  # under a quarter of 12
    assert (await start_due(batch, site)).run.reason == "worklist-too-small"
    clock.pass_time(HOUR)
    worklist.size = 49  # over four times 12
    assert (await start_due(batch, site)).run.reason == "worklist-too-large"
    clock.pass_time(HOUR)
    worklist.size = 12
    assert (await start_due(batch, site)).outcome == "handed-out"


async def test_an_empty_list_that_is_allowed_is_a_complete_run(site_of, batch):
    site = site_of(worklist=FakeWorklist(0))
    await start_due(msgspec.structs.replace(batch, band=Band(at_least=0)), site)
    assert (await run_at(site)).state is RunState.COMPLETE


# -- those for whom it does not go well


async def test_one_poison_patient_does_not_stop_the_others(site_of, batch, source):
    source.failing["p1"] = RuntimeError("p1 in the message")
    site = site_of(worklist=FakeWorklist(4))
    await start_due(msgspec.structs.replace(batch, chunk_size=4), site)
    await work(site)
    run = await run_at(site)
    assert (run.state, run.totals) == (RunState.INCOMPLETE, {"scored": 3, "failed": 1})
    assert run.done == {"1": {"failed:unexpected": 1, "scored": 3}}
    assert "p1" not in repr(run)


async def test_a_poison_patient_is_left_out_after_three_slots_and_tried_again_later(site_of, batch, source, clock):
    source.failing["p1"] = EmrUnreachable("always 500")
    site = site_of(worklist=FakeWorklist(4))
    batch = msgspec.structs.replace(batch, chunk_size=4)
    endings, alerts = [], []
    for hour in range(8):
        if hour == 7:
            source.failing.clear()
        await start_due(batch, site)
        await work(site)
        run = await run_at(site, SLOT + timedelta(hours=hour))
        endings.append(run.totals)
        alerts.append(run.alerts)
        clock.pass_time(HOUR)
    failed, out = {"scored": 3, "failed": 1}, {"scored": 3, "quarantined": 1}
    # Failed at 0, 1 and 2 h, which is 2 h: out for 4 h after that, which is 3, 4 and 5 h; tried at 6 h, and out again.
    assert endings == [failed, failed, failed, out, out, out, failed, out]
    assert alerts[2] == alerts[6] == ("patient-quarantined",)
    assert alerts[0] == alerts[1] == alerts[3] == ()
    assert source.asked.count("p1") == 4


async def test_a_patient_for_whom_it_goes_well_again_starts_anew(site_of, batch, source, clock):
    site = site_of(worklist=FakeWorklist(4))
    batch = msgspec.structs.replace(batch, chunk_size=4)
    for hour, failing in enumerate((True, True, False, True, True)):
        source.failing = {"p1": EmrUnreachable("x")} if failing else {}
        await start_due(batch, site)
        await work(site)
        assert (await run_at(site, SLOT + timedelta(hours=hour))).alerts == ()
        clock.pass_time(HOUR)
    assert source.asked.count("p1") == 5


async def test_nobody_is_left_out_because_the_emr_was_down(site_of, batch, source, clock):
    site = site_of(worklist=FakeWorklist(4))
    batch = msgspec.structs.replace(batch, chunk_size=4)
    source.failing["everybody"] = EmrUnreachable("x")
    for _ in range(4):
        await start_due(batch, site)
        await work(site)
        clock.pass_time(HOUR)
    source.failing.clear()
    await start_due(batch, site)
    await work(site)
    assert (await run_at(site, SLOT + timedelta(hours=4))).totals == {"scored": 4}
    assert (await run_at(site)).alerts == ("run-incomplete",)


async def test_a_chunk_that_mostly_failed_is_put_back_until_its_last_try(site, batch, source):
    await start_due(batch, site)
    source.failing["everybody"] = EmrUnreachable("x")
    chunk = site.queue.messages[0]
    with pytest.raises(ChunkPutBack):
        await score_chunk(chunk, site.services, is_last_try=False)
    assert (await run_at(site)).done == {}
    source.failing.clear()
    await work(site)
    assert ((await run_at(site)).state, (await run_at(site)).totals) == (RunState.COMPLETE, {"scored": 3})


async def test_who_is_rejected_is_answered_and_no_failure(site_of, batch, source):
    source.failing["p1"] = WrongPatient("x")
    site = site_of()
    await start_due(batch, site)
    await work(site)
    run = await run_at(site)
    assert (run.state, run.totals) == (RunState.COMPLETE, {"scored": 2, "rejected": 1})


async def test_a_failed_patient_leaves_a_failed_packet(site_of, batch, source):
    source.failing["p1"] = EmrUnreachable("x")
    site = site_of()
    await start_due(batch, site)
    await work(site)
    failed = [packet for packet in await packets(site) if isinstance(packet.outcome, Failed)]
    assert [packet.subject.patient_id for packet in failed] == ["p1"]
