"""Drift of predictions, labels, names, gaps and volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from deployr_core.bootstrap import Interval, NotMeasured
from deployr_core.monitoring.drift_kinds import (
    names_drift,
    numbers_drift,
    presence_drift,
    volume_change,
    wasserstein,
)

EACH: dict[str, Any] = {"patients_before": np.arange(2000), "patients_now": np.arange(500)}


def test_the_distance_of_numbers_is_what_scipy_says_and_in_their_unit() -> None:
    rng = np.random.default_rng(1)
    before, now = rng.normal(size=300), rng.normal(0.4, 2, size=170)
    assert wasserstein(before, now) == pytest.approx(wasserstein_distance(before, now))
    assert wasserstein(before, before + 3) == pytest.approx(3)
    assert math.isnan(wasserstein(before, np.zeros(0)))


def test_scores_that_moved_are_found_and_those_that_did_not_are_not() -> None:
    rng = np.random.default_rng(2)
    before = {"score": rng.beta(1, 4, 2000), "features present": rng.poisson(40, 2000).astype(np.float64)}
    now = {"score": rng.beta(2, 4, 500), "features present": rng.poisson(40, 500).astype(np.float64)}
    found = {each.name: each for each in numbers_drift(before, now, **EACH).ranked()}
    assert {name: each.is_found for name, each in found.items()} == {"score": True, "features present": False}
    assert found["score"].wasserstein == pytest.approx(wasserstein_distance(before["score"], now["score"]))


def test_numbers_that_are_missing_now_are_a_drift_of_their_own() -> None:
    rng = np.random.default_rng(3)
    before, now = rng.normal(size=2000), rng.normal(size=500)
    now[::10] = np.nan
    (found,) = numbers_drift({"x": before}, {"x": now}, **EACH).ranked()
    assert found.is_found
    assert (found.share_before, found.share_now) == (1.0, pytest.approx(0.9))
    assert found.wasserstein == pytest.approx(wasserstein_distance(before, now[~np.isnan(now)]))


def test_a_share_of_labels_that_rose_is_found_with_its_size() -> None:
    before, now = np.tile([1.0, 0, 0, 0], 500), np.tile([1.0, 0], 250)
    (found,) = numbers_drift({"label": before}, {"label": now}, **EACH).ranked()
    assert found.is_found
    assert found.wasserstein == pytest.approx(1 / 2 - 1 / 4)


def test_a_group_of_features_that_stopped_coming_is_found() -> None:
    before = {"labs": np.arange(2000) % 10 > 0, "vitals": np.arange(2000) % 2 > 0}
    now = {"labs": np.arange(500) % 10 > 3, "vitals": np.arange(500) % 2 > 0}
    ranked = presence_drift(before, now, **EACH).ranked()
    assert [(each.name, each.is_found) for each in ranked] == [("labs", True), ("vitals", False)]
    assert (ranked[0].share_before, ranked[0].share_now) == (pytest.approx(0.9), pytest.approx(0.6))


def test_a_channel_that_is_new_is_found_and_names_have_no_distance() -> None:
    before = {"channel": np.full(2000, "json"), "day": np.array([str(day) for day in range(7)])[np.arange(2000) % 7]}
    now = {
        "channel": np.where(np.arange(500) % 5 == 0, "hooks", "json"),
        "day": np.array([str(day) for day in range(7)])[np.arange(500) % 7],
    }
    ranked = names_drift(before, now, **EACH).ranked()
    assert [(each.name, each.is_found) for each in ranked] == [("channel", True), ("day", False)]
    assert math.isnan(ranked[0].wasserstein)


def test_names_that_are_the_same_for_all_in_both_are_not_tested() -> None:
    same = {"site": np.full(2000, "main")}
    (found,) = names_drift(same, {"site": np.full(500, "main")}, **EACH).ranked()
    assert math.isnan(found.p)
    assert not found.is_found


def test_other_names_in_the_two_periods_are_refused() -> None:
    with pytest.raises(ValueError, match="same names in both periods"):
        numbers_drift({"x": np.zeros(2000)}, {"y": np.zeros(500)}, **EACH)
    with pytest.raises(ValueError, match="same names in both periods"):
        names_drift({}, {}, **EACH)


def test_the_change_of_volume_by_hand() -> None:
    before, now = np.array([10.0, 14.0] * 7), np.array([18.0, 30.0] * 7)
    found = volume_change(before, now)
    # Variances over 14 days: 4 * 14 / 13 and 36 * 14 / 13.
    error = math.sqrt(4 / 13 / 12**2 + 36 / 13 / 24**2)
    assert (found.before, found.now) == (12, 24)
    assert isinstance(found.ratio, Interval)
    assert found.ratio.value == 2
    assert found.ratio.low == pytest.approx(2 * math.exp(-1.959963985 * error))
    assert found.p < 1e-6


def test_a_period_without_any_or_of_one_day_has_no_interval() -> None:
    assert volume_change(np.zeros(7), np.ones(7)).ratio == NotMeasured(why="expected some in both")
    single = volume_change(np.ones(1), np.ones(7))
    assert single.ratio == NotMeasured(why="expected at least two days in both periods for an interval")
    assert math.isnan(volume_change(np.ones(7), np.ones(7)).p)
    with pytest.raises(ValueError, match="at least one day"):
        volume_change(np.zeros(0), np.ones(7))
