"""FHIR resources to rows of the fact tables. Pure; what cannot be a fact is counted, by reason, never guessed at.

The rules are those that serving reads the EMR's resources by, written a second time because training and serving share
no code: the equality of a hospital's OMOP extract and its FHIR export is what proves both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, tzinfo
from typing import Any

from deployr_core.codes import OMB_RACE_ETHNICITY, UCUM
from deployr_core.facts import DiagnosisList, Sex
from deployr_core.instants import known_instant, parse_fhir_datetime
from deployr_dev.sources import fhir_wire as wire

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]

_FINAL = {"final", "amended", "corrected"}
_UNREAL_MEDICATION = {"cancelled", "draft", "entered-in-error"}
_UNREAL_CONDITION = {"refuted", "entered-in-error"}
_UNREAL_VISIT = {"cancelled", "entered-in-error", "planned"}
_REAL_PROCEDURE = {"completed", "in-progress"}
_CANCELLED_ORDER = {"revoked", "entered-in-error"}
_ABNORMAL = {"H", "HH", "L", "LL", "A", "AA", "HU", "LU", "<", ">"}
_NORMAL = {"N"}
_CATEGORY_OF_URL = {
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race": "race",
    "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity": "ethnicity",
}
_FHIR_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?\Z", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What reading a resource takes beside it.

    ``persons``: person id by Patient id. ``zone``: of times without an offset. ``left_out``: counts, by reason, what
    was no fact. ``medications``: what each Medication is, by its id.
    """

    persons: dict[str, int] = field(repr=False)
    medications: dict[str, wire.CodeableConcept | None] = field(default_factory=dict)
    zone: tzinfo
    left_out: Counter[str]


class _NoFact(Exception):
    """The resource is no fact; the message is the reason under which it is counted."""


def person_rows(patient: wire.Patient, person_id: int, context: Context) -> Rows:
    """Give who the patient is, and their death; a birth date that is not a date counts as unknown."""
    identifiers = [identifier.value for identifier in patient.identifier if identifier.value]
    year, month, day = _birth_date(patient.birth_date)
    yield (
        "persons",
        {
            "person_id": person_id,
            "source_value": identifiers[0] if len(identifiers) == 1 else patient.id,
            "birth_year": year,
            "birth_month": month,
            "birth_day": day,
            "sex": patient.gender if patient.gender in set(Sex) else Sex.UNKNOWN.value,
        },
    )
    for extension in patient.extension:
        kind = _CATEGORY_OF_URL.get(extension.url)
        for part in extension.extension if kind else ():
            coding = part.value_coding
            if part.url == "ombCategory" and coding and coding.code and coding.system == OMB_RACE_ETHNICITY:
                yield (
                    "person_categories",
                    {"person_id": person_id, "kind": kind, "system": coding.system, "code": coding.code},
                )
    if patient.deceased_date_time:
        try:
            span = parse_fhir_datetime(patient.deceased_date_time, zone=context.zone)
        except ValueError:
            context.left_out["deaths.impossible_time"] += 1
        else:
            yield "deaths", {"person_id": person_id, "happened_at": span[0], "known_at": known_instant(span)}


def fact_rows(resource: wire.Resource, context: Context) -> Rows:
    """Give the rows of a resource that is not a Patient, one per fact and code; none if it is no fact."""
    table, read = _READERS[type(resource)]
    try:
        rows = list(read(resource, context))
    except _NoFact as reason:
        context.left_out[f"{table}.{reason}"] += 1
    except ValueError:
        context.left_out[f"{table}.impossible_time"] += 1
    else:
        yield from rows


