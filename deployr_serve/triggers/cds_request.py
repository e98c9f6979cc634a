"""A CDS Hooks call: bytes to what is asked, of whom, and what came along. Pure.

A draft order is not in the EMR yet, so its id names nothing that could be read, and may be another one once it is
signed: such a request has no order id, and its encounter is the context's. Its instant is that of the signing where the
drafts say it and the clock agrees, else that of the call.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#calling-a-cds-service; https://cds-hooks.org/hooks/
[seen]; ``authoredOn`` is when the order became actionable: FHIR R4 servicerequest-definitions.html [seen].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from deployr_core.codes import LOINC
from deployr_core.instants import parse_instant
from deployr_core.packet import Subject
from deployr_serve.core.errors import MalformedRequest, RequestTooLarge, UnsupportedMediaType, WrongPatient
from deployr_serve.core.ports import Handed
from deployr_serve.core.request import FHIR_ID, InferenceRequest
from deployr_serve.core.strict_json import NotOneObject, parse_object
from deployr_serve.triggers.cds_services import WITH_ORDERS, CdsService, Hook

CHANNEL = "cds-hooks"
MAX_BODY_BYTES = 48 * 1024 * 1024
MOST_DRAFT_ORDERS = 200
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII | re.IGNORECASE)
_USER = re.compile(r"[A-Za-z]{1,40}/[A-Za-z0-9\-.]{1,64}\Z", re.ASCII)
_TOKEN = re.compile(r"[!-~]{1,16384}\Z", re.ASCII)
_COLON = re.compile(rb"\s*:\s*")
_MOST_PLACES = 64
"""Where a field that is handed over is looked for; what stands behind more of its namesakes is read with the rest."""
_ORDER_TYPES = frozenset({"ServiceRequest", "ProcedureRequest"})
"""What orders a test, in R4 and in STU3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftOrder:
    """An order for a test that is being written. ``reference``: how the EMR knows it in this call, ``Type/id``.

    ``authored_at``: its ``authoredOn``; None without one that is an instant with its offset.
    """

    reference: str | None = field(repr=False)
    panels: frozenset[str] = field(repr=False)
    authored_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HookCall:
    """One call of one service. ``prefetch`` is by key, as it came."""

    service: CdsService
    hook_instance: str
    subject: Subject = field(repr=False)
    user: str = field(repr=False)
    drafts: tuple[DraftOrder, ...] = field(repr=False)
    prefetch: Mapping[str, bytes] = field(repr=False)
    token: str | None = field(repr=False)

    def draft_for(self, model_id: str) -> DraftOrder | None:
        """Give the first of the drafts that the model is for; None if there is none."""
        panels = next((asked.panels for asked in self.service.asked if asked.model_id == model_id), frozenset())
        return next((draft for draft in self.drafts if draft.panels & panels), None)

    def event_time(self, *, now: datetime, clock_skew: timedelta) -> datetime:
        """Give the instant to look back from: that of the signing, as far as the clock bears it out, else ``now``.

        What is signed at once is one event, at the latest ``authoredOn`` of its orders for tests. One that is more
        than ``clock_skew`` from now, to either side, is no clock's doing: an order that was written long ago, or signed
        again after a change, would be scored without what has come since.
        """
        authored = [draft.authored_at for draft in self.drafts if draft.authored_at is not None]
        if self.service.hook is not Hook.ORDER_SIGN or not authored or abs(max(authored) - now) > clock_skew:
            return now
        return max(authored)


class _Envelope(msgspec.Struct, frozen=True):
    prefetch: dict[str, msgspec.Raw] | None = None


