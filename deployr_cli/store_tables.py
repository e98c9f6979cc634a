"""The tables of an export: their columns with what each means, and their rows from packets. Pure.

De-identified: ids are hashed under the export's own key, FHIR ids, correlation ids, callers, comments and the ids of
results are left out, and each patient's instants are shifted back by the same 1 to 52 whole weeks, so that intervals,
weekdays and hours stay as they are and the date does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from deployr_core.keyed_hash import keyed_hash
from deployr_core.packet import (
    Abstained,
    Failed,
    InferencePacket,
    Observed,
    Received,
    Rejected,
    Scored,
)
from deployr_serve.core.ports import Belongings

TEXT, NUMBER, COUNT, YES, INSTANT = "string", "float64", "int64", "bool", "timestamp[us, UTC]"
"""Kinds of columns."""
_WEEKS = 52


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column. ``identified``: only in an identified export."""

    name: str
    kind: str
    meaning: str
    identified: bool = False


def _columns(*rows: tuple[str, str, str], identified: tuple[tuple[str, str, str], ...] = ()) -> tuple[Column, ...]:
    return (
        *(Column(name=name, kind=kind, meaning=meaning) for name, kind, meaning in rows),
        *(Column(name=name, kind=kind, meaning=meaning, identified=True) for name, kind, meaning in identified),
    )


_PACKET = ("packet", TEXT, "the inference; joins all tables of this export")
_MODEL = ("model_id", TEXT, "the model")

