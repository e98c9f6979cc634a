from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from deployr_core.bootstrap import measure
from deployr_core.metrics import (
    Interval,
    NotMeasurable,
    NotMeasured,
    auroc,
    auroc_interval,
    average_precision,
    brier_score,
    log_loss,
    overall,
)
from deployr_core.thresholds import threshold_at_alert_rate, threshold_at_sensitivity, threshold_figures


def array(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        pytest.param((0, 0, 1, 1), (0.1, 0.2, 0.3, 0.4), 1, id="perfect"),
        pytest.param((1, 1, 0, 0), (0.1, 0.2, 0.3, 0.4), 0, id="upside down"),
        pytest.param((0, 1), (0.5, 0.5), 1 / 2, id="one tie"),
        pytest.param((0, 1, 0, 1, 1), (7.0, 7.0, 7.0, 7.0, 7.0), 1 / 2, id="all tied"),
        pytest.param((0, 0, 1, 1), (0.1, 0.4, 0.35, 0.8), 3 / 4, id="one of four pairs lost"),
        pytest.param((0, 0, 1, 1), (0.1, 0.4, 0.4, 0.8), 3.5 / 4, id="one of four pairs tied"),
        # Positives 3, 2, 2 against negatives 2, 1, 2: won 3 + 1 + 1, tied 0 + 2 + 2 halves.
        pytest.param((1, 1, 1, 0, 0, 0), (3, 2, 2, 2, 1, 2), (5 + 4 / 2) / 9, id="ties in both classes"),
        pytest.param((0, 1), (-1e-320, 1e-320), 1, id="subnormal scores are not tied"),
        pytest.param((0, 1), (0.1 + 0.2, 0.3), 0, id="a bit apart is not tied"),
    ],
)
def test_auroc_is_the_share_of_pairs_won_and_half_of_those_tied(
    labels: tuple[int, ...], scores: tuple[float, ...], expected: float
) -> None:
    assert auroc(array(*labels), array(*scores)) == expected


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_auroc_agrees_with_sklearn_with_many_ties(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array(rows, dtype=np.float64).T
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_agrees_with_sklearn_on_real_valued_scores() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 2000).astype(np.float64)
    scores = labels + rng.normal(size=2000)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_depends_on_the_order_of_scores_only() -> None:
    rng = np.random.default_rng(6)
    labels, scores = array(*([0, 1] * 50)), rng.integers(0, 30, 100).astype(np.float64)
    assert auroc(labels, scores) == auroc(labels, np.exp(scores)) == auroc(labels[::-1], scores[::-1])
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores), abs=1e-15)


@pytest.mark.filterwarnings("error")
def test_any_finite_scores_can_be_ranked() -> None:
    assert auroc(array(0, 1), array(-1.7e308, 1.7e308)) == 1


@pytest.mark.parametrize("labels", [(0, 0, 0), (1, 1, 1), ()], ids=str)
def test_one_class_has_no_auroc(labels: tuple[int, ...]) -> None:
    scores = array(*range(len(labels)))
    with pytest.raises(NotMeasurable, match="both classes"):
        auroc(array(*labels), scores)
    with pytest.raises(NotMeasurable, match="both classes"):
        auroc_interval(array(*labels), scores, np.arange(len(labels)), rng=np.random.default_rng(1))


