"""Which rows a task has, and how each is labelled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import Lab
from deployr_dev.cohorts.orders import CohortInvalid, CohortRow, Unlabelled, cohort_rows
from deployr_dev.cohorts.tasks import Task
from deployr_dev.sources.omop import LabOrder

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


def only_row(task: Task, orders: list[LabOrder], results: list[Lab]) -> CohortRow:
    (row,) = cohort_rows(Recorded(orders, results), task)  # type: ignore[arg-type]
    return row


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

    assert (row.label, row.label_known_at, row.unlabelled) == (None, None, Unlabelled.NO_RESULT)


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

    rows = cohort_rows(Recorded(orders, []), task)  # type: ignore[arg-type]

    assert [row.order_id for row in rows] == ["d", "b", "c", "a"]


def test_an_order_that_is_there_twice_is_refused(task: Task, order: MakeOrder):
    with pytest.raises(CohortInvalid, match="each order of a person once"):
        cohort_rows(Recorded([order("a", NOON), order("a", NOON + HOUR)], []), task)  # type: ignore[arg-type]


def test_a_row_does_not_print_whose_it_is(task: Task, order: MakeOrder):
    row = only_row(task, [order("order-77", NOON, person_id=4242)], [])

    assert "4242" not in repr(row)
    assert "order-77" not in repr(row)
