from __future__ import annotations

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.monitoring.clustered import clustered_fit
from deployr_core.monitoring.effects import adherence, intention_to_treat, stepped_wedge


def yes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.bool_)


def test_the_effect_is_the_difference_of_the_arms_means() -> None:
    outcomes = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    found = intention_to_treat(outcomes, yes(1, 1, 1, 1, 0, 0, 0, 0), np.arange(8))
    assert (found.treated, found.control) == pytest.approx((3 / 4, 1 / 4))
    assert found.effect.value == pytest.approx(2 / 4)
    # The variance of 0, 1, 1, 1 is 1/4, in both arms; of its mean a quarter.
    assert found.effect.standard_error == pytest.approx((1 / 4 / 4 * 2) ** 0.5)
    assert found.variance_saved == 0.0


def test_rows_of_one_unit_are_not_independent() -> None:
    outcomes, arm = np.tile([1.0, 0.0, 1.0, 0.0], 5), np.tile([True, True, False, False], 5)
    outcomes[[0, 1]] = 0.5
    units = np.tile(np.arange(4), 5)
    as_units = intention_to_treat(outcomes, arm, units).effect
    as_rows = intention_to_treat(outcomes, arm, np.arange(20)).effect
    assert as_units.value == pytest.approx(as_rows.value)
    assert as_units.standard_error > 2 * as_rows.standard_error
    assert as_units.clusters == 4


def test_a_covariate_from_before_shortens_the_interval_and_changes_no_more_than_chance() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(size=400)
    arm = rng.permutation(np.arange(400) % 2 == 0)
    outcomes = before + 0.5 * rng.normal(size=400) + 0.3 * arm
    plain = intention_to_treat(outcomes, arm, np.arange(400))
    adjusted = intention_to_treat(outcomes, arm, np.arange(400), covariates=before[:, np.newaxis])
    assert adjusted.effect.low < 0.3 < adjusted.effect.high
    # Of the variance 1 + 1/4 only 1/4 is left.
    assert adjusted.variance_saved == pytest.approx(1 - 0.25 / 1.25, abs=0.05)
    assert plain.effect.standard_error > 2 * adjusted.effect.standard_error
    assert (adjusted.control, adjusted.treated) == (plain.control, plain.treated)


def test_adjustment_is_a_regression_with_the_centred_covariate_in_each_arm() -> None:
    rng = np.random.default_rng(2)
    before, arm, outcomes = rng.normal(3.0, 1.0, 60), np.arange(60) % 3 == 0, rng.normal(size=60)
    found = intention_to_treat(outcomes, arm, np.arange(60), covariates=before[:, np.newaxis])
    lines = [np.polyfit(before[side] - before.mean(), outcomes[side], 1) for side in (arm, ~arm)]
    assert found.effect.value == pytest.approx(lines[0][1] - lines[1][1])


def test_design_weights_give_the_effect_of_showing_where_exploration_dilutes_the_arms() -> None:
    # 100 rows: half in the arm that shows, of which a fifth stays hidden. Showing changes the outcome from 1 to 0.
    arm = np.arange(100) < 50
    shown = arm & (np.arange(100) % 5 != 0)
    outcomes = np.where(shown, 0.0, 1.0)
    outcomes[[1, 60]] = 0.5
    probability = np.where(shown, 0.4, 0.6)
    weighted = intention_to_treat(outcomes, shown, np.arange(100), weights=1 / probability)
    assert weighted.effect.value == pytest.approx(0.5 / 40 - (1 - 0.5 / 60))
    as_assigned = intention_to_treat(outcomes, arm, np.arange(100))
    assert as_assigned.effect.value == pytest.approx((10 + 0.5) / 50 - (50 - 0.5) / 50)


