"""One file per fact table, as analysts hand them out: CSV, Excel or Parquet."""

# ruff: noqa: DTZ001 — the fact tables hold UTC without saying so

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import DiagnosisList, OrderStatus, Sex
from deployr_dev.sources.extract import Extract
from deployr_dev.sources.mapping import shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid

PERSONS = "person_id,source_value,birth_year,sex\n1,A-1,1950,female\n"
LABS = "person_id,fact_id,code,value,unit,happened_at,known_at\n"
EIGHT = datetime(2015, 1, 6, 8, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes tables as CSV; persons are there unless said otherwise."""

    def write(**tables: str) -> Path:
        for name, text in {"persons": PERSONS, **tables}.items():
            (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def refusal(folder: Path) -> str:
    with pytest.raises(ExtractInvalid) as raised:
        Extract.open(folder)
    return str(raised.value)


def test_the_fact_tables_own_columns_are_enough(folder: Callable[..., Path]):
    path = folder(
        labs=LABS + "1,L1,718-7,13.5,g/dL,2015-01-06 08:00:00,2015-01-06 09:00:00\n",
        diagnoses="person_id,fact_id,code,happened_at\n1,D1,I48.0,2015-01-06 08:00:00\n",
        orders="person_id,fact_id,code,cancelled,happened_at\n1,O1,58410-2,true,2015-01-06 08:00:00\n",
        visits="person_id,fact_id,code,happened_at\n1,V1,IMP,2015-01-06 08:00:00\n",
    )

    with Extract.open(path) as extract:
        (patient,) = extract.patients()
        assert extract.mapping.name == "flat"

    assert patient.demographics.sex is Sex.FEMALE
    assert [(lab.codes, lab.value, lab.at, lab.known_at) for lab in patient.labs] == [
        ((Code(LOINC, "718-7"),), 13.5, EIGHT, EIGHT + timedelta(hours=1))
    ]
    assert [(fact.codes[0].value, fact.recorded_in) for fact in patient.diagnoses] == [
        ("I48.0", DiagnosisList.ENCOUNTER)
    ]
    assert [order.status for order in patient.orders] == [OrderStatus.CANCELLED]
    assert [visit.codes[0].value for visit in patient.visits] == ["IMP"]


def test_a_result_without_a_release_is_known_after_the_mappings_delay(folder: Callable[..., Path]):
    path = folder(labs=LABS + "1,L1,718-7,13.5,g/dL,2015-01-06 08:00:00,\n")

    with Extract.open(path) as extract:
        (patient,) = extract.patients()

    assert patient.labs[0].known_at == EIGHT + timedelta(minutes=60)


def test_a_fact_with_two_codes_has_a_row_for_each(folder: Callable[..., Path]):
    rows = [f"1,M1,{system},{code},2015-01-06 08:00:00\n" for system, code in (("urn:b", "2"), ("urn:a", "1"))]
    path = folder(medications="person_id,fact_id,system,code,happened_at\n" + "".join(rows))

    with Extract.open(path) as extract:
        (patient,) = extract.patients()

    assert [fact.codes for fact in patient.medications] == [(Code("urn:a", "1"), Code("urn:b", "2"))]


def test_two_facts_under_one_id_are_refused_and_not_merged(folder: Callable[..., Path]):
    rows = "1,L1,718-7,13.5,g/dL,2015-01-06 08:00:00,\n1,L1,718-7,9.5,g/dL,2015-01-07 08:00:00,\n"

    with Extract.open(folder(labs=LABS + rows)) as extract, pytest.raises(ExtractInvalid, match="two facts under one"):
        list(extract.patients())


def test_a_workbook_gives_the_same_facts(tmp_path: Path):
    persons, labs = openpyxl.Workbook(), openpyxl.Workbook()
    persons.active.append(["person_id", "birth_year", "sex"])
    persons.active.append([1, 1950, "Female"])
    persons.save(tmp_path / "persons.xlsx")
    labs.active.title = "notes"
    sheet = labs.create_sheet("Labs")
    sheet.append(["PERSON_ID", "fact_id", "code", "value", "unit", "happened_at", "known_at", None])
    sheet.append([1, 17, "718-7", 13.5, "g/dL", datetime(2015, 1, 6, 8), datetime(2015, 1, 6, 9, 30)])
    sheet.append([None] * 7)
    labs.save(tmp_path / "labs.xlsx")

    with Extract.open(tmp_path) as extract:
        (patient,) = extract.patients()

    assert patient.demographics.sex is Sex.FEMALE
    assert [(lab.fact_id, lab.value, lab.known_at) for lab in patient.labs] == [
        ("17", 13.5, datetime(2015, 1, 6, 9, 30, tzinfo=UTC))
    ]


def test_an_excel_file_that_is_none_is_named_with_what_to_do(folder: Callable[..., Path], tmp_path: Path):
    (tmp_path / "labs.xlsx").write_text("<html>exported</html>")

    message = refusal(folder())

    assert f"{tmp_path / 'labs.xlsx'}: cannot be read: expected an Excel workbook" in message
    assert "CSV" in message


def test_a_workbook_of_several_sheets_needs_one_with_the_tables_name(folder: Callable[..., Path], tmp_path: Path):
    book = openpyxl.Workbook()
    book.create_sheet("second")
    book.save(tmp_path / "labs.xlsx")

    assert "expected a sheet called labs, or one sheet only, got 2 sheets" in refusal(folder())


def test_a_wrong_value_is_named_by_file_column_and_row(folder: Callable[..., Path], tmp_path: Path):
    good, bad = ("1,L1,718-7,13.5,g/dL,2015-01-06 08:00:00,\n", "1,L2,718-7,high,g/dL,2015-01-06 08:00:00,\n")

    message = refusal(folder(labs=LABS + good + bad))

    assert message == f"{tmp_path / 'labs.csv'}: expected a number in column value, got something else in row 2"


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"persons": "person_id,sex\n1,lady\n"}, "expected the column sex of persons to say female or male or other"),
        ({"persons": PERSONS + "1,A-2,1951,male\n"}, "expected each person_id once"),
        ({"labs": LABS + ",L1,718-7,1,,2015-01-06 08:00:00,\n"}, "a whole number in every row in column person_id"),
        ({"labs": LABS + "1,,718-7,1,,2015-01-06 08:00:00,\n"}, "a text in every row in column fact_id"),
        ({"labs": "person_id;fact_id;code\n1;2;3\n"}, "is it separated by semicolons or tabs?"),
    ],
)
def test_what_may_not_stand_there_is_refused(folder: Callable[..., Path], tables: dict[str, str], said: str):
    assert said in refusal(folder(**tables))


def test_parquet_is_never_copied(folder: Callable[..., Path], tmp_path: Path):
    labs = pa.table(
        {
            "person_id": [1, 1],
            "fact_id": ["a", "b"],
            "system": [LOINC, LOINC],
            "code": ["718-7", "718-7"],
            "value": [13.5, 12.0],
            "unit": ["g/dL", "g/dL"],
            "happened_at": pa.array([EIGHT.replace(tzinfo=None)] * 2, pa.timestamp("us")),
            "known_at": pa.array([EIGHT.replace(tzinfo=None)] * 2, pa.timestamp("us")),
        }
    )
    (tmp_path / "labs").mkdir()
    pq.write_table(labs.slice(0, 1), tmp_path / "labs" / "part-0.parquet")
    pq.write_table(labs.slice(1, 1), tmp_path / "labs" / "part-1.parquet")

    with Extract.open(folder()) as extract:
        tables = extract.connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'")
        assert "labs" not in {row[0] for row in tables.fetchall()}
        plan = extract.connection.execute(
            "EXPLAIN SELECT * FROM labs WHERE code = '718-7' AND person_id = 1"
        ).fetchall()
        assert [lab.fact_id for patient in extract.patients() for lab in patient.labs] == ["a", "b"]

    scanned = plan[0][1][plan[0][1].index("PARQUET") :]
    assert "code='718-7'" in scanned.replace(" ", "").replace("\n", "").replace("│", "")


def test_days_are_days_in_the_mappings_zone(folder: Callable[..., Path]):
    rows = "1,L1,718-7,1,,2015-07-06,\n1,L2,718-7,1,,2015-01-06,\n"
    mapping = msgspec.structs.replace(shipped_mapping("flat"), time_zone="America/New_York", result_delay_minutes=0)

    with Extract.open(folder(labs=LABS + rows), mapping) as extract:
        (patient,) = extract.patients()

    assert [(lab.at, lab.known_at) for lab in patient.labs] == [
        (datetime(2015, 7, 6, 4, tzinfo=UTC), datetime(2015, 7, 7, 4, tzinfo=UTC)),
        (datetime(2015, 1, 6, 5, tzinfo=UTC), datetime(2015, 1, 7, 5, tzinfo=UTC)),
    ]


@pytest.mark.parametrize("released", [None, EIGHT.replace(tzinfo=None)], ids=["one is NULL", "all are there"])
def test_the_release_falls_back_on_the_delay_where_a_parquet_file_has_none(
    folder: Callable[..., Path], tmp_path: Path, released: datetime | None
):
    times = pa.array([EIGHT.replace(tzinfo=None)] * 2, pa.timestamp("us"))
    labs = pa.table(
        {
            "person_id": [1, 1],
            "fact_id": ["a", "b"],
            "code": ["718-7", "718-7"],
            "value": [13.5, 12.0],
            "happened_at": times,
            "known_at": pa.array([released, EIGHT.replace(tzinfo=None)], pa.timestamp("us")),
        }
    )
    pq.write_table(labs, tmp_path / "labs.parquet")

    with Extract.open(folder()) as extract:
        (patient,) = extract.patients()

    assert [lab.known_at - EIGHT for lab in patient.labs] == [timedelta(hours=released is None), timedelta(0)]
    assert {lab.codes for lab in patient.labs} == {(Code(LOINC, "718-7"),)}
