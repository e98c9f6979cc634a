"""How far predicted numbers are off: on the whole, by what was predicted, and by how large the observed number was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, NotMeasurable, Ratios, measure
from deployr_core.calibration import calibration_bins
from deployr_core.metrics import checked_patients
from deployr_core.outputs import Outputs
from deployr_core.target_figures import SOME, headline_statistics

_MOST_BINS = 10
_ROWS_A_BIN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorBin:
    """Rows of neighbouring numbers, both ends included; means, of which ``error`` is the absolute one.

    ``bias``: predicted less observed.
    """

    lowest: float
    highest: float
    rows: int
    predicted: Figure
    observed: Figure
    error: Figure
    bias: Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberPerformance:
    """Predicted numbers against observed ones, in their unit.

    ``figures``: ``mae``, ``rmse``, ``bias`` (predicted less observed), ``r2``, and ``calibration_slope`` and
    ``calibration_intercept``, of the line of observed on predicted: 1 and 0 are right. ``by_predicted`` is the
    calibration curve; ``by_observed`` tells the error by magnitude.
    """

    unit: str
    rows: int
    patients: int
    figures: Mapping[str, Figure]
    by_predicted: tuple[ErrorBin, ...]
    by_observed: tuple[ErrorBin, ...]


def number_performance(
    outputs: Outputs,
    labels: Floats,
    answers: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> NumberPerformance:
    """Measure predicted numbers against observed ones.

    Args and Raises: as for `deployr_core.monitoring.more_outcomes.performance`.
    """
    if len(labels) == 0:
        raise NotMeasurable("expected at least one row with a label")
    statistics = headline_statistics(outputs, labels, answers)
    observed, predicted = labels, answers[:, 0]
    statistics.append(_Line(observed=observed, predicted=predicted))
    patients = checked_patients(patients, labels)
    bins = error_bin_count(labels.size)

    def binned(by: Floats, count: int) -> tuple[ErrorBin, ...]:
        return error_bins(by, observed, predicted, patients, bins=count, rng=rng, resamples=resamples, weights=weights)

    return NumberPerformance(
        unit=outputs.unit or "",
        rows=labels.size,
        patients=np.unique(patients).size,
        figures=measure(statistics, patients, rng=rng, resamples=resamples, weights=weights),
        by_predicted=binned(predicted, bins),
        by_observed=binned(observed, min(5, bins)),
    )


def error_bin_count(rows: int) -> int:
    """Give how many bins so many rows are put into by what was predicted: none of under 20 rows, and at most 10."""
    return max(1, min(_MOST_BINS, rows // _ROWS_A_BIN))


def error_bins(
    by: Floats,
    observed: Floats,
    predicted: Floats,
    patients: NDArray[np.int64],
    *,
    bins: int,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> tuple[ErrorBin, ...]:
    """Give the errors in bins of about equally many rows of neighbouring ``by``, shape (n_rows,) like the others.

    By what was observed, extremes are predicted too near to the middle even by a model that is right; only by what was
    predicted does a right model have no bias.

    Raises:
        ValueError: no rows, or under 1 bin or resample.
    """
    bin_of_row = calibration_bins(by, bins=bins)
    columns = np.column_stack([predicted, observed, np.abs(predicted - observed), predicted - observed])
    found = []
    for number in range(int(bin_of_row.max()) + 1):
        within = bin_of_row == number
        heavy = None if weights is None or not weights[within].any() else weights[within]
        means = Ratios(
            names=("predicted", "observed", "error", "bias"),
            lacks=(SOME,) * 4,
            numerators=columns[within],
            denominators=np.ones((int(within.sum()), 4)),
            shares=(False,) * 4,
        )
        found.append(
            ErrorBin(
                lowest=float(by[within].min()),
                highest=float(by[within].max()),
                rows=int(within.sum()),
                **measure([means], patients[within], rng=rng, resamples=resamples, weights=heavy),
            )
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Line:
    """The straight line of observed on predicted numbers."""

    observed: Floats
    predicted: Floats
    names: tuple[str, ...] = ("calibration_slope", "calibration_intercept")
    lacks: tuple[str, ...] = ("predicted numbers that are not all the same",) * 2

    def measured(self, weights: Floats) -> Floats:
        """Give slope and intercept under each row of weights."""
        total = weights.sum(axis=1)
        # Around the middle of all rows, so that large numbers keep their digits.
        x, y = self.predicted - self.predicted.mean(), self.observed - self.observed.mean()
        mean_x, mean_y = weights @ x / total, weights @ y / total
        spread = weights @ (x * x) / total - mean_x**2
        slope = np.full(len(weights), np.nan)
        apart = spread > 1e-12 * float((x * x).mean())
        np.divide(weights @ (x * y) / total - mean_x * mean_y, spread, out=slope, where=apart)
        intercept = self.observed.mean() + mean_y - slope * (self.predicted.mean() + mean_x)
        return np.column_stack([slope, intercept])
