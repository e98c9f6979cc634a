"""A scored packet as the value of a SmartData element.

Source: wire formats document, section 3, SmartData: PUT, path, members, and both encodings of the values [seen].
"""

from __future__ import annotations

from typing import Any

import msgspec

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.errors import UnknownContext
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.declared import SmartDataContext, SmartDataEncoding, SmartDataOutput
from deployr_serve.outputs.vendor_target import VendorTarget, VendorUser, VendorWrite
from deployr_serve.outputs.wording import advice_in, of_model, one_number, wire_instant

SMART_DATA_PATH = "api/epic/2013/Clinical/Utility/SETSMARTDATAVALUES/SmartData/Values"


def render_smart_data(
    packet: InferencePacket,
    manifest: Manifest,
    *,
    policy: Policy,
    declared: SmartDataOutput,
    target: VendorTarget,
    user: VendorUser,
) -> VendorWrite:
    """Render the write. It sets a value, so that sending it twice leaves what sending it once leaves.

    Raises:
        InvalidScore: the packet is not scored.
        OutputNotOffered: no element is declared for the model.
        UnknownContext: the element hangs on an encounter, and the target has no contact.
    """
    contact: dict[str, str] = {}
    if declared.context is SmartDataContext.ENCOUNTER:
        if target.csn is None:
            raise UnknownContext("expected an encounter with a contact serial number for this SmartData element")
        contact = {"ContactID": target.csn, "ContactIDType": "CSN"}
    comments = [
        *advice_in(packet, policy)[:1],
        f"{manifest.model_id} {manifest.version}, as of {wire_instant(packet.as_of)}",
    ]
    element = of_model(declared.elements, packet.model.model_id, output="smart-data")
    body = {
        "ContextName": declared.context.value,
        "EntityID": target.patient_id,
        "EntityIDType": target.patient_id_type,
        **contact,
        "UserID": user.id,
        "UserIDType": user.type,
        "Source": declared.source,
        "SmartDataValues": _values(declared, element, one_number(packet, policy, output="smart-data"), comments),
    }
    return VendorWrite(method="PUT", path=SMART_DATA_PATH, body=msgspec.json.encode(body))


def _values(declared: SmartDataOutput, element: str, value: str, comments: list[str]) -> Any:
    named = {"SmartDataID": element, "SmartDataIDType": declared.element_type}
    match declared.encoding:
        case SmartDataEncoding.LIST:
            return [{"Comments": comments, **named, "Values": value}]
        case SmartDataEncoding.WRAPPED:
            return {"Value": [{"Comments": {"string": comments}, **named, "Values": {"string": [value]}}]}
