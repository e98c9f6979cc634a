"""A scored packet as a FHIR Communication.

Source: FHIR R4 communication.html [seen]; wire formats document, section 3: Epic advertises create [seen], what it
takes as payload is not public [assumed].
"""

from __future__ import annotations

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs import fhir_elements as fhir
from deployr_serve.outputs.declared import CommunicationOutput
from deployr_serve.outputs.wording import lines, wire_instant

_CATEGORY = "http://terminology.hl7.org/CodeSystem/communication-category"


def render_communication(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, declared: CommunicationOutput, delivery_id: str
) -> fhir.Resource:
    """Render the resource.

    Raises:
        InvalidScore: the packet is not scored.
    """
    resource = {
        **fhir.identified("Communication", delivery_id),
        "status": "completed",
        "category": [{"coding": [{"system": _CATEGORY, "code": "notification"}]}],
        "topic": fhir.model_concept(manifest),
        **fhir.about(packet),
        "sent": wire_instant(packet.updated_at),
        "payload": [{"contentString": "\n".join(lines(packet, manifest, policy))}],
    }
    if declared.recipients:
        resource["recipient"] = [{"reference": each} for each in declared.recipients]
    return resource
