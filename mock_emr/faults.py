"""Scripted trouble: rules that make the EMR slow, wrong or absent for some calls."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import yaml

from mock_emr.dates import DateError, instant_of

ANY_ROUTE = "*"
HTML_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Service Unavailable</title></head><body><h1>Sorry.</h1></body></html>\n"
)

VENDOR_ERROR = b'{"Status":0,"ErrorMessage":"An error occurred while executing the command."}'
"""What a vendor's web service may say with status 200. Source: [assumed]."""

Body = Literal[
    "html",
    "truncated",
    "empty",
    "foreign-subject",
    "vendor-error",
    "lost",
    "restricted",
    "expired-token",
    "duplicate-pages",
    "foreign-next",
]

SERVICES = frozenset(
    {
        "score",
        "identifiers",
        "demographics",
        "result-components",
        "flowsheet-rows",
        "census",
        "location",
        "flowsheet",
        "smart-data",
        "in-basket",
    }
)
"""What rules call the vendor's web services."""
ROUTES = SERVICES | {ANY_ROUTE, "token", "metadata", "smart-configuration", "batch", "export", "other"}
"""What a rule's route may be, beside a FHIR resource type."""

_TYPE = re.compile(r"[A-Z][A-Za-z]+", re.ASCII)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_SEARCHES_ALONE = {"duplicate-pages", "foreign-next"}
_OPEN = frozenset({"token", "metadata", "smart-configuration"})
_BEHIND_A_TOKEN = {"restricted", "expired-token", "foreign-subject"}
_STAND_FOR_THE_CALL = {"html", "restricted", "expired-token"}


class FaultError(ValueError):
    """The rules cannot be read, or name what there is not; the message says where."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule; of those that fit a call the first with times left is played, and no other.

    ``name`` is what it is removed by. ``route`` is a resource type (its reads, searches and pages, creates and updates)
    or one of ROUTES; ``patient`` a FHIR id: then only calls about that patient fit. ``from`` and ``until`` are instants
    on the EMR's clock: it fits from the first on, and no longer at the second. ``times`` None is for ever.

    A ``status`` from 400 and the bodies `html`, `restricted` (a record behind Break-the-Glass) and `expired-token`
    (401; the token that was sent is good no more) stand for the call, which does nothing. `truncated`, `empty`,
    `foreign-subject` (another patient in a search, a read or a service's answer), `vendor-error`, `duplicate-pages`
    (each later page of a search is its first once more), `foreign-next` (the link to the next page leads to another
    server) and a lower status spoil the answer to a call that was carried out; `lost` carries it out, and a gateway
    answers 504 in its place. ``delay_ms`` is before the answer, ``drip_ms`` before each tenth of its body.
    """

    route: Annotated[str, msgspec.Meta(min_length=1)]
    name: Annotated[str, msgspec.Meta(pattern=_NAME)] | None = None
    patient: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 0
    drip_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    body: Body | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    until: str | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def stands_for_the_call(self) -> bool:
        """Tell whether the call is not carried out at all."""
        return self.body in _STAND_FOR_THE_CALL or (self.status is not None and self.status >= 400)

    def fits(self, route: str, *, now: datetime, patients: Collection[str]) -> bool:
        """Tell whether it is to be played for a call to ``route`` about ``patients`` while the EMR is at ``now``."""
        return (
            self.route in (ANY_ROUTE, route)
            and not (self.body in _BEHIND_A_TOKEN and route in _OPEN)
            and (self.from_ is None or instant_of(self.from_) <= now)
            and (self.until is None or now < instant_of(self.until))
            and (self.patient is None or self.patient in patients)
        )


NO_FAULT = Rule(route=ANY_ROUTE)


def rules_in(body: bytes) -> tuple[Rule, ...]:
    """Read rules from JSON: one, or a list of them.

    Raises:
        FaultError: it is neither; the message says where, and what was expected.
    """
    try:
        sent = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FaultError(f"expected a list of fault rules: {error}") from error
    return _rules(sent, strict=True)


def rules_in_yaml(text: str) -> tuple[Rule, ...]:
    """Read rules from YAML: a list, each with the members that it has in JSON.

    Raises:
        FaultError: it is no such list; the message says where, and what was expected.
    """
    try:
        sent = yaml.load(text, Loader=_Plain)  # noqa: S506 -- makes text, lists and mappings alone
    except yaml.YAMLError as error:
        raise FaultError(f"expected a list of fault rules in YAML: {error}") from error
    if not isinstance(sent, list):
        raise FaultError("expected a list of fault rules: - route: Observation")
    return _rules(sent, strict=False)


