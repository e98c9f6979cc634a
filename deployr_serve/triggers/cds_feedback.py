"""What clinicians did with a card, as the EMR reports it: bytes to events on the card's packet. Pure.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#feedback [seen].
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from deployr_core.instants import parse_instant
from deployr_core.packet import Event, EventKind, InferencePacket
from deployr_core.packet_ids import derive_event_id
from deployr_serve.core.errors import MalformedRequest, RequestTooLarge, UnsupportedMediaType
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.triggers.cds_cards import packet_id_of, suggestion_uuid
from deployr_serve.triggers.cds_request import CHANNEL
from deployr_serve.triggers.cds_services import CdsService

MAX_BODY_BYTES = 256 * 1024
MOST_OUTCOMES = 100
_KINDS = {"accepted": EventKind.ACCEPTED, "overridden": EventKind.OVERRIDDEN}
_CODE = re.compile(r"[!-~]{1,200}\Z", re.ASCII)
_LONGEST_COMMENT = 4000
_MOST_SUGGESTIONS = 100
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOutcome:
    """What became of one card. ``suggestions``: the ids of those taken up. ``comment``: the clinician's own words."""

    packet_id: str
    kind: EventKind
    at: datetime
    reason: str | None
    comment: str | None = field(repr=False)
    suggestions: tuple[str, ...]


def parse_feedback(body: bytes, *, content_type: str | None, now: datetime) -> tuple[CardOutcome, ...]:
    """Read feedback.

    Raises:
        UnsupportedMediaType, RequestTooLarge: not read at all.
        MalformedRequest: the message names the field and what was expected there.
    """
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("expected Content-Type: application/json")
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLarge(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    try:
        listed = parse_object(body).get("feedback")
    except NotOneObject as error:
        raise MalformedRequest(str(error)) from None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_OUTCOMES:
        raise MalformedRequest(f"feedback: expected a list of 1 to {MOST_OUTCOMES}")
    return tuple(_outcome(each, now=now) for each in listed)


def is_card_of(packet: InferencePacket, service: CdsService) -> bool:
    """True if this service made a card of the packet; else the feedback is about nothing that anybody was shown."""
    return packet.is_advised and packet.trigger.channel == CHANNEL and packet.model.model_id in service.model_ids


def event_of(outcome: CardOutcome) -> Event:
    """Give the event; reported twice, it is the same one.

    Where suggestions were taken up the reason says which, such as ``suggestion-1``.
    """
    numbered = {suggestion_uuid(outcome.packet_id, number): number for number in range(1, _MOST_SUGGESTIONS + 1)}
    taken = sorted({numbered[each] for each in outcome.suggestions if each in numbered})
    reason = outcome.reason or (" ".join(f"suggestion-{number}" for number in taken) or None)
    return Event(
        event_id=derive_event_id(outcome.packet_id, outcome.kind, outcome.at, reason or ""),
        packet_id=outcome.packet_id,
        kind=outcome.kind,
        at=outcome.at,
        reason=reason,
        comment=outcome.comment,
    )


def _outcome(given: Any, *, now: datetime) -> CardOutcome:
    if not isinstance(given, dict):
        raise MalformedRequest("feedback: expected objects")
    try:
        packet_id = packet_id_of(_text(given, "card"))
    except ValueError:
        raise MalformedRequest("card: expected the uuid of a card") from None
    kind = _KINDS.get(_text(given, "outcome"))
    if kind is None:
        raise MalformedRequest("outcome: expected accepted or overridden")
    try:
        at = parse_instant(_text(given, "outcomeTimestamp"))
    except ValueError:
        raise MalformedRequest("outcomeTimestamp: expected an instant with its offset") from None
    if at > now + _CLOCK_SKEW:
        raise MalformedRequest("outcomeTimestamp: expected an instant that is not ahead")
    reason, comment = _override(given) if kind is EventKind.OVERRIDDEN else (None, None)
    return CardOutcome(
        packet_id=packet_id,
        kind=kind,
        at=at,
        reason=reason,
        comment=comment,
        suggestions=_suggestions(given) if kind is EventKind.ACCEPTED else (),
    )


def _suggestions(given: dict[str, Any]) -> tuple[str, ...]:
    listed = given.get("acceptedSuggestions")
    if not isinstance(listed, list) or len(listed) > _MOST_SUGGESTIONS:
        raise MalformedRequest("acceptedSuggestions: expected a list with an accepted card")
    return tuple(_text(each, "id") for each in listed if isinstance(each, dict))


def _override(given: dict[str, Any]) -> tuple[str | None, str | None]:
    override = given.get("overrideReason")
    if override is None:
        return None, None
    if not isinstance(override, dict):
        raise MalformedRequest("overrideReason: expected an object")
    comment = override.get("userComment")
    if not isinstance(comment, str | None) or len(comment or "") > _LONGEST_COMMENT:
        raise MalformedRequest(f"overrideReason.userComment: expected text of at most {_LONGEST_COMMENT} characters")
    coded = override.get("reason")
    if coded is None:
        return None, comment
    code = coded.get("code") if isinstance(coded, dict) else None
    if not isinstance(code, str) or not _CODE.match(code):
        raise MalformedRequest("overrideReason.reason: expected a code")
    return code, comment


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise MalformedRequest(f"{name}: expected text")
    return value
