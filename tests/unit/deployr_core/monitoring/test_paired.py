"""Two models on the same rows: figures by hand, and intervals that know that the rows are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasurable, NotMeasured
from deployr_core.bundle import Estimate
from deployr_core.monitoring.closed_form import delong_difference
from deployr_core.monitoring.paired import PairedRows, compare
from deployr_core.registry.comparison import Better, Comparison, Model, Rows, Verdict, parse_comparison

A, B = (Model(name=name, version="1", bundle_sha256=name * 64) for name in "ab")
LABELS = np.array([1.0, 1.0, 0.0, 0.0])
FIRST = np.array([0.9, 0.4, 0.6, 0.1])
SECOND = np.array([0.9, 0.8, 0.6, 0.1])
FOUR = PairedRows(labels=LABELS, champion=FIRST, challenger=SECOND, patients=np.arange(4))


def compared(rows: PairedRows, **changes: object) -> Comparison:
    given = {"champion": A, "challenger": B, "rows_are": Rows.HELD_OUT, "outcome": "anything", "resamples": 200}
    return compare(rows, rng=np.random.default_rng(0), **{**given, **changes})


def made_up(patients: int, *, rows_each: int = 1, seed: int = 0, better: float = 0.0) -> PairedRows:
    """Give rows of which both models see the same signal, each with noise of its own; a patient's rows are alike."""
    rng = np.random.default_rng(seed)
    whose = np.repeat(np.arange(patients), rows_each)
    of_patient = rng.normal(size=patients)[whose]
    signal = of_patient + 0.3 * rng.normal(size=whose.size)
    labels = (signal + 0.7 * rng.normal(size=whose.size) > 0.0).astype(float)

    def scores(noise: float) -> np.ndarray:
        # What a model adds by itself is alike in the rows of one patient, too.
        seen = signal + noise * rng.normal(size=patients)[whose]
        return 1.0 / (1.0 + np.exp(-1.5 * seen))

    return PairedRows(labels=labels, champion=scores(0.8), challenger=scores(0.8 - better), patients=whose)


def value(shown: Estimate | str) -> float:
    assert isinstance(shown, Estimate)
    return shown.value


def test_each_figure_of_both_and_its_difference_are_those_made_by_hand():
    found = compared(FOUR, threshold=0.5)

    # Of the 4 pairs the champion has 3 in order, the challenger all.
    assert value(found.figure("AUROC").champion) == 3 / 4
    assert value(found.figure("AUROC").challenger) == 1.0
    assert value(found.figure("AUROC").difference) == 1 / 4
    # (.01 + .36 + .36 + .01) / 4 against (.01 + .04 + .36 + .01) / 4.
    assert value(found.figure("Brier score").champion) == pytest.approx(0.185)
    assert value(found.figure("Brier score").difference) == pytest.approx(-0.08)
    # Both classes are half of the rows; the champion says .5 on average, the challenger .6.
    assert value(found.figure("error of calibration in the large").champion) == pytest.approx(0.0)
    assert value(found.figure("error of calibration in the large").difference) == pytest.approx(0.1)
    # At odds of 1: one right alert less one wrong one, against two less one, of 4 rows.
    assert value(found.figure("net benefit at 0.5").champion) == 0.0
    assert value(found.figure("net benefit at 0.5").challenger) == 1 / 4
    assert (found.rows, found.patients, found.positives) == (4, 4, 2)


def test_delongs_difference_is_the_one_made_by_hand():
    # Placements apart: 0 and 1/2 of the positives, 1/2 and 0 of the negatives. Each has a variance of 1/8, over 2 rows.
    found = delong_difference(LABELS, FIRST, SECOND, np.arange(4))

    assert isinstance(found, Interval)
    assert found.value == 1 / 4
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(1 / 8), rel=1e-6)


def test_delong_is_given_only_where_no_patient_has_two_rows():
    twice = np.array([0, 0, 1, 2])

    assert compared(FOUR).delong is not None
    assert compared(replace(FOUR, patients=twice)).delong is None
    assert isinstance(delong_difference(LABELS, FIRST, SECOND, twice), NotMeasured)


