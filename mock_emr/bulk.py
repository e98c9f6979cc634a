"""Bulk exports that were asked for: what each holds is what the chart showed at the EMR's instant of the asking."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from mock_emr.paging import opaque
from mock_emr.store import Form, Record, Store

MOST_IN_A_FILE = 10_000
"""How many resources of the chart one file is made of, whether they show or not."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """One export: ``now`` is the EMR's instant that it shows, ``url`` what was asked, ``types`` what it holds.

    ``of_patients``: it leaves out what is about no patient; ``group``: what is about others than these; ``since``: what
    has shown as it does since that instant or longer.
    """

    client_id: str | None
    now: datetime
    url: str
    types: tuple[str, ...]
    of_patients: bool
    group: frozenset[str] | None = field(default=None, repr=False)
    since: datetime | None = None

    def holds(self, record: Record) -> Form | None:
        """Give what the export shows of a resource; None where it leaves it out."""
        form = record.at(self.now)
        if form is None or (self.of_patients and form.patient_id is None):
            return None
        if self.group is not None and form.patient_id not in self.group:
            return None
        return form if self.since is None or record.changed_at(self.now) > self.since else None


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file of an export, and how many resources it holds."""

    resource_type: str
    number: int
    count: int


class Exports:
    """The latest exports, under ids that say nothing about them. The first look at each finds it in progress."""

    def __init__(self, store: Store, *, token_bytes: Callable[[int], bytes], limit: int = 100) -> None:
        """Keep at most ``limit`` exports of this chart; the oldest go first."""
        self._store = store
        self._token_bytes = token_bytes
        self._limit = limit
        self._kept: OrderedDict[str, Export] = OrderedDict()
        self._looked_at: set[str] = set()

    def start(self, export: Export) -> str:
        """Keep an export and give its id."""
        export_id = opaque(self._token_bytes)
        self._kept[export_id] = export
        if len(self._kept) > self._limit:
            self._looked_at.discard(self._kept.popitem(last=False)[0])
        return export_id

    def recall(self, export_id: str, *, client_id: str | None) -> Export | None:
        """Give an export; None where it has gone, or is another client's."""
        export = self._kept.get(export_id)
        return export if export is not None and export.client_id == client_id else None

    def is_ready(self, export_id: str) -> bool:
        """Tell whether the export is there to be fetched; the first time that this is asked, it is not."""
        was_looked_at = export_id in self._looked_at
        self._looked_at.add(export_id)
        return was_looked_at

    def drop(self, export_id: str) -> None:
        """Forget an export."""
        del self._kept[export_id]
        self._looked_at.discard(export_id)

    def files(self, export: Export) -> tuple[OutputFile, ...]:
        """Give the files that hold something, by type and number."""
        found = []
        for resource_type in export.types:
            for number in range(-(-self._store.count(resource_type) // MOST_IN_A_FILE)):
                count = sum(1 for _ in self._forms(export, resource_type, number))
                if count:
                    found.append(OutputFile(resource_type=resource_type, number=number, count=count))
        return tuple(found)

    def ndjson(self, export: Export, resource_type: str, number: int) -> bytes:
        """Give one file; nothing where the export has none such."""
        if resource_type not in export.types:
            return b""
        return b"".join(form.body + b"\n" for form in self._forms(export, resource_type, number))

    def _forms(self, export: Export, resource_type: str, number: int) -> Iterator[Form]:
        records = islice(self._store.all_of(resource_type), number * MOST_IN_A_FILE, (number + 1) * MOST_IN_A_FILE)
        for record in records:
            if (form := export.holds(record)) is not None:
                yield form
