"""Estimators on made-up worlds whose truth is known: bias, and how often the 95 % interval holds the truth.

``python -m benchmarks.simulations`` does 500 repetitions of each world, some minutes; ``--repetitions 50`` fewer. Every
figure comes from the functions that the product uses.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.daily_looks import A_DAY, DAYS, Stops, daily_looks
from deployr_core.bootstrap import Interval
from deployr_core.calibration import Recalibration
from deployr_core.metrics import overall
from deployr_core.monitoring.clustered import Effect
from deployr_core.monitoring.discontinuity import discontinuity
from deployr_core.monitoring.effects import intention_to_treat, stepped_wedge
from deployr_core.monitoring.selection import (
    FilledIn,
    Occasions,
    Weighted,
    complete_case,
    design_weighted,
    doubly_robust,
    inverse_propensity,
)
from deployr_core.thresholds import threshold_figures

Floats = NDArray[np.float64]

REPETITIONS = 500
LEAST_COVERAGE, MOST_COVERAGE = 0.92, 0.98
_RESAMPLES, _FEW = 300, 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """One estimator's estimates over the repetitions. ``covered``: whether each interval held the truth.

    ``sound``: it is meant to be unbiased; the others are there to show what happens without.
    """

    world: str
    estimator: str
    truth: float
    values: Floats
    covered: NDArray[np.bool_]
    sound: bool

    @property
    def bias(self) -> float:
        """Give the mean estimate less the truth."""
        return float(self.values.mean() - self.truth)

    @property
    def chance_error(self) -> float:
        """Give the standard error of the mean estimate, from the repetitions."""
        return float(self.values.std(ddof=1) / np.sqrt(self.values.size))

    @property
    def coverage(self) -> float:
        """Give the share of intervals that hold the truth."""
        return float(self.covered.mean())


# Label selection: clinicians act on what the model cannot see.

_ROWS_A_PATIENT = 4
_BASE, _SEEN, _UNSEEN = -2.0, 1.79, 1.6
"""The outcome's log odds: constant, of what the model sees and of what only clinicians see."""
_ALERT_AT = 0.35
_ACTING = 3.0
"""How much what only clinicians see moves the log odds that an advisory is acted on, and the outcome never seen."""
_OF_PATIENT = 0.6
"""The share of each variance that is the patient's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Admissions:
    """A made-up hospital without any advisory: scores, outcomes, and what only clinicians see."""

    scores: Floats
    outcomes: Floats
    unseen: Floats
    patients: NDArray[np.int64]


def admissions(rng: np.random.Generator, patients: int) -> Admissions:
    """Make rows of so many patients. Scores are calibrated: the outcome's chance, given what the model sees."""
    of_row = np.repeat(np.arange(patients), _ROWS_A_PATIENT)
    seen, unseen = (_alike(rng, of_row) for _ in range(2))
    outcomes = (rng.random(of_row.size) < _logistic(_BASE + _SEEN * seen + _UNSEEN * unseen)).astype(np.float64)
    points, masses = np.polynomial.hermite_e.hermegauss(60)
    grid = np.linspace(-7.0, 7.0, 2001)
    chances = _logistic(_BASE + _SEEN * grid[:, np.newaxis] + _UNSEEN * points) @ (masses / masses.sum())
    return Admissions(scores=np.interp(seen, grid, chances), outcomes=outcomes, unseen=unseen, patients=of_row)


def with_advisories(rng: np.random.Generator, world: Admissions, *, hidden_above: float) -> Occasions:
    """Show what is above the threshold but for a random few; what is shown may be acted on and is then never seen."""
    p_shown = np.where(world.scores >= _ALERT_AT, 1.0 - hidden_above, 0.0)
    shown = rng.random(world.scores.size) < p_shown
    acted = shown & (rng.random(world.scores.size) < _logistic(_ACTING * world.unseen))
    labels = np.where(acted, np.nan, world.outcomes)
    return Occasions(scores=world.scores, labels=labels, patients=world.patients, shown=shown, p_shown=p_shown)


