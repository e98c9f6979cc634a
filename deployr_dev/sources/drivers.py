"""Databases by URL, as a command line names them, and how each is connected to.

A URL never holds a secret: it would stand in the shell's history and in the list of processes. Passwords come from
where each driver looks for them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from deployr_dev.sources.tables import ExtractInvalid

_CONNECT_TIMEOUT_S = 15
_OURS = frozenset({"schema", "in_place"})
"""Parameters of a URL that no driver knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """Where a warehouse is. ``url`` is what the driver gets, ``shown`` what messages say: host, database and schema.

    ``in_place``: its tables stay there, and queries run beside them; else they are copied.
    """

    url: str
    schema: str
    driver: Driver
    in_place: bool = False

    @property
    def shown(self) -> str:
        """Name it in a message, without the user and the parameters."""
        parts = urlsplit(self.url)
        where = [parts.hostname or "localhost", parts.path.strip("/"), self.schema]
        return "/".join(part for part in where if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """A driver that speaks Python's DB-API 2.0.

    ``load`` imports its module. ``extra``: of our package, which installs it. ``dialect``: SQLGlot's name of its SQL.
    ``schema``: where none is asked for. ``secrets``: where it looks for them. ``instants``: its types of columns whose
    times are instants, in lower case.

    Source: PEP 249.
    """

    load: Callable[[], Any]
    extra: str
    dialect: str
    schema: str
    secrets: str
    instants: frozenset[str]
    connect: Callable[[Any, SplitResult, str], Any]

    def cursor(self, connection: Any) -> Any:
        """Give a cursor that leaves the answer in the database until it is fetched."""
        return connection.cursor(name="deployr", binary=True) if self.dialect == "postgres" else connection.cursor()


def parse_database(url: str) -> Database:
    """Read a URL such as ``postgresql://host/db?schema=cdm``.

    Raises:
        ExtractInvalid: another scheme, or a password in it; no message repeats the URL.
    """
    scheme, _, _ = url.partition("://")
    driver = DRIVERS.get(scheme)
    if driver is None:
        known = ", ".join(f"{name}://" for name in DRIVERS)
        raise ExtractInvalid(
            f"expected a database as one of {known}, got {scheme[:20]}://; `deployr train` and `run` take spark:// too"
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
        asked = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ExtractInvalid(f"expected a URL such as {scheme}://host/database?schema=cdm") from None
    if parts.password is not None or any("password" in name.lower() for name, _ in asked):
        raise ExtractInvalid(f"expected no password in the URL of a database; keep it in {driver.secrets}")
    schema = dict(asked).get("schema") or driver.schema or parts.path.strip("/")
    if not schema:
        raise ExtractInvalid(f"expected a URL such as {scheme}://project/dataset")
    in_place = dict(asked).get("in_place", "no")
    if in_place not in {"yes", "no"} or (in_place == "yes" and scheme != "postgresql"):
        raise ExtractInvalid(f"expected in_place=yes of postgresql:// alone; {scheme}:// is copied")
    rest = urlencode([(name, value) for name, value in asked if name not in _OURS], quote_via=quote)
    # Not geturl(): it drops the slashes of an empty host, which means the socket of this machine.
    return Database(
        url=f"{scheme}://{parts.netloc}{parts.path}{rest and '?'}{rest}",
        schema=schema,
        driver=driver,
        in_place=in_place == "yes",
    )


@contextmanager
def connected(database: Database) -> Iterator[Any]:
    """Open a connection that only reads.

    Raises:
        ExtractInvalid: the driver is not installed, the database cannot be reached, or it breaks off.
    """
    connection = connection_of(database)
    try:
        yield connection
    except database.driver.load().Error as error:
        raise ExtractInvalid(
            f"{database.shown}: the database did not give what was asked ({type(error).__name__});"
            " may this user read its tables, and is it still up?"
        ) from None
    finally:
        connection.close()


def connection_of(database: Database) -> Any:
    """Open a connection that only reads; whoever asks closes it.

    Raises:
        ExtractInvalid: the driver is not installed, or the database cannot be reached.
    """
    driver = database.driver
    try:
        module = driver.load()
    except ImportError:
        install = f"pip install 'deployr[{driver.extra}]'"
        raise ExtractInvalid(f"{database.shown}: expected the database's driver; install it with {install}") from None
    try:
        return driver.connect(module, urlsplit(database.url), database.url)
    except (module.Error, OSError, ValueError) as error:
        # libpq says what is wrong without a secret; what other drivers put into their messages is not known.
        why = " ".join(str(error).split()) if driver.dialect == "postgres" else type(error).__name__
        raise ExtractInvalid(
            f"{database.shown}: cannot connect: {why}; the password is looked for in {driver.secrets}"
        ) from None


def _load_psycopg() -> Any:
    import psycopg

    return psycopg


def _postgresql(psycopg: Any, _: SplitResult, url: str) -> Any:
    connection = psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S)
    connection.read_only = True
    # All tables as they were at one instant, though the warehouse is loaded meanwhile.
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection


def _load_snowflake() -> Any:
    import snowflake.connector  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return snowflake.connector


def _snowflake(connector: Any, parts: SplitResult, _: str) -> Any:
    return connector.connect(connection_name=parts.netloc, database=parts.path.strip("/"))


def _load_pyodbc() -> Any:
    import pyodbc  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return pyodbc


def _sql_server(pyodbc: Any, parts: SplitResult, _: str) -> Any:
    return pyodbc.connect(dsn=parts.netloc, database=parts.path.strip("/"), readonly=True)


def _load_bigquery() -> Any:
    from google.cloud.bigquery import dbapi  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return dbapi


def _bigquery(dbapi: Any, parts: SplitResult, _: str) -> Any:
    from google.auth.exceptions import GoogleAuthError  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from google.cloud import bigquery  # type: ignore[import-not-found, import-untyped, unused-ignore]

    try:
        return dbapi.connect(bigquery.Client(project=parts.netloc))
    except GoogleAuthError:
        raise PermissionError from None


DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {
        "postgresql": Driver(
            load=_load_psycopg,
            extra="postgres",
            dialect="postgres",
            schema="public",
            secrets="~/.pgpass or PGPASSWORD",
            instants=frozenset({"timestamp with time zone"}),
            connect=_postgresql,
        ),
        "snowflake": Driver(
            load=_load_snowflake,
            extra="snowflake",
            dialect="snowflake",
            schema="PUBLIC",
            secrets="~/.snowflake/connections.toml",
            instants=frozenset({"timestamp_tz", "timestamp_ltz"}),
            connect=_snowflake,
        ),
        "mssql": Driver(
            load=_load_pyodbc,
            extra="sqlserver",
            dialect="tsql",
            schema="dbo",
            secrets="the data source of odbc.ini",
            instants=frozenset({"datetimeoffset"}),
            connect=_sql_server,
        ),
        "bigquery": Driver(
            load=_load_bigquery,
            extra="bigquery",
            dialect="bigquery",
            schema="",
            secrets="Google's application default credentials",
            instants=frozenset({"timestamp"}),
            connect=_bigquery,
        ),
    }
)
"""By the scheme of the URL. PostgreSQL is run in the tests; nobody has run the others on the real service."""
