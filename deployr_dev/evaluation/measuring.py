"""From labels and scores to an `Evaluation`: everything that a report shows, every figure with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from deployr_core import bootstrap
from deployr_core.bootstrap import RESAMPLES, Floats, NotMeasurable
from deployr_core.calibration import SCORE_LIMIT, CalibrationBin
from deployr_core.curves import precision_recall_curve, roc_curve
from deployr_core.groups import Strings, in_order, named_rows
from deployr_core.metrics import checked_patients, checked_probabilities
from deployr_core.monitoring.binary import binary_figures
from deployr_core.thresholds import threshold_at_alert_rate, threshold_at_sensitivity
from deployr_dev.evaluation.groups import availability_fifths, measured_group
from deployr_dev.evaluation.records import (
    AlertRateAtMost,
    AtThreshold,
    CalibrationPoint,
    Evaluation,
    Given,
    Group,
    Grouping,
    NoThreshold,
    NotMeasured,
    PrecisionRecallPoints,
    RocPoints,
    ScoreHistogram,
    SensitivityAtLeast,
    Threshold,
    ThresholdChoice,
    recorded,
)

ALERT_RATES = (0.01, 0.02, 0.05, 0.10, 0.20)
SENSITIVITIES = (0.80, 0.90, 0.95)
UNGIVEN_THRESHOLD = AlertRateAtMost(share=0.10)
_HISTOGRAM_BINS = 20
_MOST_CURVE_POINTS = 500

Rows = NDArray[np.bool_]


def evaluate(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    subgroups: Mapping[str, Strings],
    available_features: NDArray[np.int64],
    threshold: float | None = None,
    alert_rates: Sequence[float] = ALERT_RATES,
    sensitivities: Sequence[float] = SENSITIVITIES,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Measure probabilities against outcomes, for all rows and for groups of them.

    A figure that the rows cannot carry says why in its place; nothing is filled in.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: probabilities of label 1, shape (n_rows,).
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        rng: where the resampling comes from; the same generator state gives the same evaluation.
        subgroups: by property, such as ``sex``, the name of each row's group, shape (n_rows,); an empty name is
            counted as not recorded. For ages see `deployr_core.groups.age_bands`.
        available_features: how many features were not absent in each row, shape (n_rows,).
        threshold: alerts are scores of at least this. None: nobody has chosen one yet, and what needs one is given
            at the lowest that alerts on at most 10 % of the rows.
        alert_rates: of the threshold table.
        sensitivities: of the threshold table.
        resamples: of each interval.

    Raises:
        ValueError: no rows, or an argument that cannot be; the message names it.
    """
    labels, scores = checked_probabilities(labels, scores)
    patients = checked_patients(patients, labels)
    if labels.size == 0:
        raise ValueError("expected at least one row to evaluate")
    available = _checked_available(available_features, labels)
    named = {name: named_rows(name, names, labels.shape) for name, names in subgroups.items()}

    # Thousands of small matrix products: threads that wait for each other on a busy machine took ten times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        return _evaluated(
            labels,
            scores,
            patients,
            rng=rng,
            named=named,
            available=available,
            threshold=threshold,
            choices=[
                *(AlertRateAtMost(share=share) for share in alert_rates),
                *(SensitivityAtLeast(share=share) for share in sensitivities),
            ],
            resamples=resamples,
        )


_Wanted = tuple[ThresholdChoice, float | str]


def _evaluated(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    named: Mapping[str, Strings],
    available: NDArray[np.int64],
    threshold: float | None,
    choices: Sequence[ThresholdChoice],
    resamples: int,
) -> Evaluation:
    operating = _found(UNGIVEN_THRESHOLD, labels, scores) if threshold is None else _given(threshold)
    wanted = [operating, *(_found(choice, labels, scores) for choice in choices)]
    cuts = [cut for _, cut in wanted if isinstance(cut, float)]
    found = binary_figures(labels, scores, patients, cuts, rng=rng, resamples=resamples)
    measured, thresholds = found.figures, _thresholds(wanted, found.at)
    cut = operating[1] if isinstance(operating[1], float) else None

    def group(name: str, within: Rows) -> Group:
        return measured_group(
            name, labels[within], scores[within], patients[within], cut=cut, rng=rng, resamples=resamples
        )

    return Evaluation(
        rows=labels.size,
        patients=np.unique(patients).size,
        positives=int(labels.sum()),
        resamples=resamples,
        scores_at_limit=int(((scores < SCORE_LIMIT) | (scores > 1.0 - SCORE_LIMIT)).sum()),
        prevalence=recorded(measured["prevalence"]),
        auroc=recorded(measured["auroc"]),
        average_precision=recorded(measured["average_precision"]),
        brier_score=recorded(measured["brier_score"]),
        log_loss=recorded(measured["log_loss"]),
        mean_score=recorded(measured["mean_score"]),
        calibration_in_the_large=recorded(measured["calibration_in_the_large"]),
        calibration_slope=recorded(measured["calibration_slope"]),
        calibration_intercept=recorded(measured["calibration_intercept"]),
        operating=thresholds[0],
        thresholds=tuple(thresholds[1:]),
        roc=roc_points(labels, scores),
        precision_recall=_precision_recall(labels, scores),
        calibration=tuple(_point(point) for point in found.calibration),
        histogram=_histogram(labels, scores),
        groupings=tuple(
            Grouping(name=name, groups=tuple(group(each, names == each) for each in in_order(names)))
            for name, names in named.items()
        ),
        by_available_features=availability_fifths(labels, scores, patients, available, rng=rng, resamples=resamples),
    )


