from __future__ import annotations

import numpy as np
import pytest

from deployr_core.monitoring.clustered import Effect
from deployr_core.monitoring.sequential import always_valid, planned_look, spending_bounds


def effect(value: float = 0.0, error: float = 0.02, clusters: int = 1000) -> Effect:
    return Effect(
        value=value,
        low=value - 1.96 * error,
        high=value + 1.96 * error,
        standard_error=error,
        degrees_of_freedom=clusters - 2,
        p_value=0.5,
        clusters=clusters,
    )


def test_one_look_is_an_ordinary_test() -> None:
    assert spending_bounds([1.0]) == pytest.approx([1.959964], abs=1e-6)


def test_five_equal_looks_have_the_published_bounds() -> None:
    """Reboussin, DeMets, Kim and Lan (2000), Control. Clin. Trials 21:190-207: the first example of their program."""
    bounds = spending_bounds([0.2, 0.4, 0.6, 0.8, 1.0])
    assert bounds == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)


def test_no_more_is_spent_than_alpha_however_often_one_looks() -> None:
    looks = 60
    bounds = spending_bounds((np.arange(1, looks + 1) / looks).tolist(), alpha=0.1)
    paths = np.random.default_rng(1).normal(size=(40_000, looks)).cumsum(axis=1) / np.sqrt(np.arange(1, looks + 1))
    # The standard deviation of the share is 0.0015.
    assert (np.abs(paths) >= bounds).any(axis=1).mean() == pytest.approx(0.1, abs=0.006)


def test_looks_may_be_planned_at_any_times_and_the_earliest_as_good_as_never_stop() -> None:
    bounds = spending_bounds([0.01, 0.5, 0.9])
    assert bounds[0] == 8.0
    assert bounds[0] > bounds[1] > bounds[2] > 1.96


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [0.5, 0.5], [0.5, 0.4], [0.5, 1.1]])
def test_fractions_that_are_no_plan_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="fractions of the planned information"):
        spending_bounds(fractions)
    with pytest.raises(ValueError, match="alpha"):
        spending_bounds([1.0], alpha=0.0)


def test_at_its_bounds_the_mixture_likelihood_ratio_is_one_over_alpha() -> None:
    planned = 0.01
    found = always_valid(effect(0.03, 0.02), planned_standard_error=planned)
    reach, variance = found.high - 0.03, 0.02**2
    assert found.low == pytest.approx(0.03 - reach)
    spread = (2 * np.log(20) + np.log(1 + 2 * np.log(20))) * planned**2
    ratio = np.sqrt(variance / (variance + spread)) * np.exp(spread * reach**2 / (2 * variance * (variance + spread)))
    assert ratio == pytest.approx(20)


def test_the_always_valid_interval_is_narrowest_where_it_was_planned() -> None:
    def width(planned: float) -> float:
        return always_valid(effect(), planned_standard_error=planned).high

    assert width(0.02) < min(width(0.015), width(0.03))
    # At the planned end it is 1.55 times as wide as an interval that is looked at once.
    assert width(0.02) / (1.959964 * 0.02) == pytest.approx(1.55, abs=0.005)


def test_a_look_stops_where_0_is_outside_the_interval() -> None:
    assert always_valid(effect(0.10), planned_standard_error=0.02).stop
    assert not always_valid(effect(0.05), planned_standard_error=0.02).stop
    found = planned_look(effect(-0.05), 2.4)
    assert (found.low, found.high, found.stop) == (pytest.approx(-0.098), pytest.approx(-0.002), True)
    assert not planned_look(effect(-0.05), 2.6).stop


def test_of_few_clusters_nothing_is_always_valid() -> None:
    found = always_valid(effect(10.0, clusters=49), planned_standard_error=0.02)
    assert (found.low, found.high, found.stop) == (-np.inf, np.inf, False)
    with pytest.raises(ValueError, match="planned standard error"):
        always_valid(effect(), planned_standard_error=0.0)
