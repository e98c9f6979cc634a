"""From labels and scores to an evaluation: what is measured of whom, and what is said where nothing can be."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from deployr_core.groups import NOT_RECORDED
from deployr_core.metrics import auroc, auroc_interval
from deployr_dev.evaluation.measuring import evaluate
from deployr_dev.evaluation.records import (
    AlertRateAtMost,
    AtThreshold,
    Evaluation,
    Given,
    Group,
    GroupFigures,
    Measured,
    NoThreshold,
    NotMeasured,
    RocPoints,
    SensitivityAtLeast,
    TooSmall,
)


def evaluated(*, n: int = 400, **changes: Any) -> Evaluation:
    """Evaluate seeded rows, two a patient, but for what is named."""
    rng = np.random.default_rng(5)
    scores = rng.random(n)
    arguments: dict[str, Any] = {
        "labels": (rng.random(n) < scores).astype(np.float64),
        "scores": scores,
        "patients": np.arange(n) // 2,
        "rng": np.random.default_rng(6),
        "subgroups": {"sex": np.array(["female", "male"])[np.arange(n) // 2 % 2]},
        "available_features": np.arange(n) // 2,
        "resamples": 50,
        **changes,
    }
    labels, scores, patients = (arguments.pop(name) for name in ("labels", "scores", "patients"))
    return evaluate(labels, scores, patients, **arguments)


def value(figure: object) -> float:
    assert isinstance(figure, Measured)
    return figure.value


def group(evaluation: Evaluation, name: str) -> Group:
    return next(group for group in evaluation.groupings[0].groups if group.name == name)


def test_an_evaluation_goes_to_json_and_back_unchanged() -> None:
    evaluation = evaluated()
    assert msgspec.json.decode(msgspec.json.encode(evaluation), type=Evaluation) == evaluation


def test_the_same_seed_gives_the_same_evaluation() -> None:
    assert evaluated() == evaluated()
    assert evaluated() != evaluated(rng=np.random.default_rng(7))


def test_the_auroc_is_that_of_the_core() -> None:
    rng = np.random.default_rng(8)
    labels, scores, patients = rng.integers(0, 2, 90).astype(float), rng.random(90), np.arange(90) // 3
    expected = auroc_interval(labels, scores, patients, rng=np.random.default_rng(1), resamples=80)
    found = evaluated(
        n=90, labels=labels, scores=scores, patients=patients, rng=np.random.default_rng(1), resamples=80
    ).auroc
    assert found == Measured(value=expected.value, low=expected.low, high=expected.high, resamples=expected.resamples)


def test_rows_patients_and_positives_are_counted() -> None:
    evaluation = evaluated(labels=np.r_[np.ones(100), np.zeros(300)])
    assert (evaluation.rows, evaluation.patients, evaluation.positives) == (400, 200, 100)
    assert value(evaluation.prevalence) == 100 / 400


def test_the_threshold_given_is_kept_and_none_given_is_said() -> None:
    given = evaluated(threshold=0.7).operating
    assert isinstance(given, AtThreshold)
    assert (given.choice, given.threshold) == (Given(), 0.7)

    stand_in = evaluated().operating
    assert isinstance(stand_in, AtThreshold)
    assert stand_in.choice == AlertRateAtMost(share=0.10)
    assert value(stand_in.alert_rate) == 40 / 400


def test_the_threshold_table_does_what_each_line_says() -> None:
    table = evaluated().thresholds
    assert [row.choice.share for row in table if not isinstance(row.choice, Given)] == [
        *(0.01, 0.02, 0.05, 0.10, 0.20),
        *(0.80, 0.90, 0.95),
    ]
    for row in table:
        assert isinstance(row, AtThreshold)
        if isinstance(row.choice, AlertRateAtMost):
            assert value(row.alert_rate) == row.choice.share
        if isinstance(row.choice, SensitivityAtLeast):
            assert row.choice.share <= value(row.sensitivity) < row.choice.share + 0.02


def test_scores_that_are_all_alike_have_no_threshold_for_a_low_alert_rate() -> None:
    evaluation = evaluated(scores=np.full(400, 0.5))
    assert isinstance(evaluation.operating, NoThreshold)
    assert "shared by 1 of them" in evaluation.operating.why
    assert value(evaluation.auroc) == 1 / 2
    assert isinstance(evaluation.calibration_slope, NotMeasured)
    figures = group(evaluation, "male").figures
    assert isinstance(figures, GroupFigures)
    assert figures.sensitivity == NotMeasured(why="expected a threshold")


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_measured_as_far_as_it_can_be_and_never_as_a_half(label: float) -> None:
    evaluation = evaluated(labels=np.full(400, label), threshold=0.5)
    why = NotMeasured(why="expected rows of both classes")
    assert evaluation.auroc == evaluation.calibration_intercept == evaluation.roc == evaluation.precision_recall == why
    assert value(evaluation.prevalence) == label
    assert isinstance(evaluation.brier_score, Measured)
    assert all(isinstance(group.figures, TooSmall) for group in evaluation.groupings[0].groups)
    if label == 0:
        finding = evaluation.thresholds[-1]
        assert finding == NoThreshold(choice=SensitivityAtLeast(share=0.95), why="expected a row with the outcome")


def test_one_patient_has_no_intervals_so_no_figures() -> None:
    evaluation = evaluated(patients=np.zeros(400, dtype=np.int64))
    assert evaluation.auroc == NotMeasured(why="expected rows of at least two patients for an interval")
    assert evaluation.prevalence == evaluation.auroc


def test_a_group_is_measured_on_its_own_rows_at_everybodys_threshold() -> None:
    rng = np.random.default_rng(9)
    labels, scores = rng.integers(0, 2, 400).astype(float), rng.random(400)
    evaluation = evaluated(labels=labels, scores=scores, threshold=0.25)
    men = np.arange(400) // 2 % 2 == 1
    found = group(evaluation, "male")
    assert (found.rows, found.patients) == (200, 100)
    assert isinstance(found.figures, GroupFigures)
    assert value(found.figures.auroc) == pytest.approx(auroc(labels[men], scores[men]))
    assert value(found.figures.prevalence) == labels[men].mean()
    assert value(found.figures.calibration_in_the_large) == pytest.approx((labels - scores)[men].mean())
    assert value(found.figures.sensitivity) == pytest.approx((scores[men & (labels == 1)] >= 0.25).mean())


@pytest.mark.parametrize(
    ("rows", "positives", "why"),
    [
        pytest.param(19, 10, "under 20 rows", id="too few rows"),
        pytest.param(20, 4, "under 5 rows with the outcome", id="too few with the outcome"),
        pytest.param(20, 16, "under 5 rows without the outcome", id="too few without it"),
        pytest.param(20, 5, None, id="just enough"),
        pytest.param(20, 15, None, id="just enough the other way"),
    ],
)
def test_small_groups_are_named_with_what_they_lack(rows: int, positives: int, why: str | None) -> None:
    names = np.array(["few"] * rows + ["many"] * (400 - rows))
    labels = np.r_[np.ones(positives), np.zeros(rows - positives), np.tile([0.0, 1.0], 200)[: 400 - rows]]
    found = group(evaluated(subgroups={"kind": names}, labels=labels), "few")
    assert found.rows == rows
    assert isinstance(found.figures, GroupFigures) if why is None else found.figures == TooSmall(why=why)


def test_a_group_of_few_patients_is_small_however_many_rows_they_have() -> None:
    names = np.array(["few"] * 100 + ["many"] * 300)
    patients = np.r_[np.arange(100) % 9, np.arange(300) + 9]
    found = group(evaluated(subgroups={"kind": names}, patients=patients), "few")
    assert (found.patients, found.figures) == (9, TooSmall(why="under 10 patients"))


def test_groups_are_in_order_and_what_is_not_recorded_comes_last() -> None:
    names = np.array(["b", "a", "", " ", NOT_RECORDED])[np.arange(400) % 5]
    evaluation = evaluated(subgroups={"kind": names})
    assert [(each.name, each.rows) for each in evaluation.groupings[0].groups] == [
        ("a", 80),
        ("b", 80),
        (NOT_RECORDED, 240),
    ]


def test_rows_are_cut_into_fifths_by_what_is_available() -> None:
    fifths = evaluated().by_available_features
    # Two rows each have 0 to 199 features.
    assert [(each.fewest, each.most, each.rows) for each in fifths] == [
        (0, 39, 80),
        (40, 79, 80),
        (80, 119, 80),
        (120, 159, 80),
        (160, 199, 80),
    ]
    assert all(isinstance(each.auroc, Measured) for each in fifths)


def test_rows_with_equally_many_features_are_never_parted() -> None:
    fifths = evaluated(available_features=np.r_[np.zeros(300, dtype=np.int64), np.arange(100)]).by_available_features
    # 301 rows have none, which is past three of the four cuts; the fourth is at the 320th row.
    assert [(each.fewest, each.most, each.rows) for each in fifths] == [(0, 0, 301), (1, 19, 19), (20, 99, 80)]


def test_a_long_curve_keeps_its_ends() -> None:
    curve = evaluated(n=4000).roc
    assert isinstance(curve, RocPoints)
    assert len(curve.thresholds) == 500
    assert (curve.false_positive_rates[-1], curve.sensitivities[-1]) == (1.0, 1.0)


def test_scores_are_counted_by_outcome_the_top_included() -> None:
    evaluation = evaluated(
        n=4,
        labels=np.array([1.0, 1, 0, 0]),
        scores=np.array([1.0, 0.96, 0.04, 0.05]),
        subgroups={},
        available_features=np.arange(4),
    )
    assert evaluation.histogram.with_outcome == (*[0] * 19, 2)
    assert evaluation.histogram.without_outcome == (1, 1, *[0] * 18)
    assert evaluation.scores_at_limit == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"scores": np.full(400, 1.5)}, "scores from 0 to 1", id="no probabilities"),
        pytest.param({"patients": np.arange(3)}, "one patient per row", id="patients missing"),
        pytest.param({"threshold": np.nan}, "finite threshold", id="no threshold"),
        pytest.param({"subgroups": {"sex": np.array(["f"])}}, "one sex per row", id="groups missing"),
        pytest.param({"subgroups": {"sex": np.zeros(400)}}, "sex as strings", id="groups by number"),
        pytest.param({"available_features": np.arange(3)}, "available_features of shape", id="counts missing"),
        pytest.param({"available_features": np.full(400, -1)}, "none below 0", id="negative counts"),
        pytest.param({"alert_rates": [2.0]}, "above 0 and at most 1", id="alert rate of two"),
        pytest.param({"resamples": 0}, "at least 1 resample", id="no resamples"),
        pytest.param(
            {"labels": np.array([]), "scores": np.array([]), "patients": np.array([], dtype=np.int64)},
            "at least one row",
            id="no rows",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        evaluated(**changes)
