"""What is kept of a batch's runs: one record per slot, one per chunk, and how far each batch has come.

No id carries an identity. Who is in a chunk stands in its record, which is kept as long as packets are protected: in
the store, never in the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

from deployr_core.packet import Subject
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.ports import Records

RUN, CHUNK, WATERMARK = "run", "chunk", "watermark"
RUNS_KEPT = timedelta(days=14)

T = TypeVar("T", bound=msgspec.Struct)


class RunState(StrEnum):
    """Where a run stands.

    ``listing``: the worklist is being read. ``scoring``: its chunks are handed out. ``complete``: every patient was
    answered. ``incomplete``: some were not. ``failed``: nobody was scored. ``missed``: the slot came and went unseen.
    """

    LISTING = "listing"
    SCORING = "scoring"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    MISSED = "missed"


OPEN = frozenset({RunState.LISTING, RunState.SCORING})


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of one batch. Instants are aware UTC.

    ``lease_until``: an open run whose worker has not been heard of by then is taken over. ``attempt`` counts its
    workers; ``planned_by`` is the one whose chunks count. ``gap``: slots before this one that were not run.
    ``done``: by chunk number, how many inferences ended how, such as ``scored`` or ``failed:emr-timeout``.
    ``alerts``: codes of what somebody should look at.
    """

    schema_version: int = 1
    batch: str
    slot: datetime
    state: RunState
    started_at: datetime
    updated_at: datetime
    lease_until: datetime
    attempt: int = 1
    planned_by: int = 0
    reason: str | None = None
    gap: int = 0
    listed: int = 0
    patients: int = 0
    models: int = 0
    skipped: Mapping[str, int] = msgspec.field(default_factory=dict)
    chunks: int = 0
    done: Mapping[str, Mapping[str, int]] = msgspec.field(default_factory=dict)
    alerts: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The batch and its slot."""
        return run_id_of(self.batch, self.slot)

    @property
    def is_open(self) -> bool:
        """True until the run has ended, one way or another."""
        return self.state in OPEN

    @property
    def totals(self) -> dict[str, int]:
        """How many inferences were ``scored``, ``abstained``, ``rejected``, ``failed`` or ``quarantined``."""
        totals: Counter[str] = Counter()
        for counts in self.done.values():
            for ending, count in counts.items():
                totals[ending.partition(":")[0]] += count
        return dict(totals)

    @property
    def unanswered(self) -> int:
        """How many inferences have no answer: failed, quarantined, or in a chunk that nobody has finished."""
        answered = sum(self.totals.get(ending, 0) for ending in ("scored", "abstained", "rejected"))
        return self.patients * self.models - answered


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a run's patients; it says all that its scoring needs."""

    run_id: str
    planned_by: int
    number: int
    slot: datetime
    models: tuple[str, ...]
    patients: tuple[Subject, ...]

    def __repr__(self) -> str:
        return "<Chunk>"

    @property
    def chunk_id(self) -> str:
        """What the queue carries."""
        return chunk_id_of(self.run_id, self.planned_by, self.number)


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch has come: the latest slot that was begun or left out, and the sizes of its last worklists."""

    slot: datetime
    sizes: tuple[int, ...] = ()


def run_id_of(batch: str, slot: datetime) -> str:
    """Give the id of a batch's run."""
    return f"{batch}.{slot.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def chunk_id_of(run_id: str, planned_by: int, number: int) -> str:
    """Give the id of a run's chunk; another attempt to plan the run has chunks of its own."""
    return f"{run_id}.{planned_by}-{number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Held(Generic[T]):
    """A record as it was read, with the tag that a change must name."""

    content: T
    etag: str


async def read(records: Records, kind: str, record_id: str, shape: type[T], *, now: datetime) -> Held[T] | None:
    """Give a record; None if there is none.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    record = await records.read_record(kind, record_id, now=now)
    if record is None:
        return None
    try:
        return Held(content=msgspec.json.decode(record.content, type=shape), etag=record.etag)
    except msgspec.MsgspecError:
        raise StoreUnavailable(f"expected {kind} records that can be read") from None


async def all_runs(records: Records, *, now: datetime) -> tuple[Run, ...]:
    """Give the runs that are kept, by batch, the latest slot first."""
    found = await records.records(RUN, now=now)
    runs = [msgspec.json.decode(record.content, type=Run) for record in found.values()]
    return tuple(sorted(runs, key=lambda run: (run.batch, -run.slot.timestamp())))


async def change_run(
    records: Records, run_id: str, change: Callable[[Run], Run | None], *, now: datetime
) -> Run | None:
    """Change a run whoever else changes it; give it as it is then.

    ``change`` is asked again with each new state; its None leaves the run alone. None if there is no such run.
    """
    while True:
        held = await read(records, RUN, run_id, Run, now=now)
        if held is None:
            return None
        changed = change(held.content)
        if changed is None:
            return held.content
        try:
            await save_run(records, changed, etag=held.etag)
        except RecordChanged:
            continue
        return changed


async def save_run(records: Records, run: Run, *, etag: str) -> str:
    """Store a run that was read; give its new tag.

    Raises:
        RecordChanged: somebody else changed it since.
    """
    record = await records.replace_record(
        RUN, run.run_id, msgspec.json.encode(run), etag=etag, expires_at=run.slot + RUNS_KEPT
    )
    return record.etag


async def move_watermark(
    records: Records, batch: str, slot: datetime, *, now: datetime, size: int | None = None
) -> Watermark:
    """Say that the batch has come to ``slot``; a watermark never goes back. ``size`` is that of its worklist."""
    while True:
        held = await read(records, WATERMARK, batch, Watermark, now=now)
        before = held.content if held else Watermark(slot=slot)
        sizes = before.sizes if size is None else (*before.sizes, size)[-60:]
        after = Watermark(slot=max(slot, before.slot), sizes=sizes)
        content = msgspec.json.encode(after)
        if held is None:
            if await records.create_record(WATERMARK, batch, content, now=now) is not None:
                return after
        elif after == before:
            return after
        else:
            try:
                await records.replace_record(WATERMARK, batch, content, etag=held.etag)
            except RecordChanged:
                continue
            return after
