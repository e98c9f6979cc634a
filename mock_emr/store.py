"""The chart: every resource, serialised once, found by id, patient, identifier or contact serial number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from mock_emr.dates import Interval
from mock_emr.elements import each, references
from mock_emr.parameters import Term, intervals_in, parameters_of, terms_in
from mock_emr.visibility import Links, links_among, showing_of, shown_from

Resource = Mapping[str, Any]

# Epic numbers contacts (encounters) under this root, and prints the number as CSN. wire-formats.md sections 3 and 5.
CSN_SYSTEM = "urn:oid:1.2.840.114350.1.13.0.1.7.3.698084.8"


class StoreError(ValueError):
    """The resources cannot make one chart: two share an id, or a date cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A resource as read: its elements, the very bytes that it was read from, and where from, for messages."""

    resource: Resource = field(repr=False)
    raw: bytes = field(repr=False)
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What a resource looks like for some stretch of the EMR's time: its JSON and what searches can find it by.

    ``address`` is `Type/id`. ``patient_id`` is None where the resource is about no patient.
    """

    address: bytes
    body: bytes = field(repr=False)
    patient_id: str | None = field(repr=False)
    terms: Mapping[str, frozenset[Term]] = field(repr=False)
    intervals: Mapping[str, Interval] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A resource over the EMR's time: from ``shown_from`` as ``early``, from ``settled_from`` as ``settled``.

    ``moves`` are what it shows as in between, each from its instant on, in order of time.
    """

    shown_from: datetime
    settled_from: datetime
    early: Form
    settled: Form
    moves: tuple[tuple[datetime, Form], ...] = ()

    def at(self, now: datetime) -> Form | None:
        """Give what the EMR shows of the resource at ``now``; None where it does not show yet."""
        if now < self.shown_from:
            return None
        if now >= self.settled_from:
            return self.settled
        return next((form for at, form in reversed(self.moves) if now >= at), self.early)

    def changed_at(self, now: datetime) -> datetime:
        """Give since when the EMR shows the resource as it does at ``now``; it must show by then."""
        if now >= self.settled_from:
            return max(self.shown_from, self.settled_from)
        return next((at for at, _ in reversed(self.moves) if now >= at), self.shown_from)


class Store:
    """The chart, indexed. It never changes: what can be seen of it depends on the instant alone."""

    def __init__(self, loaded: Iterable[Loaded]) -> None:
        """Index the resources, giving each Encounter without a contact serial number one.

        Raises:
            StoreError: two resources share type and id, or a date cannot be read.
        """
        self._records: dict[str, dict[str, Record]] = {}
        self._of_patient: dict[tuple[str, str], list[Record]] = {}
        self._identified: dict[tuple[str, Term], list[Record]] = {}
        self._encounter_by_csn: dict[str, Record] = {}
        # A resource takes five times its text, and all are seen once before the first is indexed: the text is kept.
        texts: list[tuple[bytes, str]] = []
        links = links_among(_noted(loaded, texts))
        for raw, source in texts:
            self._add(Loaded(resource=msgspec.json.decode(raw), raw=raw, source=source), links)

    def types(self) -> tuple[str, ...]:
        """Give the resource types that are held, in order of their names."""
        return tuple(sorted(self._records))

    def count(self, resource_type: str) -> int:
        """Count the resources of a type, shown or not."""
        return len(self._records.get(resource_type, ()))

    def read(self, resource_type: str, resource_id: str, *, now: datetime) -> Form | None:
        """Give what shows of one resource at ``now``; None where there is none or it does not show yet."""
        record = self._records.get(resource_type, {}).get(resource_id)
        return None if record is None else record.at(now)

    def with_ids(self, resource_type: str, ids: Iterable[str]) -> tuple[Record, ...]:
        """Give the records with these ids, in the order asked; unknown ids are left out."""
        held = self._records.get(resource_type, {})
        return tuple(held[one] for one in dict.fromkeys(ids) if one in held)

    def of_patients(self, resource_type: str, patient_ids: Iterable[str]) -> tuple[Record, ...]:
        """Give the records about these patients, in the order in which they were loaded within each."""
        return tuple(
            record
            for patient_id in dict.fromkeys(patient_ids)
            for record in self._of_patient.get((resource_type, patient_id), ())
        )

    def identified_by(self, resource_type: str, terms: Iterable[Term]) -> tuple[Record, ...]:
        """Give the records that answer to any of the identifier terms, each once."""
        found = (record for term in terms for record in self._identified.get((resource_type, term), ()))
        return tuple({id(record): record for record in found}.values())

    def all_of(self, resource_type: str) -> Iterable[Record]:
        """Give every record of a type, in the order in which they were loaded."""
        return self._records.get(resource_type, {}).values()

    def encounter_with_csn(self, csn: str, *, now: datetime) -> Form | None:
        """Give the encounter with this contact serial number; None where none shows at ``now``."""
        record = self._encounter_by_csn.get(csn)
        return None if record is None else record.at(now)

    def _add(self, item: Loaded, links: Links) -> None:
        resource_type, resource_id = str(item.resource["resourceType"]), str(item.resource["id"])
        held = self._records.setdefault(resource_type, {})
        if resource_id in held:
            raise StoreError(f"{item.source}: expected an id that no other {resource_type} has")
        record = _record(item, links)
        held[resource_id] = record
        patient_id = record.settled.patient_id
        if patient_id is not None:
            self._of_patient.setdefault((resource_type, patient_id), []).append(record)
        for term in record.settled.terms.get("identifier", ()):
            self._identified.setdefault((resource_type, term), []).append(record)
        if resource_type == "Encounter" and (csn := csn_of(item.resource)) is not None:
            if csn in self._encounter_by_csn:
                raise StoreError(f"{item.source}: expected a CSN that no other Encounter has")
            self._encounter_by_csn[csn] = record


def csn_of(encounter: Resource) -> str | None:
    """Give the Encounter's contact serial number: the identifier under CSN_SYSTEM, or called CSN; None without one."""
    for held in each(encounter.get("identifier")):
        kind = held.get("type")
        called = kind.get("text") if isinstance(kind, dict) else None
        if "value" in held and (held.get("system") == CSN_SYSTEM or called == "CSN"):
            return str(held["value"])
    return None


