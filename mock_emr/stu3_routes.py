"""The STU3 side: searches for Conditions and Observations, in XML unless JSON is asked for.

Source: wire-formats.md section 2, api/FHIR/STU3: the two types, the patient's STU3 id, XML unless `_format` or `Accept`
says otherwise [seen]; pages as in R4 [assumed].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from mock_emr.emr import STU3_ROOT, Emr, gate
from mock_emr.exchange import FHIR_JSON, XML_FORMATS, Answer, Exchange, Refused, refuse
from mock_emr.fhir_search import check_scope, is_strict, next_page_url, page_number
from mock_emr.fhir_xml import as_xml
from mock_emr.outcomes import no_results, not_supported, operation_outcome, session_gone
from mock_emr.paging import Search
from mock_emr.query import Query, QueryError, found, query_of
from mock_emr.store import Form
from mock_emr.stu3 import TYPES, stu3_of
from mock_emr.vendor_patients import PatientIdentifiers, resource_of

_JSON = ("json", "application/json", FHIR_JSON)


def stu3_routes(emr: Emr) -> list[Route]:
    """Give the routes under STU3_ROOT."""
    searches = _Searches(emr.identifiers)
    template = STU3_ROOT + "/{type}"
    return [Route(template, gate(emr, searches.search, route=template, face="fhir"), methods=["GET"])]


class _Searches:
    """What a search in STU3 finds, and how it is written."""

    def __init__(self, identifiers: PatientIdentifiers) -> None:
        self._identifiers = identifiers

    async def search(self, emr: Emr, request: Request, exchange: Exchange) -> Answer:
        """Answer a search or a page in the format that is asked for, its refusals too."""
        as_json = _wants_json(request)
        try:
            bundle = self._bundle(emr, request, exchange)
        except Refused as refused:
            if as_json:
                raise
            raise Refused(as_xml(refused.answer)) from refused
        answer = Answer(body=msgspec.json.encode(bundle))
        return answer if as_json else as_xml(answer)

    def _bundle(self, emr: Emr, request: Request, exchange: Exchange) -> dict[str, Any]:
        resource_type = str(request.path_params["type"])
        pairs = [(name, value) for name, value in request.query_params.multi_items() if name != "_format"]
        exchange.parameters = tuple(sorted({name for name, _ in pairs}))
        if resource_type not in TYPES:
            raise refuse(404, not_supported(f"In STU3 there are {' and '.join(TYPES)} alone."))
        exchange.resource_type = resource_type
        check_scope(emr, exchange, resource_type, "s", pairs)
        named = dict(pairs)
        if "sessionID" in named:
            return self._page(emr, request, exchange, named["sessionID"], page_number(named))
        try:
            query = query_of(resource_type, self._in_r4(emr, pairs), strict=is_strict(request))
        except QueryError as error:
            raise refuse(error.status, *error.issues) from error
        forms = found(query, store=emr.store, now=emr.clock.now())
        search = _search_of(query, forms, exchange)
        self_url = f"{emr.url(request, STU3_ROOT)}/{resource_type}?{urlencode(pairs)}"
        more = bool(query.count) and search.has_after(1)
        next_url = _page_url(emr, request, search, emr.searches.keep(search), 2) if more else None
        return self._written(emr, request, exchange, forms[: query.count], len(forms), self_url, next_url)

    def _page(self, emr: Emr, request: Request, exchange: Exchange, session: str, place: int) -> dict[str, Any]:
        kind = f"STU3/{exchange.resource_type}"
        search = emr.searches.recall(session, client_id=exchange.client_id, resource_type=kind)
        if search is None:
            raise refuse(404, session_gone())
        next_url = _page_url(emr, request, search, session, place + 1) if search.has_after(place) else None
        shown = search.page(1 if exchange.fault.body == "duplicate-pages" else place)
        self_url = _page_url(emr, request, search, session, place)
        return self._written(emr, request, exchange, shown, len(search.forms), self_url, next_url)

    def _in_r4(self, emr: Emr, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Name the patient by the FHIR id of R4; an STU3 id that is nobody's stays, and finds nothing."""
        return [(name, self._r4_id(emr, value) if name in {"patient", "subject"} else value) for name, value in pairs]

    def _r4_id(self, emr: Emr, value: str) -> str:
        stu3_id = value.rpartition("/")[2]
        try:
            return self._identifiers.patient("FHIR STU3", stu3_id, now=emr.clock.now())
        except Refused:
            return f"nobody-{stu3_id}"

    def _written(
        self,
        emr: Emr,
        request: Request,
        exchange: Exchange,
        forms: Sequence[Form],
        total: int,
        self_url: str,
        next_url: str | None,
    ) -> dict[str, Any]:
        links = [{"relation": "self", "url": self_url}]
        if next_url is not None:
            links.append({"relation": "next", "url": next_page_url(exchange, next_url)})
        entries: list[dict[str, Any]] = [
            {
                "fullUrl": f"{emr.url(request, STU3_ROOT)}/{form.address.decode()}",
                "resource": stu3_of(resource_of(form), patient_id=self._stu3_id(emr, form)),
                "search": {"mode": "match"},
            }
            for form in forms
        ]
        if not total:
            entries.append({"resource": operation_outcome(no_results()), "search": {"mode": "outcome"}})
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": total, "link": links}
        return bundle | ({"entry": entries} if entries else {})

    def _stu3_id(self, emr: Emr, form: Form) -> str:
        return dict(self._identifiers.of(str(form.patient_id), now=emr.clock.now())).get("FHIR STU3", "unknown")


def _wants_json(request: Request) -> bool:
    asked = request.query_params.get("_format", "").lower()
    if asked and asked not in (*XML_FORMATS, *_JSON):
        raise refuse(406, not_supported("Expected _format=xml or _format=json."))
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").lower().split(",")]
    # Only who asks for JSON alone gets it: a browser's or a library's */* means what the vendor gives.
    return asked in _JSON if asked else bool(set(_JSON) & set(accepted)) and not set(XML_FORMATS) & set(accepted)


def _search_of(query: Query, forms: tuple[Form, ...], exchange: Exchange) -> Search:
    return Search(
        client_id=exchange.client_id,
        resource_type=f"STU3/{query.resource_type}",
        forms=forms,
        page_size=max(query.count, 1),
    )


def _page_url(emr: Emr, request: Request, search: Search, session_id: str, number: int) -> str:
    # A page is in the format of the search that it is of.
    asked = f"&_format={'json' if _wants_json(request) else 'xml'}"
    resource_type = search.resource_type.partition("/")[2]
    return f"{emr.url(request, STU3_ROOT)}/{resource_type}?sessionID={session_id}&page={number}{asked}"
