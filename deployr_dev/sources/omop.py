"""An OMOP 5.4 extract, read patient by patient into the facts of the core.

A folder with the tables ``person``, ``visit_occurrence``, ``condition_occurrence``, ``drug_exposure``,
``measurement`` and ``concept``, each as CSV, gzipped CSV or Parquet, and one that OMOP does not have:
``ext_lab_order`` says when a test was ordered, and when its result was released. Without it nobody could tell
what a clinician's screen showed at the time.

Source: OMOP CDM 5.4, https://ohdsi.github.io/CommonDataModel/cdm54.html.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from deployr_core.codes import LOINC, SYSTEM_OF_OMOP_VOCABULARY
from deployr_core.facts import Lab, PatientFacts
from deployr_core.instants import known_instant
from deployr_dev.sources.mapping import SourceMapping, mapping_for
from deployr_dev.sources.omop_facts import (
    ConditionRow,
    DrugRow,
    MeasurementRow,
    PersonRow,
    TimeColumns,
    WallClock,
    demographics_of,
    diagnosis_of,
    lab_of,
    medication_of,
)
from deployr_dev.sources.omop_queries import (
    CONDITIONS,
    DRUGS,
    LAB_ORDERS,
    MEASUREMENTS,
    PERSONS,
    RESULTS_OF_COMPONENTS,
    condition_row,
    drug_row,
    measurement_row,
)
from deployr_dev.sources.omop_tables import OPTIONAL_TABLES, REQUIRED_TABLES, UNIQUE_KEYS
from deployr_dev.sources.tables import (
    Columns,
    ExtractInvalid,
    Kind,
    TableFile,
    check_unique,
    find_tables,
    holds_dates_only,
    load_table,
)

if TYPE_CHECKING:
    import duckdb

_FETCH = 4096
_COLUMNS: dict[str, Columns] = {**REQUIRED_TABLES, **OPTIONAL_TABLES}
_LOINC_VOCABULARY = next(name for name, system in SYSTEM_OF_OMOP_VOCABULARY.items() if system == LOINC)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabOrder:
    """One order for laboratory tests; the instants are when it was signed, drawn and resulted, None if never."""

    person_id: int
    order_id: str
    visit_occurrence_id: int | None
    panel_loinc: str
    ordered_at: datetime
    collected_at: datetime | None
    resulted_at: datetime | None


class OmopExtract:
    """An open extract; a context manager, because it holds a database in a temporary folder.

    ``undated_rows``: per table, how many rows have neither time nor day. Nobody can place them, so they are no facts.
    """

    def __init__(
        self,
        *,
        folder: Path,
        mapping: SourceMapping,
        files: Mapping[str, TableFile],
        connection: duckdb.DuckDBPyConnection,
        scratch: tempfile.TemporaryDirectory[str],
    ) -> None:
        """Use `open`."""
        self.folder = folder
        self.mapping = mapping
        self._files = files
        self._connection = connection
        self._scratch = scratch
        self._clocks = {
            (table, column): WallClock(
                zone=mapping.zone,
                is_aware=file.is_aware(column),
                dates_only=holds_dates_only(connection, file, column),
            )
            for table, file in files.items()
            for column, kind in _COLUMNS[table].items()
            if kind is Kind.DATETIME
        }
        self.undated_rows: Mapping[str, int] = MappingProxyType(
            {
                table: self._count(f"SELECT count(*) FROM {table} WHERE {_undated(columns)}")  # noqa: S608 — our names
                for table, columns in REQUIRED_TABLES.items()
                if _undated(columns)
            }
        )

    @classmethod
    def open(cls, folder: Path, mapping: SourceMapping | None = None) -> OmopExtract:
        """Find, check and type every table of the extract, before any work is done.

        Args:
            folder: where the tables are.
            mapping: the warehouse's conventions; None takes ``source.json`` beside the tables, else the shipped
                mapping that claims the name in ``cdm_source``, else ``omop54``.

        Raises:
            ExtractInvalid: a table or column missing, a file cut off, a value of another kind, an id there twice.
            MappingInvalid: ``source.json`` is not a mapping.
        """
        import duckdb

        scratch = tempfile.TemporaryDirectory(prefix="deployr-extract-", ignore_cleanup_errors=True)
        connection = duckdb.connect(str(Path(scratch.name) / "extract.duckdb"))
        try:
            files = find_tables(connection, folder, required=REQUIRED_TABLES, optional=OPTIONAL_TABLES)
            for table, file in files.items():
                load_table(connection, file, _COLUMNS[table])
            for table, key in UNIQUE_KEYS.items():
                check_unique(connection, files[table], *key)
            _check_birth_dates(connection, files["person"])
            names = _cdm_source_names(connection) if "cdm_source" in files else ()
            return cls(
                folder=folder,
                mapping=mapping or mapping_for(folder, cdm_source_names=names),
                files=files,
                connection=connection,
                scratch=scratch,
            )
        except BaseException:
            connection.close()
            scratch.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and remove its temporary folder; closing twice is harmless."""
        self._connection.close()
        self._scratch.cleanup()

    def person_ids(self) -> tuple[int, ...]:
        """Give every person of the extract, ascending."""
        return tuple(row[0] for row in self._rows("SELECT person_id FROM person ORDER BY person_id"))

    def patient_source_values(self) -> dict[int, str]:
        """Give each person's identifier outside the warehouse, by person id; persons without one are left out."""
        query = "SELECT person_id, person_source_value FROM person WHERE person_source_value IS NOT NULL"
        return dict(self._rows(f"{query} ORDER BY person_id"))

    def patients(self, person_ids: Collection[int] | None = None) -> Iterator[PatientFacts]:
        """Give the facts person by person, ascending by id; one person at a time is held in memory.

        ``patient_id`` is the person id as text, a ``fact_id`` the row's primary key as text. How the columns
        become facts is said in `deployr_dev.sources.omop_facts`.

        Args:
            person_ids: whom to read; None reads everybody. Ids that the extract does not have are passed over.
        """
        labs = _ByPerson(self._labs(person_ids))
        conditions = _ByPerson(map(condition_row, self._of(person_ids, CONDITIONS)))
        drugs = _ByPerson(map(drug_row, self._of(person_ids, DRUGS)))
        take_lab = self._lab_reader()
        recorded = self._clocks["condition_occurrence", "condition_start_datetime"]
        ordered = self._clocks["drug_exposure", "drug_exposure_start_datetime"]
        systems = self.mapping.local_systems
        for columns in self._of(person_ids, PERSONS):
            who = PersonRow(*columns)
            diagnoses = (
                diagnosis_of(row, recorded=recorded, local_system=systems.get("condition_occurrence"))
                for row in conditions.take(who.person_id)
            )
            medications = (
                medication_of(row, ordered=ordered, local_system=systems.get("drug_exposure"))
                for row in drugs.take(who.person_id)
            )
            results = (take_lab(row) for row in labs.take(who.person_id))
            yield PatientFacts(
                patient_id=str(who.person_id),
                demographics=demographics_of(who),
                labs=tuple(lab for lab in results if lab is not None),
                diagnoses=tuple(fact for fact in diagnoses if fact is not None),
                medications=tuple(fact for fact in medications if fact is not None),
            )

    def lab_orders(self, panels: Collection[str]) -> Iterator[LabOrder]:
        """Give the orders for these panels (LOINC codes), by person id, then by when they were signed.

        An order without the time of its signing is left out; `undated_rows` counts them.
        """
        clocks = [
            self._clocks["ext_lab_order", name] for name in ("order_datetime", "collect_datetime", "result_datetime")
        ]
        for person_id, order_id, visit_id, panel, *times in self._rows(LAB_ORDERS, [sorted(panels)]):
            ordered, collected, resulted = (
                clock.span(TimeColumns(micros, None)) for clock, micros in zip(clocks, times, strict=True)
            )
            if ordered is not None:
                yield LabOrder(
                    person_id=person_id,
                    order_id=str(order_id),
                    visit_occurrence_id=visit_id,
                    panel_loinc=panel,
                    ordered_at=ordered[0],
                    collected_at=None if collected is None else collected[0],
                    resulted_at=None if resulted is None else known_instant(resulted),
                )

    def results_of(self, components: Collection[str]) -> Iterator[tuple[int, Lab]]:
        """Give the results of these tests (LOINC codes) with their person ids, by person id."""
        take_lab = self._lab_reader()
        for row in self._labs(None, components):
            lab = take_lab(row)
            if lab is not None:
                yield row.person_id, lab

    def _labs(
        self, person_ids: Collection[int] | None, components: Collection[str] | None = None
    ) -> Iterator[MeasurementRow]:
        if components is None:
            return map(measurement_row, self._of(person_ids, MEASUREMENTS))
        query = MEASUREMENTS + RESULTS_OF_COMPONENTS
        return map(measurement_row, self._of(person_ids, query, [_LOINC_VOCABULARY, sorted(components)]))

    def _lab_reader(self) -> Callable[[MeasurementRow], Lab | None]:
        taken = self._clocks["measurement", "measurement_datetime"]
        released = self._clocks["ext_lab_order", "result_datetime"]
        delay = timedelta(minutes=self.mapping.result_delay_minutes)
        system = self.mapping.local_systems.get("measurement")
        return lambda row: lab_of(row, taken=taken, released=released, delay=delay, local_system=system)

    def _of(
        self,
        person_ids: Collection[int] | None,
        query: str,
        parameters: Sequence[object] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """Run a query whose first two columns are person id and key, for these persons, in that order."""
        if person_ids is not None:
            query = f"SELECT * FROM ({query}) WHERE person_id IN (SELECT unnest(?))"  # noqa: S608 — our SQL
            parameters = [*parameters, sorted(set(person_ids))]
        return self._rows(f"{query} ORDER BY 1, 2", parameters)

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        import duckdb

        cursor = self._connection.cursor()
        try:
            cursor.execute(query, list(parameters))
            while rows := cursor.fetchmany(_FETCH):
                yield from rows
        except duckdb.Error:
            raise ExtractInvalid(f"{self.folder}: the extract could not be read to its end") from None
        finally:
            cursor.close()

    def _count(self, query: str) -> int:
        return int(next(self._rows(query))[0])


_Row = TypeVar("_Row", bound=MeasurementRow | ConditionRow | DrugRow)


class _ByPerson(Generic[_Row]):
    """Rows that are ordered by person, handed out person by person in the same order."""

    def __init__(self, rows: Iterator[_Row]) -> None:
        self._rows = rows
        self._next: _Row | None = next(rows, None)

    def take(self, person_id: int) -> Iterator[_Row]:
        """Give this person's rows; those of persons before, whom nobody asked for, are passed over."""
        while self._next is not None and self._next.person_id <= person_id:
            row, self._next = self._next, next(self._rows, None)
            if row.person_id == person_id:
                yield row


def _undated(columns: Columns) -> str:
    """Give the condition under which a row of such a table cannot be placed in time; empty if none is needed."""
    when = [name for name, kind in columns.items() if kind in (Kind.DATE, Kind.DATETIME)]
    if "order_datetime" in when:
        when = ["order_datetime"]
    return " AND ".join(f"{name} IS NULL" for name in when)


def _check_birth_dates(connection: duckdb.DuckDBPyConnection, file: TableFile) -> None:
    born = "format('{:04d}-{:02d}-{:02d}', year_of_birth, coalesce(month_of_birth, 1), "
    born += "CASE WHEN month_of_birth IS NULL THEN 1 ELSE coalesce(day_of_birth, 1) END)"
    wrong = connection.execute(
        f"SELECT count(*) FROM person WHERE year_of_birth IS NOT NULL"  # noqa: S608 — our names
        f" AND (year_of_birth NOT BETWEEN 1 AND 9999 OR TRY_CAST({born} AS DATE) IS NULL)"
    ).fetchall()[0][0]
    if wrong:
        raise ExtractInvalid(f"{file.path}: expected dates of birth that exist, got {wrong} that do not")


def _cdm_source_names(connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    rows = connection.execute("SELECT cdm_source_name, cdm_source_abbreviation FROM cdm_source").fetchall()
    return tuple(name for row in rows for name in row if name)
