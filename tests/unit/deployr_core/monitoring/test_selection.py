from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.metrics import auroc
from deployr_core.monitoring.binary import AtThreshold
from deployr_core.monitoring.selection import (
    Occasions,
    Seen,
    complete_case,
    design_weighted,
    design_weights,
    doubly_robust,
    effective_size,
    inverse_propensity,
    performance_under_selection,
)
from deployr_core.trial import Arm, Exploration, RandomizationUnit, Trial, assign, showing

FEW = 50


def by_hand(**changes: Any) -> Occasions:
    """Give 600 inferences, half above 0.5 with a chance of 9 in 10 to be shown; what is shown is never seen.

    Of the 30 hidden above, 12 have the outcome; of the 300 below, 60.
    """
    rows: dict[str, Any] = {
        "scores": np.repeat([0.7, 0.2], 300),
        "labels": np.r_[[1.0] * 12, [0.0] * 18, [np.nan] * 270, [1.0] * 60, [0.0] * 240],
        "patients": np.arange(600),
        "shown": np.r_[np.zeros(30), np.ones(270), np.zeros(300)] == 1,
        "p_shown": np.repeat([0.9, 0.0], 300),
    }
    return Occasions(**rows | changes)


def values(figures: Any) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items() if isinstance(figure, Interval)}


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_a_hidden_row_stands_for_as_many_as_its_chance_says() -> None:
    weights = design_weights(by_hand())
    assert weights == pytest.approx(np.r_[np.full(30, 10.0), np.zeros(270), np.ones(300)])


def test_design_weighted_figures_are_those_of_everybody() -> None:
    found = design_weighted(by_hand(), threshold=0.5, rng=rng(), resamples=FEW)
    figures = values(found.figures)
    # As if of every 100 above 40 had the outcome, and of every 100 below 20.
    assert figures["prevalence"] == pytest.approx(60 / 200)
    assert figures["sensitivity"] == pytest.approx(40 / 60)
    assert figures["specificity"] == pytest.approx(80 / 140)
    assert figures["ppv"] == pytest.approx(40 / 100)
    assert figures["npv"] == pytest.approx(80 / 100)
    assert figures["alert_rate"] == pytest.approx(1 / 2)
    assert figures["auroc"] == pytest.approx((40 * 80 + (40 * 60 + 20 * 80) / 2) / (60 * 140))
    brier = (40 * 0.3**2 + 60 * 0.7**2 + 20 * 0.8**2 + 80 * 0.2**2) / 200
    assert figures["brier_score"] == pytest.approx(brier)


def test_complete_case_figures_are_those_of_whom_nobody_was_told_of() -> None:
    figures = values(complete_case(by_hand(), threshold=0.5, rng=rng(), resamples=FEW).figures)
    assert figures["prevalence"] == pytest.approx(24 / 110)
    assert figures["sensitivity"] == pytest.approx(4 / 24)


def test_the_chances_that_a_trial_stores_make_the_hidden_and_the_shown_each_stand_for_all() -> None:
    trial = Trial(
        trial_id="simulated",
        version=1,
        unit=RandomizationUnit.PATIENT,
        arms=(Arm(name="control", shows=False), Arm(name="advisory", shows=True, weight=3)),
        exploration=Exploration(show_below=0.1, hide_above=0.2),
    )
    key, scores = b"a secret of the site's own", np.tile([0.3, 0.7], 4000)
    drawn = []
    for number, score in enumerate(scores.tolist()):
        arm = assign(trial, key=key, unit_id=str(number))
        drawn.append(showing(trial, arm, key=key, packet_id=f"p{number}", score=score, threshold=0.5))
    for seen in Seen:
        occasions = Occasions(
            scores=scores,
            labels=np.zeros(8000),
            patients=np.arange(8000),
            shown=np.array([each.shown for each in drawn]),
            p_shown=np.array([each.probability if each.shown else 1 - each.probability for each in drawn]),
            seen=seen,
        )
        # Shown are 3/4 of 8 in 10 above the threshold, and 3/4 of 1 in 10 below it.
        assert occasions.p_shown[:2] == pytest.approx([0.075, 0.6])
        weights = design_weights(occasions)
        for above in (True, False):
            side = (scores >= 0.5) == above
            chance = occasions.chance_of_reference[side][0]
            # Of 4,000 draws of weight 1 / p, the sum varies by sqrt(4000 (1 - p) / p).
            assert weights[side].sum() == pytest.approx(4000, abs=4 * (4000 * (1 - chance) / chance) ** 0.5)


