"""Beginning a batch's slot: who may, with which patients, and in which chunks; or taking over from a worker that died.

The app's timer asks every minute. What is due is decided by the schedule and the watermark alone, so that it does not
matter how often, how late or on how many workers the timer fires: a slot's run is one record, created once, and taken
over only after its lease. Even two workers that both believe they hold a run would derive the same packet ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from itertools import islice, takewhile
from typing import Any

import msgspec

from deployr_core.packet import Subject
from deployr_serve.core import batch_runs as runs
from deployr_serve.core.batch import Batch, Queue, RollCaller, Worklist, WorklistUnusable
from deployr_serve.core.batch_runs import Chunk, Held, Run, RunState, Watermark
from deployr_serve.core.errors import UNEXPECTED, RecordChanged, ServeError, TryLater
from deployr_serve.core.infer import Services
from deployr_serve.core.ports import Budget, Lane, Records

LEASE = timedelta(minutes=4)
"""Longer than a chunk goes without a word, shorter than anybody would wait for a worker that died."""
LISTING_S = 200.0
"""What reading a worklist may take, so that it ends before its lease does."""
MAX_ATTEMPTS = 5
"""How often the chunks of one run are handed out."""
MOST_GAP = 1000
"""How many missed slots are counted; what is longer was no fault of a night."""

SUPERSEDED, ABANDONED = "next-slot-due", "worker-died"
LATE = "not-begun-in-time"


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """What the batches of a site reach the world through; ``worklists`` are by the batch's name.

    ``at``: under which name the site is served beside others; None where it is alone.
    """

    declared: tuple[Batch, ...]
    services: Services
    queue: Queue
    roll_caller: RollCaller
    worklists: Mapping[str, Worklist]
    site_zone: tzinfo
    at: str | None = None

    def message_of(self, chunk_id: str) -> str:
        """Give what is queued for a chunk: its id, after the name of the site where it is one of several."""
        return chunk_id if self.at is None else f"{self.at}/{chunk_id}"

    def chunk_in(self, message: str) -> str | None:
        """Give the id of the chunk that a message is about; None if it is another site's."""
        own, _, chunk_id = message.rpartition("/")
        return chunk_id if own == (self.at or "") else None

    @property
    def records(self) -> Records:
        """What all workers share."""
        return self.services.records

    def models_of(self, batch: Batch) -> tuple[str, ...]:
        """Give the models that a batch scores with."""
        return batch.models if batch.group is None else self.services.policies.in_group(batch.group)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """What one look at the schedule came to, for the log; ``run`` and ``closed`` are the runs that it changed."""

    outcome: str
    run: Run | None = None
    closed: Run | None = None


async def start_due(batch: Batch, using: Batches) -> Tick:
    """Begin the slot that is due, if one is and nobody has; `Tick.outcome` says what came of it.

    Raises:
        StoreUnavailable: nothing can be begun; the next tick tries again.
    """
    records, now = using.records, using.services.clock.now()
    back = batch.slots(using.site_zone).back_from(now)
    slot = next(back, None)
    held = await runs.read(records, runs.WATERMARK, batch.name, Watermark, now=now)
    mark = held.content if held else None
    if slot is None or (mark is not None and slot < mark.slot):
        return Tick(outcome="nothing-due")
    closed = None
    if mark is not None and mark.slot < slot:
        # Never two slots of one batch at a time: the next one waits, and what passes meanwhile is a gap.
        previous = await runs.read(records, runs.RUN, runs.run_id_of(batch.name, mark.slot), Run, now=now)
        if previous is not None and previous.content.is_open:
            if previous.content.lease_until > now:
                return Tick(outcome="previous-still-running")
            closed = await runs.change_run(records, previous.content.run_id, _closed(SUPERSEDED, now), now=now)
    tick, ours = await _claim(batch, slot, mark, back, using)
    if ours is None:
        return replace(tick, closed=closed)
    if ours.content.state is RunState.SCORING:
        await _hand_out(ours.content, using)
        return Tick(outcome="handed-out-again", run=ours.content, closed=closed)
    return replace(await _listed_and_handed_out(batch, ours, mark.sizes if mark else (), using), closed=closed)


async def _claim(
    batch: Batch, slot: datetime, mark: Watermark | None, back: Iterator[datetime], using: Batches
) -> tuple[Tick, Held[Run] | None]:
    """Make the slot's run ours; what to say, and None, where it is not ours to go on with."""
    records, now = using.records, using.services.clock.now()
    held = await runs.read(records, runs.RUN, runs.run_id_of(batch.name, slot), Run, now=now)
    is_late = now - slot > batch.start_within
    if held is None and mark is None and is_late:
        return Tick(outcome="nothing-due"), None
    if held is not None and held.content.is_open and held.content.lease_until > now:
        return Tick(outcome="running"), None
    if held is None:
        ours = await _created(batch, slot, mark, back, using, is_late=is_late)
    else:
        ours = await _taken_over(batch, held, records, now) if held.content.is_open else None
    # After the run is there: a worker that dies in between must not leave a slot that nobody has begun.
    await runs.move_watermark(records, batch.name, slot, now=now)
    if held is not None and not held.content.is_open:
        return Tick(outcome="done-already"), None
    if ours is None:
        return Tick(outcome="taken"), None
    run = ours.content
    return (Tick(outcome="claimed", run=run), ours) if run.is_open else (Tick(outcome=run.state, run=run), None)