def parse_hook_call(body: bytes, *, content_type: str | None, service: CdsService, fhir_base: str) -> HookCall:
    """Read a call.

    ``fhirServer`` must be ``fhir_base`` to the letter, but for one slash at its end: what it says is never asked, and a
    call that means another server means other patients.

    Raises:
        UnsupportedMediaType, RequestTooLarge: not read at all.
        MalformedRequest: the message names the field and what was expected there.
        WrongPatient: a draft order, or the access token, is another patient's.
    """
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("expected Content-Type: application/json")
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLarge(f"expected a body of at most {MAX_BODY_BYTES} bytes")
    fields, prefetch = _read(body)
    if fields.get("hook") != service.hook:
        raise MalformedRequest(f"hook: expected {service.hook}, which this service is for")
    instance = fields.get("hookInstance")
    if not isinstance(instance, str) or not _UUID.match(instance):
        raise MalformedRequest("hookInstance: expected a UUID")
    server = fields.get("fhirServer")
    if server is not None and (not isinstance(server, str) or server.removesuffix("/") != fhir_base):
        raise MalformedRequest("fhirServer: expected the FHIR server that is configured here, to the letter")
    context = fields.get("context")
    if not isinstance(context, dict):
        raise MalformedRequest("context: expected an object")
    subject = _subject(context, service.hook)
    keys = {key for asked in service.asked for key in asked.search_of_key}
    return HookCall(
        service=service,
        hook_instance=instance.lower(),
        subject=subject,
        user=context["userId"],
        drafts=_drafts(context, service.hook, subject.patient_id) if service.hook in WITH_ORDERS else (),
        prefetch={key: value for key, value in prefetch.items() if key in keys},
        token=_token(fields, has_server=server is not None, patient_id=subject.patient_id),
    )


def requests_of(
    call: HookCall, *, event_time: datetime, correlation_id: str, caller: str = ""
) -> tuple[InferenceRequest, ...]:
    """Give what each model of the service is asked; where orders are drafted, only those that are for one of them.

    ``event_time``: the one that was given to this hook instance when it was first seen.
    """
    asked_on_orders = call.service.hook in WITH_ORDERS
    return tuple(
        InferenceRequest(
            channel=CHANNEL,
            model_id=asked.model_id,
            subject=call.subject,
            event_time=event_time,
            idempotency_key=f"{call.hook_instance}:{call.service.service_id}",
            correlation_id=correlation_id,
            caller=caller,
            handed=Handed(
                prefetch={
                    search: call.prefetch[key] for key, search in asked.search_of_key.items() if key in call.prefetch
                },
                token=call.token,
            ),
            context={"provider": call.user},
            answer_shows=True,
        )
        for asked in call.service.asked
        if not asked_on_orders or call.draft_for(asked.model_id) is not None
    )


