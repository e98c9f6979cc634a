"""Where the set engine's query runs: each database through its own driver, streaming its answer as Arrow batches."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv

_BATCH_ROWS = 250_000
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
                yield batch.cast(ANSWER)
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
            with self._connection.cursor() as cursor:
                for name, table in tables.items():
                    self._load(cursor, name, table)
            with self._connection.cursor(name="features") as cursor:
                cursor.execute(sql)
                while rows := cursor.fetchmany(_BATCH_ROWS):
                    yield _batch(rows)

    def _load(self, cursor: Any, name: str, table: pa.Table) -> None:
        columns = ", ".join(f"{field.name} {self.TYPES[field.type]}" for field in table.schema)
        cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP")
        content = io.BytesIO()
        pyarrow.csv.write_csv(table, content, pyarrow.csv.WriteOptions(include_header=False))
        with cursor.copy(f"COPY {name} FROM STDIN WITH (FORMAT csv)") as copy:
            copy.write(content.getvalue())
        cursor.execute(f"ANALYZE {name}")


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
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), ANSWER, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=ANSWER)
