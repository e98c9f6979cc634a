from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from deployr_core.metrics import Interval, NotMeasurable, auroc, auroc_interval


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

    def __init__(self, *draws: tuple[int, ...]) -> None:
        self._draws = draws

    def multinomial(self, n: int, pvals: Any, size: int) -> Any:
        assert n == len(self._draws[0])
        assert pvals == pytest.approx([1 / n] * n)
        return np.array([self._draws[i % len(self._draws)] for i in range(size)])


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
