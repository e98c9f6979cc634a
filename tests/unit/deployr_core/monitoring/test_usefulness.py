"""Net benefit, utility and evaluations per right alert, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.monitoring.usefulness import (
    Utilities,
    decision_curve,
    expected_utility,
    number_needed_to_evaluate,
)

LABELS = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
SCORES = np.array([0.9, 0.8, 0.3, 0.25, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01])
EACH = np.arange(10)


def value(figure: Any) -> float:
    assert isinstance(figure, Interval)
    return figure.value


def curve(*thresholds: float, **more: Any) -> Any:
    return decision_curve(LABELS, SCORES, EACH, rng=np.random.default_rng(1), thresholds=thresholds, **more)


def test_net_benefit_by_hand_and_a_score_equal_to_the_threshold_alerts() -> None:
    low, middle, high = curve(0.2, 0.25, 0.5)
    # At .2 five alert, two of them rightly, and a wrong alert costs a quarter of a right one.
    assert value(low.model) == pytest.approx((2 - 3 * 0.25) / 10)
    assert value(low.all) == pytest.approx((2 - 8 * 0.25) / 10)
    assert value(middle.model) == pytest.approx((2 - 2 / 3) / 10)
    assert value(high.model) == pytest.approx((1 - 1) / 10)
    assert value(high.all) == pytest.approx((2 - 8) / 10)


def test_the_gain_is_over_the_better_of_all_and_none() -> None:
    rare, often = curve(0.1, 0.5)
    assert value(rare.over_default) == pytest.approx(value(rare.model) - (2 - 8 / 9) / 10)
    assert value(often.over_default) == value(often.model)


def test_thresholds_may_come_in_any_order_and_twice() -> None:
    found = curve(0.5, 0.2, 0.5)
    assert [each.threshold for each in found] == [0.5, 0.2, 0.5]
    assert found[0].model == found[2].model
    assert value(found[1].model) == pytest.approx((2 - 3 * 0.25) / 10)


def test_weights_count_as_rows_would() -> None:
    weights = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    assert value(curve(0.5, weights=weights)[0].model) == pytest.approx((2 - 1) / 10)


def test_net_benefit_of_a_useless_model_is_never_clearly_above_the_default() -> None:
    rng = np.random.default_rng(2)
    labels, scores = (rng.random(2000) < 0.2).astype(np.float64), rng.random(2000)
    for point in decision_curve(labels, scores, np.arange(2000), rng=rng, thresholds=(0.1, 0.2, 0.5), resamples=200):
        assert isinstance(point.over_default, Interval)
        assert point.over_default.low <= 0.0


@pytest.mark.parametrize("thresholds", [(), (0.0,), (1.0,), (math.nan,)])
def test_thresholds_that_cannot_be_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="thresholds above 0 and below 1"):
        curve(*thresholds)


def test_no_rows_have_no_curve() -> None:
    none = np.zeros(0)
    with pytest.raises(NotMeasurable, match="at least one row with a label"):
        decision_curve(none, none, none.astype(np.int64), rng=np.random.default_rng(1))


WORTH = Utilities(true_positive=10.0, false_positive=-1.0, false_negative=-5.0, true_negative=0.0)


def test_acting_pays_from_the_threshold_that_the_utilities_give() -> None:
    # Helping a sick one is worth 15, harming a healthy one costs 1.
    assert WORTH.threshold == pytest.approx(1 / 16)


def test_expected_utility_by_hand() -> None:
    found = expected_utility(LABELS, SCORES, EACH, WORTH, rng=np.random.default_rng(1), threshold=0.5)
    assert value(found.model) == pytest.approx((10 - 1 - 5) / 10)
    assert value(found.none) == pytest.approx(-10 / 10)
    assert value(found.all) == pytest.approx((20 - 8) / 10)
    assert value(found.gain) == pytest.approx(0.4 - 1.2)
    # Without a threshold, seven rows are at or above 1/16.
    own = expected_utility(LABELS, SCORES, EACH, WORTH, rng=np.random.default_rng(1))
    assert value(own.model) == pytest.approx((20 - 5) / 10)


@pytest.mark.parametrize(
    "worth",
    [(1.0, 0.0, 1.0, 2.0), (1.0, 1.0, 0.0, 1.0), (math.inf, 0.0, 0.0, 1.0)],
    ids=["acting helps nobody", "acting harms nobody", "infinite"],
)
def test_utilities_that_leave_nothing_to_decide_are_refused(worth: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Utilities(true_positive=worth[0], false_positive=worth[1], false_negative=worth[2], true_negative=worth[3])


def test_who_needs_to_be_evaluated_is_one_over_the_predictive_value() -> None:
    found = number_needed_to_evaluate(Interval(value=0.25, low=0.2, high=0.5, resamples=9))
    assert found == Interval(value=4.0, low=2.0, high=5.0, resamples=9)
    unbounded = number_needed_to_evaluate(Interval(value=0.25, low=0.0, high=0.5, resamples=9))
    assert isinstance(unbounded, Interval)
    assert unbounded.high == math.inf
    none = number_needed_to_evaluate(Interval(value=0.0, low=0.0, high=0.3, resamples=0))
    assert none == NotMeasured(why="expected a row with an alert and the outcome")
    assert number_needed_to_evaluate(NotMeasured(why="expected a row with an alert")) == NotMeasured(
        why="expected a row with an alert"
    )
