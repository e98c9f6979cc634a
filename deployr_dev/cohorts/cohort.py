"""From a task and an extract to rows: which there are, then what came of each."""

from __future__ import annotations

from collections.abc import Sequence

from deployr_core.label_rules import DiagnosisInWindow, FhirPathRule
from deployr_dev.cohorts.orders import order_rows, result_labels
from deployr_dev.cohorts.rows import CohortInvalid, CohortRow, IndexRow
from deployr_dev.cohorts.rules import OnePerPatient, Unit
from deployr_dev.cohorts.sources import NotInExtract, OrderSource, diagnosis_source_of, visit_source_of
from deployr_dev.cohorts.tasks import Task
from deployr_dev.cohorts.visits import Stays, diagnosis_labels, visit_labels, visit_rows


def index_rows(extract: OrderSource, task: Task) -> tuple[IndexRow, ...]:
    """Give the task's rows, whatever comes of them, by person id, index time and unit id.

    Nothing is looked at that is not known at a row's index time. Tasks that share their features share these rows.

    Raises:
        CohortInvalid: a person has the same order or visit twice.
        NotInExtract: the extract does not have what the task is about.
    """
    if task.unit is Unit.ORDER:
        rows = order_rows(extract, task)
    else:
        rows = visit_rows(Stays.read(visit_source_of(extract)), task)
    if len({(row.person_id, row.unit_id) for row in rows}) != len(rows):
        raise CohortInvalid(f"task {task.name}: expected each {task.unit} of a person once, got some twice")
    rows = [row for row in rows if task.period.holds(row.index_time)]
    rows = _of_age(extract, task, rows)
    rows.sort(key=lambda row: (row.person_id, row.index_time, row.unit_id))
    return tuple(_sampled(task, rows))


def labelled(extract: OrderSource, task: Task, rows: Sequence[IndexRow]) -> tuple[CohortRow, ...]:
    """Give the rows with their labels, in the same order; a row without a label says why.

    Raises:
        NotInExtract: the extract has nothing that could decide a label, or no warehouse has.
    """
    if isinstance(task.label, FhirPathRule):
        raise NotInExtract(
            f"task {task.name}: label: a fhirpath rule is evaluated over an EMR's resources, which no warehouse holds: "
            "nothing can be trained by it. Expected another kind of label; a model that was trained elsewhere may have "
            "this rule in its manifest, and is labelled in service"
        )
    if task.unit is Unit.ORDER:
        return result_labels(extract, task, rows)
    stays = Stays.read(visit_source_of(extract))
    if isinstance(task.label, DiagnosisInWindow):
        return diagnosis_labels(stays, task, rows, diagnosis_source_of(extract).diagnoses())
    return visit_labels(stays, task, rows)


def cohort_rows(extract: OrderSource, task: Task) -> tuple[CohortRow, ...]:
    """Give every row of the task, labelled or not, by person id, index time and unit id.

    Raises:
        CohortInvalid, NotInExtract: see `index_rows` and `labelled`.
    """
    return labelled(extract, task, index_rows(extract, task))


def _of_age(extract: OrderSource, task: Task, rows: list[IndexRow]) -> list[IndexRow]:
    least, below = task.inclusion.age_at_least, task.inclusion.age_below
    if least is None and below is None:
        return rows
    births = dict(visit_source_of(extract).birth_dates())

    def fits(row: IndexRow) -> bool:
        birth = births.get(row.person_id)
        if birth is None:
            return False
        age = birth.age_in_years(row.index_time)
        return (least is None or age >= least) and (below is None or age < below)

    return [row for row in rows if fits(row)]


def _sampled(task: Task, rows: Sequence[IndexRow]) -> list[IndexRow]:
    """Apply the sampling to rows that are sorted by person and time."""
    if not isinstance(task.sampling, OnePerPatient):
        return list(rows)
    kept: list[IndexRow] = []
    for row in rows:
        if not kept or kept[-1].person_id != row.person_id or row.index_time >= kept[-1].index_time + task.sampling.gap:
            kept.append(row)
    return kept
