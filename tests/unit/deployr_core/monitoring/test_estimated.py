"""Performance before the labels: what it would be if probabilities are right, held against labels that come later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.calibration import recalibration
from deployr_core.metrics import auroc, average_precision, brier_score, log_loss
from deployr_core.monitoring.estimated import EstimatedPerformance, estimated_performance


def value(figure: Any) -> float:
    assert isinstance(figure, Interval)
    return figure.value


def outcomes(scores: Any, rng: np.random.Generator, *, slope: float = 1.0, shift: float = 0.0) -> Any:
    odds = slope * np.log(scores / (1 - scores)) + shift
    return (rng.random(scores.size) < 1 / (1 + np.exp(-odds))).astype(np.float64)


def estimated(scores: Any, reference_scores: Any, reference_labels: Any, **more: Any) -> EstimatedPerformance:
    return estimated_performance(
        scores,
        np.arange(len(scores)) // 2,
        reference_labels=reference_labels,
        reference_scores=reference_scores,
        reference_patients=np.arange(len(reference_scores)) // 2,
        **{"rng": np.random.default_rng(2), "resamples": 40, **more},
    )


def test_confusion_figures_are_those_of_the_recalibrated_probabilities_by_hand() -> None:
    rng = np.random.default_rng(1)
    reference = rng.beta(2, 3, 4000)
    labels = outcomes(reference, rng, slope=1.5, shift=0.5)
    scores = np.array([0.8, 0.5, 0.2, 0.1])
    found = estimated(scores, reference, labels, threshold=0.5, resamples=200)
    # The line of all reference rows; its slope is the calibration slope.
    assert found.slope == pytest.approx(recalibration(labels, reference)[0])
    likely = 1 / (1 + np.exp(-(found.intercept + found.slope * np.log(scores / (1 - scores)))))
    right, missed = likely[:2].sum(), likely[2:].sum()
    assert value(found.figures["alert_rate"]) == 2 / 4
    assert value(found.figures["ppv"]) == pytest.approx(right / 2)
    assert value(found.figures["sensitivity"]) == pytest.approx(right / (right + missed))
    assert value(found.figures["specificity"]) == pytest.approx((2 - missed) / (4 - right - missed))
    assert value(found.figures["npv"]) == pytest.approx(1 - missed / 2)
    assert value(found.figures["prevalence"]) == pytest.approx(likely.mean())
    brier = (likely * (1 - scores) ** 2 + (1 - likely) * scores**2).mean()
    assert value(found.figures["brier_score"]) == pytest.approx(brier)
    loss = -(likely * np.log(scores) + (1 - likely) * np.log(1 - scores)).mean()
    assert value(found.figures["log_loss"]) == pytest.approx(loss)


def test_ranking_figures_are_the_mean_over_the_outcomes_that_may_come() -> None:
    rng = np.random.default_rng(3)
    reference = rng.beta(1, 3, 60_000)
    scores = rng.beta(1.5, 3, 1500)
    found = estimated(scores, reference, outcomes(reference, rng), resamples=2)
    labels = [outcomes(scores, rng) for _ in range(60)]
    for name, measured in (("auroc", auroc), ("average_precision", average_precision)):
        expected = np.mean([measured(each, scores) for each in labels])
        assert value(found.figures[name]) == pytest.approx(expected, abs=0.012)


def test_the_estimate_holds_what_labels_say_later_although_patients_have_changed() -> None:
    rng = np.random.default_rng(4)
    reference, scores = rng.beta(1, 6, 6000), rng.beta(2, 4, 6000)
    found = estimated(scores, reference, outcomes(reference, rng, slope=1.3, shift=0.4), resamples=100)
    later = outcomes(scores, rng, slope=1.3, shift=0.4)
    for name, measured in (("auroc", auroc), ("brier_score", brier_score), ("log_loss", log_loss)):
        assert value(found.figures[name]) == pytest.approx(measured(later, scores), abs=0.02)


def test_the_estimate_does_not_see_that_a_score_means_something_else_now() -> None:
    rng = np.random.default_rng(5)
    reference = rng.beta(1, 3, 5000)
    found = estimated(reference, reference, outcomes(reference, rng))
    upside_down = outcomes(1 - reference, rng)
    assert value(found.figures["auroc"]) > 0.6 > 0.5 > auroc(upside_down, reference)
    assert "not measured" in found.ASSUMES


def test_the_interval_is_wider_where_the_reference_is_small() -> None:
    rng = np.random.default_rng(6)
    scores, width = rng.beta(1, 3, 3000), []
    for size in (150, 3000):
        reference = rng.beta(1, 3, size)
        figure = estimated(scores, reference, outcomes(reference, rng), resamples=100).figures["prevalence"]
        assert isinstance(figure, Interval)
        width.append(figure.high - figure.low)
    assert width[0] > 2 * width[1]


def test_without_a_threshold_nothing_is_said_of_one() -> None:
    rng = np.random.default_rng(7)
    reference = rng.beta(1, 3, 500)
    found = estimated(np.array([0.0, 0.4]), reference, outcomes(reference, rng))
    assert list(found.figures) == ["auroc", "average_precision", "prevalence", "brier_score", "log_loss"]
    assert isinstance(found.figures["log_loss"], NotMeasured)


def test_a_reference_that_no_line_fits_gives_no_estimate() -> None:
    scores = np.array([0.1, 0.2, 0.3])
    for reference, labels in (
        (scores, np.zeros(3)),
        (np.array([0.1, 0.9]), np.array([0.0, 1.0])),
        (np.zeros(0), np.zeros(0)),
    ):
        with pytest.raises(NotMeasurable, match="reference period"):
            estimated(scores, reference, labels)
