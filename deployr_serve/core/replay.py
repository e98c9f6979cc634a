"""A stored packet scored again from its own features: the same to the bit, or what has changed. Pure.

What is compared is everything that the packet says the model gave: the score, every output, the contributions with
their base and sum, and of the decision what follows from the score alone: the side of the threshold, and the band.
Chance, and whom an advisory reached before, are not drawn again.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from deployr_core.bundle import Bundle, Manifest
from deployr_core.documents import column_names
from deployr_core.packet import Abstained, InferencePacket, Mode, Outcome, Scored
from deployr_core.scoring import ModelAway, Reply, ScoreInvalid
from deployr_serve.core.decide import Why
from deployr_serve.core.documents import stored_row
from deployr_serve.core.errors import ModelError, PredictorUnavailable
from deployr_serve.core.explain import FAILED, explained_score, vector_of
from deployr_serve.core.facts_kept import NOT_KEPT
from deployr_serve.core.outcome import scored_or_abstained
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import FetchedFacts

LIBRARIES = ("treelite", "numpy", "scikit-learn")
"""What a model's numbers are computed by; a change of any is named beside what differs."""

_ABOVE = frozenset({Why.ADVISED, Why.SUPPRESSED_RECENTLY, Why.SUPPRESSED_ACKNOWLEDGED})
"""Why a live model's score at or above the threshold was advised or not."""


