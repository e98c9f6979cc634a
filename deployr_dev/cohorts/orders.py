"""The rows of a task: one per order, with its index time and its label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from deployr_core.facts import Lab
from deployr_core.labels import LabComponentRule, is_abnormal
from deployr_dev.cohorts.tasks import Task
from deployr_dev.sources.omop import LabOrder


class CohortInvalid(ValueError):
    """The rows cannot be what the task says; the message says in what way."""


class Unlabelled(StrEnum):
    """Why an order has no label."""

    NO_RESULT = "no result with a number"
    NO_RANGE = "a result without a reference range"


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortRow:
    """One order. ``label`` is 1.0, 0.0 or None, and then ``unlabelled`` says why.

    ``label_known_at``: when the label's result was released, so from when on anybody could train with it.
    """

    person_id: int = field(repr=False)
    order_id: str = field(repr=False)
    visit_occurrence_id: int | None = field(repr=False)
    index_time: datetime
    label: float | None
    label_known_at: datetime | None
    unlabelled: Unlabelled | None


class OrderSource(Protocol):
    """What a cohort needs of an extract; `deployr_dev.sources.omop.OmopExtract` has it."""

    def lab_orders(self, panels: Sequence[str]) -> Iterator[LabOrder]:
        """Give the orders for these panels, by person id."""

    def results_of(self, components: Sequence[str]) -> Iterator[tuple[int, Lab]]:
        """Give the results of these tests with their person ids, by person id."""


def cohort_rows(extract: OrderSource, task: Task) -> tuple[CohortRow, ...]:
    """Give every order of the task, labelled or not, by person id, index time and order id.

    The label is decided by `deployr_core.labels.LabComponentRule`, which also decides the labels observed in service.

    Raises:
        CohortInvalid: a person has the same order twice.
    """
    results: dict[int, list[Lab]] = defaultdict(list)
    for person_id, lab in extract.results_of(task.components):
        results[person_id].append(lab)
    rule = task.label_rule()
    rows = [_row(order, results.get(order.person_id, ()), rule) for order in extract.lab_orders(task.panels)]
    if len({(row.person_id, row.order_id) for row in rows}) != len(rows):
        raise CohortInvalid(f"task {task.name}: expected each order of a person once, got some twice")
    return tuple(sorted(rows, key=lambda row: (row.person_id, row.index_time, row.order_id)))


def _row(order: LabOrder, labs: Sequence[Lab], rule: LabComponentRule) -> CohortRow:
    result = rule.deciding_result(labs, as_of=order.ordered_at, order_id=order.order_id)
    abnormal = None if result is None else is_abnormal(result)
    unlabelled = None
    if abnormal is None:
        unlabelled = Unlabelled.NO_RESULT if result is None or result.value is None else Unlabelled.NO_RANGE
    return CohortRow(
        person_id=order.person_id,
        order_id=order.order_id,
        visit_occurrence_id=order.visit_occurrence_id,
        index_time=order.ordered_at,
        label=None if abnormal is None else float(abnormal),
        label_known_at=None if result is None or abnormal is None else result.known_at,
        unlabelled=unlabelled,
    )
