"""What a mapping's queries may be, and how one's own warehouse is mapped."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployr_dev.sources.extract import Extract
from deployr_dev.sources.mapping import MappingInvalid, load_mapping, shipped_mapping, shipped_names
from deployr_dev.sources.queries import check_queries, say_query

OURS = """
name: ours
describes: our warehouse
time_zone: Europe/Berlin
tables:
  patients:
    columns: {nr: key, geboren: integer, sex: text}
  results:
    columns: {nr: key, id: key, loinc: text, number: number, drawn: datetime}
    moments: {drawn: [drawn]}
lookups:
  sexes: {W: female, M: male}
facts:
  persons: |
    SELECT nr AS person_id, NULL AS source_value, geboren AS birth_year, NULL AS birth_month, NULL AS birth_day,
      COALESCE(s.value, 'unknown') AS sex
    FROM patients LEFT JOIN sexes AS s ON s.key = sex
  labs: |
    SELECT nr AS person_id, id AS fact_id, 'http://loinc.org' AS system, loinc AS code, number AS value, '' AS unit,
      NULL AS reference_low, NULL AS reference_high, NULL AS order_id, drawn_at AS happened_at,
      drawn_known_at + :result_delay AS known_at
    FROM results
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "source.yaml"
    path.write_text(text)
    return path


def test_a_yaml_file_beside_the_tables_maps_a_warehouse_that_nobody_knows(tmp_path: Path):
    written(tmp_path, OURS)
    (tmp_path / "patients.csv").write_text("nr,geboren,sex\n7,1950,W\n")
    (tmp_path / "results.csv").write_text("nr,id,loinc,number,drawn\n7,1,718-7,13.5,2015-07-06 10:00:00\n")

    with Extract.open(tmp_path) as extract:
        (patient,) = extract.patients()

    assert patient.patient_id == "7"
    assert patient.demographics.sex == "female"
    # 10:00 in Berlin's summer is 8:00 in UTC; the release is taken to be an hour later.
    assert [(lab.at.hour, lab.known_at.hour, lab.abnormal) for lab in patient.labs] == [(8, 9, None)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE patients", "expected one SELECT"),
        ("SELECT 1 AS x; SELECT 2 AS x", "expected one SELECT"),
        ("SELECT FROM WHERE", "is not SQL"),
        ("SELECT * FROM read_csv('/etc/passwd')", "plain names of tables"),
        ("SELECT * FROM '/etc/passwd'", "got /etc/passwd"),
        ("SELECT * FROM other.patients", "plain names of tables"),
        ("SELECT * FROM patient", "tables and views of the mapping, got patient"),
        ("SELECT nr + :delay AS x FROM patients", "got :delay"),
    ],
)
def test_a_query_is_one_select_over_the_mappings_own_tables(tmp_path: Path, sql: str, said: str):
    path = written(tmp_path, OURS[: OURS.index("  labs: |")] + f"  deaths: {sql!r}\n")

    with pytest.raises(MappingInvalid) as raised:
        load_mapping(path)

    assert said in str(raised.value)
    assert f"{path}: the query of the fact table deaths" in str(raised.value)


def test_a_query_that_lacks_a_column_of_its_fact_table_is_refused_by_name(tmp_path: Path):
    written(tmp_path, OURS.replace("'' AS unit,", ""))
    (tmp_path / "patients.csv").write_text("nr,geboren,sex\n")
    (tmp_path / "results.csv").write_text("nr,id,loinc,number,drawn\n")

    with pytest.raises(MappingInvalid, match="expected the query of the fact table labs to give unit"):
        Extract.open(tmp_path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{columns: {nr: whole}}", "kind to be one of key"),
        ("{columns: {nr: key?}}", "never to be missing"),
        ("{columns: {nr: key}, unique: [id]}", "columns that the table lists, got id"),
        ("{columns: {nr: key}, moments: {seen: [nr]}}", "date or datetime"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, table: str, said: str):
    with pytest.raises(MappingInvalid, match=said.replace("?", r"\?")):
        load_mapping(written(tmp_path, f"name: ours\ntables: {{patients: {table}}}\n"))


@pytest.mark.parametrize("name", shipped_names())
def test_the_shipped_queries_are_what_is_asked_of_others(name: str):
    check_queries(shipped_mapping(name), named=name)


@pytest.mark.parametrize("dialect", ["postgres", "spark", "bigquery", "snowflake", "tsql"])
@pytest.mark.parametrize("name", shipped_names())
def test_the_shipped_queries_can_be_said_in_other_dialects_and_read_back(name: str, dialect: str):
    import sqlglot

    mapping = shipped_mapping(name)
    for sql in (*mapping.views.values(), *mapping.facts.values()):
        said = say_query(sql, mapping, rename=lambda table: f"warehouse.{table}", dialect=dialect)
        sqlglot.parse_one(said, read=dialect)
