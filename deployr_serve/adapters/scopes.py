"""What an EMR lets us read: OAuth scopes of SMART versions 1 and 2, and which of them a declaration needs. Pure.

Source: SMART App Launch 2.2, https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html [seen].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import parse_qsl

from deployr_core.bundle import Bundle
from deployr_core.features import FeatureSpec
from deployr_core.label_rules import DiagnosisInWindow, FhirPathRule, LabelRule, LabRule
from deployr_serve.adapters.fhir_plan import plan
from deployr_serve.core.errors import InsufficientScope

_SCOPE = re.compile(r"(system|user|patient)/(\*|[A-Z][A-Za-z]*)\.(\*|read|write|c?r?u?d?s?)(?:\?(\S+))?", re.ASCII)
_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """One scope. ``interactions`` are of ``c r u d s``; ``only`` narrows it to resources that have, for each parameter,
    one of its values, and empty does not narrow it. ``resource_type`` may be ``*``."""

    level: str
    resource_type: str
    interactions: frozenset[str]
    only: tuple[tuple[str, frozenset[str]], ...] = ()


Scopes = frozenset[Scope]

COVERAGE: Scopes = frozenset({Scope(level="system", resource_type="Coverage", interactions=frozenset("s"))})
"""What asking who pays must be allowed to search."""

DOCUMENTS: Scopes = frozenset(
    {
        Scope(level="system", resource_type="DocumentReference", interactions=frozenset("s")),
        Scope(level="system", resource_type="Binary", interactions=frozenset("r")),
    }
)
"""What a model that takes documents must be allowed to search and to read."""


def parse_scopes(text: str) -> Scopes:
    """Read scopes with spaces between them; what is none about resources, such as ``openid``, is left out."""
    found = (_SCOPE.fullmatch(part) for part in text.split())
    return frozenset(_scope(*match.groups()) for match in found if match is not None and match[3])


def covers(granted: Scopes, needed: Scope) -> bool:
    """Tell whether all that ``needed`` may do is granted, be it by several scopes together."""
    allowed: set[str] = set()
    for scope in granted:
        of_this_kind = scope.level == needed.level and scope.resource_type in {"*", needed.resource_type}
        if of_this_kind and _is_within(needed, scope):
            allowed |= scope.interactions
    return needed.interactions <= allowed


@lru_cache(maxsize=64)
def needed_scopes(spec: FeatureSpec, *, elsewhere: frozenset[str] = frozenset()) -> Scopes:
    """Derive what scoring by this declaration must be allowed to search, narrowed as its searches are.

    The patient, the encounter and the order are looked up whatever is declared; a medication order may say what it
    orders by reference to a Medication. ``elsewhere`` names the searches of `fhir_plan.plan` that are not made, because
    another interface is asked instead.
    """
    needed = {_search_of(each) for each in ("Patient", "Encounter", "ServiceRequest")}
    searches = plan(spec, patient_id="", as_of=datetime(2000, 1, 1, tzinfo=UTC))
    for search in (search for name, search in searches.items() if name not in elsewhere):
        categories = [value for name, value in search.parameters if name == "category"]
        values = categories[0].split(",") if len(categories) == 1 else [None]
        needed |= {_search_of(search.resource_type, category) for category in values}
    if any(scope.resource_type == "MedicationRequest" for scope in needed):
        needed.add(_search_of("Medication"))
    return frozenset(needed)


def scopes_of(bundle: Bundle, *, elsewhere: frozenset[str] = frozenset()) -> Scopes:
    """Derive what scoring by a bundle must be allowed: its features' searches and, if it takes any, its documents."""
    return needed_scopes(bundle.spec, elsewhere=elsewhere).union(DOCUMENTS if bundle.documents else ())


