"""What the EMR and the bridge said to each other, word for word, for an operator to read side by side."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lxml import etree

_LONGEST = 40_000
_SECRET = ("authorization", "cookie", "x-functions-key")
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, load_dtd=False)


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message. ``start`` is the request's or the status line; ``headers`` hold no secret."""

    start: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """Give the body to be read: JSON and XML indented, anything else as it is; the end of a long one is cut."""
        shown = _readable(self.body)
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}\n… cut after {_LONGEST:,} characters"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One call of the bridge. ``answer`` is None where none came in time; then ``failure`` says why, in a few words."""

    number: int
    at: datetime
    asked: Said
    answer: Said | None
    failure: str | None
    duration_ms: float


class Wire:
    """The latest exchanges."""

    def __init__(self, *, limit: int = 60) -> None:
        """Keep at most ``limit``."""
        self._exchanges: deque[Exchange] = deque(maxlen=limit)
        self._number = 0

    def next_number(self) -> int:
        """Give the place of the next exchange, from 1."""
        self._number += 1
        return self._number

    def note(self, exchange: Exchange) -> None:
        """Keep an exchange."""
        self._exchanges.append(exchange)

    def latest(self) -> tuple[Exchange, ...]:
        """Give what is kept, newest first."""
        return tuple(reversed(self._exchanges))


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers, each secret one as so many characters."""
    return {name: f"({len(value)} characters)" if name.lower() in _SECRET else value for name, value in headers.items()}


def _readable(body: bytes) -> str:
    text = body.decode("utf-8", errors="replace")
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    if text.lstrip()[:1] == "<":
        try:
            root = etree.fromstring(body, _PARSER)
        except (etree.XMLSyntaxError, ValueError):
            return text
        indented: str = etree.tostring(root, encoding="unicode", pretty_print=True)
        return indented
    return text
