"""FHIR searches: every page of them, checked to be complete, from the EMR's own origin only."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from deployr_core.instants import parse_instant
from deployr_core.packet import FetchRecord
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.auth import Credentials, may_receive, send_authorized
from deployr_serve.adapters.fhir_matches import Matches, next_links
from deployr_serve.adapters.fhir_outcome import is_expired_session, is_restricted, is_unknown_id, refusal
from deployr_serve.adapters.fhir_page import VERSIONS, decode_answer, decode_page, decode_whole
from deployr_serve.adapters.fhir_plan import Search
from deployr_serve.adapters.http import Request, Response, Transport, error_of_status, origin
from deployr_serve.core.errors import EmrBadResponse, EmrTooLarge, Restricted, ServeError
from deployr_serve.core.ports import Budget, Clock

__all__ = ["FhirClient", "Found", "Search"]

MAX_PAGES = 50
MAX_RESOURCES = 20_000
MAX_BYTES = 64 * 1024 * 1024
MAX_EMPTY_PAGES = 3
"""Of one search. A page may be empty because all on it was filtered out, but not page after page."""

_ASKED_FOR_BY_ID = frozenset({"Patient", "Encounter", "ServiceRequest"})
"""What a request names. A server that answers 404 where it knows no such id has found nothing, which is refused as
such; of anything else, nothing there would be scored as a short history."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """All matches of one search, each once, and the record of how they were fetched.

    ``included``: what the server added because the search asked for it (``_include``). ``dropped`` counts what was held
    twice under two ids. ``age_s``: how old the oldest page was when it came, by its own account.
    """

    resources: tuple[wire.Resource, ...] = field(repr=False)
    record: FetchRecord
    included: tuple[wire.Resource, ...] = field(default=(), repr=False)
    dropped: Mapping[str, int] = field(default_factory=dict)
    age_s: float = 0.0


class _CursorExpired(Exception):
    """The server has forgotten the search whose next page was asked for."""


class _UnknownId(Exception):
    """The server says that it knows nothing by the id that was asked for."""


@dataclass(kw_only=True, slots=True)
class _Run:
    """One search under way: whose credentials it goes out with, and what it has cost so far.

    ``whole``: the matches are kept as they come.
    """

    budget: Budget | None
    credentials: Credentials
    whole: bool = False
    requests: int = 0
    pages: int = 0
    size: int = 0
    age_s: float = 0.0


class FhirClient:
    """Searches one FHIR server.

    Searches go out as ``POST [type]/_search``: a patient's id belongs in a body, not in a URL that every proxy logs.
    ``search_by_get`` is for servers that do not offer it. ``fhir_version`` is ``R4`` or ``STU3``: searches are worded,
    and matches come out, as in R4 either way. ``typed_patients`` asks by ``patient=Patient/ID`` instead of
    ``patient=ID``: R4 allows both, and some servers find nothing by an id alone.

    Source: FHIR R4 search.html#reference, http://hl7.org/fhir/R4/search.html#reference [seen].
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
        fhir_version: str = "R4",
        typed_patients: bool = False,
    ) -> None:
        self.base = base
        self._origins = frozenset({origin(base)})
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._page_size = page_size
        self._search_by_get = search_by_get
        self._typed_patients = typed_patients
        self.version = VERSIONS[fhir_version]

    async def search(
        self,
        search: Search,
        *,
        name: str = "",
        budget: Budget | None = None,
        credentials: Credentials | None = None,
        whole: bool = False,
    ) -> Found:
        """Give all matches.

        Args:
            search: what to ask for.
            name: what it is for, such as ``labs``; stands in the record.
            budget: what may be used; None leaves it to the transport's own limits.
            credentials: those that a caller lends for this request; None uses the client's own.
            whole: give the matches as `fhir_wire.Whole`, of whatever type they are.

        Raises:
            EmrUnreachable, EmrTimeout, EmrThrottled, EmrRefused: no answer, or a refusal.
            Restricted: the server says that it withholds some or all of the record.
            EmrIncomplete: fewer came than the server counted, or nothing shows that these are all.
            EmrTooLarge: the pages do not come to an end within the limits.
            EmrBadResponse: an answer that is no searchset, twice; or a next page that leads elsewhere.
        """
        started_at, started = self._clock.now(), self._clock.monotonic()
        run = _Run(budget=budget, credentials=credentials or self._credentials, whole=whole)

        def record(*, resources: int = 0, total: int | None = None, error: str | None = None) -> FetchRecord:
            return FetchRecord(
                resource=search.resource_type,
                resources=resources,
                pages=run.pages,
                milliseconds=round((self._clock.monotonic() - started) * 1000, 3),
                name=name,
                started_at=started_at,
                requests=run.requests,
                total=total,
                error=error,
            )

        try:
            matches = await self._whole(search, run)
        except ServeError as error:
            error.fetches = (*error.fetches, record(error=error.reason))
            raise
        dropped: Counter[str] = Counter()
        resources = matches.resources(dropped)
        return Found(
            resources=resources,
            record=record(resources=len(resources), total=matches.total),
            included=matches.included(),
            dropped=dict(dropped),
            age_s=run.age_s,
        )

    async def binary(
        self,
        binary: str,
        *,
        name: str,
        most_bytes: int,
        budget: Budget | None = None,
        credentials: Credentials | None = None,
    ) -> tuple[Response | None, FetchRecord]:
        """Read one Binary: as the resource if the server gives it so, else its bytes; None if there is none.

        ``binary`` is its id, perhaps with a version (``b1/_history/2``). It stands in the URL, because FHIR has no
        search for it; it is no patient's.

        Raises:
            EmrTooLarge: more than ``most_bytes``; it was not read to its end.
            EmrUnreachable, EmrTimeout, EmrThrottled, EmrRefused, EmrBadResponse: no answer, or a refusal.
            Restricted: the server says that it withholds the record.

        Source: FHIR R4 binary.html#rest, http://hl7.org/fhir/R4/binary.html#rest [seen].
        """
        started_at, started = self._clock.now(), self._clock.monotonic()
        run = _Run(budget=budget, credentials=credentials or self._credentials)

        def record(*, error: str | None = None, resources: int = 0) -> FetchRecord:
            return FetchRecord(
                resource="Binary",
                resources=resources,
                pages=resources,
                milliseconds=round((self._clock.monotonic() - started) * 1000, 3),
                name=name,
                started_at=started_at,
                requests=run.requests,
                error=error,
            )

        request = dataclasses.replace(self._reading(f"{self.base}/Binary/{binary}"), most_bytes=most_bytes)
        try:
            response = await self._send(request, run)
            if response.status in {404, 410}:
                return None, record()
            if error := error_of_status(response):
                outcome = _outcome(response)
                raise (
                    Restricted("expected to be let into this document") if outcome and is_restricted(outcome) else error
                )
        except ServeError as error:
            error.fetches = (*error.fetches, record(error=error.reason))
            raise
        return response, record(resources=1)

    async def _whole(self, search: Search, run: _Run) -> Matches:
        try:
            matches = await self._all_pages(search, run)
        except _CursorExpired:
            # The server keeps the pages of a search for a while only; a new search gets new ones.
            try:
                matches = await self._all_pages(search, run)
            except _CursorExpired:
                raise EmrBadResponse("expected pages that last until they are read, got expired ones twice") from None
        matches.insist_on_all(await self._count(search, run) if matches.is_cut else None)
        return matches

    async def _all_pages(self, search: Search, run: _Run) -> Matches:
        matches = Matches(
            search.resource_type,
            page_size=self._page_size,
            with_included=any(name == "_include" for name, _ in search.parameters),
            whole=run.whole,
        )
        request = self._first_page(search)
        visited = {request.url} if request.form is None else set()
        run.pages = empty = 0
        while True:
            try:
                page = await self._page(request, run, is_first=run.pages == 0)
            except _UnknownId:
                if search.resource_type in _ASKED_FOR_BY_ID and [name for name, _ in search.parameters] == ["_id"]:
                    return matches
                raise EmrBadResponse("expected an answer to a search, got status 404 or 410") from None
            run.pages += 1
            empty += not matches.add(page)
            following = self._next_page(page)
            if following is None:
                return matches
            if following in visited:
                raise EmrTooLarge("expected pages that come to an end, got a loop")
            visited.add(following)
            if run.pages >= MAX_PAGES or matches.entries > MAX_RESOURCES:
                raise EmrTooLarge(f"expected at most {MAX_PAGES} pages and {MAX_RESOURCES} resources")
            if run.size > MAX_BYTES:
                raise EmrTooLarge(f"expected at most {MAX_BYTES} bytes over all pages")
            if empty > MAX_EMPTY_PAGES:
                raise EmrTooLarge(f"expected at most {MAX_EMPTY_PAGES} pages without a match")
            request = self._reading(following)

    def _first_page(self, search: Search, *more: tuple[str, str]) -> Request:
        named = self.version.parameters_of(search.resource_type, search.parameters)
        if self._typed_patients:
            named = tuple((name, f"Patient/{value}" if name == "patient" else value) for name, value in named)
        parameters = (*named, *(more or (("_count", str(self._page_size)),)))
        url = f"{self.base}/{self.version.type_of(search.resource_type)}"
        if self._search_by_get:
            return self._reading(f"{url}?{urlencode(parameters)}")
        return dataclasses.replace(self._reading(f"{url}/_search"), method="POST", form=parameters)

    def _reading(self, url: str) -> Request:
        return Request(method="GET", url=url, headers={"Accept": "application/fhir+json"}, repeatable=True)

    async def _count(self, search: Search, run: _Run) -> int | None:
        """Ask how many matches there are; None if the server does not say that either.

        Source: FHIR R4 search.html#summary, http://hl7.org/fhir/R4/search.html#summary [seen].
        """
        try:
            return (await self._page(self._first_page(search, ("_summary", "count")), run, is_first=True)).total
        except (EmrBadResponse, _UnknownId):
            return None

    def _next_page(self, page: wire.Page) -> str | None:
        links = next_links(page)
        if not links:
            return None
        try:
            url = urljoin(f"{self.base}/", links[0])
            ours = may_receive(url, self._origins) and url.startswith((f"{self.base}/", f"{self.base}?"))
            # The client resolves these before it sends: under our base to look at, elsewhere when it arrives.
            ours = ours and not {".", ".."} & set(unquote(urlsplit(url).path).split("/"))
        except ValueError:
            ours = False
        if len(links) > 1 or not ours:
            raise EmrBadResponse("expected one next page, on the EMR's own origin and under its FHIR base")
        return url

    async def _page(self, request: Request, run: _Run, *, is_first: bool) -> wire.Page:
        """Ask for one page; for one that cannot be read, once more: it may have been cut off on its way."""
        try:
            return self._read(await self._send(request, run), run, is_first=is_first)
        except ValueError:
            try:
                return self._read(await self._send(request, run), run, is_first=is_first)
            except ValueError as error:
                raise EmrBadResponse(str(error)) from None

    async def _send(self, request: Request, run: _Run) -> Response:
        try:
            response = await send_authorized(
                dataclasses.replace(request, budget=run.budget), transport=self._transport, credentials=run.credentials
            )
        except ServeError as error:
            run.requests += error.requests
            raise
        run.requests += response.requests
        run.size += len(response.body)
        return response

    def _read(self, response: Response, run: _Run, *, is_first: bool) -> wire.Page:
        """Give the page that came.

        Raises:
            ValueError: nothing that can be read came, under a status that says success.
        """
        if error := error_of_status(response):
            outcome = _outcome(response)
            if not is_first and (response.status in {404, 410} or (outcome and is_expired_session(outcome))):
                raise _CursorExpired
            if outcome and is_restricted(outcome):
                raise Restricted("expected to be let into this record, which the EMR keeps closed")
            if outcome and is_unknown_id(outcome) and response.status in {404, 410}:
                raise _UnknownId
            raise error
        if run.whole:
            page = decode_whole(response.body, content_type=response.content_type)
        else:
            page = decode_page(response.body, content_type=response.content_type, version=self.version)
        if isinstance(page, wire.OperationOutcome):
            if not is_first and is_expired_session(page):
                raise _CursorExpired
            raise refusal(page) or EmrBadResponse("expected a searchset Bundle, got an OperationOutcome")
        run.age_s = max(run.age_s, _age_s(response, page, self._clock.now()))
        return page


def _outcome(response: Response) -> wire.OperationOutcome | None:
    """Give what a refusal says about itself, if anything."""
    try:
        answer = decode_answer(response.body, content_type=response.content_type)
    except ValueError:
        return None
    return answer if isinstance(answer, wire.OperationOutcome) else None


def _age_s(response: Response, page: wire.Page, now: datetime) -> float:
    """Give how old an answer says it is: a cache by its ``Age``, a server by when it last updated the Bundle.

    Source: RFC 9111 section 5.1; FHIR R4 Bundle.meta, http://hl7.org/fhir/R4/bundle.html [seen].
    """
    held = response.headers.get("age", "")
    ages = [float(held)] if held.isascii() and held.isdigit() and len(held) < 12 else [0.0]
    try:
        if page.meta is not None and page.meta.last_updated is not None:
            ages.append((now.astimezone(UTC) - parse_instant(page.meta.last_updated)).total_seconds())
    except ValueError:
        pass
    return max(ages)
