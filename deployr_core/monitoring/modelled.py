"""Models of who is labelled and of what the outcome would be: what secondary estimates under selection are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.calibration import SCORE_LIMIT, logistic
from deployr_core.metrics import BOTH_CLASSES

LEAST_CHANCE = 0.01
"""A modelled chance of being labelled counts as at least that: a row never stands for more than a hundred."""

_MOST_STEPS = 50
_RIDGE = 1e-4
"""Of the mean log likelihood: so little that it only keeps separated classes from an infinite slope."""
_CONVERGED = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoRanking:
    """AUROC of outcomes that are partly filled in: numbers around 0 to 1, and outside it where a rare row was labelled.

    Every pair of two rows counts as one with the outcome and one without by the product of their outcomes.
    """

    order: NDArray[np.intp]
    outcomes: Floats
    above: NDArray[np.intp]
    tied_or_above: NDArray[np.intp]
    names: ClassVar[tuple[str, ...]] = ("auroc",)
    lacks: ClassVar[tuple[str, ...]] = (BOTH_CLASSES,)

    @classmethod
    def of(cls, outcomes: Floats, scores: Floats) -> PseudoRanking:
        """Rank rows once, for all the weights that they will be measured under."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        tie = np.searchsorted(starts, np.arange(ranked.size), side="right") - 1
        return cls(
            order=order, outcomes=outcomes[order], above=starts[tie], tied_or_above=np.r_[starts[1:], ranked.size][tie]
        )

    def measured(self, weights: Floats) -> Floats:
        """Give the AUROC under each row of weights, shape (n_samples, 1)."""
        ranked = weights[:, self.order]
        positive, negative = ranked * self.outcomes, ranked * (1.0 - self.outcomes)
        sums = np.zeros((len(weights), self.order.size + 1))
        np.cumsum(negative, axis=1, out=sums[:, 1:])
        lost = (positive * (sums[:, self.above] + sums[:, self.tied_or_above])).sum(axis=1) / 2.0
        # No row makes a pair with itself.
        itself = (positive * negative).sum(axis=1)
        pairs = positive.sum(axis=1) * negative.sum(axis=1) - itself
        figures: Floats = np.full((len(weights), 1), np.nan)
        np.divide(pairs - (lost - itself / 2.0), pairs, out=figures[:, 0], where=pairs > 0.0)
        return figures


def propensity_features(scores: Floats, threshold: float, covariates: Floats | None) -> Floats:
    """Give what the models see: constant, logit of the score and its square, side of the threshold, covariates."""
    likely = np.clip(scores, SCORE_LIMIT, 1.0 - SCORE_LIMIT)
    logits = np.log(likely / (1.0 - likely))
    columns = [logits, logits**2, scores >= threshold]
    if covariates is not None:
        covariates = np.asarray(covariates, dtype=np.float64)
        if covariates.ndim != 2 or len(covariates) != scores.size or not np.isfinite(covariates).all():
            raise ValueError("expected finite covariates of shape (n_rows, n_covariates)")
        columns += list(covariates.T)
    features = np.column_stack(columns).astype(np.float64)
    spread = features.std(axis=0)
    standardised = (features - features.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return np.column_stack([np.ones(scores.size), standardised])


def chances(features: Floats, labels: Floats, wanted: Floats) -> Floats:
    """Fit a logistic regression of labels, 0 or 1, on features, the constant first; give the chances of other rows.

    Raises:
        ValueError: no rows to fit to.
    """
    if not labels.size:
        raise ValueError("expected rows to fit to")
    penalty = np.full(features.shape[1], _RIDGE * labels.size)
    penalty[0] = _RIDGE
    line = np.zeros(features.shape[1])
    for _ in range(_MOST_STEPS):
        chance = logistic(features @ line)
        gradient = features.T @ (labels - chance) - penalty * line
        curvature = (features * (chance * (1.0 - chance))[:, np.newaxis]).T @ features + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # Far from the top a whole step may overshoot.
        line = line + step / max(1.0, float(np.abs(step).max()) / 4.0)
        if np.abs(step).max() < _CONVERGED:
            break
    return logistic(wanted @ line)
