"""FHIR STU3: the few places where it differs from R4, so that nothing else has to know.

What comes in is decoded as STU3 writes it and handed on as R4 structs; what goes out is renamed. Results name their
orders as ``ProcedureRequest``, which is renamed as well.

Source: HL7 FHIR STU3 (3.0.2), http://hl7.org/fhir/STU3/; R4 differences, http://hl7.org/fhir/R4/diff.html [seen].
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deployr_serve.adapters import fhir_wire as wire


class Observation(wire.Identified, frozen=True, kw_only=True, tag="Observation"):
    """``interpretation`` is one concept, not a list."""

    status: str | None = None
    identifier: tuple[wire.Identifier, ...] = ()
    subject: wire.Reference | None = None
    code: wire.CodeableConcept | None = None
    effective_date_time: str | None = None
    effective_period: wire.Period | None = None
    issued: str | None = None
    value_quantity: wire.Quantity | None = None
    value_string: str | None = None
    component: tuple[wire.ObservationComponent, ...] = ()
    interpretation: wire.CodeableConcept | None = None
    reference_range: tuple[wire.ReferenceRange, ...] = ()
    based_on: tuple[wire.Reference, ...] = ()


class Condition(wire.Identified, frozen=True, kw_only=True, tag="Condition"):
    """``verificationStatus`` is a plain code, and ``assertedDate`` what R4 calls ``recordedDate``."""

    subject: wire.Reference | None = None
    verification_status: str | None = None
    category: tuple[wire.CodeableConcept, ...] = ()
    code: wire.CodeableConcept | None = None
    asserted_date: str | None = None


class ProcedureRequest(wire.Identified, frozen=True, kw_only=True, tag="ProcedureRequest"):
    """What R4 calls ``ServiceRequest``; its encounter stands under ``context``."""

    status: str | None = None
    identifier: tuple[wire.Identifier, ...] = ()
    subject: wire.Reference | None = None
    context: wire.Reference | None = None
    code: wire.CodeableConcept | None = None
    authored_on: str | None = None


Resource = (
    wire.OperationOutcome
    | wire.Patient
    | wire.Medication
    | wire.MedicationRequest
    | wire.Encounter
    | wire.Procedure
    | Observation
    | Condition
    | ProcedureRequest
)

_TYPES: Mapping[str, str] = {"ServiceRequest": "ProcedureRequest"}
_PARAMETERS: Mapping[tuple[str, str], str] = {("Condition", "recorded-date"): "asserted-date"}
"""Source: STU3 search parameter registry, http://hl7.org/fhir/STU3/searchparameter-registry.html [seen]."""

_ORDER_STATUS: Mapping[str, str] = {"cancelled": "revoked", "suspended": "on-hold"}
"""Source: http://hl7.org/fhir/STU3/valueset-request-status.html [seen]; the other codes are R4's."""


def type_of(resource_type: str) -> str:
    """Give STU3's name of an R4 resource type."""
    return _TYPES.get(resource_type, resource_type)


def parameters_of(resource_type: str, parameters: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Give STU3's names of the parameters of an R4 search."""
    return tuple((_PARAMETERS.get((resource_type, name), name), value) for name, value in parameters)


def as_r4(resource: Resource) -> wire.Resource:
    """Give the resource as R4 would have written it."""
    match resource:
        case Observation():
            return _observation(resource)
        case Condition():
            return _condition(resource)
        case ProcedureRequest():
            return _order(resource)
        case _:
            return resource


def _observation(resource: Observation) -> wire.Observation:
    return wire.Observation(
        id=resource.id,
        meta=resource.meta,
        status=resource.status,
        identifier=resource.identifier,
        subject=resource.subject,
        code=resource.code,
        effective_date_time=resource.effective_date_time,
        effective_period=resource.effective_period,
        issued=resource.issued,
        value_quantity=resource.value_quantity,
        value_string=resource.value_string,
        component=resource.component,
        interpretation=(resource.interpretation,) if resource.interpretation else (),
        reference_range=resource.reference_range,
        based_on=tuple(map(_renamed, resource.based_on)),
    )


def _condition(resource: Condition) -> wire.Condition:
    status = resource.verification_status
    return wire.Condition(
        id=resource.id,
        meta=resource.meta,
        subject=resource.subject,
        verification_status=wire.CodeableConcept(coding=(wire.Coding(code=status),)) if status else None,
        category=resource.category,
        code=resource.code,
        recorded_date=resource.asserted_date,
    )


def _order(resource: ProcedureRequest) -> wire.ServiceRequest:
    return wire.ServiceRequest(
        id=resource.id,
        meta=resource.meta,
        status=_ORDER_STATUS.get(resource.status or "", resource.status),
        identifier=resource.identifier,
        subject=resource.subject,
        encounter=resource.context,
        code=resource.code,
        authored_on=resource.authored_on,
    )


def _renamed(reference: wire.Reference) -> wire.Reference:
    before, name, after = (reference.reference or "").rpartition("ProcedureRequest/")
    if not name or before[-1:] not in {"", "/"}:
        return reference
    return msgspec.structs.replace(reference, reference=f"{before}ServiceRequest/{after}")
