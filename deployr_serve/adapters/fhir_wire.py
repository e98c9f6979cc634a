"""FHIR R4 JSON, decoded into the few fields that are read.

Source: HL7 FHIR R4 (4.0.1), http://hl7.org/fhir/R4/; US Core 3.1.1 race and ethnicity extensions [seen].
"""

from __future__ import annotations

from typing import Any

import msgspec

_MAX_ENTRIES = 5_000


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
    value: float | None = None
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


class _Resource(_Fhir, frozen=True, kw_only=True, tag_field="resourceType"):
    id: str | None = None
    meta: Meta | None = None


class OperationOutcome(_Resource, frozen=True, kw_only=True):
    issue: tuple[dict[str, Any], ...] = ()


class Patient(_Resource, frozen=True, kw_only=True):
    birth_date: str | None = None
    gender: str | None = None
    active: bool | None = None
    link: tuple[dict[str, Any], ...] = ()
    extension: tuple[Extension, ...] = ()


class Encounter(_Resource, frozen=True, kw_only=True):
    status: str | None = None
    class_: Coding | None = msgspec.field(default=None, name="class")
    subject: Reference | None = None
    identifier: tuple[Identifier, ...] = ()
    period: Period | None = None


class ServiceRequest(_Resource, frozen=True, kw_only=True):
    status: str | None = None
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


class Observation(_Resource, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    code: CodeableConcept | None = None
    effective_date_time: str | None = None
    issued: str | None = None
    value_quantity: Quantity | None = None
    component: tuple[ObservationComponent, ...] = ()
    interpretation: tuple[CodeableConcept, ...] = ()
    reference_range: tuple[ReferenceRange, ...] = ()
    based_on: tuple[Reference, ...] = ()


class Condition(_Resource, frozen=True, kw_only=True):
    subject: Reference | None = None
    verification_status: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    code: CodeableConcept | None = None
    recorded_date: str | None = None


class MedicationRequest(_Resource, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    medication_codeable_concept: CodeableConcept | None = None
    authored_on: str | None = None


class Procedure(_Resource, frozen=True, kw_only=True):
    status: str | None = None
    subject: Reference | None = None
    code: CodeableConcept | None = None
    performed_date_time: str | None = None
    performed_period: Period | None = None


AboutPatient = Encounter | ServiceRequest | Observation | Condition | MedicationRequest | Procedure
"""What names its patient as ``subject``."""

Resource = OperationOutcome | Patient | AboutPatient


class SearchInfo(_Fhir, frozen=True, kw_only=True):
    mode: str | None = None


class Entry(_Fhir, frozen=True, kw_only=True):
    resource: Resource
    search: SearchInfo | None = None


class Link(_Fhir, frozen=True, kw_only=True):
    relation: str
    url: str


class Bundle(_Fhir, frozen=True, kw_only=True, tag_field="resourceType", tag="Bundle"):
    type: str
    total: int | None = None
    link: tuple[Link, ...] = ()
    entry: tuple[Entry, ...] = ()


_decoder: msgspec.json.Decoder[Bundle | OperationOutcome] = msgspec.json.Decoder(Bundle | OperationOutcome)


def decode_page(body: bytes) -> Bundle:
    """Read one page of a search.

    Raises:
        ValueError: not JSON, not a searchset Bundle, or a resource in it is not what its type must be. The message
            carries nothing of the content.
    """
    try:
        page = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("expected a FHIR R4 searchset Bundle in JSON") from None
    if isinstance(page, OperationOutcome):
        raise ValueError("expected a searchset Bundle, got an OperationOutcome")  # noqa: TRY004
    if page.type != "searchset":
        raise ValueError("expected a Bundle of type searchset")
    if len(page.entry) > _MAX_ENTRIES:
        raise ValueError(f"expected at most {_MAX_ENTRIES} entries in a page")
    return page