class Faults:
    """The rules in force, each with the times it has left."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._named = 0

    def put(self, rules: Sequence[Rule]) -> None:
        """Put these rules in place of all others."""
        self._rules = list(rules)

    def add(self, rules: Sequence[Rule]) -> tuple[Rule, ...]:
        """Add rules behind the others; gives them with a name each, made where there was none.

        Raises:
            FaultError: a name is taken; none is added then.
        """
        taken = {rule.name for rule in self._rules}
        named = []
        for rule in rules:
            if rule.name is not None and rule.name in taken:
                raise FaultError("name: expected one that no other rule has")
            held = rule if rule.name is not None else msgspec.structs.replace(rule, name=self._free_name(taken))
            taken.add(held.name)
            named.append(held)
        self._rules += named
        return tuple(named)

    def remove(self, name: str) -> bool:
        """Take the rule with this name back; tell whether there was one."""
        before = len(self._rules)
        self._rules = [rule for rule in self._rules if rule.name != name]
        return len(self._rules) < before

    def rules(self) -> tuple[Rule, ...]:
        """Give the rules in force, with the times left."""
        return tuple(self._rules)

    def ask_for_patients(self) -> bool:
        """Tell whether some rule is about one patient, so that whom a call is about must be found out."""
        return any(rule.patient is not None for rule in self._rules)

    def take(self, route: str, *, now: datetime, patients: Collection[str] = ()) -> Rule:
        """Give the rule to play for a call, using up one of its times; NO_FAULT where none fits.

        Args:
            route: what rules call it.
            now: the EMR's instant.
            patients: the FHIR ids of those whom the call is about.
        """
        for place, rule in enumerate(self._rules):
            if rule.fits(route, now=now, patients=patients):
                if rule.times == 1:
                    del self._rules[place]
                elif rule.times is not None:
                    self._rules[place] = msgspec.structs.replace(rule, times=rule.times - 1)
                return rule
        return NO_FAULT

    def _free_name(self, taken: Collection[str | None]) -> str:
        while True:
            self._named += 1
            if (name := f"fault-{self._named}") not in taken:
                return name


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


class _Plain(yaml.BaseLoader):  # type: ignore[misc] # PyYAML comes without types
    """Reads every scalar as text, so that an instant stays what was written; refuses a key that is given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(set(map(str, keys))) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, "expected every member once", node.start_mark)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


def _rules(sent: object, *, strict: bool) -> tuple[Rule, ...]:
    listed = [sent] if isinstance(sent, dict) and "route" in sent else sent
    try:
        rules = tuple(msgspec.convert(listed, list[Rule], strict=strict))
    except msgspec.ValidationError as error:
        raise FaultError(f"expected a list of fault rules: {error}") from error
    for place, rule in enumerate(rules):
        if (wrong := _wrong(rule)) is not None:
            raise FaultError(f"fault rule [{place}]: {wrong}")
    names = [rule.name for rule in rules if rule.name is not None]
    if len(set(names)) < len(names):
        raise FaultError("name: expected one that no other rule has")
    return rules


def _wrong(rule: Rule) -> str | None:
    """Say what in a rule cannot be meant; None where all can."""
    if rule.route not in ROUTES and not _TYPE.fullmatch(rule.route):
        return f"route: expected a FHIR resource type or one of {', '.join(sorted(ROUTES))}"
    if (rule.status, rule.delay_ms, rule.drip_ms, rule.body) == (None, 0, 0, None):
        return "expected at least one of status, body, delay_ms, drip_ms"
    if rule.body in _SEARCHES_ALONE and rule.route in ROUTES - {ANY_ROUTE}:
        return f"body {rule.body}: expected the route of a FHIR resource type, or *"
    if rule.body in _BEHIND_A_TOKEN and rule.route in _OPEN:
        return f"body {rule.body}: expected a route that takes a token"
    try:
        ends = [instant_of(text) for text in (rule.from_, rule.until) if text is not None]
    except DateError as error:
        return f"from, until: {error}"
    if len(ends) == 2 and ends[0] >= ends[1]:
        return "until: expected an instant after from"
    return None
