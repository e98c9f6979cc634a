"""FHIR as XML, of resources that are held as JSON.

Source: FHIR R4 and STU3 xml.html: elements in the order of their type, primitives in `value`, ids of elements and the
urls of extensions as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from lxml import etree
from starlette.requests import Request

from mock_emr.exchange import FHIR_JSON, FHIR_XML, JSON, XML_FORMATS, Answer

NAMESPACE = "http://hl7.org/fhir"

_FIRST = (
    "id",
    "meta",
    "language",
    "text",
    "contained",
    "extension",
    "modifierExtension",
    "identifier",
)
# The elements of R4 and of STU3 in one row, which both agree with. What a row does not name comes last; a type without
# a row, and elements within elements, stay as they were read.
_ORDER: Mapping[str, tuple[str, ...]] = {
    name: (*_FIRST, *words.split())
    for name, words in {
        "Bundle": ("type timestamp total link entry"),
        "Condition": (
            "clinicalStatus verificationStatus category severity code bodySite subject encounter context "
            "onsetDateTime onsetPeriod onsetString abatementDateTime abatementPeriod abatementString recordedDate "
            "recorder assertedDate asserter stage evidence note"
        ),
        "Encounter": (
            "status statusHistory class classHistory type serviceType priority subject episodeOfCare basedOn "
            "participant appointment period length reasonCode reasonReference diagnosis account hospitalization "
            "location serviceProvider partOf"
        ),
        "MedicationRequest": (
            "status statusReason intent category priority doNotPerform reportedBoolean reportedReference "
            "medicationCodeableConcept medicationReference subject encounter supportingInformation authoredOn "
            "requester performer performerType recorder reasonCode reasonReference basedOn groupIdentifier "
            "courseOfTherapyType insurance note dosageInstruction dispenseRequest substitution priorPrescription"
        ),
        "Observation": (
            "basedOn partOf status category code subject focus encounter context effectiveDateTime "
            "effectivePeriod effectiveInstant issued performer valueQuantity valueCodeableConcept valueString "
            "dataAbsentReason interpretation comment note bodySite method specimen device referenceRange "
            "hasMember derivedFrom related component"
        ),
        "OperationOutcome": ("issue"),
        "Patient": (
            "active name telecom gender birthDate deceasedBoolean deceasedDateTime address maritalStatus "
            "multipleBirthBoolean multipleBirthInteger photo contact communication generalPractitioner "
            "managingOrganization link"
        ),
        "Procedure": (
            "basedOn partOf status statusReason category code subject encounter performedDateTime performedPeriod "
            "performedString recorder asserter performer location reasonCode reasonReference bodySite outcome "
            "report complication followUp note"
        ),
        "ServiceRequest": (
            "basedOn replaces requisition status intent category priority doNotPerform code orderDetail subject "
            "encounter occurrenceDateTime occurrencePeriod asNeededBoolean authoredOn requester performerType "
            "performer locationCode locationReference reasonCode reasonReference insurance supportingInfo "
            "specimen bodySite note patientInstruction"
        ),
    }.items()
}


def wants_xml(request: Request) -> bool:
    """Tell whether XML is asked for: by ``_format``, which counts first, or by an Accept that names no JSON."""
    if asked := request.query_params.get("_format", "").lower():
        return asked in XML_FORMATS
    accepted = {part.partition(";")[0].strip() for part in request.headers.get("accept", "").lower().split(",")}
    return bool(accepted & set(XML_FORMATS)) and not accepted & {FHIR_JSON, JSON}


def as_xml(answer: Answer) -> Answer:
    """Give an answer in XML; one that holds no resource as it is."""
    if answer.media_type != FHIR_JSON or not answer.body:
        return answer
    return replace(answer, body=xml_of(msgspec.json.decode(answer.body)), media_type=FHIR_XML)


def xml_of(resource: Mapping[str, Any]) -> bytes:
    """Give the resource as an XML document. Narratives and extensions of primitives are left out."""
    made: bytes = etree.tostring(_resource(resource), encoding="UTF-8", xml_declaration=True)
    return made


def _resource(resource: Mapping[str, Any]) -> Any:
    resource_type = str(resource["resourceType"])
    made = etree.Element(f"{{{NAMESPACE}}}{resource_type}", nsmap={None: NAMESPACE})
    order = {name: place for place, name in enumerate(_ORDER.get(resource_type, _FIRST))}
    names = sorted((name for name in resource if name != "resourceType"), key=lambda name: order.get(name, len(order)))
    _fill(made, ((name, resource[name]) for name in names))
    return made


def _fill(parent: Any, members: Iterable[tuple[str, Any]]) -> None:
    for name, held in members:
        is_narrative = isinstance(held, dict) and "div" in held
        if not name.startswith("_") and not is_narrative:
            for value in held if isinstance(held, list) else [held]:
                parent.append(_element(name, value))


def _element(name: str, value: Any) -> Any:
    made = etree.Element(f"{{{NAMESPACE}}}{name}")
    if not isinstance(value, dict):
        made.set("value", str(value).lower() if isinstance(value, bool) else str(value))
    elif "resourceType" in value:
        made.append(_resource(value))
    else:
        attributes = ("id", "url") if name in {"extension", "modifierExtension"} else ("id",)
        for attribute in attributes:
            if attribute in value:
                made.set(attribute, str(value[attribute]))
        _fill(made, ((inner, held) for inner, held in value.items() if inner not in attributes))
    return made
