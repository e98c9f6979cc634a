"""An extract that is not what it should be is refused before any work, by table, column and row, never by value."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from deployr_dev.sources.extract import Extract
from deployr_dev.sources.mapping import shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid

MakeExtract = Callable[..., Path]
REQUIRED_TABLES = [name for name, table in shipped_mapping("omop54").tables.items() if not table.optional]


def refusal(folder: Path) -> str:
    """Give the message of the refusal; nothing of what DuckDB says, which quotes rows, may hang on to it."""
    with pytest.raises(ExtractInvalid) as raised:
        Extract.open(folder)
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
    assert f"table {table} is missing (expected {table}.csv, {table}.csv.gz, {table}.parquet, {table}.xlsx)" in message


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


def test_what_is_wrong_with_a_csv_is_said_with_its_row_and_a_remedy(make_extract: MakeExtract):
    folder = make_extract(person=[{"person_id": n, "person_source_value": f"A-{n}"} for n in (1, 2, 3)])
    path = folder / "person.csv"
    whole = path.read_bytes()

    path.write_bytes(whole.replace(b"A-2", "Zoë".encode("latin-1")))
    assert "line 3 is not UTF-8 but perhaps Latin-1 or Windows-1252; save the file as UTF-8" in refusal(folder)
    path.write_bytes(whole.replace(b"A-2", b"A,2"))
    assert "expected 8 values in row 2, got 9; was the file cut off, or a comma" in refusal(folder)


def test_a_gzip_file_says_whether_it_is_cut_off_or_none(make_extract: MakeExtract):
    folder = make_extract(ending=".csv.gz")
    path = folder / "person.csv.gz"

    path.write_bytes(path.read_bytes()[:-9])
    assert "the gzip file is cut off or damaged; copy or export it again" in refusal(folder)
    path.write_bytes(b"person_id\n1\n")
    assert "expected a gzip file, as its name says" in refusal(folder)


def test_half_a_parquet_file_says_to_export_it_again(make_extract: MakeExtract):
    folder = make_extract(without={"person"})
    (folder / "person.parquet").write_bytes(b"PAR1 and then the disk was full")

    assert "it is no whole Parquet file; was its writing interrupted? Export it again" in refusal(folder)


def test_each_fault_is_on_its_own_for_the_validator(make_extract: MakeExtract):
    folder = make_extract(without={"concept", "person"})

    with pytest.raises(ExtractInvalid) as raised:
        Extract.open(folder)

    assert [fault.split(" (")[0] for fault in raised.value.faults] == [
        "table person is missing",
        "table concept is missing",
    ]


def test_a_key_missing_in_parquet_is_named_by_row(make_extract: MakeExtract):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = make_extract(without={"visit_occurrence"})
    columns = list(shipped_mapping("omop54").tables["visit_occurrence"].columns)
    table = {name: pa.array([None, None], pa.int64() if name.endswith("_id") else pa.string()) for name in columns}
    table |= {"visit_occurrence_id": pa.array([1, None], pa.int64()), "person_id": pa.array([1, 1], pa.int64())}
    pq.write_table(pa.table(table), folder / "visit_occurrence.parquet")

    assert "a whole number in every row in column visit_occurrence_id, got something else in row 2" in refusal(folder)
