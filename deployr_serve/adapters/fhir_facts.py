"""FHIR resources to facts. Pure; what cannot be used is counted, by reason, never guessed at.

Each function gives None and counts the reason where a resource cannot be a fact: a status that means "not so", no
date from which it was known, no subject.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, tzinfo
from functools import lru_cache

from deployr_core.codes import OMB_RACE_ETHNICITY, UCUM, Code
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Encounter,
    Lab,
    Medication,
    Order,
    OrderStatus,
    Procedure,
    Sex,
    Visit,
    Vital,
)
from deployr_core.instants import known_instant, parse_fhir_datetime
from deployr_serve.adapters import fhir_wire as wire

_FINAL = {"final", "amended", "corrected"}
_UNREAL_MEDICATION = {"cancelled", "draft", "entered-in-error"}
_UNREAL_CONDITION = {"refuted", "entered-in-error"}
_CANCELLED_ORDER = {"revoked", "entered-in-error"}
_UNREAL_ORDER = {"draft", "entered-in-error"}
_DONE_PROCEDURE = {"completed", "in-progress"}
_UNREAL_VISIT = {"planned", "cancelled", "entered-in-error"}
_DIAGNOSIS_LISTS = frozenset(DiagnosisList)
_SEXES = frozenset(Sex)
_RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
_ETHNICITY = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"
_ABNORMAL = {"H", "HH", "L", "LL", "A", "AA", "HU", "LU", "<", ">"}
_NORMAL = {"N"}
_FHIR_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?\Z", re.ASCII)


def subject_of(resource: wire.AboutPatient, *, fhir_base: str) -> str | None:
    """Give the id of the patient that a resource is about; None if it does not say.

    A reference that is no patient of this server's comes out with a slash, so that it equals nobody's id.
    """
    reference = resource.subject.reference if resource.subject else None
    if reference is None:
        return None
    return _local_id(reference, "Patient", fhir_base=fhir_base) or f"/{reference}"


def demographics(patient: wire.Patient) -> Demographics:
    """Read who the patient is; a birth date that is not a date counts as unknown."""
    return Demographics(
        birth_date=_birth_date(patient.birth_date),
        sex=Sex(patient.gender) if patient.gender in _SEXES else Sex.UNKNOWN,
        races=_omb_categories(patient, _RACE),
        ethnicities=_omb_categories(patient, _ETHNICITY),
    )


def encounter(resource: wire.Encounter, *, csn_system: str | None, zone: tzinfo) -> Encounter:
    """Read an encounter. The CSN is the one identifier of the configured system, or of type text ``CSN``."""
    serials = {
        identifier.value
        for identifier in resource.identifier
        if identifier.value
        and (
            identifier.system == csn_system
            if csn_system
            else identifier.type is not None and identifier.type.text == "CSN"
        )
    }
    period = resource.period or wire.Period()
    return Encounter(
        encounter_id=resource.id or "",
        start=_span(period.start, zone)[0] if period.start else None,
        end=_span(period.end, zone)[0] if period.end else None,
        contact_serial_number=serials.pop() if len(serials) == 1 else None,
    )


def order(resource: wire.ServiceRequest, *, fhir_base: str, zone: tzinfo) -> Order | None:
    """Read an order; None without the instant it was signed."""
    if resource.id is None or resource.authored_on is None:
        return None
    span = _span(resource.authored_on, zone)
    status = OrderStatus.OPEN
    if resource.status in _CANCELLED_ORDER:
        status = OrderStatus.CANCELLED
    elif resource.status == "completed":
        status = OrderStatus.DONE
    reference = resource.encounter.reference if resource.encounter else None
    return Order(
        fact_id=resource.id,
        codes=_codes(resource.code),
        at=span[0],
        known_at=known_instant(span),
        encounter_id=_local_id(reference, "Encounter", fhir_base=fhir_base) if reference else None,
        status=status,
    )


def signed_order(resource: wire.ServiceRequest, *, fhir_base: str, zone: tzinfo, dropped: Counter[str]) -> Order | None:
    """Read an order as a fact about the past: it was signed, whatever became of it, revoked orders included."""
    if resource.status in _UNREAL_ORDER:
        dropped["orders.not_so"] += 1
        return None
    fact = order(resource, fhir_base=fhir_base, zone=zone)
    if fact is None:
        dropped["orders.no_order_time"] += 1
    return fact


def lab(resource: wire.Observation, *, fhir_base: str, zone: tzinfo, dropped: Counter[str]) -> Lab | None:
    """Read a laboratory result; ``issued`` says when it could be known, ``effectiveDateTime`` when it was drawn."""
    if resource.status not in _FINAL:
        dropped["labs.status_not_final"] += 1
        return None
    if resource.issued is None:
        dropped["labs.no_release_time"] += 1
        return None
    if resource.id is None or resource.effective_date_time is None:
        dropped["labs.no_id_or_specimen_time"] += 1
        return None
    value, unit = _measured(resource.value_quantity)
    low, high = _reference_range(resource, unit=unit)
    return Lab(
        fact_id=resource.id,
        codes=_codes(resource.code),
        at=_span(resource.effective_date_time, zone)[0],
        known_at=known_instant(_span(resource.issued, zone)),
        value=value,
        unit=unit,
        reference_low=low,
        reference_high=high,
        abnormal=_abnormal(resource),
        order_id=_order_id(resource, fhir_base=fhir_base),
    )


def vitals(resource: wire.Observation, *, zone: tzinfo, dropped: Counter[str]) -> tuple[Vital, ...]:
    """Read a bedside measurement: one fact, or one for each component of a panel such as a blood pressure.

    A component's ``fact_id`` is ``<id>#<its first code>``. The panel itself is a fact only where it has a value of its
    own. It is known from ``issued`` on; a server that leaves that out files measurements as they are taken.

    Source: FHIR R4 vital signs profiles, http://hl7.org/fhir/R4/observation-vitalsigns.html [seen].
    """
    if resource.status not in _FINAL:
        dropped["vitals.status_not_final"] += 1
        return ()
    if resource.id is None or resource.effective_date_time is None:
        dropped["vitals.no_id_or_time"] += 1
        return ()
    taken = _span(resource.effective_date_time, zone)
    known_at = known_instant(_span(resource.issued, zone) if resource.issued else taken)

    def fact(fact_id: str, codes: tuple[Code, ...], quantity: wire.Quantity | None) -> Vital:
        value, unit = _measured(quantity)
        return Vital(fact_id=fact_id, codes=codes, at=taken[0], known_at=known_at, value=value, unit=unit)

    facts: dict[str, Vital] = {}
    if resource.value_quantity is not None or not resource.component:
        facts[resource.id] = fact(resource.id, _codes(resource.code), resource.value_quantity)
    for component in resource.component:
        codes = _codes(component.code)
        if not codes:
            dropped["vitals.component_without_code"] += 1
            continue
        fact_id = f"{resource.id}#{codes[0].value}"
        if fact_id in facts:
            # A panel may hold the same measurement twice, as of both arms; an id is given once.
            fact_id = f"{fact_id}#{len(facts)}"
        facts[fact_id] = fact(fact_id, codes, component.value_quantity)
    return tuple(facts.values())


def procedure(resource: wire.Procedure, *, zone: tzinfo, dropped: Counter[str]) -> Procedure | None:
    """Read a procedure that was done or is being done; it counts from when it began."""
    if resource.status not in _DONE_PROCEDURE:
        dropped["procedures.not_done"] += 1
        return None
    began = resource.performed_date_time or (resource.performed_period.start if resource.performed_period else None)
    if resource.id is None or began is None:
        dropped["procedures.no_time"] += 1
        return None
    span = _span(began, zone)
    return Procedure(fact_id=resource.id, codes=_codes(resource.code), at=span[0], known_at=known_instant(span))


def visit(resource: wire.Encounter, *, zone: tzinfo, dropped: Counter[str]) -> Visit | None:
    """Read an encounter as a fact about the past: of which class it was, and when it began."""
    if resource.status in _UNREAL_VISIT:
        dropped["visits.not_so"] += 1
        return None
    if resource.id is None or resource.period is None or resource.period.start is None:
        dropped["visits.no_start"] += 1
        return None
    span = _span(resource.period.start, zone)
    codes = _codes(wire.CodeableConcept(coding=(resource.class_,))) if resource.class_ else ()
    return Visit(fact_id=resource.id, codes=codes, at=span[0], known_at=known_instant(span))


def diagnosis(resource: wire.Condition, *, zone: tzinfo, dropped: Counter[str]) -> Diagnosis | None:
    """Read a diagnosis; it counts from when it was recorded, and from the list that it says it is on."""
    status = {coding.code for coding in resource.verification_status.coding} if resource.verification_status else set()
    if status & _UNREAL_CONDITION:
        dropped["diagnoses.not_so"] += 1
        return None
    lists = {
        coding.code for concept in resource.category for coding in concept.coding if coding.code in _DIAGNOSIS_LISTS
    }
    if len(lists) != 1:
        dropped["diagnoses.no_single_list"] += 1
        return None
    if resource.id is None or resource.recorded_date is None:
        dropped["diagnoses.no_recorded_date"] += 1
        return None
    span = _span(resource.recorded_date, zone)
    return Diagnosis(
        fact_id=resource.id,
        codes=_codes(resource.code),
        at=span[0],
        known_at=known_instant(span),
        recorded_in=DiagnosisList(lists.pop() or ""),
    )


def medication(resource: wire.MedicationRequest, *, zone: tzinfo, dropped: Counter[str]) -> Medication | None:
    """Read a medication order; it counts from when it was written."""
    if resource.status in _UNREAL_MEDICATION:
        dropped["medications.not_so"] += 1
        return None
    if resource.id is None or resource.authored_on is None:
        dropped["medications.no_order_time"] += 1
        return None
    span = _span(resource.authored_on, zone)
    return Medication(
        fact_id=resource.id,
        codes=_codes(resource.medication_codeable_concept),
        at=span[0],
        known_at=known_instant(span),
    )


@lru_cache(maxsize=4096)
def _span(text: str, zone: tzinfo) -> tuple[datetime, datetime]:
    """Read a date; remembered, because the results of one specimen share their instants."""
    return parse_fhir_datetime(text, zone=zone)


def _local_id(reference: str, kind: str, *, fhir_base: str) -> str | None:
    if reference.startswith(f"{fhir_base}/"):
        reference = reference[len(fhir_base) + 1 :]
    parts = reference.split("/")
    # A versioned reference, Patient/1/_history/2, names the same resource.
    if len(parts) in {2, 4} and parts[0] == kind and (len(parts) == 2 or parts[2] == "_history"):
        return parts[1]
    return None


def _codes(concept: wire.CodeableConcept | None) -> tuple[Code, ...]:
    if concept is None:
        return ()
    codes = (Code(coding.system, coding.code) for coding in concept.coding if coding.system and coding.code)
    return tuple(dict.fromkeys(codes))


def _measured(quantity: wire.Quantity | None) -> tuple[float | None, str]:
    """Give value and unit. "<5" is not 5: a comparator makes it a result without a number."""
    if quantity is None:
        return None, ""
    return quantity.value if quantity.comparator is None else None, _unit(quantity)


def _unit(quantity: wire.Quantity) -> str:
    if quantity.system == UCUM and quantity.code:
        return quantity.code
    return quantity.unit or quantity.code or ""


def _reference_range(resource: wire.Observation, *, unit: str) -> tuple[float | None, float | None]:
    """Give the bounds of the one range there is, if they are in the result's own unit."""
    if len(resource.reference_range) != 1:
        return None, None
    only = resource.reference_range[0]

    def bound(quantity: wire.Quantity | None) -> float | None:
        if quantity is None or quantity.comparator is not None or _unit(quantity) not in {unit, ""}:
            return None
        return quantity.value

    return bound(only.low), bound(only.high)


def _abnormal(resource: wire.Observation) -> bool | None:
    flags = {coding.code for concept in resource.interpretation for coding in concept.coding}
    if flags & _ABNORMAL:
        return True
    return False if flags & _NORMAL else None


def _order_id(resource: wire.Observation, *, fhir_base: str) -> str | None:
    ids = {
        _local_id(reference.reference, "ServiceRequest", fhir_base=fhir_base)
        for reference in resource.based_on
        if reference.reference
    } - {None}
    return ids.pop() if len(ids) == 1 else None


def _birth_date(text: str | None) -> BirthDate | None:
    match = _FHIR_DATE.match(text or "")
    if match is None:
        return None
    year, month, day = (int(part) if part else None for part in match.groups())
    try:
        return BirthDate(year=year or 0, month=month, day=day)
    except ValueError:
        return None


def _omb_categories(patient: wire.Patient, url: str) -> tuple[Code, ...]:
    return tuple(
        Code(OMB_RACE_ETHNICITY, part.value_coding.code)
        for extension in patient.extension
        if extension.url == url
        for part in extension.extension
        if part.url == "ombCategory"
        and part.value_coding is not None
        and part.value_coding.code
        and part.value_coding.system == OMB_RACE_ETHNICITY
    )
