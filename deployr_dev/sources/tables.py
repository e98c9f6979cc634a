"""The files of an extract: which table each one is, and whether it has the columns that are read."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployr_dev.sources.kinds import AWARE
from deployr_dev.sources.mapping import TableSpec

if TYPE_CHECKING:
    import duckdb

ENDINGS = (".csv", ".csv.gz", ".parquet", ".xlsx")
_WHOLE_FOLDER = "*.parquet"


class ExtractInvalid(ValueError):
    """The extract is not what was expected; the message names the folder, the table and the column, never a value.

    ``faults``: each thing that is wrong, on its own.
    """

    def __init__(self, message: str, *, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults) or (message,)


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """Where a table is, and its columns as the file spells them, by the name that the mapping uses.

    ``content`` is what is read for ``path``: a glob over a folder of Parquet files, or the CSV made of a workbook.
    ``types``: DuckDB's type of each column in a Parquet file; empty for any other, where all is text.
    """

    table: str
    path: Path
    content: Path
    spellings: Mapping[str, str]
    types: Mapping[str, str]
    all_names: tuple[str, ...] = ()

    @property
    def is_parquet(self) -> bool:
        """True for Parquet, False for what is read as CSV."""
        return bool(self.types)

    def is_aware(self, column: str) -> bool:
        """True when the column's times are instants, so that no zone needs to be assumed."""
        return self.types.get(column) == AWARE


def find_tables(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    specs: Mapping[str, TableSpec],
    *,
    scratch: Path,
    expected: str,
) -> dict[str, TableFile]:
    """Find each table's file and check that it has the columns; nothing is loaded yet.

    Table and column names are found in any case. A folder of Parquet files with the table's name is one table.
    Everything that is missing is said at once.

    Args:
        connection: reads the headers of Parquet files.
        folder: where the tables are.
        specs: which tables and columns are read.
        scratch: where the CSV of a workbook may be put.
        expected: what the mapping calls such an extract, for messages.

    Raises:
        ExtractInvalid: no folder, a table missing or there twice, a column missing, a file that cannot be read.
    """
    if not folder.is_dir():
        raise ExtractInvalid(f"{folder}: expected a folder with the tables {', '.join(specs)}")
    found: dict[str, TableFile] = {}
    faults: list[str] = []
    for table, spec in specs.items():
        paths = files_of(folder, table)
        if len(paths) > 1:
            faults.append(f"table {table} is there {len(paths)} times: {', '.join(path.name for path in paths)}")
        elif paths:
            file = _read_header(connection, table, paths[0], scratch=scratch)
            found[table] = file = _with_spec_names(file, spec)
            missing = [
                name
                for name, column in spec.parsed().items()
                if name not in file.spellings and not column.may_be_missing
            ]
            if missing:
                faults.append(f"{file.path.name} lacks the column {', '.join(missing)}{_separator_hint(file)}")
        elif not spec.optional:
            faults.append(f"table {table} is missing (expected {', '.join(table + end for end in ENDINGS)})")
    if faults:
        raise ExtractInvalid(f"{folder}: expected {expected}; " + "; ".join(faults), faults=faults)
    return found


def files_of(folder: Path, table: str) -> list[Path]:
    """Give the files or folders that hold a table; more than one is a mistake."""
    names = {table + end for end in ENDINGS}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower() in names
        or (path.name.lower() == table and path.is_dir() and any(path.glob(_WHOLE_FOLDER)))
    ]


def text_column(connection: duckdb.DuckDBPyConnection, path: Path, columns: Iterable[str]) -> list[str]:
    """Give the texts in some columns of a small table, whatever its format; columns that it lacks have none.

    Raises:
        ExtractInvalid: the file cannot be read.
    """
    import duckdb

    file = _read_header(connection, path.name, path, scratch=path.parent)
    wanted = [file.spellings[name] for name in columns if name in file.spellings]
    if not wanted:
        return []
    try:
        rows = connection.execute(
            f"SELECT {', '.join(f'CAST({quoted_name(name)} AS VARCHAR)' for name in wanted)} FROM {scan(file)}"
        ).fetchall()
    except (duckdb.Error, zlib.error):
        raise ExtractInvalid(f"{path}: {_UNREADABLE}") from None
    return [text for row in rows for text in row if text]


def scan(file: TableFile) -> str:
    """Give the SQL that reads a table's file: Parquet with its types, anything else as text."""
    if file.is_parquet:
        return f"read_parquet({quoted(file.content)})"
    columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in file.all_names)
    return (
        f"read_csv({quoted(file.content)}, columns={{{columns}}}, header=true, auto_detect=false, delim=',', "
        "quote='\"', escape='\"')"
    )


def quoted(text: object) -> str:
    """Give a text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """Give a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


_UNREADABLE = "cannot be read: cut off, damaged or not UTF-8"
_NO_PARQUET = "cannot be read: it is no whole Parquet file; was its writing interrupted? Export it again"


def _read_header(connection: duckdb.DuckDBPyConnection, table: str, path: Path, *, scratch: Path) -> TableFile:
    import duckdb

    content, types = path, {}
    try:
        if path.is_dir() or path.suffix.lower() == ".parquet":
            content = path / _WHOLE_FOLDER if path.is_dir() else path
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(content)]).fetchall()
            names = [str(row[0]) for row in described]
            types = {str(row[0]).lower(): str(row[1]) for row in described}
        else:
            if path.suffix.lower() == ".xlsx":
                from deployr_dev.sources.spreadsheets import WorkbookInvalid, csv_of_workbook

                try:
                    content = csv_of_workbook(path, scratch / f"{table}.csv", sheet=table)
                except WorkbookInvalid as error:
                    raise ExtractInvalid(f"{path}: {error}") from None
            opener = gzip.open if content.suffix == ".gz" else open
            with opener(content, "rt", encoding="utf-8-sig", newline="") as lines:
                names = next(csv.reader(lines), [])
    except duckdb.Error:
        raise ExtractInvalid(f"{path}: {_NO_PARQUET}") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error):
        from deployr_dev.sources.damage import what_is_wrong

        raise ExtractInvalid(f"{path}: {what_is_wrong(content) or _UNREADABLE}") from None
    spellings = {name.lower(): name for name in names}
    return TableFile(
        table=table, path=path, content=content, spellings=spellings, types=types, all_names=tuple(spellings.values())
    )


def _with_spec_names(file: TableFile, spec: TableSpec) -> TableFile:
    """Call columns that the file has by another of their names as the mapping does."""
    spellings, types = dict(file.spellings), dict(file.types)
    for name, others in spec.also_named.items():
        other = next((other for other in others if other in file.spellings), None)
        if name not in spellings and other is not None:
            spellings[name] = file.spellings[other]
            if file.types:
                types[name] = file.types[other]
    return TableFile(
        table=file.table,
        path=file.path,
        content=file.content,
        spellings=spellings,
        types=types,
        all_names=file.all_names,
    )


def _separator_hint(file: TableFile) -> str:
    only = file.all_names[0] if len(file.all_names) == 1 else ""
    return " (is it separated by semicolons or tabs? Expected commas)" if ";" in only or "\t" in only else ""
