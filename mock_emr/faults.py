"""Scripted trouble: rules that make the EMR slow, wrong or absent for some calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

ANY_ROUTE = "*"
HTML_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Service Unavailable</title></head><body><h1>Sorry.</h1></body></html>\n"
)

VENDOR_ERROR = b'{"Status":0,"ErrorMessage":"An error occurred while executing the command."}'
"""What a vendor's web service may say with status 200. Source: [assumed]."""

Body = Literal["html", "truncated", "empty", "foreign-subject", "vendor-error", "lost"]


class FaultError(ValueError):
    """The rules cannot be read."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule; of those that fit a call the first with times left is played, and no other.

    ``route`` is a resource type (its reads, searches and pages), `score`, `token`, `metadata`,
    `smart-configuration`, `identifiers`, `demographics`, `result-components`, `flowsheet-rows`, `census`,
    `location`, `flowsheet`, `smart-data`, `in-basket` or `*`. A ``status`` from 400 and an
    ``html`` body stand for the call, which does nothing; `truncated`, `empty`, `foreign-subject`, `vendor-error` and a
    lower status spoil the answer to a call that was carried out; `lost` carries it out, and a gateway answers 504 in
    its place. ``times`` None is for ever.
    """

    route: Annotated[str, msgspec.Meta(min_length=1)]
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    delay_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    body: Body | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def stands_for_the_call(self) -> bool:
        """Tell whether the call is not carried out at all."""
        return self.body == "html" or (self.status is not None and self.status >= 400)


NO_FAULT = Rule(route=ANY_ROUTE)


def rules_in(body: bytes) -> tuple[Rule, ...]:
    """Read the JSON list of rules.

    Raises:
        FaultError: it is not such a list; the message says where.
    """
    try:
        return tuple(msgspec.json.decode(body, type=list[Rule]))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FaultError(f"expected a list of fault rules: {error}") from error


class Faults:
    """The rules in force, each with the times it has left."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def put(self, rules: Sequence[Rule]) -> None:
        """Put these rules in place of all others."""
        self._rules = list(rules)

    def rules(self) -> tuple[Rule, ...]:
        """Give the rules in force, with the times left."""
        return tuple(self._rules)

    def take(self, route: str) -> Rule:
        """Give the rule to play for a call to ``route``, using up one of its times; NO_FAULT where none fits."""
        for place, rule in enumerate(self._rules):
            if rule.route in (ANY_ROUTE, route):
                if rule.times == 1:
                    del self._rules[place]
                elif rule.times is not None:
                    self._rules[place] = msgspec.structs.replace(rule, times=rule.times - 1)
                return rule
        return NO_FAULT


def spoiled(body: bytes, rule: Rule) -> bytes:
    """Give the body as the rule leaves it: its first half, nothing, an error, or untouched."""
    match rule.body:
        case "truncated":
            return body[: len(body) // 2]
        case "empty":
            return b""
        case "vendor-error":
            return VENDOR_ERROR
        case _:
            return body
