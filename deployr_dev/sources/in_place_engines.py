"""Databases in which a warehouse can stay: a Spark cluster, and PostgreSQL. See `deployr_dev.sources.in_place`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from deployr_dev.sources.database import Columns, arrow_type, tables_of
from deployr_dev.sources.reading import Row
from deployr_dev.sources.tables import ExtractInvalid

if TYPE_CHECKING:
    import pyarrow as pa

    from deployr_dev.backends import Backend
    from deployr_dev.sources.drivers import Database

SPARK = "spark"
_ROWS = 4096
_SPARK_INSTANTS = frozenset({"timestamp"})
_SPARK_SETTINGS = {"spark.sql.session.timeZone": "UTC", "spark.sql.timestampType": "TIMESTAMP_NTZ"}
_SPARK_STARTS_WITH: dict[str, Any] = {
    "spark.ui.showConsoleProgress": "false",
    # The small side of each join takes a page of the driver or more. By itself a page is a sixteenth of a core's share:
    # the features' query has dozens of joins, and fails when all are there at once, however much memory the driver has.
    "spark.buffer.pageSize": "1m",
}
_SPARK_URL = "spark://[HOST:PORT]/?schema=NAME, or ?folder=PATH of Parquet tables"


class SparkEngine:
    """A Spark session of its own: its settings and views are nobody else's. See `deployr_dev.sources.in_place.Engine`.

    Args:
        url: ``spark:///?schema=cdm`` takes the cluster that Spark's own settings name (``spark-defaults.conf``,
            ``spark-submit``), ``spark://HOST:PORT/…`` that one; ``?folder=`` has each table as Parquet under its name.

    Raises:
        ExtractInvalid: not such a URL, no Spark or no Java here, or no cluster there.
    """

    dialect = "spark"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._schema, self._folder = asked.pop("schema", ""), asked.pop("folder", "")
        if asked or bool(self._schema) == bool(self._folder) or parts.username or parts.path.strip("/"):
            raise ExtractInvalid(f"expected {_SPARK_URL}")
        self.shown = "/".join(part for part in (SPARK, parts.netloc, self._schema or self._folder.strip("/")) if part)
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            install = "pip install 'deployr[spark]'"
            raise ExtractInvalid(f"{self.shown}: expected Spark's client; install it with {install}") from None
        self._started: Any = None
        with self._asking():
            _keep_quiet()
            session = SparkSession.getActiveSession()
            if session is None:
                builder = SparkSession.builder.appName("deployr").config(map=_SPARK_STARTS_WITH)
                session = (builder.master(f"spark://{parts.netloc}") if parts.netloc else builder).getOrCreate()
                session.sparkContext.setLogLevel("OFF")
                self._started = session
            self._session = session.newSession()
            for name, value in _SPARK_SETTINGS.items():
                self._session.conf.set(name, value)

    @property
    def backend(self) -> Backend:
        """Where the feature query runs."""
        from deployr_dev.backends import Spark

        return _Asked(Spark(self._session), self._asking)

    def tables(self, names: Collection[str]) -> dict[str, tuple[str, Columns]]:
        """See `deployr_dev.sources.in_place.Engine.tables`."""
        found: dict[str, tuple[str, Columns]] = {}
        for name in names:
            table = self._table(name)
            if table is None:
                continue
            view = f"there_{name}"
            with self._asking():
                table.createOrReplaceTempView(view)
                columns = {}
                for field in table.schema.fields:
                    kind = field.dataType.simpleString()
                    columns[field.name.lower()] = (field.name, arrow_type(kind, _scale_of(kind), _SPARK_INSTANTS))
            found[name] = (view, columns)
        return found

    def create_view(self, name: str, sql: str) -> None:
        """See `deployr_dev.sources.in_place.Engine.create_view`."""
        with self._asking():
            self._session.sql(sql).createOrReplaceTempView(name)

    def columns(self, sql: str) -> tuple[str, ...]:
        """See `deployr_dev.sources.in_place.Engine.columns`."""
        with self._asking():
            return tuple(self._session.sql(sql).columns)

    def rows(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[Row]:
        """See `deployr_dev.sources.in_place.Engine.rows`."""
        with self._asking():
            for name, table in tables.items():
                self._session.createDataFrame(table).createOrReplaceTempView(name)
            answer = self._session.sql(sql)
            # The answer is planned by now, and knows the small tables without their names.
            for name in tables:
                self._session.catalog.dropTempView(name)
            for row in answer.toLocalIterator():
                yield tuple(row)

    def close(self) -> None:
        """Stop the session, if nobody had one before."""
        if self._started is not None:
            self._started.stop()
            self._started = None

    def _table(self, name: str) -> Any | None:
        from pyspark.errors import AnalysisException

        with self._asking():
            if self._schema:
                full = f"{self._schema}.{name}"
                return self._session.table(full) if self._session.catalog.tableExists(full) else None
            for path in (f"{self._folder}/{name}.parquet", f"{self._folder}/{name}"):
                try:
                    return self._session.read.parquet(path)
                except AnalysisException as error:
                    if error.getCondition() != "PATH_NOT_FOUND":
                        raise
        return None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say what went wrong by its class alone: Spark's messages hold the values that it could not read."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        try:
            yield
        except PySparkException as error:
            what = error.getCondition() or type(error).__name__
            raise ExtractInvalid(
                f"{self.shown}: Spark did not do what was asked ({what}); is the cluster up, is Java here, and may this"
                " user read the tables?"
            ) from None
        except Py4JError as error:
            raise ExtractInvalid(f"{self.shown}: Spark broke off ({type(error).__name__})") from None


class PostgreSqlEngine:
    """A PostgreSQL connection of its own, in one transaction: all tables are as they were at one instant.

    Its views and small tables are temporary, and gone with it; nothing else is written. See
    `deployr_dev.sources.in_place.Engine`.

    Raises:
        ExtractInvalid: no driver, or it cannot be reached.
    """

    dialect = "postgres"

    def __init__(self, database: Database) -> None:
        from deployr_dev.backends import PostgreSql
        from deployr_dev.sources.drivers import connection_of

        self.shown = database.shown
        self._database = database
        self._connection = connection_of(database)
        self._postgresql = PostgreSql(self._connection)
        # Temporary views are made in it.
        self._connection.read_only = False
        self._cursors = 0
        with self._asking():
            self._connection.execute("SET TIME ZONE 'UTC'")

    @property
    def backend(self) -> Backend:
        """Where the feature query runs."""
        return _Asked(self._postgresql, self._asking)

    def tables(self, names: Collection[str]) -> dict[str, tuple[str, Columns]]:
        """See `deployr_dev.sources.in_place.Engine.tables`."""
        from sqlglot import exp

        with self._asking():
            there = tables_of(self._database, self._connection)
        return {
            name: (exp.table_(spelled, db=self._database.schema, quoted=True).sql(dialect="duckdb"), columns)
            for name, (spelled, columns) in there.items()
            if name in names
        }

    def create_view(self, name: str, sql: str) -> None:
        """See `deployr_dev.sources.in_place.Engine.create_view`."""
        with self._asking():
            self._connection.execute(f"CREATE TEMPORARY VIEW {name} AS {sql}")

    def columns(self, sql: str) -> tuple[str, ...]:
        """See `deployr_dev.sources.in_place.Engine.columns`."""
        with self._asking():
            described = self._connection.execute(f"SELECT * FROM ({sql}) AS asked LIMIT 0").description
            return tuple(column.name for column in described)

    def rows(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[Row]:
        """See `deployr_dev.sources.in_place.Engine.rows`."""
        self._cursors += 1
        number = self._cursors
        with self._asking():
            for name, table in tables.items():
                # Of several queries that are under way, each has its own.
                self._postgresql.load(f"{name}_{number}", table)
                sql = _renamed(sql, name, f"{name}_{number}")
            with self._connection.cursor(name=f"deployr_{number}", binary=True) as cursor:
                cursor.execute(sql)
                while rows := cursor.fetchmany(_ROWS):
                    yield from rows

    def close(self) -> None:
        """Roll back and close."""
        self._connection.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise ExtractInvalid(
                f"{self.shown}: the database did not do what was asked ({type(error).__name__}); may this user read its"
                " tables and make temporary ones?"
            ) from None


class _Asked:
    """A backend whose faults are said as its engine says them. See `deployr_dev.backends.Backend`."""

    def __init__(self, backend: Backend, asking: Callable[[], AbstractContextManager[None]]) -> None:
        self.dialect = backend.dialect
        self._backend = backend
        self._asking = asking

    def stream(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
        """See `deployr_dev.backends.Backend.stream`."""
        with self._asking():
            yield from self._backend.stream(sql, tables)


def _keep_quiet() -> None:
    """Keep Spark's client from logging what a query read: its errors quote the values."""
    from pyspark.logger import PySparkLogger

    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        PySparkLogger.getLogger(name).disabled = True


def _scale_of(kind: str) -> int | None:
    return int(kind.rstrip(")").rpartition(",")[2]) if kind.startswith("decimal") else None


def _renamed(sql: str, name: str, to: str) -> str:
    import sqlglot
    from sqlglot import exp

    parsed = sqlglot.parse_one(sql, read="postgres")
    for table in parsed.find_all(exp.Table):
        if table.name == name:
            table.set("this", exp.to_identifier(to))
    return str(parsed.sql(dialect="postgres"))
