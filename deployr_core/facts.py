"""What was recorded about one patient, each thing with when it happened and when it could be known.

Facts are what both engines read: the warehouse sources and the FHIR adapter make them, nobody else. Personal
identifiers and values are kept out of every ``repr``, because a ``repr`` ends up in logs and tracebacks.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import msgspec

from deployr_core.codes import Code


class _Private(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Not tracked by the garbage collector: facts hold no cycles, and a host that scores makes thousands a second."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show rich, which would otherwise list every field in tracebacks and logs, nothing either."""
        return []


class _Fact(_Private, frozen=True, kw_only=True):
    """``at``: when it happened (specimen taken, order written, diagnosis recorded); windows look at this.

    ``known_at``: the first instant at which the EMR could have shown it. ``fact_id`` is unique among the
    patient's facts of its kind.
    """

    fact_id: str
    codes: tuple[Code, ...]
    at: datetime
    known_at: datetime

    def __post_init__(self) -> None:
        if self.at.tzinfo is not UTC or self.known_at.tzinfo is not UTC:
            raise ValueError(f"expected {type(self).__name__} to be dated in UTC")


class Lab(_Fact, frozen=True, kw_only=True):
    """One laboratory result. ``at`` is when the specimen was taken, ``known_at`` when the result was released.

    ``value`` is None where the laboratory reported no number; ``unit`` is the text that came with it, empty
    if none did. ``reference_low`` and ``reference_high`` are in that same unit and inclusive: a value equal to
    either is normal. ``abnormal`` is the laboratory's own flag, where it sent one. ``order_id`` names the order
    that the result answers, where the source links the two.
    """

    value: float | None
    unit: str
    reference_low: float | None = None
    reference_high: float | None = None
    abnormal: bool | None = None
    order_id: str | None = None


class Vital(_Fact, frozen=True, kw_only=True):
    """One measurement at the bedside. ``at`` is when it was taken, ``known_at`` when it was filed."""

    value: float | None
    unit: str


class DiagnosisList(StrEnum):
    """Where a diagnosis was recorded."""

    PROBLEM_LIST = "problem-list-item"
    ENCOUNTER = "encounter-diagnosis"


class Diagnosis(_Fact, frozen=True, kw_only=True):
    """One diagnosis as recorded; ``at`` and ``known_at`` are both when it was recorded, not when it began."""

    recorded_in: DiagnosisList


class Medication(_Fact, frozen=True, kw_only=True):
    """One medication order; ``at`` is when it was written."""


class Procedure(_Fact, frozen=True, kw_only=True):
    """One procedure that was done; ``at`` is when, or when it began."""


class Visit(_Fact, frozen=True, kw_only=True):
    """One contact with the hospital, as a fact about the past: ``codes`` say of which class, ``at`` is its start."""


class OrderStatus(StrEnum):
    """What has become of an order, as far as a label needs to know."""

    OPEN = "open"
    DONE = "done"
    CANCELLED = "cancelled"


class Order(_Fact, frozen=True, kw_only=True):
    """One order for tests; ``at`` is when it was signed. ``status`` is as of the reading, not as of ``at``."""

    encounter_id: str | None
    status: OrderStatus


class Encounter(_Private, frozen=True, kw_only=True):
    """The contact with the hospital that an event belongs to.

    ``contact_serial_number`` (CSN) is what vendor interfaces call it by. ``classes``: of which class it is, such as
    inpatient; empty if nobody says.
    """

    encounter_id: str
    start: datetime | None
    end: datetime | None
    contact_serial_number: str | None
    classes: tuple[Code, ...] = ()


class Sex(StrEnum):
    """Administrative gender as the EMR holds it. Source: http://hl7.org/fhir/R4/valueset-administrative-gender.html."""

    FEMALE = "female"
    MALE = "male"
    OTHER = "other"
    UNKNOWN = "unknown"


class BirthDate(_Private, frozen=True, kw_only=True):
    """A birth date as precise as it is known. An unknown month or day counts as the first.

    That is what OMOP does with a person who has only a year of birth, so both engines agree on the age.
    """

    year: int
    month: int | None = None
    day: int | None = None

    def __post_init__(self) -> None:
        if self.day is not None and self.month is None:
            raise ValueError("expected a month with the day of birth")
        try:
            date(self.year, 1 if self.month is None else self.month, 1 if self.day is None else self.day)
        except (ValueError, OverflowError):
            raise ValueError("expected a year, month and day of birth that exist") from None

    def age_in_years(self, as_of: datetime) -> int:
        """Give completed years on the UTC calendar day of ``as_of``; below 0 if born later.

        Born on 29 February, a year is completed on 1 March of a common year.

        Raises:
            ValueError: ``as_of`` is naive.
        """
        if as_of.tzinfo is None:
            raise ValueError("expected an aware as_of")
        today = as_of.astimezone(UTC)
        had_birthday = (today.month, today.day) >= (self.month or 1, self.day or 1)
        return today.year - self.year - (0 if had_birthday else 1)


class Demographics(_Private, frozen=True, kw_only=True):
    """Who the patient is, as the EMR shows it now (it keeps no history of these).

    ``races`` and ``ethnicities`` are OMB category codes; empty means unknown or not said.
    """

    birth_date: BirthDate | None
    sex: Sex
    races: tuple[Code, ...] = ()
    ethnicities: tuple[Code, ...] = ()


class PatientFacts(_Private, frozen=True, kw_only=True):
    """Everything that was fetched about one patient; an empty tuple means looked and found nothing."""

    patient_id: str
    demographics: Demographics
    labs: tuple[Lab, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    medications: tuple[Medication, ...] = ()
    vitals: tuple[Vital, ...] = ()
    procedures: tuple[Procedure, ...] = ()
    orders: tuple[Order, ...] = ()
    visits: tuple[Visit, ...] = ()
