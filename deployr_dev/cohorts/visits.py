"""Rows that are visits, and labels that are what became of them. Pure: visits and deaths come in as arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from deployr_core.facts import Diagnosis
from deployr_core.label_rules import DiagnosisInWindow, IcuTransfer, VisitRule
from deployr_core.visit_labels import Course, ended_with_death, icu_stays, label_of_diagnoses, label_of_visit
from deployr_dev.cohorts.rows import CohortRow, IndexRow, labelled_row
from deployr_dev.cohorts.rules import AfterAdmission, Discharge, OrderSigned
from deployr_dev.cohorts.sources import DeathRecord, NotInExtract, VisitRecord, VisitSource
from deployr_dev.cohorts.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Stays:
    """Every visit and death of an extract, at hand. ``data_end``: the last instant that any of them tells of."""

    by_person: dict[int, tuple[VisitRecord, ...]]
    deaths: dict[int, DeathRecord]
    data_end: datetime

    @classmethod
    def read(cls, source: VisitSource) -> Stays:
        """Read them all.

        Raises:
            NotInExtract: there is no visit.
        """
        by_person: dict[int, list[VisitRecord]] = defaultdict(list)
        for visit in source.visits():
            by_person[visit.person_id].append(visit)
        if not by_person:
            raise NotInExtract("expected visits, got none")
        deaths: dict[int, DeathRecord] = {}
        for death in source.deaths():
            held = deaths.setdefault(death.person_id, death)
            deaths[death.person_id] = min(held, death, key=lambda record: record.earliest)
        times = [t for visits in by_person.values() for v in visits for t in (v.began_at, v.ended_at) if t is not None]
        return cls(
            by_person={
                person: tuple(sorted(visits, key=lambda v: (v.began_at, v.visit_id)))
                for person, visits in sorted(by_person.items())
            },
            deaths=deaths,
            data_end=max(times),
        )

    def course(self, person_id: int) -> Course:
        """Give what is known of one person, as the label rules take it."""
        return Course(
            stays=self.by_person.get(person_id, ()), death=self.deaths.get(person_id), known_until=self.data_end
        )


def visit_rows(stays: Stays, task: Task) -> list[IndexRow]:
    """Give one row per visit of the task that is there at its index time; age and sampling are not looked at yet.

    Raises:
        NotInExtract: no visit is of the task's classes, or none is in intensive care where the task is about that.
    """
    classes = set(task.inclusion.visit_classes)
    chosen = [
        visit
        for visits in stays.by_person.values()
        for visit in visits
        if not classes or not classes.isdisjoint(visit.classes)
    ]
    if not chosen:
        raise NotInExtract(f"expected visits of class {', '.join(task.inclusion.visit_classes)}, got none")
    if isinstance(task.label, IcuTransfer) and not any(
        icu_stays(visits, task.label) for visits in stays.by_person.values()
    ):
        raise NotInExtract(
            f"expected stays in intensive care, which are visits of class {', '.join(task.label.icu_classes)}, got none"
        )
    rows = []
    for visit in chosen:
        at = _index_time(stays, task, visit)
        if at is not None and not _is_in_icu(stays, task, visit, at):
            rows.append(
                IndexRow(person_id=visit.person_id, unit_id=visit.visit_id, visit_id=visit.visit_id, index_time=at)
            )
    return rows


def visit_labels(stays: Stays, task: Task, rows: Sequence[IndexRow]) -> tuple[CohortRow, ...]:
    """Label visits by what became of them.

    `deployr_core.visit_labels` decides, which also decides the labels observed in service.
    """
    rule = task.label
    if not isinstance(rule, VisitRule):
        raise ValueError(f"task {task.name}: expected a label about visits")  # noqa: TRY004 — about the file
    visits = {(visit.person_id, visit.visit_id): visit for of in stays.by_person.values() for visit in of}
    return tuple(
        labelled_row(
            row,
            label_of_visit(
                rule,
                stays.course(row.person_id),
                visit=visits[row.person_id, row.unit_id],
                as_of=row.index_time,
                visit_classes=task.inclusion.visit_classes,
            ),
        )
        for row in rows
    )


def diagnosis_labels(
    stays: Stays, task: Task, rows: Sequence[IndexRow], recorded: Iterable[tuple[int, Diagnosis]]
) -> tuple[CohortRow, ...]:
    """Label visits by the diagnoses that were recorded later.

    Raises:
        NotInExtract: none of the rule's codes was ever recorded.
    """
    rule = task.label
    if not isinstance(rule, DiagnosisInWindow):
        raise ValueError(f"task {task.name}: expected a diagnosis label")  # noqa: TRY004 — about the file
    of_person: dict[int, list[Diagnosis]] = defaultdict(list)
    for person_id, diagnosis in recorded:
        if any(map(rule.names, diagnosis.codes)):
            of_person[person_id].append(diagnosis)
    if rows and not of_person:
        raise NotInExtract("expected diagnoses of the label's codes, got none")
    return tuple(
        labelled_row(
            row,
            label_of_diagnoses(
                rule, of_person.get(row.person_id, ()), stays.course(row.person_id), as_of=row.index_time
            ),
        )
        for row in rows
    )


def _index_time(stays: Stays, task: Task, visit: VisitRecord) -> datetime | None:
    """Give when the visit is predicted; None if it is no row."""
    match task.index_time:
        case AfterAdmission(hours=hours):
            at = visit.began_at + timedelta(hours=hours)
            is_there = visit.ended_at is None or visit.ended_at > at
            return at if is_there and at <= stays.data_end else None
        case Discharge():
            if visit.ended_at is None or ended_with_death(visit, stays.deaths.get(visit.person_id)):
                return None
            hours_stayed = (visit.ended_at - visit.began_at) / timedelta(hours=1)
            least, most = task.inclusion.minimum_stay_hours, task.inclusion.maximum_stay_hours
            fits = (least is None or hours_stayed >= least) and (most is None or hours_stayed <= most)
            return visit.ended_at if fits else None
        case OrderSigned():
            return None
        case _:
            assert_never(task.index_time)


def _is_in_icu(stays: Stays, task: Task, visit: VisitRecord, at: datetime) -> bool:
    if not isinstance(task.label, IcuTransfer):
        return False
    return any(
        stay.began_at <= at and (stay.ended_at is None or stay.ended_at > at)
        for stay in icu_stays(stays.by_person[visit.person_id], task.label)
    )
