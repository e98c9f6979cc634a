"""What the bridge advises, as the advisory on the screen: read with care, because it came over the wire. Pure.

Nothing of it is ever HTML: detail is read as so much of Markdown as bold words and lists, and every word is text.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#card-attributes [seen].
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mock_emr.elements import child, each

MOST_CARDS = 10
_LONGEST = 4_000
_INDICATORS = ("critical", "warning", "info")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_ITEM = re.compile(r"\s*[-*+]\s+")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason to override an advisory."""

    code: str
    system: str
    display: str


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Something to take up with one press. ``takes_back``: the order is not signed. ``creates``: what is made."""

    suggestion_id: str
    label: str
    takes_back: bool
    creates: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Run:
    """So many characters in one weight."""

    text: str = field(repr=False)
    is_strong: bool


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, or a list, of lines."""

    is_list: bool
    lines: tuple[tuple[Run, ...], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One advisory. ``service`` is whom an answer goes to; ``links`` are (words, address)."""

    advisory_id: str
    service: str
    headline: str = field(repr=False)
    detail: tuple[Block, ...] = field(repr=False)
    indicator: str
    source: str
    reasons: tuple[Reason, ...]
    suggestions: tuple[Suggestion, ...]
    links: tuple[tuple[str, str], ...]


def advisories_in(answer: object, *, service: str) -> tuple[Advisory, ...]:
    """Read the cards of an answer; one without an id or words is left out: nothing could be answered about it."""
    cards = child({"answer": answer}, "answer").get("cards")
    found = (_advisory(card, service) for card in each(cards))
    return tuple(one for one in found if one is not None)[:MOST_CARDS]


def blocks_of(markdown: str) -> tuple[Block, ...]:
    """Split Markdown into paragraphs and lists of words that are bold or not; any other mark stays as it is written."""
    blocks = []
    for part in re.split(r"\n\s*\n", markdown.strip()):
        lines = [line for line in part.splitlines() if line.strip()]
        if lines:
            is_list = all(_ITEM.match(line) for line in lines)
            texts = [_ITEM.sub("", line, count=1) for line in lines] if is_list else lines
            blocks.append(Block(is_list=is_list, lines=tuple(_runs(text) for text in texts)))
    return tuple(blocks)


def _advisory(card: Mapping[str, Any], service: str) -> Advisory | None:
    advisory_id, headline = _text(card.get("uuid")), _text(card.get("summary"))
    if not advisory_id or not headline:
        return None
    indicator = _text(card.get("indicator"))
    return Advisory(
        advisory_id=advisory_id,
        service=service,
        headline=headline,
        detail=blocks_of(_text(card.get("detail"))),
        indicator=indicator if indicator in _INDICATORS else "info",
        source=_text(child(card, "source").get("label")),
        reasons=tuple(_reason(held) for held in each(card.get("overrideReasons")) if _text(held.get("code"))),
        suggestions=tuple(_suggestion(held) for held in each(card.get("suggestions")) if _text(held.get("uuid"))),
        links=tuple(
            (_text(held.get("label")) or address, address)
            for held in each(card.get("links"))
            if (address := _web_address(held.get("url"))) and held.get("type") == "absolute"
        ),
    )


def _reason(held: Mapping[str, Any]) -> Reason:
    code = _text(held.get("code"))
    return Reason(code=code, system=_text(held.get("system")), display=_text(held.get("display")) or code)


def _suggestion(held: Mapping[str, Any]) -> Suggestion:
    actions = tuple(each(held.get("actions")))
    return Suggestion(
        suggestion_id=_text(held.get("uuid")),
        label=_text(held.get("label")) or "Do as suggested",
        takes_back=any(action.get("type") == "delete" for action in actions),
        creates=tuple(child(action, "resource") for action in actions if action.get("type") == "create"),
    )


def _runs(line: str) -> tuple[Run, ...]:
    # Every second part of a split by a group is what stood in the group. Entities are Markdown's way to write `<`.
    parts = enumerate(_BOLD.split(line))
    return tuple(Run(text=html.unescape(text), is_strong=place % 2 == 1) for place, text in parts if text)


def _text(value: object) -> str:
    return value.strip()[:_LONGEST] if isinstance(value, str) else ""


def _web_address(value: object) -> str:
    try:
        return _text(value) if urlsplit(_text(value)).scheme in {"http", "https"} else ""
    except ValueError:
        return ""
