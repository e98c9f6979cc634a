"""Control charts without SciPy: held to hand-derived numbers, published run lengths, and SciPy itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, poisson

from deployr_core.monitoring.alert_rules import Trend
from deployr_core.monitoring.control_charts import (
    Counted,
    Reference,
    binomial_tail,
    chance_of_so_many,
    laney_sigma,
    p_prime_limits,
    poisson_head,
    poisson_tail,
    reference_of,
    smoothed,
    standardized,
    steadied,
)


def test_sigma_z_is_the_mean_moving_range_over_that_of_normal_numbers():
    # Ranges 2, 2 and 1: mean 5 / 3.
    assert laney_sigma([1.0, -1.0, 1.0, 0.0]) == pytest.approx(5 / 3 / 1.128)


def test_limits_of_a_p_prime_chart_are_those_of_a_p_chart_times_sigma_z():
    reference = Reference(mean=0.1, spread=2.0, of=900)
    # sqrt(.1 x .9 / 900) = .01; three of them, twice as wide: .06.
    assert p_prime_limits(reference, 900) == pytest.approx((0.04, 0.16))
    assert p_prime_limits(reference, 9) == (0.0, pytest.approx(0.7))


def test_days_that_vary_by_chance_alone_make_a_spread_of_about_one():
    rng = np.random.default_rng(0)
    days = [Counted(hits=int(hits), of=400) for hits in rng.binomial(400, 0.1, 200)]
    assert reference_of(days).mean == pytest.approx(0.1, abs=0.005)
    assert 1.0 <= reference_of(days).spread < 1.15


def test_days_that_vary_more_than_chance_widen_the_limits():
    rng = np.random.default_rng(0)
    days = [Counted(hits=int(rng.binomial(400, share)), of=400) for share in rng.beta(10, 90, 200)]
    # Var(p) = .1 x .9 / 101 = 8.9e-4, four times that of chance, 2.25e-4: (1 + 3.96) ** .5 = 2.23.
    assert reference_of(days).spread == pytest.approx(2.23, rel=0.15)


def test_a_period_without_any_does_not_make_the_first_one_impossible():
    reference = reference_of([Counted(hits=0, of=99)] * 10)
    assert reference.mean == pytest.approx(0.5 / 991)
    assert 0.0 < chance_of_so_many(Counted(hits=1, of=20), reference) < 0.02


def test_packets_of_uneven_days_are_worth_less():
    counted = Counted(hits=8, of=40)
    even, uneven = (Reference(mean=0.05, spread=spread, of=1000) for spread in (1.0, 2.0))
    assert chance_of_so_many(counted, even) == pytest.approx(binom.sf(7, 40, 0.05))
    # Worth a quarter each: 2 of 10.
    assert chance_of_so_many(counted, uneven) == pytest.approx(binom.sf(1, 10, 0.05))


@settings(max_examples=50)
@given(of=st.integers(1, 3000), share=st.floats(1e-6, 1 - 1e-6), data=st.data())
def test_the_binomial_tail_is_scipys(of, share, data):
    hits = data.draw(st.integers(0, of + 1))
    assert binomial_tail(hits, of, share) == pytest.approx(binom.sf(hits - 1, of, share), rel=1e-6, abs=1e-12)


@settings(max_examples=50)
@given(mean=st.floats(1e-3, 2000), data=st.data())
def test_the_poisson_tails_are_scipys(mean, data):
    count = data.draw(st.integers(0, int(3 * mean) + 30))
    assert poisson_tail(count, mean) == pytest.approx(poisson.sf(count - 1, mean), rel=1e-6, abs=1e-12)
    assert poisson_head(count, mean) == pytest.approx(poisson.cdf(count, mean), rel=1e-6, abs=1e-12)


def test_the_smallest_tails_keep_their_digits():
    assert binomial_tail(30, 100, 0.01) == pytest.approx(binom.sf(29, 100, 0.01), rel=1e-9)
    assert poisson_head(10, 100.0) == pytest.approx(poisson.cdf(10, 100.0), rel=1e-9)


def test_an_ewma_by_hand():
    (first, first_error), (second, second_error) = smoothed([1.0, 3.0], weight=0.2)
    # .2 x 1; then .2 + .2 x (3 - .2). Errors: sqrt(.2 / 1.8 x (1 - .8 ** 2)) = .2, (1 - .8 ** 4) under the root.
    assert (first, first_error) == pytest.approx((0.2, 0.2))
    assert (second, second_error) == pytest.approx((0.76, math.sqrt(0.2 / 1.8 * 0.5904)))


def run_length(weight, width, *, shift=0.0, is_one_sided=False, states=201):
    """Give the mean days to an alarm of an EWMA with fixed limits, by a Markov chain.

    Source: D. Brook and D. A. Evans (1972), Biometrika 59:539-549.
    """
    limit = width * math.sqrt(weight / (2 - weight))
    low = -3 * limit if is_one_sided else -limit
    edges = np.linspace(low, limit, states + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    reached = (edges - (1 - weight) * middles[:, np.newaxis]) / weight - shift
    moves = np.diff(norm.cdf(reached), axis=1)
    if is_one_sided:
        # Below the lowest state nothing ends: it stays in the lowest.
        moves[:, 0] += norm.cdf(reached[:, 0])
    lengths = np.linalg.solve(np.eye(states) - moves, np.ones(states))
    return float(lengths[np.argmin(np.abs(middles))])


@pytest.mark.parametrize(
    ("weight", "width", "shift", "published"),
    [(0.2, 2.962, 0.0, 500), (0.1, 2.814, 0.0, 500), (0.2, 2.962, 0.5, 41.8), (0.2, 2.962, 1.0, 10.5)],
)
def test_run_lengths_are_the_published_ones(weight, width, shift, published):
    # Lucas and Saccucci (1990), table 3, doi:10.1080/00401706.1990.10484583.
    assert run_length(weight, width, shift=shift) == pytest.approx(published, rel=0.02)


def test_the_default_trend_is_wrong_less_than_once_in_ten_years_and_right_within_the_week():
    rule = Trend()
    assert run_length(rule.weight, rule.width, is_one_sided=True) > 10 * 365
    assert run_length(rule.weight, rule.width, is_one_sided=True, shift=2.0) < 5


def test_rare_shares_are_nearly_normal_where_they_are_looked_at_for_a_trend():
    rng = np.random.default_rng(0)
    z = np.array([steadied(Counted(hits=int(hits), of=300), 0.02) for hits in rng.binomial(300, 0.02, 4000)])
    assert z.mean() == pytest.approx(0.0, abs=0.1)
    assert z.std() == pytest.approx(1.0, abs=0.1)
    plain = standardized(Counted(hits=6, of=300), 0.02)
    assert plain == pytest.approx(0.0)
