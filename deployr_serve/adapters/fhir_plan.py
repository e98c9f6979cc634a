"""Which FHIR searches a declaration needs, and which of its groups no search could fetch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

from deployr_core.codes import LOINC, Code
from deployr_core.features import (
    AgeGroup,
    DiagnosisGroup,
    EthnicityGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    SexGroup,
    VisitGroup,
    VitalGroup,
    WindowedGroup,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """One search: the resource type and its parameters, each as often as it is given; both by their R4 names."""

    resource_type: str
    parameters: tuple[tuple[str, str], ...] = field(repr=False)


def plan(spec: FeatureSpec, *, patient_id: str, as_of: datetime) -> dict[str, Search]:
    """Derive the searches from the declaration: no more is asked than the windows and codes need.

    Groups of one kind share one search, over the longest of their windows. Dates are cut to the minute before, and
    asked for with their offset, so that no server's rounding loses the first minute of a window.
    """
    return {
        name: Search(
            resource_type=kind.resource_type,
            parameters=(
                ("patient", patient_id),
                *narrowed,
                (kind.dated_by, at_or_after(as_of - longest)),
                *(("_include", included) for included in kind.includes),
            ),
        )
        for name, kind, narrowed, longest in _declared(spec)
    }


def unfetchable(spec: FeatureSpec) -> tuple[str, ...]:
    """Name the groups that this source cannot fetch; a model that declares one must not be served.

    They would be scored as "nothing there" for every patient, though the model was trained on what there was.
    """
    fetched = (*_ON_THE_PATIENT, *(kind.group for kind in _KINDS.values()))
    return tuple(group.name for group in spec.groups if not isinstance(group, fetched))


def lab_search(patient_id: str, codes: tuple[Code, ...], since: datetime) -> Search:
    """Search for a patient's results of these codes whose specimen was taken at or after ``since``."""
    return Search(
        resource_type="Observation",
        parameters=(("patient", patient_id), *_lab_parameters(codes), ("date", at_or_after(since))),
    )


_Parameters = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """How groups of one kind are searched for: ``dated_by`` is the parameter of what their windows look at.

    ``includes``: what the matches refer to, and is wanted with them.
    """

    group: type[WindowedGroup]
    resource_type: str
    dated_by: str
    narrowed_to: Callable[[Sequence[Any]], _Parameters] = lambda _: ()
    includes: tuple[str, ...] = ()


def _lab_parameters(codes: Iterable[Code]) -> _Parameters:
    return ("category", "laboratory"), ("code", ",".join(search_token(*code) for code in codes))


def _labs_of(groups: Sequence[LabGroup]) -> _Parameters:
    return _lab_parameters(_declared_codes(groups))


def _vitals_of(groups: Sequence[VitalGroup]) -> _Parameters:
    codes = _declared_codes(groups)
    panels = [panel for code in codes for panel in _PANELS_OF_COMPONENT.get(code, ())]
    return ("category", "vital-signs"), (
        "code",
        ",".join(search_token(*code) for code in dict.fromkeys((*codes, *panels))),
    )


def _lists_of(groups: Sequence[DiagnosisGroup]) -> _Parameters:
    lists = dict.fromkeys(chain.from_iterable(group.recorded_in for group in groups))
    return (("category", ",".join(lists)),)


_KINDS: Mapping[str, _Kind] = {
    "labs": _Kind(group=LabGroup, resource_type="Observation", dated_by="date", narrowed_to=_labs_of),
    "vitals": _Kind(group=VitalGroup, resource_type="Observation", dated_by="date", narrowed_to=_vitals_of),
    "diagnoses": _Kind(
        group=DiagnosisGroup, resource_type="Condition", dated_by="recorded-date", narrowed_to=_lists_of
    ),
    "medications": _Kind(
        group=MedicationGroup,
        resource_type="MedicationRequest",
        dated_by="authoredon",
        includes=("MedicationRequest:medication",),
    ),
    "procedures": _Kind(group=ProcedureGroup, resource_type="Procedure", dated_by="date"),
    "orders": _Kind(group=OrderGroup, resource_type="ServiceRequest", dated_by="authored"),
    "visits": _Kind(group=VisitGroup, resource_type="Encounter", dated_by="date"),
}
"""By the name of the search. Source: FHIR R4 search parameter registry,
http://hl7.org/fhir/R4/searchparameter-registry.html [seen]."""

_ON_THE_PATIENT = (AgeGroup, SexGroup, RaceGroup, EthnicityGroup)

_BLOOD_PRESSURE = (Code(LOINC, "85354-9"), Code(LOINC, "55284-4"))
_PULSE_OXIMETRY = (Code(LOINC, "59408-5"), Code(LOINC, "2708-6"))
_PANELS_OF_COMPONENT: Mapping[Code, tuple[Code, ...]] = {
    Code(LOINC, "8480-6"): _BLOOD_PRESSURE,
    Code(LOINC, "8462-4"): _BLOOD_PRESSURE,
    Code(LOINC, "3151-8"): _PULSE_OXIMETRY,
    Code(LOINC, "3150-6"): _PULSE_OXIMETRY,
}
"""Measurements that are filed as components of others. ``code`` finds an Observation by its own code alone, so that
a search for the systolic pressure would find no blood pressure: the panel is asked for beside it.

Source: US Core 3.1.1 blood pressure and pulse oximetry profiles [seen]; 55284-4, LOINC's older panel [secondary]."""


@lru_cache(maxsize=64)
def _declared(spec: FeatureSpec) -> tuple[tuple[str, _Kind, _Parameters, timedelta], ...]:
    """Give the name and kind of each search, what narrows it and how far it goes back; once per declaration."""
    declared = []
    for name, kind in _KINDS.items():
        groups = [group for group in spec.groups if isinstance(group, kind.group)]
        if groups:
            longest = timedelta(days=max(group.lookback_days for group in groups))
            declared.append((name, kind, kind.narrowed_to(groups), longest))
    return tuple(declared)


def _declared_codes(groups: Sequence[LabGroup] | Sequence[VitalGroup]) -> tuple[Code, ...]:
    return tuple(dict.fromkeys(key for group in groups for analyte in group.analytes for key in analyte.keys))


def search_token(system: str, value: str) -> str:
    """Give a code or an identifier as a search takes it."""
    return f"{escaped(system)}|{escaped(value)}"


def escaped(text: str) -> str:
    """Give a text as a part of a search value."""
    return text.translate(_ESCAPES)


_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\,|$"})
"""Source: FHIR R4 search.html#escaping, http://hl7.org/fhir/R4/search.html#escaping [seen]."""


def at_or_after(instant: datetime) -> str:
    """Give a date search's value, cut to the minute before and with its offset; see `plan`."""
    return f"ge{instant.astimezone(UTC).isoformat()[:16]}:00Z"
