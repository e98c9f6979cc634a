"""How well scores tell outcomes apart and how true they are, with intervals that respect who the rows belong to.

Arrays in, numbers out. `Ranking` and the functions that give `Ratios` are what `deployr_core.bootstrap.measure` takes;
the plain functions give one figure without an interval. What follows from a threshold is in `deployr_core.thresholds`,
whole curves are in `deployr_core.curves`, calibration's own figures in `deployr_core.calibration`.
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
    Interval,
    NotMeasurable,
    NotMeasured,
    Ratios,
    Statistic,
    checked_weights,
    measure,
)

__all__ = [
    "Figure",
    "Interval",
    "NotMeasurable",
    "NotMeasured",
    "Ranking",
    "auroc",
    "auroc_interval",
    "average_precision",
    "brier_score",
    "checked_patients",
    "checked_probabilities",
    "checked_rows",
    "log_loss",
    "overall",
]

BOTH_CLASSES = "rows of both classes"
A_POSITIVE = "a row with the outcome"
A_NEGATIVE = "a row without the outcome"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """AUROC and average precision together: both count, for each positive row, what is ranked above it.

    Average precision is the mean, over positive rows, of the precision when everything scored at least as high is
    alerted on; it does not interpolate.
    """

    order: NDArray[np.int64]
    """The rows by descending score."""
    positives: NDArray[np.int64]
    """The places of positive rows in that order, shape (n_positives,), like the four that follow."""
    above: NDArray[np.int64]
    """How many rows outscore each of them."""
    tied_or_above: NDArray[np.int64]
    """How many rows it does not outscore, itself among them."""
    positives_above: NDArray[np.int64]
    positives_tied_or_above: NDArray[np.int64]
    names: ClassVar[tuple[str, ...]] = ("auroc", "average_precision")
    lacks: ClassVar[tuple[str, ...]] = (BOTH_CLASSES, A_POSITIVE)

    @classmethod
    def of(cls, labels: Floats, scores: Floats) -> Ranking:
        """Rank checked rows once, for all the weights that they will be measured under."""
        order = np.argsort(-scores, kind="stable")
        ranked, positives = scores[order], np.flatnonzero(labels[order] == 1.0)
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])[: ranked.size]
        ends = np.r_[starts[1:], ranked.size]
        tie = np.searchsorted(starts, positives, side="right") - 1
        return cls(
            order=order,
            positives=positives,
            above=starts[tie],
            tied_or_above=ends[tie],
            positives_above=np.searchsorted(positives, starts[tie]),
            positives_tied_or_above=np.searchsorted(positives, ends[tie]),
        )

    def measured(self, weights: Floats) -> Floats:
        """Give both figures under each row of weights, shape (n_samples, 2)."""
        ranked = weights[:, self.order]
        of_positives = ranked[:, self.positives]
        sums, positive_sums = _sums_before(ranked), _sums_before(of_positives)
        tied_or_above = sums[:, self.tied_or_above]
        positives_tied_or_above = positive_sums[:, self.positives_tied_or_above]
        negatives_above = sums[:, self.above] - positive_sums[:, self.positives_above]
        negatives_tied_or_above = tied_or_above - positives_tied_or_above
        positives = positive_sums[:, -1]
        negatives = sums[:, -1] - positives

        lost = (of_positives * (negatives_above + negatives_tied_or_above)).sum(axis=1) / 2
        precision = np.divide(
            positives_tied_or_above, tied_or_above, out=np.zeros_like(of_positives), where=tied_or_above > 0
        )
        figures: Floats = np.full((len(weights), 2), np.nan)
        pairs = positives * negatives
        np.divide(pairs - lost, pairs, out=figures[:, 0], where=pairs > 0)
        np.divide((of_positives * precision).sum(axis=1), positives, out=figures[:, 1], where=positives > 0)
        return figures


def auroc(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> float:
    """Give the area under the ROC curve: the chance that a positive row outscores a negative one, ties counting half.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: any finite numbers, shape (n_rows,).
        weights: of the rows, finite and not below 0, shape (n_rows,); None is 1 each.

    Raises:
        NotMeasurable: no row of one of the classes.
        ValueError: shapes differ, or a label is neither 0 nor 1, or a score is not finite.

    Source: Hanley and McNeil (1982), Radiology 143:29-36, doi:10.1148/radiology.143.1.7063747.
    """
    return _ranked(labels, scores, weights, place=0)


def average_precision(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> float:
    """Give the mean precision at each positive row: a model that knows nothing gets the prevalence.

    Args and Raises: as for `auroc`.

    Source: Davis and Goadrich (2006), ICML, doi:10.1145/1143844.1143874 (why the curve must not be interpolated).
    """
    return _ranked(labels, scores, weights, place=1)


def auroc_interval(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Give the AUROC with a 95 % percentile interval from a bootstrap that resamples patients, not rows.

    Samples that happen to hold one class only cannot be measured and are left out.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: finite, shape (n_rows,).
        patients: which patient each row belongs to, any integers, shape (n_rows,).
        rng: where the resampling comes from; the same generator state gives the same interval.
        resamples: how many samples to draw, at least 1.

    Raises:
        NotMeasurable: no row of one of the classes, fewer than two patients, or hardly any measurable sample.
        ValueError: as for `auroc`, or not one patient per row, or ``resamples`` under 1.
    """
    labels, scores = checked_rows(labels, scores)
    patients = checked_patients(patients, labels)
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")
    if labels.size == 0:
        raise NotMeasurable(f"expected {BOTH_CLASSES}")
    match measure([Ranking.of(labels, scores)], patients, rng=rng, resamples=resamples)["auroc"]:
        case NotMeasured(why=why):
            raise NotMeasurable(why)
        case Interval() as interval:
            return interval


