"""Several classes, several labels and numbers, held against scikit-learn and counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    log_loss,
    mean_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.monitoring.binary import BinaryPerformance
from deployr_core.monitoring.more_outcomes import (
    AnyPerformance,
    ClassPerformance,
    LabelPerformance,
    confusion_counts,
    performance,
)
from deployr_core.monitoring.number_errors import NumberPerformance, error_bins
from deployr_core.outputs import BINARY, Outputs, Target

CLASSES = Outputs(target=Target.MULTICLASS, names=("low", "normal", "high"), headline="low")
LABELS = Outputs(target=Target.MULTILABEL, names=("anemia", "leukopenia"), headline="anemia")
NUMBER = Outputs(target=Target.REGRESSION, names=("hemoglobin",), headline="hemoglobin", unit="g/dL")


def measured(outputs: Outputs, labels: Any, answers: Any, **more: Any) -> AnyPerformance:
    patients = np.arange(len(labels)) // 2
    return performance(outputs, labels, answers, patients, rng=np.random.default_rng(1), resamples=40, **more)


def value(figure: Any) -> float:
    assert isinstance(figure, Interval)
    return figure.value


def classes(n: int = 240) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, n)
    answers = rng.random((n, 3)) + 0.6 * np.eye(3)[labels]
    return labels.astype(np.float64), answers / answers.sum(axis=1, keepdims=True), rng.uniform(0.5, 3, n)


def test_the_figures_of_classes_agree_with_sklearn_also_under_weights() -> None:
    labels, answers, weights = classes()
    found = measured(CLASSES, labels, answers, weights=weights)
    assert isinstance(found, ClassPerformance)
    likeliest = answers.argmax(axis=1)
    one_hot = np.eye(3)[labels.astype(int)]
    given: dict[str, Any] = {"sample_weight": weights}
    for name, theirs in {
        "auroc": np.mean([roc_auc_score(one_hot[:, k], answers[:, k], **given) for k in range(3)]),
        "average_precision.high": average_precision_score(one_hot[:, 2], answers[:, 2], **given),
        "log_loss": log_loss(labels, answers, **given),
        "accuracy": np.average(likeliest == labels, weights=weights),
        "brier_score": np.average(((answers - one_hot) ** 2).sum(axis=1), weights=weights),
        "sensitivity.normal": recall_score(labels == 1, likeliest == 1, **given),
        "ppv.low": precision_score(labels == 0, likeliest == 0, **given),
        "prevalence.low": np.average(labels == 0, weights=weights),
    }.items():
        assert value(found.figures[name]) == pytest.approx(theirs, abs=1e-12), name


def test_the_confusion_matrix_is_sklearns_and_its_shares_are_of_what_happened() -> None:
    labels, answers, _ = classes()
    found = measured(CLASSES, labels, answers)
    assert isinstance(found, ClassPerformance)
    theirs = confusion_matrix(labels, answers.argmax(axis=1))
    assert found.confusion == tuple(map(tuple, theirs.tolist())) == confusion_counts(labels, answers)
    assert value(found.shares[1][2]) == pytest.approx(theirs[1, 2] / theirs[1].sum())
    assert list(found.calibration) == list(CLASSES.names)


def test_a_class_that_never_happened_says_so_in_its_place() -> None:
    labels, answers, _ = classes()
    found = measured(CLASSES, np.minimum(labels, 1.0), answers)
    assert isinstance(found, ClassPerformance)
    assert found.figures["sensitivity.high"] == NotMeasured(why="expected a row that was high")
    assert isinstance(found.figures["auroc"], NotMeasured)
    assert isinstance(found.figures["auroc.low"], Interval)


def test_labels_are_measured_one_by_one_and_on_average() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((120, 2)) < 0.4).astype(np.float64)
    answers = np.clip(0.5 * labels + 0.5 * rng.random((120, 2)), 0.01, 0.99)
    found = measured(LABELS, labels, answers)
    assert isinstance(found, LabelPerformance)
    assert value(found.figures["auroc"]) == pytest.approx(roc_auc_score(labels, answers))
    assert value(found.figures["average_precision"]) == pytest.approx(average_precision_score(labels, answers))
    assert value(found.figures["brier_score"]) == pytest.approx(((labels - answers) ** 2).mean())
    anemia = found.by_label["anemia"]
    assert value(anemia.figures["auroc"]) == pytest.approx(roc_auc_score(labels[:, 0], answers[:, 0]))


def test_numbers_agree_with_sklearn_and_the_line_of_observed_on_predicted_with_least_squares() -> None:
    rng = np.random.default_rng(6)
    predicted = rng.normal(12, 2, 200)
    observed, weights = 0.8 * predicted + 3 + rng.normal(size=200), rng.uniform(0.5, 3, 200)
    found = measured(NUMBER, observed, predicted[:, np.newaxis], weights=weights)
    assert isinstance(found, NumberPerformance)
    given: dict[str, Any] = {"sample_weight": weights}
    slope, intercept = np.polyfit(predicted, observed, 1, w=np.sqrt(weights))
    assert value(found.figures["mae"]) == pytest.approx(mean_absolute_error(observed, predicted, **given))
    assert value(found.figures["r2"]) == pytest.approx(r2_score(observed, predicted, **given))
    assert value(found.figures["calibration_slope"]) == pytest.approx(slope)
    assert value(found.figures["calibration_intercept"]) == pytest.approx(intercept)
    assert found.unit == "g/dL"


def test_predictions_that_are_all_the_same_have_no_line() -> None:
    found = measured(NUMBER, np.linspace(6, 16, 40), np.full((40, 1), 0.1))
    assert isinstance(found, NumberPerformance)
    assert isinstance(found.figures["calibration_slope"], NotMeasured)


def test_errors_by_magnitude_by_hand() -> None:
    observed, predicted = np.repeat([5.0, 10.0, 20.0], 20), np.repeat([6.0, 10.0, 16.0], 20)
    bins = error_bins(observed, observed, predicted, np.arange(60), bins=3, rng=np.random.default_rng(1), resamples=9)
    assert [(each.lowest, each.highest, each.rows) for each in bins] == [(5, 5, 20), (10, 10, 20), (20, 20, 20)]
    assert [value(each.error) for each in bins] == [1, 0, 4]
    assert [value(each.bias) for each in bins] == [1, 0, -4]


def test_one_outcome_is_measured_as_binary_and_no_rows_not_at_all() -> None:
    found = measured(BINARY, np.array([1.0, 0.0] * 20), np.linspace(0, 1, 40)[:, np.newaxis], threshold=0.5)
    assert isinstance(found, BinaryPerformance)
    for outputs in (BINARY, CLASSES, LABELS, NUMBER):
        with pytest.raises(NotMeasurable, match="at least one row with a label"):
            measured(outputs, np.zeros(0), np.zeros((0, len(outputs.names))))
