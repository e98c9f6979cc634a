"""The settings of label extraction: when it runs, and how much a run does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta

from deployr_serve.auth_settings import Reader
from deployr_serve.core.schedule import parse_schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSettings:
    """When and how labels are extracted; schedules are NCRONTAB in UTC.

    ``schedule``: of all models that have none of their own (`deployr_serve.core.policy.Policy.label_schedule`).
    ``review_schedule``: when labels are looked at again, for ``corrections`` after they last changed, and the answers
    to advisories with them, which may come ``adherence_hours`` after they were shown. ``budget_s``: after so long no
    further patient is begun.
    """

    schedule: str
    review_schedule: str
    corrections: timedelta
    adherence_hours: int
    budget_s: float


def read_labels(reader: Reader) -> LabelSettings:
    """Read them; what is wrong is complained of by the reader."""
    return LabelSettings(
        schedule=reader.read("DEPLOYR_LABEL_SCHEDULE", _schedule, default="0 7 * * * *"),
        review_schedule=reader.read("DEPLOYR_LABEL_REVIEW_SCHEDULE", _schedule, default="0 37 3 * * *"),
        corrections=timedelta(days=reader.read("DEPLOYR_LABEL_CORRECTION_DAYS", _days, default=30)),
        adherence_hours=reader.read("DEPLOYR_ADHERENCE_HOURS", _hours, default=24),
        budget_s=reader.read("DEPLOYR_LABEL_BUDGET_S", _seconds, default=240),
    )


def _schedule(text: str) -> str:
    parse_schedule(text, zone=UTC)
    return text


def _days(text: str) -> int:
    return _whole(text, least=0, most=366, expected="expected 0 to 366 days")


def _hours(text: str) -> int:
    return _whole(text, least=1, most=24 * 366, expected="expected 1 to 8784 hours")


def _seconds(text: str) -> int:
    return _whole(text, least=10, most=3600, expected="expected 10 to 3600 seconds")


def _whole(text: str, *, least: int, most: int, expected: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and least <= int(text) <= most):
        raise ValueError(expected)
    return int(text)
