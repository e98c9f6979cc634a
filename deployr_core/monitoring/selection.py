"""How well a model does when its own advisories decide which outcomes are seen.

An order that is taken back after an advisory has no result; a patient who is treated early does not deteriorate. What
remains to be seen is not what the model was wrong or right about, and the better clinicians act on what they know and
the model does not, the worse it looks. Exploration hides a random few advisories with a known probability. Those rows
stand, weighted by its inverse, for all: that is the headline, and it supposes nothing of the clinicians.

Modelled estimates stand beside it as secondary: weights by a modelled chance of being labelled, and outcomes filled in
by a model. They are right only if nothing but score and covariates decides who is labelled.

Source: C. K. Corbin, M. Baiocchi, J. H. Chen, arXiv:2209.09188; D. G. Horvitz, D. J. Thompson (1952), J. Am. Stat.
Assoc. 47:663-685; L. Kish (1965), Survey Sampling, 11.7 (effective sample size).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, NotMeasurable, NotMeasured, Ratios, measure
from deployr_core.metrics import checked_patients, checked_probabilities
from deployr_core.monitoring.binary import ALERT_RATES, AtThreshold, BinaryPerformance, binary_performance
from deployr_core.monitoring.modelled import LEAST_CHANCE, PseudoRanking, chances, propensity_features

FEWEST_EFFECTIVE = 30.0
"""Effective labelled rows on each side of the threshold: a bootstrap of a handful of heavy rows is no interval."""


class Seen(StrEnum):
    """Where outcomes are as the model's question means them.

    ``when-hidden``: an advisory changes or prevents the outcome (a test is not done, a treatment given).
    ``when-shown``: an advisory brings the outcome to light (a test is done because of it).
    """

    WHEN_HIDDEN = "when-hidden"
    WHEN_SHOWN = "when-shown"


@dataclass(frozen=True, kw_only=True, eq=False)
class Occasions:
    """Scored rows of one model version and trial version that took part in the trial; all shape (n_rows,).

    What chance did not decide (suppressed, not eligible, another mode) has no chance and takes no part. A row that is
    hidden counts as hidden even if the patient's earlier advisory was shown and still has its effect.

    ``labels``: 1.0 or 0.0, NaN where none is known. ``patients``: what is resampled; where wards or clinicians were
    assigned as a whole, those (`deployr_core.monitoring.designs.clusters_of`). ``shown``: by decision, not as reported.
    ``p_shown``: the chance of being shown that the row had, given its score, over arm and exploration together.

    Raises:
        ValueError: shapes differ, scores that are no probabilities, or a decision that had no chance.
    """

    scores: Floats
    labels: Floats
    patients: NDArray[np.int64]
    shown: NDArray[np.bool_]
    p_shown: Floats
    seen: Seen = Seen.WHEN_HIDDEN

    def __post_init__(self) -> None:
        checked_probabilities(np.nan_to_num(self.labels), self.scores)
        checked_patients(self.patients, self.labels)
        if self.shown.shape != self.scores.shape or self.p_shown.shape != self.scores.shape:
            raise ValueError("expected for each score whether it was shown, and the chance of that")
        if not ((self.p_shown >= 0.0) & (self.p_shown <= 1.0)).all():
            raise ValueError("expected chances of being shown from 0 to 1")
        if (np.where(self.shown, self.p_shown, 1.0 - self.p_shown) == 0.0).any():
            raise ValueError("expected no decision that the stored chance makes impossible")

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Say which rows have a label, however it came about."""
        return np.isfinite(self.labels)

    @property
    def in_reference(self) -> NDArray[np.bool_]:
        """Say which rows were decided so that their outcome is as meant."""
        return self.shown if self.seen is Seen.WHEN_SHOWN else ~self.shown

    @property
    def chance_of_reference(self) -> Floats:
        """Give each row's chance of that."""
        return self.p_shown if self.seen is Seen.WHEN_SHOWN else 1.0 - self.p_shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """What stands behind a weighted estimate. ``rows`` and ``patients``: labelled and used.

    ``effective_rows`` and ``effective_patients``: how many of equal weight would tell as much (Kish). ``heaviest``: the
    largest share of all weight that one row has.
    """

    rows: int
    patients: int
    effective_rows: float
    effective_patients: float
    heaviest: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted:
    """Performance under weights; the first of ``performance.at`` is at the threshold."""

    performance: BinaryPerformance
    weight: Weight

    @property
    def figures(self) -> dict[str, Figure]:
        """Give all figures by name, with those at the threshold: ``sensitivity``, ``ppv`` and so on."""
        at = self.performance.at[0]
        return {**self.performance.figures, **(at.figures if isinstance(at, AtThreshold) else {})}


