"""An extract's tables on DuckDB, typed and checked before anybody works with them.

Two schemas: ``typed`` has each table's columns as they are recorded, ``source`` adds what the mapping's queries read,
the moments in UTC. CSV is loaded into the database; Parquet stays where it is and is read when asked.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployr_dev.sources.damage import what_is_wrong
from deployr_dev.sources.kinds import EXPECTED, SQL_TYPE, Conversion, Kind, conversion
from deployr_dev.sources.mapping import SourceMapping, TableSpec
from deployr_dev.sources.tables import ExtractInvalid, TableFile, quoted, quoted_name, scan
from deployr_dev.sources.zones import wall_to_utc

if TYPE_CHECKING:
    import duckdb

_BAD_VALUE = re.compile(r"deployr-column:(\w+)")
_DAY = "INTERVAL '1' DAY"
_Read = tuple[Kind, Conversion | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """What was found out about a table while it was staged.

    ``dates_only``: its time columns that hold midnights alone. ``undated``: the condition under which a row cannot be
    placed in time; None if the table needs no time. ``has_zoneless_times``: times of day were read in the mapping's
    zone. ``complete``: columns and moments that have a value in every row, as far as a Parquet file says so itself.
    """

    file: TableFile | None
    dates_only: frozenset[str]
    undated: str | None
    has_zoneless_times: bool
    complete: frozenset[str]

    @property
    def is_parquet(self) -> bool:
        """True when the rows stay in their file."""
        return self.file is not None and self.file.is_parquet


def stage_tables(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, files: Mapping[str, TableFile]
) -> dict[str, Staged]:
    """Make every table of the mapping available to its queries; one whose file is not there is empty.

    Raises:
        ExtractInvalid: a file is cut off or not UTF-8, a value is not of its column's kind, a key is there twice.
    """
    connection.execute("CREATE SCHEMA typed")
    connection.execute("CREATE SCHEMA source")
    connection.execute(f"CREATE MACRO typed.utc(wall) AS {wall_to_utc('wall', mapping.zone)}")
    staged = {}
    for table, spec in mapping.tables.items():
        file = files.get(table)
        if file is None:
            _create_empty(connection, table, spec)
        else:
            load_table(connection, file, spec)
            if spec.unique:
                _check_unique(connection, file, *spec.unique)
        staged[table] = _add_moments(connection, table, spec, file)
    for name, pairs in mapping.lookups.items():
        connection.execute(f"CREATE TABLE source.{quoted_name(name)} (key VARCHAR, value VARCHAR)")
        if pairs:
            rows = ", ".join(f"({quoted(key)}, {quoted(value)})" for key, value in pairs.items())
            connection.execute(f"INSERT INTO source.{quoted_name(name)} VALUES {rows}")
    return staged


def load_table(connection: duckdb.DuckDBPyConnection, file: TableFile, spec: TableSpec) -> None:
    """Make the table available as ``typed.<table>``, with exactly the mapping's columns, typed.

    Raises:
        ExtractInvalid: the file is cut off or not UTF-8, or a value is not of its column's kind.
    """
    import duckdb

    columns = {name: (column.kind, conversion_in(file, name, column.kind)) for name, column in spec.parsed().items()}
    typed = ", ".join(
        f"{_expression(name, kind, sql, is_parquet=file.is_parquet)} AS {quoted_name(name)}"
        for name, (kind, sql) in columns.items()
    )
    target = f"typed.{quoted_name(file.table)}"
    bad: str | None = None
    try:
        if file.is_parquet:
            connection.execute(f"CREATE VIEW {target} AS SELECT {typed} FROM {scan(file)}")
            bad = _first_incomplete(connection, file, target, columns)
        else:
            connection.execute(f"CREATE TABLE {target} AS SELECT {typed} FROM {scan(file)}")
    except (duckdb.Error, zlib.error) as error:
        # DuckDB's messages quote the offending line, so they are neither repeated nor chained.
        match = _BAD_VALUE.search(str(error))
        is_damaged, bad = match is None, match[1] if match else None
    else:
        is_damaged = False
    if is_damaged:
        fault = None if file.is_parquet else what_is_wrong(file.content)
        raise ExtractInvalid(
            f"{file.path}: {fault or 'cannot be read: cut off, damaged or not UTF-8; export it again'}"
        )
    if bad is not None:
        raise _refused(connection, file, bad, columns[bad])


def _first_incomplete(
    connection: duckdb.DuckDBPyConnection, file: TableFile, target: str, columns: Mapping[str, _Read]
) -> str | None:
    """Read those columns of a Parquet file that may refuse a value; name one that has none in a row that needs one.

    Columns of which the file's own statistics say that they are complete are not read: keys are long.
    """
    complete = _complete_columns(connection, file)
    doubtful = [
        name
        for name, (kind, sql) in columns.items()
        if sql and (not sql.is_certain or (kind.is_required and file.spellings[name] not in complete))
    ]
    if not doubtful:
        return None
    counts = ", ".join(f"count({quoted_name(name)})" for name in doubtful)
    (total, *present) = _row(connection, f"SELECT count(*), {counts} FROM {target}")
    incomplete = (name for name, count in zip(doubtful, present, strict=True) if count != total)
    return next((name for name in incomplete if columns[name][0].is_required), None)


def _complete_columns(connection: duckdb.DuckDBPyConnection, file: TableFile) -> frozenset[str]:
    """Name the columns that have a value in every row, as far as a Parquet file's own statistics say so."""
    rows = connection.execute(
        "SELECT path_in_schema FROM parquet_metadata(?) GROUP BY path_in_schema"
        " HAVING bool_and(stats_null_count IS NOT NULL AND stats_null_count = 0)",
        [str(file.content)],
    ).fetchall()
    return frozenset(str(row[0]) for row in rows)


