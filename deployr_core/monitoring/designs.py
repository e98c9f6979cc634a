"""Whether a trial runs as it was designed: units, the arms' sizes, their likeness, and how many are enrolled.

Each check has an alarm. It sounds at a p of 0.001, not at 0.05: it is looked at every day, and a false one costs a
trial its credit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats, NotMeasurable
from deployr_core.trial import RandomizationUnit

ALARM_P = 0.001
_FEWEST_EXPECTED = 5.0
"""Units in an arm under which the chi-square distribution is no guide to so small a p."""

_WITHIN_A_PATIENT = frozenset({RandomizationUnit.PATIENT, RandomizationUnit.ENCOUNTER, RandomizationUnit.ORDER})


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRatio:
    """How many units each arm has, and should have. ``alarm``: assignment or recording is broken; trust no effect.

    A Pearson test; of two arms, one of which is expected to hold few units, the binomial's own tails, for Pearson's
    alarm far too early there. Permuted blocks keep the arms closer together than either supposes, so with them it
    alarms too late rather than too early.
    """

    counts: Mapping[str, int]
    expected: Mapping[str, float]
    chi_square: float
    p_value: float
    alarm: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Imbalance:
    """One covariate in both arms. ``difference``: treated less control, in pooled standard deviations.

    ``by_chance``: the standard deviation that such a difference has where only chance made the arms.
    """

    name: str
    control: float
    treated: float
    difference: float
    by_chance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """All covariates, and one test of them together: of many, some look unbalanced by themselves."""

    covariates: tuple[Imbalance, ...]
    chi_square: float
    degrees_of_freedom: int
    p_value: float
    alarm: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """Units enrolled so far and lately, against what was planned. ``lately``: in the last ``window_days``.

    ``p_value``: of so few lately, were enrolment as planned (Poisson).
    """

    enrolled: int
    planned: float
    lately: int
    planned_lately: float
    window_days: int
    p_value: float
    alarm: bool


def clusters_of(unit: RandomizationUnit, units: NDArray[np.int64], patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give what must be taken as independent: the unit, or the patient where one patient has several units.

    Of orders and encounters of one patient, outcomes are alike whatever was assigned. A clinician's or a ward's
    patients are taken to be within one of them mostly; one who changes over is in two clusters.
    """
    return patients if unit in _WITHIN_A_PATIENT else units


def sample_ratio(counts: Mapping[str, int], probabilities: Mapping[str, float]) -> SampleRatio:
    """Compare the arms' sizes, in units, with the probabilities that they were assigned with.

    Args:
        counts: by arm, units (not packets), all arms of the trial.
        probabilities: by arm, adding up to 1.

    Raises:
        NotMeasurable: no unit.
        ValueError: other arms in one than in the other, or probabilities that do not add up to 1.

    Source: A. Fabijan et al. (2019), KDD, doi:10.1145/3292500.3330722.
    """
    from scipy.special import bdtr, bdtrc, chdtrc

    if counts.keys() != probabilities.keys() or abs(sum(probabilities.values()) - 1.0) > 1e-9:
        raise ValueError("expected a count for each arm that has a probability, and probabilities that add up to 1")
    total = sum(counts.values())
    if total == 0:
        raise NotMeasurable("expected at least one unit")
    expected = {arm: total * probability for arm, probability in probabilities.items()}
    chi_square = sum((counts[arm] - expected[arm]) ** 2 / expected[arm] for arm in counts)
    p_value = float(chdtrc(len(counts) - 1, chi_square))
    rarest = min(expected, key=lambda arm: expected[arm])
    if len(counts) == 2 and expected[rarest] < _FEWEST_EXPECTED:
        held, chance = counts[rarest], probabilities[rarest]
        p_value = min(1.0, 2.0 * float(min(bdtr(held, total, chance), bdtrc(held - 1, total, chance))))
    return SampleRatio(
        counts=dict(counts), expected=expected, chi_square=chi_square, p_value=p_value, alarm=p_value < ALARM_P
    )


