"""Whether probabilities come true: calibration slope and intercept, and the curve with its bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import (
    RESAMPLES,
    Figure,
    Floats,
    NotMeasurable,
    Ratios,
    checked_weights,
    measure,
)
from deployr_core.metrics import BOTH_CLASSES, checked_patients, checked_probabilities

SCORE_LIMIT = 1e-6
"""Scores are taken to be at least this far from 0 and 1 where their logit is needed, which 0 and 1 have not."""

_MOST_STEPS = 40
_LONGEST_STEP = 4.0
_CONVERGED = 1e-6
"""Steps shrink quadratically: after one this small, what is left is of the order of 1e-12."""
_LEAST_INFORMATION = 1e-9
"""A row's mean p (1 - p) under which every prediction is as good as certain: the slope is on its way to infinity."""

_Fit = tuple[Floats, Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recalibration:
    """Calibration slope and intercept: the logistic regression of the outcome on the logit of the score.

    The slope is fitted with a free intercept: 1 is right, under 1 the scores are too extreme. The intercept is
    fitted with the slope held at 1: 0 is right, under 0 the scores are too high on the whole.
    Scores nearer to 0 or 1 than `SCORE_LIMIT` count as that near.

    Source: Van Calster et al. (2019), BMC Medicine 17:230, doi:10.1186/s12916-019-1466-7.
    """

    labels: Floats
    logits: Floats
    standardised: Floats
    centre: float
    spread: float
    line: Floats
    """Where the fit of a resample starts: the fit of all rows, intercept and slope on the standardised logits."""
    shift: Floats
    names: ClassVar[tuple[str, ...]] = ("calibration_slope", "calibration_intercept")
    lacks: ClassVar[tuple[str, ...]] = (
        "rows of both classes, scores that differ, and classes that no threshold separates",
        BOTH_CLASSES,
    )

    @classmethod
    def of(cls, labels: Floats, scores: Floats) -> Recalibration:
        """Prepare checked rows once, for all the weights that they will be measured under."""
        logits = logits_of(scores)
        spread = float(logits.std())
        # The same logit in every row leaves rounding, not spread.
        standardised = (logits - logits.mean()) / spread if spread > 1e-12 else np.zeros_like(logits)
        share = np.clip(labels.mean(), SCORE_LIMIT, 1.0 - SCORE_LIMIT)
        one = np.ones((1, labels.size))
        line = _fitted_line(labels, standardised, one, start=np.array([np.log(share / (1.0 - share)), 0.0]))[0]
        shift = _fitted_shift(labels, logits, one, start=0.0)
        return cls(
            labels=labels,
            logits=logits,
            standardised=standardised,
            centre=float(logits.mean()),
            spread=spread,
            line=np.where(np.isfinite(line), line, 0.0),
            shift=np.where(np.isfinite(shift), shift, 0.0),
        )

    def measured(self, weights: Floats) -> Floats:
        """Give slope and intercept under each row of weights, shape (n_samples, 2)."""
        figures: Floats = np.full((len(weights), 2), np.nan)
        figures[:, 0] = self.lines(weights)[:, 1]
        both = self._both_classes(weights)
        figures[both, 1] = _fitted_shift(self.labels, self.logits, weights[both], start=float(self.shift[0]))
        return figures

    def lines(self, weights: Floats) -> Floats:
        """Give intercept and slope, both free, of the logits under each row of weights, shape (n_samples, 2).

        NaN where the weights do not carry a line. The logistic function of a line makes scores into probabilities that
        are true for these rows.
        """
        lines: Floats = np.full((len(weights), 2), np.nan)
        if self.spread > 1e-12:
            both = self._both_classes(weights)
            fitted = _fitted_line(self.labels, self.standardised, weights[both], start=self.line)
            lines[both, 1] = fitted[:, 1] / self.spread
            lines[both, 0] = fitted[:, 0] - lines[both, 1] * self.centre
        return lines

    def _both_classes(self, weights: Floats) -> NDArray[np.int64]:
        positives = weights @ self.labels
        return np.flatnonzero((positives > 0) & (weights.sum(axis=1) > positives))


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationBin:
    """Rows of neighbouring scores, from ``lowest`` to ``highest``, both included: what was said and what happened."""

    lowest: float
    highest: float
    rows: int
    mean_score: float
    observed: Figure


def logits_of(scores: Floats) -> Floats:
    """Give the logits of probabilities, those nearer to 0 or 1 than `SCORE_LIMIT` taken to be that near."""
    likely = np.clip(scores, SCORE_LIMIT, 1.0 - SCORE_LIMIT)
    logits: Floats = np.log(likely / (1.0 - likely))
    return logits


def recalibration(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> tuple[float, float]:
    """Give calibration slope and intercept, see `Recalibration`.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: probabilities, shape (n_rows,).
        weights: of the rows; None is 1 each.

    Raises:
        NotMeasurable: one class only, all scores alike, or classes that a threshold separates (the slope is infinite).
        ValueError: as for `deployr_core.metrics.brier_score`.
    """
    labels, scores = checked_probabilities(labels, scores)
    if labels.size == 0:
        raise NotMeasurable(f"expected {BOTH_CLASSES}")
    row_weights = checked_weights(weights, labels.shape)
    slope, intercept = Recalibration.of(labels, scores).measured(row_weights[np.newaxis])[0]
    for figure, lacks in ((intercept, Recalibration.lacks[1]), (slope, Recalibration.lacks[0])):
        if np.isnan(figure):
            raise NotMeasurable(f"expected {lacks}")
    return float(slope), float(intercept)


def calibration_curve(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    bins: int = 10,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> tuple[CalibrationBin, ...]:
    """Give what was said and what happened in each bin of about equally many rows, with a band for what happened.

    Raises:
        NotMeasurable: no rows.
        ValueError: as for `deployr_core.metrics.brier_score`, or under 1 bin or resample.
    """
    labels, scores = checked_probabilities(labels, scores)
    if labels.size == 0:
        raise NotMeasurable("expected at least one row")
    bin_of_row = calibration_bins(scores, bins=bins)
    observed = measure(
        [observed_shares(labels, bin_of_row)],
        checked_patients(patients, labels),
        rng=rng,
        resamples=resamples,
        weights=weights,
    )
    return calibration_points(scores, bin_of_row, observed, weights=weights)


def calibration_bins(scores: Floats, *, bins: int = 10) -> NDArray[np.int64]:
    """Give each row's bin, from 0 for the lowest scores; rows of the same score are never parted.

    So there may be fewer bins than asked for, and no empty one.
    """
    if bins < 1:
        raise ValueError(f"expected at least 1 bin, got {bins}")
    edges = np.quantile(scores, np.arange(1, bins) / bins, method="inverted_cdf")
    found: NDArray[np.int64] = np.unique(np.searchsorted(edges, scores, side="left"), return_inverse=True)[1]
    return found


def observed_shares(labels: Floats, bin_of_row: NDArray[np.int64]) -> Ratios:
    """Give the share of positive rows of each bin, named ``observed@0`` and so on, to be measured."""
    within = (bin_of_row[:, np.newaxis] == np.arange(bin_of_row.max() + 1)).astype(np.float64)
    count = within.shape[1]
    return Ratios(
        names=tuple(f"observed@{number}" for number in range(count)),
        lacks=("rows in this bin",) * count,
        numerators=within * labels[:, np.newaxis],
        denominators=within,
        shares=(True,) * count,
    )


def calibration_points(
    scores: Floats, bin_of_row: NDArray[np.int64], figures: dict[str, Figure], *, weights: Floats | None = None
) -> tuple[CalibrationBin, ...]:
    """Put what was measured of `observed_shares` beside what was said, on average of the rows as they weigh."""
    row_weights = checked_weights(weights, scores.shape)
    points = []
    for number in range(int(bin_of_row.max()) + 1):
        inside = bin_of_row == number
        within, heavy = scores[inside], row_weights[inside]
        points.append(
            CalibrationBin(
                lowest=float(within.min()),
                highest=float(within.max()),
                rows=within.size,
                mean_score=float((within * heavy).sum() / heavy.sum()) if heavy.any() else float(within.mean()),
                observed=figures[f"observed@{number}"],
            )
        )
    return tuple(points)


def _fitted_line(labels: Floats, logits: Floats, weights: Floats, *, start: Floats) -> Floats:
    """Fit intercept and slope by Newton's method to each row of weights, shape (n_samples, 2); NaN where it diverges.

    Where a threshold separates the classes the slope grows without end while the curvature vanishes.
    """
    found: Floats = np.full((len(weights), 2), np.nan)
    design = np.column_stack([np.ones_like(logits), logits, logits**2])
    wanted = weights @ (labels[:, np.newaxis] * design[:, :2])
    active, line = np.arange(len(weights)), np.tile(start, (len(weights), 1))
    for step_number in range(_MOST_STEPS):
        # Every resample starts from the same line, so the first step needs one prediction, not one per resample.
        shared = step_number == 0
        first, second = _moments(weights[active], line[:1] if shared else line, design)
        gradient = wanted[active] - first
        a, b, c = second.T
        determinant = a * c - b * b
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.column_stack(
                [
                    (c * gradient[:, 0] - b * gradient[:, 1]) / determinant,
                    (a * gradient[:, 1] - b * gradient[:, 0]) / determinant,
                ]
            )
        informative = (determinant > 1e-12 * a * c) & (a > _LEAST_INFORMATION * weights[active].sum(axis=1))
        usable = informative & np.isfinite(step).all(axis=1)
        step = np.clip(step[usable], -_LONGEST_STEP, _LONGEST_STEP)
        active, line = active[usable], line[usable] + step
        done = np.abs(step).max(axis=1, initial=0.0) < _CONVERGED
        found[active[done]] = line[done]
        active, line = active[~done], line[~done]
        if active.size == 0:
            break
    return found


def _moments(weights: Floats, line: Floats, design: Floats) -> _Fit:
    """Give the predicted sums of 1 and x, and the information's sums of 1, x and x², for each row of weights."""
    predicted = logistic(line[:, :1] + line[:, 1:] * design[:, 1])
    if len(line) == 1:
        chance = predicted[0][:, np.newaxis]
        return weights @ (chance * design[:, :2]), weights @ (chance * (1.0 - chance) * design)
    weighted = weights * predicted
    return weighted @ design[:, :2], (weighted * (1.0 - predicted)) @ design


def _fitted_shift(labels: Floats, logits: Floats, weights: Floats, *, start: float) -> Floats:
    """Fit the intercept with the slope held at 1 to each row of weights, shape (n_samples,); NaN where it diverges."""
    found: Floats = np.full(len(weights), np.nan)
    wanted = weights @ labels
    active, shift = np.arange(len(weights)), np.full(len(weights), start)
    for step_number in range(_MOST_STEPS):
        if step_number == 0:
            chance = logistic(start + logits)
            first, second = weights @ chance, weights @ (chance * (1.0 - chance))
        else:
            predicted = logistic(shift[:, np.newaxis] + logits)
            weighted = weights[active] * predicted
            first, second = weighted.sum(axis=1), np.einsum("ij,ij->i", weighted, 1.0 - predicted)
        gradient = wanted[active] - first
        step = np.sign(gradient) * _LONGEST_STEP
        np.divide(gradient, second, out=step, where=second > 1e-300)
        step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        shift = shift + step
        done = np.abs(step) < _CONVERGED
        found[active[done]] = shift[done]
        active, shift = active[~done], shift[~done]
        if active.size == 0:
            break
    return found


def logistic(logits: Floats) -> Floats:
    """Give the probabilities of logits."""
    # Far below 0 the exponential would overflow; there the chance is 0 to the last bit anyway.
    chances: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits, -700.0, None)))
    return chances
