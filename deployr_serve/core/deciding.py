"""What a decision needs from the store: the unit's arm, assigned once for all workers, and when it was advised last.

All of it is stored before the packet is, and the packet before anything is sent or shown. A worker that dies in between
wastes a place in a block, or leaves an advisory counted that its own request will still give when it is asked again;
it never gives a unit two arms.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from deployr_core.keyed_hash import keyed_hash
from deployr_core.packet import Decision, EventKind, Mode
from deployr_core.trial import (
    Assignment,
    AssignmentSource,
    PermutedBlocks,
    RandomizationUnit,
    Trial,
    assign,
    assign_cluster,
    showing,
    stratum_hash,
    unit_hash,
)
from deployr_core.wedge import SteppedWedge
from deployr_serve.core.decide import Why, decide
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.policy import Policy, Suppression, SuppressionUnit, TimeBlock
from deployr_serve.core.ports import InferenceStore, Records
from deployr_serve.core.request import InferenceRequest

ASSIGNMENT, STRATUM, ADVISED = "assignment", "stratum", "advised"
"""Kinds of records."""
_MOST_TRIES = 1000
"""Of many who ask at once each round lets at least one through."""
_RESPONSES = frozenset({EventKind.ACCEPTED, EventKind.OVERRIDDEN, EventKind.ACKNOWLEDGED})
_T = TypeVar("_T")


class _Places(msgspec.Struct, frozen=True, kw_only=True):
    """How many units of a stratum have got a place in its blocks."""

    taken: int


class _Advised(msgspec.Struct, frozen=True, kw_only=True):
    """The last advisory for a unit; in a trial also one that the control arm was not shown."""

    packet_id: str
    at: datetime


async def decision_of(
    request: InferenceRequest,
    policy: Policy,
    *,
    packet_id: str,
    score: float,
    key: bytes,
    now: datetime,
    records: Records,
    store: InferenceStore,
) -> Decision:
    """Decide what to do with a score, and store what other requests must know of it.

    Asked again for the same packet it gives the same decision, whoever died in between.

    Args:
        request: names the unit, and the strata it is in.
        policy: the one in force.
        packet_id: the packet that the decision will stand in.
        score: the headline.
        key: the site's secret.
        now: what suppression counts from.
        records: assignments, places and last advisories.
        store: what became of the last advisory.

    Raises:
        StoreUnavailable: nothing may be shown.
    """
    assignment = shown = None
    left_out = Why.NOT_ELIGIBLE
    would_advise = policy.mode is Mode.LIVE and policy.threshold is not None and score >= policy.threshold
    if policy.mode is Mode.TRIAL and policy.trial is not None and policy.threshold is not None:
        found = await _assignment(request, policy.trial, policy.time_block, key=key, now=now, records=records)
        if isinstance(found, Why):
            left_out = found
        else:
            assignment = found
            trial, threshold = policy.trial, policy.threshold
            shown = showing(trial, assignment, key=key, packet_id=packet_id, score=score, threshold=threshold)
            # An occasion is one in every arm alike: whether it would be shown to a unit of an arm that shows.
            arm = next((arm.name for arm in trial.arms if arm.shows), assignment.arm)
            as_shown = msgspec.structs.replace(assignment, arm=arm)
            would_advise = showing(
                trial, as_shown, key=key, packet_id=packet_id, score=score, threshold=threshold
            ).shown
    suppressed = None
    if would_advise and policy.suppression is not None:
        unit = _suppression_id(request, policy.suppression, model_id=policy.model, key=key)
        suppressed = await _suppressed(
            policy.suppression, unit, packet_id=packet_id, now=now, records=records, store=store
        )
    return decide(policy, score=score, assignment=assignment, left_out=left_out, showing=shown, suppressed=suppressed)


async def _assignment(
    request: InferenceRequest, trial: Trial, block: TimeBlock | None, *, key: bytes, now: datetime, records: Records
) -> Assignment | Why:
    """Give the unit's arm, assigned now if it was not before; or why it has none, such as that nobody names it."""
    unit_id = _unit_id(request, trial.unit, block)
    if not unit_id:
        return Why.NOT_ELIGIBLE
    if isinstance(trial.method, SteppedWedge):
        return _in_wedge(request, trial, trial.method, key=key, cluster=unit_id)
    hashed = unit_hash(trial, key=key, unit_id=unit_id)
    held = await records.read_record(ASSIGNMENT, hashed, now=now)
    if held is None:
        strata = _strata(request, trial)
        if strata is None:
            return Why.NOT_ELIGIBLE
        place = None
        if isinstance(trial.method, PermutedBlocks):
            place = await _next_place(stratum_hash(trial, key=key, strata=strata), now=now, records=records)
        fresh = assign(trial, key=key, unit_id=unit_id, strata=strata, place=place)
        if await records.create_record(ASSIGNMENT, hashed, msgspec.json.encode(fresh), now=now) is not None:
            return fresh
        # Whoever came first wins; the place that was taken here stays empty.
        held = await records.read_record(ASSIGNMENT, hashed, now=now)
        if held is None:
            raise StoreUnavailable("expected the assignment that holds this id; it was there a moment ago")
    return msgspec.structs.replace(_decoded(held.content, Assignment), source=AssignmentSource.STORED)


