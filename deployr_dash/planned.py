"""What a trial's protocol and a model's users said beforehand: without it, some figures cannot be given at all."""

from __future__ import annotations

from datetime import date

import msgspec

from deployr_core.monitoring.usefulness import Utilities

BETWEEN_STRATA = " | "
"""Stands between the texts of a stratum that has several."""
_POWER_80 = 1.959964 + 0.841621
"""How many standard errors a difference must measure to be found in 4 of 5 trials at a two-sided 5 %."""


class PlannedUtilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one packet is worth to those who use the model, by what was done and what happened, in ``unit``.

    Raises:
        ValueError: a right alert worth no more than a missed one, or a wrong one worth no less than none.
    """

    true_positive: float
    false_positive: float
    false_negative: float
    true_negative: float
    unit: str

    def __post_init__(self) -> None:
        if not self.unit.strip():
            raise ValueError("expected the unit that utilities are in, such as minutes of a nurse")
        self.as_utilities()

    def as_utilities(self) -> Utilities:
        """Give them as `deployr_core.monitoring.usefulness` takes them."""
        return Utilities(
            true_positive=self.true_positive,
            false_positive=self.false_positive,
            false_negative=self.false_negative,
            true_negative=self.true_negative,
        )


class PlannedTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was fixed before the trial's first unit.

    ``begins``: the first day of enrolment, in UTC. ``units``: how many are planned in all; ``units_per_day``: a day.
    ``detectable``: the difference in the outcome, as a share of 1 or in the outcome's unit, that the trial is planned
    to find in 4 of 5 cases. ``looks``: when the committee looks, as shares of the planned information, growing, the
    last one 1. ``strata``: what the parts of a stratum are called, in the deployment file's order.

    Raises:
        ValueError: a number or a day that cannot be; the message names it.
    """

    begins: date
    units: int
    units_per_day: float
    detectable: float
    looks: tuple[float, ...] = (0.5, 0.75, 1.0)
    strata: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.units < 1 or not self.units_per_day > 0.0 or not self.detectable > 0.0:
            raise ValueError("expected units, units_per_day and detectable above 0")
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[0] <= 0 or self.looks[-1] != 1:
            raise ValueError("expected looks as shares of the planned information that grow, the last one 1")

    @property
    def standard_error(self) -> float:
        """Give the standard error of the effect at the planned end, which ``detectable`` stands for."""
        return self.detectable / _POWER_80
