"""Plain figures of models that bundles do not carry: several classes, several labels, or a number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployr_dev.estimators import Target


class NotPlain(ValueError):
    """The rows cannot carry these figures; the message says what they lack."""


def plain_figures(target: Target, labels: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, float]:
    """Measure what `deployr_dev.estimators.Fitted.scores` gave; no intervals.

    Args:
        target: what is predicted; ``binary`` is measured by `deployr_core.metrics`.
        labels: as in training, shape (n_rows,) or (n_rows, n_labels).
        scores: as scored, shape (n_rows, n_classes), (n_rows, n_labels) or (n_rows,).

    Returns:
        ``multiclass``: ``accuracy`` and ``auroc``, the mean over one class against the rest. ``multilabel``:
        ``auroc``, the mean over labels, and ``auroc_0`` and so on. ``regression``: ``mae`` and ``rmse`` in the labels'
        unit, and ``r2``, which is 1.0 at best and 0.0 for the mean.

    Raises:
        NotPlain: a class or label that no row, or every row, has; a binary target.
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    if target is Target.REGRESSION:
        return {
            "mae": float(mean_absolute_error(labels, scores)),
            "rmse": float(root_mean_squared_error(labels, scores)),
            "r2": float(r2_score(labels, scores)),
        }
    if target is Target.MULTICLASS:
        columns = (labels[:, None] == np.arange(scores.shape[1])).astype(np.float64)
        accuracy = float(np.mean(np.argmax(scores, axis=1) == labels))
        return {"accuracy": accuracy, "auroc": float(np.mean(_aurocs(columns, scores)))}
    if target is Target.MULTILABEL:
        areas = _aurocs(labels, scores)
        return {"auroc": float(np.mean(areas)), **{f"auroc_{i}": area for i, area in enumerate(areas)}}
    raise NotPlain("expected another target than binary, which deployr_core.metrics measures with intervals")


def _aurocs(columns: NDArray[np.float64], scores: NDArray[np.float64]) -> list[float]:
    from deployr_core.metrics import NotMeasurable, auroc

    try:
        return [auroc(column, score) for column, score in zip(columns.T, scores.T, strict=True)]
    except NotMeasurable as error:
        raise NotPlain(f"one class or label: {error}") from error
