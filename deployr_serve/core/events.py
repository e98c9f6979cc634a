"""What is noted of an advisory that leaves the app."""

from __future__ import annotations

from collections.abc import Iterable

from deployr_core.packet import Event, EventKind, InferencePacket
from deployr_core.packet_ids import derive_event_id
from deployr_serve.core.policy import Policy
from deployr_serve.core.request import InferenceRequest


def shown_by_answer(request: InferenceRequest, packet: InferencePacket, policy: Policy) -> tuple[Event, ...]:
    """Give the event for an advisory that the answer itself shows: it is stored in the packet's own write.

    So none is shown that is not noted. Of an answer that is lost on its way, or comes after the deadline, it is noted
    all the same; asked again, the request gets it.
    """
    is_shown = request.answer_shows and packet.is_advised and policy.advisory is not None
    return shown([packet]) if is_shown else ()


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