def label_scopes(rules: Iterable[LabelRule]) -> Scopes:
    """Give what reading labels by these rules must be allowed to search."""
    needed = {_search_of("Patient")}
    for rule in rules:
        if isinstance(rule, LabRule):
            needed |= {_search_of("Observation", "laboratory"), _search_of("ServiceRequest")}
        elif isinstance(rule, FhirPathRule):
            needed |= {_search_of(search.resource_type, search.parameters.get("category")) for search in rule.searches}
        else:
            needed.add(_search_of("Encounter"))
            if isinstance(rule, DiagnosisInWindow):
                needed.add(_search_of("Condition"))
    return frozenset(needed)


def missing_scopes(granted: Scopes | None, needed: Scopes) -> tuple[str, ...]:
    """Name what is needed and not granted, such as ``Observation (laboratory)``, in order; None grants everything."""
    if granted is None:
        return ()
    return tuple(sorted(_name(scope) for scope in needed if not covers(granted, scope)))


def require_scopes(granted: Scopes | None, needed: Scopes) -> None:
    """Return if all that is needed is granted; None, where nobody says what is granted, counts as all.

    Raises:
        InsufficientScope: it is not; the message names the resource types.
    """
    if missing := missing_scopes(granted, needed):
        raise InsufficientScope(f"expected the EMR to let our client search {', '.join(missing)}; it granted less")


def requested_scope(needed: Iterable[Scope], *, version: int) -> str:
    """Write the scope parameter that asks for whole resource types: ``.rs`` in version 2, ``.read`` in version 1.

    Types that are written are asked for as ``.crs``, and as ``.*`` in version 1, which knows no reading and writing
    together. Not narrowed by category: few servers grant that, and one that does grants its narrower scope anyway.
    """
    needed = tuple(needed)
    written = {scope.resource_type for scope in needed if "c" in scope.interactions}
    suffix = {1: ("read", "*"), 2: ("rs", "crs")}[version]
    types = sorted({scope.resource_type for scope in needed})
    return " ".join(f"system/{each}.{suffix[each in written]}" for each in types)


def scope_version(*, capabilities: Iterable[str], supported: Iterable[str]) -> int:
    """Tell which version of scopes a server understands, by its discovery; 2 where it does not say.

    Source: SMART App Launch 2.2 conformance.html, capabilities ``permission-v1`` and ``permission-v2``.
    """
    stated = {each for each in capabilities if each in {"permission-v1", "permission-v2"}}
    if stated:
        return 2 if "permission-v2" in stated else 1
    about_resources = [match for match in map(_SCOPE.fullmatch, supported) if match is not None]
    return 1 if about_resources and all(match[3] in _VERSION_1 for match in about_resources) else 2


def _scope(level: str, resource_type: str, interactions: str, query: str | None) -> Scope:
    only: dict[str, frozenset[str]] = {}
    for name, value in parse_qsl(query or "", keep_blank_values=True):
        values = frozenset(value.split(","))
        only[name] = only[name] & values if name in only else values
    return Scope(
        level=level,
        resource_type=resource_type,
        interactions=frozenset(_VERSION_1.get(interactions, interactions)),
        only=tuple(sorted(only.items())),
    )


def _search_of(resource_type: str, category: str | None = None) -> Scope:
    only = () if category is None else (("category", frozenset({category})),)
    return Scope(level="system", resource_type=resource_type, interactions=frozenset("s"), only=only)


def _is_within(needed: Scope, granted: Scope) -> bool:
    """Tell whether everything that ``needed`` asks for is among what ``granted`` is narrowed to."""
    asked = dict(needed.only)
    return all(
        name in asked and all(any(_same(value, allowed) for allowed in values) for value in asked[name])
        for name, values in granted.only
    )


def _same(asked: str, allowed: str) -> bool:
    """Compare two tokens; where one names no code system, their codes alone. Source: FHIR R4 search.html#token."""
    if "|" in asked and "|" in allowed:
        return asked == allowed
    return asked.rpartition("|")[2] == allowed.rpartition("|")[2]


def _name(scope: Scope) -> str:
    values = sorted(value for _, values in scope.only for value in values)
    return f"{scope.resource_type} ({', '.join(values)})" if values else scope.resource_type
