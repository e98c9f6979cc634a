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


@dataclass(frozen=True, kw_only=True, eq=False)
class Within:
    """The figures of some of the rows, each name after a prefix; ``statistic`` is of those rows alone."""

    prefix: str
    rows: NDArray[np.int64]
    statistic: Statistic

    @property
    def names(self) -> tuple[str, ...]:
        """Name the figures after the prefix."""
        return tuple(f"{self.prefix}{name}" for name in self.statistic.names)

    @property
    def lacks(self) -> tuple[str, ...]:
        """Say what those rows must have."""
        return self.statistic.lacks

    def measured(self, weights: Floats) -> Floats:
        """Give the figures under each row of weights of all rows."""
        return self.statistic.measured(weights[:, self.rows])


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
    return sampled(statistics, patients, rng=rng, resamples=resamples, weights=weights).figures


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Figures with what they were in each resample: for what is made of several of them, such as a difference.

    ``values``: shape (n_figures,). ``samples``: shape (n_resamples, n_figures), none if there are no two patients.
    Both are NaN where the rows or the resample do not carry the figure.
    """

    figures: dict[str, Figure]
    values: Floats
    samples: Floats

    def column(self, name: str) -> tuple[float, Floats]:
        """Give one figure, and what it was in each resample."""
        place = list(self.figures).index(name)
        return float(self.values[place]), self.samples[:, place]


def sampled(
    statistics: Sequence[Statistic],
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> Sampled:
    """Give every figure of all rows and of the same resamples of patients.

    Args and Raises: as for `measure`.
    """
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")
    patients = np.asarray(patients)
    row_weights = checked_weights(weights, patients.shape)
    if patients.size == 0:
        raise ValueError("expected at least one row")
    names = tuple(name for statistic in statistics for name in statistic.names)
    if len(set(names)) < len(names):
        raise ValueError("expected every figure's name once")

    def under(times: Floats) -> Floats:
        # Of rows that weigh nothing, all that are drawn may be such: no figure, which NaN says.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.concatenate([statistic.measured(times) for statistic in statistics], axis=1)

    drawn = [
        under(times if weights is None else times * row_weights)
        for times in drawn_weights(patients, rng=rng, resamples=resamples)
    ]
    values, samples = under(row_weights[np.newaxis])[0], np.concatenate(drawn) if drawn else np.empty((0, len(names)))
    patient_of_row: NDArray[np.int64] = np.unique(patients, return_inverse=True)[1]
    figures: dict[str, Figure] = {}
    for statistic in statistics:
        for place, (name, lacks) in enumerate(zip(statistic.names, statistic.lacks, strict=True)):
            column = len(figures)
            figures[name] = _bounded_share(statistic, place, row_weights, patient_of_row) or with_percentiles(
                float(values[column]), samples[:, column], lacks=lacks, asked=resamples
            )
    return Sampled(figures=figures, values=values, samples=samples)


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


def drawn_weights(patients: NDArray[np.int64], *, rng: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """Give how often each row is in each resample, some resamples at a time, shape (n_samples, n_rows).

    Fewer than two patients cannot be resampled, and give nothing. Counting drawn numbers gives the multinomial weights
    of `Generator.multinomial` in a ninth of its time.
    """
    ids, patient_of_row = np.unique(patients, return_inverse=True)
    if ids.size < 2:
        return
    at_once = max(1, _CHUNK // patient_of_row.size)
    for start in range(0, resamples, at_once):
        n = min(at_once, resamples - start)
        drawn = rng.integers(0, ids.size, size=(n, ids.size)) + (np.arange(n) * ids.size)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=n * ids.size).reshape(n, ids.size)
        yield times.astype(np.float64)[:, patient_of_row]


def with_percentiles(value: float, samples: Floats, *, lacks: str, asked: int) -> Figure:
    """Give a figure with the 95 % percentile interval of what it was in resamples, or why there is none."""
    if not np.isfinite(value):
        return NotMeasured(why=f"expected {lacks}")
    if samples.size == 0:
        return NotMeasured(why="expected rows of at least two patients for an interval")
    measurable = samples[np.isfinite(samples)]
    if measurable.size < asked / 2:
        return NotMeasured(why=f"expected {lacks} in at least half of the resamples")
    low, high = np.quantile(measurable, _TAILS)
    return Interval(value=value, low=float(low), high=float(high), resamples=int(measurable.size))


def _bounded_share(
    statistic: Statistic, place: int, row_weights: Floats, patient_of_row: NDArray[np.int64]
) -> Figure | None:
    """Give what resampling cannot: a figure of too few patients is none, a share of 0 or 1 has a closed form."""
    match statistic:
        case Within(rows=rows, statistic=inner):
            return _bounded_share(inner, place, row_weights[rows], patient_of_row[rows])
        case Ratios() as ratios:
            pass
        case _:
            return None
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
