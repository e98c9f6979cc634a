"""FHIR as XML, of resources that are held as JSON.

Source: FHIR STU3 xml.html: elements in the order of their type, primitives in `value`, ids of elements and the urls of
extensions as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lxml import etree

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
# Where sources order otherwise; what a table does not name comes last. Elements within elements stay as they were read.
_ORDER: Mapping[str, tuple[str, ...]] = {
    "Bundle": (*_FIRST, "type", "total", "link", "entry"),
    "Condition": (
        *_FIRST,
        "clinicalStatus",
        "verificationStatus",
        "category",
        "severity",
        "code",
        "bodySite",
        "subject",
        "context",
        "onsetDateTime",
        "onsetPeriod",
        "onsetString",
        "abatementDateTime",
        "abatementPeriod",
        "abatementString",
        "assertedDate",
        "asserter",
        "stage",
        "evidence",
        "note",
    ),
    "Observation": (
        *_FIRST,
        "basedOn",
        "status",
        "category",
        "code",
        "subject",
        "context",
        "effectiveDateTime",
        "effectivePeriod",
        "issued",
        "performer",
        "valueQuantity",
        "valueCodeableConcept",
        "valueString",
        "dataAbsentReason",
        "interpretation",
        "comment",
        "bodySite",
        "method",
        "specimen",
        "device",
        "referenceRange",
        "related",
        "component",
    ),
    "OperationOutcome": (*_FIRST, "issue"),
}


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
