"""A scored packet as a row of a flowsheet.

Source: wire formats document, section 3, flowsheet: path, query parameters and the body ``{}`` [seen]; that an
unused parameter may be left out [assumed].
"""

from __future__ import annotations

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.errors import UnknownContext
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.declared import FlowsheetOutput
from deployr_serve.outputs.vendor_target import VendorTarget, VendorUser, VendorWrite
from deployr_serve.outputs.wording import advice_in, of_model, one_number, wire_instant

FLOWSHEET_PATH = "api/epic/2011/Clinical/Patient/ADDFLOWSHEETVALUE/FlowsheetValue"


def render_flowsheet(
    packet: InferencePacket,
    manifest: Manifest,
    *,
    policy: Policy,
    declared: FlowsheetOutput,
    target: VendorTarget,
    user: VendorUser,
) -> VendorWrite:
    """Render the write; the value is dated at the instant that the score is as of.

    The interface takes the patient's identifier in the query and in no other place.

    Raises:
        InvalidScore: the packet is not scored.
        OutputNotOffered: no row is declared for the model.
        UnknownContext: the target has no contact, and flowsheets belong to contacts.
    """
    if target.csn is None:
        raise UnknownContext("expected an encounter with a contact serial number: flowsheets belong to contacts")
    template = (
        ()
        if declared.template is None
        else (("FlowsheetTemplateID", declared.template), ("FlowsheetTemplateIDType", declared.template_type))
    )
    return VendorWrite(
        method="POST",
        path=FLOWSHEET_PATH,
        parameters=(
            ("Comment", " - ".join((*advice_in(packet, policy)[:1], f"{manifest.model_id} {manifest.version}"))),
            ("ContactID", target.csn),
            ("ContactIDType", "CSN"),
            ("FlowsheetID", of_model(declared.rows, packet.model.model_id, output="flowsheet")),
            ("FlowsheetIDType", declared.row_type),
            *template,
            ("InstantValueTaken", wire_instant(packet.as_of)),
            ("PatientID", target.patient_id),
            ("PatientIDType", target.patient_id_type),
            ("UserID", user.id),
            ("UserIDType", user.type),
            ("Value", one_number(packet, policy, output="flowsheet")),
        ),
    )
