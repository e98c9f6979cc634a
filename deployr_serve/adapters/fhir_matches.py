"""What the pages of one search add up to: each match once, in its newest version, and all of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from deployr_core.instants import parse_fhir_datetime
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_elements import effective_of
from deployr_serve.adapters.fhir_outcome import refusal
from deployr_serve.core.errors import EmrBadResponse, EmrIncomplete
from deployr_serve.core.request import FHIR_ID

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_IDENTIFIED = (wire.Observation, wire.ServiceRequest)


class Matches:
    """Takes pages in turn.

    ``entries`` counts all that came, ``total`` is what the server says there is (None if it does not say), ``is_cut``
    tells that the last page is as long as a page may be although nothing says that there is no more.
    """

    def __init__(
        self, resource_type: str, *, page_size: int | None = None, with_included: bool = False, whole: bool = False
    ) -> None:
        """Begin with nothing.

        Args:
            resource_type: what was asked for, by its R4 name.
            page_size: how many were asked for at a time; None if by somebody else.
            with_included: keep what the server includes beside the matches; it is passed over otherwise.
            whole: the matches come as `fhir_wire.Whole`.
        """
        self._name = resource_type
        self._type = wire.Whole if whole else getattr(wire, resource_type)
        self._page_size = page_size
        self._with_included = with_included
        self._newest: dict[str, wire.Resource] = {}
        self._included: dict[str, wire.Resource] = {}
        self._counted = 0
        self.entries = 0
        self.total: int | None = None
        self.is_cut = False

    def add(self, page: wire.Page) -> int:
        """Take one page; give how many matches it held.

        Raises:
            Restricted: the server says that it withholds some of the record.
            EmrIncomplete: it says that these are not all.
            EmrBadResponse: an error among the entries, a resource of another type, or one without a FHIR id.
        """
        matches: list[str] = []
        before, newest, wanted, is_id = len(self._newest), self._newest, self._type, FHIR_ID.match
        for entry in page.entry:
            resource = entry.resource
            included = entry.search is not None and entry.search.mode == "include"
            if type(resource) is not wanted or (wanted is wire.Whole and resource.kind != self._name):
                if isinstance(resource, wire.OperationOutcome):
                    if error := refusal(resource):
                        raise error
                    continue
                if not included:
                    raise EmrBadResponse(f"expected only {self._name} in the answer")
            resource_id = resource.id
            if resource_id is None or not is_id(resource_id):
                raise EmrBadResponse("expected a FHIR id on every resource")
            if included:
                if self._with_included:
                    self._included[resource_id] = _newer(self._included.get(resource_id), resource)
                continue
            matches.append(resource_id)
            newest[resource_id] = _newer(newest[resource_id], resource) if resource_id in newest else resource
        new = len(newest) - before
        # A match that is twice in one page was counted twice by the server; one that slid to a later page, once.
        self._counted += new + (0 if new == len(matches) else len(matches) - len(set(matches)))
        self.entries += len(page.entry)
        if page.total is not None:
            self.total = max(page.total, self.total or 0)
        self.is_cut = self.total is None and len(matches) in {self._page_size, _own_page_size(page)} - {0}
        return len(matches)

    def insist_on_all(self, total: int | None = None) -> None:
        """Return if nothing is missing.

        Args:
            total: what the server counted when it was asked for that alone.

        Raises:
            EmrIncomplete: the server counted more, or nothing shows that the last page is not cut off.
        """
        known = total if self.total is None else self.total
        if known is None and self.is_cut:
            raise EmrIncomplete("expected a total or a next page with a page that is full to its last place")
        if known is not None and known > self._counted:
            raise EmrIncomplete("expected all matches that the server counted, got fewer")

    def resources(self, dropped: Counter[str]) -> tuple[wire.Resource, ...]:
        """Give the matches in the order in which they came; what is one result under two ids is counted, and once."""
        return _without_twins(tuple(self._newest.values()), dropped)

    def included(self) -> tuple[wire.Resource, ...]:
        """Give what the server included, each once."""
        return tuple(self._included.values())


def next_links(page: wire.Page) -> list[str]:
    """Give the URLs that the page calls the next one."""
    return [link.url for link in page.link if link.relation == "next"]


def _own_page_size(page: wire.Page) -> int | None:
    """Give the page size that the server says it used, where it did not take ours. Source: R4 search.html#count."""
    for link in page.link:
        if link.relation == "self":
            try:
                sizes = parse_qs(urlsplit(link.url).query).get("_count", ())
            except ValueError:
                return None
            return int(sizes[0]) if len(sizes) == 1 and sizes[0].isascii() and sizes[0].isdigit() else None
    return None


def _newer(held: wire.Resource | None, came: wire.Resource) -> wire.Resource:
    """Give the newer of two versions of one resource; the one that came later if neither says.

    Versions are compared as numbers where both are, else by when they were last updated, as instants: as texts,
    ``10:00+02:00`` would be newer than ``09:00Z``.
    """
    if held is None or held.meta is None or came.meta is None:
        return came
    ours, theirs = held.meta.version_id, came.meta.version_id
    if ours and theirs and ours.isdecimal() and theirs.isdecimal() and ours != theirs:
        return held if int(ours) > int(theirs) else came
    return held if _updated(held) > _updated(came) else came


def _updated(resource: wire.Resource) -> datetime:
    return _instant(resource.meta.last_updated if resource.meta else None)


def _instant(text: str | None) -> datetime:
    try:
        return parse_fhir_datetime(text, zone=UTC)[0] if text else _LONG_AGO
    except ValueError:
        return _LONG_AGO


def _without_twins(resources: Sequence[wire.Resource], dropped: Counter[str]) -> tuple[wire.Resource, ...]:
    """Leave out what the server holds twice, under two ids: same identifier, same codes, same time.

    The identifier alone is not enough: laboratories put one accession number on every result of a specimen.
    """
    identified = [resource for resource in resources if isinstance(resource, _IDENTIFIED)]
    identifiers = [(it.system, it.value) for resource in identified for it in resource.identifier]
    if len(set(identifiers)) == len(identifiers):
        return tuple(resources)
    newest: dict[object, wire.Resource] = {}
    for resource in resources:
        key = _business_key(resource) or resource.id
        twin = newest.get(key)
        if twin is None:
            newest[key] = resource
            continue
        dropped[f"{type(resource).__name__}.same_identifier"] += 1
        if _as_of(resource) >= _as_of(twin):
            newest[key] = resource
    return tuple(newest.values())


def _business_key(resource: wire.Resource) -> object:
    if not isinstance(resource, _IDENTIFIED):
        return None
    identifiers = frozenset((it.system, it.value) for it in resource.identifier if it.system and it.value)
    codes = frozenset(_codings(resource.code))
    if not identifiers or not codes:
        return None
    if isinstance(resource, wire.Observation):
        return identifiers, codes, effective_of(resource)
    return identifiers, codes, resource.authored_on


def _codings(concept: wire.CodeableConcept | None) -> Iterable[tuple[str | None, str | None]]:
    return ((coding.system, coding.code) for coding in concept.coding) if concept else ()


def _as_of(resource: wire.Resource) -> tuple[datetime, datetime]:
    issued = resource.issued if isinstance(resource, wire.Observation) else None
    return _updated(resource), _instant(issued)
