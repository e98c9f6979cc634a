"""The FHIR side: read, search, pages, batch, create, update, and what the server says about itself."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from mock_emr.bulk_routes import bulk_routes
from mock_emr.capability import capability_statement, smart_configuration
from mock_emr.dates import wire_instant
from mock_emr.emr import FHIR_ROOT, TOKEN_PATH, Emr, Face, Handler, gate
from mock_emr.exchange import JSON, Answer, Exchange, Refused, refuse
from mock_emr.fhir_batch import batch
from mock_emr.fhir_search import as_content, everything, read, searched
from mock_emr.fhir_writes import create, update
from mock_emr.fhir_xml import as_xml, wants_xml
from mock_emr.outcomes import not_supported

_FORM = "application/x-www-form-urlencoded"
_FACE: Face = "fhir"


def fhir_routes(emr: Emr) -> list[Route]:
    """Give the routes under FHIR_ROOT. Only the two discovery documents are open to callers without a token.

    Source: FHIR R4 http.html; SMART App Launch 2.2 conformance.html.
    """

    def discovery(path: str, handler: Handler) -> Route:
        name = path.rsplit("/", 1)[-1]
        template = FHIR_ROOT + path
        return Route(
            template, gate(emr, handler, route=template, face=_FACE, fault_route=name, secured=False), methods=["GET"]
        )

    def secured(path: str, handler: Handler, *methods: str, fault_route: str | None = None) -> Route:
        template = FHIR_ROOT + path
        endpoint = gate(emr, _in_the_format_asked(handler), route=template, face=_FACE, fault_route=fault_route)
        return Route(template, endpoint, methods=list(methods))

    return [
        discovery("/metadata", _metadata),
        discovery("/.well-known/smart-configuration", _smart_configuration),
        *bulk_routes(emr),
        secured("", batch, "POST", fault_route="batch"),
        secured("/", batch, "POST", fault_route="batch"),
        secured("/{type}/_search", _search_by_post, "POST"),
        secured("/{type}/{id}/$everything", _everything, "GET"),
        secured("/{type}/{id}", _read, "GET"),
        secured("/{type}/{id}", update, "PUT"),
        secured("/{type}", _search_by_get, "GET"),
        secured("/{type}", create, "POST"),
        secured("/{rest:path}", _not_offered, "GET", "POST", "PUT", "PATCH", "DELETE"),
    ]


def _in_the_format_asked(handler: Handler) -> Handler:
    """Let a handler answer in XML where that is asked for, its refusals too."""

    async def answered(emr: Emr, request: Request, exchange: Exchange) -> Answer:
        if not wants_xml(request):
            return await handler(emr, request, exchange)
        try:
            return as_xml(await handler(emr, request, exchange))
        except Refused as refused:
            raise Refused(as_xml(refused.answer)) from refused

    return answered


async def _metadata(emr: Emr, request: Request, _: Exchange) -> Answer:
    statement = capability_statement(
        emr.store.types(),
        writes=emr.write_site,
        fhir_base=emr.url(request, FHIR_ROOT),
        token_url=emr.url(request, TOKEN_PATH),
        date=wire_instant(emr.clock.real_now()),
    )
    return Answer(body=msgspec.json.encode(statement))


async def _smart_configuration(emr: Emr, request: Request, _: Exchange) -> Answer:
    configuration = smart_configuration(token_url=emr.url(request, TOKEN_PATH))
    return Answer(body=msgspec.json.encode(configuration), media_type=JSON)


async def _read(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    answer = read(emr, exchange, request.path_params["type"], request.path_params["id"])
    is_content = request.path_params["type"] == "Binary" and "json" not in request.headers.get("accept", "")
    return as_content(answer) if is_content else answer


async def _search_by_get(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    return searched(emr, request, exchange, request.path_params["type"], request.query_params.multi_items())


async def _search_by_post(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise refuse(415, not_supported(f"Expected a body of type {_FORM}."))
    sent = (await request.body()).decode("utf-8", errors="replace")
    # FHIR R4 http.html#search: parameters of the URL and of the body count alike.
    pairs = [*request.query_params.multi_items(), *parse_qsl(sent, keep_blank_values=True)]
    return searched(emr, request, exchange, request.path_params["type"], pairs)


async def _everything(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    if request.path_params["type"] != "Patient":
        raise refuse(404, not_supported("$everything is offered for a Patient alone."))
    return everything(emr, request, exchange, request.path_params["id"], request.query_params.multi_items())


async def _not_offered(_: Emr, request: Request, __: Exchange) -> Answer:
    if request.method == "GET":
        raise refuse(404, not_supported("There is nothing at this path."))
    raise refuse(405, not_supported("This is not offered here."), headers={"Allow": "GET"})
