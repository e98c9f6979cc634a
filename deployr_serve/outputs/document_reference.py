"""A scored packet as a FHIR DocumentReference with a short text.

Source: FHIR R4 documentreference.html: status and content are required, encounters stand under context [seen]; which
types of documents an EMR takes from outside is the site's to say [assumed].
"""

from __future__ import annotations

import base64

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs import fhir_elements as fhir
from deployr_serve.outputs.wording import lines, wire_instant


def render_document_reference(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, delivery_id: str
) -> fhir.Resource:
    """Render the resource.

    Raises:
        InvalidScore: the packet is not scored.
    """
    text = "\n".join(lines(packet, manifest, policy)) + "\n"
    attachment = {
        "contentType": "text/plain; charset=utf-8",
        "data": base64.b64encode(text.encode()).decode(),
        "title": manifest.score_name,
        "creation": wire_instant(packet.updated_at),
    }
    target = fhir.about(packet)
    resource = {
        **fhir.identified("DocumentReference", delivery_id),
        "status": "current",
        "docStatus": "final",
        "type": {"text": "Computed prediction"},
        "subject": target["subject"],
        "date": wire_instant(packet.updated_at),
        "content": [{"attachment": attachment}],
    }
    if "encounter" in target:
        resource["context"] = {"encounter": [target["encounter"]]}
    return resource