@dataclass(frozen=True, kw_only=True, eq=False)
class FilledIn:
    """``auroc``, ``prevalence``, ``brier_score``, ``sensitivity`` and ``ppv``, outcomes filled in by a model."""

    figures: Mapping[str, Figure]
    weight: Weight


@dataclass(frozen=True, kw_only=True, eq=False)
class UnderSelection:
    """All estimates side by side; ``design`` is the headline, the last two are secondary.

    ``missing_in_reference``: the share of rows whose outcome should have been seen and was not (not ripe, censored).
    The design says nothing of why; were it much, its estimate would lean on their being missing by chance.
    """

    design: Weighted | NotMeasured
    complete_case: Weighted | NotMeasured
    inverse_propensity: Weighted | NotMeasured
    doubly_robust: FilledIn | NotMeasured
    missing_in_reference: float


def effective_size(weights: Floats) -> float:
    """Give how many rows of equal weight would tell as much; 0 where there is no weight."""
    squares = float((weights**2).sum())
    return float(weights.sum() ** 2 / squares) if squares > 0.0 else 0.0


def design_weights(occasions: Occasions) -> Floats:
    """Give the inverse of each labelled reference row's chance, and 0 for all other rows.

    Raises:
        NotMeasurable: rows had no chance of being in the reference, so that nothing stands for them.
    """
    without = int((occasions.chance_of_reference == 0.0).sum())
    if without:
        was = "shown" if occasions.seen is Seen.WHEN_HIDDEN else "hidden"
        raise NotMeasurable(
            f"expected a chance for each row to be decided otherwise, but {without} of {occasions.scores.size} were"
            f" certain to be {was}: add exploration to the trial, or look at the time since there is some"
        )
    weights: Floats = np.zeros(occasions.scores.shape)
    counted = occasions.in_reference & occasions.labelled
    weights[counted] = 1.0 / occasions.chance_of_reference[counted]
    return weights


def design_weighted(
    occasions: Occasions,
    *,
    threshold: float,
    rng: np.random.Generator,
    alert_rates: Sequence[float] = ALERT_RATES,
    resamples: int = RESAMPLES,
) -> Weighted:
    """Give the headline: performance under the design's weights.

    Args:
        occasions: of a trial in which every row could be decided either way.
        threshold: at which scores alert.
        rng: where the resampling comes from.
        alert_rates: of all scored rows, labelled or not.
        resamples: how many samples of patients to draw.

    Raises:
        NotMeasurable: as for `design_weights`, or fewer than `FEWEST_EFFECTIVE` effective rows on a side.
        ValueError: as for `binary_performance`.
    """
    weights = design_weights(occasions)
    return _weighted(occasions, weights, threshold=threshold, rng=rng, alert_rates=alert_rates, resamples=resamples)


def complete_case(
    occasions: Occasions,
    *,
    threshold: float,
    rng: np.random.Generator,
    alert_rates: Sequence[float] = ALERT_RATES,
    resamples: int = RESAMPLES,
) -> Weighted:
    """Give performance on every row that has a label, as if labels were missing by chance.

    Args and Raises: as for `design_weighted`, but for the chances.
    """
    every = occasions.labelled.astype(np.float64)
    return _weighted(occasions, every, threshold=threshold, rng=rng, alert_rates=alert_rates, resamples=resamples)


def inverse_propensity(
    occasions: Occasions,
    *,
    threshold: float,
    rng: np.random.Generator,
    covariates: Floats | None = None,
    alert_rates: Sequence[float] = ALERT_RATES,
    resamples: int = RESAMPLES,
) -> Weighted:
    """Give performance with each labelled row weighted by the inverse of its modelled chance of being labelled.

    Secondary: the model (logistic, of score, threshold, decision and covariates) cannot know what clinicians knew.
    Its own uncertainty is not in the intervals.

    Args and Raises: as for `design_weighted`, but for the chances; ``covariates`` have shape (n_rows, n_covariates).
    """
    weights = _propensity_weights(occasions, threshold, covariates)
    return _weighted(occasions, weights, threshold=threshold, rng=rng, alert_rates=alert_rates, resamples=resamples)