_FIGURES = ("auroc", "average_precision", "brier_score", "calibration_slope", "sensitivity", "ppv")


def truths(patients: int = 200_000) -> dict[str, float]:
    """Give the figures of a hospital so large that chance hardly matters, without any advisory."""
    world = admissions(np.random.default_rng(20_260_101), patients)
    statistics = [
        *overall(world.outcomes, world.scores),
        Recalibration.of(world.outcomes, world.scores),
        threshold_figures(world.outcomes, world.scores, [_ALERT_AT]),
    ]
    one = np.ones((1, world.scores.size))
    found = {
        name.removesuffix("@0"): float(value)
        for each in statistics
        for name, value in zip(each.names, each.measured(one)[0], strict=True)
    }
    return {name: found[name] for name in _FIGURES}


def label_selection(repetitions: Iterable[int], *, patients: int = 1_500) -> list[Estimates]:
    """Measure performance in a hospital whose clinicians act on advisories, in five ways."""
    true = truths()
    gathered = _Gathered()
    for number in repetitions:
        rng = np.random.default_rng([1, number])
        world = admissions(rng, patients)
        for percent in (10, 5):
            occasions = with_advisories(rng, world, hidden_above=percent / 100)
            found = design_weighted(occasions, threshold=_ALERT_AT, rng=rng, alert_rates=(), resamples=_RESAMPLES)
            for name in _FIGURES if percent == 5 else ("auroc",):
                gathered.add(
                    f"label selection, {percent} % hidden", f"{name}, design-weighted", true[name], found, name
                )
        beside: dict[str, Weighted | FilledIn] = {
            "complete case": complete_case(occasions, threshold=_ALERT_AT, rng=rng, alert_rates=(), resamples=_FEW),
            "modelled inverse propensity": inverse_propensity(
                occasions, threshold=_ALERT_AT, rng=rng, alert_rates=(), resamples=_FEW
            ),
            "modelled doubly robust": doubly_robust(occasions, threshold=_ALERT_AT, rng=rng, resamples=_FEW),
        }
        for label, other in beside.items():
            gathered.add("label selection, 5 % hidden", f"auroc, {label}", true["auroc"], other, "auroc", sound=False)
    return gathered.estimates()


# Effects of showing.

_EFFECT = -0.08


def treatment_effects(repetitions: Iterable[int]) -> list[Estimates]:
    """Measure what showing changed, with patients, wards and steps as units."""
    gathered = _Gathered()
    for number in repetitions:
        rng = np.random.default_rng([2, number])
        _patients_as_units(rng, gathered)
        _wards_as_units(rng, gathered)
        _steps_as_units(rng, gathered)
    return gathered.estimates()


def _patients_as_units(rng: np.random.Generator, gathered: _Gathered) -> None:
    """Half of the patients are shown advisories above the threshold, of which 10 % stay hidden by exploration."""
    world, patients, hidden = "patients, outcome after alerts", 1_500, 0.1
    of_row = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    frailty = rng.normal(size=patients)
    arm = rng.permutation(np.arange(patients) % 2 == 1)[of_row]
    shown = arm & (rng.random(of_row.size) >= hidden)
    chance = np.clip(0.4 + 0.1 * frailty[of_row], 0.1, 0.9) + _EFFECT * shown
    outcomes = (rng.random(of_row.size) < chance).astype(np.float64)
    before = (rng.random((4, patients)) < np.clip(0.4 + 0.1 * frailty, 0.1, 0.9)).mean(axis=0)[of_row]
    as_assigned = _EFFECT * (1.0 - hidden)
    plain = intention_to_treat(outcomes, arm, of_row).effect
    gathered.effect(world, "intention to treat", as_assigned, plain)
    adjusted = intention_to_treat(outcomes, arm, of_row, covariates=before[:, np.newaxis]).effect
    gathered.effect(world, "intention to treat, adjusted (CUPED)", as_assigned, adjusted)
    probability = np.where(shown, 0.5 * (1.0 - hidden), 1.0 - 0.5 * (1.0 - hidden))
    weighted = intention_to_treat(outcomes, shown, of_row, weights=1.0 / probability).effect
    gathered.effect(world, "shown or hidden, design-weighted", _EFFECT, weighted)
    # Clinicians look at what is shown to them the less, the frailer the patient is.
    looked_at = shown & (rng.random(of_row.size) < _logistic(1.0 - 2.0 * frailty[of_row]))
    as_treated = intention_to_treat(outcomes, looked_at, of_row).effect
    gathered.effect(world, "looked at or not, as treated", _EFFECT, as_treated, sound=False)


