"""Ways out over the vendor's web services: a flowsheet row, a SmartData element, an In Basket message."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.instants import parse_instant
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.epic_client import VendorClient, metered
from deployr_serve.adapters.epic_facts import FlowsheetRowAnswer
from deployr_serve.adapters.identity import FHIR, Encounters, PatientIndex
from deployr_serve.adapters.vendor_write import VendorWriter
from deployr_serve.core.errors import (
    EmrThrottled,
    OutcomeUnknown,
    RecordChanged,
    ServeError,
    TryLater,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Budget, Clock, Record, Records, TypedIdentifier
from deployr_serve.outputs.declared import FlowsheetOutput, InBasketOutput, SmartDataOutput
from deployr_serve.outputs.flowsheet import render_flowsheet
from deployr_serve.outputs.in_basket import render_in_basket
from deployr_serve.outputs.smart_data import render_smart_data
from deployr_serve.outputs.vendor_target import VendorTarget, VendorUser, VendorWrite, insist_on
from deployr_serve.outputs.wording import scored

_ROWS_PATH = "api/epic/2014/Clinical/Patient/GETFLOWSHEETROWS/FlowsheetRows"
_MOST_HOURS = 72
"""How far back flowsheets can be read. Source: wire formats document, section 2 [seen]."""
_HOUR = timedelta(hours=1)


class VendorTargets:
    """Finds out whom a write is to name, by asking again who the packet's patient and encounter are."""

    def __init__(self, patients: PatientIndex, encounters: Encounters, *, patient_id_type: str) -> None:
        self._patients = patients
        self._encounters = encounters
        self._type = patient_id_type

    async def of(self, packet: InferencePacket, *, budget: Budget | None) -> VendorTarget:
        """Give the target of a packet.

        Raises:
            UnknownPatient, UnknownContext, AmbiguousPatient: there is no single one, or none of that type.
            WrongPatient: the patient was merged, or the encounter is not the one whose number was stored.
            TryLater, FixSetup: nobody could tell.
        """
        subject, stored = packet.subject, scored(packet).entity_id
        asked = TypedIdentifier(type=FHIR, value=subject.patient_id)
        patient = await self._patients.resolve((asked,), budget=budget)
        if patient.fhir_id != subject.patient_id:
            raise WrongPatient("expected the patient who was scored")
        named = subject.patient_id if self._type == FHIR else patient.also.get(self._type)
        if named is None:
            raise UnknownPatient(f"expected a patient with one {self._type} id")
        csn = None
        if subject.encounter_id is not None:
            csn = await self._encounters.csn_of(subject.encounter_id, patient_id=subject.patient_id, budget=budget)
            if stored is not None and csn != stored:
                raise WrongPatient("expected the contact serial number that was stored with the score")
        return VendorTarget(patient_id=named, patient_id_type=self._type, csn=csn)


