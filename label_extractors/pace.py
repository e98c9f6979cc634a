"""How much a run of label extraction does, and how that follows from the site's settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from deployr_serve.label_settings import LabelSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How much a run does.

    ``budget_s``: no patient is begun later than that. ``together``: how many packets are grouped by patient at a time,
    which bounds memory. ``corrections``: for how long after its last change a label is looked at again, where the run
    does that. ``adherence_hours``: how long an answer to an advisory may take.
    """

    budget_s: float = 480.0
    together: int = 50_000
    corrections: timedelta = timedelta(days=30)
    adherence_hours: int = 24


DEFAULT_PACE = Pace()


def pace_of(settings: LabelSettings) -> Pace:
    """Give the pace that the site has set."""
    return Pace(budget_s=settings.budget_s, corrections=settings.corrections, adherence_hours=settings.adherence_hours)
