"""A warehouse in a database as the tables of an extract: what the mapping reads is streamed into Parquet files.

Every row of the mapping's tables comes, but of their columns only the mapping's, and a batch at a time is in memory. So
the mapping's kinds and queries see the same tables as in an extract of files, and give the same facts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployr_dev.sources.drivers import Database, connected
from deployr_dev.sources.mapping import SourceMapping, TableSpec
from deployr_dev.sources.tables import ExtractInvalid

if TYPE_CHECKING:
    import pyarrow as pa

    from deployr_dev.matrix import Progress

_BATCH_ROWS = 50_000
Steps = Callable[[str], "AbstractContextManager[Progress]"]
"""Opens a step of the work, for progress bars."""
Columns = Mapping[str, tuple[str, "pa.DataType"]]
"""A table's columns by their names in lower case: the name as it is spelled, and what it holds."""


def write_tables(database: Database, mapping: SourceMapping, target: Path, *, steps: Steps) -> None:
    """Write each table of the mapping that the database has as one Parquet file, called as the mapping calls it.

    Args:
        database: where the tables are, in one schema; their names and those of their columns in any case.
        mapping: says which tables and columns are read.
        target: a folder that does not exist yet.
        steps: opens a step for each table, which is told of its rows.

    Raises:
        ExtractInvalid: the database cannot be reached or read, or a table or column is missing; all that are, at once.
    """
    if mapping.reads != "tables":
        raise ExtractInvalid(f"expected a mapping of tables for a database; {mapping.name} reads files")
    target.mkdir()
    with connected(database) as connection:
        there = tables_of(database, connection)
        chosen = chosen_columns(database.shown, mapping, there)
        for table, columns in chosen.items():
            with steps(f"Copying {table}") as tell:
                _copy(database, connection, there[table][0], columns, target / f"{table}.parquet", tell)


def tables_of(database: Database, connection: Any) -> dict[str, tuple[str, Columns]]:
    """Give each table that may be read, by its name in lower case: the name as it is spelled, and its columns."""
    found: dict[str, tuple[str, dict[str, tuple[str, pa.DataType]]]] = {}
    cursor = connection.cursor()
    cursor.execute(_said(database, _COLUMNS_IN_DATASET if database.driver.dialect == "bigquery" else _COLUMNS))
    for table, column, kind, scale in cursor.fetchall():
        columns = found.setdefault(table.lower(), (table, {}))[1]
        columns[column.lower()] = (column, arrow_type(kind.lower(), scale, database.driver.instants))
    cursor.close()
    return dict(found)


_COLUMNS = (
    "SELECT table_name, column_name, data_type, numeric_scale FROM information_schema.columns"
    " WHERE LOWER(table_schema) = LOWER({schema}) ORDER BY table_name, ordinal_position"
)
_COLUMNS_IN_DATASET = (
    "SELECT table_name, column_name, data_type, NULL AS numeric_scale FROM {name}.information_schema.columns"
    " ORDER BY table_name, ordinal_position"
)


def _said(database: Database, sql: str) -> str:
    import sqlglot
    from sqlglot import exp

    schema, name = exp.Literal.string(database.schema), exp.to_identifier(database.schema, quoted=True)
    said = sql.format(schema=schema.sql(dialect="duckdb"), name=name.sql(dialect="duckdb"))
    return sqlglot.parse_one(said, read="duckdb").sql(dialect=database.driver.dialect)


def arrow_type(kind: str, scale: int | None, instants: frozenset[str]) -> pa.DataType:
    """Give what a column's values are kept as: text, if they are neither numbers nor times."""
    import pyarrow as pa

    plain = re.sub(r"\(.*?\)", "", kind).strip()
    if plain in instants:
        return pa.timestamp("us", tz="UTC")
    if re.fullmatch(r"numeric|decimal|bignumeric|number", plain):
        return pa.int64() if scale == 0 else pa.float64()
    types = {
        r"((big|small|tiny)?int(eger)?|int64|byteint)": pa.int64(),
        r"(real|double( precision)?|float(4|8|64)?)": pa.float64(),
        r"(bool(ean)?|bit)": pa.bool_(),
        r"date": pa.date32(),
        r"(timestamp.*|(small)?datetime2?)": pa.timestamp("us"),
    }
    return next((held for pattern, held in types.items() if re.fullmatch(pattern, plain)), pa.string())


