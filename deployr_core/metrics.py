"""How well scores tell outcomes apart, with intervals that respect who the rows belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class NotMeasurable(ValueError):
    """The rows cannot carry the figure: the message says what they lack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with its 95 % bounds. ``resamples`` counts the bootstrap samples that could be measured."""

    value: float
    low: float
    high: float
    resamples: int


def auroc(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Give the area under the ROC curve: the chance that a positive row outscores a negative one, ties counting half.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: any finite numbers, shape (n_rows,).

    Raises:
        NotMeasurable: no row of one of the classes.
        ValueError: shapes differ, or a label is neither 0 nor 1, or a score is not finite.

    Source: Hanley and McNeil (1982), Radiology 143:29-36, doi:10.1148/radiology.143.1.7063747.
    """
    labels, scores = _checked(labels, scores)
    return float(_weighted_auroc(labels, scores, np.ones((1, labels.size)))[0])


def auroc_interval(
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
) -> Interval:
    """Give the AUROC with a 95 % percentile interval from a bootstrap that resamples patients, not rows.

    Rows of one patient resemble each other; resampling them one by one gives intervals that are far too narrow.
    Samples that happen to hold one class only cannot be measured and are left out.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: finite, shape (n_rows,).
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        rng: where the resampling comes from; the same generator state gives the same interval.
        resamples: how many samples to draw.

    Raises:
        NotMeasurable: no row of one of the classes, fewer than two patients, or hardly any measurable sample.
        ValueError: as for `auroc`, or not one patient per row.

    Source: Field and Welsh (2007), J. R. Stat. Soc. B 69:369-390, doi:10.1111/j.1467-9868.2007.00593.x.
    """
    labels, scores = _checked(labels, scores)
    value = auroc(labels, scores)
    if np.shape(patients) != labels.shape:
        raise ValueError(f"expected one patient per row, shape {labels.shape}, got {np.shape(patients)}")
    ids, patient_of_row = np.unique(patients, return_inverse=True)
    if ids.size < 2:
        raise NotMeasurable("expected rows of at least two patients for an interval")
    draws: list[NDArray[np.float64]] = []
    for start in range(0, resamples, 100):
        n = min(100, resamples - start)
        weights = rng.multinomial(ids.size, np.full(ids.size, 1 / ids.size), size=n)
        draws.append(_weighted_auroc(labels, scores, weights[:, patient_of_row].astype(np.float64)))
    samples = np.concatenate(draws)
    samples = samples[np.isfinite(samples)]
    if samples.size < resamples / 2:
        raise NotMeasurable("expected both classes in at least half of the resamples")
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high), resamples=int(samples.size))


def _checked(
    labels: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"expected labels and scores of one shape (n_rows,), got {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("expected labels of 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores")
    if not (labels == 1.0).any() or not (labels == 0.0).any():
        raise NotMeasurable("expected rows of both classes")
    return labels, scores


def _weighted_auroc(
    labels: NDArray[np.float64], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give one AUROC per row of ``weights``, shape (n_samples, n_rows); NaN where a class has no weight."""
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order], labels[order] == 1.0
    weights = weights[:, order]
    first_of_tie = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positives = np.add.reduceat(weights * positive, first_of_tie, axis=1)
    negatives = np.add.reduceat(weights * ~positive, first_of_tie, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + negatives / 2)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    areas: NDArray[np.float64] = np.full(pairs.shape, np.nan)
    np.divide(won, pairs, out=areas, where=pairs > 0)
    return areas
