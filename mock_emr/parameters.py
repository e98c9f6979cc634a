"""Which search parameters each resource type has, as a table, and what a resource holds under each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from mock_emr.dates import BEGINNING, FOREVER, Interval, interval_of
from mock_emr.elements import codings, each, identifiers, references

Resource = Mapping[str, Any]
# (system, code); None stands for any, "" for none. References use (None, "Type/id") and (None, "id").
Term = tuple[str | None, str | None]
Kind = Literal["token", "reference", "date"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One search parameter: its kind, the element it reads, the type that a bare id refers to (references only)."""

    kind: Kind
    element: str
    target: str | None = None
    read: Callable[[object], tuple[tuple[str, str], ...]] | None = None


def _codes(element: str) -> Parameter:
    return Parameter(kind="token", element=element, read=codings)


def _word(element: str) -> Parameter:
    return Parameter(kind="token", element=element, read=_words)


def _words(value: object) -> tuple[tuple[str, str], ...]:
    return () if value is None else (("", str(value).lower() if isinstance(value, bool) else str(value)),)


def _points(element: str, target: str | None) -> Parameter:
    return Parameter(kind="reference", element=element, target=target)


def _dated(element: str) -> Parameter:
    return Parameter(kind="date", element=element)


def _places(value: object) -> tuple[tuple[str, str], ...]:
    """Give where an encounter takes place. Source: FHIR R4 encounter.html#search, `Encounter.location.location`."""
    return tuple(("", text) for text in references([held.get("location") for held in each(value)]))


_EVERYWHERE: Mapping[str, Parameter] = {
    "_id": _word("id"),
    "identifier": Parameter(kind="token", element="identifier", read=identifiers),
}
_OF_A_PATIENT: Mapping[str, Parameter] = {
    **_EVERYWHERE,
    "patient": _points("subject", "Patient"),
    "subject": _points("subject", None),
}
_IN_AN_ENCOUNTER: Mapping[str, Parameter] = {**_OF_A_PATIENT, "encounter": _points("encounter", "Encounter")}

# The names are R4's own: an order's date is `authoredon` on a MedicationRequest and `authored` on a ServiceRequest.
# Source: FHIR R4 searchparameter-registry.html.
PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    "Patient": {**_EVERYWHERE, "birthdate": _dated("birthDate"), "gender": _word("gender")},
    "Encounter": {
        **_OF_A_PATIENT,
        "class": Parameter(kind="token", element="class", read=lambda value: codings({"coding": [value]})),
        "date": _dated("period"),
        "location": Parameter(kind="reference", element="location", target="Location", read=_places),
        "status": _word("status"),
    },
    "Condition": {
        **_IN_AN_ENCOUNTER,
        "category": _codes("category"),
        "clinical-status": _codes("clinicalStatus"),
        "code": _codes("code"),
        "onset-date": _dated("onset"),
        "recorded-date": _dated("recordedDate"),
    },
    "Coverage": {
        **_EVERYWHERE,
        "beneficiary": _points("beneficiary", "Patient"),
        "patient": _points("beneficiary", "Patient"),
        "status": _word("status"),
        "type": _codes("type"),
    },
    "DocumentReference": {
        **_OF_A_PATIENT,
        "category": _codes("category"),
        "date": _dated("date"),
        "status": _word("status"),
        "type": _codes("type"),
    },
    "MedicationRequest": {
        **_IN_AN_ENCOUNTER,
        "authoredon": _dated("authoredOn"),
        "category": _codes("category"),
        "code": _codes("medicationCodeableConcept"),
        "intent": _word("intent"),
        "status": _word("status"),
    },
    "Observation": {
        **_IN_AN_ENCOUNTER,
        "based-on": _points("basedOn", None),
        "category": _codes("category"),
        "code": _codes("code"),
        "date": _dated("effective"),
        "status": _word("status"),
    },
    "Procedure": {
        **_IN_AN_ENCOUNTER,
        "category": _codes("category"),
        "code": _codes("code"),
        "date": _dated("performed"),
        "status": _word("status"),
    },
    "ServiceRequest": {
        **_IN_AN_ENCOUNTER,
        "authored": _dated("authoredOn"),
        "based-on": _points("basedOn", None),
        "category": _codes("category"),
        "code": _codes("code"),
        "intent": _word("intent"),
        "status": _word("status"),
    },
}
# What a type without a row of its own can be searched by.
OTHER: Mapping[str, Parameter] = {**_OF_A_PATIENT, "code": _codes("code"), "status": _word("status")}


def parameters_of(resource_type: str) -> Mapping[str, Parameter]:
    """Give the search parameters of a type by name; OTHER for a type without a row."""
    return PARAMETERS.get(resource_type, OTHER)


def terms_in(resource: Resource) -> dict[str, frozenset[Term]]:
    """Give, for each token and reference parameter, every way of asking that the resource answers to.

    A coding answers to its code under any system, to both together, and to its system with any code. A
    reference answers to `Type/id` and to `id` alone.
    """
    found: dict[str, frozenset[Term]] = {}
    for name, parameter in parameters_of(resource["resourceType"]).items():
        held = resource.get(parameter.element)
        if held is None or parameter.kind == "date":
            continue
        found[name] = _ways_to_ask(parameter.read(held)) if parameter.read else _ways_to_refer(references(held))
    return found


def intervals_in(resource: Resource) -> dict[str, Interval]:
    """Give the stretch of time that the resource holds under each date parameter.

    Choice elements (`effective`, `onset`) are read as dateTime, instant or Period. An open end reaches to the
    end of time.

    Raises:
        DateError: a date cannot be read.
    """
    found: dict[str, Interval] = {}
    for name, parameter in parameters_of(resource["resourceType"]).items():
        if parameter.kind != "date":
            continue
        for suffix in ("", "DateTime", "Instant", "Period"):
            held = resource.get(parameter.element + suffix)
            if isinstance(held, str):
                found[name] = interval_of(held)
            elif isinstance(held, dict):
                found[name] = _period(held)
    return found


def _period(period: Mapping[str, Any]) -> Interval:
    start, end = period.get("start"), period.get("end")
    return Interval(
        low=BEGINNING if start is None else interval_of(str(start)).low,
        high=FOREVER if end is None else interval_of(str(end)).high,
    )


# Most resources of a chart share a few hundred codings: one set serves them all.
@lru_cache(maxsize=65_536)
def _ways_to_ask(pairs: tuple[tuple[str, str], ...]) -> frozenset[Term]:
    return frozenset(way for system, code in pairs for way in ((system, code), (None, code), (system, None)))


@lru_cache(maxsize=65_536)
def _ways_to_refer(texts: tuple[str, ...]) -> frozenset[Term]:
    return frozenset((None, way) for text in texts for way in (text, text.rsplit("/", 1)[-1]))
