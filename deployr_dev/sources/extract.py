"""An extract of any warehouse, open: its fact tables on DuckDB, and the facts of the core read from them.

A folder with the tables that its mapping names, each as CSV, gzipped CSV, Parquet or Excel, or with the NDJSON files of
a Bulk FHIR export; or the tables of a database, copied. Everything after reads the fact tables alone
(docs/fact-tables.md).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from deployr_core.codes import LOINC
from deployr_core.facts import Demographics, Lab, PatientFacts
from deployr_dev.sources.build import build_fact_tables
from deployr_dev.sources.detect import detect_mapping
from deployr_dev.sources.drivers import Database, parse_database
from deployr_dev.sources.mapping import SourceMapping, load_mapping, shipped_mapping, shipped_names
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
from deployr_dev.sources.staging import Staged, stage_tables
from deployr_dev.sources.tables import ExtractInvalid, find_tables, quoted_name

if TYPE_CHECKING:
    import duckdb

    from deployr_dev.matrix import Progress
    from deployr_dev.sources.database import Steps

_FETCH = 4096
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


class Extract:
    """An open extract; a context manager, because it holds a database in a temporary folder.

    ``connection`` has the fact tables in its schema ``main``; whoever is handed it reads them, and makes temporary
    tables at most.
    """

    def __init__(
        self,
        *,
        folder: Path,
        mapping: SourceMapping,
        staged: Mapping[str, Staged],
        left_out: Mapping[str, int],
        connection: duckdb.DuckDBPyConnection,
        scratch: tempfile.TemporaryDirectory[str],
    ) -> None:
        """Use `open`."""
        self.folder = folder
        self.mapping = mapping
        self.staged = staged
        self.left_out = left_out
        self.connection = connection
        self._scratch = scratch

    @classmethod
    def open(cls, folder: Path, mapping: SourceMapping | None = None) -> Extract:
        """Find, check and type every table of the extract and build its fact tables, before any work is done.

        Args:
            folder: where the tables are.
            mapping: the warehouse's tables and conventions; None finds it (`deployr_dev.sources.detect.mapping_for`).

        Raises:
            ExtractInvalid: a table or column missing, a file cut off, a value of another kind, an id there twice.
            MappingInvalid: the mapping beside the tables is none, or its queries do not run.
        """

        def prepare(connection: duckdb.DuckDBPyConnection, space: Path) -> _Prepared:
            found = mapping or detect_mapping(connection, folder)
            if found.reads == "fhir_ndjson":
                from deployr_dev.sources.fhir_ndjson import write_tables

                return found, space / "tables", write_tables(folder, space / "tables", zone=found.zone)
            return found, folder, {}

        return cls._build(folder, prepare)

    @classmethod
    def copy_database(cls, database: Database, mapping: SourceMapping, *, steps: Steps | None = None) -> Extract:
        """Copy the mapping's tables out of a database into the temporary folder, and open them as an extract's.

        Args:
            database: where the tables are.
            mapping: says which tables and columns are read.
            steps: opens a step for each table, for progress bars.

        Raises:
            ExtractInvalid: the database cannot be reached or read; and as for `open`.
            MappingInvalid: the mapping's queries do not run.
        """

        def prepare(_: duckdb.DuckDBPyConnection, space: Path) -> _Prepared:
            from deployr_dev.sources.database import write_tables

            write_tables(database, mapping, space / "tables", steps=steps or _silently)
            return mapping, space / "tables", {}

        return cls._build(Path(database.shown), prepare)

    @classmethod
    def _build(cls, folder: Path, prepare: Callable[[duckdb.DuckDBPyConnection, Path], _Prepared]) -> Extract:
        import duckdb

        scratch = tempfile.TemporaryDirectory(prefix="deployr-extract-", ignore_cleanup_errors=True)
        space = Path(scratch.name)
        connection = duckdb.connect(str(space / "extract.duckdb"))
        try:
            mapping, tables, left_out = prepare(connection, space)
            files = find_tables(connection, tables, mapping.tables, scratch=space, expected=mapping.describes)
            if tables != folder:  # messages name what the user knows
                files = {table: replace(file, path=folder / table) for table, file in files.items()}
            staged = stage_tables(connection, mapping, files)
            build_fact_tables(connection, folder, mapping, staged)
            return cls(
                folder=folder,
                mapping=mapping,
                staged=staged,
                left_out=MappingProxyType(dict(left_out)),
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
        self.connection.close()
        self._scratch.cleanup()

    @cached_property
    def undated_rows(self) -> Mapping[str, int]:
        """Per table of the warehouse, how many rows have neither time nor day.

        Nobody can place them, so they are no facts.
        """
        return MappingProxyType(
            {
                table: self._count(f"SELECT count(*) FROM source.{quoted_name(table)} WHERE {staged.undated}")
                for table, staged in self.staged.items()
                if staged.undated is not None
            }
        )

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

    def rows(self, query: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """Run a query over the fact tables on a cursor of its own, a few thousand rows in memory at a time.

        Raises:
            ExtractInvalid: a file could not be read to its end.
        """
        import duckdb

        cursor = self.connection.cursor()
        try:
            cursor.execute(query, list(parameters))
            while rows := cursor.fetchmany(_FETCH):
                yield from rows
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # the query is wrong, not the extract
        except duckdb.Error:
            raise ExtractInvalid(f"{self.folder}: the extract could not be read to its end") from None
        finally:
            cursor.close()

    def _demographics(self, person_ids: Collection[int] | None) -> Iterator[tuple[int, Demographics]]:
        categories = ByPerson((row[0], row) for row in self._of(person_ids, CATEGORIES, "kind, code"))
        for row in self._of(person_ids, PERSONS, "birth_year"):
            yield row[0], demographics_of(row, categories.take(row[0]))

    def _of(self, person_ids: Collection[int] | None, query: str, order: str) -> Iterator[Row]:
        """Run a query that has a person_id for these persons, by person and then in that order."""
        parameters: list[Any] = []
        if person_ids is not None:
            query = f"SELECT * FROM ({query}) WHERE person_id IN (SELECT unnest(?))"
            parameters = [sorted(set(person_ids))]
        return self.rows(f"{query} ORDER BY person_id, {order}", parameters)

    def _count(self, query: str) -> int:
        return int(next(self.rows(query))[0])


def open_source(source: str, mapping: Path | None = None, *, steps: Steps | None = None) -> Extract:
    """Open what a command line calls a source: ``PATH``, ``NAME:PATH`` or ``NAME:URL``.

    ``NAME`` is a shipped mapping's, or a mapping file.

    Args:
        source: such as ``extract/omop``, ``omop53:extract/omop`` or ``omop54:postgresql://host/db?schema=cdm``.
        mapping: a mapping file, in place of a name.
        steps: opens a step of the work, for progress bars; a database is copied table by table.

    Raises:
        ExtractInvalid, MappingInvalid: see `Extract.open`; a name that is no shipped mapping's, or a name and a file.
    """
    name, rest = _name_and_rest(source)
    is_database = _URL.match(rest) is not None
    if not rest:
        raise ExtractInvalid(f"expected a folder after {name}:, such as {name}:path/to/extract")
    if name and mapping is not None:
        raise ExtractInvalid(f"expected either the mapping {name} or the file {mapping}, got both")
    chosen: SourceMapping | None
    if name:
        chosen = load_mapping(Path(name)) if Path(name).suffix in _MAPPING_FILES else shipped_mapping(name)
    else:
        chosen = None if mapping is None else load_mapping(mapping)
    if not is_database:
        return Extract.open(Path(rest), chosen)
    if chosen is None:
        raise ExtractInvalid("expected a mapping for a database: its name before the URL, omop54:postgresql://…")
    return Extract.copy_database(parse_database(rest), chosen, steps=steps)


def shown_source(source: str) -> str:
    """Give a source as reports may repeat it: of a database's URL neither user nor parameters."""
    name, rest = _name_and_rest(source)
    if not _URL.match(rest):
        return source
    head = f"{name}:{rest.partition('://')[0]}://" if name else f"{rest.partition('://')[0]}://"
    try:
        return head + parse_database(rest).shown
    except ExtractInvalid:
        return f"{head}…"


_MAPPING_FILES = (".yaml", ".yml", ".json")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_Prepared = tuple[SourceMapping, Path, Mapping[str, int]]
"""The mapping, the folder that its tables are in by now, and what was left out on the way."""


def _name_and_rest(source: str) -> tuple[str, str]:
    name, colon, rest = source.partition(":")
    if not colon or _URL.match(source) or (name not in shipped_names() and Path(source).exists()):
        return "", source
    return name, rest


@contextmanager
def _silently(_: str) -> Iterator[Progress]:
    yield lambda _done, _total: None