def _create_empty(connection: duckdb.DuckDBPyConnection, table: str, spec: TableSpec) -> None:
    columns = ", ".join(f"{quoted_name(name)} {SQL_TYPE[column.kind]}" for name, column in spec.parsed().items())
    connection.execute(f"CREATE TABLE typed.{quoted_name(table)} ({columns})")


def _add_moments(connection: duckdb.DuckDBPyConnection, table: str, spec: TableSpec, file: TableFile | None) -> Staged:
    kinds = {name: column.kind for name, column in spec.parsed().items()}
    dates_only = frozenset(
        name
        for name, kind in kinds.items()
        if kind is Kind.DATETIME and file is not None and _holds_dates_only(connection, file, name)
    )
    added = []
    for moment, columns in spec.moments.items():
        at, known = moment_sql(columns, kinds, file, dates_only)
        added += [f"{at} AS {quoted_name(moment + '_at')}", f"{known} AS {quoted_name(moment + '_known_at')}"]
    selected = ", ".join(["*", *added])
    name = quoted_name(table)
    connection.execute(f"CREATE VIEW source.{name} AS SELECT {selected} FROM typed.{name}")
    first = next(iter(spec.moments.values()), None)
    undated = None if first is None else " AND ".join(f"{quoted_name(column)} IS NULL" for column in first)
    zoneless = file is not None and any(
        kind is Kind.DATETIME and name in file.spellings and name not in dates_only and not file.is_aware(name)
        for name, kind in kinds.items()
    )
    complete = _complete(connection, spec, file, dates_only)
    return Staged(file=file, dates_only=dates_only, undated=undated, has_zoneless_times=zoneless, complete=complete)


def _complete(
    connection: duckdb.DuckDBPyConnection, spec: TableSpec, file: TableFile | None, dates_only: frozenset[str]
) -> frozenset[str]:
    if file is None or not file.is_parquet:
        return frozenset()
    in_file = _complete_columns(connection, file)
    certain = {
        name
        for name, column in spec.parsed().items()
        if file.spellings.get(name) in in_file and column.kind is not Kind.TEXT
    }
    moments = {
        moment + end
        for moment, (first, *_) in spec.moments.items()
        for end in ("_at", "_known_at")
        if first in certain and first not in dates_only
    }
    return frozenset(certain | moments)


