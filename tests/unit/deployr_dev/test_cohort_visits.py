"""Rows that are visits: when they are predicted, and what became of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import msgspec
import pytest

from deployr_core.codes import ICD10CM, Code
from deployr_core.facts import BirthDate, Diagnosis, DiagnosisList
from deployr_core.label_rules import FhirPathRule, FhirPathSearch
from deployr_dev.cohorts.cohort import cohort_rows, index_rows
from deployr_dev.cohorts.rows import CohortRow, Unlabelled
from deployr_dev.cohorts.rules import Inclusion
from deployr_dev.cohorts.sources import DeathRecord, FactTables, NotInExtract, VisitRecord, visit_source_of
from deployr_dev.cohorts.tasks import Task, shipped_task

ADMITTED = datetime(2031, 3, 5, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FOLLOWED = ADMITTED + 400 * DAY


@dataclasses.dataclass
class Hospital:
    """Visits and deaths as an extract gives them; somebody else's visit marks the end of the data."""

    there: list[VisitRecord]
    died: list[DeathRecord] = dataclasses.field(default_factory=list)
    data_end: datetime = FOLLOWED

    def visits(self) -> Iterator[VisitRecord]:
        yield from self.there
        yield a_visit("last", self.data_end, self.data_end, person_id=999, classes=frozenset({"AMB"}))

    def deaths(self) -> list[DeathRecord]:
        return self.died

    def birth_dates(self) -> list[tuple[int, BirthDate]]:
        return [(person, BirthDate(year=1980)) for person in (1, 2, 3)]

    def lab_orders(self, panels: object) -> list[Any]:
        return []

    def results_of(self, components: object) -> list[Any]:
        return []


def a_visit(visit_id: str, began_at: datetime, ended_at: datetime | None, **changes: Any) -> VisitRecord:
    return VisitRecord(
        **{
            "person_id": 1,
            "visit_id": visit_id,
            "classes": frozenset({"IMP"}),
            "began_at": began_at,
            "ended_at": ended_at,
            "discharged_to": None,
            "known_at": began_at,
            **changes,
        }
    )


def only(task: str | Task, *visits: VisitRecord, **there: Any) -> CohortRow:
    """Give the row of the first visit."""
    chosen = shipped_task(task) if isinstance(task, str) else task
    rows = cohort_rows(Hospital(list(visits), **there), chosen)
    (row,) = [row for row in rows if row.unit_id == visits[0].visit_id]
    return row


def rows_of(task: str, *visits: VisitRecord, **there: Any) -> list[str]:
    return [row.unit_id for row in index_rows(Hospital(list(visits), **there), shipped_task(task))]


@pytest.mark.parametrize(("hours", "is_row"), [(23, False), (24, False), (25, True)])
def test_who_is_still_there_after_a_day_is_a_row(hours: int, is_row: bool):
    visit = a_visit("v", ADMITTED, ADMITTED + hours * HOUR)

    assert rows_of("long_stay", visit) == (["v"] if is_row else [])


def test_a_visit_that_has_not_ended_is_a_row_once_the_data_reach_its_index_time():
    assert rows_of("long_stay", a_visit("v", ADMITTED, None)) == ["v"]
    assert rows_of("long_stay", a_visit("v", ADMITTED, None), data_end=ADMITTED + 23 * HOUR) == []


def test_visits_of_other_classes_and_children_are_no_rows():
    visits = [
        a_visit("clinic", ADMITTED, ADMITTED + 2 * DAY, classes=frozenset({"AMB"})),
        a_visit("unknown age", ADMITTED, ADMITTED + 2 * DAY, person_id=77),
        a_visit("v", ADMITTED, ADMITTED + 2 * DAY),
    ]

    assert rows_of("long_stay", *visits) == ["v"]


@pytest.mark.parametrize(
    ("stayed", "label", "known"),
    [(7 * DAY - HOUR, 0.0, 7 * DAY - HOUR), (7 * DAY, 1.0, 7 * DAY), (9 * DAY, 1.0, 7 * DAY)],
)
def test_a_long_stay_is_known_when_it_ends_or_when_it_has_become_one(stayed: timedelta, label: float, known: timedelta):
    row = only("long_stay", a_visit("v", ADMITTED, ADMITTED + stayed))

    assert (row.index_time, row.label, row.label_known_at) == (ADMITTED + DAY, label, ADMITTED + known)


def test_a_stay_that_has_not_ended_is_long_once_its_days_are_over():
    assert only("long_stay", a_visit("v", ADMITTED, None)).label == 1.0
    unknown = only("long_stay", a_visit("v", ADMITTED, None), data_end=ADMITTED + 6 * DAY)
    assert (unknown.label, unknown.unlabelled) == (None, Unlabelled.NOT_ENDED)


