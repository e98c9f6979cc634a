"""FHIR resources to facts. Pure; what cannot be used is counted, by reason, never guessed at.

Each function gives None and counts the reason where a resource cannot be a fact: a status that means "not so", no
date from which it was known, a date that is still to come. ``latest`` is the last instant that a clock which differs
from ours may show; None believes every date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo

from deployr_core.codes import Code
from deployr_core.facts import (
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
from deployr_core.visit_labels import Death, Stay
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_elements import (
    abnormal_flag,
    birth_date_of,
    codes_of,
    diagnosis_list_of,
    effective_of,
    instants_of,
    local_id,
    measured_of,
    omb_categories,
    order_id_of,
    reference_range,
)

_FINAL = {"final", "amended", "corrected"}
_UNREAL_MEDICATION = {"cancelled", "draft", "entered-in-error"}
_CANCELLED_ORDER = {"revoked", "entered-in-error"}
_UNREAL_ORDER = {"draft", "entered-in-error"}
_DONE_PROCEDURE = {"completed", "in-progress"}
_UNREAL_VISIT = {"planned", "cancelled", "entered-in-error"}
_SEXES = frozenset(Sex)
_RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
_ETHNICITY = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"
_OLDEST_AGE = 130
_ONE_DAY = timedelta(days=1)


def subject_of(resource: wire.AboutPatient | wire.Whole, *, fhir_base: str) -> str | None:
    """Give the id of the patient that a resource is about; None if it does not say.

    A reference that is no patient of this server's comes out with a slash, so that it equals nobody's id. A contained
    patient (``#p``) has no id that could be compared, like one who is named by an identifier: both say nobody.
    """
    reference = resource.subject.reference if resource.subject else None
    if reference is None or reference.startswith("#"):
        return None
    return local_id(reference, "Patient", fhir_base=fhir_base) or f"/{reference}"


def demographics(
    patient: wire.Patient, *, as_of: datetime | None = None, dropped: Counter[str] | None = None
) -> Demographics:
    """Read who the patient is; a birth date that is not a date, or cannot be, counts as unknown.

    As of an instant, nobody is born more than a day later (it may be tomorrow where they are), nor is over 130.
    """
    birth_date = birth_date_of(patient.birth_date)
    if birth_date is not None and as_of is not None:
        oldest = birth_date.age_in_years(as_of) > _OLDEST_AGE
        unborn = (birth_date.year, birth_date.month or 1, birth_date.day or 1) > _date(as_of + _ONE_DAY)
        birth_date = None if oldest or unborn else birth_date
    if birth_date is None and patient.birth_date is not None and dropped is not None:
        dropped["demographics.birth_date_impossible"] += 1
    return Demographics(
        birth_date=birth_date,
        sex=Sex(patient.gender) if patient.gender in _SEXES else Sex.UNKNOWN,
        races=omb_categories(patient, _RACE),
        ethnicities=omb_categories(patient, _ETHNICITY),
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
        start=instants_of(period.start, zone)[0] if period.start else None,
        end=instants_of(period.end, zone)[0] if period.end else None,
        contact_serial_number=serials.pop() if len(serials) == 1 else None,
        classes=codes_of(wire.CodeableConcept(coding=(resource.class_,))) if resource.class_ else (),
    )


def order(resource: wire.ServiceRequest, *, fhir_base: str, zone: tzinfo) -> Order | None:
    """Read an order; None without the instant it was signed."""
    if resource.id is None or resource.authored_on is None:
        return None
    at, known_at = instants_of(resource.authored_on, zone)
    status = OrderStatus.OPEN
    if resource.status in _CANCELLED_ORDER:
        status = OrderStatus.CANCELLED
    elif resource.status == "completed":
        status = OrderStatus.DONE
    reference = resource.encounter.reference if resource.encounter else None
    return Order(
        fact_id=resource.id,
        codes=codes_of(resource.code),
        at=at,
        known_at=known_at,
        encounter_id=local_id(reference, "Encounter", fhir_base=fhir_base) if reference else None,
        status=status,
    )


def signed_order(
    resource: wire.ServiceRequest,
    *,
    fhir_base: str,
    zone: tzinfo,
    dropped: Counter[str],
    latest: datetime | None = None,
) -> Order | None:
    """Read an order as a fact about the past: it was signed, whatever became of it, revoked orders included."""
    if resource.status in _UNREAL_ORDER:
        dropped["orders.not_so"] += 1
        return None
    fact = order(resource, fhir_base=fhir_base, zone=zone)
    if fact is None:
        dropped["orders.no_order_time"] += 1
        return None
    if latest is not None and fact.at > latest:
        dropped["orders.in_the_future"] += 1
        return None
    return fact


def lab(
    resource: wire.Observation, *, fhir_base: str, zone: tzinfo, dropped: Counter[str], latest: datetime | None = None
) -> Lab | None:
    """Read a laboratory result; ``issued`` says when it could be known, ``effective[x]`` when it was drawn.

    A result without a number is a fact nevertheless: one was reported. That a text held it, or that no code says what
    was measured, is counted.
    """
    if resource.status not in _FINAL:
        dropped["labs.status_not_final"] += 1
        return None
    if resource.issued is None:
        dropped["labs.no_release_time"] += 1
        return None
    effective = resource.effective_date_time
    if effective is None:
        effective = effective_of(resource)
    if resource.id is None or effective is None:
        dropped["labs.no_id_or_specimen_time"] += 1
        return None
    at, _ = instants_of(effective, zone)
    released, known_at = instants_of(resource.issued, zone)
    if latest is not None and (at > latest or released > latest):
        dropped["labs.in_the_future"] += 1
        return None
    value, unit = measured_of(resource, "labs", dropped)
    # A record holds a thousand results, most without these: a look costs less than a call.
    low, high = reference_range(resource, unit=unit) if resource.reference_range else (None, None)
    codes = codes_of(resource.code)
    if not codes:
        dropped["labs.unmapped_code"] += 1
    return Lab(
        fact_id=resource.id,
        codes=codes,
        at=at,
        known_at=known_at,
        value=value,
        unit=unit,
        reference_low=low,
        reference_high=high,
        abnormal=abnormal_flag(resource) if resource.interpretation else None,
        order_id=order_id_of(resource, fhir_base=fhir_base) if resource.based_on else None,
    )


def vitals(
    resource: wire.Observation, *, zone: tzinfo, dropped: Counter[str], latest: datetime | None = None
) -> tuple[Vital, ...]:
    """Read a bedside measurement: one fact, or one for each component of a panel such as a blood pressure.

    A component's ``fact_id`` is ``<id>#<its first code>``. The panel itself is a fact only where it has a value of its
    own. It is known from ``issued`` on; a server that leaves that out files measurements as they are taken.

    Source: FHIR R4 vital signs profiles, http://hl7.org/fhir/R4/observation-vitalsigns.html [seen].
    """
    if resource.status not in _FINAL:
        dropped["vitals.status_not_final"] += 1
        return ()
    effective = effective_of(resource)
    if resource.id is None or effective is None:
        dropped["vitals.no_id_or_time"] += 1
        return ()
    at, known_at = instants_of(effective, zone)
    filed = at
    if resource.issued:
        filed, known_at = instants_of(resource.issued, zone)
    if latest is not None and (at > latest or filed > latest):
        dropped["vitals.in_the_future"] += 1
        return ()

    def fact(fact_id: str, codes: tuple[Code, ...], measured: wire.Observation | wire.ObservationComponent) -> Vital:
        value, unit = measured_of(measured, "vitals", dropped)
        return Vital(fact_id=fact_id, codes=codes, at=at, known_at=known_at, value=value, unit=unit)

    facts: dict[str, Vital] = {}
    if resource.value_quantity is not None or not resource.component:
        facts[resource.id] = fact(resource.id, codes_of(resource.code), resource)
    for component in resource.component:
        codes = codes_of(component.code)
        if not codes:
            dropped["vitals.component_without_code"] += 1
            continue
        fact_id = f"{resource.id}#{codes[0].value}"
        if fact_id in facts:
            # A panel may hold the same measurement twice, as of both arms; an id is given once.
            fact_id = f"{fact_id}#{len(facts)}"
        facts[fact_id] = fact(fact_id, codes, component)
    return tuple(facts.values())


def procedure(
    resource: wire.Procedure, *, zone: tzinfo, dropped: Counter[str], latest: datetime | None = None
) -> Procedure | None:
    """Read a procedure that was done or is being done; it counts from when it began."""
    if resource.status not in _DONE_PROCEDURE:
        dropped["procedures.not_done"] += 1
        return None
    began = resource.performed_date_time or (resource.performed_period.start if resource.performed_period else None)
    if resource.id is None or began is None:
        dropped["procedures.no_time"] += 1
        return None
    at, known_at = instants_of(began, zone)
    if latest is not None and at > latest:
        dropped["procedures.in_the_future"] += 1
        return None
    return Procedure(fact_id=resource.id, codes=codes_of(resource.code), at=at, known_at=known_at)


def visit(
    resource: wire.Encounter, *, zone: tzinfo, dropped: Counter[str], latest: datetime | None = None
) -> Visit | None:
    """Read an encounter as a fact about the past: of which class it was, and when it began."""
    if resource.status in _UNREAL_VISIT:
        dropped["visits.not_so"] += 1
        return None
    if resource.id is None or resource.period is None or resource.period.start is None:
        dropped["visits.no_start"] += 1
        return None
    at, known_at = instants_of(resource.period.start, zone)
    if latest is not None and at > latest:
        dropped["visits.in_the_future"] += 1
        return None
    codes = codes_of(wire.CodeableConcept(coding=(resource.class_,))) if resource.class_ else ()
    return Visit(fact_id=resource.id, codes=codes, at=at, known_at=known_at)


def stay(
    resource: wire.Encounter, *, zone: tzinfo, dropped: Counter[str], latest: datetime | None = None
) -> Stay | None:
    """Read an encounter as what label rules look at: of which class it was, when it began and ended, and how.

    A mere date as its end holds all of that day. An end that is still to come is none yet.

    Source: FHIR R4 datatypes.html#Period.
    """
    fact = visit(resource, zone=zone, dropped=dropped, latest=latest)
    if fact is None:
        return None
    period, discharge = resource.period, resource.hospitalization
    _, ended_at = instants_of(period.end, zone) if period and period.end else (None, None)
    if ended_at is not None and latest is not None and ended_at > latest:
        ended_at = None
    said = discharge.discharge_disposition if discharge else None
    codes = [coding.code for coding in said.coding if coding.code] if said else []
    return Stay(
        visit_id=fact.fact_id,
        classes=frozenset({resource.class_.code} if resource.class_ and resource.class_.code else ()),
        began_at=fact.at,
        ended_at=ended_at,
        discharged_to=codes[0] if codes else said.text if said else None,
        known_at=fact.known_at,
    )


def death(patient: wire.Patient, *, zone: tzinfo) -> Death | None:
    """Read when the patient died; None where nobody says when, or that it happened."""
    if patient.deceased_date_time is None:
        return None
    earliest, latest = instants_of(patient.deceased_date_time, zone)
    return Death(earliest=earliest, latest=latest)


def diagnosis(
    resource: wire.Condition, *, zone: tzinfo, dropped: Counter[str], latest: datetime | None = None
) -> Diagnosis | None:
    """Read a diagnosis; it counts from when it was recorded, and from the list that it says it is on."""
    on_list = diagnosis_list_of(resource.verification_status, resource.category)
    if not isinstance(on_list, DiagnosisList):
        dropped[f"diagnoses.{on_list}"] += 1
        return None
    if resource.id is None or resource.recorded_date is None:
        dropped["diagnoses.no_recorded_date"] += 1
        return None
    at, known_at = instants_of(resource.recorded_date, zone)
    if latest is not None and at > latest:
        dropped["diagnoses.in_the_future"] += 1
        return None
    return Diagnosis(
        fact_id=resource.id,
        codes=codes_of(resource.code),
        at=at,
        known_at=known_at,
        recorded_in=on_list,
    )


def medication(
    resource: wire.MedicationRequest,
    *,
    zone: tzinfo,
    dropped: Counter[str],
    medications: Mapping[str, wire.Medication] = {},
    latest: datetime | None = None,
) -> Medication | None:
    """Read a medication order; it counts from when it was written.

    ``medications`` by the text of the reference to them (see `fhir_medications`); what a contained one is stands in the
    order itself. An order of what cannot be looked up is a fact without a code, and counted.
    """
    if resource.status in _UNREAL_MEDICATION:
        dropped["medications.not_so"] += 1
        return None
    if resource.id is None or resource.authored_on is None:
        dropped["medications.no_order_time"] += 1
        return None
    at, known_at = instants_of(resource.authored_on, zone)
    if latest is not None and at > latest:
        dropped["medications.in_the_future"] += 1
        return None
    return Medication(
        fact_id=resource.id,
        codes=codes_of(_ordered(resource, medications, dropped)),
        at=at,
        known_at=known_at,
    )


def _ordered(
    resource: wire.MedicationRequest, medications: Mapping[str, wire.Medication], dropped: Counter[str]
) -> wire.CodeableConcept | None:
    if resource.medication_codeable_concept is not None:
        return resource.medication_codeable_concept
    reference = resource.medication_reference.reference if resource.medication_reference else None
    if reference is not None and reference.startswith("#"):
        for inside in resource.contained:
            if f"#{inside.id}" == reference and inside.resource_type == "Medication":
                return inside.code if isinstance(inside.code, wire.CodeableConcept) else None
    found = medications.get(reference) if reference is not None else None
    if found is None:
        dropped["medications.not_resolved"] += 1
        return None
    return found.code


def _date(instant: datetime) -> tuple[int, int, int]:
    day = instant.astimezone(UTC)
    return day.year, day.month, day.day