def _observation(resource: wire.Observation, context: Context) -> Rows:
    """Read a result or a vital sign; known from ``issued`` on, taken at ``effective[x]``, of a period at its start."""
    categories = {coding.code for concept in resource.category for coding in concept.coding}
    if resource.category and not categories & {"laboratory", "vital-signs"}:
        raise _NoFact("neither_laboratory_nor_vital_sign")
    if resource.status not in _FINAL:
        raise _NoFact("status_not_final")
    is_vital = "vital-signs" in categories and "laboratory" not in categories
    if resource.issued is None and not is_vital:
        raise _NoFact("no_release_time")
    effective = _effective(resource)
    if resource.id is None or effective is None:
        raise _NoFact("no_id_or_specimen_time")
    taken = parse_fhir_datetime(effective, zone=context.zone)
    released = parse_fhir_datetime(resource.issued, zone=context.zone) if resource.issued else taken
    fact = {
        "person_id": _person(resource.subject, context),
        "fact_id": resource.id,
        "happened_at": taken[0],
        "known_at": known_instant(released),
    }
    quantity = resource.value_quantity or wire.Quantity()
    if not is_vital:
        low, high = _reference_range(resource, unit=_unit(quantity))
        lab = {
            **fact,
            "value": _number(quantity),
            "unit": _unit(quantity),
            "reference_low": low,
            "reference_high": high,
            "abnormal": _abnormal(resource),
            "order_id": _order_id(resource),
        }
        yield from _per_code("labs", lab, resource.code)
        return
    if resource.value_quantity is not None or not resource.component:
        vital = {**fact, "value": _number(quantity), "unit": _unit(quantity)}
        yield from _per_code("vitals", vital, resource.code)
    # A blood pressure is a panel: its parts are the measurements.
    for place, component in enumerate(resource.component):
        quantity = component.value_quantity or wire.Quantity()
        part = {**fact, "fact_id": f"{resource.id}.{place}", "value": _number(quantity), "unit": _unit(quantity)}
        yield from _per_code("vitals", part, component.code)


def _condition(resource: wire.Condition, context: Context) -> Rows:
    """Read a diagnosis; it counts from when it was recorded, and from the list that it says it is on."""
    status = resource.verification_status
    if status is not None and {coding.code for coding in status.coding} & _UNREAL_CONDITION:
        raise _NoFact("not_so")
    lists = {coding.code for concept in resource.category for coding in concept.coding} & set(DiagnosisList)
    if len(lists) != 1:
        raise _NoFact("no_single_list")
    if resource.id is None or resource.recorded_date is None:
        raise _NoFact("no_recorded_date")
    row = {**_dated(resource, resource.recorded_date, context), "recorded_in": str(lists.pop())}
    yield from _per_code("diagnoses", row, resource.code)


def _medication(resource: wire.MedicationRequest, context: Context) -> Rows:
    """Read a medication order; it counts from when it was written."""
    if resource.status in _UNREAL_MEDICATION:
        raise _NoFact("not_so")
    if resource.id is None or resource.authored_on is None:
        raise _NoFact("no_order_time")
    row = _dated(resource, resource.authored_on, context)
    yield from _per_code("medications", row, _ordered(resource, context))


def _ordered(resource: wire.MedicationRequest, context: Context) -> wire.CodeableConcept | None:
    """Give what was ordered: said, contained, or referred to; what the export does not hold is counted."""
    if resource.medication_codeable_concept is not None:
        return resource.medication_codeable_concept
    reference = resource.medication_reference.reference if resource.medication_reference else None
    for inside in resource.contained:
        if reference == f"#{inside.id}" and inside.resource_type == "Medication":
            return inside.code if isinstance(inside.code, wire.CodeableConcept) else None
    medication_id = _local_id(reference, "Medication")
    if medication_id not in context.medications:
        context.left_out["medications.not_resolved"] += 1
        return None
    return context.medications[medication_id]


def _procedure(resource: wire.Procedure, context: Context) -> Rows:
    """Read a procedure that was done or begun; it counts from when that was."""
    if resource.status not in _REAL_PROCEDURE:
        raise _NoFact("not_done")
    period = resource.performed_period or wire.Period()
    when = resource.performed_date_time or period.start
    if resource.id is None or when is None:
        raise _NoFact("no_time")
    yield from _per_code("procedures", _dated(resource, when, context), resource.code)


def _order(resource: wire.ServiceRequest, context: Context) -> Rows:
    """Read an order; it counts from when it was signed."""
    if resource.id is None or resource.authored_on is None:
        raise _NoFact("no_order_time")
    reference = resource.encounter.reference if resource.encounter else None
    row = {
        **_dated(resource, resource.authored_on, context),
        "visit_id": _local_id(reference, "Encounter"),
        "cancelled": resource.status in _CANCELLED_ORDER,
    }
    yield from _per_code("orders", row, resource.code)


