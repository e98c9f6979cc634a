"""What packets of one patient are found by, and what is left of one that was erased on demand. Pure."""

from __future__ import annotations

from datetime import datetime

from deployr_core.keyed_hash import keyed_hash
from deployr_core.packet import InferencePacket, Rejected, Subject, Trigger

FORGOTTEN = "forgotten"
"""The reason of a rejected packet that was erased on demand."""


def derive_patient_hash(id_key: bytes, patient_id: str) -> str:
    """Give what stands for a patient where the id must not: 32 hex digits of an HMAC-SHA256 under the site's secret.

    Raises:
        ValueError: a key of under 16 bytes.

    Source: RFC 2104.
    """
    return keyed_hash(id_key, "patient", patient_id)[:32]


def forgotten(packet: InferencePacket, *, at: datetime) -> InferencePacket:
    """Give what stays of a packet that is erased: its id, its model, and when; nothing of whom or what it was about.

    The id is kept so that nobody makes the packet anew, be it a repeat of the request or a copy that waits somewhere.
    The day of the inference is gone, too: all instants are that of the erasure.
    """
    return InferencePacket(
        packet_id=packet.packet_id,
        site=packet.site,
        environment=packet.environment,
        model=packet.model,
        trigger=Trigger(
            channel=packet.trigger.channel, correlation_id="", request_sha256="", received_at=at, event_time=at
        ),
        subject=Subject(patient_id=""),
        as_of=at,
        outcome=Rejected(reason=FORGOTTEN),
        started_at=at,
        updated_at=at,
    )


def is_forgotten(packet: InferencePacket) -> bool:
    """True if this is what is left of a packet that was erased on demand."""
    return isinstance(packet.outcome, Rejected) and packet.outcome.reason == FORGOTTEN