@pytest.mark.parametrize(
    ("visit", "deaths", "label"),
    [
        ({}, [], 0.0),
        ({"discharged_to": "exp"}, [], 1.0),
        ({"discharged_to": "Expired"}, [], 1.0),
        ({"discharged_to": "home"}, [], 0.0),
        ({}, [3 * DAY - HOUR], 1.0),
        ({}, [3 * DAY], 1.0),
        ({}, [3 * DAY + HOUR], 0.0),
    ],
)
def test_who_dies_before_the_visit_ends_died_in_hospital(visit: dict[str, Any], deaths: list[timedelta], label: float):
    died = [DeathRecord(person_id=1, earliest=ADMITTED + after, latest=ADMITTED + after) for after in deaths]

    row = only("in_hospital_mortality", a_visit("v", ADMITTED, ADMITTED + 3 * DAY, **visit), died=died)

    assert (row.label, row.label_known_at) == (label, ADMITTED + 3 * DAY)


def test_a_death_of_which_only_the_day_is_known_counts_on_the_day_of_discharge():
    midnight = (ADMITTED + 3 * DAY).replace(hour=0)
    died = [DeathRecord(person_id=1, earliest=midnight, latest=midnight + DAY)]

    assert only("in_hospital_mortality", a_visit("v", ADMITTED, ADMITTED + 3 * DAY), died=died).label == 1.0


def test_a_visit_that_has_not_ended_has_no_mortality_label():
    row = only("in_hospital_mortality", a_visit("v", ADMITTED, None))

    assert (row.label, row.unlabelled) == (None, Unlabelled.NOT_ENDED)


@pytest.mark.parametrize(
    ("after", "label"),
    [(0 * DAY, 0.0), (HOUR, 1.0), (30 * DAY - HOUR, 1.0), (30 * DAY, 0.0), (60 * DAY, 0.0)],
)
def test_a_readmission_begins_within_the_days_and_neither_end_counts(after: timedelta, label: float):
    discharged = ADMITTED + 2 * DAY
    again = a_visit("again", discharged + after, discharged + after + DAY)

    row = only("readmission_30d", a_visit("v", ADMITTED, discharged), again)

    assert (row.index_time, row.label) == (discharged, label)
    assert row.label_known_at == discharged + (after if label else 30 * DAY)


def test_a_visit_of_another_class_is_no_readmission():
    clinic = a_visit("clinic", ADMITTED + 3 * DAY, ADMITTED + 3 * DAY, classes=frozenset({"AMB"}))

    assert only("readmission_30d", a_visit("v", ADMITTED, ADMITTED + 2 * DAY), clinic).label == 0.0


def test_who_died_in_hospital_is_no_row_at_discharge():
    assert rows_of("readmission_30d", a_visit("v", ADMITTED, ADMITTED + DAY, discharged_to="exp")) == []


def test_nobody_knows_of_readmissions_after_the_data_end():
    row = only(
        "readmission_30d", a_visit("v", ADMITTED, ADMITTED + DAY), data_end=ADMITTED + 31 * DAY - timedelta(seconds=1)
    )

    assert (row.label, row.unlabelled) == (None, Unlabelled.NOT_FOLLOWED)


def icu(began_at: datetime, ended_at: datetime | None = None) -> VisitRecord:
    return a_visit("icu", began_at, ended_at, classes=frozenset({"ICU"}))


@pytest.mark.parametrize(("after", "label"), [(7 * HOUR, 1.0), (30 * HOUR - HOUR, 1.0), (30 * HOUR, 0.0)])
def test_a_transfer_to_intensive_care_counts_within_its_hours(after: timedelta, label: float):
    row = only("icu_transfer", a_visit("v", ADMITTED, ADMITTED + 9 * DAY), icu(ADMITTED + after))

    assert (row.index_time, row.label) == (ADMITTED + 6 * HOUR, label)


def test_who_is_in_intensive_care_at_the_index_time_is_no_row_and_who_left_it_is():
    visit = a_visit("v", ADMITTED, ADMITTED + 9 * DAY)

    assert rows_of("icu_transfer", visit, icu(ADMITTED + HOUR, ADMITTED + 8 * HOUR)) == []
    assert rows_of("icu_transfer", visit, icu(ADMITTED + HOUR, ADMITTED + 6 * HOUR)) == ["v"]