def _visit(resource: wire.Encounter, context: Context) -> Rows:
    """Read a visit; it counts from its start."""
    if resource.status in _UNREAL_VISIT:
        raise _NoFact("not_so")
    period = resource.period or wire.Period()
    if resource.id is None or period.start is None:
        raise _NoFact("no_start")
    disposition = resource.hospitalization.discharge_disposition if resource.hospitalization else None
    codes = [coding.code for coding in disposition.coding if coding.code] if disposition else []
    ended = known_instant(parse_fhir_datetime(period.end, zone=context.zone)) if period.end else None
    row = {
        **_dated(resource, period.start, context),
        "ended_at": ended,
        "discharged_to": codes[0] if codes else disposition.text if disposition else None,
    }
    yield from _per_code("visits", row, wire.CodeableConcept(coding=(resource.class_ or wire.Coding(),)))


_READERS: dict[type[wire.Resource], tuple[str, Callable[[Any, Context], Rows]]] = {
    wire.Observation: ("observations", _observation),
    wire.Condition: ("diagnoses", _condition),
    wire.MedicationRequest: ("medications", _medication),
    wire.Procedure: ("procedures", _procedure),
    wire.ServiceRequest: ("orders", _order),
    wire.Encounter: ("visits", _visit),
}


def _dated(
    resource: wire.Condition | wire.MedicationRequest | wire.Procedure | wire.ServiceRequest | wire.Encounter,
    when: str,
    context: Context,
) -> Row:
    span = parse_fhir_datetime(when, zone=context.zone)
    return {
        "person_id": _person(resource.subject, context),
        "fact_id": resource.id,
        "happened_at": span[0],
        "known_at": known_instant(span),
    }


def _per_code(table: str, fact: Row, concept: wire.CodeableConcept | None) -> Rows:
    codings = concept.coding if concept else ()
    codes = dict.fromkeys((coding.system, coding.code) for coding in codings if coding.system and coding.code)
    for system, code in codes or ((None, None),):
        yield table, {**fact, "system": system, "code": code}


def _person(subject: wire.Reference | None, context: Context) -> int:
    person_id = context.persons.get(_local_id(subject.reference if subject else None, "Patient") or "")
    if person_id is None:
        raise _NoFact("of_no_patient_of_the_export")
    return person_id


def _local_id(reference: str | None, kind: str) -> str | None:
    """Give the id in a reference, relative or absolute: an export is of one server."""
    parts = (reference or "").split("/")
    if len(parts) >= 4 and parts[-2] == "_history":
        parts = parts[:-2]
    return parts[-1] or None if len(parts) >= 2 and parts[-2] == kind else None


def _unit(quantity: wire.Quantity) -> str:
    if quantity.system == UCUM and quantity.code:
        return quantity.code
    return quantity.unit or quantity.code or ""


def _effective(resource: wire.Observation) -> str | None:
    if resource.effective_date_time is not None:
        return resource.effective_date_time
    if resource.effective_instant is not None:
        return resource.effective_instant
    return None if resource.effective_period is None else resource.effective_period.start


def _number(quantity: wire.Quantity) -> float | None:
    """Give the number; "<5" is not 5: a comparator makes it a result without one, and so does text."""
    return None if quantity.comparator is not None or isinstance(quantity.value, str) else quantity.value


def _reference_range(resource: wire.Observation, *, unit: str) -> tuple[float | None, float | None]:
    """Give the bounds of the one normal range there is, if they are in the result's own unit; untyped is normal."""
    normal = [
        each
        for each in resource.reference_range
        if each.type is None or any(coding.code == "normal" for coding in each.type.coding)
    ]
    if len(normal) != 1:
        return None, None
    (only,) = normal

    def bound(quantity: wire.Quantity | None) -> float | None:
        return None if quantity is None or _unit(quantity) not in {unit, ""} else _number(quantity)

    return bound(only.low), bound(only.high)


def _abnormal(resource: wire.Observation) -> bool | None:
    flags = {coding.code for concept in resource.interpretation for coding in concept.coding}
    if flags & _ABNORMAL:
        return True
    return False if flags & _NORMAL else None


def _order_id(resource: wire.Observation) -> str | None:
    ids = {_local_id(reference.reference, "ServiceRequest") for reference in resource.based_on} - {None}
    return ids.pop() if len(ids) == 1 else None


def _birth_date(text: str | None) -> tuple[int | None, int | None, int | None]:
    match = _FHIR_DATE.match(text or "")
    if match is None:
        return None, None, None
    year, month, day = (int(part) if part else None for part in match.groups())
    try:
        date(year or 0, month or 1, day or 1)
    except ValueError:
        return None, None, None
    return year, month, day
