"""Everything that is shown of one outcome's probabilities, held against scikit-learn and counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.monitoring.binary import AtThreshold, BinaryPerformance, Confusion, NoThreshold, binary_performance


def rows(n: int = 600, *, seed: int = 1) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(1, 4, n)
    return (rng.random(n) < scores).astype(np.float64), scores, np.arange(n) // 3


def measured(*, resamples: int = 100, **more: Any) -> BinaryPerformance:
    labels, scores, patients = more.pop("rows", rows())
    return binary_performance(labels, scores, patients, rng=np.random.default_rng(2), resamples=resamples, **more)


def value(figure: Any) -> float:
    assert isinstance(figure, Interval)
    return figure.value


def test_every_figure_agrees_with_sklearn_also_under_weights() -> None:
    labels, scores, _ = rows()
    weights = np.random.default_rng(3).uniform(0.5, 4.0, labels.size)
    found = measured(threshold=0.3, weights=weights)
    at = found.at[0]
    assert isinstance(at, AtThreshold)
    alert = scores >= 0.3
    for ours, theirs in (
        (found.figures["auroc"], roc_auc_score(labels, scores, sample_weight=weights)),
        (found.figures["average_precision"], average_precision_score(labels, scores, sample_weight=weights)),
        (found.figures["brier_score"], brier_score_loss(labels, scores, sample_weight=weights)),
        (found.figures["log_loss"], log_loss(labels, scores, sample_weight=weights)),
        (at.figures["sensitivity"], recall_score(labels, alert, sample_weight=weights)),
        (at.figures["specificity"], recall_score(labels, alert, sample_weight=weights, pos_label=0)),
        (at.figures["ppv"], precision_score(labels, alert, sample_weight=weights)),
        (at.figures["npv"], precision_score(labels, alert, sample_weight=weights, pos_label=0)),
    ):
        assert value(ours) == pytest.approx(theirs, abs=1e-12)
    assert value(at.figures["number_needed_to_evaluate"]) == pytest.approx(1 / value(at.figures["ppv"]))


def test_the_confusion_matrix_counts_rows_whatever_they_weigh() -> None:
    labels, scores, _ = rows()
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= 0.3).tolist()
    at = measured(threshold=0.3, weights=np.full(labels.size, 2.0), alert_rates=()).at[0]
    assert isinstance(at, AtThreshold)
    assert at.confusion == Confusion(true_positives=tp, false_positives=fp, false_negatives=fn, true_negatives=tn)


def test_alert_rates_are_shares_of_all_that_is_scored_and_not_of_what_is_labelled() -> None:
    labels, scores, patients = np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.5, 0.1]), np.arange(3)
    scored = np.array([0.9, 0.8, 0.8, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    found = measured(rows=(labels, scores, patients), alert_rates=(0.1, 0.5), scored=scored)
    cuts = [at.threshold for at in found.at if isinstance(at, AtThreshold)]
    assert cuts == [0.9, 0.5]
    assert [at.alert_rate for at in found.at] == [0.1, 0.5]


def test_an_alert_rate_that_no_threshold_gives_says_so_in_its_place() -> None:
    same = (np.array([1.0, 0.0] * 10), np.full(20, 0.5), np.arange(20))
    (at,) = measured(rows=same, alert_rates=(0.1,)).at
    assert isinstance(at, NoThreshold)
    assert "shared by" in at.why


def test_calibration_of_weighted_rows_is_weighted_on_both_axes() -> None:
    labels, scores = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.2, 0.4, 0.2, 0.4])
    weights = np.array([3.0, 1.0, 1.0, 0.0])
    one = binary_performance(
        labels, scores, np.arange(4), rng=np.random.default_rng(1), resamples=20, weights=weights, alert_rates=()
    )
    # Ten bins of four rows are two: rows of one score stay together.
    assert [point.mean_score for point in one.calibration] == pytest.approx([0.2, 0.4])
    assert value(one.calibration[0].observed) == 3 / 4


def test_one_class_leaves_the_figures_that_it_carries() -> None:
    found = measured(rows=(np.zeros(30), np.linspace(0, 0.5, 30), np.arange(30)), threshold=0.2, alert_rates=())
    assert found.figures["auroc"] == NotMeasured(why="expected rows of both classes")
    assert value(found.figures["brier_score"]) > 0
    assert found.positives == 0


def test_one_patient_has_figures_without_intervals_and_therefore_none() -> None:
    labels, scores, _ = rows(30)
    found = measured(rows=(labels, scores, np.zeros(30, dtype=np.int64)))
    assert all(isinstance(figure, NotMeasured) for figure in found.figures.values())


def test_no_rows_are_not_measurable() -> None:
    with pytest.raises(NotMeasurable, match="at least one row with a label"):
        measured(rows=(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)))