def _read(body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Give the fields, each of which stands once, and apart from them what was handed over, unread.

    What is handed over is by far the most of it, and is decoded later into the few fields that are used; so it is cut
    out before the rest is read strictly, which is slow.
    """
    try:
        handed = msgspec.json.decode(body, type=_Envelope).prefetch or {}
        prefetch = {key: bytes(raw) for key, raw in handed.items()}
        # The largest first: what is left is copied each time, and looked through for the next.
        for key, value in sorted(prefetch.items(), key=lambda each: -len(each[1])):
            body = _without(body, key, value)
        return parse_object(body), prefetch
    except msgspec.ValidationError:
        raise MalformedRequest("expected one JSON object, and prefetch to be an object in it") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedRequest("expected the body to be one JSON object in UTF-8") from None
    except NotOneObject as error:
        raise MalformedRequest(str(error)) from None


def _without(body: bytes, key: str, value: bytes) -> bytes:
    """Put ``null`` in place of a field's value, where it can be found; where not, it is read with the rest."""
    # Looked for by its name, which is short: to search for the whole of a long value takes longer than to compare it.
    name, past = f'"{key}"'.encode(), 0
    for _ in range(_MOST_PLACES):
        named = body.find(name, past)
        if named < 0:
            break
        past = named + len(name)
        colon = _COLON.match(body, past)
        if colon is not None and body.startswith(value, colon.end()):
            return body[: colon.end()] + b"null" + body[colon.end() + len(value) :]
    return body


def _subject(context: dict[str, Any], hook: Hook) -> Subject:
    user = context.get("userId")
    if not isinstance(user, str) or not _USER.match(user):
        raise MalformedRequest("context.userId: expected a reference such as Practitioner/abc")
    patient_id = _fhir_id(context, "patientId")
    encounter_id = _fhir_id(context, "encounterId")
    if patient_id is None:
        raise MalformedRequest("context.patientId: expected a FHIR id; the field is missing")
    if encounter_id is None and hook is Hook.ENCOUNTER_DISCHARGE:
        raise MalformedRequest("context.encounterId: expected a FHIR id; the field is missing")
    return Subject(patient_id=patient_id, encounter_id=encounter_id)


def _fhir_id(context: dict[str, Any], name: str) -> str | None:
    value = context.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not FHIR_ID.match(value):
        raise MalformedRequest(f"context.{name}: expected a FHIR id: 1 to 64 of the characters A-Z a-z 0-9 - .")
    return value


def _drafts(context: dict[str, Any], hook: Hook, patient_id: str) -> tuple[DraftOrder, ...]:
    """Give the drafts for tests; of those that are only being chosen from, the chosen ones."""
    bundle = context.get("draftOrders")
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else None
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle" or not isinstance(entries, list):
        raise MalformedRequest("context.draftOrders: expected a Bundle")
    if len(entries) > MOST_DRAFT_ORDERS:
        raise MalformedRequest(f"context.draftOrders: expected at most {MOST_DRAFT_ORDERS} orders")
    chosen = context.get("selections") if hook is Hook.ORDER_SELECT else None
    if hook is Hook.ORDER_SELECT and not (isinstance(chosen, list) and all(isinstance(each, str) for each in chosen)):
        raise MalformedRequest("context.selections: expected a list of references such as ServiceRequest/abc")
    found = []
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict):
            raise MalformedRequest("context.draftOrders: expected a resource in each entry")
        _insist_on(resource, patient_id)
        draft = _draft(resource)
        if draft is not None and (chosen is None or draft.reference in chosen):
            found.append(draft)
    return tuple(found)


def _insist_on(resource: dict[str, Any], patient_id: str) -> None:
    subject = resource.get("subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    if reference is not None and (not isinstance(reference, str) or _last(reference) != ["Patient", patient_id]):
        raise WrongPatient("expected draft orders for the patient of the request")


def _last(reference: str) -> list[str]:
    return reference.split("/")[-2:]


def _draft(resource: dict[str, Any]) -> DraftOrder | None:
    kind, resource_id, code = resource.get("resourceType"), resource.get("id"), resource.get("code")
    if kind not in _ORDER_TYPES:
        return None
    codings = code.get("coding", []) if isinstance(code, dict) else []
    codings = [each for each in codings if isinstance(each, dict)] if isinstance(codings, list) else []
    return DraftOrder(
        reference=f"{kind}/{resource_id}" if isinstance(resource_id, str) else None,
        panels=frozenset(str(each.get("code")) for each in codings if each.get("system") == LOINC),
        authored_at=_instant(resource.get("authoredOn")),
    )


def _instant(text: object) -> datetime | None:
    try:
        return parse_instant(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _token(fields: dict[str, Any], *, has_server: bool, patient_id: str) -> str | None:
    lent = fields.get("fhirAuthorization")
    if lent is None:
        return None
    if not isinstance(lent, dict) or not has_server:
        raise MalformedRequest("fhirAuthorization: expected an object, and a fhirServer with it")
    token, expires_in = lent.get("access_token"), lent.get("expires_in")
    if not isinstance(token, str) or not _TOKEN.match(token) or str(lent.get("token_type")).lower() != "bearer":
        raise MalformedRequest("fhirAuthorization: expected an access_token whose token_type is Bearer")
    if type(expires_in) is not int or expires_in <= 0:
        raise MalformedRequest("fhirAuthorization.expires_in: expected a whole number of seconds above 0")
    if lent.get("patient") not in (None, patient_id):
        raise WrongPatient("expected an access token for the patient of the request")
    return token
