"""A scored packet as a FHIR Observation that the EMR files in a flowsheet row.

Source: wire formats document, section 3, FHIR Observation.Create: category, the coding by flowsheet id, status,
effectiveDateTime and valueQuantity [seen]; that an identifier is kept [assumed].
"""

from __future__ import annotations

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs import fhir_elements as fhir
from deployr_serve.outputs.declared import ObservationOutput
from deployr_serve.outputs.wording import advice_in, of_model, one_number, unit_of, wire_instant

FLOWSHEET_ID = "http://open.epic.com/FHIR/StructureDefinition/observation-flowsheet-id"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_UCUM = "http://unitsofmeasure.org"


def render_observation(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, declared: ObservationOutput, delivery_id: str
) -> fhir.Resource:
    """Render the resource; a probability is a percentage, unless it is packed with the alert.

    Raises:
        InvalidScore: the packet is not scored.
        OutputNotOffered: no flowsheet row is declared for the model.
    """
    row = of_model(declared.rows, packet.model.model_id, output="observation")
    number, unit = (make(packet, policy, output="observation") for make in (one_number, unit_of))
    return {
        **fhir.identified("Observation", delivery_id),
        "status": "final",
        "category": [{"coding": [{"system": _CATEGORY, "code": "vital-signs"}]}],
        "code": {"coding": [{"system": FLOWSHEET_ID, "code": row}], "text": manifest.score_name},
        **fhir.about(packet),
        "effectiveDateTime": wire_instant(packet.as_of),
        "valueQuantity": {"value": float(number), "unit": unit, "system": _UCUM, "code": unit},
        **fhir.noted(advice_in(packet, policy)),
    }
