"""Who is held out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deployr_dev.cohorts.rows import IndexRow
from deployr_dev.splits import SplitKind, held_out, split_rows, time_cutoff

START = datetime(2031, 3, 5, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def a_row(person_id: int, day: float) -> IndexRow:
    return IndexRow(person_id=person_id, unit_id=f"{person_id}-{day}", visit_id=None, index_time=START + day * DAY)


def test_a_patient_keeps_their_side_whoever_else_comes():
    few, many = held_out(range(100), seed=1, share=0.3), held_out(range(1000), seed=1, share=0.3)

    assert few == {person for person in many if person < 100}
    assert 250 < len(many) < 350
    assert held_out(range(1000), seed=2, share=0.3) != many


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float):
    with pytest.raises(ValueError, match="held_out_share"):
        held_out({1, 2}, seed=0, share=share)


@pytest.mark.parametrize(("span_days", "cutoff_day"), [(730, 730 - 365), (729, 729 * 0.7), (1000, 1000 - 365)])
def test_two_years_hold_out_the_last_one_and_less_the_last_share(span_days: int, cutoff_day: float):
    times = [START + day * DAY for day in range(span_days + 1)]

    assert abs(time_cutoff(times, held_out_share=0.3) - (START + cutoff_day * DAY)) <= DAY


def test_by_time_the_cutoff_itself_is_held_out_and_a_patient_may_be_on_both_sides():
    rows = [a_row(1, day) for day in range(10)]

    split = split_rows(rows, kind=SplitKind.TIME, seed=0, held_out_share=0.3)

    assert (split.train, split.test, split.left_out) == ((0, 1, 2, 3, 4, 5, 6), (7, 8, 9), 0)
    assert split.cutoff == START + 7 * DAY


def test_by_patient_time_does_not_matter():
    rows = [a_row(person, day) for person in range(50) for day in range(3)]

    split = split_rows(rows, kind=SplitKind.PATIENT, seed=0)

    out = held_out(range(50), seed=0, share=0.3)
    assert {rows[i].person_id for i in split.test} == out
    assert (split.cutoff, split.left_out) == (None, 0)
    assert len(split.train) + len(split.test) == len(rows)


def test_by_both_no_patient_and_no_instant_is_on_both_sides():
    rows = [a_row(person, person / 3 + day) for person in range(90) for day in range(5)]

    split = split_rows(rows, kind=SplitKind.TIME_AND_PATIENT, seed=0)

    assert split.cutoff is not None
    assert {rows[i].person_id for i in split.train}.isdisjoint({rows[i].person_id for i in split.test})
    assert max(rows[i].index_time for i in split.train) < split.cutoff <= min(rows[i].index_time for i in split.test)
    assert split.left_out == len(rows) - len(split.train) - len(split.test) > 0


def test_by_both_returning_patients_are_held_out_too_with_their_later_rows():
    rows = [a_row(person, day) for person in range(100) for day in (0, 1)]

    split = split_rows(rows, kind=SplitKind.TIME_AND_PATIENT, seed=0, held_out_share=0.5)

    out = held_out(range(100), seed=0, share=0.5)
    assert {rows[i].person_id for i in split.test} == out
    assert {rows[i].person_id for i in split.train} == set(range(100)) - out
