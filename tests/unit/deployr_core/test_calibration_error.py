"""The expected calibration error by hand, and what chance makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable
from deployr_core.calibration_error import CalibrationError, calibration_error


def error_of(labels: Any, scores: Any, **more: Any) -> CalibrationError:
    patients = more.pop("patients", np.arange(len(labels)))
    return calibration_error(
        np.array(labels, float), np.array(scores, float), patients, rng=np.random.default_rng(1), **more
    )


def figure(found: CalibrationError) -> Interval:
    assert isinstance(found.error, Interval)
    return found.error


def test_the_error_is_the_mean_gap_of_the_bins() -> None:
    # Of the low two 1/2 happened and 0.2 was said; of the high two all, and 0.7 was said.
    found = error_of([0, 1, 1, 1], [0.2, 0.2, 0.7, 0.7], bins=2)
    assert figure(found).value == pytest.approx((2 * 0.3 + 2 * 0.3) / 4)
    weighted = error_of([0, 1, 1, 1], [0.2, 0.2, 0.7, 0.7], bins=2, weights=np.array([3.0, 1.0, 1.0, 1.0]))
    assert figure(weighted).value == pytest.approx((4 * 0.05 + 2 * 0.3) / 6)


def test_gaps_in_one_bin_make_up_for_each_other() -> None:
    assert figure(error_of([0, 1], [0.5, 0.5], bins=1)).value == 0


def test_a_right_model_shows_about_the_error_that_chance_makes() -> None:
    rng, shown, chance = np.random.default_rng(5), [], []
    for _ in range(60):
        scores = rng.beta(1, 4, 500)
        labels = (rng.random(500) < scores).astype(np.float64)
        found = calibration_error(labels, scores, np.arange(500), rng=rng, resamples=2)
        shown.append(figure(found).value)
        chance.append(found.by_chance)
    assert np.mean(chance) == pytest.approx(np.mean(shown), rel=0.1)


def test_chance_is_larger_where_a_patients_rows_are_alike() -> None:
    rng = np.random.default_rng(6)
    labels, scores = np.repeat((rng.random(100) < 0.3).astype(np.float64), 9), np.full(900, 0.3)
    alone, together = (
        error_of(labels, scores, patients=patients, bins=1, resamples=2).by_chance
        for patients in (np.arange(900), np.repeat(np.arange(100), 9))
    )
    assert together / alone == pytest.approx(math.sqrt(9))


def test_the_interval_of_a_wrong_model_holds_its_error_and_stays_above_chance() -> None:
    rng = np.random.default_rng(7)
    scores = rng.uniform(0.05, 0.5, 4000)
    labels = (rng.random(4000) < scores + 0.2).astype(np.float64)
    found = calibration_error(labels, scores, np.arange(4000), rng=rng, resamples=200)
    assert figure(found).low <= 0.2 <= figure(found).high
    assert figure(found).low > found.by_chance


def test_no_rows_have_no_error() -> None:
    with pytest.raises(NotMeasurable, match="at least one row"):
        error_of([], [])
