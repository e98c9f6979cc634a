from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from deployr_core.metrics import auroc
from deployr_core.monitoring.modelled import PseudoRanking, chances, propensity_features


def ranked(outcomes: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    row = np.ones(outcomes.size) if weights is None else weights
    return float(PseudoRanking.of(outcomes, scores).measured(row[np.newaxis])[0, 0])


def test_of_outcomes_of_0_and_1_it_is_the_auroc() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 200).astype(np.float64), rng.integers(0, 20, 200).astype(np.float64)
    weights = rng.uniform(0.0, 2.0, 200)
    assert ranked(labels, scores) == pytest.approx(auroc(labels, scores))
    assert ranked(labels, scores, weights) == pytest.approx(auroc(labels, scores, weights=weights))


def test_of_outcomes_filled_in_every_pair_counts_by_its_chance() -> None:
    rng = np.random.default_rng(2)
    outcomes, scores = rng.uniform(-0.2, 1.3, 40), rng.integers(0, 8, 40).astype(np.float64)
    pairs = np.outer(outcomes, 1 - outcomes) * (1 - np.eye(40))
    won = (scores[:, np.newaxis] > scores) + 0.5 * (scores[:, np.newaxis] == scores)
    assert ranked(outcomes, scores) == pytest.approx((pairs * won).sum() / pairs.sum())


def test_without_both_classes_there_is_none() -> None:
    assert np.isnan(ranked(np.ones(5), np.arange(5.0)))


def test_chances_are_those_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(3)
    features = np.column_stack([np.ones(500), rng.normal(size=(500, 2))])
    labels = (rng.random(500) < 1 / (1 + np.exp(-features @ [0.3, 1.0, -2.0]))).astype(np.float64)
    theirs = LogisticRegression(C=1 / (1e-4 * 500), tol=1e-10, max_iter=1000).fit(features[:, 1:], labels)
    assert chances(features, labels, features) == pytest.approx(theirs.predict_proba(features[:, 1:])[:, 1], abs=1e-5)


def test_classes_that_can_be_told_apart_have_chances_near_0_and_1() -> None:
    features = np.column_stack([np.ones(20), np.r_[np.full(10, -1.0), np.full(10, 1.0)]])
    found = chances(features, np.repeat([0.0, 1.0], 10), features)
    assert found == pytest.approx(np.repeat([0.0, 1.0], 10), abs=0.01)
    with pytest.raises(ValueError, match="rows to fit to"):
        chances(features[:0], np.array([]), features)


def test_scores_of_exactly_0_and_1_have_features_too() -> None:
    found = propensity_features(np.array([0.0, 0.3, 1.0]), 0.5, None)
    assert np.isfinite(found).all()
    assert found.shape == (3, 4)
