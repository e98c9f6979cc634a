"""The elements that all FHIR resources of ours share, and the check that a resource is about nobody else. Pure.

Resources are plain mappings, encoded as they are: their shape is fixed here and validated against fhirclient's models
in the tests, so that the app need not import those models (about 100 ms) nor validate each write again.

Source: FHIR R4 datatypes.html#Identifier, references.html, http://hl7.org/fhir/R4/ [seen].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.errors import WrongPatient

DELIVERY_SYSTEM = "urn:deployr:delivery"
"""The system of the identifier by which a write is recognised when it is repeated; its value is the delivery's id."""
MODEL_SYSTEM = "urn:deployr:model"

Resource = dict[str, Any]


def identified(resource_type: str, delivery_id: str) -> Resource:
    """Begin a resource that can be found again by its delivery."""
    return {"resourceType": resource_type, "identifier": [{"system": DELIVERY_SYSTEM, "value": delivery_id}]}


def about(packet: InferencePacket) -> Resource:
    """Give ``subject``, and ``encounter`` where there is one."""
    encounter_id = packet.subject.encounter_id
    found: Resource = {"subject": {"reference": f"Patient/{packet.subject.patient_id}"}}
    if encounter_id is not None:
        found["encounter"] = {"reference": f"Encounter/{encounter_id}"}
    return found


def model_concept(manifest: Manifest) -> Resource:
    """Give the model as a CodeableConcept."""
    coding = {"system": MODEL_SYSTEM, "version": manifest.version, "code": manifest.model_id}
    return {"coding": [coding], "text": f"{manifest.model_id} {manifest.version}"}


def noted(advice: Sequence[str]) -> Resource:
    """Give ``note`` with the words of an advisory; nothing without any."""
    return {"note": [{"text": "\n".join(advice)}]} if advice else {}


def insist_on_subject(resource: Mapping[str, Any], packet: InferencePacket) -> None:
    """Return if the resource is about the packet's patient, and about its encounter or none.

    Raises:
        WrongPatient: it is about somebody else, or about nobody.
    """
    subject = resource.get("subject", {}).get("reference")
    context = resource.get("context")
    # A DocumentReference lists its encounters under `context`; everything else that we write has one of its own.
    listed = context.get("encounter", []) if isinstance(context, Mapping) else []
    encounters = [one.get("reference") for one in (resource.get("encounter"), *listed) if one]
    wanted = f"Encounter/{packet.subject.encounter_id}"
    if subject != f"Patient/{packet.subject.patient_id}" or any(each != wanted for each in encounters):
        raise WrongPatient("expected a resource about the patient and the encounter that were scored")
