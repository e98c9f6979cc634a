"""Creating FHIR resources: where the site offers it, and conditionally where it honours that.

Source: FHIR R4 http.html#create, http.html#ccreate [seen]; for Observation, a vendor's codes 59188 (no single flowsheet
row) and 59141 (there is one already), and that it knows no conditional create, wire-formats.md section 3 [secondary].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from mock_emr.elements import child, codings, reference_text
from mock_emr.emr import FHIR_ROOT, Emr
from mock_emr.exchange import FHIR_JSON, Answer, Exchange, refuse
from mock_emr.outcomes import Issue, invalid_value, not_supported, scope_needed
from mock_emr.query import Query, QueryError, found, query_of
from mock_emr.scopes import permits
from mock_emr.store import Form

FLOWSHEET_ID = "http://open.epic.com/FHIR/StructureDefinition/observation-flowsheet-id"


async def create(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """Create one resource: 201, or 200 where a conditional create finds it, or 412 where it finds several."""
    resource_type = str(request.path_params["type"])
    exchange.resource_type = resource_type
    if resource_type not in emr.write_site.creates:
        raise refuse(405, not_supported("This type cannot be created here."), headers={"Allow": "GET"})
    granted = exchange.scope if emr.scopes.rules().enforced else None
    if granted is not None and not permits(granted, resource_type, "c", ()):
        challenge = {"WWW-Authenticate": 'Bearer realm="mock-emr", error="insufficient_scope"'}
        raise refuse(403, scope_needed(resource_type), headers=challenge)
    resource = await _resource(request, resource_type)
    _check_subject(emr, resource)
    if (condition := request.headers.get("if-none-exist")) is not None:
        if emr.write_site.conditional == "refused":
            raise refuse(400, not_supported("Conditional create is not supported."))
        if emr.write_site.conditional == "honoured":
            held = _held(emr, resource_type, condition)
            if len(held) > 1:
                raise refuse(412, not_supported("Several resources meet the condition."))
            if held:
                return _created(emr, request, held[0], status=200)
    if resource_type == "Observation":
        _check_flowsheet(emr, resource)
    return _created(emr, request, emr.written.create(resource, now=emr.clock.now()), status=201)


def _created(emr: Emr, request: Request, form: Form, *, status: int) -> Answer:
    base = emr.write_site.location or emr.url(request, FHIR_ROOT)
    location = f"{base}/{form.address.decode()}/_history/1"
    body = b"" if "return=minimal" in request.headers.get("prefer", "") else form.body
    return Answer(status=status, body=body, headers={"Location": location, "ETag": 'W/"1"'})


async def _resource(request: Request, resource_type: str) -> Mapping[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != FHIR_JSON:
        raise refuse(415, not_supported(f"Expected a body of type {FHIR_JSON}."))
    try:
        sent = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError):
        sent = None
    if not isinstance(sent, dict) or sent.get("resourceType") != resource_type:
        raise refuse(400, invalid_value("resourceType", "Expected a resource of the type in the path."))
    if "id" in sent:
        raise refuse(400, invalid_value("id", "The server gives ids."))
    return sent


def _check_subject(emr: Emr, resource: Mapping[str, Any]) -> None:
    kind, _, patient_id = (reference_text(resource.get("subject")) or "").partition("/")
    if kind != "Patient" or emr.store.read("Patient", patient_id, now=emr.clock.now()) is None:
        raise refuse(422, invalid_value("subject", "Expected a patient of this server."))


def _held(emr: Emr, resource_type: str, condition: str) -> tuple[Form, ...]:
    try:
        query = query_of(resource_type, parse_qsl(condition), strict=True)
    except QueryError as error:
        raise refuse(error.status, *error.issues) from error
    return all_found(emr, query)


def all_found(emr: Emr, query: Query) -> tuple[Form, ...]:
    """Give what a search finds: of the chart, and of what was written to it."""
    return (*found(query, store=emr.store, now=emr.clock.now()), *emr.written.found(query))


def _check_flowsheet(emr: Emr, resource: Mapping[str, Any]) -> None:
    """File an Observation as the vendor does: in one flowsheet row, once for an instant."""
    rows = [code for system, code in codings(resource.get("code")) if system == FLOWSHEET_ID]
    if len(rows) != 1 or rows[0] not in emr.write_site.flowsheet_rows:
        raise refuse(400, _observation_issue("59188", "processing", "No single flowsheet row can be found."))
    if "value" not in child(resource, "valueQuantity"):
        raise refuse(400, _observation_issue("59189", "processing", "Failed to file the reading."))
    for held in emr.written.resources():
        same = (held.get("subject"), held.get("effectiveDateTime"), held.get("code")) == (
            resource.get("subject"),
            resource.get("effectiveDateTime"),
            resource.get("code"),
        )
        if held["resourceType"] == "Observation" and same:
            raise refuse(400, _observation_issue("59141", "duplicate", "There is such a reading already."))


def _observation_issue(epic_code: str, code: str, text: str) -> Issue:
    return Issue(severity="fatal", code=code, epic_code=epic_code, text=text)
