"""How a clinician answered an advisory of the CDA-XML channel: JSON to an event on the packet. Pure.

Source: ours, docs/bpa.md; how a classic alert reports its acknowledge reasons is public nowhere [assumed].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from deployr_core.instants import parse_instant
from deployr_core.packet import Event, EventKind, InferencePacket
from deployr_core.packet_ids import derive_event_id
from deployr_serve.core.errors import MalformedRequest, RequestTooLarge, UnknownModel, UnsupportedMediaType
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.triggers.bpa_request import media_type_of

MAX_BODY_BYTES = 16 * 1024
_FIELDS = frozenset({"packetId", "reason", "at"})
_PACKET_ID = re.compile(r"p[0-9a-f]{32}\Z", re.ASCII)
_REASON = re.compile(r"[!-~]{1,200}\Z", re.ASCII)
_CLOCK_SKEW = timedelta(minutes=5)


def parse_acknowledgement(body: bytes, *, content_type: str | None, now: datetime) -> Event:
    """Read an acknowledgement: ``packetId``, ``reason`` (a code, or left out) and ``at`` (RFC 3339 with its offset).

    Reported twice, it is the same event.

    Raises:
        UnsupportedMediaType, RequestTooLarge: not read at all.
        MalformedRequest: the message names the field and what was expected there.
    """
    if media_type_of(content_type)[0] != "application/json":
        raise UnsupportedMediaType("expected Content-Type: application/json")
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLarge(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    try:
        fields = parse_object(body)
    except NotOneObject as error:
        raise MalformedRequest(str(error)) from None
    if set(fields) - _FIELDS:
        raise MalformedRequest(f"expected only the fields {', '.join(sorted(_FIELDS))}")
    packet_id, reason, at = fields.get("packetId"), fields.get("reason"), fields.get("at")
    if not isinstance(packet_id, str) or not _PACKET_ID.match(packet_id):
        raise MalformedRequest("packetId: expected the PacketId of an answer")
    if reason is not None and not (isinstance(reason, str) and _REASON.match(reason)):
        raise MalformedRequest("reason: expected a code of 1 to 200 visible ASCII characters")
    try:
        instant = parse_instant(at if isinstance(at, str) else "")
    except ValueError as error:
        raise MalformedRequest(f"at: {error}") from None
    if instant > now + _CLOCK_SKEW:
        raise MalformedRequest("at: expected an instant that is not ahead")
    return Event(
        event_id=derive_event_id(packet_id, EventKind.ACKNOWLEDGED, instant, reason or ""),
        packet_id=packet_id,
        kind=EventKind.ACKNOWLEDGED,
        at=instant,
        reason=reason,
    )


def check_was_shown(packet: InferencePacket | None, events: Iterable[Event]) -> InferencePacket:
    """Give the packet, if its advisory was shown.

    Which channel it came by first does not matter: what was asked about as JSON and is shown by an alert is one packet.

    Raises:
        UnknownModel: no such packet, or one that was not shown; which of the two is not told.
    """
    is_shown = any(event.kind is EventKind.SHOWN for event in events)
    if packet is None or not packet.is_advised or not is_shown:
        raise UnknownModel("expected the PacketId of an advisory")
    return packet
