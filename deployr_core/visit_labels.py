"""What became of a visit and of its patient: one definition, for training and for observed labels. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import assert_never

from deployr_core.facts import Diagnosis
from deployr_core.label_rules import (
    DiagnosisInWindow,
    IcuTransfer,
    InHospitalMortality,
    LengthOfStay,
    LongStay,
    Mortality,
    Readmission,
    VisitRule,
)
from deployr_core.labels import Answered, Unanswered

_DIED = frozenset({"exp", "20", "40", "41", "42", "expired", "died", "dead", "deceased", "4216643"})
"""How sources say that a visit ended with death, in lower case. Source: FHIR R4 discharge-disposition ``exp``; UB-04
patient discharge status 20 and 40 to 42; OMOP concept 4216643, "Patient died"."""

_TRANSFERRED = frozenset({"other-hcf", "02", "2", "05", "43", "66", "8717"})
"""How they say that the patient went to another hospital, where nobody follows. Source: FHIR R4 discharge-disposition
``other-hcf``; UB-04 patient discharge status 02, 05, 43 and 66; OMOP concept 8717, "Inpatient Hospital"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stay:
    """One contact with the hospital, with how it ended, which nobody knows before ``ended_at``.

    ``classes``: the codes of its class. ``ended_at``: None while it lasts. ``discharged_to``: as the source says it.
    """

    visit_id: str = field(repr=False)
    classes: frozenset[str]
    began_at: datetime
    ended_at: datetime | None
    discharged_to: str | None
    known_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """When a patient died: at ``earliest`` or later, before ``latest``; both are one instant where that is known.

    A day apart where only the day is known.
    """

    earliest: datetime
    latest: datetime

    @property
    def is_exact(self) -> bool:
        """True if the instant is known."""
        return self.earliest == self.latest


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What is known of one patient, up to ``known_until``: in training the end of the data, in service now.

    ``stays``: by when they began.
    """

    stays: tuple[Stay, ...]
    death: Death | None
    known_until: datetime


def ended_with_death(stay: Stay, death: Death | None) -> bool:
    """True when the patient died before the visit ended, by its own account or by the day of death.

    A death of which only the day is known counts if the visit touches that day.
    """
    if stay.ended_at is None:
        return False
    if _said(stay) in _DIED:
        return True
    return death is not None and death.earliest <= stay.ended_at and death.latest >= stay.began_at


def label_of_visit(
    rule: VisitRule, course: Course, *, visit: Stay | None, as_of: datetime, visit_classes: Iterable[str] = ()
) -> Answered | Unanswered:
    """Read a label from a patient's visits and death.

    Args:
        rule: what is asked.
        course: what is known of the patient.
        visit: the visit that was predicted; None where nobody knows which, which only some rules can do without.
        as_of: the index time.
        visit_classes: which visits count as a readmission, by the codes of their class; empty for all.
    """
    match rule:
        case Readmission(days=days):
            due = as_of + timedelta(days=days)
            return _readmission(course, visit, frozenset(visit_classes), as_of=as_of, due=due)
        case Mortality(days=days):
            return _mortality(course, as_of=as_of, due=as_of + timedelta(days=days))
        case _ if visit is None:
            return Unanswered.NO_VISIT
        case InHospitalMortality():
            if visit.ended_at is None:
                return Unanswered.NOT_ENDED
            return _of_end(visit, visit.ended_at, float(ended_with_death(visit, course.death)))
        case LongStay(days=days):
            return _long_stay(course, visit, due=visit.began_at + timedelta(days=days))
        case LengthOfStay():
            if visit.ended_at is None:
                return Unanswered.NOT_ENDED
            return _of_end(visit, visit.ended_at, (visit.ended_at - visit.began_at) / timedelta(days=1))
        case IcuTransfer():
            return _icu_transfer(rule, course, visit, as_of=as_of)
        case _:
            assert_never(rule)


def label_of_diagnoses(
    rule: DiagnosisInWindow, diagnoses: Iterable[Diagnosis], course: Course, *, as_of: datetime
) -> Answered | Unanswered:
    """Read a label from what was recorded as diagnoses.

    A diagnosis of which only the day is known counts if the whole day lies in ``[as_of, as_of + days)``; where no other
    counts and the day is cut by either end, nobody can tell.
    """
    due = as_of + timedelta(days=rule.days)
    cut = False
    counting: list[Diagnosis] = []
    for diagnosis in diagnoses:
        if diagnosis.recorded_in not in rule.recorded_in or not any(map(rule.names, diagnosis.codes)):
            continue
        last = max(diagnosis.at, diagnosis.known_at - _TICK)
        if as_of <= diagnosis.at and last < due:
            counting.append(diagnosis)
        elif diagnosis.at < due and last >= as_of:
            cut = True
    if counting:
        first = min(counting, key=lambda each: (each.at, each.known_at, each.fact_id))
        return Answered(value=1.0, at=first.at, known_at=first.known_at, sources=(first.fact_id,))
    if course.known_until < due:
        return Unanswered.NOT_FOLLOWED
    if cut:
        return Unanswered.COARSE_DATE
    if course.death is not None and course.death.earliest < due:
        return Unanswered.DIED
    return Answered(value=0.0, at=due, known_at=due)


_TICK = timedelta(microseconds=1)


def _of_end(visit: Stay, ended_at: datetime, value: float) -> Answered:
    return Answered(value=value, at=ended_at, known_at=ended_at, sources=(visit.visit_id,))


def _long_stay(course: Course, visit: Stay, *, due: datetime) -> Answered | Unanswered:
    if visit.ended_at is not None:
        known = min(visit.ended_at, due)
        return Answered(value=float(visit.ended_at >= due), at=known, known_at=known, sources=(visit.visit_id,))
    # Still there: long once its days are over, else nobody knows.
    if course.known_until < due:
        return Unanswered.NOT_ENDED
    return Answered(value=1.0, at=due, known_at=due, sources=(visit.visit_id,))


def _readmission(
    course: Course, visit: Stay | None, classes: frozenset[str], *, as_of: datetime, due: datetime
) -> Answered | Unanswered:
    # That one was no discharge, whether or not the patient is back later: only leaving out both is fair.
    if visit is not None and _said(visit) in _TRANSFERRED:
        return Unanswered.TRANSFERRED
    for stay in course.stays:
        if as_of < stay.began_at < due and (not classes or not classes.isdisjoint(stay.classes)):
            return _begun(stay)
    return _nothing_until(due, course)


def _mortality(course: Course, *, as_of: datetime, due: datetime) -> Answered | Unanswered:
    death = course.death
    if death is not None:
        last = death.latest if death.is_exact else death.latest - _TICK
        if last < as_of:
            return Unanswered.DEAD_BEFORE
        if last < due:
            return Answered(value=1.0, at=max(death.earliest, as_of), known_at=death.latest, sources=("death",))
        if death.earliest < due:
            return Unanswered.COARSE_DATE
    return _nothing_until(due, course)


def _icu_transfer(rule: IcuTransfer, course: Course, visit: Stay, *, as_of: datetime) -> Answered | Unanswered:
    due = as_of + timedelta(hours=rule.hours)
    until = due if visit.ended_at is None else min(due, visit.ended_at)
    for stay in icu_stays(course.stays, rule):
        if as_of < stay.began_at < until:
            return _begun(stay)
    if rule.or_death and (died := _died_by(visit, course.death, as_of=as_of, due=due)) is not None:
        return died
    if visit.ended_at is not None and visit.ended_at < due and _said(visit) in _TRANSFERRED:
        return Unanswered.TRANSFERRED
    return _nothing_until(until, course)


def _died_by(visit: Stay, death: Death | None, *, as_of: datetime, due: datetime) -> Answered | Unanswered | None:
    """Tell of a death between the index time and ``due``; None if there was none."""
    if visit.ended_at is not None and visit.ended_at < due and _said(visit) in _DIED:
        return _of_end(visit, visit.ended_at, 1.0)
    if death is None or death.earliest >= due:
        return None
    last = death.latest if death.is_exact else death.latest - _TICK
    if last < as_of:
        return Unanswered.DEAD_BEFORE
    if last >= due:
        return Unanswered.COARSE_DATE
    return Answered(value=1.0, at=max(death.earliest, as_of), known_at=death.latest, sources=("death",))


def icu_stays(stays: Iterable[Stay], rule: IcuTransfer) -> list[Stay]:
    """Give those of the stays that are in intensive care."""
    wanted = set(rule.icu_classes)
    return [stay for stay in stays if not wanted.isdisjoint(stay.classes)]


def _begun(stay: Stay) -> Answered:
    known = max(stay.began_at, stay.known_at)
    return Answered(value=1.0, at=stay.began_at, known_at=known, sources=(stay.visit_id,))


def _nothing_until(due: datetime, course: Course) -> Answered | Unanswered:
    return Answered(value=0.0, at=due, known_at=due) if due <= course.known_until else Unanswered.NOT_FOLLOWED


def _said(stay: Stay) -> str:
    return (stay.discharged_to or "").strip().casefold()
