"""What a cohort needs of an extract: orders and results; from its tables visits, deaths, birth dates and diagnoses.

The tables are those of docs/fact-tables.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from deployr_core.codes import Code
from deployr_core.facts import BirthDate, Diagnosis, DiagnosisList, Lab
from deployr_core.visit_labels import Death, Stay

_BATCH = 4096


class NotInExtract(ValueError):
    """The extract does not have what the task is about; the message says what was looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VisitRecord(Stay):
    """A stay with whose it is."""

    person_id: int = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeathRecord(Death):
    """A death with whose it is."""

    person_id: int = field(repr=False)


class Order(Protocol):
    """What a cohort needs of an order; `deployr_dev.sources` gives them."""

    @property
    def person_id(self) -> int:
        """Whom it is for."""

    @property
    def order_id(self) -> str:
        """Its own id."""

    @property
    def visit_occurrence_id(self) -> int | str | None:
        """The visit that it was written in."""

    @property
    def ordered_at(self) -> datetime:
        """When it was signed."""


class OrderSource(Protocol):
    """What cohorts of orders need of an extract; `deployr_dev.sources` has it."""

    def lab_orders(self, panels: Sequence[str]) -> Iterable[Order]:
        """Give the orders for these panels, by person id."""

    def results_of(self, components: Sequence[str]) -> Iterable[tuple[int, Lab]]:
        """Give the results of these tests with their person ids, by person id."""


@runtime_checkable
class VisitSource(Protocol):
    """What cohorts of visits need of an extract."""

    def visits(self) -> Iterable[VisitRecord]:
        """Give every visit, by person id."""

    def deaths(self) -> Iterable[DeathRecord]:
        """Give every death that is known, by person id."""

    def birth_dates(self) -> Iterable[tuple[int, BirthDate]]:
        """Give the birth dates that are known, with their person ids."""


@runtime_checkable
class DiagnosisSource(Protocol):
    """What labels by diagnoses need of an extract."""

    def diagnoses(self) -> Iterable[tuple[int, Diagnosis]]:
        """Give every diagnosis with its person id, by person id."""


def visit_source_of(extract: object) -> VisitSource:
    """Give the extract's visits: its own, or read from the fact tables behind its ``connection``.

    Raises:
        NotInExtract: it has neither.
    """
    if isinstance(extract, VisitSource):
        return extract
    connection = getattr(extract, "connection", None)
    if connection is None:
        raise NotInExtract("expected a source with the fact tables visits, deaths and persons; this one has none")
    return FactTables(connection)


def diagnosis_source_of(extract: object) -> DiagnosisSource:
    """Give the extract's diagnoses, as `visit_source_of` gives its visits.

    Raises:
        NotInExtract: it has none, and no fact tables.
    """
    if isinstance(extract, DiagnosisSource):
        return extract
    connection = getattr(extract, "connection", None)
    if connection is None:
        raise NotInExtract("expected a source with the fact table diagnoses; this one has none")
    return FactTables(connection)


class FactTables:
    """Visits, deaths, birth dates and diagnoses, read from the fact tables on an open connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def visits(self) -> Iterator[VisitRecord]:
        """See `VisitSource.visits`; a visit with several codes is one visit of several classes."""
        rows = self._rows(
            "SELECT person_id, fact_id, code, happened_at, ended_at, discharged_to, known_at FROM visits"
            " ORDER BY person_id, fact_id, code"
        )
        for (person_id, visit_id), of_visit in groupby(rows, key=lambda row: (row[0], row[1])):
            lines = list(of_visit)
            _, _, _, began, ended, discharged_to, known = lines[0]
            yield VisitRecord(
                person_id=person_id,
                visit_id=str(visit_id),
                classes=frozenset(line[2] for line in lines if line[2] is not None),
                began_at=_utc(began),
                ended_at=None if ended is None else _utc(ended),
                discharged_to=discharged_to,
                known_at=_utc(known),
            )

    def deaths(self) -> Iterator[DeathRecord]:
        """See `VisitSource.deaths`."""
        for person_id, happened, known in self._rows(
            "SELECT person_id, happened_at, known_at FROM deaths ORDER BY person_id"
        ):
            yield DeathRecord(person_id=person_id, earliest=_utc(happened), latest=max(_utc(happened), _utc(known)))

    def birth_dates(self) -> Iterator[tuple[int, BirthDate]]:
        """See `VisitSource.birth_dates`."""
        for person_id, year, month, day in self._rows(
            "SELECT person_id, birth_year, birth_month, birth_day FROM persons WHERE birth_year IS NOT NULL"
            " ORDER BY person_id"
        ):
            yield person_id, BirthDate(year=year, month=month, day=None if month is None else day)

    def diagnoses(self) -> Iterator[tuple[int, Diagnosis]]:
        """See `DiagnosisSource.diagnoses`."""
        rows = self._rows(
            "SELECT person_id, fact_id, system, code, recorded_in, happened_at, known_at FROM diagnoses"
            " ORDER BY person_id, fact_id, system, code"
        )
        for (person_id, fact_id), of_fact in groupby(rows, key=lambda row: (row[0], row[1])):
            lines = list(of_fact)
            *_, recorded_in, happened, known = lines[0]
            yield (
                person_id,
                Diagnosis(
                    fact_id=str(fact_id),
                    codes=tuple(Code(line[2], line[3]) for line in lines if line[3] is not None),
                    at=_utc(happened),
                    known_at=_utc(known),
                    recorded_in=DiagnosisList(recorded_in),
                ),
            )

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(query)
            while rows := cursor.fetchmany(_BATCH):
                yield from rows
        finally:
            cursor.close()


def _utc(naive: datetime) -> datetime:
    return naive.replace(tzinfo=UTC)
