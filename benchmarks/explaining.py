"""What a score's contributions cost beside the score itself, and what it costs to be ready for them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.measured import Measured
from deployr_core.contributions import TreePaths
from deployr_core.scoring import TreeEnsemble
from deployr_core.vectorize import FeatureVector

_FEATURES = 500
_ROWS = 4_000
_ASKED = 200
_MOST_MS = {"100 trees of depth 30": 0.8, "500 full-grown trees": 17.0}
"""By the forest: what a prototype took at most."""
_FORESTS: Mapping[str, Mapping[str, int]] = {
    "100 trees of depth 30": {"n_estimators": 100, "max_depth": 30},
    "500 full-grown trees": {"n_estimators": 500},
}


def explaining() -> list[Measured]:
    """Measure the median of 200 rows each, beside scoring the same rows; and the flat arrays' making, beside loading.

    The features are sparse and the labels half noise, so that the trees grow deep, as they do on records.
    """
    rows, labels = _training_rows(np.random.default_rng(0))
    vectors = [_vector(row) for row in rows[:_ASKED]]
    return [each for name in _FORESTS for each in _measured(name, rows, labels, vectors)]


def _measured(
    name: str, rows: NDArray[np.float64], labels: NDArray[np.int64], vectors: list[FeatureVector]
) -> list[Measured]:
    import treelite
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(**_FORESTS[name], max_features="sqrt", random_state=0, n_jobs=2).fit(rows, labels)
    checkpoint = bytes(treelite.sklearn.import_model(forest).serialize_bytes())
    ensemble = TreeEnsemble(checkpoint, n_features=_FEATURES)
    scoring_ms = _median_ms([partial(ensemble.score, row) for row in vectors])
    explaining_ms = _median_ms([partial(ensemble.explain, row) for row in vectors])
    loading_ms = _median_ms([lambda: treelite.Model.deserialize_bytes(checkpoint)] * 5)
    model = treelite.Model.deserialize_bytes(checkpoint)
    ready_ms = _median_ms([lambda: TreePaths(model, target=0, column=1)] * 5)
    return [
        Measured(
            name=f"contributions, {name}; baseline: scoring",
            value=round(explaining_ms, 3),
            unit="ms",
            baseline=round(scoring_ms, 3),
            ratio=round(explaining_ms / scoring_ms, 2),
            goal=f"value <= {_MOST_MS[name]:g} ms",
            met=explaining_ms <= _MOST_MS[name],
        ),
        Measured(
            name=f"made ready for contributions, {name}; baseline: reading the trees",
            value=round(ready_ms, 1),
            unit="ms",
            baseline=round(loading_ms, 1),
            ratio=round(ready_ms / loading_ms, 2),
            goal="",
            met=None,
        ),
    ]


def _median_ms(calls: Sequence[Callable[[], object]]) -> float:
    samples = []
    for call in calls:
        started = time.perf_counter()
        call()
        samples.append((time.perf_counter() - started) * 1000)
    return statistics.median(samples)


def _training_rows(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = np.where(rng.random((_ROWS, _FEATURES)) < 0.8, 0.0, rng.normal(size=(_ROWS, _FEATURES)))
    return rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=_ROWS) > 0).astype(np.int64)


def _vector(row: NDArray[np.float64]) -> FeatureVector:
    places = np.flatnonzero(row).astype(np.int32)
    return FeatureVector(spec_digest="", size=row.size, indices=places, values=row[places], coverage={})
