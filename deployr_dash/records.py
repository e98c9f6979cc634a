"""Packets with what belongs to them, as rows of the tables in `deployr_dash.frames`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from deployr_core.bundle import Manifest
from deployr_core.coverage import features_present
from deployr_core.features import AgeGroup, EthnicityGroup, FeatureSpec, RaceGroup, SexGroup
from deployr_core.groups import NOT_RECORDED
from deployr_core.label_rules import ADHERENCE, LabelRule, ripe_at, rule_name
from deployr_core.layout import CategoryLayout, layout_of
from deployr_core.packet import (
    Abstained,
    Decision,
    DeliveryState,
    Event,
    EventKind,
    Failed,
    FetchRecord,
    InferencePacket,
    Label,
    Observed,
    Rejected,
    Scored,
    StoredVector,
)
from deployr_core.patient_groups import PatientGroups
from deployr_core.reasons import OMB_CATEGORIES
from deployr_core.vectorize import FeatureVector
from deployr_dash.frames import SEVERAL
from deployr_dash.planned import BETWEEN_STRATA
from deployr_serve.core.ports import Belongings

Row = dict[str, Any]
_MILLISECOND = timedelta(milliseconds=1)
_COLUMN_OF = {SexGroup: "sex", AgeGroup: "age_band", RaceGroup: "race", EthnicityGroup: "ethnicity"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a bundle tells of the packets that it answered.

    ``categories``: by column, the first feature of the group, and what each of its features stands for, in order.
    """

    spec: FeatureSpec
    spec_sha256: str
    rule: LabelRule
    categories: Mapping[str, tuple[int, tuple[str, ...]]]


def told_by(manifest: Manifest, spec: FeatureSpec) -> Told:
    """Take from a bundle what its packets' rows need; of two groups of one kind the first counts.

    Raises:
        SpecNotFitted: it is no declaration that a model can have.
    """
    layout = layout_of(spec)
    categories: dict[str, tuple[int, tuple[str, ...]]] = {}
    for group in layout.groups:
        if isinstance(group, CategoryLayout):
            categories.setdefault(_COLUMN_OF[type(group.group)], (group.first, _names_of(group)))
    return Told(spec=spec, spec_sha256=layout.spec_digest, rule=manifest.task.rule, categories=categories)


def _names_of(layout: CategoryLayout) -> tuple[str, ...]:
    """Give what each feature of the group stands for, in order."""
    if isinstance(layout.group, AgeGroup):
        bounds = (0.0, *layout.edges)
        within = (f"{low:g} to {high - 1:g}" for low, high in pairwise(bounds))
        return (*within, f"{bounds[-1]:g} and over")
    return tuple(OMB_CATEGORIES.get(str(each), str(each)) for each in layout.group.categories)


def packet_row(
    packet: InferencePacket,
    belongings: Belongings,
    *,
    told: Told | None,
    patient_code: int | None,
    unit_code: int | None,
    clinician_code: int | None,
) -> Row:
    """Give a packet's row but for its number; what is not in it is null.

    Args:
        packet: not a forgotten one.
        belongings: the packet's.
        told: by the packet's own bundle; None where that is not here.
        patient_code: what stands for the patient.
        unit_code: what stands for the unit of randomization.
        clinician_code: what stands for whom it was asked for.
    """
    return {
        "packet_id": packet.packet_id,
        "model_id": packet.model.model_id,
        "version": packet.model.version,
        "bundle_sha256": packet.model.bundle_sha256,
        "site": packet.site,
        "environment": packet.environment,
        "channel": packet.trigger.channel,
        "shadow_of": packet.shadow_of,
        "as_of": packet.as_of,
        "received_at": packet.trigger.received_at,
        "started_at": packet.started_at,
        "kind": str(packet.outcome.__struct_config__.tag),
        "patient_code": patient_code,
        "unit_code": unit_code,
        "clinician_code": clinician_code,
        **_ending(packet),
        **_patient_groups(packet.patient_groups),
        **_fetching(packet.fetches),
        **_outcome(packet, told),
        **_answers(belongings),
        **{f"deliveries_{state.value}": 0 for state in DeliveryState},
        **_deliveries(belongings),
        **_label(packet, belongings.labels, told),
    }


def asked_at(packet: InferencePacket) -> datetime:
    """Give when the packet was asked for first; it never changes, however often it is tried again."""
    return packet.earlier_attempts[0].started_at if packet.earlier_attempts else packet.started_at


def unit_hash_of(packet: InferencePacket) -> str | None:
    """Give the hash of the unit that was assigned; None where there is no trial."""
    outcome = packet.outcome
    if not isinstance(outcome, Scored) or outcome.decision is None or outcome.decision.assignment is None:
        return None
    return outcome.decision.assignment.unit_hash


def _ending(packet: InferencePacket) -> Row:
    if not packet.is_terminal:
        return {}
    latency = packet.updated_at - packet.trigger.received_at
    return {"ended_at": packet.updated_at, "latency_ms": latency / _MILLISECOND}


def _patient_groups(groups: PatientGroups | None) -> Row:
    return {} if groups is None else {"language": groups.language, "insurance": groups.insurance}


