"""How far a period is from its reference: sizes by hand and by scipy, and chance by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency

from deployr_core.monitoring.drift import Drift, DriftReference, Drifts, drifts
from deployr_core.monitoring.drift_cells import SparseRows

NAN = np.nan


def flags(*shares: float, rows: int) -> Any:
    """Give columns of which exactly these shares of rows have the variable."""
    return np.column_stack([np.where(np.arange(rows) < round(share * rows), 1.0, NAN) for share in shares])


def held(before: Any, now: Any, *, patients: tuple[Any, Any] | None = None, **more: Any) -> Drifts:
    own, other = patients or (np.arange(len(before)), np.arange(len(now)))
    names = [f"v{place}" for place in range(before.shape[1])]
    reference = DriftReference.of(names, SparseRows.of_columns(before), own, **more)
    return drifts(reference, SparseRows.of_columns(now), other)


def one(found: Drifts) -> Drift:
    (drift,) = found.ranked()
    return drift


def test_the_sizes_of_a_change_by_hand() -> None:
    found = one(held(flags(0.2, rows=1000), flags(0.3, rows=500)))
    p, q = 200.5 / 1001, 150.5 / 501
    assert found.psi == pytest.approx((q - p) * math.log(q / p) + (p - q) * math.log((1 - q) / (1 - p)))
    assert found.js == pytest.approx(jensenshannon([0.8, 0.2], [0.7, 0.3], base=2) ** 2)
    # Absent is 0, present is 1: a tenth of the rows moved by 1.
    assert found.wasserstein == pytest.approx(0.1)
    assert (found.share_before, found.share_now) == (pytest.approx(0.2), pytest.approx(0.3))


def test_chance_of_independent_rows_is_a_degree_of_freedom_each_over_the_rows() -> None:
    found = one(held(flags(0.2, rows=1000), flags(0.2, rows=500)))
    assert found.psi_by_chance == pytest.approx(1 / 1000 + 1 / 500, rel=0.01)


def test_p_of_independent_rows_is_that_of_the_chi_square_test() -> None:
    rng = np.random.default_rng(1)
    before, now = rng.normal(size=(3000, 1)), rng.normal(0.1, size=(2000, 1))
    found = one(held(before, now, bins=4))
    edges = np.sort(before[:, 0])[[749, 1499, 2249]]
    table = [np.bincount(np.searchsorted(edges, each[:, 0], side="right"), minlength=4) for each in (before, now)]
    assert found.p == pytest.approx(chi2_contingency(table).pvalue, rel=0.05)


def test_with_copied_rows_chance_is_as_many_times_larger() -> None:
    before, now = flags(0.2, rows=300), flags(0.3, rows=200)
    alone = one(held(before, now))
    copied = one(
        held(
            np.repeat(before, 9, axis=0),
            np.repeat(now, 9, axis=0),
            patients=(np.repeat(np.arange(300), 9), np.repeat(np.arange(200), 9)),
        )
    )
    assert copied.psi_by_chance == pytest.approx(alone.psi_by_chance)
    assert copied.p == pytest.approx(alone.p, rel=0.02)


def clustered(rng: np.random.Generator, *, rows: int, patients: int, variables: int) -> tuple[Any, Any]:
    """Give rows of which six in ten repeat what is the patient's own."""
    whose = rng.integers(0, patients, rows)
    shares = np.geomspace(0.002, 0.6, variables)
    own = (rng.random((patients, variables)) < shares)[whose]
    there = np.where(rng.random((rows, variables)) < 0.6, own, rng.random((rows, variables)) < shares)
    return np.where(there, 1.0, NAN), whose


def test_where_nothing_changed_small_p_are_no_more_than_they_say_although_patients_rows_are_alike() -> None:
    """Somewhat fewer: the larger design effect counts. Taken for independent, the same rows give many times as many."""
    rng = np.random.default_rng(2)
    small, naive, windows = [], [], 0
    for _ in range(8):
        before, whose = clustered(rng, rows=6000, patients=600, variables=300)
        now, now_whose = clustered(rng, rows=2000, patients=200, variables=300)
        right = held(before, now, patients=(whose, now_whose))
        windows += right.found > 0
        small += (right.p <= 0.05).tolist()
        naive += (held(before, now).p <= 0.05).tolist()
    assert 0.015 <= np.mean(small) <= 0.055
    assert np.mean(naive) > 0.15
    assert windows <= 2