def test_what_stands_behind_an_estimate_is_told() -> None:
    weight = design_weighted(by_hand(), threshold=0.5, rng=rng(), resamples=FEW).weight
    assert (weight.rows, weight.patients) == (330, 330)
    # (30 · 10 + 300)² / (30 · 10² + 300)
    assert weight.effective_rows == pytest.approx(600**2 / 3300)
    assert weight.heaviest == pytest.approx(10 / 600)
    pairs = by_hand(patients=np.arange(600) // 2)
    weight = design_weighted(pairs, threshold=0.5, rng=rng(), resamples=FEW).weight
    # 15 patients weigh 20 and 150 weigh 2.
    assert (weight.patients, weight.effective_patients) == (165, pytest.approx(600**2 / (15 * 400 + 150 * 4)))


def test_effective_size_is_the_number_of_equal_weights() -> None:
    assert effective_size(np.full(7, 0.3)) == pytest.approx(7)
    assert effective_size(np.array([1.0, 0.0, 0.0])) == 1
    assert effective_size(np.zeros(3)) == 0


def test_where_an_advisory_brings_the_outcome_to_light_the_shown_stand_for_all() -> None:
    labels = np.r_[[np.nan] * 30, [1.0] * 135, [0.0] * 135, [1.0] * 3, [0.0] * 27, [np.nan] * 270]
    shown = np.r_[np.zeros(30), np.ones(270), np.ones(30), np.zeros(270)] == 1
    seen = by_hand(labels=labels, shown=shown, p_shown=np.repeat([0.9, 0.1], 300), seen=Seen.WHEN_SHOWN)
    figures = values(design_weighted(seen, threshold=0.5, rng=rng(), resamples=FEW).figures)
    assert figures["ppv"] == pytest.approx(135 / 270)
    assert figures["prevalence"] == pytest.approx((135 / 0.9 + 3 / 0.1) / 600)


def test_without_exploration_there_is_no_headline_and_it_says_what_to_do() -> None:
    certain = by_hand(
        labels=np.r_[[np.nan] * 300, [1.0] * 60, [0.0] * 240],
        shown=np.repeat([True, False], 300),
        p_shown=np.repeat([1.0, 0.0], 300),
    )
    found = performance_under_selection(certain, threshold=0.5, rng=rng(), resamples=FEW)
    assert isinstance(found.design, NotMeasured)
    assert "300 of 600 were certain to be shown: add exploration" in found.design.why


def test_a_handful_of_heavy_rows_is_no_estimate() -> None:
    few = by_hand(labels=np.r_[[1.0] * 12, [np.nan] * 288, [1.0] * 60, [0.0] * 240])
    with pytest.raises(NotMeasurable, match=r"at or above the threshold that tell as much as 30 .* got 12\.0"):
        design_weighted(few, threshold=0.5, rng=rng(), resamples=FEW)


def test_outcomes_missing_where_they_should_have_been_seen_are_told() -> None:
    occasions = by_hand(labels=np.r_[[1.0] * 12, [np.nan] * 288, [1.0] * 60, [0.0] * 240])
    found = performance_under_selection(occasions, threshold=0.5, rng=rng(), resamples=FEW)
    assert found.missing_in_reference == pytest.approx(18 / 330)
    assert performance_under_selection(by_hand(), threshold=0.5, rng=rng(), resamples=FEW).missing_in_reference == 0


def test_all_estimates_stand_side_by_side() -> None:
    found = performance_under_selection(by_hand(), threshold=0.5, rng=rng(), resamples=FEW)
    assert not isinstance(found.design, NotMeasured)
    assert isinstance(found.design.performance.at[0], AtThreshold)
    assert not isinstance(found.inverse_propensity, NotMeasured)
    assert not isinstance(found.doubly_robust, NotMeasured)
    # Here nothing but the decision decides who is labelled, so that models find out too.
    assert values(found.inverse_propensity.figures)["ppv"] == pytest.approx(0.4, abs=1e-6)
    assert values(found.doubly_robust.figures)["ppv"] == pytest.approx(0.4, abs=1e-3)
    assert values(found.doubly_robust.figures)["prevalence"] == pytest.approx(0.3, abs=1e-3)


def selected_by_a_covariate() -> tuple[Occasions, np.ndarray, np.ndarray]:
    """Give inferences that are labelled by what is known of them, and their outcomes as if nothing had hidden any."""
    world = np.random.default_rng(7)
    known, x = world.normal(size=20_000), world.normal(size=20_000)
    outcomes = (world.random(20_000) < 1 / (1 + np.exp(1.0 - x - 1.5 * known))).astype(np.float64)
    seen = world.random(20_000) < 1 / (1 + np.exp(-1.0 + 2.0 * known))
    occasions = Occasions(
        scores=1 / (1 + np.exp(1.0 - x)),
        labels=np.where(seen, outcomes, np.nan),
        patients=np.arange(20_000),
        shown=np.zeros(20_000, dtype=np.bool_),
        p_shown=np.full(20_000, 0.5),
    )
    return occasions, known[:, np.newaxis], outcomes


def test_modelled_estimates_are_right_where_the_covariates_say_who_is_labelled() -> None:
    occasions, covariates, outcomes = selected_by_a_covariate()
    true = {"auroc": auroc(outcomes, occasions.scores), "prevalence": outcomes.mean()}
    how = {"threshold": 0.5, "rng": rng(), "resamples": 2}
    naive = values(complete_case(occasions, **how).figures)
    assert naive["prevalence"] < true["prevalence"] - 0.05
    for way in (inverse_propensity, doubly_robust):
        found = values(way(occasions, covariates=covariates, **how).figures)
        assert found["prevalence"] == pytest.approx(true["prevalence"], abs=0.015)
        assert found["auroc"] == pytest.approx(true["auroc"], abs=0.015)
        blind = values(way(occasions, **how).figures)
        assert blind["prevalence"] < true["prevalence"] - 0.05


def test_occasions_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="the stored chance makes impossible"):
        by_hand(p_shown=np.zeros(600))
    with pytest.raises(ValueError, match="from 0 to 1"):
        by_hand(p_shown=np.full(600, 1.5))
    with pytest.raises(ValueError, match="whether it was shown"):
        by_hand(p_shown=np.zeros(3))
    with pytest.raises(ValueError, match="one patient per row"):
        by_hand(patients=np.arange(3))
    with pytest.raises(ValueError, match="labels of 0 or 1"):
        by_hand(labels=np.full(600, 2.0))
    with pytest.raises(ValueError, match="finite covariates"):
        inverse_propensity(by_hand(), threshold=0.5, rng=rng(), covariates=np.zeros(3), resamples=FEW)


def test_without_rows_or_labels_it_says_so() -> None:
    none = Occasions(
        scores=np.array([]),
        labels=np.array([]),
        patients=np.array([], dtype=np.int64),
        shown=np.array([], dtype=np.bool_),
        p_shown=np.array([]),
    )
    with pytest.raises(ValueError, match="at least one row"):
        performance_under_selection(none, threshold=0.5, rng=rng())
    unlabelled = performance_under_selection(by_hand(labels=np.full(600, np.nan)), threshold=0.5, rng=rng())
    assert unlabelled.doubly_robust == NotMeasured(why="expected a row with a label")
    assert isinstance(unlabelled.design, NotMeasured)
    assert unlabelled.missing_in_reference == 1.0