def _fetching(fetches: tuple[FetchRecord, ...]) -> Row:
    searches: dict[str, float] = {}
    for each in fetches:
        name = each.name or each.resource
        searches[name] = searches.get(name, 0.0) + each.milliseconds
    return {
        "emr_calls": sum(each.requests for each in fetches),
        "emr_ms": _span_ms(fetches),
        "searches": list(searches.items()),
    }


def _span_ms(fetches: tuple[FetchRecord, ...]) -> float | None:
    """Give the time from the first start to the last end; where starts are not known, that of the longest."""
    if not fetches:
        return None
    spans = [
        (each.started_at, each.started_at + timedelta(milliseconds=each.milliseconds))
        for each in fetches
        if each.started_at is not None
    ]
    if len(spans) < len(fetches):
        return max(each.milliseconds for each in fetches)
    return (max(end for _, end in spans) - min(start for start, _ in spans)) / _MILLISECOND


def _outcome(packet: InferencePacket, told: Told | None) -> Row:
    match packet.outcome:
        case Abstained(reason=reason) | Failed(reason=reason) | Rejected(reason=reason):
            return {"reason": reason}
        case Scored() as scored:
            return {
                "score": scored.score,
                "value_unit": scored.value_unit,
                "outputs": list(scored.outputs.items()) or None,
                "answered_by": scored.answered_by,
                **_decision(scored.decision),
                **_seen(scored.vector, told),
            }
        case _:
            return {}


def _decision(decision: Decision | None) -> Row:
    if decision is None:
        return {}
    row: Row = {
        "mode": decision.mode.value,
        "advised": decision.advise,
        "why": decision.why,
        "threshold": decision.threshold,
        "band": decision.band,
        "eligible": decision.eligible,
    }
    if decision.assignment is not None:
        row |= {
            "trial_id": decision.assignment.trial_id,
            "trial_version": decision.assignment.version,
            "arm": decision.assignment.arm,
            "p_arm": decision.assignment.probability,
            "unit": decision.assignment.unit.value,
            "stratum": BETWEEN_STRATA.join(decision.assignment.strata) or None,
        }
        if (place := decision.assignment.wedge) is not None:
            row |= {"wedge_cluster": place.cluster, "wedge_period": place.period}
    if decision.showing is not None:
        chance = decision.showing.probability
        row |= {
            "shown_by_design": decision.showing.shown,
            "p_shown": chance if decision.showing.shown else 1.0 - chance,
        }
    return row


def _seen(vector: StoredVector, told: Told | None) -> Row:
    """Give what the model saw of who the patient is, and how much it saw of the rest."""
    if told is None or told.spec_sha256 != vector.spec_sha256:
        return {}
    present = features_present(
        FeatureVector(
            spec_digest=vector.spec_sha256,
            size=vector.size,
            indices=np.array(vector.indices, dtype=np.int32),
            values=np.array(vector.values),
            coverage={},
        ),
        told.spec,
    )
    row: Row = {"features_present": list(present.items())}
    for column, (first, names) in told.categories.items():
        found = [names[index - first] for index in vector.indices if first <= index < first + len(names)]
        row[column] = NOT_RECORDED if not found else found[0] if len(found) == 1 else SEVERAL
    return row


def _answers(belongings: Belongings) -> Row:
    """Give what was shown and what came of it: by the label of adherence, or until there is one by the first answer."""
    row: Row = {"shown_at": _first(each for each in belongings.events if each.kind is EventKind.SHOWN)}
    label = next((each.outcome for each in belongings.labels if each.rule == ADHERENCE), None)
    if isinstance(label, Observed):
        is_answer = bool(label.source_id)
        return row | {
            "response": label.value,
            "response_reason": label.why,
            "response_at": label.at if is_answer else None,
        }
    answers = [each for each in belongings.events if each.kind is not EventKind.SHOWN]
    if answers:
        first = min(answers, key=lambda each: each.at)
        row |= {"response": first.kind.value, "response_reason": first.reason, "response_at": first.at}
    return row


def _first(events: Iterable[Event]) -> datetime | None:
    return min((each.at for each in events), default=None)


def _deliveries(belongings: Belongings) -> Row:
    row: Row = {}
    for each in belongings.deliveries:
        name = f"deliveries_{each.state.value}"
        row[name] = row.get(name, 0) + 1
    return row


def _label(packet: InferencePacket, labels: tuple[Label, ...], told: Told | None) -> Row:
    row: Row = {}
    rule = None if told is None else rule_name(told.rule)
    if told is not None and isinstance(packet.outcome, Scored):
        row = {"label_rule": rule, "label_ripe_at": ripe_at(told.rule, packet.as_of)}
    of_outcome = [each for each in labels if each.rule != ADHERENCE]
    # The rule of a model may have changed with a version: the packet's own bundle says which one is meant.
    label = max(of_outcome, key=lambda each: (each.rule == rule, each.attached_at, each.rule), default=None)
    if label is None:
        return row
    row |= {"label_rule": label.rule, "label_attached_at": label.attached_at}
    if not isinstance(label.outcome, Observed):
        return row | {"label_kind": "censored", "label_reason": label.outcome.reason}
    row |= {"label_kind": "observed", "label_at": label.outcome.at, "label_known_at": label.outcome.known_at}
    match label.outcome.value:
        case str() as name:
            row["label_class"] = name
        case Mapping() as several:
            row["label_values"] = list(several.items())
        case number:
            row["label_value"] = number
    return row
