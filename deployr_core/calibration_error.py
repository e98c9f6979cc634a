"""The expected calibration error, beside what a perfect model would show of it by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, Interval, NotMeasurable, checked_weights, measure
from deployr_core.calibration import calibration_bins
from deployr_core.metrics import checked_patients, checked_probabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationError:
    """How far what happened is from what was said, on average over rows, in bins of about equally many rows.

    ``by_chance``: what a model whose every probability is right would show on average, with these rows and patients.
    An error that is not clearly above it is none: absolute values never average out, so that few rows alone make one.
    """

    error: Figure
    by_chance: float


def calibration_error(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    bins: int = 10,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> CalibrationError:
    """Give the expected calibration error (ECE) over bins of about equally many rows, which resampling does not move.

    Each resample adds its own noise to the absolute values, so the bounds are percentiles reflected at the value; the
    upper one is never below the value, the lower one never below 0.

    Raises:
        NotMeasurable: no rows.
        ValueError: as for `deployr_core.metrics.brier_score`, or under 1 bin or resample.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI 29:2901-2907; bias by chance: Roelofs et al. (2022), AISTATS,
    arXiv:2012.08668; reflected percentiles: Davison and Hinkley (1997), Bootstrap Methods, section 5.2.
    """
    labels, scores = checked_probabilities(labels, scores)
    patients = checked_patients(patients, labels)
    if labels.size == 0:
        raise NotMeasurable("expected at least one row")
    row_weights = checked_weights(weights, labels.shape)
    gaps = _Gaps.of(labels, scores, bins=bins)
    figure = measure([gaps], patients, rng=rng, resamples=resamples, weights=weights)["calibration_error"]
    if isinstance(figure, Interval):
        figure = Interval(
            value=figure.value,
            low=max(0.0, 2 * figure.value - figure.high),
            high=max(figure.value, 2 * figure.value - figure.low),
            resamples=figure.resamples,
        )
    return CalibrationError(error=figure, by_chance=gaps.by_chance(patients, row_weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gaps:
    """``columns``: what happened less what was said, in the column of the row's bin, shape (n_rows, n_bins)."""

    columns: Floats
    names: ClassVar[tuple[str, ...]] = ("calibration_error",)
    lacks: ClassVar[tuple[str, ...]] = ("at least one row",)

    @classmethod
    def of(cls, labels: Floats, scores: Floats, *, bins: int) -> _Gaps:
        bin_of_row = calibration_bins(scores, bins=bins)
        within = bin_of_row[:, np.newaxis] == np.arange(bin_of_row.max() + 1)
        return cls(columns=within * (labels - scores)[:, np.newaxis])

    def measured(self, weights: Floats) -> Floats:
        errors: Floats = np.abs(weights @ self.columns).sum(axis=1) / weights.sum(axis=1)
        return errors[:, np.newaxis]

    def by_chance(self, patients: NDArray[np.int64], weights: Floats) -> float:
        """Give the sum over bins of the mean absolute value of a normal number with the patients' variance."""
        of_row = weights[:, np.newaxis] * (self.columns != 0.0)
        means = (weights @ self.columns) / np.maximum(of_row.sum(axis=0), 1e-300)
        noise = weights[:, np.newaxis] * self.columns - of_row * means
        ids, patient_of_row = np.unique(patients, return_inverse=True)
        of_patient = np.zeros((ids.size, self.columns.shape[1]))
        np.add.at(of_patient, patient_of_row, noise)
        return float(np.sqrt(2.0 / np.pi * (of_patient**2).sum(axis=0)).sum() / weights.sum())