def test_delong_and_the_bootstrap_agree_where_rows_are_independent():
    found = compared(made_up(800), resamples=1000)

    drawn, closed = found.figure("AUROC").difference, found.delong
    assert isinstance(drawn, Estimate)
    assert isinstance(closed, Estimate)
    assert drawn.value == pytest.approx(closed.value)
    assert drawn.high - drawn.low == pytest.approx(closed.high - closed.low, rel=0.1)


def test_the_difference_is_told_more_closely_than_either_figure():
    # A challenger that sees what the champion sees, and a little more noise.
    rows = made_up(400)
    rng = np.random.default_rng(1)
    near = np.clip(rows.champion + 0.05 * rng.normal(size=400), 0.0, 1.0)
    found = compared(replace(rows, challenger=near)).figure("AUROC")

    widths = [shown.high - shown.low for shown in (found.champion, found.challenger, found.difference)]
    assert widths[2] < min(widths[:2]) / 2


def test_a_better_challenger_is_found_and_two_alike_are_not_told_apart():
    assert compared(made_up(800, better=0.8)).figure("AUROC").verdict is Verdict.BETTER
    assert compared(made_up(100)).figure("AUROC").verdict is Verdict.NOT_TOLD_APART


def test_for_losses_lower_is_better():
    found = compared(made_up(800, better=0.8))

    assert found.figure("Brier score").better is Better.LOWER
    assert value(found.figure("Brier score").difference) < 0
    assert found.figure("Brier score").verdict is Verdict.BETTER


def test_a_difference_that_never_moves_is_no_certainty():
    same = compared(replace(FOUR, challenger=FIRST))

    assert same.figure("AUROC").difference == "the two are the same in every resample of patients"
    assert same.figure("AUROC").verdict is Verdict.NOT_MEASURED


def test_the_same_rows_and_generator_give_the_same_bytes_and_they_can_be_read_back():
    first, second = compared(made_up(60)), compared(made_up(60))

    assert first.to_json() == second.to_json()
    assert parse_comparison(first.to_json()) == first


def test_groups_are_compared_within_themselves_and_small_ones_are_only_named():
    rows = made_up(300)
    sexes = np.array(["female", "male"])[np.arange(300) % 2]
    sexes[:4] = "other"

    (grouping,) = compared(replace(rows, properties={"sex": sexes})).groupings

    female, male, other = grouping.groups
    assert (female.name, male.name, other.name) == ("female", "male", "other")
    inside = sexes == "female"
    alone = compared(
        PairedRows(
            labels=rows.labels[inside],
            champion=rows.champion[inside],
            challenger=rows.challenger[inside],
            patients=rows.patients[inside],
        )
    )
    assert value(female.auroc.difference) == pytest.approx(value(alone.figure("AUROC").difference))
    assert other.auroc.difference == "under 20 rows"
    assert other.rows is None
    highest, lowest = (pick(value(each.auroc.champion) for each in (female, male)) for pick in (max, min))
    assert value(grouping.gap.champion) == pytest.approx(highest - lowest)


def test_no_rows_and_an_impossible_threshold_are_refused():
    nobody = PairedRows(labels=np.empty(0), champion=np.empty(0), challenger=np.empty(0), patients=np.empty(0, int))

    with pytest.raises(NotMeasurable, match="expected at least one row"):
        compared(nobody)
    with pytest.raises(ValueError, match="expected a threshold above 0"):
        compared(FOUR, threshold=1.0)


@pytest.mark.proof
def test_where_the_two_are_alike_the_interval_holds_no_difference_in_about_19_of_20_studies():
    held, as_if_independent = 0, 0
    for seed in range(300):
        rows = made_up(80, rows_each=4, seed=seed)
        found = compared(rows, resamples=400).figure("AUROC")
        held += found.verdict is Verdict.NOT_TOLD_APART
        naive = compared(replace(rows, patients=np.arange(rows.labels.size)), resamples=400).figure("AUROC")
        as_if_independent += naive.verdict is Verdict.NOT_TOLD_APART

    assert 0.91 <= held / 300 <= 0.98
    # Rows of one patient drawn one by one promise too much.
    assert as_if_independent <= held - 9