def doubly_robust(
    occasions: Occasions,
    *,
    threshold: float,
    rng: np.random.Generator,
    covariates: Floats | None = None,
    resamples: int = RESAMPLES,
) -> FilledIn:
    """Give what outcomes filled in by a model would make of the score.

    Each row's outcome is its predicted one, and where a label is known the error of that, weighted as in
    `inverse_propensity`. Right if either model is; secondary, for neither knows what clinicians knew.

    Args and Raises: as for `inverse_propensity`.
    """
    weights = _propensity_weights(occasions, threshold, covariates)
    known, features = occasions.labelled, propensity_features(occasions.scores, threshold, covariates)
    labels = np.where(known, occasions.labels, 0.0)
    predicted = chances(features[known], labels[known], features)
    filled = predicted + weights * (labels - predicted)
    alert = (occasions.scores >= threshold).astype(np.float64)
    one = np.ones_like(filled)
    columns = {
        "prevalence": (filled, one),
        "brier_score": (occasions.scores**2 - 2.0 * occasions.scores * filled + filled, one),
        "sensitivity": (alert * filled, filled),
        "ppv": (alert * filled, alert),
    }
    means = Ratios(
        names=tuple(columns),
        lacks=("rows with the outcome, above the threshold and below",) * len(columns),
        numerators=np.column_stack([above for above, _ in columns.values()]),
        denominators=np.column_stack([below for _, below in columns.values()]),
        shares=(False,) * len(columns),
    )
    figures = measure(
        [PseudoRanking.of(filled, occasions.scores), means], occasions.patients, rng=rng, resamples=resamples
    )
    return FilledIn(figures=figures, weight=_weight(weights, occasions.patients))


def performance_under_selection(
    occasions: Occasions,
    *,
    threshold: float,
    rng: np.random.Generator,
    covariates: Floats | None = None,
    resamples: int = RESAMPLES,
) -> UnderSelection:
    """Give the headline and what stands beside it; each that cannot be measured says why.

    Args:
        occasions: see there; at least one row.
        threshold: at which scores alert.
        rng: where the resampling comes from.
        covariates: for the modelled estimates, known before the decision, shape (n_rows, n_covariates).
        resamples: of each interval.

    Raises:
        ValueError: no rows, or an argument that cannot be.
    """
    if not occasions.scores.size:
        raise ValueError("expected at least one row")
    reference = occasions.in_reference
    return UnderSelection(
        design=_or_why(partial(design_weighted, occasions, threshold=threshold, rng=rng, resamples=resamples)),
        complete_case=_or_why(partial(complete_case, occasions, threshold=threshold, rng=rng, resamples=resamples)),
        inverse_propensity=_or_why(
            partial(
                inverse_propensity, occasions, threshold=threshold, rng=rng, covariates=covariates, resamples=resamples
            )
        ),
        doubly_robust=_or_why(
            partial(doubly_robust, occasions, threshold=threshold, rng=rng, covariates=covariates, resamples=resamples)
        ),
        missing_in_reference=float((~occasions.labelled[reference]).mean()) if reference.any() else 1.0,
    )


def _weighted(
    occasions: Occasions,
    weights: Floats,
    *,
    threshold: float,
    rng: np.random.Generator,
    alert_rates: Sequence[float],
    resamples: int,
) -> Weighted:
    above = occasions.scores >= threshold
    for side, where in ((above, "at or above"), (~above, "below")):
        if side.any() and (size := effective_size(weights[side])) < FEWEST_EFFECTIVE:
            raise NotMeasurable(
                f"expected labelled rows {where} the threshold that tell as much as {FEWEST_EFFECTIVE:g} of equal"
                f" weight, got {size:.1f}"
            )
    used = weights > 0.0
    performance = binary_performance(
        occasions.labels[used],
        occasions.scores[used],
        occasions.patients[used],
        rng=rng,
        threshold=threshold,
        alert_rates=alert_rates,
        scored=occasions.scores,
        resamples=resamples,
        weights=weights[used],
    )
    return Weighted(performance=performance, weight=_weight(weights, occasions.patients))


def _weight(weights: Floats, patients: NDArray[np.int64]) -> Weight:
    used = weights > 0.0
    _, patient = np.unique(patients[used], return_inverse=True)
    by_patient = np.bincount(patient, weights=weights[used]).astype(np.float64)
    return Weight(
        rows=int(used.sum()),
        patients=int(by_patient.size),
        effective_rows=effective_size(weights),
        effective_patients=effective_size(by_patient),
        heaviest=float(weights.max() / weights.sum()),
    )


def _propensity_weights(occasions: Occasions, threshold: float, covariates: Floats | None) -> Floats:
    """Give the inverse of each labelled row's modelled chance of being labelled, and 0 for all other rows."""
    known = occasions.labelled
    if not known.any():
        raise NotMeasurable("expected a row with a label")
    seen = np.column_stack([propensity_features(occasions.scores, threshold, covariates), occasions.shown])
    chance = np.maximum(chances(seen, known.astype(np.float64), seen), LEAST_CHANCE)
    return np.where(known, 1.0 / chance, 0.0)


_Estimate = TypeVar("_Estimate")


def _or_why(way: Callable[[], _Estimate]) -> _Estimate | NotMeasured:
    try:
        return way()
    except NotMeasurable as lacking:
        return NotMeasured(why=str(lacking))
