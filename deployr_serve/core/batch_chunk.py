"""Scoring one chunk of a batch: each patient with each model, one by one evidence like any other inference.

A patient whom nothing gets through for must not stop the others, this time or any other: the failure is counted, and
after a few slots in a row the patient is left out for a while, and somebody is told.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from deployr_core.packet import Abstained, Failed, Rejected, Subject
from deployr_core.packet_ids import derive_packet_id
from deployr_serve.core import batch_runs as runs
from deployr_serve.core.batch import PLACE
from deployr_serve.core.batch_runs import Chunk, Run, RunState
from deployr_serve.core.batch_start import LEASE
from deployr_serve.core.errors import (
    UNEXPECTED,
    AskDifferently,
    InProgress,
    RecordChanged,
    ServeError,
    StoreUnavailable,
    TryLater,
)
from deployr_serve.core.infer import Answer, Services, infer_group
from deployr_serve.core.ports import Lane
from deployr_serve.core.request import InferenceRequest

CHANNEL = "timer"
AT_ONCE = 16
"""Patients at a time; what they may take of the EMR's connections is limited by the batch's lane besides."""
STRIKES = "strikes"
STRIKES_FOR_QUARANTINE = 3
_STRIKES_KEPT = timedelta(days=60)


class Strikes(msgspec.Struct, frozen=True, kw_only=True):
    """How often in a row one patient failed with one model, each slot once; filed under a keyed hash."""

    count: int
    first: datetime
    last: datetime

    def is_quarantined(self, slot: datetime) -> bool:
        """Tell whether the patient is left out: for twice as long after the last failure as the failures took."""
        return self.count >= STRIKES_FOR_QUARANTINE and slot < self.last + 2 * (self.last - self.first)


class ChunkPutBack(Exception):
    """Most of the chunk failed in a way that may heal, or some of it has no packet: hand it out again later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkScored:
    """What came of a chunk, for the log; ``run`` is as it stands then, ``ended`` if this was the last of it."""

    outcome: str
    run: Run | None = None
    ended: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ending:
    """How one inference ended; ``failed`` counts against the patient, ``heals`` may be different in a minute.

    ``unfinished``: no packet says how, because somebody else is at it or the store did not take it.
    """

    name: str
    failed: bool = False
    heals: bool = False
    unfinished: bool = False


async def score_chunk(chunk_id: str, services: Services, *, is_last_try: bool) -> ChunkScored:
    """Score a chunk, unless it is done or its run is over.

    A patient who was scored before, by a worker that died half-way, keeps that answer: the packet is there.

    Args:
        chunk_id: what the queue carried.
        services: what inferences are made with.
        is_last_try: nobody will hand it out again, so that what failed is counted as such.

    Raises:
        ChunkPutBack: it should be, and can still be, handed out again.
        StoreUnavailable: the same.
    """
    clock, records = services.clock, services.records
    if not PLACE.match(chunk_id):
        return ChunkScored(outcome="no-chunk-id")
    held = await runs.read(records, runs.CHUNK, chunk_id, Chunk, now=clock.now())
    if held is None:
        return ChunkScored(outcome="unknown-chunk")
    chunk = held.content
    if not await _beat(chunk, services):
        return ChunkScored(outcome="over-already")
    endings = await _endings(chunk, services)
    failed = [ending for ending in endings.values() if ending.failed]
    # Who is being scored elsewhere, or was when a worker died, has an answer by the next try. And nobody else asks for
    # whom the store did not take.
    unfinished = any(ending.unfinished for ending in failed)
    mostly = sum(ending.heals for ending in failed) * 2 > len(endings)
    if (mostly or unfinished) and not is_last_try:
        raise ChunkPutBack("expected an answer for most of a chunk, and a packet for all of it")
    # Where most failed, it was not the patients: nobody gets a strike for an EMR that is down.
    newly = 0 if len(failed) * 2 > len(endings) else await _keep_strikes(chunk, endings, services)
    counts = Counter(ending.name for ending in endings.values())
    alerts = ("patient-quarantined",) * bool(newly)

    def done(run: Run) -> Run | None:
        if not _is_wanted(run, chunk):
            return None
        now = clock.now()
        run = msgspec.structs.replace(
            run,
            done={**run.done, str(chunk.number): dict(sorted(counts.items()))},
            updated_at=now,
            lease_until=now + LEASE,
            alerts=tuple(dict.fromkeys((*run.alerts, *alerts))),
        )
        return _ended(run) if len(run.done) == run.chunks else run

    run = await runs.change_run(records, chunk.run_id, done, now=clock.now())
    return ChunkScored(outcome="scored", run=run, ended=run is not None and not run.is_open)


def _is_wanted(run: Run, chunk: Chunk) -> bool:
    return run.state is RunState.SCORING and run.planned_by == chunk.planned_by and str(chunk.number) not in run.done


def _ended(run: Run) -> Run:
    if not run.unanswered:
        return msgspec.structs.replace(run, state=RunState.COMPLETE)
    mostly = run.unanswered * 2 > run.patients * run.models
    alerts = (*run.alerts, "run-incomplete") if mostly else run.alerts
    return msgspec.structs.replace(run, state=RunState.INCOMPLETE, reason="some-unanswered", alerts=alerts)