def chosen_columns(
    shown: str, mapping: SourceMapping, there: Mapping[str, tuple[str, Columns]]
) -> dict[str, dict[str, tuple[str, pa.DataType]]]:
    """Give, for each table of the mapping that is there, the columns that it reads, under the mapping's names.

    Args:
        shown: what messages call the place.
        mapping: says what is read.
        there: what is there, by its name in lower case: the name as it is spelled, and its columns likewise.

    Raises:
        ExtractInvalid: tables or columns are missing; all that are, at once.
    """
    chosen: dict[str, dict[str, tuple[str, pa.DataType]]] = {}
    faults = []
    for table, spec in mapping.tables.items():
        if table not in there:
            if not spec.optional:
                faults.append(f"table {table} is missing, or this user may not read it")
            continue
        chosen[table] = dict(_columns_of(spec, there[table][1]))
        missing = [
            name for name, column in spec.parsed().items() if name not in chosen[table] and not column.may_be_missing
        ]
        if missing:
            faults.append(f"table {table} lacks the column {', '.join(missing)}")
    if not there:
        faults = [f"there is no schema {shown.rpartition('/')[2]}, or no table in it that this user may read"]
    if faults:
        expected = f"{shown}: expected {mapping.describes or mapping.name}; "
        raise ExtractInvalid(expected + "; ".join(faults), faults=faults)
    return chosen


def _columns_of(spec: TableSpec, there: Columns) -> Iterator[tuple[str, tuple[str, pa.DataType]]]:
    for name in spec.columns:
        called = next((other for other in (name, *spec.also_named.get(name, ())) if other.lower() in there), None)
        if called is not None:
            yield name, there[called.lower()]


def _copy(
    database: Database,
    connection: Any,
    table: str,
    columns: Mapping[str, tuple[str, pa.DataType]],
    file: Path,
    tell: Progress,
) -> None:
    """Copy a table, and check that it came whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sqlglot import exp

    where = exp.table_(table, db=database.schema, quoted=True)
    dialect = database.driver.dialect
    counting = connection.cursor()
    counting.execute(exp.select(exp.Count(this=exp.Star())).from_(where).sql(dialect=dialect))
    total, done = int(counting.fetchone()[0]), 0
    counting.close()
    schema = pa.schema([(name, held) for name, (_, held) in columns.items()])
    cursor = database.driver.cursor(connection)
    spelled = [exp.column(spelling, quoted=True) for spelling, _ in columns.values()]
    cursor.execute(exp.select(*spelled).from_(where).sql(dialect=dialect))
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := cursor.fetchmany(_BATCH_ROWS):
            values = zip(zip(*rows, strict=True), schema, strict=True)
            try:
                arrays = [_array(column, field.type) for column, field in values]
            except (pa.ArrowException, ValueError, OverflowError):
                raise ExtractInvalid(f"{database.shown}/{table}: expected values of their columns' types") from None
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            done += len(rows)
            tell(done, max(done, total))
    cursor.close()
    if done < total:
        raise ExtractInvalid(f"{database.shown}/{table}: expected {total} rows, got {done}; was it changed meanwhile?")


def _array(values: Sequence[Any], held: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(held):
        values = [None if value is None else str(value) for value in values]
    elif pa.types.is_floating(held) or pa.types.is_integer(held):
        kind = float if pa.types.is_floating(held) else int
        values = [None if value is None else kind(value) for value in values]
    elif held == pa.timestamp("us", tz="UTC"):
        values = [value.astimezone(UTC) if isinstance(value, datetime) else value for value in values]
    return pa.array(values, held)
