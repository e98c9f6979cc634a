"""Intervals of closed form, held against what they should cover, and refused where rows depend on each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from deployr_core.bootstrap import Interval, NotMeasured
from deployr_core.metrics import auroc_interval
from deployr_core.monitoring.closed_form import clustered_auroc_interval, delong_interval, wilson_interval

SEVERAL_ROWS = NotMeasured(
    why="expected no patient with two rows: for those this interval is too narrow, and patients are resampled instead"
)


def interval(figure: Any) -> Interval:
    assert isinstance(figure, Interval)
    return figure


@pytest.mark.parametrize(("events", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1), (70, 200)])
def test_wilson_is_what_scipy_says(events: int, trials: int) -> None:
    found = interval(wilson_interval(np.arange(trials) < events, np.arange(trials)))
    theirs = binomtest(events, trials).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((events / trials, theirs.low, theirs.high), abs=1e-12)


def test_wilson_and_delong_are_refused_where_a_patient_has_two_rows() -> None:
    patients = np.array([1, 2, 3, 3])
    assert wilson_interval(np.array([True, False, True, False]), patients) == SEVERAL_ROWS
    assert delong_interval(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.4, 0.5]), patients) == SEVERAL_ROWS


def test_a_share_of_nothing_says_so() -> None:
    assert wilson_interval(np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)) == NotMeasured(
        why="expected at least one row"
    )


def test_delong_by_hand() -> None:
    """Positives .8, .6, .3 against negatives .7, .2, .1, .5.

    Each positive beats 4, 3 and 2 of 4; each negative is beaten by 1, 3, 3 and 2 of 3: the AUROC is 9 / 12. The
    variances are those of (1, 3/4, 2/4) over 3 and of (1/3, 1, 1, 2/3) over 4, with one degree of freedom taken off.
    """
    labels = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    scores = np.array([0.8, 0.6, 0.3, 0.7, 0.2, 0.1, 0.5])
    found = interval(delong_interval(labels, scores, np.arange(7)))
    variance = ((1 / 4) ** 2 * 2 / 2) / 3 + ((5 / 12) ** 2 + 2 * (1 / 4) ** 2 + (1 / 12) ** 2) / 3 / 4
    assert found.value == pytest.approx(9 / 12)
    error = math.sqrt(variance) / (9 / 12 * 3 / 12)
    odds = math.log(3)
    assert found.low == pytest.approx(1 / (1 + math.exp(-(odds - 1.959963985 * error))))
    assert found.high == pytest.approx(1 / (1 + math.exp(-(odds + 1.959963985 * error))))


def test_ties_count_half_as_in_sklearn() -> None:
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 400).astype(np.float64), rng.integers(0, 6, 400).astype(np.float64)
    found = interval(clustered_auroc_interval(labels, scores, np.arange(400) // 4))
    assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_clustered_interval_is_about_as_wide_as_the_bootstrap_of_patients() -> None:
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(300), 8)
    labels = (rng.random(2400) < 0.3).astype(np.float64)
    scores = labels + rng.normal(size=300)[patients] + rng.normal(size=2400)
    found = interval(clustered_auroc_interval(labels, scores, patients))
    resampled = auroc_interval(labels, scores, patients, rng=rng)
    assert found.value == pytest.approx(resampled.value)
    assert found.high - found.low == pytest.approx(resampled.high - resampled.low, rel=0.1)


@pytest.mark.parametrize(
    ("labels", "scores", "patients", "why"),
    [
        pytest.param([1, 1], [0.1, 0.2], [1, 2], "expected rows of both classes", id="one class"),
        pytest.param([1, 0], [0.1, 0.2], [1, 1], "expected rows of at least two patients", id="one patient"),
        pytest.param([1, 0], [0.3, 0.2], [1, 2], "expected classes that no threshold separates", id="separated"),
    ],
)
def test_rows_that_carry_no_interval_say_what_they_lack(labels: Any, scores: Any, patients: Any, why: str) -> None:
    found = clustered_auroc_interval(np.array(labels, float), np.array(scores, float), np.array(patients))
    assert isinstance(found, NotMeasured)
    assert found.why.startswith(why)


def test_with_26_scores_a_patient_delong_covers_four_times_in_ten_and_the_bootstrap_of_patients_as_often_as_it_says():
    """150 studies of 60 patients, half of them ill, with 26 scores each; the true AUROC is known.

    Scores have a variance of 1 between and of 1 within patients, and a mean of 1 more in the ill: the AUROC is the
    normal distribution's share below 1 / 2. Half of the variance is the patient's, so a mean over 26 rows varies as
    over 26 / (1 + 25 / 2) rows: DeLong's error is too small by the root of 13.5 and covers P(|Z| < 1.96 / 3.67) = 41 %.
    """
    truth, rng, patients = 0.5 * math.erfc(-0.5 / math.sqrt(2)), np.random.default_rng(26), np.repeat(np.arange(60), 26)
    inside = {"delong": 0, "clustered": 0, "bootstrap": 0}
    for _ in range(150):
        ill = rng.permutation(np.r_[np.ones(30), np.zeros(30)])
        labels, scores = ill[patients], (ill + rng.normal(size=60))[patients] + rng.normal(size=patients.size)
        for name, found in (
            # As if every row were a patient of its own: the refusal is what keeps this from being shown.
            ("delong", interval(delong_interval(labels, scores, np.arange(patients.size)))),
            ("clustered", interval(clustered_auroc_interval(labels, scores, patients))),
            ("bootstrap", auroc_interval(labels, scores, patients, rng=rng, resamples=150)),
        ):
            inside[name] += found.low <= truth <= found.high
    assert 0.30 <= inside["delong"] / 150 <= 0.52
    assert 0.90 <= inside["clustered"] / 150 <= 0.99
    assert 0.90 <= inside["bootstrap"] / 150 <= 0.99
