"""A scored packet as a FHIR Flag.

Source: FHIR R4 flag.html: status, code and subject are required [seen]; which EMR takes one is for its
CapabilityStatement to say.
"""

from __future__ import annotations

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs import fhir_elements as fhir
from deployr_serve.outputs.wording import headline, wire_instant

_CATEGORY = "http://terminology.hl7.org/CodeSystem/flag-category"


def render_flag(packet: InferencePacket, manifest: Manifest, *, policy: Policy, delivery_id: str) -> fhir.Resource:
    """Render the resource, active from the instant that the score is as of.

    Raises:
        InvalidScore: the packet is not scored.
    """
    return {
        **fhir.identified("Flag", delivery_id),
        "status": "active",
        "category": [{"coding": [{"system": _CATEGORY, "code": "clinical"}]}],
        "code": {**fhir.model_concept(manifest), "text": headline(packet, manifest, policy)},
        **fhir.about(packet),
        "period": {"start": wire_instant(packet.as_of)},
    }