async def _beat(chunk: Chunk, services: Services) -> bool:
    """Renew the run's lease; False if the chunk is not wanted any more."""
    wanted = False

    def renew(run: Run) -> Run | None:
        nonlocal wanted
        now = services.clock.now()
        wanted = _is_wanted(run, chunk)
        if not wanted or run.lease_until - now > LEASE * 3 / 4:
            return None
        return msgspec.structs.replace(run, lease_until=now + LEASE, updated_at=now)

    await runs.change_run(services.records, chunk.run_id, renew, now=services.clock.now())
    return wanted


async def _endings(chunk: Chunk, services: Services) -> dict[tuple[int, str], _Ending]:
    """Give how each inference ended, by the patient's place in the chunk and the model."""
    gate = asyncio.Semaphore(AT_ONCE)
    endings: dict[tuple[int, str], _Ending] = {}

    async def one_patient(place: int, subject: Subject) -> None:
        async with gate:
            wanted = [
                model_id for model_id in chunk.models if not await _is_quarantined(chunk, subject, model_id, services)
            ]
            requests = [_request(chunk, place, subject, model_id) for model_id in wanted]
            answers = await infer_group(requests, services)
            endings.update({(place, model_id): _Ending(name="quarantined") for model_id in chunk.models})
            endings.update({(place, model_id): _ending(it) for model_id, it in zip(wanted, answers, strict=True)})
            await _beat(chunk, services)

    async with asyncio.TaskGroup() as tasks:
        for place, subject in enumerate(chunk.patients):
            tasks.create_task(one_patient(place, subject))
    return endings


async def _is_quarantined(chunk: Chunk, subject: Subject, model_id: str, services: Services) -> bool:
    strikes_id = _strikes_id(model_id, subject, services)
    held = await runs.read(services.records, STRIKES, strikes_id, Strikes, now=services.clock.now())
    return held is not None and held.content.is_quarantined(chunk.slot)


def _request(chunk: Chunk, place: int, subject: Subject, model_id: str) -> InferenceRequest:
    return InferenceRequest(
        channel=CHANNEL,
        model_id=model_id,
        subject=subject,
        event_time=chunk.slot,
        # One packet per model, slot and patient, whichever batch or worker asks.
        idempotency_key=f"slot.{chunk.slot:%Y%m%dT%H%M%SZ}.{subject.patient_id}",
        correlation_id=f"{chunk.chunk_id}.{place}",
        caller=f"timer:{chunk.run_id}",
        lane=Lane.BATCH,
    )


def _ending(answer: Answer | Exception) -> _Ending:
    match answer:
        case AskDifferently(reason=reason):
            return _Ending(name=f"rejected:{reason}")
        case ServeError(reason=reason):
            return _Ending(
                name=f"failed:{reason}",
                failed=True,
                heals=isinstance(answer, TryLater),
                unfinished=isinstance(answer, InProgress | StoreUnavailable),
            )
        case Answer(packet=packet):
            match packet.outcome:
                case Failed(reason=reason, retryable=retryable):
                    return _Ending(name=f"failed:{reason}", failed=True, heals=retryable)
                case Rejected(reason=reason):
                    return _Ending(name=f"rejected:{reason}")
                case Abstained(reason=reason):
                    return _Ending(name=f"abstained:{reason}")
                case _:
                    return _Ending(name="scored")
        case _:
            return _Ending(name=f"failed:{UNEXPECTED}", failed=True)


async def _keep_strikes(chunk: Chunk, endings: dict[tuple[int, str], _Ending], services: Services) -> int:
    """Count a strike against whom it failed for, and forget those of whom it went well for; give how many are now out.

    Where another worker changes the same strikes it is about the same slot, and says the same.
    """
    newly, records = 0, services.records
    for (place, model_id), ending in endings.items():
        if ending.name == "quarantined":
            continue
        now = services.clock.now()
        strikes_id = _strikes_id(model_id, chunk.patients[place], services)
        held = await runs.read(records, STRIKES, strikes_id, Strikes, now=now)
        before = held.content if held else None
        if (before is None and not ending.failed) or (before is not None and before.last == chunk.slot):
            continue
        first = before.first if before else chunk.slot
        after = Strikes(count=(before.count if before else 0) + 1, first=first, last=chunk.slot)
        content = msgspec.json.encode(after)
        expires_at = now + _STRIKES_KEPT if ending.failed else now
        if held is None:
            await records.create_record(STRIKES, strikes_id, content, now=now, expires_at=expires_at)
        else:
            try:
                await records.replace_record(STRIKES, strikes_id, content, etag=held.etag, expires_at=expires_at)
            except RecordChanged:
                continue
        newly += ending.failed and after.is_quarantined(chunk.slot + timedelta(seconds=1))
    return newly


def _strikes_id(model_id: str, subject: Subject, services: Services) -> str:
    """Name the strikes by a keyed hash, as packets are named: the id tells nothing of the patient."""
    return derive_packet_id(
        services.site.id_key,
        environment=services.site.environment,
        model_id=model_id,
        request_key=f"strikes.{subject.patient_id}",
    )
