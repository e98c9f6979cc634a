"""Rows to tell two models apart with, laid where they would part company, and what an estimator says of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployr_core.outputs import Target
from deployr_core.vectorize import FeatureVector

PROBES = 64


def probe_rows(checkpoint: bytes | None, *, n_features: int) -> NDArray[np.float64]:
    """Make rows of which some features are 0 and the others lie at, just below or just above a threshold.

    Args:
        checkpoint: of the trees; None makes rows of rounded normal numbers.
        n_features: how many columns.

    Returns:
        Always the same rows for the same trees, shape (PROBES, n_features).
    """
    rng = np.random.default_rng(0)
    rows = np.round(rng.normal(scale=3.0, size=(PROBES, n_features)), 2)
    if checkpoint is not None:
        for feature, thresholds in _thresholds(checkpoint).items():
            at = rng.choice(thresholds, size=PROBES)
            to = rng.choice([-np.inf, np.inf], size=PROBES)
            rows[:, feature] = np.where(rng.random(PROBES) < 0.5, at, np.nextafter(at, to))
    rows[rng.random(rows.shape) < 0.4] = 0.0
    return rows


def row_vector(row: NDArray[np.float64]) -> FeatureVector:
    """Give a dense row as the vector that stands for it; it belongs to no declaration."""
    indices = np.flatnonzero(row).astype(np.int32)
    return FeatureVector(spec_digest="", size=row.size, indices=indices, values=row[indices], coverage={})


def estimator_answers(estimator: Any, rows: Any, target: Target) -> NDArray[np.float64]:
    """Ask an estimator about rows, as they are dense or sparse; whose classes are in order.

    Returns:
        The probability of the outcome; of each class or of each label; or the number; shape (n_rows, n_outputs).
    """
    if not hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict(rows), dtype=np.float64).reshape(rows.shape[0], -1)
    found = estimator.predict_proba(rows)
    if isinstance(found, list):  # scikit-learn gives both classes of each label in an array of its own
        return np.stack([np.asarray(each, dtype=np.float64)[:, 1] for each in found], axis=1)
    probabilities = np.asarray(found, dtype=np.float64)
    return probabilities[:, 1:] if target is Target.BINARY else probabilities


def _thresholds(checkpoint: bytes) -> dict[int, NDArray[np.float64]]:
    import treelite

    model = treelite.Model.deserialize_bytes(checkpoint)
    found: dict[int, list[float]] = {}
    for number in range(model.num_tree):
        tree = model.get_tree_accessor(number)
        features, thresholds = tree.get_field("split_index"), tree.get_field("threshold")
        for feature, threshold in zip(features.tolist(), thresholds.tolist(), strict=True):
            # LightGBM's 1e-35 parts what is 0 from what is not, and its own predict cuts smaller values to 0 before.
            if feature >= 0 and np.isfinite(threshold) and abs(threshold) > 1e-30:
                found.setdefault(feature, []).append(threshold)
    return {feature: np.array(thresholds, dtype=np.float64) for feature, thresholds in sorted(found.items())}
