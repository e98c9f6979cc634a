"""The contract of database sources: the same tables in PostgreSQL and in files give the same bundle, byte for byte."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import psycopg
import pytest
from rich.console import Console

from deployr_cli.train import run_train
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import open_source
from deployr_dev.sources.kinds import Kind
from deployr_dev.sources.mapping import shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid

EICU = Path(__file__).parents[3] / "shared" / "data" / "eicu-demo-paired" / "omop"
OMOP_TYPES = {
    Kind.KEY: "BIGINT",
    Kind.INTEGER: "INTEGER",
    Kind.NUMBER: "NUMERIC",
    Kind.DATE: "DATE",
    Kind.DATETIME: "TIMESTAMP",
}


@pytest.fixture
def url(postgres_folder: Path) -> str:
    return f"postgresql:///postgres?host={postgres_folder}&user=deployr&schema=cdm"


def load(server: psycopg.Connection, folder: Path, scratch: Path) -> None:
    """Load an OMOP extract into the schema ``cdm`` with the types of OMOP's own DDL."""
    files = {path.name.split(".")[0]: path for path in folder.iterdir()}
    for table, spec in shipped_mapping("omop54").tables.items():
        if table not in files:
            continue
        columns = {name: OMOP_TYPES.get(column.kind, "VARCHAR") for name, column in spec.parsed().items()}
        source = duckdb.from_parquet if files[table].suffix == ".parquet" else duckdb.read_csv
        there = source(str(files[table]))
        columns = {name: kind for name, kind in columns.items() if name in there.columns}
        there.project(", ".join(columns)).write_csv(str(scratch / "table.csv"), header=False)
        server.execute(f"CREATE TABLE cdm.{table} ({', '.join(f'{n} {kind}' for n, kind in columns.items())})")
        with server.cursor().copy(f"COPY cdm.{table} FROM STDIN WITH (FORMAT csv)") as copy:
            copy.write((scratch / "table.csv").read_bytes())


def trained_from(source: str, out: Path) -> tuple[bytes, str]:
    """Give the manifest and what was shown."""
    shown = io.StringIO()
    run_train(tasks=["hematocrit"], source=source, out=out, engine_of=SetEngine, console=Console(file=shown))
    return (out / "hematocrit" / "manifest.json").read_bytes(), shown.getvalue()


def test_a_synthetic_hospital_trains_the_same_bundle_from_postgresql(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)

    from_files, _ = trained_from(f"deployr_synthetic:{synthetic}", tmp_path / "files")
    from_database, shown = trained_from(f"deployr_synthetic:{url}", tmp_path / "database")

    # The manifest names every other file by its SHA-256, and its own is the bundle's digest.
    assert from_database == from_files
    assert "Copying measurement" in shown


@pytest.mark.slow
def test_real_patients_have_the_same_facts_from_postgresql(
    server: psycopg.Connection, url: str, tmp_path: Path
) -> None:
    if not EICU.is_dir():
        pytest.skip("needs ../shared/data/eicu-demo-paired, which is not shipped (ODbL)")
    load(server, EICU, tmp_path)

    with open_source(f"eicu_demo:{EICU}") as files, open_source(f"eicu_demo:{url}") as database:
        assert list(database.patients()) == list(files.patients())
        assert database.undated_rows == files.undated_rows


def test_instants_of_postgresql_need_no_zone(server: psycopg.Connection, url: str, tmp_path: Path) -> None:
    mapping = tmp_path / "ours.yaml"
    mapping.write_text(
        """
name: ours
time_zone: Asia/Kathmandu
tables:
  patients: {columns: {nr: key}, unique: [nr]}
  results:
    columns: {nr: key, code: text, drawn: datetime}
    moments: {drawn: [drawn]}
facts:
  persons: >
    SELECT nr AS person_id, NULL AS source_value, NULL AS birth_year, NULL AS birth_month, NULL AS birth_day,
    'unknown' AS sex FROM patients
  labs: >
    SELECT nr AS person_id, code AS fact_id, 'urn:x' AS system, code, NULL AS value, '' AS unit, NULL AS reference_low,
    NULL AS reference_high, NULL AS order_id, drawn_at AS happened_at, drawn_known_at AS known_at FROM results
""",
        encoding="utf-8",
    )
    server.execute('CREATE TABLE cdm."Patients" ("NR" NUMERIC(9, 0))')
    server.execute("CREATE TABLE cdm.results (nr INTEGER, code INTEGER, drawn TIMESTAMPTZ, more TEXT)")
    server.execute("SET TIME ZONE 'America/New_York'")
    server.execute('INSERT INTO cdm."Patients" VALUES (7)')
    server.execute("INSERT INTO cdm.results VALUES (7, 42, '2024-05-01 12:00:00+02', 'unread'), (7, 43, NULL, '')")

    with open_source(f"{mapping}:{url}") as database:
        (patient,) = database.patients()

    assert [(lab.fact_id, lab.at.isoformat()) for lab in patient.labs] == [("42", "2024-05-01T10:00:00+00:00")]


def test_a_value_of_another_kind_is_refused_by_table_column_and_row(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)
    server.execute("ALTER TABLE cdm.person ALTER COLUMN year_of_birth TYPE TEXT")
    server.execute("UPDATE cdm.person SET year_of_birth = 'secret'")

    with pytest.raises(
        ExtractInvalid,
        match=r"^localhost/postgres/cdm/person: expected a whole number in column year_of_birth.* row 1$",
    ):
        open_source(f"omop54:{url}")


def test_everything_that_is_missing_is_said_at_once(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)
    server.execute("DROP TABLE cdm.concept")
    server.execute("ALTER TABLE cdm.measurement DROP COLUMN unit_concept_id, DROP COLUMN range_low")

    with pytest.raises(ExtractInvalid) as refused:
        open_source(f"omop54:{url}")

    assert refused.value.faults == (
        "table measurement lacks the column unit_concept_id, range_low",
        "table concept is missing, or this user may not read it",
    )


def test_a_schema_that_is_not_there_is_named(server: psycopg.Connection, url: str) -> None:
    with pytest.raises(ExtractInvalid, match="there is no schema elsewhere, or no table in it"):
        open_source(f"omop54:{url.replace('schema=cdm', 'schema=elsewhere')}")


def test_a_table_that_this_user_may_not_read_is_missing_to_him(
    server: psycopg.Connection, url: str, synthetic: Path, tmp_path: Path
) -> None:
    load(server, synthetic, tmp_path)
    server.execute("DROP ROLE IF EXISTS analyst")
    server.execute("CREATE ROLE analyst LOGIN")
    server.execute("GRANT USAGE ON SCHEMA cdm TO analyst")

    with pytest.raises(ExtractInvalid, match="no schema cdm, or no table in it that this user may read"):
        open_source(f"omop54:{url.replace('user=deployr', 'user=analyst')}")


def test_a_server_that_does_not_answer_is_said_without_a_secret(
    postgres_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "top-secret")

    with pytest.raises(ExtractInvalid, match="localhost/nowhere/public: cannot connect: ") as refused:
        open_source(f"omop54:postgresql:///nowhere?host={postgres_folder}&user=deployr")

    assert "top-secret" not in str(refused.value)
