"""Databases named by URL: what is refused, what no message repeats, and what a database is asked in its own SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from deployr_cli.main import app
from deployr_dev.sources.database import write_tables
from deployr_dev.sources.drivers import Database, parse_database
from deployr_dev.sources.extract import open_source
from deployr_dev.sources.mapping import SourceMapping, TableSpec, shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid

MAPPING = SourceMapping(
    name="ours",
    tables={
        "results": TableSpec(
            columns={"id": "key", "number": "number", "drawn": "datetime"}, also_named={"drawn": ("taken",)}
        ),
        "orders": TableSpec(columns={"id": "key"}, optional=True),
    },
)


@contextmanager
def silently(_: str) -> Iterator[object]:
    yield lambda _done, _total: None


class FakeDatabase:
    """One table ``Results``; remembers what it was asked."""

    Error = RuntimeError

    def __init__(self, kinds: tuple[str, str, str], rows: list[tuple[object, ...]], *, claims: int | None = None):
        self.asked: list[str] = []
        self._kinds, self._rows, self._claims = kinds, rows, len(rows) if claims is None else claims
        self._answer: list[tuple[object, ...]] = []

    def cursor(self) -> FakeDatabase:
        return self

    def execute(self, sql: str) -> None:
        self.asked.append(sql)
        if "information_schema" in sql.lower():
            names = zip(("ID", "Number", "Taken"), self._kinds, (0, 2, None), strict=True)
            self._answer = [("Results", name, kind, scale) for name, kind, scale in names]
        else:
            self._answer = [(self._claims,)] if "COUNT" in sql else list(self._rows)

    def fetchall(self) -> list[tuple[object, ...]]:
        answer, self._answer = self._answer, []
        return answer

    def fetchone(self) -> tuple[object, ...]:
        return self._answer[0]

    def fetchmany(self, _: int) -> list[tuple[object, ...]]:
        return self.fetchall()

    def close(self) -> None:
        pass


def at(url: str, fake: FakeDatabase) -> Database:
    database = parse_database(url)
    return replace(
        database, driver=replace(database.driver, load=lambda: FakeDatabase, connect=lambda _module, _parts, _url: fake)
    )


@pytest.mark.parametrize(
    ("url", "kinds", "asked"),
    [
        (
            "snowflake://clinic/WAREHOUSE?schema=cdm",
            ("NUMBER", "NUMBER", "TIMESTAMP_TZ"),
            'SELECT "ID", "Number", "Taken" FROM "cdm"."Results"',
        ),
        (
            "mssql://clinic/warehouse",
            ("bigint", "decimal", "datetimeoffset"),
            "SELECT [ID], [Number], [Taken] FROM [dbo].[Results]",
        ),
        (
            "bigquery://project/cdm",
            ("INT64", "NUMERIC", "TIMESTAMP"),
            "SELECT `ID`, `Number`, `Taken` FROM `cdm`.`Results`",
        ),
    ],
)
def test_each_database_is_asked_in_its_own_sql_and_keeps_numbers_and_instants(
    url: str, kinds: tuple[str, str, str], asked: str, tmp_path: Path
) -> None:
    drawn = datetime.fromisoformat("2024-05-01T12:00:00+02:00")
    fake = FakeDatabase(kinds, [(Decimal(7), Decimal("0.29"), drawn), (8, None, None)])

    write_tables(at(url, fake), MAPPING, tmp_path / "tables", steps=silently)

    assert fake.asked[-1] == asked
    table = pq.read_table(tmp_path / "tables" / "results.parquet")
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "timestamp[us, tz=UTC]"]
    assert table["id"].to_pylist() == [7, 8]
    assert table["number"].to_pylist() == [0.29, None]
    assert table["drawn"].to_pylist() == [drawn, None]
    assert not (tmp_path / "tables" / "orders.parquet").exists()


def test_a_table_that_comes_short_is_refused(tmp_path: Path) -> None:
    fake = FakeDatabase(("bigint", "float", "datetime2"), [(1, None, None)], claims=2)

    with pytest.raises(ExtractInvalid, match="clinic/warehouse/dbo/Results: expected 2 rows, got 1"):
        write_tables(at("mssql://clinic/warehouse", fake), MAPPING, tmp_path / "t", steps=silently)


def test_what_a_driver_says_of_a_broken_connection_is_not_repeated(
    tmp_path: Path,
) -> None:
    class Broken(FakeDatabase):
        def execute(self, sql: str) -> None:
            raise RuntimeError(f"pwd=secret {sql}")

    fake = Broken(("bigint", "float", "datetime2"), [])
    with pytest.raises(ExtractInvalid, match=r"did not give what was asked \(RuntimeError\)") as refused:
        write_tables(at("mssql://clinic/warehouse", fake), MAPPING, tmp_path / "t", steps=silently)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@host/db", "postgresql://host/db?schema=cdm&password=s3cret"])
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ExtractInvalid, match=r"expected no password .* ~/\.pgpass or PGPASSWORD") as refused:
        parse_database(url)
    assert "s3cret" not in str(refused.value)

    for command in (["validate", f"omop54:{url}"], ["train", "hematocrit", "--source", f"omop54:{url}", "--out", "x"]):
        answer = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
        assert answer.exit_code != 0
        assert "s3cret" not in answer.output + str(answer.exception)


def test_the_schema_stays_here_and_what_libpq_knows_goes_on() -> None:
    database = parse_database("postgresql:///cdm%20db?schema=omop&host=/run/pg%20one&sslmode=require")

    assert database.url == "postgresql:///cdm%20db?host=%2Frun%2Fpg%20one&sslmode=require"
    assert database.schema == "omop"
    assert database.shown == "localhost/cdm%20db/omop"
    assert parse_database("postgresql://me@host:5433/db").shown == "host/db/public"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("omop54:oracle://host/db", "expected a database as one of postgresql://, snowflake://, mssql://, bigquery://"),
        ("postgresql://host/db", "expected a mapping for a database: its name before the URL"),
        ("fhir_ndjson:postgresql://host/db", "expected a mapping of tables for a database; fhir_ndjson reads files"),
        ("omop54:postgresql://host:port/db", "expected a URL such as postgresql://host/database?schema=cdm"),
        ("omop54:bigquery://project", "expected a URL such as bigquery://project/dataset"),
        ("omop54:postgresql://localhost:1/db", "localhost/db/public: cannot connect: "),
    ],
)
def test_a_source_that_cannot_be_is_refused_on_the_command_line_in_one_line(source: str, message: str) -> None:
    with pytest.raises(ExtractInvalid, match=re.escape(message)):
        open_source(source)

    answer = CliRunner().invoke(app, ["validate", source], env={"COLUMNS": "400"})
    assert answer.exit_code == 1
    assert message[:40] in " ".join(answer.output.split())
    assert "Traceback" not in answer.output


def test_a_driver_that_is_not_installed_is_named_with_the_extra_that_installs_it(
    tmp_path: Path,
) -> None:
    database = parse_database("snowflake://clinic/WAREHOUSE")

    def absent_driver() -> object:
        raise ModuleNotFoundError("No module named 'snowflake'")

    absent = replace(database, driver=replace(database.driver, load=absent_driver))

    with pytest.raises(ExtractInvalid, match=r"install it with pip install 'deployr\[snowflake\]'"):
        write_tables(absent, shipped_mapping("omop54"), tmp_path / "tables", steps=silently)
