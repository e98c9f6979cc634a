from __future__ import annotations

import numpy as np
import pytest

from deployr_core.bootstrap import NotMeasurable, NotMeasured
from deployr_core.monitoring.discontinuity import DensityCheck, Discontinuity, discontinuities, discontinuity


def world(rows: int = 600, *, seed: int = 1, jump: float = -0.5, noise: float = 0.1):
    """Give scores around 0.5, outcomes on two lines with a jump between them, and patients with one row each."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.2, 0.9, rows)
    outcomes = 2.0 + 3.0 * (scores - 0.5) + jump * (scores >= 0.5) + noise * rng.normal(size=rows)
    return scores, outcomes, np.arange(rows)


def test_lines_with_a_jump_give_the_jump() -> None:
    found = discontinuity(*world(noise=1e-6), threshold=0.5, bandwidth=0.2)
    assert found.value == pytest.approx(-0.5, abs=1e-5)
    assert found.robust.value == pytest.approx(-0.5, abs=1e-5)
    assert found.left_limit == pytest.approx(2.0, abs=1e-5)
    assert (found.slope_below, found.slope_above) == pytest.approx((3.0, 3.0), abs=1e-3)


def test_each_line_has_a_slope_of_its_own_in_units_of_the_score() -> None:
    scores, _, patients = world()
    bent = np.where(scores < 0.5, 1.0 + 2.0 * scores, 4.0 - 1.0 * scores)
    found = discontinuity(scores, bent + 1e-6 * np.sin(1e3 * scores), patients, threshold=0.5, bandwidth=0.2)
    assert (found.slope_below, found.slope_above) == pytest.approx((2.0, -1.0), abs=1e-3)
    # 1 + 2 · 0.5 below, and 4 - 0.5 above.
    assert (found.left_limit, found.value) == pytest.approx((2.0, 1.5), abs=1e-4)


def test_a_parabola_moves_the_line_but_not_the_interval() -> None:
    scores, outcomes, patients = world(noise=1e-6)
    bent = outcomes + 4.0 * (scores - 0.5) ** 2 * np.where(scores >= 0.5, 1.0, -1.0)
    found = discontinuity(scores, bent, patients, threshold=0.5, bandwidth=0.2)
    # The edge estimate of a line errs by -1/10 of curvature times squared bandwidth over 2: 2 · 4 · 0.2² · -1/10.
    assert found.value == pytest.approx(-0.5 - 2 * 4 * 0.2**2 / 10, abs=0.006)
    assert found.robust.value == pytest.approx(-0.5, abs=1e-5)


def test_only_scores_within_the_bandwidth_count_and_one_at_the_threshold_is_above() -> None:
    scores, outcomes, patients = world()
    scores[0], outcomes[0] = 0.5, 1.5
    found = discontinuity(scores, outcomes, patients, threshold=0.5, bandwidth=0.15)
    assert found.above == ((scores >= 0.5) & (scores < 0.65)).sum()
    assert found.below == ((scores < 0.5) & (scores > 0.35)).sum()
    far = np.abs(scores - 0.5) >= 0.15
    moved = discontinuity(scores, outcomes + 100.0 * far, patients, threshold=0.5, bandwidth=0.15)
    assert moved.robust == found.robust


def test_it_is_the_weighted_least_squares_of_statsmodels() -> None:
    models = pytest.importorskip("statsmodels.api", reason="statsmodels is an extra")
    scores, outcomes, patients = world(seed=2)
    found = discontinuity(scores, outcomes, patients, threshold=0.5, bandwidth=0.2)
    distance = scores - 0.5
    near, above = np.abs(distance) < 0.2, distance >= 0
    columns = [np.ones_like(distance), above, distance, distance * above]
    weights = 1 - np.abs(distance[near]) / 0.2
    line = models.WLS(outcomes[near], np.column_stack(columns)[near], weights=weights).fit()
    assert found.value == pytest.approx(line.params[1])
    columns += [distance**2, distance**2 * above]
    parabola = models.WLS(outcomes[near], np.column_stack(columns)[near], weights=weights).fit(cov_type="HC2")
    assert found.robust.value == pytest.approx(parabola.params[1])
    # Both inflate each residual by its leverage.
    assert found.robust.standard_error == pytest.approx(parabola.bse[1])


def test_the_bandwidth_goes_with_the_units_of_the_score_and_not_with_those_of_the_outcome() -> None:
    scores, outcomes, patients = world(2000, noise=0.5)
    plain = discontinuity(scores, outcomes, patients, threshold=0.5)
    scaled = discontinuity(10.0 * scores, 7.0 * outcomes, patients, threshold=5.0)
    assert scaled.bandwidth == pytest.approx(10 * plain.bandwidth)
    assert scaled.value == pytest.approx(7 * plain.value)
    assert scaled.robust.low == pytest.approx(7 * plain.robust.low)


def test_the_more_rows_there_are_and_the_more_the_curve_bends_the_narrower_the_bandwidth() -> None:
    scores, outcomes, patients = world(20_000, noise=0.5)
    bent = outcomes + 8.0 * (scores - 0.5) ** 2 * np.where(scores >= 0.5, 1.0, -1.0)
    few = slice(0, 1000)
    all_rows = discontinuity(scores, bent, patients, threshold=0.5).bandwidth
    assert all_rows < discontinuity(scores[few], bent[few], patients[few], threshold=0.5).bandwidth
    assert all_rows < discontinuity(scores, outcomes, patients, threshold=0.5).bandwidth


def test_rows_of_one_patient_are_not_independent() -> None:
    scores, outcomes, _ = world(400, noise=0.5)
    scores, outcomes = np.repeat(scores, 5), np.repeat(outcomes, 5)
    alone = discontinuity(scores, outcomes, np.arange(2000), threshold=0.5, bandwidth=0.2)
    together = discontinuity(scores, outcomes, np.repeat(np.arange(400), 5), threshold=0.5, bandwidth=0.2)
    assert together.robust.standard_error == pytest.approx(5**0.5 * alone.robust.standard_error, rel=0.03)


def test_scores_that_go_on_smoothly_pass_the_density_check() -> None:
    density = discontinuity(*world(4000), threshold=0.5).density
    assert isinstance(density, DensityCheck)
    assert density.ratio == pytest.approx(1.0, abs=0.25)
    assert density.p_value > 0.01


def test_scores_that_gather_on_one_side_fail_it() -> None:
    scores, outcomes, patients = world(4000)
    kept = (scores >= 0.5) | (np.arange(4000) % 2 == 0)
    density = discontinuity(scores[kept], outcomes[kept], patients[kept], threshold=0.5).density
    assert isinstance(density, DensityCheck)
    assert density.ratio == pytest.approx(2.0, abs=0.6)
    assert density.p_value < 0.001


def test_each_version_and_threshold_is_measured_by_itself() -> None:
    scores, outcomes, patients = world(1200)
    versions = ["1.0.0"] * 600 + ["2.0.0"] * 580 + ["3.0.0"] * 20
    found = discontinuities(scores, outcomes, patients, versions, np.full(1200, 0.5))
    assert list(found) == [("1.0.0", 0.5), ("2.0.0", 0.5), ("3.0.0", 0.5)]
    first = found["1.0.0", 0.5]
    assert first == discontinuity(scores[:600], outcomes[:600], patients[:600], threshold=0.5)
    assert isinstance(found["2.0.0", 0.5], Discontinuity)
    few = found["3.0.0", 0.5]
    assert isinstance(few, NotMeasured)
    assert "expected at least 50 rows with 10 different scores" in few.why


def test_what_cannot_be_measured_is_refused() -> None:
    scores, outcomes, patients = world()
    with pytest.raises(NotMeasurable, match="just above"):
        discontinuity(scores, outcomes, patients, threshold=0.95)
    with pytest.raises(NotMeasurable, match="10 different scores"):
        discontinuity(np.round(scores, 1), outcomes, patients, threshold=0.5)
    with pytest.raises(NotMeasurable, match="outcomes that differ"):
        discontinuity(scores, np.zeros_like(scores), patients, threshold=0.5)
    with pytest.raises(ValueError, match="finite"):
        discontinuity(scores, np.r_[np.nan, outcomes[1:]], patients, threshold=0.5)
    with pytest.raises(ValueError, match="bandwidth"):
        discontinuity(scores, outcomes, patients, threshold=0.5, bandwidth=0.0)
    with pytest.raises(ValueError, match="for each score"):
        discontinuity(scores, outcomes[1:], patients, threshold=0.5)
    with pytest.raises(ValueError, match="for each row"):
        discontinuities(scores, outcomes, patients, ["1.0.0"], np.full(600, 0.5))
