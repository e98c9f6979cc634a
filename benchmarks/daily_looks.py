"""A simulated trial that is looked at every day: how often each rule stops it, rightly and wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.monitoring.clustered import Effect
from deployr_core.monitoring.sequential import FEWEST_CLUSTERS, always_valid, planned_look, spending_bounds

DAYS, A_DAY, RETURN_DAYS = 180, 20, 90
_PLANNED_ERROR = 0.0135


@dataclass(frozen=True, kw_only=True, eq=False)
class Stops:
    """On which day a rule stopped, in each repetition: with no effect (an error), and with one. `DAYS` is never."""

    rule: str
    without_effect: NDArray[np.int64]
    with_effect: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Give how often it stopped at any look although there was no effect."""
        return float((self.without_effect < DAYS).mean())

    @property
    def power(self) -> float:
        """Give how often it stopped at any look where there was an effect."""
        return float((self.with_effect < DAYS).mean())

    @property
    def enrolled(self) -> float:
        """Give the mean share of the patients who were enrolled when it stopped, with an effect; 1 where it did not."""
        return float(np.minimum(self.with_effect + 1, DAYS).mean() / DAYS)


def daily_looks(repetitions: Iterable[int], *, effect: float = -0.05) -> list[Stops]:
    """Look at a trial every day for half a year, with no effect and with one, by each rule."""
    # Rows by each day: those who arrived, and of them those whose second outcome came by then.
    arrived = np.arange(1, DAYS + 1) * A_DAY
    returned = np.cumsum(np.minimum(np.arange(DAYS), RETURN_DAYS) * A_DAY / RETURN_DAYS)
    bounds = spending_bounds(((arrived + returned) / (arrived + returned)[-1]).tolist())
    stops: dict[str, tuple[list[int], list[int]]] = {}
    for number in repetitions:
        for place, true in enumerate((0.0, effect)):
            first: dict[str, int] = {}
            for day, look in enumerate(_looks(np.random.default_rng([4, number, place]), true)):
                apart = look.clusters >= FEWEST_CLUSTERS and not look.low < 0.0 < look.high
                rules = {
                    "always-valid (headline)": always_valid(look, planned_standard_error=_PLANNED_ERROR).stop,
                    "alpha spending, O'Brien-Fleming": planned_look(look, float(bounds[day])).stop,
                    "95 % interval, every day": apart,
                    "95 % interval, at the end only": apart and day == DAYS - 1,
                }
                for rule, stop in rules.items():
                    first[rule] = min(first.get(rule, DAYS), day if stop else DAYS)
            for rule, day in first.items():
                stops.setdefault(rule, ([], []))[place].append(day)
    return [
        Stops(rule=rule, without_effect=np.array(without), with_effect=np.array(of_effect))
        for rule, (without, of_effect) in stops.items()
    ]


def _looks(rng: np.random.Generator, true: float) -> Iterator[Effect]:
    """Give each day's effect of a trial whose patients have a second outcome up to three months after the first.

    It is what `intention_to_treat` gives, but for the usual correction G / (G - 1) in place of CR2: so many patients
    make no difference, and all days are computed at once.
    """
    patients = DAYS * A_DAY
    arrivals = np.repeat(np.arange(DAYS), A_DAY)
    days = np.r_[arrivals, arrivals + rng.integers(1, RETURN_DAYS + 1, patients)]
    arm = rng.random(patients) < 0.5
    chance = 0.4 + 0.2 * rng.choice([-1.0, 1.0], patients) + true * arm
    first, second = (rng.random((2, patients)) < chance).astype(np.float64)
    # What each row adds: to rows, patients and outcomes; and over patients to the squares of their outcomes' sums, to
    # the products of those with their numbers of rows, and to the squares of these.
    one = np.ones(patients)
    added = np.column_stack(
        [
            np.r_[one, one],
            np.r_[one, 0.0 * one],
            np.r_[first, second],
            np.r_[first, (first + second) ** 2 - first],
            np.r_[first, 2.0 * (first + second) - first],
            np.r_[one, 3.0 * one],
        ]
    )
    in_order = np.argsort(days, kind="stable")
    ends = np.searchsorted(days[in_order], np.arange(DAYS), side="right") - 1
    value, variance, clusters = np.zeros(DAYS), np.zeros(DAYS), np.zeros(DAYS)
    for side, sign in ((arm, 1.0), (~arm, -1.0)):
        own = added * np.tile(side, 2)[:, np.newaxis]
        rows, units, outcomes, squares, products, sizes = np.cumsum(own[in_order], axis=0)[ends].T
        mean = outcomes / rows
        value += sign * mean
        variance += (squares - 2.0 * mean * products + mean**2 * sizes) / rows**2 * units / (units - 1.0)
        clusters += units
    for day, error in enumerate(np.sqrt(variance).tolist()):
        yield Effect(
            value=float(value[day]),
            low=float(value[day]) - 1.96 * error,
            high=float(value[day]) + 1.96 * error,
            standard_error=error,
            degrees_of_freedom=float(clusters[day]) - 2.0,
            p_value=np.nan,
            clusters=int(clusters[day]),
        )
