"""The contract of warehouses that stay where they are: the bundle is that of the files, byte for byte."""

from __future__ import annotations

import os
import shutil
import traceback
from pathlib import Path

import duckdb
import psycopg
import pytest

from deployr_dev.sources.drivers import parse_database
from deployr_dev.sources.extract import open_source, shown_source
from deployr_dev.sources.in_place import open_warehouse
from deployr_dev.sources.in_place_engines import PostgreSqlEngine, SparkEngine
from deployr_dev.sources.kinds import SQL_TYPE
from deployr_dev.sources.mapping import MappingInvalid, shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid
from tests.contract.test_databases_are_as_extracts import EICU, load, trained_from


@pytest.fixture
def url(postgres_folder: Path) -> str:
    return f"postgresql:///postgres?host={postgres_folder}&user=deployr&schema=cdm&in_place=yes"


def as_parquet(folder: Path, out: Path) -> Path:
    """Write an OMOP extract as typed Parquet, as a lake has it."""
    out.mkdir()
    files = {path.name.split(".")[0]: path for path in folder.iterdir()}
    for table, spec in shipped_mapping("omop54").tables.items():
        if table not in files:
            continue
        read = "read_parquet" if files[table].suffix == ".parquet" else "read_csv"
        every = "" if read == "read_parquet" else ", all_varchar = true"
        there = f"{read}('{files[table]}'{every})"
        names = [row[0] for row in duckdb.sql(f"DESCRIBE SELECT * FROM {there}").fetchall()]  # noqa: S608 our own names
        typed = ", ".join(
            f"CAST(nullif(CAST({name} AS VARCHAR), '') AS {SQL_TYPE[column.kind]}) AS {name}"
            for name, column in spec.parsed().items()
            if name in names
        )
        duckdb.sql(f"COPY (SELECT {typed} FROM {there}) TO '{out / table}.parquet' (FORMAT parquet)")  # noqa: S608
    return out


@pytest.mark.proof
def test_a_synthetic_hospital_trains_the_same_bundle_while_it_stays_in_postgresql(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)

    in_place, _ = trained_from(f"deployr_synthetic:{url}", tmp_path / "there")
    from_files, _ = trained_from(f"deployr_synthetic:{synthetic}", tmp_path / "files")
    assert in_place == from_files
    left = server.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'source_%' OR relname = 'labs'").fetchone()
    assert left == (0,)


@pytest.mark.slow
def test_patients_have_the_same_facts_where_they_stay_in_postgresql(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)

    with (
        open_source(f"deployr_synthetic:{synthetic}") as files,
        open_warehouse(f"deployr_synthetic:{url}") as there,
    ):
        some = files.person_ids()[:7]
        assert there.person_ids() == files.person_ids()
        assert list(there.patients(some)) == list(files.patients(some))
        assert list(there.lab_orders(["20570-8", "4544-3"])) == list(files.lab_orders(["20570-8", "4544-3"]))
        assert there.demographics(some) == files.demographics(some)


def test_a_column_of_another_type_is_refused_by_table_and_column(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)
    server.execute("ALTER TABLE cdm.person ALTER COLUMN year_of_birth TYPE TEXT")
    with pytest.raises(ExtractInvalid, match=r"cdm/person: expected a whole number in column year_of_birth, by its"):
        open_warehouse(f"omop54:{url}")
    server.execute("ALTER TABLE cdm.person ALTER COLUMN year_of_birth TYPE INTEGER USING year_of_birth::INTEGER")
    server.execute("INSERT INTO cdm.person (person_id) SELECT min(person_id) FROM cdm.person")
    with pytest.raises(ExtractInvalid, match="cdm/person: expected each person_id once, got 1 of them more than once"):
        open_warehouse(f"omop54:{url}")
    server.execute("ALTER TABLE cdm.measurement DROP COLUMN unit_concept_id")
    with pytest.raises(ExtractInvalid, match="table measurement lacks the column unit_concept_id"):
        open_warehouse(f"omop54:{url}")


def test_what_copies_its_source_and_what_cannot_stay_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(ExtractInvalid, match="in_place=yes: expected of `deployr train` and `run` alone"):
        open_source("omop54:postgresql://host/db?in_place=yes")
    with pytest.raises(ExtractInvalid, match="expected in_place=yes of postgresql:// alone"):
        open_warehouse("omop54:snowflake://ours/db?in_place=yes")
    with pytest.raises(ExtractInvalid, match="`deployr train` and `run` take spark://"):
        open_source("omop54:spark:///?schema=cdm")
    with pytest.raises(ExtractInvalid, match=r"expected spark://\[HOST:PORT\]/\?schema=NAME"):
        open_warehouse("omop54:spark://host:7077/cdm")
    assert shown_source("omop54:spark://ada@host:7077/?schema=cdm&token=hidden") == "omop54:spark://host"
    (tmp_path / "ours.yaml").write_text("name: ours\nextends: omop54\nfacts: {labs: 'SELECT 1 FROM nowhere'}\n")
    with pytest.raises(MappingInvalid):
        open_warehouse(f"{tmp_path / 'ours.yaml'}:postgresql://host/db?in_place=yes")


def test_a_query_that_fails_in_postgresql_is_told_without_what_it_read(server: psycopg.Connection, url: str) -> None:
    database = parse_database(url.replace("&in_place=yes", ""))
    engine = PostgreSqlEngine(database)

    with pytest.raises(ExtractInvalid, match=r"did not do what was asked \(InvalidTextRepresentation\)") as raised:
        list(engine.backend.stream("SELECT CAST('47' || '11x' AS INTEGER)", {}))
    assert "4711" not in "".join(traceback.format_exception(raised.value))
    engine.close()


@pytest.fixture
def local_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not on this machine")
    if "PYSPARK_SUBMIT_ARGS" not in os.environ:
        settings = "--conf spark.driver.host=127.0.0.1 --conf spark.driver.bindAddress=127.0.0.1"
        quick = "--conf spark.sql.shuffle.partitions=2 --conf spark.ui.enabled=false --master local[2]"
        monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{settings} {quick} pyspark-shell")


@pytest.mark.proof
@pytest.mark.usefixtures("local_spark")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_query_that_fails_on_spark_is_told_without_what_it_read(capfd: pytest.CaptureFixture[str]) -> None:
    engine = SparkEngine("spark:///?schema=cdm")

    with pytest.raises(ExtractInvalid, match="spark/cdm: Spark ") as raised:
        list(engine.backend.stream("SELECT CAST(concat('47', '11x', id) AS INTEGER) FROM range(2)", {}))
    engine.close()
    assert "4711" not in "".join((*traceback.format_exception(raised.value), *capfd.readouterr()))


@pytest.mark.proof
@pytest.mark.usefixtures("local_spark")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_real_patients_train_the_same_bundle_while_they_stay_on_spark(tmp_path: Path) -> None:
    if not EICU.is_dir():
        pytest.skip("needs ../shared/data/eicu-demo-paired, which is not shipped (ODbL)")
    lake = as_parquet(EICU, tmp_path / "lake")

    on_spark, _ = trained_from(f"eicu_demo:spark:///?folder={lake}", tmp_path / "spark")

    from_files, _ = trained_from(f"eicu_demo:{EICU}", tmp_path / "files")
    assert on_spark == from_files
