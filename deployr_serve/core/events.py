"""What is noted of an advisory that leaves the app."""

from __future__ import annotations

from collections.abc import Iterable

from deployr_core.packet import Event, EventKind, InferencePacket, derive_event_id


def shown(packets: Iterable[InferencePacket]) -> tuple[Event, ...]:
    """Give the events that say that these packets' advice was handed to the EMR; who saw it there it alone knows."""
    return tuple(
        Event(
            event_id=derive_event_id(packet.packet_id, EventKind.SHOWN, packet.updated_at),
            packet_id=packet.packet_id,
            kind=EventKind.SHOWN,
            at=packet.updated_at,
        )
        for packet in packets
    )