def test_arms_of_one_cluster_are_refused() -> None:
    with pytest.raises(NotMeasurable, match="two clusters in each arm"):
        intention_to_treat(np.arange(6.0), yes(1, 1, 0, 0, 0, 0), np.array([1, 1, 2, 2, 3, 3]))
    with pytest.raises(ValueError, match="one arm for each"):
        intention_to_treat(np.arange(6.0), yes(1, 0), np.arange(6))
    with pytest.raises(ValueError, match="n_covariates"):
        intention_to_treat(np.arange(6.0), yes(1, 1, 1, 0, 0, 0), np.arange(6), covariates=np.ones(6))


def wedge(rng, *, wards=6, periods=4, rows=3):
    ward = np.repeat(np.arange(wards), periods * rows)
    period = np.tile(np.repeat(np.arange(periods), rows), wards)
    return ward, period, period >= (ward % (periods - 1) + 1), rng.normal(size=ward.size)


def test_a_stepped_wedge_is_a_regression_on_periods_and_wards() -> None:
    ward, period, treated, noise = wedge(np.random.default_rng(3))
    outcomes = noise + 2.0 * period - ward + 0.7 * treated
    found = stepped_wedge(outcomes, treated, period, ward)
    dummies = [treated, *(period == each for each in range(1, 4)), *(ward == each for each in range(6))]
    design = np.column_stack(dummies).astype(np.float64)
    assert found.value == pytest.approx(np.linalg.lstsq(design, outcomes)[0][0])
    with_dummies = clustered_fit(design, outcomes, ward).contrast(np.eye(design.shape[1])[0])
    assert found.standard_error == pytest.approx(with_dummies.standard_error)
    assert found.degrees_of_freedom == pytest.approx(with_dummies.degrees_of_freedom)


def test_trends_and_differences_between_wards_do_not_move_a_stepped_wedge() -> None:
    ward, period, treated, noise = wedge(np.random.default_rng(4))
    plain = stepped_wedge(noise, treated, period, ward)
    moved = stepped_wedge(noise + 5.0 * period**2 - 3.0 * ward, treated, period, ward)
    assert moved.value == pytest.approx(plain.value)
    assert moved.standard_error == pytest.approx(plain.standard_error)


def test_a_stepped_wedge_that_is_none_is_refused() -> None:
    ward, period, treated, noise = wedge(np.random.default_rng(5))
    with pytest.raises(ValueError, match="back to control"):
        stepped_wedge(noise, treated ^ (period == 3), period, ward)
    mixed = treated.copy()
    mixed[0] = True
    with pytest.raises(ValueError, match="wholly control or wholly treated"):
        stepped_wedge(noise, mixed, period, ward)
    with pytest.raises(NotMeasurable, match="some clusters have changed over"):
        stepped_wedge(noise, period >= 2, period, ward)
    with pytest.raises(NotMeasurable, match="two periods"):
        stepped_wedge(noise, treated, np.zeros_like(period), ward)


def test_adherence_counts_what_became_of_advisories() -> None:
    advised = yes(1, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    shown = yes(1, 1, 1, 0, 1, 0, 0, 0, 0, 0)
    accepted = yes(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    overridden = yes(1, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    found = adherence(advised, shown, accepted, overridden, np.arange(10), rng=np.random.default_rng(1), resamples=100)
    shares = {name: figure.value for name, figure in found.items() if isinstance(figure, Interval)}
    assert shares == pytest.approx(
        {
            "shown_of_advised": 3 / 4,
            "shown_of_not_advised": 1 / 6,
            "accepted_of_shown": 1 / 4,
            # Overridden first and accepted in the end is accepted.
            "overridden_of_shown": 1 / 4,
            "unanswered_of_shown": 2 / 4,
        }
    )


def test_adherence_says_why_it_cannot_be_told() -> None:
    nothing = np.zeros(4, dtype=np.bool_)
    found = adherence(nothing, nothing, nothing, nothing, np.arange(4), rng=np.random.default_rng(1), resamples=100)
    assert found["shown_of_advised"] == NotMeasured(why="expected an advisory that was to be shown")
    leak = found["shown_of_not_advised"]
    assert isinstance(leak, Interval)
    # No leak among 4 patients: the exact bound is 1 - 0.025^(1/4).
    assert (leak.value, leak.high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 4)))