class Verdict(StrEnum):
    """What a replay shows."""

    SAME = "same"
    DIFFERS = "differs"
    UNKNOWN = "cannot-tell"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What became of one packet.

    ``differences``: what is not as it was. ``why_unknown``: what kept us from looking. ``beside``: what has changed and
    made no difference, or may be its cause. ``features``: the declared names of features that the stored facts now give
    another value. No text holds a value of the patient's.
    """

    packet_id: str
    model_id: str
    version: str
    verdict: Verdict
    differences: tuple[str, ...] = ()
    why_unknown: str | None = None
    beside: tuple[str, ...] = ()
    features: tuple[str, ...] = field(default=())


def unknown(packet: InferencePacket, why: str, *, beside: tuple[str, ...] = ()) -> Replayed:
    """Give what there is to say of a packet that cannot be scored again."""
    return _replayed(packet, why_unknown=why, beside=beside)


def why_not_scored(outcome: Outcome) -> str | None:
    """Say what the packet is in place of scored; None if it is scored."""
    if isinstance(outcome, Scored):
        return None
    kind = str(outcome.__struct_config__.tag)
    reason = getattr(outcome, "reason", None)
    return f"the packet is not scored: it is {kind}" + (f", {reason}" if reason else "")


def changed_libraries(manifest: Manifest, installed: Mapping[str, str | None]) -> tuple[str, ...]:
    """Say which libraries are not those that the model was trained with."""
    trained = manifest.training.library_versions
    return tuple(
        f"{name} {trained[name]} at training, {installed.get(name) or 'none'} here"
        for name in LIBRARIES
        if name in trained and trained[name] != installed.get(name)
    )


def replay(
    packet: InferencePacket, bundle: Bundle, *, installed: Mapping[str, str | None], policy: Policy | None
) -> Replayed:
    """Score the packet's features again.

    Args:
        packet: any; one that is not scored cannot be told about.
        bundle: of the digest that the packet names.
        installed: versions of `LIBRARIES` on this machine; None or absent: not installed.
        policy: the one that the packet's decision names, if it is still here; else the band is left out.
    """
    outcome = packet.outcome
    if not isinstance(outcome, Scored):
        return unknown(packet, why_not_scored(outcome) or "")
    beside = changed_libraries(bundle.manifest, installed)
    if (outcome.vector.spec_sha256, outcome.vector.size) != (bundle.manifest.spec_sha256, bundle.manifest.n_features):
        return _replayed(packet, differences=("declaration: the features are another declaration's",), beside=beside)
    outputs = bundle.manifest.task.outputs
    try:
        reply = bundle.model.reply(vector_of(outcome.vector))
    except ModelAway:
        return unknown(packet, "the model answers elsewhere, and cannot be asked now", beside=beside)
    except (ScoreInvalid, ValueError):
        return _replayed(packet, differences=("score: the model gives none",), beside=beside)
    if bundle.manifest.model.is_elsewhere:
        if reply.answered_by != outcome.answered_by:
            return unknown(packet, _exchanged(outcome, reply), beside=beside)
        beside = (*beside, *_elsewhere(reply))
    again = msgspec.structs.replace(
        outcome,
        score=reply.outputs[outputs.place],
        outputs=outputs.named(reply.outputs),
        value_unit=outputs.unit,
        contributions=(),
        base=None,
        explained=None,
    )
    if outcome.explained is not None:
        again = explained_score(again, bundle)
    elif FAILED in outcome.coverage:
        beside = (*beside, "it could not be explained when it was scored")
    return _replayed(packet, differences=(*_differing(outcome, again), *_decision(outcome, policy)), beside=beside)


def replay_facts(
    packet: InferencePacket, bundle: Bundle, fetched: FetchedFacts, *, installed: Mapping[str, str | None]
) -> Replayed:
    """Compute the features again from the facts that were kept, and compare them one by one.

    A packet that abstained for what it knew of the patient is told about, too.
    """
    beside = changed_libraries(bundle.manifest, installed)
    if bundle.documents is not None:
        beside = (*beside, "documents are not kept: their columns are the packet's own")
    was = packet.outcome
    try:
        now = scored_or_abstained(bundle, fetched, as_of=packet.as_of, row=stored_row(was, bundle))
    except PredictorUnavailable:
        return unknown(packet, "the model answers elsewhere, and cannot be asked now", beside=beside)
    except ModelError:
        return _replayed(packet, differences=("score: the model gives none",), beside=beside)
    if isinstance(was, Abstained) or isinstance(now, Abstained):
        same = isinstance(was, Abstained) and isinstance(now, Abstained) and was.reason == now.reason
        return _replayed(packet, differences=() if same else (f"outcome: now {_said(now)}",), beside=beside)
    if not isinstance(was, Scored) or not isinstance(now, Scored):
        return unknown(packet, why_not_scored(was) or "", beside=beside)
    if was.vector.spec_sha256 != now.vector.spec_sha256:
        return _replayed(packet, differences=("declaration: the features are another declaration's",), beside=beside)
    names = column_names(bundle.spec, bundle.documents)
    rows = [dict(zip(each.vector.indices, each.vector.values, strict=True)) for each in (was, now)]
    places = sorted(rows[0].keys() | rows[1].keys())
    features = tuple(names[it] for it in places if _bits(rows[0].get(it, 0.0)) != _bits(rows[1].get(it, 0.0)))
    ours = {FAILED, NOT_KEPT}
    counted = {name for each in (was, now) for name in each.coverage if name not in ours}
    counts = tuple(
        f"coverage: {name}" for name in sorted(counted) if was.coverage.get(name, 0) != now.coverage.get(name, 0)
    )
    told = (f"features: {len(features)} of {len(names)}",) if features else ()
    return _replayed(packet, differences=(*told, *counts), beside=beside, features=features)


def _exchanged(was: Scored, reply: Reply) -> str:
    then, now = (name or "a model that did not say its name" for name in (was.answered_by, reply.answered_by))
    return f"the model answers elsewhere and was exchanged: {then} then, {now} now"


def _elsewhere(reply: Reply) -> tuple[str, ...]:
    if reply.answered_by is None:
        return ("the model answers elsewhere and does not say its name: it may have been exchanged",)
    return (f"scored elsewhere, by {reply.answered_by}: its code and machine are not known here",)


def _differing(was: Scored, now: Scored) -> tuple[str, ...]:
    found = []
    if _bits(was.score) != _bits(now.score):
        found.append("score")
    if _bits_of(was.outputs) != _bits_of(now.outputs) or was.value_unit != now.value_unit:
        found.append("outputs")
    parts = [{each.concept: each.value for each in one.contributions} for one in (was, now)]
    order = [[each.concept for each in one.contributions] for one in (was, now)]
    if _bits_of(parts[0]) != _bits_of(parts[1]) or order[0] != order[1]:
        found.append("contributions")
    if _bits(was.base) != _bits(now.base) or _bits(was.explained) != _bits(now.explained):
        found.append("explained")
    return tuple(found)


def _decision(was: Scored, policy: Policy | None) -> tuple[str, ...]:
    """Say what of the decision does not follow from the stored score."""
    decision = was.decision
    if decision is None:
        return ()
    found = []
    if policy is not None and policy.sha256 == decision.policy_sha256:
        if policy.band(was.score) != decision.band:
            found.append("decision: another band")
        if policy.threshold != decision.threshold:
            found.append("decision: another threshold")
    if decision.threshold is not None:
        above = was.score >= decision.threshold
        if decision.showing is not None:
            stood_above: bool | None = decision.showing.above
        elif decision.mode is Mode.LIVE:
            stood_above = decision.why in _ABOVE
        else:
            # Silent, or of a trial without a draw: the threshold decided nothing.
            stood_above = None
        if stood_above is not None and stood_above != above:
            found.append("decision: another side of the threshold")
    return tuple(found)


def _replayed(
    packet: InferencePacket,
    *,
    differences: tuple[str, ...] = (),
    why_unknown: str | None = None,
    beside: tuple[str, ...] = (),
    features: tuple[str, ...] = (),
) -> Replayed:
    verdict = Verdict.UNKNOWN if why_unknown is not None else Verdict.DIFFERS if differences else Verdict.SAME
    return Replayed(
        packet_id=packet.packet_id,
        model_id=packet.model.model_id,
        version=packet.model.version,
        verdict=verdict,
        differences=differences,
        why_unknown=why_unknown,
        beside=beside,
        features=features,
    )


def _said(outcome: Outcome) -> str:
    return f"abstained, {outcome.reason}" if isinstance(outcome, Abstained) else "scored"


def _bits(number: float | None) -> bytes | None:
    return None if number is None else struct.pack("<d", number)


def _bits_of(numbers: Mapping[str, float]) -> dict[str, bytes | None]:
    return {name: _bits(number) for name, number in numbers.items()}
