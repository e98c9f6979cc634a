"""The rows of a task: whom and what each is about, when it is predicted, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from deployr_core.labels import Answered, Unanswered, label_numbers

LabelNumbers = float | tuple[float, ...]


class CohortInvalid(ValueError):
    """The rows cannot be what the task says; the message says in what way."""


class Unlabelled(StrEnum):
    """Why a row has no label, in words; by the names of `deployr_core.labels.Unanswered`."""

    NO_RESULT = "no result"
    NO_RANGE = "a result that cannot be told normal or abnormal"
    NO_NUMBER = "a result without a number in a known unit"
    NOT_ENDED = "a visit that has not ended"
    NOT_FOLLOWED = "data that end before the outcome is due"
    NO_VISIT = "no visit that the row is about"
    TRANSFERRED = "a patient who went on to another hospital"
    DEAD_BEFORE = "a death before the index time"
    DIED = "a death before the outcome could come"
    COARSE_DATE = "a day that the end of the time cuts"
    NO_ANSWER = "an answer that is none"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRow:
    """One order or visit, and when it is predicted.

    ``unit_id``: the order's id, or the visit's. ``visit_id``: the visit that it belongs to, None if nobody says.
    """

    person_id: int = field(repr=False)
    unit_id: str = field(repr=False)
    visit_id: str | None = field(repr=False)
    index_time: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortRow(IndexRow):
    """A row with what came of it. ``label`` is None where nothing is known, and then ``unlabelled`` says why.

    Otherwise it is 0.0 or 1.0, the place of the class, a number, or 0.0 or 1.0 for each of several labels.

    ``label_known_at``: from when on anybody could have known the label, and so trained with it.
    """

    label: LabelNumbers | None
    label_known_at: datetime | None
    unlabelled: Unlabelled | None


def labelled_row(row: IndexRow, found: Answered | Unanswered) -> CohortRow:
    """Give the row with its label, or with the reason why it has none."""
    answered = found if isinstance(found, Answered) else None
    return CohortRow(
        person_id=row.person_id,
        unit_id=row.unit_id,
        visit_id=row.visit_id,
        index_time=row.index_time,
        label=None if answered is None else label_numbers(answered.value),
        label_known_at=None if answered is None else answered.known_at,
        unlabelled=Unlabelled[found.name] if isinstance(found, Unanswered) else None,
    )