def made_csn(encounter_id: str) -> str:
    """Make the contact serial number of an encounter that came without: 12 digits, the same for the same id."""
    digest = hashlib.sha256(f"csn:{encounter_id}".encode()).digest()
    return str(10**11 + int.from_bytes(digest[:8], "big") % (9 * 10**11))


def _noted(loaded: Iterable[Loaded], texts: list[tuple[bytes, str]]) -> Iterator[Resource]:
    """Give the resources one by one, checked and numbered, and note the text and the source of each."""
    for item in map(_with_csn, loaded):
        _check_dates(item)
        texts.append((item.raw, item.source))
        yield item.resource


def _with_csn(item: Loaded) -> Loaded:
    encounter = item.resource
    if encounter["resourceType"] != "Encounter" or csn_of(encounter) is not None:
        return item
    csn = {
        "use": "usual",
        "type": {"text": "CSN"},
        "system": CSN_SYSTEM,
        "value": made_csn(str(encounter["id"])),
    }
    numbered = {**encounter, "identifier": [*each(encounter.get("identifier")), csn]}
    return Loaded(resource=numbered, raw=msgspec.json.encode(numbered), source=item.source)


def _check_dates(item: Loaded) -> None:
    try:
        shown_from(item.resource)
    except ValueError as error:
        raise StoreError(f"{item.source}: {error}") from error


def _record(item: Loaded, links: Links) -> Record:
    try:
        showing = showing_of(item.resource, links=links)
        settled = form_of(item.resource, item.raw)
        early = settled if showing.early is None else form_of(showing.early, msgspec.json.encode(showing.early))
        moves = tuple((at, form_of(shown, msgspec.json.encode(shown))) for at, shown in showing.moves)
    except ValueError as error:
        raise StoreError(f"{item.source}: {error}") from error
    return Record(
        shown_from=showing.shown_from,
        settled_from=showing.settled_from,
        early=early,
        settled=settled,
        moves=moves,
    )


def form_of(resource: Resource, body: bytes) -> Form:
    return Form(
        address=f"{resource['resourceType']}/{resource['id']}".encode(),
        body=body,
        patient_id=_patient_id(resource),
        terms=terms_in(resource),
        intervals=intervals_in(resource),
    )


def _patient_id(resource: Resource) -> str | None:
    if resource["resourceType"] == "Patient":
        return str(resource["id"])
    parameter = parameters_of(resource["resourceType"]).get("patient")
    for text in references(resource.get(parameter.element)) if parameter else ():
        kind, _, patient_id = text.partition("/")
        if kind == "Patient" and patient_id:
            return patient_id
    return None