def _given(threshold: float) -> _Wanted:
    if not np.isfinite(threshold):
        raise ValueError(f"expected a finite threshold, got {threshold:g}")
    return Given(), float(threshold)


def _found(choice: ThresholdChoice, labels: Floats, scores: Floats) -> _Wanted:
    """Give the threshold that does what is asked for, or why there is none."""
    try:
        match choice:
            case AlertRateAtMost(share=share):
                return choice, threshold_at_alert_rate(scores, share)
            case SensitivityAtLeast(share=share):
                return choice, threshold_at_sensitivity(labels, scores, share)
            case Given():
                raise ValueError("expected the threshold with the choice")
    except NotMeasurable as error:
        return choice, str(error)


def _thresholds(wanted: Sequence[_Wanted], measured: Sequence[Mapping[str, bootstrap.Figure]]) -> list[Threshold]:
    thresholds: list[Threshold] = []
    measured_at = iter(measured)
    for choice, cut in wanted:
        if isinstance(cut, str):
            thresholds.append(NoThreshold(choice=choice, why=cut))
            continue
        figures = {name: recorded(figure) for name, figure in next(measured_at).items()}
        thresholds.append(AtThreshold(choice=choice, threshold=cut, **figures))
    return thresholds


def roc_points(labels: Floats, scores: Floats) -> RocPoints | NotMeasured:
    """Give the points of the ROC curve that are kept, or why there are none."""
    try:
        curve = roc_curve(labels, scores)
    except NotMeasurable as error:
        return NotMeasured(why=str(error))
    kept = _kept(curve.thresholds.size)
    return RocPoints(
        thresholds=tuple(curve.thresholds[kept].tolist()),
        false_positive_rates=tuple(curve.false_positive_rates[kept].tolist()),
        sensitivities=tuple(curve.sensitivities[kept].tolist()),
    )


def _precision_recall(labels: Floats, scores: Floats) -> PrecisionRecallPoints | NotMeasured:
    try:
        curve = precision_recall_curve(labels, scores)
    except NotMeasurable as error:
        return NotMeasured(why=str(error))
    kept = _kept(curve.thresholds.size)
    return PrecisionRecallPoints(
        thresholds=tuple(curve.thresholds[kept].tolist()),
        recalls=tuple(curve.recalls[kept].tolist()),
        precisions=tuple(curve.precisions[kept].tolist()),
    )


def _kept(points: int) -> NDArray[np.int64]:
    """Choose which of a curve's points are kept: all of a short one, evenly spread ones and both ends of a long one."""
    kept: NDArray[np.int64] = np.unique(np.linspace(0, points - 1, min(points, _MOST_CURVE_POINTS)).round()).astype(
        np.int64
    )
    return kept


def _histogram(labels: Floats, scores: Floats) -> ScoreHistogram:
    with_outcome, without = (
        tuple(np.histogram(scores[labels == label], bins=_HISTOGRAM_BINS, range=(0.0, 1.0))[0].tolist())
        for label in (1.0, 0.0)
    )
    return ScoreHistogram(with_outcome=with_outcome, without_outcome=without)


def _point(point: CalibrationBin) -> CalibrationPoint:
    return CalibrationPoint(
        lowest=point.lowest,
        highest=point.highest,
        rows=point.rows,
        mean_score=point.mean_score,
        observed=recorded(point.observed),
    )


def _checked_available(available: NDArray[np.int64], labels: Floats) -> NDArray[np.int64]:
    available = np.asarray(available)
    if available.shape != labels.shape:
        raise ValueError(f"expected available_features of shape {labels.shape}, got {available.shape}")
    if not np.issubdtype(available.dtype, np.integer) or (available < 0).any():
        raise ValueError("expected available_features as counts, none below 0")
    return available
