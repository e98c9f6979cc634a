"""How probabilities of one outcome do in service: everything that a panel shows, every figure with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, NotMeasurable, checked_weights, measure
from deployr_core.calibration import (
    CalibrationBin,
    Recalibration,
    calibration_bins,
    calibration_points,
    observed_shares,
)
from deployr_core.calibration_error import calibration_error
from deployr_core.metrics import checked_patients, checked_probabilities, checked_rows, overall
from deployr_core.monitoring.usefulness import number_needed_to_evaluate
from deployr_core.thresholds import threshold_at_alert_rate, threshold_figures

ALERT_RATES = (0.01, 0.02, 0.05, 0.10, 0.20)
_AT = ("alert_rate", "sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Rows by what was done and what happened; an alert is a score of at least the threshold."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AtThreshold:
    """What comes of alerting at ``threshold``.

    ``alert_rate``: the rate that the threshold was chosen for; None for the deployment's own. ``figures``:
    ``alert_rate``, ``sensitivity``, ``specificity``, ``ppv``, ``npv`` and ``number_needed_to_evaluate``.
    """

    alert_rate: float | None
    threshold: float
    figures: Mapping[str, Figure]
    confusion: Confusion


@dataclass(frozen=True, kw_only=True, slots=True)
class NoThreshold:
    """No threshold alerts so rarely: ``why`` is written to be shown."""

    alert_rate: float
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BinaryPerformance:
    """Probabilities against outcomes.

    ``figures``: ``auroc``, ``average_precision``, ``prevalence``, ``mean_score``, ``calibration_in_the_large``,
    ``brier_score``, ``log_loss``, ``calibration_slope``, ``calibration_intercept`` and ``calibration_error``, which is
    to be read beside ``calibration_error_by_chance``. ``at``: at the deployment's threshold, if it was given, and then
    at each alert rate.
    """

    rows: int
    patients: int
    positives: int
    figures: Mapping[str, Figure]
    calibration_error_by_chance: float
    calibration: tuple[CalibrationBin, ...]
    at: tuple[AtThreshold | NoThreshold, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BinaryFigures:
    """Everything that is measured in the same resamples.

    ``figures``: as in `BinaryPerformance`, without the calibration error. ``at``: for each threshold ``alert_rate``,
    ``sensitivity``, ``specificity``, ``ppv`` and ``npv``.
    """

    figures: Mapping[str, Figure]
    calibration: tuple[CalibrationBin, ...]
    at: tuple[Mapping[str, Figure], ...]


def binary_figures(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    cuts: Sequence[float],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> BinaryFigures:
    """Measure checked rows on the whole, at these thresholds and in bins of scores: what services and reports share.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,), at least one.
        scores: probabilities, shape (n_rows,).
        patients: which patient each row belongs to, shape (n_rows,).
        cuts: thresholds.
        rng: where the resampling comes from; it is drawn from once.
        resamples: of each interval.
        weights: of the rows; None is 1 each.
    """
    bin_of_row = calibration_bins(scores)
    measured = measure(
        [
            *overall(labels, scores),
            Recalibration.of(labels, scores),
            threshold_figures(labels, scores, cuts),
            observed_shares(labels, bin_of_row),
        ],
        patients,
        rng=rng,
        resamples=resamples,
        weights=weights,
    )
    return BinaryFigures(
        figures={name: figure for name, figure in measured.items() if "@" not in name},
        calibration=calibration_points(scores, bin_of_row, measured, weights=weights),
        at=tuple({name: measured[f"{name}@{place}"] for name in _AT} for place in range(len(cuts))),
    )


def binary_performance(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    threshold: float | None = None,
    alert_rates: Sequence[float] = ALERT_RATES,
    scored: Floats | None = None,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> BinaryPerformance:
    """Measure probabilities against outcomes; a figure that the rows cannot carry says why in its place.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: probabilities of label 1, shape (n_rows,).
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        rng: where the resampling comes from; the same generator state gives the same figures.
        threshold: the deployment's, if it has one.
        alert_rates: of all that is scored, each above 0 and at most 1.
        scored: the scores of all rows, labelled or not, which alert rates are shares of; None: ``scores``.
        resamples: of each interval.
        weights: of the rows, such as inverse probabilities of being labelled; None is 1 each. ``confusion`` and the
            counts are of rows, whatever they weigh.

    Raises:
        NotMeasurable: no rows.
        ValueError: an argument that cannot be; the message names it.
    """
    labels, scores = checked_probabilities(labels, scores)
    patients = checked_patients(patients, labels)
    if labels.size == 0:
        raise NotMeasurable("expected at least one row with a label")
    checked_weights(weights, labels.shape)
    planned: list[NoThreshold | tuple[float | None, float]] = [] if threshold is None else [(None, float(threshold))]
    planned += [_at_rate(scores if scored is None else scored, rate) for rate in alert_rates]
    cuts = [plan[1] for plan in planned if not isinstance(plan, NoThreshold)]
    measured = binary_figures(labels, scores, patients, cuts, rng=rng, resamples=resamples, weights=weights)
    deviation = calibration_error(labels, scores, patients, rng=rng, resamples=resamples, weights=weights)
    at: list[AtThreshold | NoThreshold] = []
    figures_at = iter(measured.at)
    for plan in planned:
        if isinstance(plan, NoThreshold):
            at.append(plan)
            continue
        rate, cut = plan
        figures = dict(next(figures_at))
        figures["number_needed_to_evaluate"] = number_needed_to_evaluate(figures["ppv"])
        at.append(
            AtThreshold(alert_rate=rate, threshold=cut, figures=figures, confusion=confusion(labels, scores, cut))
        )
    return BinaryPerformance(
        rows=labels.size,
        patients=np.unique(patients).size,
        positives=int(labels.sum()),
        figures={**measured.figures, "calibration_error": deviation.error},
        calibration_error_by_chance=deviation.by_chance,
        calibration=measured.calibration,
        at=tuple(at),
    )


def confusion(labels: Floats, scores: Floats, threshold: float) -> Confusion:
    """Count rows by what was done and what happened.

    Raises:
        ValueError: as for `deployr_core.metrics.auroc`.
    """
    labels, scores = checked_rows(labels, scores)
    alert, positive = scores >= threshold, labels == 1.0
    return Confusion(
        true_positives=int((alert & positive).sum()),
        false_positives=int((alert & ~positive).sum()),
        false_negatives=int((~alert & positive).sum()),
        true_negatives=int((~alert & ~positive).sum()),
    )


def _at_rate(scored: Floats, rate: float) -> NoThreshold | tuple[float, float]:
    """Give the rate with its threshold, or why there is none."""
    try:
        return rate, threshold_at_alert_rate(scored, rate)
    except NotMeasurable as error:
        return NoThreshold(alert_rate=rate, why=str(error))
