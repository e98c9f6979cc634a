"""A scored packet as one flat record, for those who read scores with a program of their own.

The file drop writes it as a row and the webhook as JSON. The names and their order are ours, and a contract: members
are added at the end and never renamed.
"""

from __future__ import annotations

from collections.abc import Mapping

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.wording import headline, number_with_unit, scored, wire_instant

VERSION = 1
COLUMNS = (
    "version",
    "delivery_id",
    "packet_id",
    "environment",
    "model_id",
    "model_version",
    "score_name",
    "patient_id",
    "encounter_id",
    "csn",
    "order_id",
    "as_of",
    "scored_at",
    "score",
    "unit",
    "band",
    "shown",
    "headline",
)


def event_record(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, delivery_id: str
) -> Mapping[str, str | int | float | None]:
    """Give the record, in the order of `COLUMNS`; a probability is from 0 to 1, with all its digits, and has no unit.

    ``shown`` and ``headline`` are what people are to read: the number, rounded, with its unit, and the words.

    Raises:
        InvalidScore: the packet is not scored.
    """
    outcome = scored(packet)
    values = (
        VERSION,
        delivery_id,
        packet.packet_id,
        packet.environment,
        packet.model.model_id,
        packet.model.version,
        manifest.score_name,
        packet.subject.patient_id,
        packet.subject.encounter_id,
        outcome.entity_id,
        packet.subject.order_id,
        wire_instant(packet.as_of),
        wire_instant(packet.updated_at),
        outcome.score,
        outcome.value_unit,
        outcome.decision.band if outcome.decision is not None else None,
        number_with_unit(packet, policy),
        headline(packet, manifest, policy),
    )
    return dict(zip(COLUMNS, values, strict=True))
