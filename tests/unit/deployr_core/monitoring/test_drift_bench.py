"""The benchmark of drift alarms measures what it says: how it counts, by hand, and how it puts seasons together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.drift_alarms import AtRest, Found, Operating, false_alarms, tables
from benchmarks.drift_hospital import Orders, season
from benchmarks.drift_knobs import DRIFTS
from deployr_core.monitoring.drift_cells import SparseRows

PATIENTS, ORDERS, WEEKS = 50, 6, 10


@pytest.fixture(scope="module")
def rest() -> Orders:
    """Make patients with six orders each, half a day apart; every patient's feature is their number."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(PATIENTS), ORDERS)
    begins = rng.random(PATIENTS) * (7 * WEEKS - 3)
    at = begins[patients] + 0.5 * np.tile(np.arange(ORDERS), PATIENTS)
    return Orders(
        units=tuple(f"o{place}" for place in range(at.size)),
        patients=patients,
        at=at,
        admitted=begins[patients],
        scores=rng.random(at.size),
        labels=np.zeros(at.size),
        features=SparseRows.of_columns(patients[:, np.newaxis] + 1.0),
        names=("number",),
        present={"labs": np.ones(at.size)},
        people={"sex": np.full(at.size, "female")},
        weeks=WEEKS,
    )


def test_alarms_that_come_back_within_a_week_count_once() -> None:
    raised = np.zeros(60, dtype=np.bool_)
    raised[[3, 4, 10, 11, 19, 40]] = True
    # Days 3 to 11 are one, 19 comes 8 days after, 40 long after.
    assert false_alarms(raised) == 3
    assert false_alarms(raised[:3]) == 0


def test_percentiles_and_what_is_never_found_by_hand() -> None:
    found = Found(knob="k", size="s", ward="small", days=(5, None, 2, 9), by={"scores": 3})
    assert (found.quantile(0.5), found.quantile(0.75), found.quantile(0.9)) == (5, 9, None)
    assert found.never == 0.25


def test_false_alarms_a_year_and_their_interval_by_hand() -> None:
    """Of years with 0, 0, 1 and 3: mean 1, standard deviation the root of 2, so 1 more or less 1.96 / root of 2."""
    rest = AtRest(ward="small", a_day=20.0, alarms=(0, 0, 1, 3))
    assert rest.a_year == 1.0
    assert rest.interval == pytest.approx((0.0, 1.0 + 1.96 * np.sqrt(0.5)))
    assert AtRest(ward="small", a_day=20.0, alarms=(0,) * 30).interval == pytest.approx((0.0, 0.1))
    text = tables(Operating(at_rest=(rest,), found=()))
    assert "| small, 20 a day | 1.00 | 0.00 to 2.39 | 2 of 4 |" in text


def test_a_season_is_of_whole_patients_moved_by_whole_weeks(rest: Orders) -> None:
    rows = season(np.random.default_rng(1), rest, None, a_day=30.0, days=100, onset=0.0)
    assert rows.rows / 100 == pytest.approx(30.0, rel=0.2)
    assert (np.diff(rows.at) >= 0).all()
    number = rows.features.values.astype(int) - 1
    original = {each: set(np.round(rest.at[rest.patients == each] % 7, 6)) for each in range(PATIENTS)}
    at = (rows.at - rows.since.timestamp()) / 86_400.0
    for patient in np.unique(rows.patients)[:40]:
        own = rows.patients == patient
        assert len(set(number[own])) == 1
        assert own.sum() <= ORDERS
        assert set(np.round(at[own] % 7, 6)) <= original[number[own][0]]


def test_an_interface_that_is_switched_changes_orders_from_the_onset_on_and_none_before(rest: Orders) -> None:
    seeds = [np.random.default_rng(2) for _ in range(2)]
    shifted = replace(rest, scores=rest.scores + 10.0)
    plain = season(seeds[0], rest, None, a_day=30.0, days=60, onset=0.0)
    switched = season(seeds[1], rest, shifted, a_day=30.0, days=60, onset=40.0)
    late = plain.at >= plain.since.timestamp() + 40 * 86_400
    assert np.allclose(np.sort(switched.scores - 10.0 * (switched.scores > 5)), np.sort(plain.scores))
    assert (switched.scores > 5).sum() == late.sum()


def test_where_the_shift_changes_what_happens_stays_that_begun_before_go_on_as_they_were(rest: Orders) -> None:
    other = replace(rest, units=tuple(f"x{each}" for each in rest.units), scores=rest.scores + 10.0)
    rows = season(np.random.default_rng(3), rest, other, a_day=30.0, days=60, onset=40.0)
    at = (rows.at - rows.since.timestamp()) / 86_400.0
    # A stay is of two and a half days.
    assert not (rows.scores[at < 40.0] > 5).any()
    assert (rows.scores[at > 42.5] > 5).all()
    assert 0 < (rows.scores[(at > 40.0) & (at < 42.5)] > 5).mean() < 1


def test_each_knob_has_three_sizes() -> None:
    assert {sum(each.knob == knob for each in DRIFTS) for knob in {each.knob for each in DRIFTS}} == {3}
    assert len({each.name for each in DRIFTS}) == len(DRIFTS)
