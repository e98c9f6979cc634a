"""Performance before labels are there, estimated from the scores alone. An estimate, and always to be shown as one.

If a probability is right, it says how often its row will turn out positive, and so what every figure will be. Whether
probabilities still are right is what labels are waited for: an estimate sees that patients have changed, and does not
see that the disease, the treatment or the meaning of a feature has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import (
    RESAMPLES,
    Figure,
    Floats,
    NotMeasurable,
    drawn_weights,
    with_percentiles,
)
from deployr_core.calibration import Recalibration, logistic, logits_of
from deployr_core.metrics import A_NEGATIVE, A_POSITIVE, BOTH_CLASSES, Ranking, checked_patients, checked_probabilities

_LACKS = {
    "auroc": BOTH_CLASSES,
    "average_precision": A_POSITIVE,
    "prevalence": "at least one row",
    "brier_score": "at least one row",
    "log_loss": "no score of exactly 0 or 1",
    "alert_rate": "at least one row",
    "sensitivity": A_POSITIVE,
    "specificity": A_NEGATIVE,
    "ppv": "a row with an alert",
    "npv": "a row without an alert",
}
_AT_THRESHOLD = ("alert_rate", "sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatedPerformance:
    """What performance is expected to be. Nothing here was measured against an outcome.

    ``figures``: ``auroc``, ``average_precision``, ``prevalence``, ``brier_score``, ``log_loss``, and with a threshold
    ``alert_rate``, ``sensitivity``, ``specificity``, ``ppv`` and ``npv``. Their intervals hold the uncertainty of who
    came and of the recalibration, not the luck of the outcomes to come, and not a change of what scores mean.
    """

    ASSUMES: ClassVar[str] = (
        "Estimated from the scores, not measured: it supposes that a score means what it meant in the reference period."
    )
    rows: int
    reference_rows: int
    slope: float
    intercept: float
    figures: Mapping[str, Figure]


def estimated_performance(
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    reference_labels: Floats,
    reference_scores: Floats,
    reference_patients: NDArray[np.int64],
    rng: np.random.Generator,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
) -> EstimatedPerformance:
    """Estimate the performance on rows without labels, by confidence (CBPE), recalibrated on rows with labels.

    Args:
        scores: probabilities, shape (n_rows,).
        patients: which patient each of them belongs to, shape (n_rows,).
        reference_labels: 0.0 or 1.0, shape (n_reference,): of a period before, whose labels are all in.
        reference_scores: of the same model version, shape (n_reference,).
        reference_patients: shape (n_reference,).
        rng: where the resampling comes from, of the reference and of the rows.
        threshold: alerts are scores of at least this.
        resamples: of each interval.

    Raises:
        NotMeasurable: no rows, or a reference that scores cannot be recalibrated on.
        ValueError: an argument that cannot be, or under 1 resample.

    Source: NannyML's definition of confidence-based performance estimation; J. Bialek, W. Kuberski, N. Perrakis,
    A. Bifet, arXiv:2407.08649.
    """
    reference_labels, reference_scores = checked_probabilities(reference_labels, reference_scores)
    reference_patients = checked_patients(reference_patients, reference_labels)
    _, scores = checked_probabilities(np.zeros(np.shape(scores)), scores)
    patients = checked_patients(patients, scores)
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")
    if scores.size == 0 or reference_labels.size == 0:
        raise NotMeasurable("expected at least one row, and a reference period with labels")
    reference = Recalibration.of(reference_labels, reference_scores)
    intercept, slope = reference.lines(np.ones((1, reference_labels.size)))[0]
    if not np.isfinite(slope):
        raise NotMeasurable(f"expected {Recalibration.lacks[0]} in the reference period")
    expected = _Expected.of(scores, threshold)
    names = tuple(name for name in _LACKS if threshold is not None or name not in _AT_THRESHOLD)
    value = expected.under(np.ones((1, scores.size)), np.array([[intercept, slope]]))[0]
    lines = [reference.lines(times) for times in drawn_weights(reference_patients, rng=rng, resamples=resamples)] or [
        np.empty((0, 2))
    ]
    samples, done = [], 0
    line_of = np.concatenate(lines)
    for times in drawn_weights(patients, rng=rng, resamples=len(line_of)) if len(line_of) else ():
        samples.append(expected.under(times, line_of[done : done + len(times)]))
        done += len(times)
    drawn = np.concatenate(samples) if samples else np.empty((0, len(names)))
    return EstimatedPerformance(
        rows=scores.size,
        reference_rows=reference_labels.size,
        slope=float(slope),
        intercept=float(intercept),
        figures={
            name: with_percentiles(float(value[place]), drawn[:, place], lacks=_LACKS[name], asked=resamples)
            for place, name in enumerate(names)
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Expected:
    """Every row stands twice: as a positive one with its probability as weight, and as a negative one with the rest."""

    scores: Floats
    logits: Floats
    surprise: Floats
    ranking: Ranking
    alert: Floats | None

    @classmethod
    def of(cls, scores: Floats, threshold: float | None) -> _Expected:
        twice = np.r_[np.ones(scores.size), np.zeros(scores.size)]
        given = np.column_stack([scores, 1.0 - scores])
        return cls(
            scores=scores,
            logits=logits_of(scores),
            surprise=-np.log(given, out=np.full(given.shape, np.nan), where=given > 0.0),
            ranking=Ranking.of(twice, np.r_[scores, scores]),
            alert=None if threshold is None else (scores >= threshold).astype(np.float64),
        )

    def under(self, weights: Floats, lines: Floats) -> Floats:
        """Give the figures under each row of weights and its line, in the order of `_LACKS`."""
        likely = logistic(lines[:, :1] + lines[:, 1:] * self.logits)
        positive = weights * likely
        total, positives = weights.sum(axis=1), positive.sum(axis=1)
        ranked = self.ranking.measured(np.concatenate([positive, weights - positive], axis=1))
        columns = [
            ranked[:, 0],
            ranked[:, 1],
            positives / total,
            (weights @ self.scores**2 + positive @ (1.0 - 2.0 * self.scores)) / total,
            (positive @ self.surprise[:, 0] + (weights - positive) @ self.surprise[:, 1]) / total,
        ]
        if self.alert is not None:
            alerts, right = weights @ self.alert, positive @ self.alert
            with np.errstate(divide="ignore", invalid="ignore"):
                columns += [
                    alerts / total,
                    right / positives,
                    1.0 - (alerts - right) / (total - positives),
                    right / alerts,
                    1.0 - (positives - right) / (total - alerts),
                ]
        return np.column_stack(columns)