def _wards_as_units(rng: np.random.Generator, gathered: _Gathered) -> None:
    """Sixteen wards, of unlike sizes, half of them with advisories."""
    world, wards = "16 wards as units", 16
    of_row = np.repeat(np.arange(wards), rng.integers(30, 90, wards))
    usual = rng.normal(0.4, 0.08, wards)
    arm = rng.permutation(np.arange(wards) % 2 == 1)[of_row]
    outcomes = (rng.random(of_row.size) < np.clip(usual[of_row] + _EFFECT * arm, 0.0, 1.0)).astype(np.float64)
    gathered.effect(world, "intention to treat", _EFFECT, intention_to_treat(outcomes, arm, of_row).effect)
    before = (usual + rng.normal(0.0, 0.04, wards))[of_row, np.newaxis]
    adjusted = intention_to_treat(outcomes, arm, of_row, covariates=before).effect
    gathered.effect(world, "intention to treat, adjusted (CUPED)", _EFFECT, adjusted)
    apart = intention_to_treat(outcomes, arm, np.arange(of_row.size)).effect
    gathered.effect(world, "rows taken as independent", _EFFECT, apart, sound=False)


def _steps_as_units(rng: np.random.Generator, gathered: _Gathered) -> None:
    """Twelve wards change over two by two, while the outcome gets rarer everywhere by itself."""
    world, wards, periods, rows = "stepped wedge, 12 wards, 7 periods", 12, 7, 20
    ward = np.repeat(np.arange(wards), periods * rows)
    period = np.tile(np.repeat(np.arange(periods), rows), wards)
    treated = period >= rng.permutation(np.arange(wards) % 6 + 1)[ward]
    usual = rng.normal(0.5, 0.08, wards)[ward] + rng.normal(0.0, 0.03, (wards, periods))[ward, period] - 0.03 * period
    outcomes = (rng.random(ward.size) < np.clip(usual + _EFFECT * treated, 0.0, 1.0)).astype(np.float64)
    gathered.effect(world, "stepped wedge", _EFFECT, stepped_wedge(outcomes, treated, period, ward))
    before_after = intention_to_treat(outcomes, treated, ward).effect
    gathered.effect(world, "before and after", _EFFECT, before_after, sound=False)


def at_the_threshold(repetitions: Iterable[int], *, patients: int = 2_000) -> list[Estimates]:
    """Measure the jump at a threshold on a curve that bends."""
    gathered = _Gathered()
    for number in repetitions:
        rng = np.random.default_rng([3, number])
        of_row = np.repeat(np.arange(patients), 3)
        scores = rng.beta(2.0, 5.0, of_row.size)
        above = scores >= _ALERT_AT
        curve = 0.1 + 0.9 * scores - 0.35 * scores**2 + 0.03 * np.sin(9.0 * scores)
        chance = curve + 0.05 * rng.choice([-1.0, 1.0], patients)[of_row] + _EFFECT * above
        outcomes = (rng.random(of_row.size) < np.clip(chance, 0.0, 1.0)).astype(np.float64)
        found = discontinuity(scores, outcomes, of_row, threshold=_ALERT_AT)
        gathered.effect("threshold", "discontinuity, robust", _EFFECT, found.robust)
        crude = intention_to_treat(outcomes, above, of_row).effect
        gathered.effect("threshold", "all above against all below", _EFFECT, crude, sound=False)
    return gathered.estimates()


