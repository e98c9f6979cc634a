"""FHIR R4 resources of a Bulk export, decoded into the few fields that are read.

Source: HL7 FHIR R4 (4.0.1), http://hl7.org/fhir/R4/; US Core 3.1.1 race and ethnicity extensions.
"""

from __future__ import annotations

from typing import Any

import msgspec


class _Fhir(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
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
    value: str | None = None


class Quantity(_Fhir, frozen=True, kw_only=True):
    """``value``: text is no number, however it reads."""

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


class Resource(_Fhir, frozen=True, kw_only=True, tag_field="resourceType"):
    """What every resource has."""

    id: str | None = None


class Patient(Resource, frozen=True, kw_only=True):
    identifier: tuple[Identifier, ...] = ()
    birth_date: str | None = None
    gender: str | None = None
    deceased_date_time: str | None = None
    link: tuple[dict[str, Any], ...] = ()
    extension: tuple[Extension, ...] = ()


class Hospitalization(_Fhir, frozen=True, kw_only=True):
    discharge_disposition: CodeableConcept | None = None


class Encounter(Resource, frozen=True, kw_only=True):
    status: str | None = None
    class_: Coding | None = msgspec.field(default=None, name="class")
    subject: Reference | None = None
    period: Period | None = None
    hospitalization: Hospitalization | None = None


class ServiceRequest(Resource, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    code: CodeableConcept | None = None
    authored_on: str | None = None


class ReferenceRange(_Fhir, frozen=True, kw_only=True):
    low: Quantity | None = None
    high: Quantity | None = None
    type: CodeableConcept | None = None


class Component(_Fhir, frozen=True, kw_only=True):
    code: CodeableConcept | None = None
    value_quantity: Quantity | None = None


class Observation(Resource, frozen=True, kw_only=True):
    status: str | None = None
    category: tuple[CodeableConcept, ...] = ()
    subject: Reference | None = None
    code: CodeableConcept | None = None
    effective_date_time: str | None = None
    effective_instant: str | None = None
    effective_period: Period | None = None
    issued: str | None = None
    value_quantity: Quantity | None = None
    interpretation: tuple[CodeableConcept, ...] = ()
    reference_range: tuple[ReferenceRange, ...] = ()
    based_on: tuple[Reference, ...] = ()
    component: tuple[Component, ...] = ()


class Condition(Resource, frozen=True, kw_only=True):
    subject: Reference | None = None
    verification_status: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    code: CodeableConcept | None = None
    recorded_date: str | None = None


class Medication(Resource, frozen=True, kw_only=True):
    code: CodeableConcept | None = None


class Contained(_Fhir, frozen=True, kw_only=True):
    """A resource inside another, of any type; what ``code`` looks like depends on the type."""

    resource_type: str | None = None
    id: str | None = None
    code: CodeableConcept | tuple[CodeableConcept, ...] | str | None = None


class MedicationRequest(Resource, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    contained: tuple[Contained, ...] = ()
    authored_on: str | None = None


class Procedure(Resource, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    code: CodeableConcept | None = None
    performed_date_time: str | None = None
    performed_period: Period | None = None


RESOURCES: tuple[type[Resource], ...] = (
    Patient,
    Encounter,
    ServiceRequest,
    Observation,
    Condition,
    Medication,
    MedicationRequest,
    Procedure,
)
