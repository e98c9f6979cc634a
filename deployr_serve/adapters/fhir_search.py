"""FHIR searches: every page of them, checked to be complete, from the EMR's own origin only."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from deployr_core.packet import FetchRecord
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.auth import Credentials, send_authorized
from deployr_serve.adapters.http import Request, Response, Transport, error_of_status, origin
from deployr_serve.core.errors import EmrBadResponse, EmrRefused
from deployr_serve.core.ports import Clock

MAX_PAGES = 50
MAX_RESOURCES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """One search: the resource type and its parameters, each as often as it is given."""

    resource_type: str
    parameters: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """All matches of one search, each once, and the record of how they were fetched."""

    resources: tuple[wire.Resource, ...] = field(repr=False)
    record: FetchRecord


class FhirClient:
    """Searches one FHIR server.

    Searches go out as ``POST [type]/_search``: a patient's id belongs in a body, not in a URL that every proxy logs.
    ``search_by_get`` is for servers that do not offer it.
    """

    def __init__(
        self,
        *,
        base: str,
        transport: Transport,
        credentials: Credentials,
        clock: Clock,
        page_size: int = 1000,
        search_by_get: bool = False,
    ) -> None:
        self.base = base
        self._origin = origin(base)
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._page_size = page_size
        self._search_by_get = search_by_get

    async def search(self, search: Search) -> Found:
        """Give all matches.

        Raises:
            EmrUnreachable, EmrTimeout, EmrRefused: no answer, or a refusal.
            EmrBadResponse: an answer that is no searchset, is incomplete by its own count, leads to another origin, or
                never ends.
        """
        started = self._clock.monotonic()
        seen: dict[str, wire.Resource] = {}
        visited: set[str] = set()
        total: int | None = None
        request = self._first_page(search)
        while True:
            page = _decoded(await self._send(request))
            total = page.total if total is None else total
            for resource in _matches(page, search.resource_type):
                if resource.id is None:
                    raise EmrBadResponse("expected an id on every resource")
                seen[resource.id] = _newer(seen.get(resource.id), resource)
            following = self._next_page(page)
            if following is None:
                break
            if following in visited:
                raise EmrBadResponse("expected pages that come to an end, got a loop")
            visited.add(following)
            if len(visited) >= MAX_PAGES or len(seen) > MAX_RESOURCES:
                raise EmrBadResponse(f"expected at most {MAX_PAGES} pages and {MAX_RESOURCES} resources")
            request = Request(method="GET", url=following, headers={"Accept": "application/fhir+json"})
        if total is not None and total > len(seen):
            raise EmrBadResponse("expected all matches that the server counted, got fewer")
        record = FetchRecord(
            resource=search.resource_type,
            resources=len(seen),
            pages=len(visited) + 1,
            milliseconds=round((self._clock.monotonic() - started) * 1000, 3),
        )
        return Found(resources=tuple(seen.values()), record=record)

    def _first_page(self, search: Search) -> Request:
        parameters = (*search.parameters, ("_count", str(self._page_size)))
        headers = {"Accept": "application/fhir+json"}
        url = f"{self.base}/{search.resource_type}"
        if self._search_by_get:
            return Request(method="GET", url=f"{url}?{urlencode(parameters)}", headers=headers)
        return Request(method="POST", url=f"{url}/_search", headers=headers, form=parameters)

    def _next_page(self, page: wire.Bundle) -> str | None:
        links = [link.url for link in page.link if link.relation == "next"]
        if not links:
            return None
        try:
            url = urljoin(f"{self.base}/", links[0])
            ours = origin(url) == self._origin and url.startswith((f"{self.base}/", f"{self.base}?"))
            # The client resolves these before it sends: under our base to look at, elsewhere when it arrives.
            ours = ours and not {".", ".."} & set(unquote(urlsplit(url).path).split("/"))
        except ValueError:
            ours = False
        if len(links) > 1 or not ours:
            raise EmrBadResponse("expected one next page, on the EMR's own origin and under its FHIR base")
        return url

    async def _send(self, request: Request) -> Response:
        if origin(request.url) != self._origin:
            raise EmrRefused("expected a request to the EMR's own origin")
        response = await send_authorized(request, transport=self._transport, credentials=self._credentials)
        if error := error_of_status(response.status):
            raise error
        return response


def _decoded(response: Response) -> wire.Bundle:
    try:
        return wire.decode_page(response.body)
    except ValueError as error:
        raise EmrBadResponse(str(error)) from None


def _matches(page: wire.Bundle, resource_type: str) -> list[wire.Resource]:
    """Give the page's matches; what a server adds about the search itself (an OperationOutcome) is none.

    A warning there, such as "no results", is passed over. An error is not: what is missing because of it would be
    taken for "nothing there".
    """
    matches: list[wire.Resource] = []
    for entry in page.entry:
        if isinstance(entry.resource, wire.OperationOutcome):
            if any(issue.get("severity") in {"error", "fatal"} for issue in entry.resource.issue):
                raise EmrBadResponse("expected the matches, got an error among them")
            continue
        if type(entry.resource).__name__ != resource_type:
            raise EmrBadResponse(f"expected only {resource_type} in the answer")
        matches.append(entry.resource)
    return matches


def _newer(held: wire.Resource | None, came: wire.Resource) -> wire.Resource:
    """Give the newer of two versions of one resource; the one that came later if neither says."""
    if held is None or held.meta is None or came.meta is None:
        return came
    return held if (held.meta.last_updated or "") > (came.meta.last_updated or "") else came
