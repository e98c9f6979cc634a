"""Intervals for any figure of weighted rows: draw patients with replacement, weigh their rows, measure again.

Rows of one patient resemble each other; resampling them one by one gives intervals that are far too narrow. So
patients are drawn, with all of their rows. A resample is never copied out: it is a row of weights, and a figure is
measured under many rows of weights at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 1000
_TAILS = (0.025, 0.975)
_CHUNK = 2**16
"""How many weights are held at once, half a megabyte: past the cache, the work was measured to take 3 times as long."""


class NotMeasurable(ValueError):
    """The rows cannot carry the figure: the message says what they lack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with its 95 % bounds. ``resamples`` counts the bootstrap samples that could be measured.

    It is 0 where the bounds are a closed form: those of a share of exactly 0 or 1 (see `Ratios`).
    """

    value: float
    low: float
    high: float
    resamples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NotMeasured:
    """In a figure's place where the rows cannot carry it; ``why`` is written to be shown."""

    why: str


Figure = Interval | NotMeasured


class Statistic(Protocol):
    """Some figures of the same rows, measured together because they share work."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name the figures, shape (n_figures,)."""

    @property
    def lacks(self) -> tuple[str, ...]:
        """Say of each figure what rows must have that cannot carry it: ``rows of both classes``."""

    def measured(self, weights: Floats) -> Floats:
        """Give the figures under each row of ``weights``, shape (n_samples, n_rows), as (n_samples, n_figures).

        NaN where the weights do not carry the figure. No weight is below 0.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Ratios:
    """Figures that are one sum over rows divided by another: shares, means, differences of means.

    ``numerators`` and ``denominators``: shape (n_rows, n_figures). ``shares`` says which figures are proportions.
    A proportion of exactly 0 or 1 is 0 or 1 in every resample too, which would pass for certainty. Its bound is the
    exact one for as many independent observations as there are patients behind it.

    Source: Hanley and Lippman-Hand (1983), JAMA 249:1743-1745, doi:10.1001/jama.1983.03330370053031.
    """

    names: tuple[str, ...]
    lacks: tuple[str, ...]
    numerators: Floats
    denominators: Floats
    shares: tuple[bool, ...]

    def measured(self, weights: Floats) -> Floats:
        """Give each ratio under each row of weights; NaN where its denominator is 0."""
        return _divided(weights @ self.numerators, weights @ self.denominators)


def measure(
    statistics: Sequence[Statistic],
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> dict[str, Figure]:
    """Give every figure with its 95 % percentile interval, all from the same resamples of patients.

    Samples that cannot carry a figure, such as those of one class only, are left out of its interval. If more than
    half of them are, there is no interval, and a figure without one is not given.

    Args:
        statistics: what to measure, each of the same rows.
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        rng: where the resampling comes from; the same generator state gives the same intervals.
        resamples: how many samples to draw, at least 1.
        weights: of the rows, such as inverse probabilities of being labelled, finite and not below 0; None is 1 each.

    Raises:
        ValueError: ``resamples`` under 1, no rows, or weights that cannot be.

    Source: Field and Welsh (2007), J. R. Stat. Soc. B 69:369-390, doi:10.1111/j.1467-9868.2007.00593.x.
    """
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")
    patients = np.asarray(patients)
    row_weights = checked_weights(weights, patients.shape)
    ids, patient_of_row = np.unique(patients, return_inverse=True)
    if ids.size == 0:
        raise ValueError("expected at least one row")
    names = [name for statistic in statistics for name in statistic.names]
    if len(set(names)) < len(names):
        raise ValueError("expected every figure's name once")

    values = [statistic.measured(row_weights[np.newaxis])[0] for statistic in statistics]
    samples: list[list[Floats]] = [[] for _ in statistics]
    if ids.size > 1:
        for drawn in _draws(patient_of_row, ids.size, rng=rng, resamples=resamples):
            times = drawn if weights is None else drawn * row_weights
            for kept, statistic in zip(samples, statistics, strict=True):
                kept.append(statistic.measured(times))
    figures: dict[str, Figure] = {}
    for statistic, value, kept in zip(statistics, values, samples, strict=True):
        drawn_figures = np.concatenate(kept) if kept else np.empty((0, len(statistic.names)))
        for place, name in enumerate(statistic.names):
            figures[name] = (
                _bounded_share(statistic, place, row_weights, patient_of_row) if isinstance(statistic, Ratios) else None
            ) or _with_percentiles(
                float(value[place]), drawn_figures[:, place], lacks=statistic.lacks[place], asked=resamples
            )
    return figures


def checked_weights(weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    """Give the rows' weights, 1 each if there are none.

    Raises:
        ValueError: another shape than the rows', below 0, not finite, or all 0.
    """
    if weights is None:
        return np.ones(shape)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != shape:
        raise ValueError(f"expected one weight per row, shape {shape}, got {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError("expected finite weights, none below 0 and at least one above")
    return weights


def _draws(
    patient_of_row: NDArray[np.int64], patients: int, *, rng: np.random.Generator, resamples: int
) -> Iterator[Floats]:
    """Give how often each row is in each resample, some resamples at a time, shape (n_samples, n_rows).

    Counting drawn numbers gives the multinomial weights of `Generator.multinomial` in a ninth of its time.
    """
    at_once = max(1, _CHUNK // patient_of_row.size)
    for start in range(0, resamples, at_once):
        n = min(at_once, resamples - start)
        drawn = rng.integers(0, patients, size=(n, patients)) + (np.arange(n) * patients)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=n * patients).reshape(n, patients)
        yield times.astype(np.float64)[:, patient_of_row]


def _with_percentiles(value: float, samples: Floats, *, lacks: str, asked: int) -> Figure:
    if not np.isfinite(value):
        return NotMeasured(why=f"expected {lacks}")
    if samples.size == 0:
        return NotMeasured(why="expected rows of at least two patients for an interval")
    measurable = samples[np.isfinite(samples)]
    if measurable.size < asked / 2:
        return NotMeasured(why=f"expected {lacks} in at least half of the resamples")
    low, high = np.quantile(measurable, _TAILS)
    return Interval(value=value, low=float(low), high=float(high), resamples=int(measurable.size))


def _bounded_share(ratios: Ratios, place: int, row_weights: Floats, patient_of_row: NDArray[np.int64]) -> Figure | None:
    """Give what resampling cannot: a figure of too few patients is none, a share of 0 or 1 has a closed form."""
    above, below = ratios.numerators[:, place], ratios.denominators[:, place]
    counted = row_weights * below > 0
    patients = np.unique(patient_of_row[counted]).size
    if patients == 1:
        return NotMeasured(why="expected rows of at least two patients for an interval")
    none, every = not above[counted].any(), np.array_equal(above[counted], below[counted])
    if patients == 0 or not ratios.shares[place] or not (none or every):
        return None
    margin = 1.0 - _TAILS[0] ** (1.0 / patients)
    if none:
        return Interval(value=0.0, low=0.0, high=margin, resamples=0)
    return Interval(value=1.0, low=1.0 - margin, high=1.0, resamples=0)


def _divided(above: Floats, below: Floats) -> Floats:
    quotients: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotients, where=below > 0)
    return quotients