@pytest.mark.parametrize(
    ("labels", "scores", "complaint"),
    [
        pytest.param(array(0, 1), array(1, 2, 3), r"one shape .* \(2,\) and \(3,\)", id="lengths differ"),
        pytest.param(np.zeros((2, 2)), np.zeros((2, 2)), "one shape", id="two dimensions"),
        pytest.param(array(0, 2), array(1, 2), "labels of 0 or 1", id="label 2"),
        pytest.param(array(-1, 1), array(1, 2), "labels of 0 or 1", id="label -1"),
        pytest.param(array(np.nan, 1), array(1, 2), "labels of 0 or 1", id="unknown label"),
        pytest.param(array(0, 1), array(np.nan, 2), "finite scores", id="unknown score"),
        pytest.param(array(0, 1), array(np.inf, 2), "finite scores", id="infinite score"),
    ],
)
def test_rows_that_are_not_labels_and_scores_are_refused(labels: Any, scores: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        auroc(labels, scores)
    with pytest.raises(ValueError, match=complaint):
        auroc_interval(labels, scores, np.arange(len(labels)), rng=np.random.default_rng(1))


def copied_rows(*, patients: int = 60, copies: int = 9) -> tuple[Any, Any, Any]:
    """Give rows of which each patient has several, all alike: no more is known than from one row each."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, patients).astype(np.float64)
    scores = labels + rng.normal(size=patients)
    return tuple(np.repeat(each, copies) for each in (labels, scores, np.arange(patients)))


def interval(rows: tuple[Any, Any, Any], *, seed: int = 1, **more: Any) -> Interval:
    labels, scores, patients = rows
    return auroc_interval(labels, scores, patients, rng=np.random.default_rng(seed), **more)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    assert interval(copied_rows(), seed=1) == interval(copied_rows(), seed=1)
    assert interval(copied_rows(), seed=1) != interval(copied_rows(), seed=2)


def test_the_interval_is_around_the_auroc() -> None:
    labels, scores, patients = copied_rows()
    found = interval((labels, scores, patients))
    assert found.value == auroc(labels, scores)
    assert 0 <= found.low < found.value < found.high <= 1
    assert found.resamples == 1000


def test_resampling_patients_is_as_wide_as_copied_rows_deserve() -> None:
    """Nine copies of a row are one row; taken for nine, the interval shrinks by the square root of nine."""
    labels, scores, patients = copied_rows(copies=9)
    by_patient = interval((labels, scores, patients))
    by_row = interval((labels, scores, np.arange(labels.size)))
    ratio = (by_patient.high - by_patient.low) / (by_row.high - by_row.low)
    assert ratio == pytest.approx(9**0.5, rel=0.2)


def test_copies_of_rows_add_no_certainty() -> None:
    one, nine = interval(copied_rows(copies=1)), interval(copied_rows(copies=9))
    assert (nine.value, nine.low, nine.high) == pytest.approx((one.value, one.low, one.high), abs=1e-12)


def test_names_of_patients_do_not_matter() -> None:
    labels, scores, patients = copied_rows()
    assert interval((labels, scores, patients * -1000 + 3), seed=3).value == interval((labels, scores, patients)).value
    assert interval((labels, scores, patients + 10**15)) == interval((labels, scores, patients))


class Scripted:
    """A generator that draws the patients it is told to, as often as it is told to."""

    def __init__(self, *times: tuple[int, ...]) -> None:
        self._drawn = [np.repeat(np.arange(len(each)), each) for each in times]

    def integers(self, low: int, high: int, size: tuple[int, int]) -> Any:
        samples, patients = size
        assert (low, high) == (0, patients)
        return np.array([self._drawn[i % len(self._drawn)] for i in range(samples)])


ROWS = (array(1, 0, 1, 0, 1, 0), array(0.9, 0.8, 0.5, 0.5, 0.1, 0.3), np.array([1, 1, 2, 2, 3, 3]))


def test_a_resample_counts_each_patients_rows_as_often_as_the_patient_was_drawn() -> None:
    labels, scores, patients = ROWS
    found = auroc_interval(labels, scores, patients, rng=Scripted((2, 1, 0)), resamples=10)  # type: ignore[arg-type]
    times = [2, 2, 1, 1, 0, 0]
    expected = roc_auc_score(np.repeat(labels, times), np.repeat(scores, times))
    # Positives 0.9, 0.9, 0.5 against negatives 0.8, 0.8, 0.5: won 3 + 3 + 0, and one tie.
    assert expected == pytest.approx(6.5 / 9)
    assert (found.low, found.high) == pytest.approx((expected, expected))
    assert found.value == auroc(labels, scores)


def test_the_bounds_are_the_percentiles_of_the_resamples() -> None:
    labels, scores, patients = ROWS
    draws = Scripted((3, 0, 0), (0, 0, 3))  # AUROC 1 and 0, in turn
    found = auroc_interval(labels, scores, patients, rng=draws, resamples=100)  # type: ignore[arg-type]
    assert (found.low, found.high, found.resamples) == (0.0, 1.0, 100)


def test_resamples_of_one_class_are_left_out_and_not_counted() -> None:
    labels, scores, patients = array(1, 0, 1, 0), array(0.9, 0.8, 0.1, 0.3), np.array([1, 2, 3, 4])
    draws = Scripted((1, 1, 1, 1), (2, 0, 2, 0), (1, 1, 1, 1), (1, 1, 1, 1))
    found = auroc_interval(labels, scores, patients, rng=draws, resamples=100)  # type: ignore[arg-type]
    assert found.resamples == 75
    assert (found.low, found.high) == (found.value, found.value)


def test_hardly_any_measurable_resample_is_no_interval() -> None:
    draws = Scripted((2, 0), (0, 2), (1, 1))
    with pytest.raises(NotMeasurable, match="at least half of the resamples"):
        auroc_interval(array(0, 1), array(1, 2), np.array([1, 2]), rng=draws, resamples=99)  # type: ignore[arg-type]


def test_one_patient_has_no_interval() -> None:
    with pytest.raises(NotMeasurable, match="at least two patients"):
        interval((array(0, 1), array(1, 2), np.array([5, 5])))


@pytest.mark.parametrize("resamples", [99, 100, 101, 250])
def test_exactly_as_many_resamples_are_drawn_as_asked_for(resamples: int) -> None:
    assert interval(copied_rows(), resamples=resamples).resamples == resamples


@pytest.mark.parametrize("n", [2, 6])
def test_as_many_patients_as_rows_are_expected(n: int) -> None:
    with pytest.raises(ValueError, match="shape"):
        interval((array(0, 1, 0, 1), array(1, 2, 3, 4), np.arange(n)))


@pytest.mark.parametrize("resamples", [0, -1])
def test_no_resamples_are_refused(resamples: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 resample, got {resamples}"):
        interval(copied_rows(), resamples=resamples)


def test_patients_that_are_no_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="patients as integers"):
        interval((array(0, 1), array(1, 2), array(1.5, 2.5)))


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        pytest.param((0, 0, 1, 1), (0.1, 0.2, 0.3, 0.4), 1, id="perfect"),
        pytest.param((1, 1, 0, 0), (0.1, 0.2, 0.3, 0.4), (1 / 3 + 2 / 4) / 2, id="upside down"),
        pytest.param((0, 1, 0, 1, 1), (7.0, 7.0, 7.0, 7.0, 7.0), 3 / 5, id="all tied is the prevalence"),
        pytest.param((0, 1, 1, 0), (0.9, 0.5, 0.5, 0.5), 2 / 4, id="a tie is alerted on as a whole"),
    ],
)
def test_average_precision_is_the_mean_precision_at_each_positive_row(
    labels: tuple[int, ...], scores: tuple[float, ...], expected: float
) -> None:
    assert average_precision(array(*labels), array(*scores)) == pytest.approx(expected, abs=1e-15)


weighted_rows = st.lists(
    st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 4)), min_size=2, max_size=60
).filter(lambda rows: len({label for label, _, weight in rows if weight}) == 2)


@given(weighted_rows)
def test_every_figure_agrees_with_sklearn_with_ties_and_weights(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, weights = np.array(rows, dtype=np.float64).T
    scores /= 10
    for ours, theirs in (
        (auroc, roc_auc_score),
        (average_precision, average_precision_score),
        (brier_score, brier_score_loss),
        (log_loss, sklearn_log_loss),
    ):
        expected = theirs(labels, scores, sample_weight=weights)
        assert ours(labels, scores, weights=weights) == pytest.approx(expected, abs=1e-12)


@given(weighted_rows)
def test_a_weight_of_two_is_the_row_twice(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, weights = np.array(rows, dtype=np.float64).T
    times = weights.astype(int)
    for figure in (auroc, average_precision):
        assert figure(labels, scores, weights=weights) == pytest.approx(
            figure(np.repeat(labels, times), np.repeat(scores, times)), abs=1e-12
        )


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        pytest.param(array(1.0), "one weight per row", id="too few"),
        pytest.param(array(1.0, -1.0), "none below 0", id="negative"),
        pytest.param(array(1.0, np.nan), "finite weights", id="unknown"),
        pytest.param(array(0.0, 0.0), "at least one above", id="none"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        auroc(array(0, 1), array(0.1, 0.2), weights=weights)


def test_brier_score_and_log_loss_by_hand() -> None:
    labels, scores = array(1, 0, 0), array(0.8, 0.5, 0.25)
    assert brier_score(labels, scores) == pytest.approx((0.2**2 + 0.5**2 + 0.25**2) / 3)
    assert log_loss(labels, scores) == pytest.approx(-(np.log(0.8) + np.log(0.5) + np.log(0.75)) / 3)


def test_log_loss_is_zero_where_certainty_was_right_and_not_measurable_where_it_was_wrong() -> None:
    assert log_loss(array(0, 1), array(0, 1)) == 0
    with pytest.raises(NotMeasurable, match="1 rows scored exactly 0 or 1 turned out otherwise"):
        log_loss(array(0, 1, 1), array(0, 1, 0))


@pytest.mark.parametrize("figure", [brier_score, log_loss], ids=lambda each: each.__name__)
def test_scores_that_are_no_probabilities_are_ranked_but_not_held_against_outcomes(figure: Any) -> None:
    labels, scores = array(0, 1), array(-1, 3)
    assert auroc(labels, scores) == 1
    with pytest.raises(ValueError, match="scores from 0 to 1"):
        figure(labels, scores)
    with pytest.raises(NotMeasurable, match="at least one row"):
        figure(array(), array())


# Two alerts, one of them right, at 0.5: 1 of 2 positives is found, 2 of 3 negatives are left in peace.
AT_HALF = (array(1, 0, 1, 0, 0), array(0.9, 0.5, 0.4, 0.2, 0.1), np.arange(5))


def test_figures_at_a_threshold_by_hand_and_a_score_equal_to_it_alerts() -> None:
    labels, scores, patients = AT_HALF
    found = measure([threshold_figures(labels, scores, [0.5])], patients, rng=np.random.default_rng(1))
    values = {name: figure.value for name, figure in found.items() if isinstance(figure, Interval)}
    assert values == pytest.approx(
        {"sensitivity@0": 1 / 2, "specificity@0": 2 / 3, "ppv@0": 1 / 2, "npv@0": 2 / 3, "alert_rate@0": 2 / 5}
    )


def test_a_figure_over_nothing_says_what_is_lacking() -> None:
    labels, scores, patients = AT_HALF
    found = measure([threshold_figures(labels, scores, [2.0])], patients, rng=np.random.default_rng(1))
    assert found["ppv@0"] == NotMeasured(why="expected a row with an alert")
    found = measure(
        [threshold_figures(array(0, 0), array(0.1, 0.2), [0.1])], np.arange(2), rng=np.random.default_rng(1)
    )
    assert found["sensitivity@0"] == NotMeasured(why="expected a row with the outcome")


def test_a_share_of_all_is_bounded_by_the_number_of_patients_and_not_by_resampling() -> None:
    """With 20 of 20 independent successes the exact lower bound is 0.025 to the power of 1/20."""
    labels, scores = np.ones(40), np.full(40, 0.9)
    found = measure(
        [threshold_figures(labels, scores, [0.5, 0.95])], np.repeat(np.arange(20), 2), rng=np.random.default_rng(1)
    )
    assert found["sensitivity@0"] == Interval(value=1.0, low=pytest.approx(0.025 ** (1 / 20)), high=1.0, resamples=0)
    assert found["sensitivity@1"] == Interval(
        value=0.0, low=0.0, high=pytest.approx(1 - 0.025 ** (1 / 20)), resamples=0
    )


def test_a_share_of_one_patients_rows_has_no_interval() -> None:
    labels, scores, patients = array(1, 1, 0, 0), array(0.9, 0.2, 0.8, 0.1), np.array([1, 1, 2, 3])
    found = measure([threshold_figures(labels, scores, [0.5])], patients, rng=np.random.default_rng(1))
    assert found["sensitivity@0"] == NotMeasured(why="expected rows of at least two patients for an interval")
    assert isinstance(found["alert_rate@0"], Interval)


def test_means_over_all_rows_by_hand() -> None:
    labels, scores = array(1, 0, 0, 0), array(0.5, 0.5, 0.2, 0.4)
    found = measure(overall(labels, scores), np.arange(4), rng=np.random.default_rng(1))
    values = {name: figure.value for name, figure in found.items() if isinstance(figure, Interval)}
    assert values["prevalence"] == 1 / 4
    assert values["mean_score"] == pytest.approx(1.6 / 4)
    assert values["calibration_in_the_large"] == pytest.approx(1 / 4 - 1.6 / 4)
    assert values["brier_score"] == pytest.approx(brier_score(labels, scores))
    assert values["auroc"] == pytest.approx(auroc(labels, scores))


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    """A mean of n independent values has a 95 % interval of 1.96 standard errors either way."""
    rng = np.random.default_rng(8)
    labels, scores = (rng.random(2000) < 0.3).astype(float), np.full(2000, 0.5)
    found = measure(overall(labels, scores), np.arange(2000), rng=rng, resamples=4000)["prevalence"]
    assert isinstance(found, Interval)
    error = (0.3 * 0.7 / 2000) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_the_interval_of_clustered_rows_covers_the_truth_about_as_often_as_it_says() -> None:
    """300 studies of 60 patients with 10 scores each, whose scores share the patient; the true AUROC is known.

    Positive patients' scores are normal around 1, negative ones' around 0, each with a variance of 1 between patients
    and 1 within: the AUROC is the normal distribution's share below 1 / sqrt(2 * 2) = 0.5, which is 0.6915.
    """
    rng, inside = np.random.default_rng(9), 0
    patients = np.repeat(np.arange(60), 10)
    for _ in range(300):
        sick = rng.permutation(np.r_[np.ones(30), np.zeros(30)])
        scores = (sick + rng.normal(size=60))[patients] + rng.normal(size=600)
        found = auroc_interval(sick[patients], scores, patients, rng=rng, resamples=200)
        inside += found.low <= 0.6915 <= found.high
    assert 0.90 <= inside / 300 <= 0.99


def test_weights_of_the_rows_count_in_the_figure_and_in_its_resamples() -> None:
    labels, scores = array(1, 0, 1, 0), array(0.9, 0.2, 0.3, 0.5)
    weights, patients = array(2, 1, 1, 1), np.arange(4)
    weighted = measure(overall(labels, scores), patients, rng=np.random.default_rng(1), weights=weights)["prevalence"]
    assert isinstance(weighted, Interval)
    assert weighted.value == 3 / 5


def test_two_statistics_with_a_figure_of_one_name_are_refused() -> None:
    figures = threshold_figures(array(0, 1), array(0.1, 0.9), [0.5])
    with pytest.raises(ValueError, match="name once"):
        measure([figures, figures], np.arange(2), rng=np.random.default_rng(1))


@pytest.mark.parametrize(
    ("rate", "threshold"), [(0.1, 0.9), (0.2, 0.8), (0.3, 0.8), (0.5, 0.7), (0.99, 0.7), (1.0, 0.1)], ids=str
)
def test_the_threshold_of_an_alert_rate_is_the_lowest_that_does_not_exceed_it(rate: float, threshold: float) -> None:
    scores = array(0.9, 0.8, 0.7, 0.7, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert threshold_at_alert_rate(scores, rate) == threshold
    assert (scores >= threshold).mean() <= rate + 1e-12


def test_ties_at_the_top_may_leave_no_threshold_for_an_alert_rate() -> None:
    with pytest.raises(NotMeasurable, match=r"at most 0.1 .* shared by 0.75 of them"):
        threshold_at_alert_rate(array(0.9, 0.9, 0.9, 0.1), 0.1)


@pytest.mark.parametrize(("sensitivity", "threshold"), [(0.2, 0.9), (0.25, 0.9), (0.5, 0.6), (0.75, 0.6), (1.0, 0.3)])
def test_the_threshold_of_a_sensitivity_is_the_highest_that_reaches_it(sensitivity: float, threshold: float) -> None:
    labels, scores = array(1, 0, 1, 1, 0, 1), array(0.9, 0.8, 0.6, 0.6, 0.4, 0.3)
    assert threshold_at_sensitivity(labels, scores, sensitivity) == threshold


def test_thresholds_of_shares_that_cannot_be_are_refused() -> None:
    for share in (0.0, 1.1, np.nan):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            threshold_at_alert_rate(array(0.1), share)
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            threshold_at_sensitivity(array(1), array(0.1), share)
    with pytest.raises(NotMeasurable, match="a row with the outcome"):
        threshold_at_sensitivity(array(0), array(0.1), 0.5)


@pytest.mark.parametrize("at_once", [1, 17, 1000])
def test_how_many_resamples_are_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    rows = copied_rows()
    whole = interval(rows)
    monkeypatch.setattr("deployr_core.bootstrap._CHUNK", at_once * rows[0].size)
    assert interval(rows) == whole
