"""Ways out over FHIR: a resource is created once, recognised by our identifier, where the server takes its type."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from deployr_core.bundle import Bundle, Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.auth import Credentials, send_authorized
from deployr_serve.adapters.http import Request, Response, Transport, error_of_status
from deployr_serve.adapters.vendor_write import REFUSED
from deployr_serve.core.duplicates import ENTERED_IN_ERROR, HeldResource
from deployr_serve.core.errors import EmrBadResponse, EmrDuplicates, EmrRefused, OutputNotOffered
from deployr_serve.core.ports import Budget, Output
from deployr_serve.outputs.fhir_elements import DELIVERY_SYSTEM, Resource, insist_on_subject

Render = Callable[[InferencePacket, Manifest, str], Resource]
"""From a packet, its manifest and the delivery's id to the resource."""

_JSON = {"Accept": "application/fhir+json"}
_LONGEST_LOCATION = 500
_EPIC_DUPLICATE = "59141"
"""Source: wire formats document, section 3, FHIR Observation.Create [secondary]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What a server lets be written. ``conditional``: which of these types it creates only if they are not there."""

    creates: frozenset[str]
    conditional: frozenset[str]
    updates: frozenset[str] = frozenset()


class FhirWriter:
    """Creates resources on one FHIR server.

    What the server offers is read from its CapabilityStatement once, when it is first needed. Neither the ``Location``
    of what was created nor anything else in an answer is ever followed.

    Source: FHIR R4 http.html#create, #ccreate (``If-None-Exist``), capabilitystatement.html [seen].
    """

    def __init__(
        self, *, base: str, transport: Transport, credentials: Credentials, search_by_get: bool = False
    ) -> None:
        self._base = base
        self._transport = transport
        self._credentials = credentials
        self._search_by_get = search_by_get
        self._offer: Offer | None = None
        self._asking = asyncio.Lock()

    async def create(
        self, resource: Resource, *, patient_id: str | None, delivery_id: str, budget: Budget | None
    ) -> str | None:
        """Create the resource, or leave it as it is if the server holds it already; give where it says that it stands.

        ``patient_id``: None for what is about nobody.

        Raises:
            OutputNotOffered: the server does not take resources of this type.
            EmrDuplicates: it holds several with this identifier.
            EmrRefused: it does not take this one, and will not.
            TryLater: it did not, or nobody knows.
        """
        kind = resource["resourceType"]
        offer = await self.offer(budget=budget)
        if kind not in offer.creates:
            raise OutputNotOffered(f"expected a server that takes {kind}, by its CapabilityStatement")
        headers = {**_JSON, "Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
        if kind in offer.conditional:
            headers["If-None-Exist"] = urlencode({"identifier": _token(delivery_id)})
        elif await self._is_there(kind, patient_id=patient_id, delivery_id=delivery_id, budget=budget):
            return None
        body = msgspec.json.encode(resource)
        response = await self._send(
            Request(method="POST", url=f"{self._base}/{kind}", headers=headers, body=body, writes=True), budget
        )
        if response.status == 412:
            # It counts those, too, that have been marked as wrong since.
            if await self._is_there(kind, patient_id=patient_id, delivery_id=delivery_id, budget=budget):
                return None
            raise EmrDuplicates("expected at most one record of this delivery, the EMR counts several")
        issues = _issues(response)
        if any(_is_duplicate(issue) for issue in issues):
            return None
        failed = any(issue.severity in {"error", "fatal"} for issue in issues)
        if response.status in REFUSED or (200 <= response.status < 300 and failed):
            raise EmrRefused(f"expected the EMR to take the {kind}, got status {response.status}")
        if error := error_of_status(response):
            raise error
        location = response.headers.get("location", "")
        return location if 0 < len(location) <= _LONGEST_LOCATION and location.isprintable() else None

    async def offer(self, *, budget: Budget | None) -> Offer:
        """Give what the server lets be written; raises as reading from it does."""
        async with self._asking:
            if self._offer is None:
                response = await self._send(
                    Request(method="GET", url=f"{self._base}/metadata", headers=_JSON, repeatable=True), budget
                )
                if error := error_of_status(response):
                    raise error
                self._offer = _offer_in(response.body)
            return self._offer

    async def _is_there(self, kind: str, *, patient_id: str | None, delivery_id: str, budget: Budget | None) -> bool:
        """Tell whether the server holds this delivery's resource; a server may search what it was told to keep.

        Raises:
            EmrDuplicates: it holds several, of which more than one has not been marked as wrong.
        """
        held = await self.held(kind, patient_id=patient_id, delivery_id=delivery_id, budget=budget)
        if sum(each.is_valid for each in held) > 1:
            raise EmrDuplicates("expected at most one record of this delivery, the EMR holds several")
        return bool(held)

    async def held(
        self, kind: str, *, patient_id: str | None, delivery_id: str, budget: Budget | None
    ) -> tuple[HeldResource, ...]:
        """Give what the server holds of one delivery, the first that it held first."""
        token = _token(delivery_id)
        url = f"{self._base}/{kind}"
        if self._search_by_get:
            # The identifier is a keyed hash; whose record it is stands in no URL.
            query = urlencode({"identifier": token})
            request = Request(method="GET", url=f"{url}?{query}", headers=_JSON, repeatable=True)
        else:
            form = (*((("patient", patient_id),) if patient_id is not None else ()), ("identifier", token))
            request = Request(method="POST", url=f"{url}/_search", headers=_JSON, form=form, repeatable=True)
        response = await self._send(request, budget)
        if error := error_of_status(response):
            raise error
        try:
            page = msgspec.json.decode(response.body, type=_Page)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise EmrBadResponse("expected a searchset Bundle") from None
        # A server that does not know the parameter gives everything: only what carries our identifier counts.
        found = [each.resource for each in page.entry if each.resource and _is_of(each.resource, delivery_id)]
        return tuple(sorted((HeldResource(content=each) for each in found), key=lambda each: each.order))

    async def mark_as_wrong(self, held: HeldResource, packet: InferencePacket, *, budget: Budget | None) -> None:
        """Have one resource of this packet marked as entered in error, if nobody has changed it since it was read.

        Raises:
            OutputNotOffered: the server lets nobody change resources of this type.
            WrongPatient: it is about somebody else.
            ServeError: as `create`.
        """
        insist_on_subject(held.content, packet)
        kind = str(held.content.get("resourceType"))
        if kind not in (await self.offer(budget=budget)).updates:
            raise OutputNotOffered(f"expected a server that lets {kind} be changed, by its CapabilityStatement")
        headers = {**_JSON, "Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
        if held.version:
            headers["If-Match"] = f'W/"{held.version}"'
        body = msgspec.json.encode({**held.content, "status": ENTERED_IN_ERROR})
        response = await self._send(
            Request(method="PUT", url=f"{self._base}/{kind}/{held.id}", headers=headers, body=body), budget
        )
        if response.status in REFUSED:
            raise EmrRefused(f"expected the EMR to let the {kind} be changed, got status {response.status}")
        if error := error_of_status(response):
            raise error

    async def _send(self, request: Request, budget: Budget | None) -> Response:
        request = dataclasses.replace(request, budget=budget)
        return await send_authorized(request, transport=self._transport, credentials=self._credentials)


class FhirOutput:
    """One kind of resource as a way out."""

    def __init__(self, name: str, writer: FhirWriter, render: Render) -> None:
        self.name = name
        self._writer = writer
        self._render = render

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> str | None:
        """Send one score; see `deployr_serve.core.ports.Output`."""
        resource = self._render(packet, bundle.manifest, delivery_id)
        insist_on_subject(resource, packet)
        return await self._writer.create(
            resource, patient_id=packet.subject.patient_id, delivery_id=delivery_id, budget=budget
        )


class FirstOffered:
    """Several ways out, of which the first that the EMR offers is taken; named for the one that is preferred."""

    def __init__(self, outputs: tuple[Output, ...]) -> None:
        self._outputs = outputs
        self.name = outputs[0].name

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> str | None:
        """Send one score; see `deployr_serve.core.ports.Output`."""
        *others, last = self._outputs
        for output in others:
            try:
                return await output.send(packet, bundle, delivery_id=delivery_id, budget=budget)
            except OutputNotOffered:
                continue
        return await last.send(packet, bundle, delivery_id=delivery_id, budget=budget)


class _Code(msgspec.Struct, frozen=True):
    code: str = ""


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    type: str = ""
    interaction: tuple[_Code, ...] = ()
    conditional_create: bool = False


class _Rest(msgspec.Struct, frozen=True):
    mode: str = ""
    resource: tuple[_Kind, ...] = ()


class _Statement(msgspec.Struct, frozen=True, rename="camel"):
    resource_type: str
    rest: tuple[_Rest, ...] = ()


class _Entry(msgspec.Struct, frozen=True):
    resource: dict[str, Any] | None = None


class _Page(msgspec.Struct, frozen=True, rename="camel", tag_field="resourceType", tag="Bundle"):
    entry: tuple[_Entry, ...] = ()


class _Details(msgspec.Struct, frozen=True):
    coding: tuple[_Code, ...] = ()


class _Issue(msgspec.Struct, frozen=True):
    severity: str = ""
    code: str = ""
    details: _Details = _Details()


class _Outcome(msgspec.Struct, frozen=True, tag_field="resourceType", tag="OperationOutcome"):
    issue: tuple[_Issue, ...] = ()


def _offer_in(body: bytes) -> Offer:
    try:
        statement = msgspec.json.decode(body, type=_Statement)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EmrBadResponse("expected a CapabilityStatement, in JSON") from None
    if statement.resource_type != "CapabilityStatement":
        raise EmrBadResponse("expected a CapabilityStatement")
    kinds = [kind for rest in statement.rest if rest.mode == "server" for kind in rest.resource]
    creatable = [kind for kind in kinds if any(each.code == "create" for each in kind.interaction)]
    return Offer(
        creates=frozenset(kind.type for kind in creatable),
        conditional=frozenset(kind.type for kind in creatable if kind.conditional_create),
        updates=frozenset(kind.type for kind in kinds if any(each.code == "update" for each in kind.interaction)),
    )


def _issues(response: Response) -> tuple[_Issue, ...]:
    """Give what the server says about itself; nothing where it gives back the resource, or says nothing."""
    try:
        return msgspec.json.decode(response.body, type=_Outcome).issue
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _is_duplicate(issue: _Issue) -> bool:
    return issue.code == "duplicate" or any(coding.code == _EPIC_DUPLICATE for coding in issue.details.coding)


def _is_of(resource: Mapping[str, Any], delivery_id: str) -> bool:
    identifier = resource.get("identifier")
    listed = identifier if isinstance(identifier, list) else [identifier]
    return any(
        isinstance(one, dict) and (one.get("system"), one.get("value")) == (DELIVERY_SYSTEM, delivery_id)
        for one in listed
    )


def _token(delivery_id: str) -> str:
    return f"{DELIVERY_SYSTEM}|{delivery_id}"
