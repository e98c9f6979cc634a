"""The facts of the core and what cohorts need, read from fact tables wherever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deployr_core.codes import LOINC
from deployr_core.facts import Demographics, Lab, PatientFacts
from deployr_dev.sources.reading import (
    CATEGORIES,
    PERSONS,
    READERS,
    ByPerson,
    Row,
    demographics_of,
    facts_of,
    facts_query,
    utc,
)

if TYPE_CHECKING:
    from deployr_core.features import FeatureSpec
    from deployr_dev.backends import Backend
    from deployr_dev.cohorts.rows import IndexRow
    from deployr_dev.matrix import PatientSource

_LAB_ORDERS = """
    SELECT person_id, fact_id, visit_id, code, happened_at, collected_at, resulted_at
    FROM orders
    WHERE system = $1 AND list_contains($2, code)
    ORDER BY person_id, happened_at, fact_id
"""
_OF_COMPONENTS = """
    WHERE (person_id, fact_id) IN (SELECT person_id, fact_id FROM labs WHERE system = $1 AND list_contains($2, code))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabOrder:
    """One order for laboratory tests; the instants are when it was signed, drawn and resulted, None if never."""

    person_id: int
    order_id: str
    visit_occurrence_id: str | None
    panel_loinc: str
    ordered_at: datetime
    collected_at: datetime | None
    resulted_at: datetime | None


class FactSource(ABC):
    """The fact tables of docs/fact-tables.md, open; a context manager.

    ``connection`` gives DB-API cursors, which take queries over the fact tables in DuckDB's dialect.
    """

    connection: Any

    @property
    @abstractmethod
    def backend(self) -> Backend:
        """Where the feature query runs."""

    @abstractmethod
    def rows(self, query: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """Run a query over the fact tables, a few thousand rows in memory at a time.

        Raises:
            ExtractInvalid: it was not answered to its end.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; closing twice is harmless."""

    def learned_from(self, declaration: FeatureSpec, rows: Sequence[IndexRow]) -> PatientSource:
        """Give where the facts come from that a declaration is fitted to: at least those that a row of these sees."""
        del declaration, rows  # all facts are at hand
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def person_ids(self) -> tuple[int, ...]:
        """Give every person of the extract, ascending."""
        return tuple(row[0] for row in self.rows("SELECT person_id FROM persons ORDER BY person_id"))

    def patient_source_values(self) -> dict[int, str]:
        """Give each person's identifier outside the warehouse, by person id; persons without one are left out."""
        query = "SELECT person_id, source_value FROM persons WHERE source_value IS NOT NULL ORDER BY person_id"
        return dict(self.rows(query))

    def patients(self, person_ids: Collection[int] | None = None) -> Iterator[PatientFacts]:
        """Give the facts person by person, ascending by id; one person at a time is held in memory.

        ``patient_id`` is the person id as text. A fact's codes come in the order of their systems' URIs.

        Args:
            person_ids: whom to read; None reads everybody. Ids that the extract does not have are passed over.

        Raises:
            ExtractInvalid: two facts have one id, or a file changed while it was read.
        """
        facts = {
            table: ByPerson(facts_of(table, self._of(person_ids, facts_query(table), "fact_id, system, code")))
            for table in READERS
        }
        for person_id, demographics in self._demographics(person_ids):
            yield PatientFacts(
                patient_id=str(person_id),
                demographics=demographics,
                **{table: tuple(of_table.take(person_id)) for table, of_table in facts.items()},
            )

    def demographics(self, person_ids: Collection[int]) -> dict[int, Demographics]:
        """Give who these persons are, by their ids; ids that the extract does not have are passed over."""
        return dict(self._demographics(person_ids))

    def lab_orders(self, panels: Collection[str]) -> Iterator[LabOrder]:
        """Give the orders for these panels (LOINC codes), by person id, then by when they were signed.

        An order without the time of its signing is left out; `undated_rows` counts them.
        """
        for person_id, order_id, visit_id, panel, *times in self.rows(_LAB_ORDERS, [LOINC, sorted(panels)]):
            ordered, collected, resulted = times
            yield LabOrder(
                person_id=person_id,
                order_id=order_id,
                visit_occurrence_id=visit_id,
                panel_loinc=panel,
                ordered_at=utc(ordered),
                collected_at=None if collected is None else utc(collected),
                resulted_at=None if resulted is None else utc(resulted),
            )

    def results_of(self, components: Collection[str]) -> Iterator[tuple[int, Lab]]:
        """Give the results of these tests (LOINC codes) with their person ids, by person id."""
        query = facts_query("labs", where=_OF_COMPONENTS) + " ORDER BY person_id, fact_id, system, code"
        yield from facts_of("labs", self.rows(query, [LOINC, sorted(components)]))

    def _demographics(self, person_ids: Collection[int] | None) -> Iterator[tuple[int, Demographics]]:
        categories = ByPerson((row[0], row) for row in self._of(person_ids, CATEGORIES, "kind, code"))
        for row in self._of(person_ids, PERSONS, "birth_year"):
            yield row[0], demographics_of(row, categories.take(row[0]))

    def _of(self, person_ids: Collection[int] | None, query: str, order: str) -> Iterator[Row]:
        """Run a query that has a person_id for these persons, by person and then in that order."""
        parameters: list[Any] = []
        if person_ids is not None:
            query = f"SELECT * FROM ({query}) AS asked WHERE person_id IN (SELECT unnest(?))"
            parameters = [sorted(set(person_ids))]
        return self.rows(f"{query} ORDER BY person_id, {order}", parameters)
