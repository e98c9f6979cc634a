from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve as sklearn_calibration_curve
from sklearn.linear_model import LogisticRegression

from deployr_core.bootstrap import Interval, NotMeasured, measure
from deployr_core.calibration import (
    SCORE_LIMIT,
    Recalibration,
    calibration_bins,
    calibration_curve,
    recalibration,
)
from deployr_core.metrics import NotMeasurable


def array(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


def logistic(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def rows(*, n: int = 3000, slope: float = 1.0, shift: float = 0.0, seed: int = 1) -> tuple[Any, Any]:
    """Give outcomes that follow ``shift + slope * logit(score)``, and the scores."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(loc=-1, size=n)
    return (rng.random(n) < logistic(shift + slope * logits)).astype(np.float64), logistic(logits)


@pytest.mark.parametrize(("slope", "shift"), [(1, 0), (0.4, 0), (2, 1), (-1, -1)])
def test_slope_agrees_with_sklearn_with_ties_and_weights(slope: float, shift: float) -> None:
    labels, scores = rows(slope=slope, shift=shift)
    scores = scores.round(1).clip(0.1, 0.9)
    weights = np.random.default_rng(2).integers(0, 4, labels.size).astype(np.float64)
    logits = np.log(scores / (1 - scores))[:, np.newaxis]
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logits, labels, sample_weight=weights)
    found, _ = recalibration(labels, scores, weights=weights)
    assert found == pytest.approx(oracle.coef_[0, 0], abs=1e-5)


def test_intercept_agrees_with_a_search_for_the_most_likely_shift() -> None:
    labels, scores = rows(shift=-0.7)
    logits = np.log(scores / (1 - scores))

    def unlikeliness(shift: float) -> float:
        chance = logistic(logits + shift)
        return -float(np.log(np.where(labels == 1, chance, 1 - chance)).sum())

    _, found = recalibration(labels, scores)
    assert found == pytest.approx(minimize_scalar(unlikeliness, tol=1e-12).x, abs=1e-5)


def test_of_one_score_the_intercept_is_what_its_logit_is_off_by() -> None:
    """Said 1/2, happened 3 times in 4: the odds are 3 and not 1."""
    measured = measure(
        [Recalibration.of(array(1, 1, 1, 0), np.full(4, 0.5))], np.arange(4), rng=np.random.default_rng(1)
    )
    intercept = measured["calibration_intercept"]
    assert isinstance(intercept, Interval)
    assert intercept.value == pytest.approx(np.log(3))
    assert measured["calibration_slope"] == NotMeasured(why=f"expected {Recalibration.lacks[0]}")


def test_of_two_scores_the_slope_is_by_how_much_their_logits_differ_in_truth() -> None:
    """Said 1/4 and 3/4, logits 2 log(3) apart; happened 1/3 and 2/3, logits 2 log(2) apart."""
    labels, scores = array(1, 0, 0, 1, 1, 0), array(*[0.25] * 3, *[0.75] * 3)
    slope, intercept = recalibration(labels, scores)
    assert slope == pytest.approx(np.log(2) / np.log(3))
    assert intercept == pytest.approx(0, abs=1e-9)


def test_scores_as_far_off_as_can_be_still_have_an_intercept() -> None:
    labels = np.r_[np.zeros(999), 1.0]
    [[slope, intercept]] = Recalibration.of(labels, np.r_[np.full(999, 0.9999), 0.9998]).measured(np.ones((1, 1000)))
    assert np.isnan(slope)
    assert intercept == pytest.approx(np.log(1 / 999) - np.log(0.9999 / 0.0001), rel=1e-3)


def test_every_resample_gets_the_fit_that_it_would_get_alone() -> None:
    labels, scores = rows(n=300)
    times = np.random.default_rng(3).multinomial(300, np.full(300, 1 / 300), size=20).astype(np.float64)
    together = Recalibration.of(labels, scores).measured(times)
    alone = [recalibration(np.repeat(labels, n), np.repeat(scores, n)) for n in times.astype(int)]
    assert together == pytest.approx(np.array(alone), abs=1e-7)


@pytest.mark.parametrize(
    ("labels", "scores", "lack"),
    [
        pytest.param((0, 0), (0.1, 0.2), "both classes", id="one class"),
        pytest.param((0, 1), (0.3, 0.3), "scores that differ", id="one score"),
        pytest.param((0, 0, 1, 1), (0.1, 0.2, 0.3, 0.4), "no threshold separates", id="separated"),
        pytest.param((0, 0, 1, 0, 1, 1), (0.1, 0.2, 0.3, 0.3, 0.4, 0.5), "no threshold separates", id="but for a tie"),
        pytest.param((), (), "both classes", id="no rows"),
    ],
)
def test_what_has_no_finite_slope_is_not_measurable(
    labels: tuple[int, ...], scores: tuple[float, ...], lack: str
) -> None:
    with pytest.raises(NotMeasurable, match=lack):
        recalibration(array(*labels), array(*scores))


def test_scores_of_zero_and_one_count_as_near_to_it() -> None:
    labels = array(0, 1, 1, 0, 1, 0)
    extreme = recalibration(labels, array(0, 1, 0.6, 0.6, 0.4, 0.4))
    assert extreme == recalibration(labels, array(SCORE_LIMIT, 1 - SCORE_LIMIT, 0.6, 0.6, 0.4, 0.4))


def test_bins_hold_about_equally_many_rows_and_never_part_equal_scores() -> None:
    scores = array(0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.8, 0.9, 1.0)
    bins = calibration_bins(scores, bins=5)
    # Cut at the 2nd, 4th, 6th and 8th score: 0.2, 0.2, 0.2 and 0.8, each the highest of its bin.
    assert bins.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 2, 2]
    assert np.bincount(calibration_bins(np.arange(100.0), bins=10)).tolist() == [10] * 10
    assert calibration_bins(np.full(7, 0.5)).tolist() == [0] * 7
    with pytest.raises(ValueError, match="at least 1 bin"):
        calibration_bins(scores, bins=0)


def test_the_curve_agrees_with_sklearn() -> None:
    labels, scores = rows()
    points = calibration_curve(labels, scores, np.arange(labels.size), rng=np.random.default_rng(1))
    observed, said = sklearn_calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    assert [point.mean_score for point in points] == pytest.approx(said, abs=2e-3)
    assert [p.observed.value for p in points if isinstance(p.observed, Interval)] == pytest.approx(observed, abs=1e-2)
    assert sum(point.rows for point in points) == labels.size


def test_the_curves_bands_hold_the_truth_of_calibrated_scores() -> None:
    labels, scores = rows(n=8000, seed=4)
    points = calibration_curve(labels, scores, np.arange(labels.size), rng=np.random.default_rng(1))
    inside = [isinstance(p.observed, Interval) and p.observed.low <= p.mean_score <= p.observed.high for p in points]
    assert sum(inside) >= 8


def test_a_curve_of_no_rows_is_not_measurable() -> None:
    with pytest.raises(NotMeasurable, match="at least one row"):
        calibration_curve(array(), array(), np.array([], dtype=np.int64), rng=np.random.default_rng(1))
