"""What monitoring computes: intervals from resampled patients, and the drift of thousands of sparse features."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.measured import Measured, faster
from deployr_core.metrics import auroc_interval
from deployr_core.monitoring.drift import DriftReference, drifts
from deployr_core.monitoring.drift_cells import SparseRows

ROWS, PATIENTS, RESAMPLES = 100_000, 20_000, 1_000
FEATURES, REFERENCE_ROWS, WINDOW_ROWS, ROWS_A_PATIENT = 5_000, 8_000, 2_000, 4
_MOST_BOOTSTRAP_S = 10.0
_MOST_DRIFT_MS = 100.0
_LOOPED = 20
_ROUNDS = 15


def bootstrapping() -> list[Measured]:
    """Measure 1,000 resamples of patients for an AUROC, beside a loop over scikit-learn, and the drift of features."""
    return [*_resampling(), *_drifting()]


def _resampling() -> list[Measured]:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(8)
    patients = rng.integers(0, PATIENTS, ROWS)
    labels = (rng.random(ROWS) < 0.1).astype(np.float64)
    scores = labels + rng.normal(size=ROWS)
    started = time.perf_counter()
    auroc_interval(labels, scores, patients, rng=rng, resamples=RESAMPLES)
    ours = time.perf_counter() - started

    order = np.argsort(patients, kind="stable")
    rows_of = np.split(order, np.searchsorted(patients[order], np.arange(1, PATIENTS)))
    started = time.perf_counter()
    for _ in range(_LOOPED):
        drawn = np.concatenate([rows_of[patient] for patient in rng.integers(0, PATIENTS, PATIENTS)])
        roc_auc_score(labels[drawn], scores[drawn])
    # A thousand would take minutes; each takes as long as the others.
    loop = (time.perf_counter() - started) / _LOOPED * RESAMPLES
    name = f"{RESAMPLES:,} resamples of patients, AUROC of {ROWS:,} rows"
    return [
        Measured(
            name=name,
            value=round(ours, 3),
            unit="s",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_BOOTSTRAP_S:g} s",
            met=ours <= _MOST_BOOTSTRAP_S,
        ),
        faster(f"{name}, by a loop over scikit-learn", ours, loop, at_least=10, unit="s"),
    ]


def _drifting() -> list[Measured]:
    rng = np.random.default_rng(9)
    shares = np.minimum(0.5, rng.pareto(1.2, FEATURES) * 0.002 + 0.0002)
    before, whose = _sparse(rng, shares, REFERENCE_ROWS)
    now, now_whose = _sparse(rng, shares, WINDOW_ROWS)
    names = [f"feature {place}" for place in range(FEATURES)]
    reference = DriftReference.of(names, before, whose, scores=rng.random(REFERENCE_ROWS))
    drifts(reference, now, now_whose)
    samples = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        drifts(reference, now, now_whose).ranked(20)
        samples.append((time.perf_counter() - started) * 1000)
    value = statistics.median(samples)
    return [
        Measured(
            name=f"drift of {FEATURES:,} sparse features, {WINDOW_ROWS:,} rows with {now.values.size:,} values",
            value=round(value, 3),
            unit="ms",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_DRIFT_MS:g} ms",
            met=value <= _MOST_DRIFT_MS,
        )
    ]


def _sparse(rng: np.random.Generator, shares: np.ndarray, rows: int) -> tuple[SparseRows, np.ndarray]:
    """Give counts, as a patient's record has them: a third of the values are 1, the others vary."""
    there = rng.random((rows, FEATURES)) < shares
    of_row, indices = np.nonzero(there)
    values = np.where(indices % 3 == 0, 1.0, rng.normal(10.0, 3.0, of_row.size).round(1))
    starts = np.r_[0, np.cumsum(there.sum(axis=1))]
    return SparseRows(size=FEATURES, starts=starts, indices=indices, values=values), np.arange(rows) // ROWS_A_PATIENT
