"""The tables of an extract on DuckDB: found, checked and typed before anybody works with them.

Every CSV column is read as text and converted here, because DuckDB's own conversions are too kind: it reads
``1.5`` into an integer as 2 and drops the ``-05:00`` of a time without a word (both seen with 2.0).
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

ENDINGS = (".csv", ".csv.gz", ".parquet")
_BAD_VALUE = re.compile(r"deployr-column:(\w+)")


class ExtractInvalid(ValueError):
    """The extract is not what was expected; the message names the folder, the table and the column, never a value."""


class Kind(Enum):
    """What a column holds; the text says it in messages."""

    KEY = "a whole number in every row"
    INTEGER = "a whole number"
    NUMBER = "a number"
    TEXT = "text"
    DATE = "a date such as 2015-01-06"
    DATETIME = "a date and time without a zone, such as 2015-01-06 20:55:00"


Columns = Mapping[str, Kind]

_INTEGERS = "U?(BIG|SMALL|TINY)?INT(EGER)?"
_NATIVE = {
    Kind.KEY: _INTEGERS,
    Kind.INTEGER: _INTEGERS,
    Kind.NUMBER: f"{_INTEGERS}|DOUBLE|FLOAT|DECIMAL.*",
    Kind.DATE: "DATE|TIMESTAMP(_S|_MS|_NS)?",
    Kind.DATETIME: "DATE|TIMESTAMP(_S|_MS|_NS| WITH TIME ZONE)?",
}
"""The types that a Parquet column of each kind may have to be taken as it is, by DuckDB's names."""
_TYPED = {
    Kind.KEY: "BIGINT",
    Kind.INTEGER: "BIGINT",
    Kind.NUMBER: "DOUBLE",
    Kind.DATE: "DATE",
    Kind.DATETIME: "TIMESTAMP",
}


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """Where a table is, and its columns as the file spells them, by lower-case name.

    ``types``: DuckDB's type of each column in a Parquet file; empty for CSV, where all is text.
    """

    table: str
    path: Path
    spellings: Mapping[str, str]
    types: Mapping[str, str]

    @property
    def is_parquet(self) -> bool:
        """True for Parquet, False for CSV."""
        return self.path.suffix == ".parquet"

    def is_aware(self, column: str) -> bool:
        """True when the column's times are instants, so that no zone needs to be assumed."""
        return self.types.get(column) == "TIMESTAMP WITH TIME ZONE"


def find_tables(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    *,
    required: Mapping[str, Columns],
    optional: Mapping[str, Columns],
) -> dict[str, TableFile]:
    """Find each table's file and check that it has the columns; nothing is loaded yet.

    Table and column names are found in any case. Everything that is missing is said at once.

    Raises:
        ExtractInvalid: no folder, a table missing or there twice, a column missing, a file that cannot be read.
    """
    if not folder.is_dir():
        raise ExtractInvalid(f"{folder}: expected a folder with the tables {', '.join(required)}")
    found: dict[str, TableFile] = {}
    faults: list[str] = []
    for table, columns in (*required.items(), *optional.items()):
        paths = [path for path in sorted(folder.iterdir()) if path.name.lower() in {table + end for end in ENDINGS}]
        if len(paths) > 1:
            faults.append(f"table {table} is there {len(paths)} times: {', '.join(path.name for path in paths)}")
        elif paths:
            file = _read_header(connection, table, paths[0])
            found[table] = file
            if missing := [column for column in columns if column not in file.spellings]:
                faults.append(f"{file.path.name} lacks the column {', '.join(missing)}")
        elif table in required:
            faults.append(f"table {table} is missing (expected {', '.join(table + end for end in ENDINGS)})")
    if faults:
        raise ExtractInvalid(f"{folder}: expected an OMOP 5.4 extract; " + "; ".join(faults))
    return found


def load_table(connection: duckdb.DuckDBPyConnection, file: TableFile, columns: Columns) -> None:
    """Make the table available under its name, with exactly these columns, typed; empty text is null.

    Times become whole microseconds: since 1970 in UTC where the file has instants, else since 1970 on the wall
    clock of the warehouse. CSV is loaded into the database; Parquet stays where it is and is read when asked.

    Raises:
        ExtractInvalid: the file is cut off or not UTF-8, or a value is not of its column's kind.
    """
    import duckdb

    typed = ", ".join(f"{_expression(file, name, kind)} AS {name}" for name, kind in columns.items())
    source = _scan(file)
    try:
        if file.is_parquet:
            connection.execute(f"CREATE VIEW {file.table} AS SELECT {typed} FROM {source}")  # noqa: S608 — our SQL
            counts = ", ".join(f"count({name})" for name in columns)
            connection.execute(f"SELECT {counts} FROM {file.table}").fetchall()  # noqa: S608 — our SQL
        else:
            connection.execute(f"CREATE TABLE {file.table} AS SELECT {typed} FROM {source}")  # noqa: S608 — our SQL
    except (duckdb.Error, zlib.error) as error:
        # DuckDB's messages quote the offending line, so they are neither repeated nor chained.
        match = _BAD_VALUE.search(str(error))
        bad = (match[1], columns[match[1]]) if match else None
    else:
        return
    if bad is None:
        raise ExtractInvalid(f"{file.path}: cannot be read: cut off, damaged or not UTF-8")
    name, kind = bad
    row = _first_bad_row(connection, file, name, kind)
    raise ExtractInvalid(f"{file.path}: expected {kind.value} in column {name}, got something else in row {row}")


