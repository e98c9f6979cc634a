"""The elements that several FHIR resources share, read into what facts are made of. Pure."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, tzinfo
from functools import lru_cache

from deployr_core.codes import OMB_RACE_ETHNICITY, UCUM, Code
from deployr_core.facts import BirthDate, DiagnosisList
from deployr_core.instants import known_instant, parse_fhir_datetime
from deployr_core.patient_groups import BCP_47, language_of
from deployr_serve.adapters import fhir_wire as wire

_ABNORMAL = {"H", "HH", "L", "LL", "A", "AA", "HU", "LU", "<", ">"}
_NORMAL = {"N"}
_NORMAL_RANGE = "normal"
_UNREAL_CONDITION = {"refuted", "entered-in-error"}
_DIAGNOSIS_LISTS = frozenset(DiagnosisList)
_FHIR_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?\Z", re.ASCII)


def local_id(reference: str, kind: str, *, fhir_base: str) -> str | None:
    """Give the id in a reference to a resource of this server's; None if it is of another type, or elsewhere."""
    if reference.startswith(f"{fhir_base}/"):
        reference = reference[len(fhir_base) + 1 :]
    parts = reference.split("/")
    # A versioned reference, Patient/1/_history/2, names the same resource.
    if len(parts) in {2, 4} and parts[0] == kind and (len(parts) == 2 or parts[2] == "_history"):
        return parts[1]
    return None


@lru_cache(maxsize=4096)
def instants_of(text: str, zone: tzinfo) -> tuple[datetime, datetime]:
    """Read a date: when that was, and from when on it was surely known (see `known_instant`).

    Remembered, because the results of one specimen share their instants.
    """
    span = parse_fhir_datetime(text, zone=zone)
    return span[0], known_instant(span)


def codes_of(concept: wire.CodeableConcept | None) -> tuple[Code, ...]:
    """Give the codes that have a system, each once; a text, or a code of no system, is none."""
    return () if concept is None else _codes(concept.coding)


@lru_cache(maxsize=4096)
def _codes(codings: tuple[wire.Coding, ...]) -> tuple[Code, ...]:
    """Read codings; remembered, because a patient's results are of a few kinds."""
    return tuple(dict.fromkeys(Code(it.system, it.code) for it in codings if it.system and it.code))


@lru_cache(maxsize=1024)
def diagnosis_list_of(
    status: wire.CodeableConcept | None, category: tuple[wire.CodeableConcept, ...]
) -> DiagnosisList | str:
    """Give the list that a diagnosis is on, or the reason why it is no fact; remembered, because there are few."""
    if {coding.code for coding in (status.coding if status else ())} & _UNREAL_CONDITION:
        return "not_so"
    lists = {coding.code for concept in category for coding in concept.coding if coding.code in _DIAGNOSIS_LISTS}
    return DiagnosisList(lists.pop() or "") if len(lists) == 1 else "no_single_list"


def effective_of(resource: wire.Observation) -> str | None:
    """Give when a specimen was taken or a measurement made; of a period, when it began."""
    if resource.effective_date_time is not None:
        return resource.effective_date_time
    if resource.effective_instant is not None:
        return resource.effective_instant
    return None if resource.effective_period is None else resource.effective_period.start


def measured_of(
    measured: wire.Observation | wire.ObservationComponent, kind: str, dropped: Counter[str]
) -> tuple[float | None, str]:
    """Give value and unit. "<5" is not 5: a comparator makes it a result without a number, and so does any text.

    Nothing is read out of a text: "see 5.1 above" and "5.1 (hemolyzed)" hold a number too.
    """
    quantity = measured.value_quantity
    if quantity is None:
        if measured.value_string is not None:
            dropped[f"{kind}.value_is_text"] += 1
        return None, ""
    if isinstance(quantity.value, str):
        dropped[f"{kind}.value_is_text"] += 1
        return None, unit_of(quantity)
    return quantity.value if quantity.comparator is None else None, unit_of(quantity)


def unit_of(quantity: wire.Quantity) -> str:
    """Give the UCUM code, else the printed unit, else any code; empty if there is none."""
    if quantity.system == UCUM and quantity.code:
        return quantity.code
    return quantity.unit or quantity.code or ""


def reference_range(resource: wire.Observation, *, unit: str) -> tuple[float | None, float | None]:
    """Give the bounds of the one normal range there is, if they are in the result's own unit.

    A range without a type is the normal one; others are therapeutic, or of a treatment's target.

    Source: FHIR R4 observation-definitions.html#Observation.referenceRange.type [seen].
    """
    if not resource.reference_range:
        return None, None
    normal = [it for it in resource.reference_range if it.type is None or _is_normal(it.type)]
    if len(normal) != 1:
        return None, None
    return _bound(normal[0].low, unit), _bound(normal[0].high, unit)


def _bound(quantity: wire.Quantity | None, unit: str) -> float | None:
    if quantity is None or quantity.comparator is not None or unit_of(quantity) not in {unit, ""}:
        return None
    return None if isinstance(quantity.value, str) else quantity.value


def _is_normal(concept: wire.CodeableConcept) -> bool:
    return any(coding.code == _NORMAL_RANGE for coding in concept.coding)


def abnormal_flag(resource: wire.Observation) -> bool | None:
    """Give what the laboratory itself says; None if it says nothing of the kind."""
    if not resource.interpretation:
        return None
    flags = {coding.code for concept in resource.interpretation for coding in concept.coding}
    if flags & _ABNORMAL:
        return True
    return False if flags & _NORMAL else None


def order_id_of(resource: wire.Observation, *, fhir_base: str) -> str | None:
    """Give the one order that a result says it answers."""
    if not resource.based_on:
        return None
    ids = {
        local_id(reference.reference, "ServiceRequest", fhir_base=fhir_base)
        for reference in resource.based_on
        if reference.reference
    } - {None}
    return ids.pop() if len(ids) == 1 else None


def birth_date_of(text: str | None) -> BirthDate | None:
    """Read a birth date of any precision; what is no date is unknown."""
    match = _FHIR_DATE.match(text or "")
    if match is None:
        return None
    year, month, day = (int(part) if part else None for part in match.groups())
    try:
        return BirthDate(year=year or 0, month=month, day=day)
    except ValueError:
        return None


def preferred_language(patient: wire.Patient) -> str | None:
    """Give the language that the patient prefers, or the only one; None where there are several, or none is coded."""
    told = [each for each in patient.communication if each.preferred] or patient.communication
    found = {
        language_of(coding.code)
        for each in told
        if each.language is not None
        for coding in each.language.coding
        if coding.system == BCP_47 and coding.code
    } - {None}
    return found.pop() if len(found) == 1 else None


def omb_categories(patient: wire.Patient, url: str) -> tuple[Code, ...]:
    """Give the OMB categories in the US Core extension with this URL."""
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
