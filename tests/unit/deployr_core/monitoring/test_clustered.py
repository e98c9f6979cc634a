from __future__ import annotations

import numpy as np
import pytest

from deployr_core.bootstrap import NotMeasurable
from deployr_core.monitoring.clustered import clustered_fit


def arms(*groups):
    """Give outcomes, arm and cluster of rows; each cluster is told as (arm, outcome of its rows)."""
    outcomes, arm, cluster = [], [], []
    for number, (shows, values) in enumerate(groups):
        outcomes += values
        arm += [float(shows)] * len(values)
        cluster += [number] * len(values)
    design = np.column_stack([np.ones(len(arm)), arm])
    return design, np.array(outcomes, dtype=np.float64), np.array(cluster)


def test_with_equal_clusters_it_is_welch_on_their_means() -> None:
    # Means of the treated 3 and 5, of the controls 1, 2 and 3: variances 2 and 1.
    fit = clustered_fit(*arms((1, [2, 4]), (1, [5, 5]), (0, [0, 2]), (0, [2, 2]), (0, [1, 5])))
    effect = fit.contrast(np.array([0.0, 1.0]))
    assert effect.value == pytest.approx(4 - 2)
    assert effect.standard_error**2 == pytest.approx(2 / 2 + 1 / 3)
    # (1/2 + 1/3)² / (1 / (2² · 1) + 1 / (3² · 2)) = (25/36) / (11/36)
    assert effect.degrees_of_freedom == pytest.approx(25 / 11)
    assert effect.clusters == 5


def test_the_interval_is_that_of_students_t() -> None:
    # Two clusters in each arm give 2 (2 - 1) = 2 degrees of freedom, where t = 4.302653 at 97.5 %.
    effect = clustered_fit(*arms((1, [1]), (1, [3]), (0, [0]), (0, [2]))).contrast(np.array([0.0, 1.0]))
    assert effect.degrees_of_freedom == pytest.approx(2)
    # s² is 2 in both arms, so the variance is 2/2 + 2/2.
    assert effect.high - effect.value == pytest.approx(4.302653 * 2**0.5, rel=1e-6)
    # P(|T| > t) with 2 degrees of freedom is 1 - t / sqrt(2 + t²), here of t = 1 / sqrt(2).
    assert effect.p_value == pytest.approx(1 - 0.5**0.5 / 2.5**0.5)


def written_out(design, outcomes, clusters, contrast):
    """Give covariance and degrees of freedom as the papers write them, with matrices of all rows by all rows."""
    inverse = np.linalg.pinv(design.T @ design)
    hat = design @ inverse @ design.T
    rest = np.eye(len(outcomes)) - hat
    residuals, meat, columns = rest @ outcomes, 0.0, []
    for each in np.unique(clusters):
        own = clusters == each
        values, vectors = np.linalg.eigh(rest[np.ix_(own, own)])
        kept = values > 1e-9
        adjust = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
        score = design[own].T @ adjust @ residuals[own]
        meat = meat + np.outer(score, score)
        columns.append(rest[:, own] @ adjust @ design[own] @ inverse @ contrast)
    form = np.array(columns) @ np.array(columns).T
    return inverse @ meat @ inverse, np.trace(form) ** 2 / np.trace(form @ form)


@pytest.mark.parametrize("seed", range(5))
def test_variance_and_degrees_of_freedom_are_those_of_the_papers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 9, 70)
    design = np.column_stack([np.ones(70), clusters % 2, rng.normal(5.0, 100.0, 70), rng.normal(size=70)])
    outcomes = rng.normal(size=9)[clusters] + rng.normal(size=70)
    fit, contrast = clustered_fit(design, outcomes, clusters), np.array([0.0, 1.0, 0.0, 0.5])
    covariance, freedom = written_out(design, outcomes, clusters, contrast)
    assert fit.coefficients == pytest.approx(np.linalg.lstsq(design, outcomes)[0])
    assert fit.covariance() == pytest.approx(covariance, rel=1e-8)
    assert fit.contrast(contrast).degrees_of_freedom == pytest.approx(freedom)


