"""Whether acting on scores does more good than harm: net benefit, expected utility, number needed to evaluate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    checked_weights,
    measure,
)
from deployr_core.metrics import checked_patients, checked_probabilities, checked_rows

THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class NetBenefit:
    """What is gained by acting at one threshold, in right alerts per row.

    A net benefit of .02 is worth as much as 2 right alerts in 100 rows without a wrong one. To act on none gains 0.
    ``over_default``: the model's gain over the better of acting on all and on none.
    """

    threshold: float
    model: Figure
    all: Figure
    over_default: Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Utilities:
    """What each outcome of one decision is worth to the user, in any one unit, such as quality-adjusted days or money.

    Raises:
        ValueError: a number that is not finite, or acting that helps neither those with the outcome nor harms those
            without: then there is nothing to decide.
    """

    true_positive: float
    false_positive: float
    false_negative: float
    true_negative: float

    def __post_init__(self) -> None:
        worth = (self.true_positive, self.false_positive, self.false_negative, self.true_negative)
        if not all(math.isfinite(each) for each in worth):
            raise ValueError("expected finite utilities")
        if self.true_positive <= self.false_negative or self.true_negative <= self.false_positive:
            raise ValueError(
                "expected a right alert to be worth more than a missed one, and a wrong alert less than none"
            )

    @property
    def threshold(self) -> float:
        """The probability from which acting pays on average, if probabilities are right.

        Source: Pauker and Kassirer (1975), N. Engl. J. Med. 293:229-234, doi:10.1056/NEJM197507312930505.
        """
        harm = self.true_negative - self.false_positive
        return harm / (harm + self.true_positive - self.false_negative)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedUtility:
    """Mean utility per row: acting by the model at ``threshold``, on none, and on all; ``gain`` is over the better."""

    threshold: float
    model: Figure
    none: Figure
    all: Figure
    gain: Figure


def decision_curve(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    thresholds: Sequence[float] = THRESHOLDS,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> tuple[NetBenefit, ...]:
    """Give the net benefit at each threshold: true alerts less false ones times the threshold's odds, per row.

    A threshold says how many wrong alerts somebody would put up with for a right one: at .1 it is 9. So the curve is
    read at the thresholds that reasonable people hold, not where it is highest.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: probabilities, shape (n_rows,).
        patients: which patient each row belongs to, shape (n_rows,).
        rng: where the resampling comes from.
        thresholds: each above 0 and below 1.
        resamples: of each interval.
        weights: of the rows; None is 1 each.

    Raises:
        NotMeasurable: no rows.
        ValueError: as for `deployr_core.metrics.brier_score`, or a threshold that cannot be.

    Source: Vickers and Elkin (2006), Medical Decision Making 26:565-574, doi:10.1177/0272989X06295361.
    """
    labels, scores = checked_probabilities(labels, scores)
    patients = checked_patients(patients, labels)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.size == 0 or not ((cuts > 0.0) & (cuts < 1.0)).all():
        raise ValueError("expected thresholds above 0 and below 1")
    if labels.size == 0:
        raise NotMeasurable("expected at least one row with a label")
    benefits = _NetBenefits.of(labels, scores, cuts, checked_weights(weights, labels.shape))
    measured = measure([benefits], patients, rng=rng, resamples=resamples, weights=weights)
    return tuple(
        NetBenefit(
            threshold=float(cut),
            model=measured[f"model@{place}"],
            all=measured[f"all@{place}"],
            over_default=measured[f"over_default@{place}"],
        )
        for place, cut in enumerate(cuts)
    )


def expected_utility(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    utilities: Utilities,
    *,
    rng: np.random.Generator,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> ExpectedUtility:
    """Give the mean utility per row of acting by the model, beside acting on none and on all.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: finite, shape (n_rows,); probabilities where ``threshold`` is None.
        patients: which patient each row belongs to, shape (n_rows,).
        utilities: the user's own.
        rng: where the resampling comes from.
        threshold: alerts are scores of at least this; None: where by the utilities acting pays.
        resamples: of each interval.
        weights: of the rows; None is 1 each.

    Raises:
        NotMeasurable: no rows.
        ValueError: as for `deployr_core.metrics.auroc`.
    """
    labels, scores = checked_rows(labels, scores)
    patients = checked_patients(patients, labels)
    if labels.size == 0:
        raise NotMeasurable("expected at least one row with a label")
    cut = utilities.threshold if threshold is None else float(threshold)
    acted = np.where(labels == 1.0, utilities.true_positive, utilities.false_positive)
    left = np.where(labels == 1.0, utilities.false_negative, utilities.true_negative)
    model = np.where(scores >= cut, acted, left)
    row_weights = checked_weights(weights, labels.shape)
    better = acted if row_weights @ acted > row_weights @ left else left
    columns = np.column_stack([model, left, acted, model - better])
    measured = measure(
        [
            Ratios(
                names=("model", "none", "all", "gain"),
                lacks=("at least one row",) * 4,
                numerators=columns,
                denominators=np.ones(columns.shape),
                shares=(False,) * 4,
            )
        ],
        patients,
        rng=rng,
        resamples=resamples,
        weights=weights,
    )
    return ExpectedUtility(threshold=cut, **measured)


def number_needed_to_evaluate(ppv: Figure) -> Figure:
    """Give how many alerts somebody looks at for one that is right: 1 over the positive predictive value.

    The upper bound is infinite where the lower one of the predictive value is 0.
    """
    match ppv:
        case NotMeasured():
            return ppv
        case Interval(value=0.0):
            return NotMeasured(why="expected a row with an alert and the outcome")
        case Interval():
            return Interval(
                value=1.0 / ppv.value,
                low=1.0 / ppv.high,
                high=1.0 / ppv.low if ppv.low > 0 else math.inf,
                resamples=ppv.resamples,
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _NetBenefits:
    """All thresholds together: rows are put into the steps between thresholds once, and weights are summed by step.

    ``ranks``: for each threshold the step from which rows alert. ``default_is_all``: whether, over all rows, acting on
    all gains more than acting on none; it stays so in every resample.
    """

    order: NDArray[np.int64]
    positive: Floats
    starts: NDArray[np.int64]
    steps: NDArray[np.int64]
    ranks: NDArray[np.int64]
    odds: Floats
    default_is_all: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Floats, scores: Floats, cuts: Floats, weights: Floats) -> _NetBenefits:
        ascending = np.sort(cuts)
        step_of_row = np.searchsorted(ascending, scores, side="right")
        order = np.argsort(step_of_row, kind="stable")
        steps, starts = np.unique(step_of_row[order], return_index=True)
        odds = cuts / (1.0 - cuts)
        return cls(
            order=order,
            positive=labels[order],
            starts=starts,
            steps=steps,
            ranks=np.searchsorted(ascending, cuts) + 1,
            odds=odds,
            default_is_all=weights @ labels > odds * (weights @ (1.0 - labels)),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Name the figures, all of one kind after those of another."""
        return tuple(f"{name}@{place}" for name in ("model", "all", "over_default") for place in range(self.odds.size))

    @property
    def lacks(self) -> tuple[str, ...]:
        """Say what rows must have."""
        return ("at least one row",) * len(self.names)

    def measured(self, weights: Floats) -> Floats:
        """Give them under each row of weights, shape (n_samples, 3 * n_thresholds)."""
        ranked = weights[:, self.order]
        at_least = []
        for summed in (ranked * self.positive, ranked):
            of_step = np.zeros((len(weights), self.odds.size + 1))
            of_step[:, self.steps] = np.add.reduceat(summed, self.starts, axis=1)
            at_least.append(np.cumsum(of_step[:, ::-1], axis=1)[:, ::-1])
        right, alerts = (sums[:, self.ranks] for sums in at_least)
        positives, rows = (sums[:, :1] for sums in at_least)
        model = (right - self.odds * (alerts - right)) / rows
        every = (positives - self.odds * (rows - positives)) / rows
        over_default: Floats = model - np.where(self.default_is_all, every, 0.0)
        return np.concatenate([model, every, over_default], axis=1)
