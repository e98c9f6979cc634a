"""An extract that is not what it should be is refused before any work, by table, column and row, never by value."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from deployr_dev.sources.omop import OmopExtract
from deployr_dev.sources.omop_tables import REQUIRED_TABLES
from deployr_dev.sources.tables import ExtractInvalid

MakeExtract = Callable[..., Path]


def refusal(folder: Path) -> str:
    """Give the message of the refusal; nothing of what DuckDB says, which quotes rows, may hang on to it."""
    with pytest.raises(ExtractInvalid) as raised:
        OmopExtract.open(folder)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return str(raised.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    assert str(tmp_path / "absent") in refusal(tmp_path / "absent")


@pytest.mark.parametrize("table", sorted(REQUIRED_TABLES))
def test_a_missing_table_is_named_with_its_folder_and_what_was_expected(make_extract: MakeExtract, table: str):
    folder = make_extract(without={table})

    message = refusal(folder)

    assert str(folder) in message
    assert f"table {table} is missing (expected {table}.csv, {table}.csv.gz, {table}.parquet)" in message


def test_everything_that_is_missing_is_said_at_once(make_extract: MakeExtract):
    folder = make_extract(without={"concept"})
    (folder / "visit_occurrence.csv").write_text("person_id\n1\n")

    message = refusal(folder)

    assert "table concept is missing" in message
    assert "visit_occurrence.csv lacks the column visit_occurrence_id" in message


def test_an_empty_file_lacks_its_columns(make_extract: MakeExtract):
    folder = make_extract()
    (folder / "person.csv").write_text("")

    assert "person.csv lacks the column person_id" in refusal(folder)


def test_a_table_that_is_there_twice_is_refused(make_extract: MakeExtract):
    folder = make_extract()
    (folder / "person.csv.gz").write_bytes(gzip.compress((folder / "person.csv").read_bytes()))

    assert "table person is there 2 times: person.csv, person.csv.gz" in refusal(folder)


def test_a_gzip_file_that_was_cut_off_is_named(make_extract: MakeExtract):
    many = [{"visit_occurrence_id": n, "person_id": n * 7919 % 1009} for n in range(20_000)]
    folder = make_extract(ending=".csv.gz", visit_occurrence=many)
    path = folder / "visit_occurrence.csv.gz"
    path.write_bytes(path.read_bytes()[:-1000])

    assert f"{path}: cannot be read" in refusal(folder)


def test_a_gzip_file_that_is_none_is_named(make_extract: MakeExtract):
    folder = make_extract(ending=".csv.gz")
    (folder / "person.csv.gz").write_bytes(b"person_id\n1\n")

    assert "person.csv.gz: cannot be read" in refusal(folder)


def test_a_csv_that_was_cut_off_within_a_row_is_named(make_extract: MakeExtract):
    folder = make_extract()
    path = folder / "person.csv"
    path.write_text(path.read_text().rstrip("\n").rsplit(",", 3)[0])

    assert f"{path}: cannot be read" in refusal(folder)


def test_a_parquet_file_without_its_end_is_named(make_extract: MakeExtract):
    folder = make_extract(without={"person"})
    (folder / "person.parquet").write_bytes(b"PAR1 and then the disk was full")

    assert "person.parquet: cannot be read" in refusal(folder)


def test_a_csv_in_latin_1_is_named(make_extract: MakeExtract):
    folder = make_extract()
    path = folder / "person.csv"
    path.write_bytes(path.read_bytes().replace(b"A-1", "Zoë".encode("latin-1")))

    message = refusal(folder)

    assert f"{path}: cannot be read" in message
    assert "UTF-8" in message


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("person_id", "", "a whole number in every row"),
        ("person_id", "1.5", "a whole number"),
        ("value_as_number", "13,7", "a number"),
        ("measurement_date", "06.01.2015", "a date such as"),
        ("measurement_datetime", "2015-01-06 20:55:00-05:00", "without a zone"),
        ("measurement_datetime", "2015-01-06T20:55:00Z", "without a zone"),
        ("measurement_datetime", "yesterday", "without a zone"),
    ],
)
def test_a_value_of_another_kind_is_named_by_column_and_row_but_never_repeated(
    make_extract: MakeExtract, column: str, value: str, expected: str
):
    good = {"measurement_id": 1, "person_id": 1, "measurement_date": "2015-01-06"}
    folder = make_extract(measurement=[good, {**good, "measurement_id": 2, column: value}])

    message = refusal(folder)

    assert "measurement.csv" in message
    assert f"in column {column}, got something else in row 2" in message
    assert expected in message
    assert not value or value not in message.replace(str(folder), "").replace("2015-01-06 20:55:00,", "")


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("person", {"person_id": 1}),
        ("concept", {"concept_id": 5, "vocabulary_id": "LOINC", "concept_code": "1-8"}),
        ("ext_lab_order", {"order_id": 9, "person_id": 1, "order_datetime": "2015-01-06 20:55:00"}),
    ],
)
def test_a_key_that_is_joined_on_must_not_be_there_twice(make_extract: MakeExtract, table: str, row: dict[str, object]):
    folder = make_extract(**{table: [row, row]})

    assert f"{table}.csv: expected each" in refusal(folder)


def test_a_birth_date_that_does_not_exist_is_refused(make_extract: MakeExtract):
    who = {"person_id": 1, "year_of_birth": 1951, "month_of_birth": 2, "day_of_birth": 30}
    folder = make_extract(person=[who])

    assert "expected dates of birth that exist, got 1" in refusal(folder)


def test_a_refused_extract_leaves_no_temporary_folder(
    make_extract: MakeExtract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    refusal(make_extract(without={"concept"}))

    assert list(scratch.iterdir()) == []