class Flowsheet:
    """Files scores as flowsheet values.

    The interface knows no idempotency key, so the row is read first: a value of the same instant and number is taken
    for this one, whose answer was lost.
    """

    name = "flowsheet"

    def __init__(
        self,
        writer: VendorWriter,
        reader: VendorClient,
        *,
        targets: VendorTargets,
        policies: Policies,
        declared: FlowsheetOutput,
        user: VendorUser,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._targets = targets
        self._policies = policies
        self._declared = declared
        self._user = user

    async def send(
        self,
        packet: InferencePacket,
        bundle: Bundle,
        *,
        delivery_id: str,  # noqa: ARG002 the port's
        budget: Budget | None = None,
    ) -> None:
        """Send one score; see `deployr_serve.core.ports.Output`."""
        target = await self._targets.of(packet, budget=budget)
        policy = self._policies.of(packet.model.model_id)
        write = render_flowsheet(
            packet, bundle.manifest, policy=policy, declared=self._declared, target=target, user=self._user
        )
        query = dict(write.parameters)
        insist_on(target, patient_ids=(query["PatientID"],), contact_ids=(query["ContactID"],))
        if not await self._is_there(query, as_of=packet.as_of, budget=budget):
            await self._writer.send(write, budget=budget)

    async def _is_there(self, query: dict[str, str], *, as_of: datetime, budget: Budget | None) -> bool:
        hours = max((self._reader.clock.now() - as_of) // _HOUR, 0) + 1
        asked = {name: query[name] for name in ("PatientID", "PatientIDType", "ContactID", "ContactIDType")}
        body = {
            **asked,
            "LookbackHours": min(hours, _MOST_HOURS),
            "UserID": self._user.id,
            "UserIDType": self._user.type,
            "FlowsheetRowIDs": [{"ID": query["FlowsheetID"], "Type": query["FlowsheetIDType"]}],
        }
        with metered(resource="FlowsheetRows", name="read-back", clock=self._reader.clock) as meter:
            answer = await self._reader.post(_ROWS_PATH, body, answer=_Rows, meter=meter, budget=budget)
        wanted = (parse_instant(query["InstantValueTaken"]), query["Value"])
        return any(
            (_instant(column.instant), column.raw_value) == wanted
            for row in answer.flowsheet_rows or ()
            for column in row.flowsheet_columns
        )


class _Rows(msgspec.Struct, frozen=True, rename="pascal"):
    flowsheet_rows: tuple[FlowsheetRowAnswer, ...] | None


def _instant(text: str | None) -> datetime | None:
    try:
        return parse_instant(text or "")
    except ValueError:
        return None


class SmartData:
    """Sets a SmartData element.

    It is a PUT, which aiohttp sends again by itself when a pooled connection turns out to be dead: harmless here,
    because the same value set twice is that value.
    """

    name = "smart-data"

    def __init__(
        self,
        writer: VendorWriter,
        *,
        targets: VendorTargets,
        policies: Policies,
        declared: SmartDataOutput,
        user: VendorUser,
    ) -> None:
        self._writer = writer
        self._targets = targets
        self._policies = policies
        self._declared = declared
        self._user = user

    async def send(
        self,
        packet: InferencePacket,
        bundle: Bundle,
        *,
        delivery_id: str,  # noqa: ARG002 the port's
        budget: Budget | None = None,
    ) -> None:
        """Send one score; see `deployr_serve.core.ports.Output`."""
        target = await self._targets.of(packet, budget=budget)
        policy = self._policies.of(packet.model.model_id)
        write = render_smart_data(
            packet, bundle.manifest, policy=policy, declared=self._declared, target=target, user=self._user
        )
        body = msgspec.json.decode(write.body)
        contacts = (body["ContactID"],) if "ContactID" in body else ()
        insist_on(target, patient_ids=(body["EntityID"],), contact_ids=contacts)
        await self._writer.send(write, budget=budget)


class InBasket:
    """Sends a message, at most once: there is no way to ask whether one arrived, and two would be one too many.

    What was on its way when the connection or the worker died is given up as `OutcomeUnknown`. It is sent again only
    where the EMR said that it did not take it, or nothing had left the house.
    """

    name = "in-basket"

    def __init__(
        self,
        writer: VendorWriter,
        *,
        targets: VendorTargets,
        policies: Policies,
        declared: InBasketOutput,
        records: Records,
        clock: Clock,
        remembered: timedelta,
    ) -> None:
        """Send to one EMR; ``remembered`` is for how long a repeat is recognised."""
        self._writer = writer
        self._targets = targets
        self._policies = policies
        self._declared = declared
        self._records = records
        self._clock = clock
        self._remembered = remembered

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> None:
        """Send one message; see `deployr_serve.core.ports.Output`."""
        target = await self._targets.of(packet, budget=budget)
        policy = self._policies.of(packet.model.model_id)
        write = render_in_basket(packet, bundle.manifest, policy=policy, declared=self._declared, target=target)
        body = msgspec.json.decode(write.body)
        contacts = (body["ContactID"],) if "ContactID" in body else ()
        insist_on(target, patient_ids=(body["PatientID"],), contact_ids=contacts)
        mark = await self._mark(delivery_id)
        if mark is not None:
            await self._send_once(write, mark, delivery_id=delivery_id, budget=budget)

    async def _mark(self, delivery_id: str) -> Record | None:
        """Note that the message is about to be sent; None if it has arrived already."""
        now = self._clock.now()
        expires_at = now + self._remembered
        fresh = await self._records.create_record(_MESSAGE, delivery_id, _SENDING, now=now, expires_at=expires_at)
        if fresh is not None:
            return fresh
        held = await self._records.read_record(_MESSAGE, delivery_id, now=now)
        if held is not None and held.content == _ARRIVED:
            return None
        if held is None or held.content != _NOT_SENT:
            raise OutcomeUnknown("expected to know whether this message has arrived")
        try:
            return await self._records.replace_record(
                _MESSAGE, delivery_id, _SENDING, etag=held.etag, expires_at=expires_at
            )
        except RecordChanged:
            raise OutcomeUnknown("expected nobody else to send this message") from None

    async def _send_once(self, write: VendorWrite, mark: Record, *, delivery_id: str, budget: Budget | None) -> None:
        try:
            await self._writer.send(write, budget=budget)
        except ServeError as error:
            if not _was_not_taken(error):
                raise OutcomeUnknown("expected an answer that says whether the message arrived") from error
            await self._settle(delivery_id, _NOT_SENT, mark)
            raise
        await self._settle(delivery_id, _ARRIVED, mark)

    async def _settle(self, delivery_id: str, content: bytes, mark: Record) -> None:
        expires_at = self._clock.now() + self._remembered
        await self._records.replace_record(_MESSAGE, delivery_id, content, etag=mark.etag, expires_at=expires_at)


_MESSAGE = "message"
_SENDING, _ARRIVED, _NOT_SENT = b"sending", b"arrived", b"not-sent"


def _was_not_taken(error: ServeError) -> bool:
    return not isinstance(error, TryLater) or isinstance(error, EmrThrottled) or error.requests == 0
