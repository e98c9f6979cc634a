"""Which rows a task has, and how each is labelled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import BirthDate, Lab
from deployr_dev.cohorts.cohort import cohort_rows, index_rows
from deployr_dev.cohorts.rows import CohortInvalid, CohortRow, Unlabelled
from deployr_dev.cohorts.rules import Inclusion, OnePerPatient, Period
from deployr_dev.cohorts.sources import DeathRecord, NotInExtract, VisitRecord
from deployr_dev.cohorts.tasks import Task
from deployr_dev.sources.fact_source import LabOrder

NOON = datetime(2031, 3, 5, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MakeResult = Callable[..., Lab]
MakeOrder = Callable[..., LabOrder]


@dataclasses.dataclass
class Recorded:
    """Orders and results as an extract gives them."""

    orders: list[LabOrder]
    results: list[Lab]

    def lab_orders(self, panels: object) -> list[LabOrder]:
        return self.orders

    def results_of(self, components: object) -> list[tuple[int, Lab]]:
        return [(1, lab) for lab in self.results]


@dataclasses.dataclass
class RecordedWithVisits(Recorded):
    """Orders and results, with visits and births."""

    visits_there: list[VisitRecord] = dataclasses.field(default_factory=list)
    births: list[tuple[int, BirthDate]] = dataclasses.field(default_factory=list)

    def visits(self) -> list[VisitRecord]:
        return self.visits_there

    def deaths(self) -> list[DeathRecord]:
        return []

    def birth_dates(self) -> list[tuple[int, BirthDate]]:
        return self.births


def only_row(task: Task, orders: list[LabOrder], results: list[Lab]) -> CohortRow:
    (row,) = cohort_rows(Recorded(orders, results), task)
    return row


def units(orders: list[LabOrder], task: Task, **there: Any) -> list[str]:
    """Give the rows' ids."""
    return [row.unit_id for row in index_rows(RecordedWithVisits(orders, [], **there), task)]


def including(task: Task, **changes: Any) -> Task:
    return msgspec.structs.replace(task, inclusion=msgspec.structs.replace(task.inclusion, **changes))


@pytest.mark.parametrize(("value", "label"), [(34.9, 1.0), (35.0, 0.0), (41.0, 0.0), (47.0, 0.0), (47.1, 1.0)])
def test_a_result_outside_its_range_is_positive_and_both_ends_are_normal(
    task: Task, order: MakeOrder, result: MakeResult, value: float, label: float
):
    row = only_row(task, [order("a", NOON)], [result("1", NOON, value, order_id="a")])

    assert (row.label, row.unlabelled) == (label, None)
    assert (row.index_time, row.label_known_at) == (NOON, NOON + 30 * MINUTE)


@pytest.mark.parametrize(
    ("low", "high", "value", "label"),
    [(35.0, None, 99.0, 0.0), (35.0, None, 34.0, 1.0), (None, 47.0, 1.0, 0.0), (None, 47.0, 48.0, 1.0)],
)
def test_a_missing_end_of_the_range_is_no_limit(
    task: Task,
    order: MakeOrder,
    result: MakeResult,
    low: float | None,
    high: float | None,
    value: float,
    label: float,
):
    lab = result("1", NOON, value, order_id="a", reference_low=low, reference_high=high)

    assert only_row(task, [order("a", NOON)], [lab]).label == label


def test_an_order_without_a_number_has_no_label_and_stays_in_the_cohort(
    task: Task, order: MakeOrder, result: MakeResult
):
    row = only_row(task, [order("a", NOON)], [result("1", NOON, None, order_id="a")])

    assert (row.label, row.label_known_at, row.unlabelled) == (None, None, Unlabelled.NO_RANGE)


def test_a_result_without_a_range_gives_no_label(task: Task, order: MakeOrder, result: MakeResult):
    lab = result("1", NOON, 40.0, order_id="a", reference_low=None, reference_high=None)

    assert only_row(task, [order("a", NOON)], [lab]).unlabelled is Unlabelled.NO_RANGE


def test_a_result_of_another_order_is_no_answer(task: Task, order: MakeOrder, result: MakeResult):
    row = only_row(task, [order("a", NOON)], [result("1", NOON, 30.0, order_id="b")])

    assert row.unlabelled is Unlabelled.NO_RESULT


def test_the_first_unlinked_specimen_from_the_order_on_answers_it(task: Task, order: MakeOrder, result: MakeResult):
    labs = [
        result("1", NOON - MINUTE, 20.0),
        result("3", NOON + 2 * HOUR, 20.0),
        result("2", NOON, 40.0),
    ]

    assert only_row(task, [order("a", NOON)], labs).label == 0.0


def test_a_result_that_names_the_order_goes_before_an_unlinked_one(task: Task, order: MakeOrder, result: MakeResult):
    labs = [result("1", NOON, 20.0), result("2", NOON + HOUR, 40.0, order_id="a")]

    assert only_row(task, [order("a", NOON)], labs).label == 0.0


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize(("late", "label"), [(MINUTE, 1.0), (0 * MINUTE, None)])
def test_the_window_for_the_result_excludes_its_end(
    task: Task, order: MakeOrder, result: MakeResult, linked: bool, late: timedelta, label: float | None
):
    released = NOON + 72 * HOUR - late
    lab = result("1", NOON + HOUR, 20.0, order_id="a" if linked else None, known_at=released)

    assert only_row(task, [order("a", NOON)], [lab]).label == label