async def _created(
    batch: Batch, slot: datetime, mark: Watermark | None, back: Iterator[datetime], using: Batches, *, is_late: bool
) -> Held[Run] | None:
    """Create the slot's run; None if another worker did."""
    now = using.services.clock.now()
    missed = 0
    if mark is not None:
        missed = sum(1 for _ in takewhile(lambda earlier: earlier > mark.slot, islice(back, MOST_GAP)))
    run = Run(
        batch=batch.name,
        slot=slot,
        state=RunState.MISSED if is_late else RunState.LISTING,
        reason=LATE if is_late else None,
        started_at=now,
        updated_at=now,
        lease_until=now + LEASE,
        gap=missed,
        models=len(using.models_of(batch)),
        alerts=("slots-missed",) if missed or is_late else (),
    )
    record = await using.records.create_record(
        runs.RUN, run.run_id, msgspec.json.encode(run), now=now, expires_at=slot + runs.RUNS_KEPT
    )
    return None if record is None else Held(content=run, etag=record.etag)


async def _taken_over(batch: Batch, held: Held[Run], records: Records, now: datetime) -> Held[Run] | None:
    """Make a dead worker's run ours, or end it where that has no use any more; None if another worker was first."""
    run = held.content
    if run.state is RunState.LISTING and now - run.slot > batch.start_within:
        after = _closed(LATE, now)(run)
    elif run.state is RunState.SCORING and run.attempt >= MAX_ATTEMPTS:
        after = _closed(ABANDONED, now)(run)
    else:
        after = msgspec.structs.replace(run, attempt=run.attempt + 1, lease_until=now + LEASE, updated_at=now)
    if after is None:
        return None
    try:
        return Held(content=after, etag=await runs.save_run(records, after, etag=held.etag))
    except RecordChanged:
        return None


def _closed(reason: str, now: datetime) -> Callable[[Run], Run | None]:
    def close(run: Run) -> Run | None:
        if not run.is_open:
            return None
        state = RunState.FAILED if run.state is RunState.LISTING else RunState.INCOMPLETE
        alerts = (*run.alerts, f"run-{state}")
        return msgspec.structs.replace(run, state=state, reason=run.reason or reason, updated_at=now, alerts=alerts)

    return close


async def _listed_and_handed_out(batch: Batch, claimed: Held[Run], recent: tuple[int, ...], using: Batches) -> Tick:
    run = await _listed(batch, claimed.content, recent, using)
    try:
        await runs.save_run(using.records, run, etag=claimed.etag)
    except RecordChanged:
        # Our lease ran out, and whoever took the run over has chunks of its own.
        return Tick(outcome="taken")
    if run.state is RunState.LISTING:
        return Tick(outcome="listed-later", run=run)
    if run.state is RunState.FAILED:
        return Tick(outcome=run.state, run=run)
    now = using.services.clock.now()
    await runs.move_watermark(using.records, batch.name, run.slot, now=now, size=run.patients)
    await _hand_out(run, using)
    return Tick(outcome="handed-out", run=run)


async def _listed(batch: Batch, run: Run, recent: tuple[int, ...], using: Batches) -> Run:
    """Read the worklist and store its chunks; give the run with what came of it."""
    clock = using.services.clock
    budget = Budget(deadline=clock.monotonic() + LISTING_S, correlation_id=run.run_id, lane=Lane.BATCH)

    def after(state: RunState, reason: str | None = None, **changes: Any) -> Run:
        alerts = (*run.alerts, reason) if state is RunState.FAILED and reason else run.alerts
        return msgspec.structs.replace(
            run, state=state, reason=reason, alerts=alerts, updated_at=clock.now(), **changes
        )

    try:
        roster = await using.worklists[batch.name].read(budget=budget)
        listed = len(roster.rows)
        if batch.band.too_large(listed, recent):
            return after(RunState.FAILED, "worklist-too-large", listed=listed)
        called = await using.roll_caller.call(roster, budget=budget)
    except (TryLater, WorklistUnusable) as error:
        # Free for the next tick, as long as the slot may still be begun.
        return after(RunState.LISTING, error.reason, lease_until=clock.now())
    except ServeError as error:
        return after(RunState.FAILED, error.reason)
    except Exception:  # noqa: BLE001 one batch whose list nobody foresaw must end as failed, not be tried every minute
        return after(RunState.FAILED, UNEXPECTED)
    counts: dict[str, Any] = {
        "listed": listed,
        "patients": len(called.present),
        "skipped": dict(Counter(roster.dropped) + Counter(called.skipped)),
    }
    if batch.band.too_small(len(called.present), recent):
        return after(RunState.FAILED, "worklist-too-small", **counts)
    if not called.present:
        return after(RunState.COMPLETE, **counts)
    chunks = await _store_chunks(batch, run, called.present, using)
    return after(RunState.SCORING, chunks=chunks, planned_by=run.attempt, lease_until=clock.now() + LEASE, **counts)


async def _store_chunks(batch: Batch, run: Run, patients: tuple[Subject, ...], using: Batches) -> int:
    now, models = using.services.clock.now(), using.models_of(batch)
    number = 0
    for number, part in enumerate(_parts(patients, batch.chunk_size), start=1):
        chunk = Chunk(
            run_id=run.run_id, planned_by=run.attempt, number=number, slot=run.slot, models=models, patients=part
        )
        await using.records.create_record(
            runs.CHUNK, chunk.chunk_id, msgspec.json.encode(chunk), now=now, expires_at=run.slot + runs.RUNS_KEPT
        )
    return number


def _parts(patients: tuple[Subject, ...], size: int) -> Iterator[tuple[Subject, ...]]:
    return (patients[start : start + size] for start in range(0, len(patients), size))


async def _hand_out(run: Run, using: Batches) -> None:
    """Queue what is not done; a chunk that is queued twice is scored once."""
    for number in range(1, run.chunks + 1):
        if str(number) not in run.done:
            await using.queue.put(using.message_of(runs.chunk_id_of(run.run_id, run.planned_by, number)))
