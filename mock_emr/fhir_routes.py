"""The FHIR side: read, search, pages, create, and what the server says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from mock_emr.bundles import searchset
from mock_emr.capability import capability_statement, smart_configuration
from mock_emr.dates import wire_instant
from mock_emr.emr import FHIR_ROOT, TOKEN_PATH, Emr, Face, Handler, gate
from mock_emr.exchange import JSON, Answer, Exchange, refuse
from mock_emr.fhir_writes import all_found, create
from mock_emr.outcomes import (
    Issue,
    invalid_value,
    no_results,
    not_found,
    not_supported,
    scope_needed,
    session_gone,
    unknown_parameter,
)
from mock_emr.paging import Search
from mock_emr.parameters import PARAMETERS
from mock_emr.query import Query, QueryError, query_of
from mock_emr.scopes import permits
from mock_emr.store import Form

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

    def secured(path: str, handler: Handler, *methods: str) -> Route:
        template = FHIR_ROOT + path
        return Route(template, gate(emr, handler, route=template, face=_FACE), methods=list(methods))

    return [
        discovery("/metadata", _metadata),
        discovery("/.well-known/smart-configuration", _smart_configuration),
        secured("/{type}/_search", _search_by_post, "POST"),
        secured("/{type}/{id}", _read, "GET"),
        secured("/{type}", _search_by_get, "GET"),
        secured("/{type}", create, "POST"),
        secured("/{rest:path}", _not_offered, "GET", "POST", "PUT", "PATCH", "DELETE"),
    ]


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
    resource_type = _known_type(emr, request, exchange)
    _check_scope(emr, exchange, resource_type, "r")
    resource_id = request.path_params["id"]
    form = emr.store.read(resource_type, resource_id, now=emr.clock.now()) or emr.written.read(
        resource_type, resource_id
    )
    if form is None:
        raise refuse(404, not_found(resource_type))
    return Answer(body=form.body)


async def _search_by_get(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    return _searched(emr, request, exchange, request.query_params.multi_items())


async def _search_by_post(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise refuse(415, not_supported(f"Expected a body of type {_FORM}."))
    sent = (await request.body()).decode("utf-8", errors="replace")
    # FHIR R4 http.html#search: parameters of the URL and of the body count alike.
    pairs = [*request.query_params.multi_items(), *parse_qsl(sent, keep_blank_values=True)]
    return _searched(emr, request, exchange, pairs)


async def _not_offered(_: Emr, request: Request, __: Exchange) -> Answer:
    if request.method == "GET":
        raise refuse(404, not_supported("There is nothing at this path."))
    raise refuse(405, not_supported("Only reads and searches are offered."), headers={"Allow": "GET"})


def _searched(emr: Emr, request: Request, exchange: Exchange, pairs: Sequence[tuple[str, str]]) -> Answer:
    resource_type = _known_type(emr, request, exchange)
    exchange.parameters = tuple(sorted({name for name, _ in pairs}))
    _check_scope(emr, exchange, resource_type, "s", pairs)
    if any(name == "sessionID" for name, _ in pairs):
        return _page(emr, request, exchange, resource_type, dict(pairs))
    strict = "handling=strict" in request.headers.get("prefer", "").replace(" ", "").split(",")
    try:
        query = query_of(resource_type, pairs, strict=strict)
    except QueryError as error:
        raise refuse(error.status, *error.issues) from error
    forms = all_found(emr, query)
    if exchange.fault.body == "foreign-subject":
        forms = _with_a_foreigner(emr, query, forms)
    shown = forms[: query.count]
    next_url = None
    if query.count and len(forms) > len(shown):
        search = Search(client_id=exchange.client_id, resource_type=resource_type, forms=forms, page_size=query.count)
        next_url = _page_url(emr, request, resource_type, emr.searches.keep(search), 2)
    return Answer(
        body=searchset(
            shown,
            fhir_base=emr.url(request, FHIR_ROOT),
            total=len(forms),
            self_url=f"{emr.url(request, FHIR_ROOT)}/{resource_type}?{urlencode(query.understood)}",
            next_url=next_url,
            issues=_issues(query, forms),
        )
    )


def _page(emr: Emr, request: Request, exchange: Exchange, resource_type: str, named: dict[str, str]) -> Answer:
    number = named.get("page", "1")
    if not (number.isascii() and number.isdigit() and 0 < len(number) < 7 and int(number)):
        raise refuse(400, invalid_value("page", "Expected a whole number, 1 or more."))
    session_id = named["sessionID"]
    search = emr.searches.recall(session_id, client_id=exchange.client_id, resource_type=resource_type)
    if search is None:
        raise refuse(404, session_gone())
    place = int(number)
    more = search.has_after(place)
    return Answer(
        body=searchset(
            search.page(place),
            fhir_base=emr.url(request, FHIR_ROOT),
            total=len(search.forms),
            self_url=_page_url(emr, request, resource_type, session_id, place),
            next_url=_page_url(emr, request, resource_type, session_id, place + 1) if more else None,
        )
    )


def _page_url(emr: Emr, request: Request, resource_type: str, session_id: str, number: int) -> str:
    return f"{emr.url(request, FHIR_ROOT)}/{resource_type}?sessionID={session_id}&page={number}"


def _issues(query: Query, forms: Sequence[Form]) -> list[Issue]:
    issues = [unknown_parameter(name, severity="warning") for name in query.ignored]
    return issues if forms else [no_results(), *issues]


def _with_a_foreigner(emr: Emr, query: Query, forms: tuple[Form, ...]) -> tuple[Form, ...]:
    """Slip in, first of all, a resource of a patient who was not asked about and whom nothing found is about."""
    now = emr.clock.now()
    asked_about = {text.rsplit("/", 1)[-1] for text in query.asked_for("patient", "subject")}
    asked_about.update(form.patient_id for form in forms if form.patient_id is not None)
    for record in emr.store.all_of(query.resource_type):
        form = record.at(now)
        if form is not None and form.patient_id is not None and form.patient_id not in asked_about:
            return (form, *forms)
    return forms


def _check_scope(
    emr: Emr, exchange: Exchange, resource_type: str, interaction: str, pairs: Sequence[tuple[str, str]] = ()
) -> None:
    """Refuse what was not granted, where scopes are enforced. Source: RFC 6750 section 3.1."""
    if emr.scopes.rules().enforced and exchange.scope is not None:
        # The next page of a search goes by its session, which is the client's own and was allowed as a search.
        is_page = any(name == "sessionID" for name, _ in pairs)
        if not is_page and not permits(exchange.scope, resource_type, interaction, pairs):
            challenge = {"WWW-Authenticate": 'Bearer realm="mock-emr", error="insufficient_scope"'}
            raise refuse(403, scope_needed(resource_type), headers=challenge)


def _known_type(emr: Emr, request: Request, exchange: Exchange) -> str:
    resource_type = str(request.path_params["type"])
    known = resource_type in PARAMETERS or resource_type in emr.write_site.creates
    if not known and not emr.store.count(resource_type):
        raise refuse(404, not_supported("There is no such resource type here."))
    exchange.resource_type = resource_type
    return resource_type
