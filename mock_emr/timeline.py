"""What happens in the chart as the clock passes: orders are signed, results come in, patients move and go home."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from heapq import merge
from itertools import islice, takewhile
from typing import Literal, get_args

from mock_emr.dates import BEGINNING
from mock_emr.store import Record, Store

Kind = Literal["admission", "move", "discharge", "order", "prescription", "result", "measurement", "death"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that the chart shows from ``at`` on. ``reference`` is `Type/id` of the resource that shows it."""

    at: datetime
    kind: Kind
    reference: str
    patient_id: str | None = field(repr=False)


class Timeline:
    """Everything that happens in a chart, in order of time; put together when it is first asked for.

    What shows always, such as a patient, is no event.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def after(
        self,
        instant: datetime,
        *,
        until: datetime,
        kinds: Collection[Kind] = KINDS,
        patient_id: str | None = None,
        limit: int,
    ) -> tuple[Event, ...]:
        """Give at most ``limit`` events after ``instant``, up to and with ``until``, oldest first.

        Args:
            instant: excluded.
            until: included.
            kinds: those that are wanted.
            patient_id: of one patient alone; None of all.
            limit: the most to give.
        """
        wanted = (
            event
            for event in takewhile(lambda event: event.at <= until, self._from(instant, kinds))
            if patient_id in (None, event.patient_id)
        )
        return tuple(islice(wanted, limit))

    def next_after(self, instant: datetime, *, kinds: Collection[Kind] = KINDS) -> Event | None:
        """Give the first event after ``instant``; None where nothing more happens."""
        return next(self._from(instant, kinds), None)

    def _from(self, instant: datetime, kinds: Collection[Kind]) -> Iterator[Event]:
        lists = [self._events[kind] for kind in KINDS if kind in kinds]
        starts = [bisect_right(events, instant, key=lambda event: event.at) for events in lists]
        tails = (islice(events, start, None) for events, start in zip(lists, starts, strict=True))
        return merge(*tails, key=lambda event: event.at)

    @cached_property
    def _events(self) -> dict[Kind, list[Event]]:
        found: dict[Kind, list[Event]] = {kind: [] for kind in KINDS}
        for resource_type in _TYPES:
            for record in self._store.all_of(resource_type):
                for kind, at in _happenings(resource_type, record):
                    if at != BEGINNING:
                        form = record.settled
                        found[kind].append(
                            Event(at=at, kind=kind, reference=form.address.decode(), patient_id=form.patient_id)
                        )
        for events in found.values():
            events.sort(key=lambda event: event.at)
        return found


_TYPES = ("Patient", "Encounter", "ServiceRequest", "MedicationRequest", "Observation")


def _happenings(resource_type: str, record: Record) -> Iterator[tuple[Kind, datetime]]:
    match resource_type:
        case "Patient":
            yield "death", record.settled_from
        case "Encounter":
            yield "admission", record.shown_from
            for at, _ in record.moves:
                yield "move", at
            is_over = (None, "in-progress") not in record.settled.terms.get("status", frozenset())
            yield "discharge" if is_over else "move", record.settled_from
        case "ServiceRequest":
            yield "order", record.shown_from
        case "MedicationRequest":
            yield "prescription", record.shown_from
        case _:
            is_result = (None, "laboratory") in record.settled.terms.get("category", frozenset())
            yield "result" if is_result else "measurement", record.shown_from
