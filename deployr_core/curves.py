"""ROC and precision-recall curves: what every threshold that can be told apart would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deployr_core.bootstrap import Floats, NotMeasurable, checked_weights
from deployr_core.metrics import BOTH_CLASSES, checked_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class RocCurve:
    """Points from the highest threshold down to the lowest, which gives (1, 1); all shape (n_points,).

    A row alerts when its score is at least the threshold. The corner (0, 0), which no score gives, is left out.
    """

    thresholds: Floats
    false_positive_rates: Floats
    sensitivities: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecallCurve:
    """Points from the highest threshold down; all shape (n_points,). Between two of them only steps may be drawn."""

    thresholds: Floats
    recalls: Floats
    precisions: Floats


def roc_curve(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> RocCurve:
    """Give one point for each distinct score that has weight.

    Raises:
        NotMeasurable: no weight on one of the classes.
        ValueError: as for `deployr_core.metrics.auroc`.
    """
    thresholds, positives, negatives = _caught(labels, scores, weights)
    return RocCurve(
        thresholds=thresholds,
        false_positive_rates=negatives / negatives[-1],
        sensitivities=positives / positives[-1],
    )


def precision_recall_curve(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> PrecisionRecallCurve:
    """Give one point for each distinct score that has weight.

    Raises:
        NotMeasurable: no weight on one of the classes.
        ValueError: as for `deployr_core.metrics.auroc`.
    """
    thresholds, positives, negatives = _caught(labels, scores, weights)
    return PrecisionRecallCurve(
        thresholds=thresholds,
        recalls=positives / positives[-1],
        precisions=positives / (positives + negatives),
    )


def _caught(labels: Floats, scores: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """Give the distinct scores from the highest down, and the positive and negative weight at or above each."""
    labels, scores = checked_rows(labels, scores)
    if labels.size == 0:
        raise NotMeasurable(f"expected {BOTH_CLASSES}")
    row_weights = checked_weights(weights, labels.shape)
    heavy = row_weights > 0
    distinct, place = np.unique(scores[heavy], return_inverse=True)
    of_each = row_weights[heavy]
    positives: Floats = np.cumsum(np.bincount(place, weights=of_each * labels[heavy])[::-1])
    negatives: Floats = np.cumsum(np.bincount(place, weights=of_each * (1.0 - labels[heavy]))[::-1])
    if positives[-1] == 0 or negatives[-1] == 0:
        raise NotMeasurable(f"expected {BOTH_CLASSES}")
    return distinct[::-1], positives, negatives
