"""What a task file is made of, beside its label rule: index times, inclusion, sampling, the period."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from deployr_core.label_rules import LONGEST_HOURS, Declared, expect_loinc


class Unit(StrEnum):
    """What one row is about."""

    ORDER = "order"
    VISIT = "visit"


class OrderSigned(Declared, frozen=True, kw_only=True, tag_field="kind", tag="order-signed"):
    """The prediction is made when the order is signed."""

    def __str__(self) -> str:
        return "when the order was signed"


class AfterAdmission(Declared, frozen=True, kw_only=True, tag_field="kind", tag="after-admission"):
    """The prediction is made ``hours`` after the visit began, of those who are still there and alive then."""

    hours: int

    def __post_init__(self) -> None:
        if not 0 <= self.hours <= LONGEST_HOURS:
            raise ValueError(f"expected hours from 0 to {LONGEST_HOURS}")

    def __str__(self) -> str:
        return f"{self.hours} hours after admission"


class Discharge(Declared, frozen=True, kw_only=True, tag_field="kind", tag="discharge"):
    """The prediction is made when the visit ended, of those who left alive."""

    def __str__(self) -> str:
        return "at discharge"


IndexTime = OrderSigned | AfterAdmission | Discharge


class Inclusion(Declared, frozen=True, kw_only=True):
    """Which orders or visits are rows; what is left out does not restrict.

    ``panels``: LOINC codes of the orders. ``visit_classes``: codes of the visit's class, such as ``IMP``; for orders,
    of the visit that the order belongs to. ``age_at_least`` is included, ``age_below`` excluded, in completed years at
    the index time. ``minimum_stay_hours``: how long the visit lasted at least, the end included.

    The last three can be written so that a task which picks its rows by their future is refused with the reason,
    see `deployr_dev.cohorts.observable`; ``discharged_alive`` is allowed where the index time is the discharge.
    """

    panels: tuple[str, ...] = ()
    visit_classes: tuple[str, ...] = ()
    age_at_least: int | None = None
    age_below: int | None = None
    minimum_stay_hours: int | None = None
    maximum_stay_hours: int | None = None
    has_result: bool = False
    discharged_alive: bool = False

    def __post_init__(self) -> None:
        expect_loinc(self.panels, "panels", may_be_empty=True)
        if len(set(self.visit_classes)) != len(self.visit_classes) or not all(map(str.strip, self.visit_classes)):
            raise ValueError("expected visit_classes such as IMP, each once")
        for key in ("age_at_least", "age_below", "minimum_stay_hours", "maximum_stay_hours"):
            value = getattr(self, key)
            if value is not None and value < 0:
                raise ValueError(f"expected {key} of at least 0")
        if self.age_at_least is not None and self.age_below is not None and self.age_at_least >= self.age_below:
            raise ValueError("expected age_at_least below age_below")


class AllRows(Declared, frozen=True, kw_only=True, tag_field="kind", tag="all"):
    """Every row is used."""


class OnePerPatient(Declared, frozen=True, kw_only=True, tag_field="kind", tag="one-per-patient"):
    """A patient's first row, then none until ``hours`` later, and so on: what a service could do as well."""

    hours: int

    def __post_init__(self) -> None:
        if self.hours < 1:
            raise ValueError("expected hours of at least 1")

    @property
    def gap(self) -> timedelta:
        """How far apart a patient's rows are at least."""
        return timedelta(hours=self.hours)


Sampling = AllRows | OnePerPatient


class Period(Declared, frozen=True, kw_only=True):
    """From which days index times are taken: from midnight UTC of ``start`` to midnight UTC of ``end``, excluded."""

    start: date | None = None
    end: date | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("expected a period that starts before it ends")

    def holds(self, instant: datetime) -> bool:
        """True when the instant lies in the period."""
        after = self.start is None or instant >= _midnight(self.start)
        return after and (self.end is None or instant < _midnight(self.end))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