def test_intensive_care_after_the_visit_is_none_of_its_own():
    row = only("icu_transfer", a_visit("v", ADMITTED, ADMITTED + 10 * HOUR), icu(ADMITTED + 12 * HOUR))

    assert (row.label, row.label_known_at) == (0.0, ADMITTED + 10 * HOUR)


def test_a_source_without_intensive_care_or_without_such_visits_is_refused_in_words():
    with pytest.raises(NotInExtract, match="class ICU, got none"):
        rows_of("icu_transfer", a_visit("v", ADMITTED, ADMITTED + DAY))
    with pytest.raises(NotInExtract, match="class IMP, ACUTE, got none"):
        rows_of("long_stay")


@pytest.mark.parametrize(
    ("after", "label"),
    [(0 * HOUR, 1.0), (30 * DAY - timedelta(microseconds=1), 1.0), (30 * DAY, 0.0), (-HOUR, Unlabelled.DEAD_BEFORE)],
)
def test_a_death_counts_within_its_days_wherever_it_happens(after: timedelta, label: object):
    at = ADMITTED + DAY + after
    died = [DeathRecord(person_id=1, earliest=at, latest=at)]

    row = only("mortality_30d", a_visit("v", ADMITTED, ADMITTED + 3 * DAY), died=died)

    assert (row.label if row.unlabelled is None else row.unlabelled) == label


def test_of_a_mere_day_of_death_that_the_end_cuts_nobody_can_tell():
    ends = ADMITTED + 31 * DAY
    cut = [DeathRecord(person_id=1, earliest=ends - HOUR, latest=ends + 23 * HOUR)]

    row = only("mortality_30d", a_visit("v", ADMITTED, ADMITTED + 3 * DAY), died=cut)

    assert (row.label, row.unlabelled) == (None, Unlabelled.COARSE_DATE)


def test_nobody_knows_who_is_alive_after_the_data_end():
    row = only("mortality_30d", a_visit("v", ADMITTED, ADMITTED + 3 * DAY), data_end=ADMITTED + 20 * DAY)

    assert (row.label, row.unlabelled) == (None, Unlabelled.NOT_FOLLOWED)


def test_deterioration_is_intensive_care_or_death():
    died = [DeathRecord(person_id=1, earliest=ADMITTED + 10 * HOUR, latest=ADMITTED + 10 * HOUR)]
    visit, elsewhere = a_visit("v", ADMITTED, ADMITTED + 10 * HOUR), icu(ADMITTED + 90 * DAY)

    assert only("deterioration", visit, elsewhere, died=died).label == 1.0
    assert only("icu_transfer", visit, elsewhere, died=died).label == 0.0
    assert only("deterioration", visit, elsewhere).label == 0.0


def test_who_went_on_to_another_hospital_has_no_label_of_what_came_later():
    gone = a_visit("v", ADMITTED, ADMITTED + 10 * HOUR, discharged_to="other-hcf")
    back = a_visit("back", ADMITTED + 5 * DAY, ADMITTED + 6 * DAY)

    assert only("readmission_30d", gone, back).unlabelled is Unlabelled.TRANSFERRED
    assert only("icu_transfer", gone, icu(ADMITTED + 90 * DAY)).unlabelled is Unlabelled.TRANSFERRED


class WithDiagnoses(Hospital):
    recorded: tuple[tuple[int, Diagnosis], ...] = ()

    def diagnoses(self) -> tuple[tuple[int, Diagnosis], ...]:
        return self.recorded


def recorded(code: str, after: timedelta, person_id: int = 1) -> tuple[int, Diagnosis]:
    at = ADMITTED + DAY + after
    return person_id, Diagnosis(
        fact_id=f"{code} {after}",
        codes=(Code(ICD10CM, code),),
        at=at,
        known_at=at,
        recorded_in=DiagnosisList.ENCOUNTER,
    )


@pytest.mark.parametrize(
    ("code", "after", "label"),
    [
        ("N17.9", 0 * HOUR, 1.0),
        ("N17", 7 * DAY - timedelta(microseconds=1), 1.0),
        ("N17.9", 7 * DAY, 0.0),
        ("N17.9", -HOUR, 0.0),
        ("N18.1", HOUR, 0.0),
    ],
)
def test_a_diagnosis_counts_within_its_days(code: str, after: timedelta, label: float):
    task = shipped_task("acute_kidney_injury_7d")
    hospital = WithDiagnoses([a_visit("v", ADMITTED, ADMITTED + 9 * DAY)])
    hospital.recorded = (recorded(code, after), recorded("N17.0", HOUR, person_id=2))

    (row,) = cohort_rows(hospital, task)

    assert row.label == label