class _Gathered:
    def __init__(self) -> None:
        self._found: dict[tuple[str, str, float, bool], list[tuple[float, bool]]] = {}

    def add(
        self, world: str, estimator: str, truth: float, found: Weighted | FilledIn, name: str, *, sound: bool = True
    ) -> None:
        figure = found.figures[name]
        if isinstance(figure, Interval):
            self._keep((world, estimator, truth, sound), figure.value, figure.low <= truth <= figure.high)

    def effect(self, world: str, estimator: str, truth: float, found: Effect, *, sound: bool = True) -> None:
        self._keep((world, estimator, truth, sound), found.value, found.low <= truth <= found.high)

    def estimates(self) -> list[Estimates]:
        return [
            Estimates(
                world=world,
                estimator=estimator,
                truth=truth,
                values=np.array([value for value, _ in kept]),
                covered=np.array([covered for _, covered in kept]),
                sound=sound,
            )
            for (world, estimator, truth, sound), kept in self._found.items()
        ]

    def _keep(self, key: tuple[str, str, float, bool], value: float, covered: bool) -> None:
        self._found.setdefault(key, []).append((value, covered))


def _alike(rng: np.random.Generator, of_row: NDArray[np.int64]) -> Floats:
    own = np.sqrt(_OF_PATIENT) * rng.normal(size=int(of_row.max()) + 1)[of_row]
    return np.asarray(own + np.sqrt(1.0 - _OF_PATIENT) * rng.normal(size=of_row.size))


def _logistic(logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


WORLDS = (label_selection, treatment_effects, at_the_threshold)


def main(arguments: list[str]) -> int:
    """Print both tables; give 1 if an estimator that is meant to be sound does not cover as it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulations")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    told = parser.parse_args(arguments)
    shares = [range(start, told.repetitions, told.workers) for start in range(told.workers)]
    # A share of 5 % is known to 1 % only after 2,000 of them, and these are quick.
    trials = 4 * told.repetitions
    of_looks = [range(start, trials, told.workers) for start in range(told.workers)]
    # Small matrices: threads of their own would only wait for each other.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(told.workers, mp_context=get_context("spawn")) as pool:
        estimates = [_together(list(parts)) for world in WORLDS for parts in zip(*pool.map(world, shares), strict=True)]
        stops = [_stops_together(list(parts)) for parts in zip(*pool.map(daily_looks, of_looks), strict=True)]
    console = Console(width=150)
    table = Table(title=f"Known truth, {told.repetitions} repetitions")
    for heading in ("world", "estimator", "truth", "mean", "bias", "± chance", "covered", ""):
        table.add_column(heading, justify="left" if heading in {"world", "estimator"} else "right")
    failed = False
    for found in estimates:
        met = LEAST_COVERAGE <= found.coverage <= MOST_COVERAGE
        failed |= found.sound and not met
        table.add_row(
            found.world,
            found.estimator,
            f"{found.truth:+.4f}",
            f"{found.values.mean():+.4f}",
            f"{found.bias:+.4f}",
            f"{1.96 * found.chance_error:.4f}",
            f"{found.coverage:.1%}",
            ("met" if met else "MISSED") if found.sound else "for contrast",
        )
    console.print(table)
    looks = Table(title=f"{DAYS} daily looks, {A_DAY} patients a day, {trials} repetitions")
    for heading in ("rule", "stopped without an effect", "stopped with -5 points", "enrolled by then"):
        looks.add_column(heading, justify="left" if heading == "rule" else "right")
    for rule in stops:
        looks.add_row(rule.rule, f"{rule.error:.1%}", f"{rule.power:.1%}", f"{rule.enrolled:.0%}")
    console.print(looks)
    return int(failed)


def _together(parts: list[Estimates]) -> Estimates:
    return replace(
        parts[0],
        values=np.concatenate([part.values for part in parts]),
        covered=np.concatenate([part.covered for part in parts]),
    )


def _stops_together(parts: list[Stops]) -> Stops:
    return replace(
        parts[0],
        without_effect=np.concatenate([part.without_effect for part in parts]),
        with_effect=np.concatenate([part.with_effect for part in parts]),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
