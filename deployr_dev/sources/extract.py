"""An extract of any warehouse, open: its fact tables on DuckDB, and the facts of the core read from them.

A folder with the tables that its mapping names, each as CSV, gzipped CSV, Parquet or Excel, or with the NDJSON files of
a Bulk FHIR export; or the tables of a database, copied. Everything after reads the fact tables alone
(docs/fact-tables.md).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployr_dev.sources.build import build_fact_tables
from deployr_dev.sources.detect import detect_mapping
from deployr_dev.sources.drivers import Database, parse_database
from deployr_dev.sources.fact_source import FactSource
from deployr_dev.sources.mapping import SourceMapping, load_mapping, shipped_mapping, shipped_names
from deployr_dev.sources.reading import Row
from deployr_dev.sources.staging import Staged, stage_tables
from deployr_dev.sources.tables import ExtractInvalid, find_tables, quoted_name

if TYPE_CHECKING:
    import duckdb

    from deployr_dev.backends import Backend
    from deployr_dev.matrix import Progress
    from deployr_dev.sources.database import Steps

_FETCH = 4096


class Extract(FactSource):
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

    @property
    def backend(self) -> Backend:
        """Run the feature query beside the fact tables."""
        from deployr_dev.backends import DuckDb

        return DuckDb(self.connection)

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

    def _count(self, query: str) -> int:
        return int(next(self.rows(query))[0])


def open_source(source: str, mapping: Path | None = None, *, steps: Steps | None = None) -> Extract:
    """Open what a command line calls a source: ``PATH``, ``NAME:PATH`` or ``NAME:URL``; a database is copied.

    ``NAME`` is a shipped mapping's, or a mapping file. To leave a warehouse where it is:
    `deployr_dev.sources.in_place.open_warehouse`.

    Args:
        source: such as ``extract/omop``, ``omop53:extract/omop`` or ``omop54:postgresql://host/db?schema=cdm``.
        mapping: a mapping file, in place of a name.
        steps: opens a step of the work, for progress bars; a database is copied table by table.

    Raises:
        ExtractInvalid, MappingInvalid: see `Extract.open`; a name that is no shipped mapping's, or a name and a file.
    """
    place, chosen = parse_source(source, mapping)
    if isinstance(place, Path):
        return Extract.open(place, chosen)
    if chosen is None:
        raise ExtractInvalid("expected a mapping for a database: its name before the URL, omop54:postgresql://…")
    database = parse_database(place)
    if database.in_place:
        raise ExtractInvalid("in_place=yes: expected of `deployr train` and `run` alone; this copies the tables")
    return Extract.copy_database(database, chosen, steps=steps)


def parse_source(source: str, mapping: Path | None) -> tuple[Path | str, SourceMapping | None]:
    """Give the folder or the URL that a source names, and its mapping; None where it is to be found.

    Raises:
        ExtractInvalid, MappingInvalid: no such mapping, or one by name and by file.
    """
    name, rest = _name_and_rest(source)
    if not rest:
        raise ExtractInvalid(f"expected a folder after {name}:, such as {name}:path/to/extract")
    if name and mapping is not None:
        raise ExtractInvalid(f"expected either the mapping {name} or the file {mapping}, got both")
    chosen: SourceMapping | None
    if name:
        chosen = load_mapping(Path(name)) if Path(name).suffix in _MAPPING_FILES else shipped_mapping(name)
    else:
        chosen = None if mapping is None else load_mapping(mapping)
    return (Path(rest) if _URL.match(rest) is None else rest), chosen


def shown_source(source: str) -> str:
    """Give a source as reports may repeat it: of a database's URL neither user nor parameters."""
    name, rest = _name_and_rest(source)
    if not _URL.match(rest):
        return source
    head = f"{name}:{rest.partition('://')[0]}://" if name else f"{rest.partition('://')[0]}://"
    if rest.startswith(SPARK_URL):
        return head + (urlsplit(rest).hostname or "")
    try:
        return head + parse_database(rest).shown
    except ExtractInvalid:
        return f"{head}…"


SPARK_URL = "spark://"
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
