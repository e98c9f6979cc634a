"""The routes of the vendor's web services that write, beside the score column: flowsheets, SmartData, In Basket.

Source: wire-formats.md section 3: paths, parameters, bodies, `Success`, `IDTypes`, the codes EPT_ID_RETRIEVAL_ERROR,
EPT_DAT_RETRIEVAL_ERROR, DATA_NOT_SAVED, CONTACT_IS_INVALID, NO-ENTITY-FOUND and INVALID-PATIENT [seen]; other
codes, and which mistake gets which, [assumed].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from mock_emr.dates import DateError, instant_of
from mock_emr.elements import each
from mock_emr.emr import Emr, Handler, gate
from mock_emr.exchange import Answer, Exchange, Refused
from mock_emr.vendor_patients import PatientIdentifiers, resource_of
from mock_emr.vendor_results import FLOWSHEET_ROWS
from mock_emr.vendor_site import answer_of, object_in, refused, text_in
from mock_emr.written import FlowsheetValue, Message, SmartDataValue

FLOWSHEET_PATH = "/api/epic/2011/Clinical/Patient/ADDFLOWSHEETVALUE/FlowsheetValue"
SET_SMART_DATA_PATH = "/api/epic/2013/Clinical/Utility/SETSMARTDATAVALUES/SmartData/Values"
GET_SMART_DATA_PATH = "/api/epic/2013/Clinical/Utility/GETSMARTDATAVALUES/SmartData/Values"
MESSAGE_PATH = "/api/epic/2014/Common/Utility/SENDMESSAGE/Message"


def vendor_write_routes(emr: Emr) -> list[Route]:
    """Give the routes; each speaks with the EMR's clock, behind its gate."""
    writes = _Writes(emr.identifiers)

    def route(path: str, name: str, handler: Handler, method: str) -> Route:
        made = Route(path, gate(emr, handler, route=path, face="vendor", fault_route=name), methods=[method])
        # Clients in the wild write these paths in whatever case they like.
        made.path_regex = re.compile(made.path_regex.pattern, re.IGNORECASE)
        return made

    return [
        route(FLOWSHEET_PATH, "flowsheet", writes.add_flowsheet_value, "POST"),
        route(SET_SMART_DATA_PATH, "smart-data", writes.set_smart_data, "PUT"),
        route(GET_SMART_DATA_PATH, "smart-data", writes.get_smart_data, "POST"),
        route(MESSAGE_PATH, "in-basket", writes.send_message, "POST"),
    ]


