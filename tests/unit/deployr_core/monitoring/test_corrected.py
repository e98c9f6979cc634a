"""Corrected p-values, by hand and held against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from deployr_core.monitoring.corrected import benjamini_hochberg, holm


def test_holm_by_hand_and_what_was_not_tested_does_not_count() -> None:
    # Ascending: 3 * .01, then 2 * .02, then .03 itself, which may not be under those before it.
    assert holm(np.array([0.03, np.nan, 0.01, 0.02])) == pytest.approx([0.04, np.nan, 0.03, 0.04], nan_ok=True)


def test_no_corrected_value_is_above_one() -> None:
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert benjamini_hochberg(np.array([0.9, 1.0])).max() <= 1.0


def test_benjamini_and_hochberg_is_what_scipy_says() -> None:
    p_values = np.random.default_rng(1).random(200) ** 2
    assert benjamini_hochberg(p_values) == pytest.approx(false_discovery_control(p_values))


def test_no_tests_have_no_corrections() -> None:
    assert holm(np.zeros(0)).size == 0
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()
