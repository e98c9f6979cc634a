"""Small versions of `python -m benchmarks.simulations`: so few repetitions notice only what is broken."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.daily_looks import daily_looks
from benchmarks.simulations import Estimates, at_the_threshold, label_selection, treatment_effects

pytestmark = pytest.mark.slow


def is_sound(found: Estimates) -> bool:
    """Say whether bias is within 4 standard errors, and coverage no lower than happens once in 2,000 times."""
    repetitions = found.values.size
    fewest = 0.95 * repetitions - 3.3 * np.sqrt(0.95 * 0.05 * repetitions) - 1
    return abs(found.bias) < 4 * found.chance_error and found.covered.sum() >= fewest


def test_under_label_selection_only_the_design_finds_the_truth() -> None:
    found = label_selection(range(10), patients=1_000)
    assert found[0].truth == pytest.approx(0.791, abs=0.003)
    assert [each.estimator for each in found if each.sound and not is_sound(each)] == []
    naive = {each.estimator: each for each in found if not each.sound}
    assert len(naive) == 3
    for each in naive.values():
        assert 0.71 < each.values.mean() < 0.76
        assert each.coverage < 0.2


def test_effects_are_found_whatever_the_unit_and_not_without_the_design() -> None:
    found = treatment_effects(range(30))
    assert [each.estimator for each in found if each.sound and not is_sound(each)] == []
    biased = {each.estimator for each in found if abs(each.bias) > 4 * each.chance_error}
    assert biased == {"looked at or not, as treated", "before and after"}


def test_the_jump_at_the_threshold_is_found_where_a_crude_comparison_has_the_wrong_sign() -> None:
    robust, crude = at_the_threshold(range(30))
    assert is_sound(robust)
    assert crude.values.mean() > 0 > crude.truth


def test_a_trial_may_be_looked_at_every_day_by_rules_that_are_made_for_it() -> None:
    rules = {each.rule: each for each in daily_looks(range(30))}
    # Of 30, 2 stops are expected; 6 or more come once in 200 times.
    for sound in ("always-valid (headline)", "alpha spending, O'Brien-Fleming"):
        assert rules[sound].error < 0.2
        assert rules[sound].power > 0.5
    assert rules["95 % interval, every day"].error > 0.25
