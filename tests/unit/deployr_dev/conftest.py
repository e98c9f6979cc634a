"""Tiny extracts on disk, and a hospital in memory: what the tests of training start from."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import BirthDate, Demographics, Lab, PatientFacts, Sex
from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_dev.cohorts.tasks import Task, shipped_task
from deployr_dev.sources.fact_source import LabOrder
from deployr_dev.sources.mapping import shipped_mapping

Row = dict[str, object]
DEFAULT_ROWS: dict[str, list[Row]] = {
    "person": [{"person_id": 1, "gender_concept_id": 8532, "year_of_birth": 1950, "person_source_value": "A-1"}],
    "visit_occurrence": [{"visit_occurrence_id": 7, "person_id": 1}],
    "concept": [
        {"concept_id": 3023314, "vocabulary_id": "LOINC", "concept_code": "4544-3"},
        {"concept_id": 8554, "vocabulary_id": "UCUM", "concept_code": "%"},
    ],
}


def csv_text(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Give rows as CSV with a header; a column that a row leaves out is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.fixture
def make_extract(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes an extract; each table's rows are dicts, and what is not named is empty."""

    def make(*, ending: str = ".csv", without: Collection[str] = (), **tables: list[Row]) -> Path:
        folder = tmp_path / "omop"
        folder.mkdir()
        for table, spec in shipped_mapping("omop54").tables.items():
            if table in without or (spec.optional and table not in tables):
                continue
            text = csv_text(list(spec.columns), tables.get(table, DEFAULT_ROWS.get(table, [])))
            path = folder / (table + ending)
            if ending == ".csv.gz":
                path.write_bytes(gzip.compress(text.encode()))
            else:
                path.write_text(text, encoding="utf-8")
        return folder

    return make


@dataclass(frozen=True, kw_only=True)
class FakeHospital:
    """An extract in memory: orders, the results of the predicted test, and each person's facts."""

    orders: tuple[LabOrder, ...]
    results: tuple[tuple[int, Lab], ...]
    people: tuple[PatientFacts, ...]

    def lab_orders(self, panels: Collection[str]) -> Iterator[LabOrder]:
        return (order for order in self.orders if order.panel_loinc in panels)

    def results_of(self, components: Collection[str]) -> Iterator[tuple[int, Lab]]:
        wanted = {Code(LOINC, component) for component in components}
        return ((person, lab) for person, lab in self.results if not wanted.isdisjoint(lab.codes))

    def patients(self, person_ids: Collection[int] | None = None) -> Iterator[PatientFacts]:
        return (who for who in self.people if person_ids is None or int(who.patient_id) in person_ids)


DAY_0 = datetime(2031, 3, 5, 12, tzinfo=UTC)


def a_result(fact_id: str, at: datetime, value: float | None, **changes: Any) -> Lab:
    """Give a hematocrit with the range 35 to 47 %, released half an hour after the specimen."""
    return Lab(
        **{
            "fact_id": fact_id,
            "codes": (Code(LOINC, "4544-3"),),
            "at": at,
            "known_at": at + timedelta(minutes=30),
            "value": value,
            "unit": "%",
            "reference_low": 35.0,
            "reference_high": 47.0,
            **changes,
        }
    )


def an_order(order_id: str, at: datetime, **changes: Any) -> LabOrder:
    """Give an order of person 1 for a blood count."""
    return LabOrder(
        **{
            "person_id": 1,
            "order_id": order_id,
            "visit_occurrence_id": "7",
            "panel_loinc": "58410-2",
            "ordered_at": at,
            "collected_at": None,
            "resulted_at": None,
            **changes,
        }
    )


@pytest.fixture
def result() -> Callable[..., Lab]:
    return a_result


@pytest.fixture
def order() -> Callable[..., LabOrder]:
    return an_order


@pytest.fixture(scope="session")
def task() -> Task:
    return shipped_task("hematocrit")


@pytest.fixture(scope="session")
def hospital() -> Callable[..., FakeHospital]:
    """Give a function that makes a hospital: each person has a level that hardly moves, and an order a day."""

    def make(*, persons: int = 30, days: int = 4, level: Callable[[int], float] | None = None) -> FakeHospital:
        level_of = level or (lambda person: 38.0 if person % 3 == 0 else 30.0)
        orders, results, people = [], [], []
        for person in range(1, persons + 1):
            labs = []
            for day in range(days):
                at = DAY_0 + timedelta(days=day, minutes=person)
                number = f"{person * 100 + day}"
                orders.append(an_order(number, at, person_id=person))
                labs.append(a_result(number, at, level_of(person) + (person * 7 + day * 3) % 5 / 10, order_id=number))
            results += [(person, lab) for lab in labs]
            people.append(
                PatientFacts(
                    patient_id=str(person),
                    demographics=Demographics(birth_date=BirthDate(year=1940 + person), sex=Sex.FEMALE),
                    labs=tuple(labs),
                )
            )
        return FakeHospital(orders=tuple(orders), results=tuple(results), people=tuple(people))

    return make


@pytest.fixture(scope="session")
def declaration() -> FeatureSpec:
    """Give a small declaration: age, and hematocrit in three bins with its last value."""
    return parse_feature_spec(
        b"""{"schema_version": 1, "groups": [
            {"kind": "age", "name": "age", "bins": {"kind": "edges", "edges": [50, 70]}},
            {"kind": "labs", "name": "labs", "lookback_days": 14, "statistics": ["bins", "last", "missing"],
             "analytes": [{"system": "http://loinc.org", "code": "4544-3", "name": "Hematocrit", "unit": "%",
                           "bins": {"kind": "quantiles", "n": 3}}]}]}"""
    )
