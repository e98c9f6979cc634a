from __future__ import annotations

import math
from math import erfc, exp

import numpy as np
import pytest

from deployr_core.bootstrap import NotMeasurable
from deployr_core.monitoring.designs import balance, clusters_of, enrolment, sample_ratio, stratum_ratios
from deployr_core.trial import RandomizationUnit

HALVES = {"control": 0.5, "advisory": 0.5}


@pytest.mark.parametrize(
    ("unit", "is_unit"),
    [
        (RandomizationUnit.PATIENT, False),
        (RandomizationUnit.ENCOUNTER, False),
        (RandomizationUnit.ORDER, False),
        (RandomizationUnit.PROVIDER, True),
        (RandomizationUnit.DEPARTMENT, True),
        (RandomizationUnit.TIME_BLOCK, True),
    ],
)
def test_what_is_independent_is_the_unit_or_the_patient_who_has_several(unit: RandomizationUnit, is_unit: bool) -> None:
    units, patients = np.array([1, 2, 3]), np.array([7, 7, 8])
    assert clusters_of(unit, units, patients) is (units if is_unit else patients)


def test_the_sample_ratio_is_pearsons_test() -> None:
    found = sample_ratio({"control": 60, "advisory": 40}, HALVES)
    # (10² / 50) twice; with one degree of freedom P(X > 4) is that of |z| > 2.
    assert found.chi_square == pytest.approx(4)
    assert found.p_value == pytest.approx(erfc(2 / 2**0.5))
    assert found.expected == {"control": 50, "advisory": 50}
    assert not found.alarm


def test_a_mismatch_that_chance_does_not_make_alarms() -> None:
    assert sample_ratio({"control": 600, "advisory": 400}, HALVES).alarm
    assert not sample_ratio({"control": 667, "advisory": 333}, {"control": 2 / 3, "advisory": 1 / 3}).alarm


def test_an_arm_without_a_probability_or_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        sample_ratio({"control": 1}, HALVES)
    with pytest.raises(ValueError, match="add up to 1"):
        sample_ratio({"control": 1, "advisory": 1}, {"control": 0.5, "advisory": 0.4})
    with pytest.raises(NotMeasurable, match="one unit"):
        sample_ratio({"control": 0, "advisory": 0}, HALVES)


def test_of_many_strata_none_alarms_by_chance_alone() -> None:
    # 16 of 16 in one arm: chi square 16, p 0.00006; among 20 strata the alarm needs a p under 0.00005.
    arms = ["control"] * 16 + ["control", "advisory"] * 19
    strata = ["ward a"] * 16 + [f"ward {number}" for number in range(19) for _ in range(2)]
    found = stratum_ratios(arms, strata, HALVES)
    assert len(found) == 20
    assert found["ward a"].counts == {"control": 16, "advisory": 0}
    assert found["ward a"].p_value == pytest.approx(erfc(4 / 2**0.5))
    assert not found["ward a"].alarm
    assert stratum_ratios(arms[:16], strata[:16], HALVES)["ward a"].alarm
    with pytest.raises(ValueError, match="an arm that has a probability"):
        stratum_ratios(["other"], ["ward a"], HALVES)


def test_balance_is_told_in_standard_deviations() -> None:
    found = balance({"age": np.array([60.0, 62.0, 64.0, 70.0, 72.0])}, np.array([False, False, False, True, True]))
    (age,) = found.covariates
    assert (age.control, age.treated) == (62, 71)
    # The variances are 4 and 2: pooled 3.
    assert age.difference == pytest.approx(9 / 3**0.5)
    assert age.by_chance == pytest.approx((1 / 2 + 1 / 3) ** 0.5)
    # Of all five the variance is 26.8: squares of -5.6, -3.6, -1.6, 4.4, 6.4 add up to 107.2.
    assert found.chi_square == pytest.approx(81 / (107.2 / 4 * (1 / 2 + 1 / 3)))
    assert found.degrees_of_freedom == 1
    assert not found.alarm


def test_columns_that_follow_from_others_count_once() -> None:
    rng = np.random.default_rng(1)
    sex, treated = rng.integers(0, 2, 200).astype(np.float64), rng.random(200) < 0.5
    once = balance({"female": sex}, treated)
    twice = balance({"female": sex, "male": 1.0 - sex, "nobody": np.zeros(200)}, treated)
    assert twice.degrees_of_freedom == once.degrees_of_freedom == 1
    assert twice.chi_square == pytest.approx(once.chi_square)
    assert [each.difference for each in twice.covariates][2] == 0.0


def test_arms_made_by_chance_look_unbalanced_as_often_as_they_should() -> None:
    rng = np.random.default_rng(2)
    covariates = {str(number): column for number, column in enumerate(rng.normal(size=(5, 300)))}
    found = [balance(covariates, rng.random(300) < 0.5).p_value for _ in range(400)]
    # Of 400, 20 are expected under 0.05, with a standard deviation of 4.4.
    assert 6 <= sum(p_value < 0.05 for p_value in found) <= 34


def test_arms_that_differ_alarm() -> None:
    ages = np.random.default_rng(3).normal(60.0, 10.0, 400)
    assert balance({"age": ages}, ages > 60).alarm


def test_what_cannot_be_balanced_is_refused() -> None:
    arm = np.array([True, True, False, False])
    with pytest.raises(ValueError, match="one finite number for each unit"):
        balance({"age": np.array([1.0, np.nan, 2.0, 3.0])}, arm)
    with pytest.raises(NotMeasurable, match="two units in each arm"):
        balance({"age": np.arange(4.0)}, np.array([True, False, False, False]))
    with pytest.raises(NotMeasurable, match="varies"):
        balance({"age": np.ones(4)}, arm)


def test_a_week_without_anybody_alarms() -> None:
    found = enrolment([2, 3, 1, *[0] * 7], planned_per_day=2)
    assert (found.enrolled, found.planned, found.lately, found.planned_lately) == (6, 20, 0, 14)
    assert found.p_value == pytest.approx(exp(-14))
    assert found.alarm


def test_enrolment_as_planned_does_not_alarm_and_its_first_days_are_a_shorter_window() -> None:
    found = enrolment([1], planned_per_day=1)
    assert (found.window_days, found.alarm) == (1, False)
    # P(X <= 1) for a mean of 1.
    assert found.p_value == pytest.approx(2 * exp(-1))
    with pytest.raises(NotMeasurable, match="one day"):
        enrolment([], planned_per_day=1)
    with pytest.raises(ValueError, match="above 0"):
        enrolment([1], planned_per_day=0)


def test_of_a_rare_arm_the_binomial_decides() -> None:
    # Of 50 units at 2 % one is expected. Five or more come with a chance of 0.0032, which Pearson's test calls 5e-5.
    found = sample_ratio({"usual": 45, "rare": 5}, {"usual": 0.98, "rare": 0.02})
    chance = 1.0 - sum(math.comb(50, k) * 0.02**k * 0.98 ** (50 - k) for k in range(5))
    assert found.p_value == pytest.approx(2 * chance)
    assert (found.chi_square > 16, found.alarm) == (True, False)
    none = sample_ratio({"usual": 50, "rare": 0}, {"usual": 0.98, "rare": 0.02})
    assert none.p_value == pytest.approx(2 * 0.98**50)
