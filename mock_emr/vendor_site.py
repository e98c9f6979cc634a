"""What sites of one vendor's EMR differ in, and the reading of what is sent to its web services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

import msgspec
from starlette.requests import Request

from mock_emr.errors import vendor_error
from mock_emr.exchange import JSON, Answer, Refused


@dataclass(frozen=True, kw_only=True)
class VendorSite:
    """How this site's web services answer.

    ``zone`` is what results are dated in. ``shows_instants``: results carry an Instant beside the local date and time.
    ``names_components``: each result says which component it is of; without it, only who asked for one can tell.
    """

    zone: tzinfo = UTC
    shows_instants: bool = False
    names_components: bool = True


def answer_of(body: object) -> Answer:
    """Give the answer with this body."""
    return Answer(body=msgspec.json.encode(body), media_type=JSON)


def refused(what: str) -> Refused:
    """Give the refusal of a call that is not what it must be; ``what`` is the vendor's code, with details."""
    return Refused(vendor_error(400, what))


async def object_in(request: Request) -> Mapping[str, Any]:
    """Read the body as a JSON object; refuse what is none."""
    try:
        sent = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError):
        sent = None
    if not isinstance(sent, dict):
        raise refused("INVALID-BODY details: expected a JSON object")
    return sent


def text_in(sent: Mapping[str, Any], name: str) -> str:
    """Give a member that must be there as text."""
    value = sent.get(name)
    if not isinstance(value, str) or not value:
        raise refused(f"INVALID-PARAMETER details: {name}: expected text")
    return value


def whole_in(sent: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    """Give a member that is a whole number of 0 or more, as number or as text; ``default`` where it may be left out."""
    value = sent.get(name, default)
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 7):
        raise refused(f"INVALID-PARAMETER details: {name}: expected a whole number")
    return int(text)


def local_date_and_time(instant: datetime, zone: tzinfo) -> tuple[str, str]:
    """Write an instant as the site's wall shows it: `03/04/2023` and `1:05 PM`, to the minute.

    Source: wire-formats.md section 2, GETPATIENTRESULTCOMPONENTS [seen].
    """
    local = instant.astimezone(zone)
    half = "AM" if local.hour < 12 else "PM"
    return f"{local:%m/%d/%Y}", f"{local.hour % 12 or 12}:{local:%M} {half}"
