"""FHIR R4 resources, decoded into the few fields that are read. `fhir_page` reads pages of them.

Source: HL7 FHIR R4 (4.0.1), http://hl7.org/fhir/R4/; US Core 3.1.1 race and ethnicity extensions [seen].
"""

from __future__ import annotations

from typing import Generic, TypedDict, TypeVar

import msgspec


class _Fhir(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Not tracked by the garbage collector: what comes from JSON holds no cycles, and there are thousands of it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Coding(_Fhir, frozen=True, kw_only=True):
    system: str | None = None
    code: str | None = None


class CodeableConcept(_Fhir, frozen=True, kw_only=True):
    coding: tuple[Coding, ...] = ()
    text: str | None = None


class Reference(_Fhir, frozen=True, kw_only=True):
    reference: str | None = None


class Identifier(_Fhir, frozen=True, kw_only=True):
    system: str | None = None
    value: str | None = None
    type: CodeableConcept | None = None


class Quantity(_Fhir, frozen=True, kw_only=True):
    """``value``: text is no number, however it reads; it is let through so that one such value spoils no page."""

    value: float | str | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Period(_Fhir, frozen=True, kw_only=True):
    start: str | None = None
    end: str | None = None


class Extension(_Fhir, frozen=True, kw_only=True):
    url: str
    extension: tuple[Extension, ...] = ()
    value_coding: Coding | None = None


class Meta(_Fhir, frozen=True, kw_only=True):
    version_id: str | None = None
    last_updated: str | None = None


class Identified(_Fhir, frozen=True, kw_only=True, tag_field="resourceType"):
    """What every resource has."""

    id: str | None = None
    meta: Meta | None = None


class Issue(_Fhir, frozen=True, kw_only=True):
    severity: str | None = None
    code: str | None = None
    details: CodeableConcept | None = None
    diagnostics: str | None = None


class OperationOutcome(Identified, frozen=True, kw_only=True):
    issue: tuple[Issue, ...] = ()


class OtherPatient(TypedDict, total=False):
    reference: str


class PatientLink(TypedDict, total=False):
    """``replaced-by``: this record was merged into the ``other``."""

    type: str
    other: OtherPatient


class Communication(_Fhir, frozen=True, kw_only=True):
    """A language that a patient speaks; ``preferred``: rather than the others."""

    language: CodeableConcept | None = None
    preferred: bool | None = None


class Patient(Identified, frozen=True, kw_only=True):
    identifier: tuple[Identifier, ...] = ()
    birth_date: str | None = None
    gender: str | None = None
    active: bool | None = None
    deceased_boolean: bool | None = None
    deceased_date_time: str | None = None
    link: tuple[PatientLink, ...] = ()
    communication: tuple[Communication, ...] = ()
    extension: tuple[Extension, ...] = ()


class Hospitalization(_Fhir, frozen=True, kw_only=True):
    discharge_disposition: CodeableConcept | None = None


class Encounter(Identified, frozen=True, kw_only=True):
    status: str | None = None
    class_: Coding | None = msgspec.field(default=None, name="class")
    subject: Reference | None = None
    identifier: tuple[Identifier, ...] = ()
    period: Period | None = None
    hospitalization: Hospitalization | None = None


class ServiceRequest(Identified, frozen=True, kw_only=True):
    status: str | None = None
    identifier: tuple[Identifier, ...] = ()
    subject: Reference | None = None
    encounter: Reference | None = None
    code: CodeableConcept | None = None
    authored_on: str | None = None


class ReferenceRange(_Fhir, frozen=True, kw_only=True):
    low: Quantity | None = None
    high: Quantity | None = None
    type: CodeableConcept | None = None


class ObservationComponent(_Fhir, frozen=True, kw_only=True):
    code: CodeableConcept | None = None
    value_quantity: Quantity | None = None
    value_string: str | None = None


class Observation(Identified, frozen=True, kw_only=True):
    status: str | None = None
    identifier: tuple[Identifier, ...] = ()
    subject: Reference | None = None
    code: CodeableConcept | None = None
    effective_date_time: str | None = None
    effective_instant: str | None = None
    effective_period: Period | None = None
    issued: str | None = None
    value_quantity: Quantity | None = None
    value_string: str | None = None
    component: tuple[ObservationComponent, ...] = ()
    interpretation: tuple[CodeableConcept, ...] = ()
    reference_range: tuple[ReferenceRange, ...] = ()
    based_on: tuple[Reference, ...] = ()


class Condition(Identified, frozen=True, kw_only=True):
    subject: Reference | None = None
    verification_status: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    code: CodeableConcept | None = None
    recorded_date: str | None = None


class Medication(Identified, frozen=True, kw_only=True):
    code: CodeableConcept | None = None


class Contained(_Fhir, frozen=True, kw_only=True):
    """A resource inside another, of any type; what ``code`` looks like depends on the type."""

    resource_type: str | None = None
    id: str | None = None
    code: CodeableConcept | tuple[CodeableConcept, ...] | str | None = None


class MedicationRequest(Identified, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    contained: tuple[Contained, ...] = ()
    authored_on: str | None = None


class Procedure(Identified, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    code: CodeableConcept | None = None
    performed_date_time: str | None = None
    performed_period: Period | None = None


class Whole(Identified, frozen=True, kw_only=True):
    """A resource of any type, kept as it came; ``kind`` is its type, ``body`` its JSON."""

    kind: str
    subject: Reference | None
    body: bytes


AboutPatient = Encounter | ServiceRequest | Observation | Condition | MedicationRequest | Procedure
"""What names its patient as ``subject``."""

Read = OperationOutcome | Patient | Medication | AboutPatient
"""What is read into structs of its own."""

Resource = Read | Whole


class SearchInfo(_Fhir, frozen=True, kw_only=True):
    mode: str | None = None


class Link(_Fhir, frozen=True, kw_only=True):
    relation: str
    url: str


R = TypeVar("R")


class Entry(_Fhir, Generic[R], frozen=True, kw_only=True):
    resource: R
    search: SearchInfo | None = None


class Bundle(_Fhir, Generic[R], frozen=True, kw_only=True, tag_field="resourceType", tag="Bundle"):
    type: str
    meta: Meta | None = None
    total: int | None = None
    link: tuple[Link, ...] = ()
    entry: tuple[Entry[R], ...] = ()


Page = Bundle[Resource]
