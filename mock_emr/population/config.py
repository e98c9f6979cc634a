"""What a population is made from: one frozen configuration, and the only place that turns hours into instants."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from mock_emr.population.marginals import DEMO_WARD, Marginals
from mock_emr.population.shift import NO_SHIFT, InfrastructureShift

SECONDS_PER_HOUR = 3600
HOURS_PER_DAY = 24


@dataclass(frozen=True, kw_only=True)
class PopulationConfig:
    """Everything a population depends on: equal configurations give equal bytes.

    Args:
        seed: seeds the one generator from which every draw comes.
        patients: how many, at least 1. Each has at least one stay.
        start: first instant of the period, aware UTC, whole seconds.
        weeks: length of the period, at least 1. The period includes its start and excludes its end.
        utc_offset: the hospital's zone, fixed all year, in whole minutes. The extract is written in
            naive local time and FHIR with this offset spelled out; inside, all is UTC.
        cancelled_share: share of laboratory orders that never get a specimen.
        missing_component_share: share of a panel's components that never come back.
        corrected_share: share of results whose stored value replaced an earlier one.
        rangeless_share: share of results sent without a reference range.
        marginals: what kind of hospital it is.
        shift: how its two tellings differ, and what changes in it; by default nothing.

    Raises:
        ValueError: a value outside what is said above.
    """

    seed: int = 20250106
    patients: int = 400
    start: datetime = datetime(2025, 1, 6, 5, tzinfo=UTC)
    weeks: int = 10
    utc_offset: timedelta = timedelta(hours=-5)
    cancelled_share: float = 0.01
    missing_component_share: float = 0.02
    corrected_share: float = 0.004
    rangeless_share: float = 0.004
    marginals: Marginals = DEMO_WARD
    shift: InfrastructureShift = NO_SHIFT

    def __post_init__(self) -> None:
        """Refuse what no population could be made from."""
        if self.seed < 0:
            raise ValueError("seed must be 0 or more")
        if self.patients < 1:
            raise ValueError(f"patients must be at least 1, got {self.patients}")
        if self.weeks < 1:
            raise ValueError(f"weeks must be at least 1, got {self.weeks}")
        if self.start.utcoffset() != timedelta(0) or self.start.microsecond:
            raise ValueError("start must be aware UTC in whole seconds")
        if abs(self.utc_offset) > timedelta(hours=14) or self.utc_offset % timedelta(minutes=1):
            raise ValueError("utc_offset must be whole minutes within 14 hours")
        for name in ("cancelled_share", "missing_component_share", "corrected_share", "rangeless_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    @property
    def period_hours(self) -> float:
        """Length of the period in hours."""
        return float(self.weeks * 7 * HOURS_PER_DAY)

    @property
    def start_instant(self) -> np.datetime64:
        """First instant of the period, UTC."""
        return np.datetime64(self.start.replace(tzinfo=None), "s")

    @property
    def end_instant(self) -> np.datetime64:
        """First instant after the period, UTC."""
        return self.start_instant + np.timedelta64(self.weeks * 7, "D")

    def week_start(self, week: int) -> np.datetime64:
        """Give the first instant of a week of the period, 0 the first, -1 the last; never before the period's."""
        return self.start_instant + np.timedelta64(7 * max(week if week >= 0 else self.weeks + week, 0), "D")

    @property
    def local_start_hour(self) -> float:
        """Local clock hour at which the period starts, in [0, 24)."""
        local = self.start + self.utc_offset
        return local.hour + local.minute / 60 + local.second / SECONDS_PER_HOUR

    def instants(self, hours: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """Give the UTC instants, cut to whole seconds, that lie ``hours`` after the period's start."""
        seconds = np.floor(hours * SECONDS_PER_HOUR).astype("timedelta64[s]")
        return np.asarray(self.start_instant + seconds)

    def hours(self, instants: NDArray[np.datetime64]) -> NDArray[np.float64]:
        """Give the hours since the period's start of UTC ``instants``; not-a-time becomes NaN."""
        return np.asarray((instants - self.start_instant) / np.timedelta64(SECONDS_PER_HOUR, "s"))

    def local(self, instants: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
        """Give what the hospital's clocks showed at UTC ``instants``, naive; not-a-time stays."""
        return np.asarray(instants + np.timedelta64(int(self.utc_offset.total_seconds()), "s"))

    @property
    def offset_text(self) -> str:
        """The zone as FHIR instants spell it: ``-05:00``. Source: FHIR R4, datatypes, dateTime."""
        minutes = int(self.utc_offset.total_seconds()) // 60
        hours, rest = divmod(abs(minutes), 60)
        return f"{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}"
