from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from mock_emr.population.columns import Population
from mock_emr.population.config import PopulationConfig
from mock_emr.population.labs import CBC, PANELS


def test_order_comes_before_draw_and_draw_before_result(hospital: Population) -> None:
    orders = hospital.orders
    done = ~orders.cancelled
    lead = (orders.collected[done] - orders.ordered[done]) / np.timedelta64(1, "m")

    # Minutes to an hour or so: at least the shortest lead less the signing of an order set and the cut of
    # the draw to a whole minute, at most the longest.
    assert lead.min() > 0
    assert lead.max() <= 115
    assert 10 < np.median(lead) < 60


@pytest.mark.parametrize("row", range(len(PANELS)))
def test_laboratory_keeps_its_turnaround(hospital: Population, row: int) -> None:
    orders = hospital.orders
    asked = ~orders.cancelled & (orders.panel_row == row)
    minutes = (orders.resulted[asked] - orders.collected[asked]) / np.timedelta64(1, "m")
    fastest, slowest = hospital.config.marginals.rounds.turnaround_minutes[row]

    assert fastest <= minutes.min()
    assert minutes.max() <= slowest


def test_nothing_of_a_stay_lies_outside_it_or_the_period(hospital: Population) -> None:
    config, stays, orders = hospital.config, hospital.stays, hospital.orders
    done = ~orders.cancelled
    charted = hospital.conditions.stay_row >= 0
    charted_stay = hospital.conditions.stay_row[charted]
    drugs = hospital.medications

    assert (stays.start >= config.start_instant).all()
    assert (stays.start < stays.end).all()
    assert (stays.end <= config.end_instant).all()
    assert (orders.ordered >= stays.start[orders.stay_row]).all()
    assert (orders.ordered < stays.end[orders.stay_row]).all()
    assert (orders.collected[done] < stays.end[orders.stay_row[done]]).all()
    assert (orders.resulted[done] < config.end_instant).all()
    assert (hospital.conditions.recorded[charted] >= stays.start[charted_stay]).all()
    assert (hospital.conditions.recorded[charted] < stays.end[charted_stay]).all()
    assert (drugs.ordered >= stays.start[drugs.stay_row]).all()
    assert (drugs.ordered <= drugs.ended).all()
    assert (drugs.ended <= stays.end[drugs.stay_row]).all()


def test_problems_are_listed_before_the_first_stay_and_after_birth(hospital: Population) -> None:
    listed = hospital.conditions.stay_row < 0
    recorded, person_row = hospital.conditions.recorded[listed], hospital.conditions.person_row[listed]
    first = np.full(len(hospital.persons), hospital.config.end_instant)
    np.minimum.at(first, hospital.stays.person_row, hospital.stays.start)

    assert (recorded < first[person_row]).all()
    assert (recorded > hospital.persons.birth_date[person_row]).all()


def test_stays_of_a_patient_do_not_overlap_and_point_backwards(hospital: Population) -> None:
    stays = hospital.stays
    again = np.flatnonzero(stays.preceding_row >= 0)
    before = stays.preceding_row[again]

    assert len(again) == len(stays) - len(np.unique(stays.person_row))
    assert (stays.person_row[again] == stays.person_row[before]).all()
    assert (stays.end[before] < stays.start[again]).all()
    assert np.bincount(stays.person_row, minlength=len(hospital.persons)).min() >= 1
    assert np.bincount(stays.person_row).max() <= 3


def test_last_week_holds_enough_orders_for_the_demo(hospital: Population) -> None:
    ordered = hospital.orders.ordered[hospital.orders.panel_row == CBC]
    last_week = hospital.config.end_instant - np.timedelta64(7, "D")

    assert 3000 <= len(ordered) <= 4000
    assert 300 <= (ordered >= last_week).sum() <= 500


def test_morning_round_draws_about_half_of_the_blood_counts(hospital: Population) -> None:
    orders = hospital.orders
    drawn = orders.collected[(orders.panel_row == CBC) & ~orders.cancelled]
    local = hospital.config.local(drawn)
    hour = (local - local.astype("datetime64[D]")) / np.timedelta64(1, "h")

    assert 0.4 < ((hour >= 4) & (hour <= 6)).mean() < 0.65
    assert ((hour > 9) & (hour < 20)).mean() > 0.15


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0},
        {"weeks": 0},
        {"seed": -1},
        {"start": datetime(2025, 1, 6, tzinfo=UTC).replace(tzinfo=None)},
        {"start": datetime(2025, 1, 6, microsecond=1, tzinfo=UTC)},
        {"utc_offset": timedelta(seconds=90)},
        {"utc_offset": timedelta(hours=15)},
        {"cancelled_share": 1.0},
    ],
)
def test_configuration_refuses_what_no_population_could_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PopulationConfig(**wrong)


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (timedelta(hours=-5), "-05:00"),
        (timedelta(0), "+00:00"),
        (timedelta(hours=5, minutes=45), "+05:45"),
        (timedelta(hours=-3, minutes=-30), "-03:30"),
    ],
)
def test_offset_is_spelled_as_fhir_does(offset: timedelta, text: str) -> None:
    assert PopulationConfig(utc_offset=offset).offset_text == text
