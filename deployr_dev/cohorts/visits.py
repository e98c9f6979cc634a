"""Rows that are visits, and labels that are what became of them. Pure: visits and deaths come in as arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from deployr_core.label_rules import (
    IcuTransfer,
    InHospitalMortality,
    LabComponent,
    LabPanel,
    LengthOfStay,
    LongStay,
    Readmission,
)
from deployr_dev.cohorts.rows import CohortRow, IndexRow, Unlabelled, with_label, without_label
from deployr_dev.cohorts.rules import AfterAdmission, Discharge, OrderSigned
from deployr_dev.cohorts.sources import DeathRecord, NotInExtract, VisitRecord, VisitSource
from deployr_dev.cohorts.tasks import Task

_DIED = frozenset({"exp", "20", "40", "41", "42", "expired", "died", "dead", "deceased", "4216643"})
"""How sources say that a visit ended with death, in lower case. Source: FHIR R4 discharge-disposition ``exp``; UB-04
patient discharge status 20 and 40 to 42; OMOP concept 4216643, "Patient died"."""


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

    def ended_with_death(self, visit: VisitRecord) -> bool:
        """True when the patient died before the visit ended, by its own account or by the day of death.

        A death of which only the day is known counts if the visit touches that day.
        """
        if visit.ended_at is None:
            return False
        if visit.discharged_to is not None and visit.discharged_to.strip().casefold() in _DIED:
            return True
        death = self.deaths.get(visit.person_id)
        return death is not None and death.earliest <= visit.ended_at and death.latest >= visit.began_at


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
        _icu_stays(visits, task.label) for visits in stays.by_person.values()
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
    """Label visits by what became of them."""
    visits = {(visit.person_id, visit.visit_id): visit for of in stays.by_person.values() for visit in of}
    return tuple(_labelled(stays, task, row, visits[row.person_id, row.unit_id]) for row in rows)


def _index_time(stays: Stays, task: Task, visit: VisitRecord) -> datetime | None:
    """Give when the visit is predicted; None if it is no row."""
    match task.index_time:
        case AfterAdmission(hours=hours):
            at = visit.began_at + timedelta(hours=hours)
            is_there = visit.ended_at is None or visit.ended_at > at
            return at if is_there and at <= stays.data_end else None
        case Discharge():
            if visit.ended_at is None or stays.ended_with_death(visit):
                return None
            hours_stayed = (visit.ended_at - visit.began_at) / timedelta(hours=1)
            least, most = task.inclusion.minimum_stay_hours, task.inclusion.maximum_stay_hours
            fits = (least is None or hours_stayed >= least) and (most is None or hours_stayed <= most)
            return visit.ended_at if fits else None
        case OrderSigned():
            return None
        case _:
            assert_never(task.index_time)


def _labelled(stays: Stays, task: Task, row: IndexRow, visit: VisitRecord) -> CohortRow:
    match task.label:
        case InHospitalMortality():
            if visit.ended_at is None:
                return without_label(row, Unlabelled.NOT_ENDED)
            return with_label(row, float(stays.ended_with_death(visit)), visit.ended_at)
        case LongStay(days=days):
            due = visit.began_at + timedelta(days=days)
            if visit.ended_at is None:
                # Still there when the data end: long if that is past the day, else nobody knows.
                return with_label(row, 1.0, due) if stays.data_end >= due else without_label(row, Unlabelled.NOT_ENDED)
            return with_label(row, float(visit.ended_at >= due), min(visit.ended_at, due))
        case LengthOfStay():
            if visit.ended_at is None:
                return without_label(row, Unlabelled.NOT_ENDED)
            return with_label(row, (visit.ended_at - visit.began_at) / timedelta(days=1), visit.ended_at)
        case Readmission(days=days):
            return _readmission(stays, task, row, due=row.index_time + timedelta(days=days))
        case IcuTransfer() as rule:
            return _icu_transfer(stays, rule, row, visit)
        case LabComponent() | LabPanel():
            raise ValueError(f"task {task.name}: expected a label about visits")
        case _:
            assert_never(task.label)


def _readmission(stays: Stays, task: Task, row: IndexRow, *, due: datetime) -> CohortRow:
    classes = set(task.inclusion.visit_classes)
    for visit in stays.by_person[row.person_id]:
        if row.index_time < visit.began_at < due and (not classes or not classes.isdisjoint(visit.classes)):
            return with_label(row, 1.0, max(visit.began_at, visit.known_at))
    return with_label(row, 0.0, due) if due <= stays.data_end else without_label(row, Unlabelled.NOT_FOLLOWED)


def _icu_transfer(stays: Stays, rule: IcuTransfer, row: IndexRow, visit: VisitRecord) -> CohortRow:
    due = row.index_time + timedelta(hours=rule.hours)
    until = due if visit.ended_at is None else min(due, visit.ended_at)
    for stay in _icu_stays(stays.by_person[row.person_id], rule):
        if row.index_time < stay.began_at < until:
            return with_label(row, 1.0, max(stay.began_at, stay.known_at))
    return with_label(row, 0.0, until) if until <= stays.data_end else without_label(row, Unlabelled.NOT_FOLLOWED)


def _is_in_icu(stays: Stays, task: Task, visit: VisitRecord, at: datetime) -> bool:
    if not isinstance(task.label, IcuTransfer):
        return False
    return any(
        stay.began_at <= at and (stay.ended_at is None or stay.ended_at > at)
        for stay in _icu_stays(stays.by_person[visit.person_id], task.label)
    )


def _icu_stays(visits: Iterable[VisitRecord], rule: IcuTransfer) -> list[VisitRecord]:
    wanted = set(rule.icu_classes)
    return [visit for visit in visits if not wanted.isdisjoint(visit.classes)]
