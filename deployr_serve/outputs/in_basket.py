"""A scored packet as a message to a user or a pool.

Source: wire formats document, section 3, In Basket: path, members, and the text as one string in the old model and as
a list of lines in the new one [seen]; that the priority may be left out [assumed].
"""

from __future__ import annotations

import msgspec

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.declared import InBasketOutput, TextForm
from deployr_serve.outputs.vendor_target import VendorTarget, VendorWrite
from deployr_serve.outputs.wording import lines

IN_BASKET_PATH = "api/epic/2014/Common/Utility/SENDMESSAGE/Message"


def render_in_basket(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, declared: InBasketOutput, target: VendorTarget
) -> VendorWrite:
    """Render the message. Whom it is about the EMR shows by itself; the text names nobody.

    Raises:
        InvalidScore: the packet is not scored.
    """
    text = lines(packet, manifest, policy)
    body = {
        "PatientID": target.patient_id,
        "PatientIDType": target.patient_id_type,
        "Recipients": [{"ID": each.id, "IDType": "External", "IsPool": each.is_pool} for each in declared.recipients],
        "MessageText": list(text) if declared.text_form is TextForm.LINES else "\n".join(text),
        "SenderID": declared.sender_id,
        "SenderIDType": declared.sender_type,
        "MessageType": declared.message_type,
    }
    if target.csn is not None:
        body |= {"ContactID": target.csn, "ContactIDType": "CSN"}
    if declared.priority is not None:
        body["MessagePriority"] = declared.priority
    return VendorWrite(method="POST", path=IN_BASKET_PATH, body=msgspec.json.encode(body))
