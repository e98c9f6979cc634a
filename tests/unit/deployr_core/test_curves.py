from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from deployr_core.curves import precision_recall_curve, roc_curve
from deployr_core.metrics import NotMeasurable, auroc


def array(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


LABELS, SCORES = array(1, 0, 1, 0, 0), array(0.9, 0.5, 0.5, 0.2, 0.1)


def test_the_roc_curve_by_hand() -> None:
    curve = roc_curve(LABELS, SCORES)
    assert curve.thresholds.tolist() == [0.9, 0.5, 0.2, 0.1]
    assert curve.false_positive_rates == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert curve.sensitivities == pytest.approx([1 / 2, 1, 1, 1])


def test_the_precision_recall_curve_by_hand() -> None:
    curve = precision_recall_curve(LABELS, SCORES)
    assert curve.thresholds.tolist() == [0.9, 0.5, 0.2, 0.1]
    assert curve.recalls == pytest.approx([1 / 2, 1, 1, 1])
    assert curve.precisions == pytest.approx([1, 2 / 3, 2 / 4, 2 / 5])


rows = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(1, 4)), min_size=2, max_size=60).filter(
    lambda drawn: len({label for label, _, _ in drawn}) == 2
)


@given(rows)
def test_both_curves_agree_with_sklearn_with_ties_and_weights(drawn: list[tuple[bool, int, int]]) -> None:
    labels, scores, weights = np.array(drawn, dtype=np.float64).T
    ours = roc_curve(labels, scores, weights=weights)
    false, true, thresholds = oracle.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    assert np.array_equal(ours.thresholds, thresholds[1:])
    assert ours.false_positive_rates == pytest.approx(false[1:], abs=1e-12)
    assert ours.sensitivities == pytest.approx(true[1:], abs=1e-12)
    area = np.trapezoid(np.r_[0, ours.sensitivities], np.r_[0, ours.false_positive_rates])
    assert area == pytest.approx(auroc(labels, scores, weights=weights), abs=1e-12)

    pairs = precision_recall_curve(labels, scores, weights=weights)
    precision, recall, thresholds = oracle.precision_recall_curve(labels, scores, sample_weight=weights)
    assert np.array_equal(pairs.thresholds, thresholds[::-1])
    assert pairs.precisions == pytest.approx(precision[:-1][::-1], abs=1e-12)
    assert pairs.recalls == pytest.approx(recall[:-1][::-1], abs=1e-12)


def test_a_row_without_weight_leaves_no_point() -> None:
    assert roc_curve(LABELS, SCORES, weights=array(1, 1, 1, 0, 1)).thresholds.tolist() == [0.9, 0.5, 0.1]


@pytest.mark.parametrize("curve", [roc_curve, precision_recall_curve], ids=lambda each: each.__name__)
def test_one_class_has_no_curve(curve: Any) -> None:
    for labels in (array(0, 0), array(1, 1), array()):
        with pytest.raises(NotMeasurable, match="both classes"):
            curve(labels, np.arange(float(labels.size)))
    with pytest.raises(NotMeasurable, match="both classes"):
        curve(array(0, 1), array(1, 2), weights=array(1, 0))