def test_psi_by_chance_is_what_psi_is_on_average_where_nothing_changed() -> None:
    rng, shown, chance = np.random.default_rng(3), [], []
    before = rng.normal(size=(4000, 20))
    for _ in range(10):
        found = held(before, rng.normal(size=(400, 20)), bins=5)
        shown += found.psi.tolist()
        chance += found.psi_by_chance.tolist()
    assert np.mean(shown) == pytest.approx(np.mean(chance), rel=0.12)


def test_a_small_ward_does_not_cry_wolf_with_a_change_that_a_large_one_reports() -> None:
    ward, hospital = (one(held(flags(0.5, rows=20 * size), flags(0.6, rows=size))) for size in (20, 2000))
    assert ward.psi == pytest.approx(hospital.psi, rel=0.1)
    assert ward.psi < ward.psi_by_chance
    assert not ward.is_found
    assert hospital.is_found


def test_a_variable_that_hardly_anybody_has_is_tested_by_the_binomial_distribution() -> None:
    before, now = flags(0.0, rows=1000), flags(0.003, rows=1000)
    # All three in the second of two periods of one size, or all in the first.
    assert one(held(before, now)).p == pytest.approx(2 / 2**3, rel=0.01)


def test_a_code_that_was_never_there_before_is_found() -> None:
    found = one(held(flags(0.0, rows=2000), flags(0.05, rows=400)))
    assert found.is_found
    assert (found.share_before, found.share_now) == (0.0, pytest.approx(0.05))


def test_a_variable_that_nobody_has_or_everybody_in_both_is_not_tested() -> None:
    found = held(flags(0.0, 1.0, rows=100), flags(0.0, 1.0, rows=50))
    assert np.isnan(found.p).all()
    assert found.psi.tolist() == [0.0, 0.0]
    assert found.found == 0


def test_what_a_change_does_to_the_score_by_hand() -> None:
    """Those who have it score .6, the others .2; from half to three quarters of rows, the mean score rises by .1."""
    before = flags(0.5, 0.5, rows=400)
    before[:, 1] = np.tile([1.0, NAN], 200)
    now = np.column_stack([flags(0.75, rows=400)[:, 0], np.tile([1.0, NAN], 200)])
    scores = np.where(np.isnan(before[:, 0]), 0.2, 0.6)
    found = held(before, now, scores=scores)
    assert found.score_shift.tolist() == pytest.approx([0.1, 0.0])


def test_ranked_by_what_it_does_to_the_score_and_found_ones_first() -> None:
    rows, now_rows = 4000, 4000
    before = flags(0.3, 0.3, 0.001, rows=rows)
    now = flags(0.4, 0.5, 0.002, rows=now_rows)
    # Scores go strongly with the first variable, weakly with the second, and wildly with the third, which is rare.
    scores = 0.3 + 0.3 * ~np.isnan(before[:, 0])
    before[:, 1] = np.roll(before[:, 1], 1700)
    scores = scores + 0.02 * ~np.isnan(before[:, 1]) + 30 * ~np.isnan(before[:, 2])
    found = held(before, now, scores=scores)
    ranked = found.ranked()
    assert [each.name for each in ranked] == ["v0", "v1", "v2"]
    assert [each.is_found for each in ranked] == [True, True, False]
    assert found.ranked(1) == ranked[:1]


def test_without_scores_the_change_beyond_chance_ranks() -> None:
    found = held(flags(0.3, 0.3, rows=2000), flags(0.4, 0.6, rows=2000))
    assert math.isnan(found.score_shift[0])
    assert [each.name for each in found.ranked()] == ["v1", "v0"]


def test_a_value_outside_of_what_the_reference_had_is_seen() -> None:
    rng = np.random.default_rng(5)
    before = rng.uniform(10, 20, (2000, 1))
    now = np.where(rng.random((500, 1)) < 0.2, 0.5, rng.uniform(10, 20, (500, 1)))
    assert one(held(before, now)).is_found


def test_a_reference_that_does_not_fit_is_refused() -> None:
    rows, patients = SparseRows.of_columns(flags(0.5, rows=10)), np.arange(10)
    with pytest.raises(ValueError, match="names of 1 variables, got 2"):
        DriftReference.of(["a", "b"], rows, patients)
    with pytest.raises(ValueError, match="finite score for each row"):
        DriftReference.of(["a"], rows, patients, scores=np.ones(3))
    reference = DriftReference.of(["a"], rows, patients)
    with pytest.raises(ValueError, match="edges of each variable"):
        drifts(reference, SparseRows.of_columns(flags(0.5, 0.5, rows=10)), patients)
