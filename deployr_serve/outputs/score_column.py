"""A scored packet as the body that the external model score interface takes.

Source: wire formats document, section 3, body (a) wrapped [seen]; values are strings, probabilities on a scale
of 0 to 100 [seen]. A number, such as a predicted result, is written as it is, in its own unit [assumed].
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import msgspec

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket, Scored
from deployr_serve.core.errors import EmrRefused

_JOB_NAMESPACE = uuid.UUID("9b1b7d6e-3d8a-5c55-9a41-0d3f0e0c6b1e")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreColumnWrite:
    """The two query parameters, neither of which tells anything about a patient, and the body, which does."""

    model_id: str
    job_id: str
    body: bytes = field(repr=False)


def render_score_column(
    packet: InferencePacket, manifest: Manifest, *, namespace: str, delivery_id: str
) -> ScoreColumnWrite:
    """Render the write.

    Raises:
        EmrRefused: the packet is not scored, or names no contact serial number: there is no row to write to.
    """
    outcome = packet.outcome
    if not isinstance(outcome, Scored) or outcome.entity_id is None:
        raise EmrRefused("expected a scored packet whose encounter has a contact serial number")
    name = manifest.score_name
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
                "Outputs": {"Output1": {"Scores": {name: {"Values": [shown(outcome)]}}, "Features": {}}},
                "Raw": {},
            },
        },
        "messages": [],
    }
    return ScoreColumnWrite(
        model_id=f"{namespace}.{name}@1",
        job_id=str(uuid.uuid5(_JOB_NAMESPACE, delivery_id)),
        body=msgspec.json.encode(body),
    )


def shown(outcome: Scored) -> str:
    """Give a probability in per cent, or the number itself; two decimals, no trailing zeros: 0.125 is ``12.5``."""
    number = outcome.score * 100 if outcome.value_unit is None else outcome.score
    written = f"{number:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written
