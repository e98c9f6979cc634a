"""How the admin routes read what is sent to them and write what they answer."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mock_emr.dates import DateError, instant_of
from mock_emr.exchange import JSON

Sent = TypeVar("Sent", bound=msgspec.Struct)


class AdminError(ValueError):
    """What was sent cannot be meant; the message says what was expected."""


def answer(value: object, *, status: int = 200) -> Response:
    """Give the answer with this value as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)


def refusal(error: Exception, *, status: int = 400) -> Response:
    """Give the answer that says what was expected."""
    return answer({"error": str(error)}, status=status)


async def sent_as(request: Request, shape: type[Sent], *, example: str) -> Sent:
    """Read the body as one JSON object of this shape.

    Raises:
        AdminError: it is none; the message begins with the example.
    """
    try:
        return msgspec.json.decode(await request.body(), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AdminError(f"expected {example}: {error}") from error


def instant_in(text: str, name: str) -> datetime:
    """Read an instant.

    Raises:
        AdminError: it is none; the message begins with the member's name.
    """
    try:
        return instant_of(text)
    except DateError as error:
        raise AdminError(f"{name}: {error}") from error


def instant_asked(request: Request, name: str) -> datetime | None:
    """Read an instant from the query; None where it is not there.

    Raises:
        AdminError: it is there and none. A `+` in a query is a blank: an offset is best written as `Z`.
    """
    text = request.query_params.get(name)
    return None if text is None else instant_in(text, name)


def whole_asked(request: Request, name: str, *, default: int, most: int | None = None) -> int:
    """Read a whole number from the query, capped at ``most``.

    Raises:
        AdminError: it is none.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise AdminError(f"{name}: expected a whole number, 0 or more")
    return int(text) if most is None else min(int(text), most)


def only(request: Request, *names: str) -> None:
    """Refuse what nobody reads.

    Raises:
        AdminError: the query has another parameter than these.
    """
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        raise AdminError(f"expected no parameters but {', '.join(names)}; not {', '.join(unknown)}")