class _Writes:
    """What each service does with what was sent to it."""

    def __init__(self, identifiers: PatientIdentifiers) -> None:
        self._identifiers = identifiers

    async def add_flowsheet_value(self, emr: Emr, request: Request, exchange: Exchange) -> Answer:
        sent, now = dict(request.query_params), emr.clock.now()
        exchange.parameters = tuple(sorted(sent))
        if (await request.body()).strip() not in {b"", b"{}"}:
            raise refused("INVALID-BODY details: expected the parameters in the query and an empty object as body")
        patient_id = self._identifiers.patient(text_in(sent, "PatientIDType"), text_in(sent, "PatientID"), now=now)
        csn = _contact(emr, sent, patient_id)
        _check_user(sent)
        row_id = text_in(sent, "FlowsheetID")
        if row_id not in emr.write_site.flowsheet_rows | set(FLOWSHEET_ROWS):
            raise refused("FLOWSHEET-ROW-NOT-FOUND details: FlowsheetID")
        text_in(sent, "FlowsheetIDType")
        try:
            taken_at = instant_of(text_in(sent, "InstantValueTaken"))
        except DateError as error:
            raise refused("INVALID-PARAMETER details: InstantValueTaken: expected an instant") from error
        emr.written.flowsheet.append(
            FlowsheetValue(
                patient_id=patient_id,
                csn=csn,
                row_id=row_id,
                value=text_in(sent, "Value"),
                taken_at=taken_at,
                comment=sent.get("Comment", ""),
                written_at=now,
            )
        )
        return answer_of({"Success": True, "Errors": []})

    async def set_smart_data(self, emr: Emr, request: Request, _: Exchange) -> Answer:
        sent, now = await object_in(request), emr.clock.now()
        patient_id, csn = self._smart_data_entity(emr, sent)
        _check_user(sent)
        values = _smart_data_values(sent.get("SmartDataValues"))
        for element_id, value, comments in values:
            emr.written.set_smart_data(
                SmartDataValue(
                    patient_id=patient_id,
                    csn=csn,
                    element_id=element_id,
                    value=value,
                    comments=comments,
                    written_at=now,
                    times_set=1,
                )
            )
        return answer_of({"Success": True})

    async def get_smart_data(self, emr: Emr, request: Request, _: Exchange) -> Answer:
        sent = await object_in(request)
        patient_id, csn = self._smart_data_entity(emr, sent)
        asked = {text_in(one, "ID") for one in each(sent.get("SmartDataIDs"))}
        found = [
            {
                "SmartDataID": held.element_id,
                "SmartDataIDType": "SDI",
                "Values": [held.value],
                "Comments": list(held.comments),
            }
            for held in emr.written.smart_data()
            if (held.patient_id, held.csn) == (patient_id, csn) and held.element_id in asked
        ]
        return answer_of({"SmartDataValues": found})

    async def send_message(self, emr: Emr, request: Request, _: Exchange) -> Answer:
        sent, now = await object_in(request), emr.clock.now()
        try:
            patient_id = self._identifiers.patient(text_in(sent, "PatientIDType"), text_in(sent, "PatientID"), now=now)
        except Refused:
            raise refused("INVALID-PATIENT") from None
        if sent.get("ContactID"):
            _contact(emr, sent, patient_id)
        message_type = text_in(sent, "MessageType")
        if message_type not in emr.write_site.message_types:
            raise refused("INVALID-MESSAGE-TYPE details: MessageType: expected one of this client's safelist")
        recipients = tuple(text_in(one, "ID") for one in each(sent.get("Recipients")))
        if not recipients:
            raise refused("NO-RECIPIENTS details: Recipients: expected at least one")
        text_in(sent, "SenderID")
        message = Message(
            message_id=f"m{len(emr.written.messages) + 1}",
            patient_id=patient_id,
            message_type=message_type,
            recipients=recipients,
            lines=_lines(sent.get("MessageText")),
            written_at=now,
        )
        emr.written.messages.append(message)
        return answer_of({"IDTypes": [{"ID": message.message_id, "Type": "Internal"}]})

    def _smart_data_entity(self, emr: Emr, sent: Mapping[str, Any]) -> tuple[str, str | None]:
        context = text_in(sent, "ContextName")
        try:
            patient_id = self._identifiers.patient(
                text_in(sent, "EntityIDType"), text_in(sent, "EntityID"), now=emr.clock.now()
            )
        except Refused:
            raise refused("NO-ENTITY-FOUND details: EntityID") from None
        match context:
            case "PATIENT":
                return patient_id, None
            case "ENCOUNTER":
                return patient_id, _contact(emr, sent, patient_id)
            case _:
                raise refused("INVALID-PARAMETER details: ContextName: expected PATIENT or ENCOUNTER")


def _contact(emr: Emr, sent: Mapping[str, Any], patient_id: str) -> str:
    """Give the contact serial number; refuse one that is not this patient's, or whose encounter is closed."""
    csn = text_in(sent, "ContactID")
    if text_in(sent, "ContactIDType") != "CSN":
        raise refused("INVALID-ID-TYPE details: ContactIDType: expected CSN")
    encounter = emr.store.encounter_with_csn(csn, now=emr.clock.now())
    is_theirs = encounter is not None and encounter.patient_id == patient_id
    if encounter is None or not is_theirs or resource_of(encounter).get("status") == "finished":
        raise refused("CONTACT_IS_INVALID")
    return csn


def _check_user(sent: Mapping[str, Any]) -> None:
    text_in(sent, "UserID")
    text_in(sent, "UserIDType")


def _smart_data_values(sent: object) -> list[tuple[str, str, tuple[str, ...]]]:
    """Read the values in either of the two encodings: a list, or an object that mirrors XML."""
    listed = sent.get("Value") if isinstance(sent, dict) else sent
    wrapped = isinstance(sent, dict)
    found = []
    for one in each(listed):
        values, comments = one.get("Values"), one.get("Comments")
        if wrapped:
            values, comments = _strings(values), _strings(comments)
        texts = values if isinstance(values, list) else [values]
        if len(texts) != 1 or not isinstance(texts[0], str) or text_in(one, "SmartDataIDType") != "SDI":
            raise refused("INVALID-PARAMETER details: SmartDataValues: expected one text for each element, by SDI")
        noted = comments if isinstance(comments, list) else []
        found.append((text_in(one, "SmartDataID"), texts[0], tuple(map(str, noted))))
    if not found:
        raise refused("INVALID-PARAMETER details: SmartDataValues: expected at least one")
    return found


def _strings(value: object) -> object:
    return value.get("string") if isinstance(value, dict) else None


def _lines(text: object) -> tuple[str, ...]:
    """Read the text as one string, as in the older model, or as a list of lines, as in the newer one."""
    if isinstance(text, str) and text:
        return tuple(text.split("\n"))
    if isinstance(text, list) and text and all(isinstance(line, str) for line in text):
        return tuple(text)
    raise refused("INVALID-PARAMETER details: MessageText: expected text, or lines of it")