def test_a_source_without_such_diagnoses_is_refused_in_words():
    task, visits = shipped_task("acute_kidney_injury_7d"), [a_visit("v", ADMITTED, ADMITTED + 9 * DAY)]

    with pytest.raises(NotInExtract, match="diagnoses of the label's codes"):
        cohort_rows(WithDiagnoses(visits), task)
    with pytest.raises(NotInExtract, match="the fact table diagnoses"):
        cohort_rows(Hospital(visits), task)


def test_by_an_expression_nothing_can_be_trained_and_it_says_why():
    rule = FhirPathRule(
        expression="Bundle.entry.resource.where(issued >= %as_of and issued < %until).exists()",
        searches=(FhirPathSearch(resource_type="Observation"),),
        hours=24,
    )
    task = msgspec.structs.replace(shipped_task("long_stay"), label=rule)

    with pytest.raises(NotInExtract, match=r"task long_stay: label: a fhirpath rule .* in service"):
        cohort_rows(Hospital([a_visit("v", ADMITTED, ADMITTED + 9 * DAY)]), task)


def test_at_discharge_the_length_of_stay_may_pick_rows():
    base = shipped_task("readmission_30d")
    task = msgspec.structs.replace(
        base, inclusion=Inclusion(visit_classes=("IMP",), minimum_stay_hours=24, maximum_stay_hours=48)
    )
    stays = [a_visit(str(hours), ADMITTED, ADMITTED + hours * HOUR) for hours in (23, 24, 48, 49)]

    assert [row.unit_id for row in index_rows(Hospital(stays), task)] == ["24", "48"]


def test_the_fact_tables_are_read_as_they_are_described():
    with duckdb.connect() as connection:
        connection.execute("""
            CREATE TABLE visits AS SELECT * FROM (VALUES
                (1, 'v', 's', 'IMP', TIMESTAMP '2031-03-06 12:00', 'exp', TIMESTAMP '2031-03-05 12:00',
                 TIMESTAMP '2031-03-05 12:00'),
                (1, 'v', 's', 'ACUTE', TIMESTAMP '2031-03-06 12:00', 'exp', TIMESTAMP '2031-03-05 12:00',
                 TIMESTAMP '2031-03-05 12:00'),
                (2, 'v', NULL, NULL, NULL, NULL, TIMESTAMP '2031-03-05 12:00', TIMESTAMP '2031-03-05 13:00')
            ) AS t (person_id, fact_id, system, code, ended_at, discharged_to, happened_at, known_at);
            CREATE TABLE deaths AS SELECT 1 AS person_id, TIMESTAMP '2031-03-06' AS happened_at,
                TIMESTAMP '2031-03-07' AS known_at;
            CREATE TABLE persons AS SELECT * FROM (VALUES (1, 1950, 7, 3), (2, 1960, NULL, 3), (3, NULL, NULL, NULL))
                AS t (person_id, birth_year, birth_month, birth_day);
        """)
        connection.execute("""
            CREATE TABLE diagnoses AS SELECT * FROM (VALUES
                (1, 'c', 'http://hl7.org/fhir/sid/icd-10-cm', 'N17.9', 'encounter-diagnosis',
                 TIMESTAMP '2031-03-06 12:00', TIMESTAMP '2031-03-06 12:00'),
                (2, 'd', NULL, NULL, 'problem-list-item', TIMESTAMP '2031-03-06', TIMESTAMP '2031-03-07')
            ) AS t (person_id, fact_id, system, code, recorded_in, happened_at, known_at)
        """)
        source = FactTables(connection)

        assert [
            (person_id, each.codes, each.recorded_in, each.at.hour, each.known_at.day)
            for person_id, each in source.diagnoses()
        ] == [
            (1, (Code(ICD10CM, "N17.9"),), DiagnosisList.ENCOUNTER, 12, 6),
            (2, (), DiagnosisList.PROBLEM_LIST, 0, 7),
        ]
        assert list(source.visits()) == [
            a_visit("v", ADMITTED, ADMITTED + DAY, classes=frozenset({"IMP", "ACUTE"}), discharged_to="exp"),
            a_visit("v", ADMITTED, None, person_id=2, classes=frozenset(), known_at=ADMITTED + HOUR),
        ]
        assert [(d.earliest.day, d.latest.day) for d in source.deaths()] == [(6, 7)]
        assert list(source.birth_dates()) == [(1, BirthDate(year=1950, month=7, day=3)), (2, BirthDate(year=1960))]
        assert isinstance(visit_source_of(type("Extract", (), {"connection": connection})()), FactTables)
