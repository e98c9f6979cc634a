"""What of a chart can be seen when: from which instant a resource shows, and what it shows while it is unfinished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mock_emr.dates import BEGINNING, DateError, interval_of
from mock_emr.elements import child, each, reference_text, references

Resource = Mapping[str, Any]

# The first of these that a resource has is when the EMR could first have shown it.
_SHOWN_FROM: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Observation": (
        ("issued",),
        ("effectiveDateTime",),
        ("effectiveInstant",),
        ("effectivePeriod", "start"),
    ),
    "Condition": (("recordedDate",), ("onsetDateTime",), ("onsetPeriod", "start")),
    "DocumentReference": (("date",),),
    "MedicationRequest": (("authoredOn",),),
    "ServiceRequest": (("authoredOn",),),
    "Encounter": (("period", "start"),),
    "Procedure": (("performedDateTime",), ("performedPeriod", "start")),
}
_ORDERS = ("ServiceRequest", "MedicationRequest")
_ENDS_OF_ENCOUNTER = ("length", "statusHistory", "classHistory")


@dataclass(frozen=True, kw_only=True)
class Links:
    """What other resources say about when one may be seen; keys are `Type/id` references.

    ``first_order`` is the earliest order that names an encounter, ``last_result`` the instant from which
    every Observation based on an order shows.
    """

    first_order: Mapping[str, datetime]
    last_result: Mapping[str, datetime]


@dataclass(frozen=True, kw_only=True)
class Showing:
    """A resource shows from ``shown_from``; before ``settled_from`` it shows as ``early``, afterwards as stored.

    ``early`` is None where the resource never shows as anything but what is stored. ``moves`` are what it shows as in
    between, each from its instant on, in order of time.
    """

    shown_from: datetime
    settled_from: datetime
    early: Resource | None
    moves: tuple[tuple[datetime, Resource], ...] = ()


def shown_from(resource: Resource) -> datetime:
    """Give the first instant at which the resource alone says it could be seen.

    A date counts from its beginning. A Patient, a type without a rule, and a resource without any of its
    dates show always.

    Raises:
        DateError: the date is there and cannot be read.
    """
    for path in _SHOWN_FROM.get(str(resource["resourceType"]), ()):
        low = _instant_at(resource, *path)
        if low is not None:
            return low
    return BEGINNING


def links_among(resources: Iterable[Resource]) -> Links:
    """Collect what the resources say about one another's visibility."""
    first_order: dict[str, datetime] = {}
    last_result: dict[str, datetime] = {}
    for resource in resources:
        if resource["resourceType"] in _ORDERS:
            shown = shown_from(resource)
            encounter = reference_text(resource.get("encounter"))
            if encounter is not None and shown != BEGINNING:
                first_order[encounter] = min(shown, first_order.get(encounter, shown))
        elif resource["resourceType"] == "Observation":
            shown = shown_from(resource)
            for order in references(resource.get("basedOn")):
                last_result[order] = max(shown, last_result.get(order, shown))
    return Links(first_order=first_order, last_result=last_result)


def showing_of(resource: Resource, *, links: Links) -> Showing:
    """Decide when the resource shows, and as what until it is settled.

    An order is `active` until its last result shows. An encounter is `in-progress` and open until its period
    ends, and can be seen from its first order, which some sources put before the period's start; a location that has a
    period shows from when the patient got there, without an end until they left. A procedure is
    `in-progress` until its period ends. A death and the end of a condition stay unseen until they happen. A
    MedicationRequest always shows as stored.
    """
    own = shown_from(resource)
    moves: tuple[tuple[datetime, Resource], ...] = ()
    key = f"{resource['resourceType']}/{resource['id']}"
    match resource["resourceType"]:
        case "ServiceRequest":
            settled = links.last_result.get(key)
            early: Resource | None = {**resource, "status": "active"}
        case "Encounter":
            own = min(own, links.first_order.get(key, own))
            settled = _instant_at(resource, "period", "end", last=True)
            early = _open_encounter(resource, at=own)
            times = _moves(resource, after=own, before=settled)
            if times and settled is None:
                *times, settled = times
            moves = tuple((at, _open_encounter(resource, at=at)) for at in times)
        case "Procedure":
            settled = _instant_at(resource, "performedPeriod", "end", last=True)
            early = _underway(resource)
        case "Patient":
            settled = _instant_at(resource, "deceasedDateTime")
            early = {name: value for name, value in resource.items() if name != "deceasedDateTime"}
        case "Condition":
            settled = _instant_at(resource, "abatementDateTime")
            early = _ongoing_condition(resource)
        case _:
            settled, early = None, None
    if settled is None or settled <= own:
        return Showing(shown_from=own, settled_from=BEGINNING, early=None)
    return Showing(shown_from=own, settled_from=settled, early=early, moves=moves)


def _moves(encounter: Resource, *, after: datetime, before: datetime | None) -> list[datetime]:
    """Give when the patient got to each location within this time, both ends excluded."""
    starts = {_instant_at(held, "period", "start") for held in each(encounter.get("location"))}
    return sorted(at for at in starts if at is not None and after < at and (before is None or at < before))


def _located(location: Resource, *, at: datetime) -> Resource | None:
    """Give a location as it shows at an instant; None before the patient got there."""
    start, end = _instant_at(location, "period", "start"), _instant_at(location, "period", "end", last=True)
    if start is not None and start > at:
        return None
    if end is None or end <= at:
        return location
    period = {name: value for name, value in child(location, "period").items() if name != "end"}
    return {**location, "status": "active", "period": period}


def _open_encounter(encounter: Resource, *, at: datetime) -> Resource:
    shown = {name: value for name, value in encounter.items() if name not in _ENDS_OF_ENCOUNTER}
    shown["status"] = "in-progress"
    shown["period"] = {name: value for name, value in child(encounter, "period").items() if name != "end"}
    if "location" in shown:
        places = [place for held in each(shown.pop("location")) if (place := _located(held, at=at)) is not None]
        # A FHIR array is never empty.
        shown |= {"location": places} if places else {}
    if "hospitalization" in encounter:
        stay = child(encounter, "hospitalization")
        shown["hospitalization"] = {name: stay[name] for name in stay if not name.startswith("discharge")}
    return shown


def _underway(procedure: Resource) -> Resource:
    period = {name: value for name, value in child(procedure, "performedPeriod").items() if name != "end"}
    return {**procedure, "status": "in-progress", "performedPeriod": period}


def _ongoing_condition(condition: Resource) -> Resource:
    shown = {name: value for name, value in condition.items() if name != "abatementDateTime"}
    system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    return {**shown, "clinicalStatus": {"coding": [{"system": system, "code": "active"}]}}


def _instant_at(resource: Resource, *path: str, last: bool = False) -> datetime | None:
    held: Any = resource
    for name in path:
        held = held.get(name) if isinstance(held, dict) else None
    if held is None:
        return None
    if not isinstance(held, str):
        raise DateError(f"expected a date as text in {'.'.join(path)}")
    interval = interval_of(held)
    # A period that ends on a mere date holds all of that day (FHIR R4 datatypes.html#Period).
    return interval.high if last and "T" not in held else interval.low
