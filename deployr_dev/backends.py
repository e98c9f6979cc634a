"""Where the set engine's query runs: each database through its own driver, streaming its answer as Arrow batches."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv

from deployr_dev.arrow import column

_BATCH_ROWS = 122_880
ANSWER = pa.schema([("row_id", pa.int64()), ("feature", pa.int32()), ("value", pa.float64())])
"""What every backend gives, in this order, whatever its driver calls its types."""


class Backend(Protocol):
    """One database that holds the fact tables, or can see them under their names."""

    @property
    def dialect(self) -> str:
        """What SQLGlot calls its SQL."""

    def stream(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        """Load the small tables for as long as the query runs, run it, and give its answer batch by batch."""


class DuckDb:
    """A DuckDB connection, by default the one of an extract.

    ``memory_limit`` such as ``1GB`` and ``threads`` are set on it when given; what does not fit goes to disk.
    """

    dialect = "duckdb"

    def __init__(self, connection: Any, *, memory_limit: str | None = None, threads: int | None = None) -> None:
        self._connection = connection
        if memory_limit is not None:
            connection.execute(f"SET memory_limit = '{memory_limit}'")
        if threads is not None:
            connection.execute(f"SET threads = {int(threads)}")

    def stream(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        """See `Backend.stream`."""
        for name, table in tables.items():
            # A table of DuckDB's own has statistics, which a registered Arrow table has not.
            self._connection.register("incoming", table)
            self._connection.execute(f"CREATE OR REPLACE TEMPORARY TABLE {name} AS SELECT * FROM incoming")
            self._connection.unregister("incoming")
        try:
            reader = self._connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
            for batch in reader:
                yield batch if batch.schema == ANSWER else batch.cast(ANSWER)
        finally:
            for name in tables:
                self._connection.execute(f"DROP TABLE {name}")


class PostgreSql:
    """A psycopg 3 connection; the small tables are temporary, the answer comes through a server-side cursor."""

    dialect = "postgres"
    TYPES: Mapping[pa.DataType, str] = {
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE PRECISION",
        pa.string(): "TEXT",
        pa.timestamp("us"): "TIMESTAMP",
    }

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def stream(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        """See `Backend.stream`; everything happens in one transaction, which is rolled back at the end."""
        with self._connection.transaction(force_rollback=True):
            for name, table in tables.items():
                self.load(name, table)
            with self._connection.cursor(name="features") as cursor:
                cursor.execute(sql)
                while rows := cursor.fetchmany(_BATCH_ROWS):
                    yield _batch(rows)

    def load(self, name: str, table: pa.Table) -> None:
        """Load a small table, until the transaction ends."""
        columns = ", ".join(f"{field.name} {self.TYPES[field.type]}" for field in table.schema)
        content = io.BytesIO()
        pyarrow.csv.write_csv(table, content, pyarrow.csv.WriteOptions(include_header=False))
        with self._connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP")
            with cursor.copy(f"COPY {name} FROM STDIN WITH (FORMAT csv)") as copy:
                copy.write(content.getvalue())
            cursor.execute(f"ANALYZE {name}")


class DbApi:
    """A connection of any driver that speaks Python's DB-API 2.0: Snowflake, SQL Server and BigQuery have one.

    The small tables are temporary ones of the session, filled by ``executemany``; the answer comes through
    ``fetchmany``. BigQuery needs a connection whose client runs in a session.

    Args:
        connection: open, with the fact tables under their names.
        dialect: what SQLGlot calls its SQL: ``snowflake``, ``tsql``, ``bigquery``.
        paramstyle: the driver module's own: ``qmark``, ``format``, ``pyformat`` or ``numeric``.

    Source: PEP 249.
    """

    _MARKS: Mapping[str, str] = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric": ":{number}"}
    _TYPES: Mapping[pa.DataType, str] = {
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE",
        pa.string(): "TEXT",
        pa.timestamp("us"): "TIMESTAMP",
    }

    def __init__(self, connection: Any, *, dialect: str, paramstyle: str) -> None:
        if paramstyle not in self._MARKS:
            raise ValueError(f"expected a paramstyle of {', '.join(self._MARKS)}, got {paramstyle!r}")
        self._connection = connection
        self._mark = self._MARKS[paramstyle]
        self.dialect = dialect

    def stream(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        """See `Backend.stream`."""
        cursor = self._connection.cursor()
        made = []
        try:
            for name, table in tables.items():
                columns = ", ".join(f"{field.name} {self._TYPES[field.type]}" for field in table.schema)
                cursor.execute(self._say(f"CREATE TEMPORARY TABLE {name} ({columns})", tables, read="duckdb"))
                made.append(name)
                rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
                if rows:
                    marks = ", ".join(self._mark.format(number=i + 1) for i in range(table.num_columns))
                    cursor.executemany(f"INSERT INTO {self._name(name)} VALUES ({marks})", rows)
            cursor.execute(self._say(sql, tables, read=self.dialect))
            while found := cursor.fetchmany(_BATCH_ROWS):
                yield _batch([tuple(row) for row in found])
        finally:
            for name in made:
                cursor.execute(f"DROP TABLE {self._name(name)}")
            cursor.close()

    def _name(self, table: str) -> str:
        return f"#{table}" if self.dialect == "tsql" else table

    def _say(self, sql: str, tables: Mapping[str, pa.Table], *, read: str) -> str:
        """Say a statement of that dialect in the database's; SQL Server names its temporary tables with a #."""
        import sqlglot

        parsed = sqlglot.parse_one(sql, read=read)
        for table in parsed.find_all(sqlglot.exp.Table) if self.dialect == "tsql" else ():
            if table.name in tables:
                table.this.set("temporary", True)
        return str(parsed.sql(dialect=self.dialect))


class Spark:
    """A Spark session (Databricks too); the small tables are temporary views, the answer comes by partitions."""

    dialect = "spark"

    def __init__(self, session: Any) -> None:
        self._session = session

    def stream(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        """See `Backend.stream`."""
        for name, table in tables.items():
            self._session.createDataFrame(table).createOrReplaceTempView(name)
        try:
            rows: list[tuple[Any, ...]] = []
            for row in self._session.sql(sql).toLocalIterator(prefetchPartitions=True):
                rows.append(tuple(row))
                if len(rows) == _BATCH_ROWS:
                    yield _batch(rows)
                    rows = []
            if rows:
                yield _batch(rows)
        finally:
            for name in tables:
                self._session.catalog.dropTempView(name)


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = [column(values, field.type) for values, field in zip(zip(*rows, strict=True), ANSWER, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=ANSWER)