def brier_score(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> float:
    """Give the mean squared distance between probability and outcome: 0 is perfect; always 1/2 gets 1/4.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: probabilities, shape (n_rows,).
        weights: of the rows; None is 1 each.

    Raises:
        NotMeasurable: no rows.
        ValueError: as for `auroc`, or a score outside 0 to 1.

    Source: Brier (1950), Monthly Weather Review 78:1-3.
    """
    return _mean_of("brier_score", labels, scores, weights)


def log_loss(labels: Floats, scores: Floats, *, weights: Floats | None = None) -> float:
    """Give the mean surprise, in nats: minus the logarithm of the probability that was given to what happened.

    Nothing is clipped: a model that called impossible what happened is infinitely wrong, and that is said.

    Args and Raises: as for `brier_score`; also NotMeasurable where it is infinite.

    Source: Good (1952), J. R. Stat. Soc. B 14:107-114.
    """
    return _mean_of("log_loss", labels, scores, weights)


def overall(labels: Floats, scores: Floats) -> list[Statistic]:
    """Give what there is to measure of probabilities, without a threshold and without calibration's own figures.

    The figures are ``auroc``, ``average_precision``, ``prevalence``, ``mean_score``, ``calibration_in_the_large``
    (prevalence less mean score: above 0, the model says too little), ``brier_score`` and ``log_loss``.

    Raises:
        ValueError: as for `brier_score`.
    """
    labels, scores = checked_probabilities(labels, scores)
    some = "at least one row"
    means: Mapping[str, tuple[Floats, str, bool]] = {
        "prevalence": (labels, some, True),
        "mean_score": (scores, some, False),
        "calibration_in_the_large": (labels - scores, some, False),
        "brier_score": ((scores - labels) ** 2, some, False),
        "log_loss": (*_surprise(labels, scores), False),
    }
    return [
        Ranking.of(labels, scores),
        Ratios(
            names=tuple(means),
            lacks=tuple(lacks for _, lacks, _ in means.values()),
            numerators=np.column_stack([column for column, _, _ in means.values()]),
            denominators=np.ones((labels.size, len(means))),
            shares=tuple(share for _, _, share in means.values()),
        ),
    ]


def checked_rows(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Give labels and scores as float64.

    Raises:
        ValueError: shapes differ, or a label is neither 0 nor 1, or a score is not finite.
    """
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"expected labels and scores of one shape (n_rows,), got {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("expected labels of 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores")
    return labels, scores


def checked_probabilities(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Give labels and scores as float64, the scores being probabilities.

    Raises:
        ValueError: as for `checked_rows`, or a score outside 0 to 1.
    """
    labels, scores = checked_rows(labels, scores)
    if ((scores < 0.0) | (scores > 1.0)).any():
        raise ValueError("expected scores from 0 to 1: only probabilities can be held against outcomes")
    return labels, scores


def checked_patients(patients: NDArray[np.int64], labels: Floats) -> NDArray[np.int64]:
    """Give the rows' patients.

    Raises:
        ValueError: not one patient per row, or not integers.
    """
    patients = np.asarray(patients)
    if patients.shape != labels.shape:
        raise ValueError(f"expected one patient per row, shape {labels.shape}, got {patients.shape}")
    if patients.size and not np.issubdtype(patients.dtype, np.integer):
        raise ValueError(f"expected patients as integers, got {patients.dtype}")
    return patients


def _ranked(labels: Floats, scores: Floats, weights: Floats | None, *, place: int) -> float:
    labels, scores = checked_rows(labels, scores)
    if labels.size == 0:
        raise NotMeasurable(f"expected {Ranking.lacks[place]}")
    row_weights = checked_weights(weights, labels.shape)
    figure = float(Ranking.of(labels, scores).measured(row_weights[np.newaxis])[0, place])
    if np.isnan(figure):
        raise NotMeasurable(f"expected {Ranking.lacks[place]}")
    return figure


def _mean_of(name: str, labels: Floats, scores: Floats, weights: Floats | None) -> float:
    labels, scores = checked_probabilities(labels, scores)
    if labels.size == 0:
        raise NotMeasurable("expected at least one row")
    row_weights = checked_weights(weights, labels.shape)
    figure, lacks = {
        "brier_score": ((scores - labels) ** 2, ""),
        "log_loss": _surprise(labels, scores),
    }[name]
    mean = float((figure * row_weights).sum() / row_weights.sum())
    if np.isnan(mean):
        raise NotMeasurable(f"expected {lacks}")
    return mean


def _surprise(labels: Floats, scores: Floats) -> tuple[Floats, str]:
    """Give each row's log loss, NaN where it is infinite, and what rows lack that have an infinite one."""
    given = np.where(labels == 1.0, scores, 1.0 - scores)
    impossible = int((given == 0.0).sum())
    lacks = (
        f"no outcome that the model called impossible; {impossible} rows scored exactly 0 or 1 turned out otherwise,"
        " so the loss is infinite"
    )
    return -np.log(given, out=np.full(given.shape, np.nan), where=given > 0.0), lacks


def _sums_before(weights: Floats) -> Floats:
    """Give the sum of the columns before each place, and of all, shape (n_samples, n_columns + 1)."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