def stratum_ratios(
    arms: Sequence[str], strata: Sequence[str], probabilities: Mapping[str, float]
) -> dict[str, SampleRatio]:
    """Give the sample ratio within each stratum, by name; the alarm is the stricter the more strata there are.

    Args:
        arms: of each unit.
        strata: of each unit, in one text.
        probabilities: by arm.

    Raises:
        ValueError: not one arm for each stratum, or an arm without a probability.
    """
    if len(arms) != len(strata) or not set(arms) <= probabilities.keys():
        raise ValueError("expected an arm that has a probability, and a stratum, for each unit")
    counts: dict[str, dict[str, int]] = {}
    for arm, stratum in zip(arms, strata, strict=True):
        counts.setdefault(stratum, dict.fromkeys(probabilities, 0))[arm] += 1
    found = {}
    for stratum in sorted(counts):
        ratio = sample_ratio(counts[stratum], probabilities)
        found[stratum] = SampleRatio(
            counts=ratio.counts,
            expected=ratio.expected,
            chi_square=ratio.chi_square,
            p_value=ratio.p_value,
            alarm=ratio.p_value < ALARM_P / len(counts),
        )
    return found


def balance(covariates: Mapping[str, Floats], treated: NDArray[np.bool_]) -> Balance:
    """Compare two arms in what was known of their units before they were assigned.

    Args:
        covariates: by name, one number for each unit (not packet), finite; a category as one column for each of its
            values, and what is not recorded as a column of its own.
        treated: of each unit, shape (n_units,).

    Raises:
        NotMeasurable: fewer than two units in an arm, or no covariate that varies.
        ValueError: shapes differ, or a number is not finite.

    Source: B. B. Hansen, J. Bowers (2008), Stat. Sci. 23:219-236, doi:10.1214/08-STS254.
    """
    from scipy.special import chdtrc

    treated = np.asarray(treated, dtype=np.bool_)
    columns = np.array([np.asarray(each, dtype=np.float64) for each in covariates.values()])
    if columns.shape != (len(covariates), treated.size) or not np.isfinite(columns).all():
        raise ValueError("expected for each covariate one finite number for each unit")
    some, others = columns[:, treated], columns[:, ~treated]
    if some.shape[1] < 2 or others.shape[1] < 2:
        raise NotMeasurable("expected at least two units in each arm")
    pooled = np.sqrt((some.var(axis=1, ddof=1) + others.var(axis=1, ddof=1)) / 2)
    if not (pooled > 0.0).any():
        raise NotMeasurable("expected a covariate that varies")
    apart = some.mean(axis=1) - others.mean(axis=1)
    chance = 1.0 / some.shape[1] + 1.0 / others.shape[1]
    standardised = np.divide(apart, pooled, out=np.zeros_like(apart), where=pooled > 0.0)
    # Were the arms made by chance, all units have one covariance; columns that follow from others count once.
    covariance = np.atleast_2d(np.cov(columns)) * chance
    chi_square = float(apart @ np.linalg.pinv(covariance, hermitian=True, rcond=1e-10) @ apart)
    rank = int(np.linalg.matrix_rank(covariance, hermitian=True, rtol=1e-10))
    p_value = float(chdtrc(rank, chi_square))
    return Balance(
        covariates=tuple(
            Imbalance(name=name, control=float(c), treated=float(t), difference=float(d), by_chance=float(chance**0.5))
            for name, c, t, d in zip(covariates, others.mean(axis=1), some.mean(axis=1), standardised, strict=True)
        ),
        chi_square=chi_square,
        degrees_of_freedom=rank,
        p_value=p_value,
        alarm=p_value < ALARM_P,
    )


def enrolment(units_by_day: Sequence[int], *, planned_per_day: float, window_days: int = 7) -> Enrolment:
    """Compare how many new units came with how many were planned; the alarm looks at the last days only.

    Args:
        units_by_day: new units on each day since the start, days without any as 0.
        planned_per_day: above 0.
        window_days: how many of the last days are looked at; a week holds a weekend.

    Raises:
        NotMeasurable: no day.
        ValueError: a plan or a window that is not above 0.
    """
    from scipy.special import pdtr

    if not planned_per_day > 0.0 or window_days < 1:
        raise ValueError("expected a plan above 0 and a window of at least a day")
    if not units_by_day:
        raise NotMeasurable("expected at least one day")
    last = units_by_day[-window_days:]
    p_value = float(pdtr(sum(last), planned_per_day * len(last)))
    return Enrolment(
        enrolled=sum(units_by_day),
        planned=planned_per_day * len(units_by_day),
        lately=sum(last),
        planned_lately=planned_per_day * len(last),
        window_days=len(last),
        p_value=p_value,
        alarm=p_value < ALARM_P,
    )