def check_unique(connection: duckdb.DuckDBPyConnection, file: TableFile, *columns: str) -> None:
    """Check that no two rows agree in these columns.

    Raises:
        ExtractInvalid: some do.
    """
    key = ", ".join(columns)
    repeated = connection.execute(
        f"SELECT count(*) FROM (SELECT {key} FROM {file.table} GROUP BY {key} HAVING count(*) > 1)"  # noqa: S608 — our names
    ).fetchall()[0][0]
    if repeated:
        raise ExtractInvalid(f"{file.path}: expected each {key} once, got {repeated} of them more than once")


def holds_dates_only(connection: duckdb.DuckDBPyConnection, file: TableFile, column: str) -> bool:
    """True when a time column holds midnights alone: dates written as times, as OMOP has it where no time is known.

    Source: OMOP CDM 5.4, "If a source does not specify datetime the convention is to set the time to midnight".
    """
    if file.is_aware(column):
        return False
    day = 86_400_000_000
    present, at_midnight = connection.execute(
        f"SELECT count({column}), count(*) FILTER ({column} % {day} = 0) FROM {file.table}"  # noqa: S608 — our names
    ).fetchall()[0]
    return bool(present > 1 and present == at_midnight)


def _read_header(connection: duckdb.DuckDBPyConnection, table: str, path: Path) -> TableFile:
    import duckdb

    types: dict[str, str] = {}
    try:
        if path.suffix == ".parquet":
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
            names = [str(row[0]) for row in described]
            types = {str(row[0]).lower(): str(row[1]) for row in described}
        else:
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
                names = next(csv.reader(lines), [])
    except (duckdb.Error, OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error):
        raise ExtractInvalid(f"{path}: cannot be read: cut off, damaged or not UTF-8") from None
    return TableFile(table=table, path=path, spellings={name.lower(): name for name in names}, types=types)


def _scan(file: TableFile) -> str:
    if file.is_parquet:
        return f"read_parquet({_quoted(file.path)})"
    columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in file.spellings.values())
    return (
        f"read_csv({_quoted(file.path)}, columns={{{columns}}}, header=true, auto_detect=false, delim=',', "
        "quote='\"', escape='\"')"
    )


@dataclass(frozen=True, kw_only=True)
class _Conversion:
    """SQL of one column: is it absent, is it of its kind, and its typed value."""

    absent: str
    good: str
    value: str


def _conversion(file: TableFile, column: str, kind: Kind) -> _Conversion:
    spelling = '"' + file.spellings[column].replace('"', '""') + '"'
    stored = file.types.get(column, "VARCHAR")
    if kind is not Kind.TEXT and re.fullmatch(_NATIVE[kind], stored):
        cast = f"CAST({spelling} AS {_TYPED[kind]})"
        value = f"epoch_us({cast})" if kind is Kind.DATETIME else cast
        if file.is_aware(column):
            value = f"epoch_us({spelling})"
        return _Conversion(absent=f"{spelling} IS NULL", good="true", value=value)
    text = f"nullif(CAST({spelling} AS VARCHAR), '')"
    good = "true"
    match kind:
        case Kind.TEXT:
            value = text
        case Kind.KEY | Kind.INTEGER:
            # pandas writes an integer column with gaps as 8532.0
            good = rf"regexp_full_match({text}, '-?[0-9]{{1,18}}(\.0*)?')"
            value = f"TRY_CAST(split_part({text}, '.', 1) AS BIGINT)"
        case Kind.NUMBER | Kind.DATE:
            value = f"TRY_CAST({text} AS {_TYPED[kind]})"
            good = f"{value} IS NOT NULL"
        case Kind.DATETIME:
            value = f"epoch_us(TRY_CAST({text} AS TIMESTAMP))"
            good = rf"{value} IS NOT NULL AND NOT regexp_matches({text}, ':[0-9.]+ ?([A-Za-z]|[+-][0-9])')"
    return _Conversion(absent=f"{text} IS NULL", good=good, value=value)


def _expression(file: TableFile, column: str, kind: Kind) -> str:
    sql = _conversion(file, column, kind)
    refuse = f"error('deployr-column:{column}')"
    absent = refuse if kind is Kind.KEY else "NULL"
    return f"CASE WHEN {sql.absent} THEN {absent} WHEN {sql.good} THEN {sql.value} ELSE {refuse} END"


def _first_bad_row(connection: duckdb.DuckDBPyConnection, file: TableFile, column: str, kind: Kind) -> int:
    """Give the number of the first row with a wrong value in that column; the row under the header is 1."""
    sql = _conversion(file, column, kind)
    bad = f"{sql.absent} OR NOT ({sql.good})" if kind is Kind.KEY else f"NOT ({sql.absent}) AND NOT ({sql.good})"
    rows = connection.execute(
        f"SELECT min(n) FROM (SELECT row_number() OVER () AS n, ({bad}) AS bad FROM {_scan(file)}) WHERE bad"  # noqa: S608 — our SQL
    ).fetchall()
    return int(rows[0][0])


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"
