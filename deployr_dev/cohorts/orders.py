"""Rows that are orders, and labels that are results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from deployr_core.facts import Lab
from deployr_core.labels import is_abnormal, label_of_results
from deployr_dev.cohorts.rows import CohortRow, IndexRow, labelled_row
from deployr_dev.cohorts.sources import NotInExtract, Order, OrderSource, visit_source_of
from deployr_dev.cohorts.tasks import Task


def order_rows(extract: OrderSource, task: Task) -> list[IndexRow]:
    """Give one row per order of the task's panels, whatever becomes of it; age and sampling are not looked at yet.

    Raises:
        NotInExtract: the extract has no such order, or no visits where the task asks for their class or length.
    """
    orders = list(extract.lab_orders(task.panels))
    if not orders:
        raise NotInExtract(
            f"expected orders for the panels {', '.join(task.panels)} (LOINC), got none; {_results(extract, task)}"
        )
    if task.inclusion.visit_classes:
        orders = _of_visits(extract, task, orders)
    return [
        IndexRow(
            person_id=order.person_id,
            unit_id=order.order_id,
            visit_id=None if order.visit_occurrence_id is None else str(order.visit_occurrence_id),
            index_time=order.ordered_at,
        )
        for order in orders
    ]


def result_labels(extract: OrderSource, task: Task, rows: Sequence[IndexRow]) -> tuple[CohortRow, ...]:
    """Label orders by their results.

    `deployr_core.labels.label_of_results` decides, which also decides the labels observed in service.

    Raises:
        NotInExtract: the extract has no result of the task's components.
    """
    results: dict[int, list[Lab]] = defaultdict(list)
    for person_id, lab in extract.results_of(task.components):
        results[person_id].append(lab)
    if rows and not results:
        raise NotInExtract(f"expected results of {', '.join(task.components)} (LOINC), got none")
    rule = task.lab_rule
    return tuple(
        labelled_row(
            row,
            label_of_results(rule, results.get(row.person_id, ()), as_of=row.index_time, order_id=row.unit_id),
        )
        for row in rows
    )


def _results(extract: OrderSource, task: Task) -> str:
    """Say what there is to label orders with."""
    held = [is_abnormal(lab) is not None for _, lab in extract.results_of(task.components)]
    return f"of {len(held):,} results of {', '.join(task.components)}, {sum(held):,} have a reference range or a flag"


def _of_visits(extract: OrderSource, task: Task, orders: Sequence[Order]) -> list[Order]:
    """Keep the orders that were written in a visit of the task's classes; of what came of it nothing is looked at."""
    wanted = set(task.inclusion.visit_classes)
    visits = {
        (visit.person_id, visit.visit_id)
        for visit in visit_source_of(extract).visits()
        if not wanted.isdisjoint(visit.classes)
    }
    return [order for order in orders if (order.person_id, str(order.visit_occurrence_id)) in visits]