def test_the_preferred_component_decides_then_the_earliest_specimen_then_the_last_release(
    task: Task, order: MakeOrder, result: MakeResult
):
    labs = [
        result("1", NOON, 20.0, codes=(Code(LOINC, "20570-8"),)),
        result("2", NOON, 20.0),
        result("3", NOON, 40.0, known_at=NOON + 5 * HOUR),
        result("4", NOON + HOUR, 20.0),
    ]

    row = only_row(task, [order("a", NOON)], labs)

    assert (row.label, row.label_known_at) == (0.0, NOON + 5 * HOUR)


def test_the_alternative_component_answers_where_the_preferred_one_is_not_reported(
    task: Task, order: MakeOrder, result: MakeResult
):
    lab = result("2", NOON, 20.0, codes=(Code(LOINC, "20570-8"),))

    assert only_row(task, [order("a", NOON)], [lab]).label == 1.0


def test_rows_come_by_person_time_and_order(task: Task, order: MakeOrder):
    orders = [order("c", NOON), order("b", NOON), order("a", NOON + HOUR), order("d", NOON, person_id=0)]

    assert units(orders, task) == ["d", "b", "c", "a"]


def test_an_order_that_is_there_twice_is_refused(task: Task, order: MakeOrder):
    with pytest.raises(CohortInvalid, match="each order of a person once"):
        index_rows(Recorded([order("a", NOON), order("a", NOON + HOUR)], []), task)


def test_a_row_does_not_print_whose_it_is(task: Task, order: MakeOrder):
    (row,) = index_rows(Recorded([order("order-77", NOON, person_id=4242)], []), task)

    assert "4242" not in repr(row)
    assert "order-77" not in repr(row)


def a_visit(visit_id: str, *classes: str, **changes: Any) -> VisitRecord:
    return VisitRecord(
        **{
            "person_id": 1,
            "visit_id": visit_id,
            "classes": frozenset(classes),
            "began_at": NOON,
            "ended_at": None,
            "discharged_to": None,
            "known_at": NOON,
            **changes,
        }
    )


def test_an_extract_without_such_orders_is_refused_with_what_it_has(task: Task, result: MakeResult):
    labs = [result("1", NOON, 40.0), result("2", NOON, 40.0, reference_low=None, reference_high=None)]

    with pytest.raises(NotInExtract, match="expected orders for the panels 58410-2") as raised:
        cohort_rows(Recorded([], labs), task)

    assert "of 2 results of 4544-3, 20570-8, 1 have a reference range or a flag" in str(raised.value)


def test_an_extract_without_any_result_of_the_test_is_refused(task: Task, order: MakeOrder):
    with pytest.raises(NotInExtract, match="expected results of 4544-3"):
        cohort_rows(Recorded([order("a", NOON)], []), task)


def test_orders_can_be_picked_by_the_class_of_their_visit(task: Task, order: MakeOrder):
    orders = [
        order("a", NOON, visit_occurrence_id="7"),
        order("b", NOON, visit_occurrence_id="8"),
        order("c", NOON, visit_occurrence_id=None),
    ]
    visits = [a_visit("7", "IMP"), a_visit("8", "AMB")]

    assert units(orders, including(task, visit_classes=("IMP", "ACUTE")), visits_there=visits) == ["a"]


def test_ages_are_counted_at_the_index_time_and_the_unknown_are_left_out(task: Task, order: MakeOrder):
    adults = including(task, age_at_least=18, age_below=65)
    orders = [order(str(person), NOON, person_id=person) for person in range(1, 6)]
    births = [
        (1, BirthDate(year=2013, month=3, day=5)),  # 18 on the day
        (2, BirthDate(year=2013, month=3, day=6)),
        (3, BirthDate(year=1966, month=3, day=6)),
        (4, BirthDate(year=1966, month=3, day=5)),  # 65 on the day
    ]

    assert units(orders, adults, births=births) == ["1", "3"]


def test_a_source_without_visits_is_refused_where_the_task_asks_for_them(task: Task, order: MakeOrder):
    with pytest.raises(NotInExtract, match="fact tables visits, deaths and persons"):
        index_rows(Recorded([order("a", NOON)], []), including(task, age_at_least=18))


def test_only_index_times_in_the_period_are_rows(task: Task, order: MakeOrder):
    day = msgspec.structs.replace(task, period=Period(start=date(2031, 3, 5), end=date(2031, 3, 6)))

    assert units([order("a", NOON), order("b", NOON + 12 * HOUR), order("c", NOON - 13 * HOUR)], day) == ["a"]


def test_one_row_per_patient_and_day_takes_the_first_and_the_next_a_day_later(task: Task, order: MakeOrder):
    daily = msgspec.structs.replace(task, sampling=OnePerPatient(hours=24))
    orders = [order(str(hours), NOON + hours * HOUR) for hours in (0, 23, 24, 47, 72)]

    assert units([*orders, order("other", NOON + HOUR, person_id=2)], daily) == ["0", "24", "72", "other"]


def test_sampling_looks_at_the_rows_that_inclusion_leaves(task: Task, order: MakeOrder):
    daily = msgspec.structs.replace(
        task, sampling=OnePerPatient(hours=24), inclusion=Inclusion(panels=task.panels, visit_classes=("IMP",))
    )
    orders = [order("a", NOON, visit_occurrence_id="8"), order("b", NOON + HOUR, visit_occurrence_id="7")]

    assert units(orders, daily, visits_there=[a_visit("7", "IMP"), a_visit("8", "AMB")]) == ["b"]
