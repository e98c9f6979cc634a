"""A scored packet as the body that the external model score interface takes.

Source: wire formats document, section 3, body (a) wrapped [seen]; values are strings, probabilities on a scale
of 0 to 100 [seen]. A number, such as a predicted result, is written as it is, in its own unit [assumed]. Features
carry the contributions of the largest concepts in the number that the packet explains, not on the score's scale, and
Raw the values of their features that are not 0, in the declared order [assumed].
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.concepts import concepts_of
from deployr_core.packet import InferencePacket, Scored
from deployr_core.postprocess import ScoreUnusable, written
from deployr_serve.core.errors import EmrRefused, InvalidScore
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.wording import one_number

MOST_FEATURES = 10
"""How many concepts are written; the packet has them all."""

_JOB_NAMESPACE = uuid.UUID("9b1b7d6e-3d8a-5c55-9a41-0d3f0e0c6b1e")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreColumnWrite:
    """The two query parameters, neither of which tells anything about a patient, and the body, which does."""

    model_id: str
    job_id: str
    body: bytes = field(repr=False)


def render_score_column(
    packet: InferencePacket, bundle: Bundle, *, policy: Policy, namespace: str, delivery_id: str
) -> ScoreColumnWrite:
    """Render the write.

    Raises:
        EmrRefused: the packet is not scored, or names no contact serial number: there is no row to write to.
        InvalidScore: the score, or a contribution, is no number that may be shown.
    """
    outcome = packet.outcome
    if not isinstance(outcome, Scored) or outcome.entity_id is None:
        raise EmrRefused("expected a scored packet whose encounter has a contact serial number")
    name, number = bundle.manifest.score_name, one_number(packet, policy, output="score-column")
    contributions, raw = _features(outcome, bundle)
    body = {
        "result": {
            "exit_code": "0",
            "stdout": [""],
            "stderr": [""],
            "results": {
                "EntityId": [{"ID": outcome.entity_id, "Type": "CSN"}],
                "ScoreDisplayed": name,
                "PredictiveContext": {},
                "OutputType": "5",
                "Outputs": {"Output1": {"Scores": {name: {"Values": [number]}}, "Features": contributions}},
                "Raw": raw,
            },
        },
        "messages": [],
    }
    return ScoreColumnWrite(
        model_id=f"{namespace}.{name}@1",
        job_id=str(uuid.uuid5(_JOB_NAMESPACE, delivery_id)),
        body=msgspec.json.encode(body),
    )


def emr_names(concepts: Sequence[str]) -> tuple[str, ...]:
    """Name concepts in letters, digits and underscores, each once and of at most 40 characters."""
    found: list[str] = []
    for concept in concepts:
        name = plain = re.sub(r"[^A-Za-z0-9]+", "_", concept).strip("_")[:36] or "Concept"
        number = 1
        while name in found:
            number += 1
            name = f"{plain}_{number}"
        found.append(name)
    return tuple(found)


def _features(outcome: Scored, bundle: Bundle) -> tuple[dict[str, object], dict[str, object]]:
    """Give the largest concepts' contributions, and the values that they were made of, by the concepts' names."""
    largest = outcome.contributions[:MOST_FEATURES]
    names = emr_names([each.concept for each in largest])
    of_feature = concepts_of(bundle.spec, bundle.documents).of_feature
    values: dict[str, list[str]] = {}
    try:
        for place, value in zip(outcome.vector.indices, outcome.vector.values, strict=True):
            values.setdefault(of_feature[place], []).append(written(value, decimals=6))
        contributions = [written(each.value, decimals=6) for each in largest]
    except ScoreUnusable as error:
        raise InvalidScore(str(error)) from None
    return (
        {name: {"Contributions": [value]} for name, value in zip(names, contributions, strict=True)},
        {name: {"Values": values.get(each.concept, ["0"])} for name, each in zip(names, largest, strict=True)},
    )
