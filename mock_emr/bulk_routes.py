"""Bulk export: asked for, waited for, fetched as NDJSON, and let go.

Source: FHIR Bulk Data Access 2.0, https://hl7.org/fhir/uv/bulkdata/export.html.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from mock_emr.bulk import Export
from mock_emr.dates import DateError, interval_of, wire_instant
from mock_emr.emr import FHIR_ROOT, Emr, Handler, gate
from mock_emr.exchange import JSON, Answer, Exchange, refuse
from mock_emr.fhir_search import check_scope, check_type
from mock_emr.outcomes import invalid_value, not_found, not_supported

INPATIENTS = "inpatients"
NDJSON = "application/fhir+ndjson"
STATUS_PATH = FHIR_ROOT + "/bulk-status"
FILE_PATH = FHIR_ROOT + "/bulk-files"
_UNDERWAY = (None, "in-progress")
_FORMATS = (NDJSON, "application/ndjson", "ndjson")


def bulk_routes(emr: Emr) -> list[Route]:
    """Give the routes; each asks for a token like any other FHIR call."""

    def route(path: str, handler: Handler, method: str) -> Route:
        return Route(path, gate(emr, handler, route=path, face="fhir", fault_route="export"), methods=[method])

    return [
        route(FHIR_ROOT + "/$export", _export_all, "GET"),
        route(FHIR_ROOT + "/Patient/$export", _export_patients, "GET"),
        route(FHIR_ROOT + "/Group/{group}/$export", _export_group, "GET"),
        route(STATUS_PATH + "/{export}", _status, "GET"),
        route(STATUS_PATH + "/{export}", _drop, "DELETE"),
        route(FILE_PATH + "/{export}/{kind}.{number:int}.ndjson", _file, "GET"),
    ]


async def _export_all(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    return _start(emr, request, exchange, of_patients=False)


async def _export_patients(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    return _start(emr, request, exchange, of_patients=True)


async def _export_group(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """Export everything about those who are in hospital now: the one group there is."""
    if request.path_params["group"] != INPATIENTS:
        raise refuse(404, not_found("Group"))
    now = emr.clock.now()
    stays = (form for record in emr.store.all_of("Encounter") if (form := record.at(now)) is not None)
    group = frozenset(
        form.patient_id for form in stays if form.patient_id and _UNDERWAY in form.terms.get("status", ())
    )
    return _start(emr, request, exchange, of_patients=True, group=group)


def _start(
    emr: Emr, request: Request, exchange: Exchange, *, of_patients: bool, group: frozenset[str] | None = None
) -> Answer:
    prefer = request.headers.get("prefer", "").replace(" ", "").split(",")
    exchange.parameters = tuple(sorted(request.query_params))
    if "respond-async" not in prefer:
        raise refuse(400, not_supported("Expected the header Prefer: respond-async."))
    sent = dict(request.query_params)
    if sent.pop("_outputFormat", NDJSON) not in _FORMATS:
        raise refuse(400, invalid_value("_outputFormat", f"Expected {NDJSON}."))
    types = tuple(sent.pop("_type").split(",")) if "_type" in sent else emr.store.types()
    since = _since(sent.pop("_since", None))
    if sent and "handling=lenient" not in prefer:
        raise refuse(400, not_supported("Of the export's parameters only _type, _since and _outputFormat are offered."))
    for resource_type in types:
        check_type(emr, exchange, resource_type)
        check_scope(emr, exchange, resource_type, "r")
    export_id = emr.exports.start(
        Export(
            client_id=exchange.client_id,
            now=emr.clock.now(),
            url=emr.url(request, request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
            types=types,
            of_patients=of_patients,
            group=group,
            since=since,
        )
    )
    return Answer(status=202, headers={"Content-Location": emr.url(request, f"{STATUS_PATH}/{export_id}")})


def _since(text: str | None) -> datetime | None:
    try:
        return None if text is None else interval_of(text).low
    except DateError as error:
        raise refuse(400, invalid_value("_since", str(error))) from error


async def _status(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    export_id, export = _kept(emr, request, exchange)
    if not emr.exports.is_ready(export_id):
        return Answer(status=202, headers={"X-Progress": "in progress", "Retry-After": "1"})
    manifest = {
        "transactionTime": wire_instant(export.now),
        "request": export.url,
        "requiresAccessToken": not emr.open_access,
        "output": [
            {
                "type": file.resource_type,
                "url": emr.url(request, f"{FILE_PATH}/{export_id}/{file.resource_type}.{file.number}.ndjson"),
                "count": file.count,
            }
            for file in emr.exports.files(export)
        ],
        "error": [],
    }
    return Answer(body=msgspec.json.encode(manifest), media_type=JSON)


async def _file(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    _, export = _kept(emr, request, exchange)
    exchange.resource_type = request.path_params["kind"] if request.path_params["kind"] in export.types else None
    body = emr.exports.ndjson(export, request.path_params["kind"], request.path_params["number"])
    if not body:
        raise refuse(404, not_supported("The export has no such file."))
    return Answer(body=body, media_type=NDJSON)


async def _drop(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    export_id, _ = _kept(emr, request, exchange)
    emr.exports.drop(export_id)
    return Answer(status=202)


def _kept(emr: Emr, request: Request, exchange: Exchange) -> tuple[str, Export]:
    export_id = request.path_params["export"]
    export = emr.exports.recall(export_id, client_id=exchange.client_id)
    if export is None:
        raise refuse(404, not_found("export"))
    return export_id, export