def moment_sql(
    columns: tuple[str, ...],
    kinds: Mapping[str, Kind],
    file: TableFile | None,
    dates_only: frozenset[str],
    utc: Callable[[str], str] = "typed.utc({})".format,
) -> tuple[str, str]:
    """Give the SQL of the first instant that the columns may stand for, and of the first at which it was surely past.

    The two are one where a time is known. A day alone lasts from midnight to midnight on the wall; ``utc`` gives the
    SQL of the instant at which the wall's clock shows what an expression says.
    """
    instants, days = [], []
    for column in columns:
        name = quoted_name(column)
        if kinds[column] is Kind.DATETIME and column not in dates_only:
            instants.append(name if file is not None and file.is_aware(column) else utc(name))
        elif kinds[column] is Kind.DATETIME:
            days.append(f"CAST({name} AS DATE)")
        else:
            days.insert(0, name)
    starts = ends = instants
    if days:
        # A DATE column says the day; midnights say it only where that column is empty.
        day = days[0] if len(days) == 1 else f"COALESCE({', '.join(days)})"
        starts = [*instants, utc(f"CAST({day} AS TIMESTAMP)")]
        ends = [*instants, utc(f"CAST({day} AS TIMESTAMP) + {_DAY}")]
    first, last = (each[0] if len(each) == 1 else f"COALESCE({', '.join(each)})" for each in (starts, ends))
    return first, last


def _holds_dates_only(connection: duckdb.DuckDBPyConnection, file: TableFile, column: str) -> bool:
    """True when a time column holds midnights alone: dates written as times, as OMOP has it where no time is known.

    Source: OMOP CDM 5.4, "If a source does not specify datetime the convention is to set the time to midnight".
    """
    if file.is_aware(column) or column not in file.spellings:
        return False
    name, table = quoted_name(column), f"typed.{quoted_name(file.table)}"
    timed = f"SELECT 1 FROM {table} WHERE {name} <> date_trunc('day', {name}) LIMIT 1"
    if connection.execute(timed).fetchone() is not None:
        return False
    (present,) = _row(connection, f"SELECT count({name}) FROM {table}")
    return bool(present > 1)


def _check_unique(connection: duckdb.DuckDBPyConnection, file: TableFile, *columns: str) -> None:
    key = ", ".join(columns)
    (repeated,) = _row(
        connection,
        f"SELECT count(*) FROM (SELECT {key} FROM typed.{quoted_name(file.table)} GROUP BY {key} HAVING count(*) > 1)",
    )
    if repeated:
        raise ExtractInvalid(
            f"{file.path}: expected each {key} once, got {repeated} of them more than once; remove the repeated rows"
        )


def conversion_in(file: TableFile, column: str, kind: Kind) -> Conversion | None:
    """Give how a column is read; None for one that the file does not have."""
    if column not in file.spellings:
        return None
    return conversion(quoted_name(file.spellings[column]), file.types.get(column, "TEXT"), kind)


def _expression(column: str, kind: Kind, sql: Conversion | None, *, is_parquet: bool) -> str:
    if sql is None:
        return f"CAST(NULL AS {SQL_TYPE[kind]})"
    if sql.is_certain and (is_parquet or not kind.is_required):
        return sql.value  # bare, so that filters reach the file; the rows without one are counted
    refuse = f"error('deployr-column:{column}')"
    absent = refuse if kind.is_required else "NULL"
    return f"CASE WHEN {sql.absent} THEN {absent} WHEN {sql.good} THEN {sql.value} ELSE {refuse} END"


def _refused(connection: duckdb.DuckDBPyConnection, file: TableFile, column: str, read: _Read) -> ExtractInvalid:
    """Say which row is the first with a wrong value in that column; the row under the header is 1."""
    kind, sql = read
    if sql is None:
        return ExtractInvalid(f"{file.path}: lacks the column {column}")
    bad = f"{sql.absent} OR NOT ({sql.good})" if kind.is_required else f"NOT ({sql.absent}) AND NOT ({sql.good})"
    (row,) = _row(
        connection,
        f"SELECT min(n) FROM (SELECT row_number() OVER () AS n, ({bad}) AS bad FROM {scan(file)}) WHERE bad",
    )
    return ExtractInvalid(f"{file.path}: expected {EXPECTED[kind]} in column {column}, got something else in row {row}")


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    return tuple(connection.execute(query).fetchall()[0])