def test_a_cluster_that_alone_decides_a_coefficient_adds_no_variance() -> None:
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(8), 5)
    design = np.column_stack([np.ones(40), clusters < 4, clusters == 0]).astype(np.float64)
    outcomes = rng.normal(size=40)
    contrast = np.array([0.0, 1.0, 0.0])
    covariance, freedom = written_out(design, outcomes, clusters, contrast)
    effect = clustered_fit(design, outcomes, clusters).contrast(contrast)
    assert effect.standard_error == pytest.approx(covariance[1, 1] ** 0.5)
    assert effect.degrees_of_freedom == pytest.approx(freedom)


def test_without_clusters_it_is_the_hc2_of_statsmodels() -> None:
    models = pytest.importorskip("statsmodels.api", reason="statsmodels is an extra")
    rng = np.random.default_rng(12)
    design = np.column_stack([np.ones(50), rng.integers(0, 2, 50), rng.normal(size=50)])
    outcomes = rng.normal(size=50) * (1 + design[:, 1])
    theirs = models.OLS(outcomes, design).fit(cov_type="HC2")
    fit = clustered_fit(design, outcomes, np.arange(50))
    assert fit.coefficients == pytest.approx(theirs.params)
    assert fit.covariance() == pytest.approx(theirs.cov_params())


def test_with_many_clusters_it_agrees_with_the_cluster_robust_variance_of_statsmodels() -> None:
    models = pytest.importorskip("statsmodels.api", reason="statsmodels is an extra")
    rng = np.random.default_rng(13)
    clusters = np.repeat(np.arange(2000), 3)
    design = np.column_stack([np.ones(6000), clusters % 2, rng.normal(size=6000)])
    outcomes, weights = rng.normal(size=2000)[clusters] + rng.normal(size=6000), rng.uniform(0.5, 3.0, 6000)
    theirs = models.WLS(outcomes, design, weights=weights).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    fit = clustered_fit(design, outcomes, clusters, weights=weights)
    assert fit.coefficients == pytest.approx(theirs.params)
    assert np.sqrt(np.diag(fit.covariance())) == pytest.approx(theirs.bse, rel=0.005)


def test_a_weight_of_two_is_the_row_twice_and_of_none_is_no_row() -> None:
    design, outcomes, clusters = arms((1, [2, 4, 7]), (1, [5, 5]), (0, [0, 2]), (0, [2, 3]), (0, [1, 5]))
    weights = np.ones(outcomes.size)
    weights[2], weights[4] = 0.0, 2.0
    times = np.repeat(np.arange(outcomes.size), weights.astype(int))
    weighted = clustered_fit(design, outcomes, clusters, weights=weights)
    repeated = clustered_fit(design[times], outcomes[times], clusters[times])
    assert weighted.coefficients == pytest.approx(repeated.coefficients)
    assert weighted.covariance() == pytest.approx(repeated.covariance())


def test_what_cannot_be_told_apart_is_refused() -> None:
    design, outcomes, clusters = arms((1, [2, 4]), (1, [5, 5]), (0, [0, 2]))
    with pytest.raises(NotMeasurable, match="told apart"):
        clustered_fit(np.column_stack([design, design[:, 1]]), outcomes, clusters)
    with pytest.raises(NotMeasurable, match="two clusters"):
        clustered_fit(design, outcomes, np.zeros(6, dtype=np.int64))
    with pytest.raises(NotMeasurable, match="outcomes that differ"):
        clustered_fit(design, design[:, 1], clusters).contrast(np.array([0.0, 1.0]))


def test_shapes_and_numbers_are_checked() -> None:
    design, outcomes, clusters = arms((1, [2, 4]), (0, [0, 2]))
    with pytest.raises(ValueError, match="an outcome and a cluster"):
        clustered_fit(design, outcomes[1:], clusters)
    with pytest.raises(ValueError, match="finite"):
        clustered_fit(design, np.r_[np.nan, outcomes[1:]], clusters)
