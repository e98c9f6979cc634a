"""Which scopes clients may have, and whether reads are held to what was granted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import msgspec

# Source: SMART App Launch 2.2 scopes-and-launch-context.html, system-level scopes of versions 1 and 2.
_SCOPE = re.compile(r"system/(\*|[A-Z][A-Za-z]*)\.(\*|read|write|c?r?u?d?s?)(?:\?(\S+))?", re.ASCII)
_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}


class ScopeRulesError(ValueError):
    """The rules cannot be read."""


class ScopeRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``allowed``: the scopes each client was registered with, by client id, with spaces between them; who is not named
    may have any. ``enforced``: FHIR calls need a scope that was granted."""

    enforced: bool = False
    allowed: Mapping[str, str] = {}


NO_RULES = ScopeRules()


def rules_in(body: bytes) -> ScopeRules:
    """Read the rules.

    Raises:
        ScopeRulesError: they are none, or name what is no scope.
    """
    try:
        rules = msgspec.json.decode(body, type=ScopeRules)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ScopeRulesError(f'expected {{"enforced": true, "allowed": {{"id": "system/*.rs"}}}}: {error}') from error
    if not all(are_scopes(text) for text in rules.allowed.values()):
        raise ScopeRulesError("allowed: expected system/ scopes with one space between them")
    return rules


def are_scopes(text: str) -> bool:
    """Tell whether the text is system-level scopes with one space between them."""
    return all((match := _SCOPE.fullmatch(part)) is not None and match[2] for part in text.split(" "))


def granted(requested: str, *, allowed: str | None) -> str:
    """Give what is granted of a request: each scope, or those parts of it that are allowed; None allows all."""
    if allowed is None:
        return requested
    kept: list[str] = []
    for part in requested.split(" "):
        asked = _scope(part)
        shared = [_shared(asked, _scope(each)) for each in allowed.split(" ")]
        kept += [part] if asked in shared else [str(scope) for scope in shared if scope is not None]
    return " ".join(dict.fromkeys(kept))


def permits(scope: str, resource_type: str, interaction: str, parameters: Iterable[tuple[str, str]]) -> bool:
    """Tell whether the scopes allow ``r`` or ``s`` of a type; one that is narrowed, searches that are as narrow."""
    asked = dict(parameters)
    return any(
        one.resource_type in {"*", resource_type}
        and interaction in one.interactions
        and all(_codes(asked.get(name)) <= _codes(value) for name, value in one.only)
        for one in map(_scope, scope.split(" ") if scope else ())
    )


@dataclass(frozen=True, kw_only=True)
class _Scope:
    resource_type: str
    interactions: str
    only: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.only)
        return f"system/{self.resource_type}.{self.interactions}" + (f"?{query}" if query else "")


def _scope(text: str) -> _Scope:
    match = _SCOPE.fullmatch(text)
    if match is None:
        raise ValueError("expected a scope")
    interactions = _VERSION_1.get(match[2], match[2])
    return _Scope(resource_type=match[1], interactions=interactions, only=tuple(parse_qsl(match[3] or "")))


def _shared(asked: _Scope, allowed: _Scope) -> _Scope | None:
    """Give what two scopes have in common; of two narrowed differently, both conditions."""
    types = {asked.resource_type, allowed.resource_type} - {"*"}
    interactions = "".join(each for each in asked.interactions if each in allowed.interactions)
    if len(types) > 1 or not interactions:
        return None
    only = tuple(dict.fromkeys((*asked.only, *allowed.only)))
    return _Scope(resource_type=types.pop() if types else "*", interactions=interactions, only=only)


def _codes(value: str | None) -> frozenset[str | None]:
    """Give the codes of a token parameter without their systems; of one that is missing, something none has."""
    return frozenset({None} if value is None else (each.rpartition("|")[2] for each in value.split(",")))


class ScopePolicy:
    """The rules in force."""

    def __init__(self) -> None:
        self._rules = NO_RULES

    def put(self, rules: ScopeRules) -> None:
        """Put these rules in place of all others."""
        self._rules = rules

    def rules(self) -> ScopeRules:
        """Give the rules in force."""
        return self._rules
