"""Reads, searches and their pages, everything about a patient: what each finds, and the trouble played in them."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Sequence
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request

from mock_emr.bundles import searchset
from mock_emr.emr import FHIR_ROOT, Emr
from mock_emr.exchange import Answer, Exchange, refuse
from mock_emr.fhir_writes import all_found, etag_of
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
from mock_emr.query import DEFAULT_COUNT, Query, QueryError, query_of
from mock_emr.scopes import permits
from mock_emr.store import Form

Pairs = Sequence[tuple[str, str]]

_ELSEWHERE = "https://emr.elsewhere.example"
_EVERYTHING = ("_count", "_type")


def read(emr: Emr, exchange: Exchange, resource_type: str, resource_id: str) -> Answer:
    """Give one resource as it shows; refuse one that does not."""
    check_type(emr, exchange, resource_type)
    check_scope(emr, exchange, resource_type, "r")
    form = emr.store.read(resource_type, resource_id, now=emr.clock.now())
    written = emr.written.read(resource_type, resource_id) if form is None else None
    found = form or written
    if found is None:
        raise refuse(404, not_found(resource_type))
    if exchange.fault.body == "foreign-subject":
        found = next(_of_others(emr, resource_type, {found.patient_id}), found)
    return Answer(body=found.body, headers={} if written is None else {"ETag": etag_of(written)})


def as_content(binary: Answer) -> Answer:
    """Give a Binary as the bytes that it holds, as where its JSON is not asked for.

    Source: FHIR R4 binary.html#rest.
    """
    held = msgspec.json.decode(binary.body)
    context = held.get("securityContext", {}).get("reference")
    headers = {} if context is None else {"X-Security-Context": context}
    return Answer(body=base64.b64decode(held["data"]), media_type=held["contentType"], headers=headers)


def searched(emr: Emr, request: Request, exchange: Exchange, resource_type: str, pairs: Pairs) -> Answer:
    """Give the first page of what a search finds, or the page of an earlier one that its session names."""
    check_type(emr, exchange, resource_type)
    exchange.parameters = tuple(sorted({name for name, _ in pairs}))
    check_scope(emr, exchange, resource_type, "s", pairs)
    if any(name == "sessionID" for name, _ in pairs):
        return _page(emr, request, exchange, resource_type, dict(pairs))
    try:
        query = query_of(resource_type, pairs, strict=is_strict(request))
    except QueryError as error:
        raise refuse(error.status, *error.issues) from error
    forms = all_found(emr, query)
    if exchange.fault.body == "foreign-subject":
        asked_about = {text.rsplit("/", 1)[-1] for text in query.asked_for("patient", "subject")}
        stranger = next(_of_others(emr, resource_type, asked_about | {form.patient_id for form in forms}), None)
        forms = forms if stranger is None else (stranger, *forms)
    issues = [unknown_parameter(name, severity="warning") for name in query.ignored]
    path = f"{resource_type}?{urlencode(query.understood)}"
    return _first_page(emr, request, exchange, query, forms, path=path, issues=issues)


def everything(emr: Emr, request: Request, exchange: Exchange, patient_id: str, pairs: Pairs) -> Answer:
    """Give the patient and all that the chart shows about them, by type. Written resources are among them.

    Source: FHIR R4 patient-operation-everything.html: `_count` and `_type`; what else it may be asked for is ignored
    and told.
    """
    check_type(emr, exchange, "Patient")
    exchange.parameters = tuple(sorted({name for name, _ in pairs}))
    named = {name: value for name, value in pairs if name in _EVERYTHING}
    now = emr.clock.now()
    if emr.store.read("Patient", patient_id, now=now) is None:
        raise refuse(404, not_found("Patient"))
    wanted = set(named["_type"].split(",")) if "_type" in named else None
    types = sorted({*emr.store.types(), *emr.write_site.creates}, key=lambda one: (one != "Patient", one))
    forms: list[Form] = []
    for resource_type in types:
        if wanted is None or resource_type in wanted:
            check_scope(emr, exchange, resource_type, "r")
            records = emr.store.of_patients(resource_type, [patient_id])
            forms += [form for record in records if (form := record.at(now)) is not None]
            forms += emr.written.of_patient(resource_type, patient_id)
    try:
        count = named.get("_count", str(DEFAULT_COUNT))
        query = query_of("Patient", [("_id", patient_id), ("_count", count)], strict=True)
    except QueryError as error:
        raise refuse(error.status, *error.issues) from error
    ignored = [unknown_parameter(name, severity="warning") for name, _ in pairs if name not in _EVERYTHING]
    path = f"Patient/{patient_id}/$everything" + (f"?{urlencode(named)}" if named else "")
    return _first_page(emr, request, exchange, query, tuple(forms), path=path, issues=ignored)


def is_strict(request: Request) -> bool:
    """Tell whether unknown parameters are to be refused. Source: FHIR R4 search.html, `Prefer: handling`."""
    return "handling=strict" in request.headers.get("prefer", "").replace(" ", "").split(",")


def check_scope(emr: Emr, exchange: Exchange, resource_type: str, interaction: str, pairs: Pairs = ()) -> None:
    """Refuse what was not granted, where scopes are enforced. Source: RFC 6750 section 3.1."""
    if emr.scopes.rules().enforced and exchange.scope is not None:
        # The next page of a search goes by its session, which is the client's own and was allowed as a search.
        is_page = any(name == "sessionID" for name, _ in pairs)
        if not is_page and not permits(exchange.scope, resource_type, interaction, pairs):
            challenge = {"WWW-Authenticate": 'Bearer realm="mock-emr", error="insufficient_scope"'}
            raise refuse(403, scope_needed(resource_type), headers=challenge)


def check_type(emr: Emr, exchange: Exchange, resource_type: str) -> None:
    """Refuse a type that is unknown here; note one that is known."""
    known = resource_type in PARAMETERS or resource_type in emr.write_site.creates
    if not known and not emr.store.count(resource_type):
        raise refuse(404, not_supported("There is no such resource type here."))
    exchange.resource_type = resource_type


def page_number(named: dict[str, str]) -> int:
    """Read which page is asked for, from 1."""
    number = named.get("page", "1")
    if not (number.isascii() and number.isdigit() and 0 < len(number) < 7 and int(number)):
        raise refuse(400, invalid_value("page", "Expected a whole number, 1 or more."))
    return int(number)


def next_page_url(exchange: Exchange, url: str) -> str:
    """Give the link to the next page as the fault leaves it: as it is, or leading to another server."""
    if exchange.fault.body != "foreign-next":
        return url
    return _ELSEWHERE + url[url.index("/", len("https://")) :]


def _of_others(emr: Emr, resource_type: str, asked_about: Collection[str | None]) -> Iterator[Form]:
    """Give resources of patients who were not asked about."""
    now = emr.clock.now()
    for record in emr.store.all_of(resource_type):
        form = record.at(now)
        if form is not None and form.patient_id is not None and form.patient_id not in asked_about:
            yield form


def _first_page(
    emr: Emr,
    request: Request,
    exchange: Exchange,
    query: Query,
    forms: tuple[Form, ...],
    *,
    path: str,
    issues: list[Issue],
) -> Answer:
    shown = forms[: query.count]
    next_url = None
    if query.count and len(forms) > len(shown):
        search = Search(
            client_id=exchange.client_id, resource_type=query.resource_type, forms=forms, page_size=query.count
        )
        next_url = next_page_url(exchange, _page_url(emr, request, query.resource_type, emr.searches.keep(search), 2))
    return Answer(
        body=searchset(
            shown,
            fhir_base=emr.url(request, FHIR_ROOT),
            total=len(forms),
            self_url=f"{emr.url(request, FHIR_ROOT)}/{path}",
            next_url=next_url,
            issues=issues if forms else [no_results(), *issues],
        )
    )


def _page(emr: Emr, request: Request, exchange: Exchange, resource_type: str, named: dict[str, str]) -> Answer:
    place = page_number(named)
    session_id = named["sessionID"]
    search = emr.searches.recall(session_id, client_id=exchange.client_id, resource_type=resource_type)
    if search is None:
        raise refuse(404, session_gone())
    next_url = None
    if search.has_after(place):
        next_url = next_page_url(exchange, _page_url(emr, request, resource_type, session_id, place + 1))
    return Answer(
        body=searchset(
            search.page(1 if exchange.fault.body == "duplicate-pages" else place),
            fhir_base=emr.url(request, FHIR_ROOT),
            total=len(search.forms),
            self_url=_page_url(emr, request, resource_type, session_id, place),
            next_url=next_url,
        )
    )


def _page_url(emr: Emr, request: Request, resource_type: str, session_id: str, number: int) -> str:
    # A page is in the format of the search that it is of.
    asked = f"&{urlencode({'_format': held})}" if (held := request.query_params.get("_format")) else ""
    return f"{emr.url(request, FHIR_ROOT)}/{resource_type}?sessionID={session_id}&page={number}{asked}"