TABLES: Mapping[str, tuple[Column, ...]] = {
    "inferences": _columns(
        _PACKET,
        ("patient", TEXT, "the patient; the same in all of this export"),
        _MODEL,
        ("model_version", TEXT, "the bundle's version"),
        ("bundle_sha256", TEXT, "the bundle's digest"),
        ("site", TEXT, "whose app it was"),
        ("environment", TEXT, "of the EMR"),
        ("channel", TEXT, "json, bpa, cds-hooks or batch"),
        ("kind", TEXT, "scored, abstained, failed, rejected or received; see docs/glossary.md"),
        ("reason", TEXT, "why it was not scored, a code of docs/glossary.md"),
        ("as_of", INSTANT, "what the windows look back from"),
        ("started_at", INSTANT, "when it was asked for"),
        ("ended_at", INSTANT, "when the packet was last changed"),
        ("milliseconds", NUMBER, "from asked to answered"),
        ("earlier_attempts", COUNT, "how many goes at it failed before"),
        ("score", NUMBER, "the headline: a probability, or a number in value_unit"),
        ("value_unit", TEXT, "of the score; null for a probability"),
        ("outputs", TEXT, "JSON: every class's or label's probability by name"),
        ("mode", TEXT, "silent, trial, live or off"),
        ("advise", YES, "whether it was decided to show the advisory"),
        ("why", TEXT, "why so, a code of docs/glossary.md"),
        ("threshold", NUMBER, "in force"),
        ("band", TEXT, "of the score, where the deployment has bands"),
        ("policy_sha256", TEXT, "the deployment file in force"),
        ("eligible", YES, "whether the unit takes part in the trial"),
        ("trial_id", TEXT, "the trial"),
        ("trial_version", COUNT, "of the trial's declaration"),
        ("arm", TEXT, "which the unit was assigned to"),
        ("arm_probability", NUMBER, "of that assignment"),
        ("shown", YES, "whether the trial shows it"),
        ("explored", YES, "whether chance turned that round"),
        ("show_probability", NUMBER, "of what was decided, over arm and exploration; design weights are its inverse"),
        ("base", NUMBER, "what the contributions are added to"),
        ("explained", NUMBER, "what base and contributions add up to"),
        identified=(
            ("patient_id", TEXT, "FHIR id"),
            ("encounter_id", TEXT, "FHIR id"),
            ("order_id", TEXT, "FHIR id"),
            ("entity_id", TEXT, "what the EMR's write interface calls the target"),
            ("correlation_id", TEXT, "of the call"),
            ("caller", TEXT, "who asked"),
        ),
    ),
    "features": _columns(
        _PACKET,
        _MODEL,
        ("feature", COUNT, "the column of the model's vector, from 0; zeros are left out"),
        ("name", TEXT, "of the feature, by the bundle's declaration; null where no bundle here has it"),
        ("value", NUMBER, "as the model saw it"),
    ),
    "contributions": _columns(
        _PACKET,
        _MODEL,
        ("rank", COUNT, "1 for the largest"),
        ("concept", TEXT, "clinical concept"),
        ("value", NUMBER, "what it added to the score, on the scale of base and explained"),
    ),
    "deliveries": _columns(
        _PACKET,
        ("output", TEXT, "way out"),
        ("state", TEXT, "pending, sent, superseded, expired or dead"),
        ("created_at", INSTANT, "with the packet"),
        ("updated_at", INSTANT, "last change"),
        ("attempts", COUNT, "how often it was sent"),
        ("last_error", TEXT, "a code of docs/glossary.md"),
    ),
    "events": _columns(
        _PACKET,
        ("kind", TEXT, "shown, accepted, overridden or acknowledged"),
        ("at", INSTANT, "when it happened"),
        ("reason", TEXT, "a code of the deployment's"),
        identified=(("comment", TEXT, "the clinician's own words"),),
    ),
    "labels": _columns(
        _PACKET,
        ("rule", TEXT, "the label's rule"),
        ("kind", TEXT, "observed or censored"),
        ("value", NUMBER, "1 or 0, or a number; null for classes and several labels"),
        ("value_json", TEXT, "JSON: whatever was observed"),
        ("reason", TEXT, "why it is censored, a code of docs/glossary.md"),
        ("at", INSTANT, "when the outcome happened"),
        ("known_at", INSTANT, "when the EMR could have shown it"),
        ("attached_at", INSTANT, "when we read it"),
        ("corrections", COUNT, "how often it was another before"),
        identified=(("source_id", TEXT, "the result that it was read from"),),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """How one export names things. ``key``: None leaves them as they are."""

    key: bytes | None = field(repr=False)

    def packet(self, packet_id: str) -> str:
        """Give what stands for a packet."""
        return packet_id if self.key is None else keyed_hash(self.key, "packet", packet_id)[:32]

    def patient(self, patient_hash: str) -> str:
        """Give what stands for a patient."""
        return patient_hash if self.key is None else keyed_hash(self.key, "patient", patient_hash)[:32]

    def shift(self, patient_hash: str) -> timedelta:
        """Give what is taken off each of the patient's instants: 1 to 52 whole weeks."""
        if self.key is None:
            return timedelta(0)
        return timedelta(weeks=1 + int(keyed_hash(self.key, "shift", patient_hash)[:12], 16) % _WEEKS)


Row = dict[str, Any]


def rows_of(
    packet: InferencePacket, belongings: Belongings, *, patient_hash: str, mask: Mask, names: tuple[str, ...] | None
) -> Iterator[tuple[str, Row]]:
    """Give the packet's rows by table; what a de-identified export has no column for is given too.

    A row's values are single ones; several rows at once have sequences of one length, beside what they share.

    Args:
        packet: not a forgotten one.
        belongings: the packet's.
        patient_hash: whose it is.
        mask: how things are named.
        names: of the features, in the order of the vector; None where no bundle here has them.
    """
    shift = mask.shift(patient_hash)

    def moved(instant: datetime) -> datetime:
        return instant - shift

    key = {"packet": mask.packet(packet.packet_id)}
    model = {"model_id": packet.model.model_id}
    yield (
        "inferences",
        {
            **key,
            **model,
            "patient": mask.patient(patient_hash),
            "model_version": packet.model.version,
            "bundle_sha256": packet.model.bundle_sha256,
            "site": packet.site,
            "environment": packet.environment,
            "channel": packet.trigger.channel,
            "as_of": moved(packet.as_of),
            "started_at": moved(packet.started_at),
            "ended_at": moved(packet.updated_at),
            "milliseconds": (packet.updated_at - packet.started_at) / timedelta(milliseconds=1),
            "earlier_attempts": len(packet.earlier_attempts),
            "patient_id": packet.subject.patient_id,
            "encounter_id": packet.subject.encounter_id,
            "order_id": packet.subject.order_id,
            "correlation_id": packet.trigger.correlation_id,
            "caller": packet.trigger.caller,
            **_outcome(packet),
        },
    )
    if isinstance(packet.outcome, Scored):
        vector = packet.outcome.vector
        # Hundreds for each packet: as columns at once, which is several times faster than row by row.
        named = [None] * len(vector.indices) if names is None else [names[index] for index in vector.indices]
        yield "features", {**key, **model, "feature": vector.indices, "name": named, "value": vector.values}
        for rank, each in enumerate(packet.outcome.contributions, start=1):
            yield "contributions", {**key, **model, "rank": rank, "concept": each.concept, "value": each.value}
    for delivery in belongings.deliveries:
        yield (
            "deliveries",
            {
                **key,
                "output": delivery.output,
                "state": delivery.state.value,
                "created_at": moved(delivery.created_at),
                "updated_at": moved(delivery.updated_at),
                "attempts": delivery.attempts,
                "last_error": delivery.last_error,
            },
        )
    for event in belongings.events:
        row: Row = {"kind": event.kind.value, "at": moved(event.at), "reason": event.reason, "comment": event.comment}
        yield "events", {**key, **row}
    for label in belongings.labels:
        row = {"rule": label.rule, "attached_at": moved(label.attached_at), "corrections": len(label.history)}
        if isinstance(label.outcome, Observed):
            observed = label.outcome.value
            row |= {
                "kind": "observed",
                "value": observed if isinstance(observed, float) else None,
                "value_json": json.dumps(observed),
                "at": moved(label.outcome.at),
                "known_at": moved(label.outcome.known_at),
                "source_id": label.outcome.source_id,
            }
        else:
            row |= {"kind": "censored", "reason": label.outcome.reason}
        yield "labels", {**key, **row}


def _outcome(packet: InferencePacket) -> Row:
    outcome = packet.outcome
    kind = {"kind": str(outcome.__struct_config__.tag)}
    match outcome:
        case Abstained(reason=reason) | Failed(reason=reason) | Rejected(reason=reason):
            return {**kind, "reason": reason}
        case Received():
            return kind
        case Scored():
            decision: Row = {}
            if outcome.decision is not None:
                made = outcome.decision
                decision = {
                    "mode": made.mode.value,
                    "advise": made.advise,
                    "why": made.why,
                    "threshold": made.threshold,
                    "band": made.band,
                    "policy_sha256": made.policy_sha256,
                    "eligible": made.eligible,
                }
                if made.assignment is not None:
                    decision |= {
                        "trial_id": made.assignment.trial_id,
                        "trial_version": made.assignment.version,
                        "arm": made.assignment.arm,
                        "arm_probability": made.assignment.probability,
                    }
                if made.showing is not None:
                    decision |= {
                        "shown": made.showing.shown,
                        "explored": made.showing.explored,
                        "show_probability": made.showing.probability,
                    }
            return {
                **kind,
                "score": outcome.score,
                "value_unit": outcome.value_unit,
                "outputs": json.dumps(dict(outcome.outputs)) if outcome.outputs else None,
                "base": outcome.base,
                "explained": outcome.explained,
                "entity_id": outcome.entity_id,
                **decision,
            }
