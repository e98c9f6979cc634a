"""Creating and updating FHIR resources: where the site offers it, and conditionally where it honours that.

Source: FHIR R4 http.html#create, http.html#ccreate, http.html#update, http.html#concurrency [seen]; for Observation, a
vendor's codes 59188 (no single flowsheet row) and 59141 (there is one already), and that it knows no conditional
create, wire-formats.md section 3 [secondary].
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
from mock_emr.outcomes import Issue, invalid_value, not_supported, scope_needed, stale_version
from mock_emr.query import Query, QueryError, found, query_of
from mock_emr.scopes import permits
from mock_emr.store import Form
from mock_emr.written import version_of

FLOWSHEET_ID = "http://open.epic.com/FHIR/StructureDefinition/observation-flowsheet-id"


async def create(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """Create one resource: 201, or 200 where a conditional create finds it, or 412 where it finds several."""
    resource_type = _writable_type(emr, request, exchange, "c")
    resource = await _resource(request, resource_type)
    if "id" in resource:
        raise refuse(400, invalid_value("id", "The server gives ids."))
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


async def update(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """Put a resource in place of one that was created here: 200, or 412 where If-Match names another version.

    What the chart came with cannot be updated, and nothing is created under an id that the caller chose.
    """
    resource_type = _writable_type(emr, request, exchange, "u")
    resource_id = str(request.path_params["id"])
    resource = await _resource(request, resource_type)
    if resource.get("id") != resource_id:
        raise refuse(400, invalid_value("id", "Expected the id in the path."))
    held = emr.written.read(resource_type, resource_id)
    if held is None:
        raise refuse(405, not_supported("Only what was created here can be updated."), headers={"Allow": "GET"})
    if request.headers.get("if-match", etag_of(held)) != etag_of(held):
        raise refuse(412, stale_version())
    if (reference_text(resource.get("subject")) or "") != f"Patient/{held.patient_id}":
        raise refuse(422, invalid_value("subject", "Expected the patient of the version before."))
    if resource_type == "Observation":
        _check_flowsheet_row(emr, resource)
    form = emr.written.update(resource, resource_id, now=emr.clock.now())
    return Answer(body=_body(request, form), headers={"ETag": etag_of(form)})


def etag_of(form: Form) -> str:
    """Give the entity tag of a resource that was created here. Source: FHIR R4 http.html#versioning."""
    return f'W/"{version_of(form)}"'


def _writable_type(emr: Emr, request: Request, exchange: Exchange, interaction: str) -> str:
    resource_type = str(request.path_params["type"])
    exchange.resource_type = resource_type
    if resource_type not in emr.write_site.creates:
        raise refuse(405, not_supported("This type cannot be written here."), headers={"Allow": "GET"})
    granted = exchange.scope if emr.scopes.rules().enforced else None
    if granted is not None and not permits(granted, resource_type, interaction, ()):
        challenge = {"WWW-Authenticate": 'Bearer realm="mock-emr", error="insufficient_scope"'}
        raise refuse(403, scope_needed(resource_type), headers=challenge)
    return resource_type


def _created(emr: Emr, request: Request, form: Form, *, status: int) -> Answer:
    base = emr.write_site.location or emr.url(request, FHIR_ROOT)
    location = f"{base}/{form.address.decode()}/_history/{version_of(form)}"
    return Answer(status=status, body=_body(request, form), headers={"Location": location, "ETag": etag_of(form)})


def _body(request: Request, form: Form) -> bytes:
    return b"" if "return=minimal" in request.headers.get("prefer", "") else form.body


async def _resource(request: Request, resource_type: str) -> Mapping[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != FHIR_JSON:
        raise refuse(415, not_supported(f"Expected a body of type {FHIR_JSON}."))
    try:
        sent = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError):
        sent = None
    if not isinstance(sent, dict) or sent.get("resourceType") != resource_type:
        raise refuse(400, invalid_value("resourceType", "Expected a resource of the type in the path."))
    return sent


def _check_subject(emr: Emr, resource: Mapping[str, Any]) -> None:
    # Staff may be told of what is about no patient: a Communication need not have a subject.
    if resource["resourceType"] == "Communication" and "subject" not in resource:
        return
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
    _check_flowsheet_row(emr, resource)
    for held in emr.written.resources():
        same = (held.get("subject"), held.get("effectiveDateTime"), held.get("code")) == (
            resource.get("subject"),
            resource.get("effectiveDateTime"),
            resource.get("code"),
        )
        if held["resourceType"] == "Observation" and same:
            raise refuse(400, _observation_issue("59141", "duplicate", "There is such a reading already."))


def _check_flowsheet_row(emr: Emr, resource: Mapping[str, Any]) -> None:
    rows = [code for system, code in codings(resource.get("code")) if system == FLOWSHEET_ID]
    if len(rows) != 1 or rows[0] not in emr.write_site.flowsheet_rows:
        raise refuse(400, _observation_issue("59188", "processing", "No single flowsheet row can be found."))
    if "value" not in child(resource, "valueQuantity"):
        raise refuse(400, _observation_issue("59189", "processing", "Failed to file the reading."))


def _observation_issue(epic_code: str, code: str, text: str) -> Issue:
    return Issue(severity="fatal", code=code, epic_code=epic_code, text=text)
