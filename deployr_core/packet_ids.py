"""The ids of packets and of what belongs to them, derived from what each is about.

The same request has the same id on any machine, and an id tells nothing about a patient.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from deployr_core.keyed_hash import keyed_hash
from deployr_core.packet import EventKind


def derive_packet_id(id_key: bytes, *, environment: str, model_id: str, request_key: str) -> str:
    """Give the id of the packet for a request: ``p`` and 32 hex digits of an HMAC-SHA256.

    Args:
        id_key: the site's secret, at least 16 bytes; without it a short order number could be found by trying all.
        environment: the EMR environment; the same order in test and in production is two requests.
        model_id: which model is asked.
        request_key: the caller's idempotency key, or what stands for it.

    Raises:
        ValueError: a key of under 16 bytes.

    Source: RFC 2104.
    """
    return "p" + keyed_hash(id_key, environment, model_id, request_key)[:32]


def derive_clinician_hash(id_key: bytes, clinician: str) -> str:
    """Give what stands for a clinician, by the text that the channel names them by: 32 hex digits of an HMAC-SHA256.

    Another text for the same person is another clinician, and so is the same text under another secret.

    Raises:
        ValueError: a key of under 16 bytes.

    Source: RFC 2104.
    """
    return keyed_hash(id_key, "clinician", clinician)[:32]


def derive_delivery_id(packet_id: str, output: str) -> str:
    """Give the id of a packet's delivery to one output."""
    return f"{packet_id}.{output}"


def derive_event_id(packet_id: str, kind: EventKind, at: datetime, detail: str = "") -> str:
    """Give the id of an event: what is said twice of a packet, of the same kind and instant, is the same event."""
    text = f"{kind}:{at.astimezone(UTC).isoformat()}:{detail}"
    return f"{packet_id}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def derive_label_id(packet_id: str, rule: str) -> str:
    """Give the id of a packet's label by one rule."""
    return f"{packet_id}.{rule}"