def _in_wedge(
    request: InferenceRequest, trial: Trial, wedge: SteppedWedge, *, key: bytes, cluster: str
) -> Assignment | Why:
    """Give the cluster's arm at the event's time; nothing is stored, for any machine finds the same."""
    strata = _strata(request, trial)
    if strata is None:
        return Why.NOT_ELIGIBLE
    found = assign_cluster(trial, wedge, key=key, cluster=cluster, at=request.event_time, strata=strata)
    return Why.CLUSTER_NOT_LISTED if found is None else found


def _strata(request: InferenceRequest, trial: Trial) -> tuple[str, ...] | None:
    """Give what is told of the unit, in the order of the trial's names; None where something is not told."""
    told = tuple(request.context.get(name, "") for name in trial.strata)
    return told if all(told) else None


def _unit_id(request: InferenceRequest, unit: RandomizationUnit, block: TimeBlock | None) -> str | None:
    match unit:
        case RandomizationUnit.PATIENT:
            return request.subject.patient_id
        case RandomizationUnit.ENCOUNTER:
            return request.subject.encounter_id
        case RandomizationUnit.ORDER:
            return request.subject.order_id
        case RandomizationUnit.TIME_BLOCK:
            if block is None:
                raise ValueError("expected how time is cut into blocks")
            return str((request.event_time - block.starts) // timedelta(hours=block.hours))
        case RandomizationUnit.PROVIDER | RandomizationUnit.DEPARTMENT:
            return request.context.get(unit.value)


async def _next_place(stratum: str, *, now: datetime, records: Records) -> int:
    """Take the next place of a stratum; nobody else gets the same one."""
    for _ in range(_MOST_TRIES):
        held = await records.read_record(STRATUM, stratum, now=now)
        if held is None:
            first = msgspec.json.encode(_Places(taken=1))
            if await records.create_record(STRATUM, stratum, first, now=now) is not None:
                return 0
            continue
        taken = _decoded(held.content, _Places).taken
        try:
            await records.replace_record(
                STRATUM, stratum, msgspec.json.encode(_Places(taken=taken + 1)), etag=held.etag
            )
        except RecordChanged:
            continue
        return taken
    raise StoreUnavailable("expected a place in the stratum, but others keep taking it")


def _suppression_id(request: InferenceRequest, suppression: Suppression, *, model_id: str, key: bytes) -> str:
    subject = request.subject
    by_encounter = suppression.unit is SuppressionUnit.ENCOUNTER and subject.encounter_id is not None
    whom = ("encounter", subject.encounter_id or "") if by_encounter else ("patient", subject.patient_id)
    return keyed_hash(key, ADVISED, model_id, *whom)[:32]


async def _suppressed(
    suppression: Suppression,
    unit: str,
    *,
    packet_id: str,
    now: datetime,
    records: Records,
    store: InferenceStore,
) -> Why | None:
    """Say what speaks against an advisory; None if nothing does, and then it counts as the unit's last one."""
    kept_hours = suppression.hours + (suppression.hours_after_response or 0.0)
    content = msgspec.json.encode(_Advised(packet_id=packet_id, at=now))
    expires_at = now + timedelta(hours=kept_hours)
    for _ in range(_MOST_TRIES):
        held = await records.read_record(ADVISED, unit, now=now)
        if held is None:
            if await records.create_record(ADVISED, unit, content, now=now, expires_at=expires_at) is not None:
                return None
            continue
        last = _decoded(held.content, _Advised)
        if last.packet_id == packet_id:
            return None
        if now < last.at + timedelta(hours=suppression.hours):
            return Why.SUPPRESSED_RECENTLY
        if await _responded(suppression, last.packet_id, now=now, store=store):
            return Why.SUPPRESSED_ACKNOWLEDGED
        try:
            await records.replace_record(ADVISED, unit, content, etag=held.etag, expires_at=expires_at)
        except RecordChanged:
            continue
        return None
    raise StoreUnavailable("expected to note the advisory, but others keep noting theirs")


async def _responded(suppression: Suppression, packet_id: str, *, now: datetime, store: InferenceStore) -> bool:
    if suppression.hours_after_response is None:
        return False
    within = timedelta(hours=suppression.hours_after_response)
    return any(event.kind in _RESPONSES and now < event.at + within for event in await store.events(packet_id))


def _decoded(content: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.MsgspecError:
        # Its message may repeat a part of the record.
        raise StoreUnavailable("expected stored records that can be read") from None
