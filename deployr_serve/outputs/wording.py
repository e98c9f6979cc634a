"""What every way out says alike: instants as the wire writes them, and a score in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket, Scored
from deployr_serve.core.errors import InvalidScore, OutputNotOffered
from deployr_serve.outputs.score_column import shown


def scored(packet: InferencePacket) -> Scored:
    """Give the packet's score.

    Raises:
        InvalidScore: it has none.
    """
    if not isinstance(packet.outcome, Scored):
        raise InvalidScore("expected a packet that was scored")
    return packet.outcome


def of_model(declared: Mapping[str, str], model_id: str, *, output: str) -> str:
    """Give what the site declared for one model.

    Raises:
        OutputNotOffered: nothing.
    """
    if model_id not in declared:
        raise OutputNotOffered(f"expected an entry for this model under {output} in DEPLOYR_OUTPUTS_FILE")
    return declared[model_id]


def wire_instant(instant: datetime) -> str:
    """Write an instant as ``2019-09-18T17:19:23Z``: in UTC, to the second.

    Source: wire formats document, section 3, flowsheet, InstantValueTaken [seen]; FHIR R4 datatypes.html#dateTime.
    """
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def number_with_unit(outcome: Scored) -> str:
    """Give ``75 %``, or the number in its own unit."""
    return f"{shown(outcome)} {'%' if outcome.value_unit is None else outcome.value_unit}"


def lines(packet: InferencePacket, manifest: Manifest) -> tuple[str, ...]:
    """Say what was predicted, by which model and as of when, for people to read; no name, no identifier."""
    outcome = scored(packet)
    band = outcome.decision.band if outcome.decision is not None else None
    return (
        f"{manifest.score_name}: {number_with_unit(outcome)}" + (f" ({band})" if band else ""),
        f"Predicted: {manifest.task.label}.",
        f"Model {manifest.model_id} {manifest.version}, as of {wire_instant(packet.as_of)}.",
        "Made by a computer from the record; no clinician has reviewed it.",
    )
