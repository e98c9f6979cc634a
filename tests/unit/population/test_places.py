"""Wards and deaths follow from the illness, and every stay is somewhere all the time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mock_emr.population.columns import Population
from mock_emr.population.wards import WARDS

Rows = Mapping[str, list[dict[str, Any]]]


def test_moves_of_a_stay_abut_and_fill_it(hospital: Population) -> None:
    stays, moves = hospital.stays, hospital.moves
    first = np.r_[True, moves.stay_row[1:] != moves.stay_row[:-1]]
    last = np.r_[first[1:], True]

    assert set(moves.stay_row.tolist()) == set(range(len(stays)))
    assert (moves.start < moves.end).all()
    assert (moves.start[first] == stays.start[moves.stay_row[first]]).all()
    assert (moves.end[last] == stays.end[moves.stay_row[last]]).all()
    assert (moves.start[~first] == moves.end[~last]).all()


def test_every_ward_has_patients_and_intensive_care_comes_first(hospital: Population) -> None:
    moves = hospital.moves
    intensive = WARDS[0].code == "ICU"

    assert intensive
    assert set(moves.ward_row.tolist()) == set(range(len(WARDS)))
    entered = moves.start == hospital.stays.start[moves.stay_row]
    assert entered[moves.ward_row == 0].all()


def test_nobody_comes_back_from_death(hospital: Population) -> None:
    stays = hospital.stays
    dead = np.flatnonzero(stays.died)

    assert len(dead) > 0
    assert not np.isin(dead, stays.preceding_row).any()
    assert (stays.end[dead] < hospital.config.end_instant).all()


def test_the_dying_were_the_more_ill(hospital: Population) -> None:
    stays = hospital.stays
    severity = hospital.persons.illness[stays.person_row].mean(axis=1)

    assert severity[stays.died].mean() > severity[~stays.died].mean()


def test_both_tellings_name_the_same_wards_and_deaths(omop: Rows, fhir: Rows) -> None:
    wards = {row["care_site_id"]: row["care_site_source_value"] for row in omop["care_site"]}
    told = {
        (one["id"].removeprefix("syn-e-"), place["location"]["identifier"]["value"])
        for one in fhir["Encounter"]
        for place in one["location"]
    }
    died = {one["id"].removeprefix("syn-p-") for one in fhir["Patient"] if "deceasedDateTime" in one}
    ended = {row["visit_occurrence_id"]: row["discharged_to_source_value"] for row in omop["visit_occurrence"]}

    assert told == {(str(row["visit_occurrence_id"]), wards[row["care_site_id"]]) for row in omop["visit_detail"]}
    assert died == {str(row["person_id"]) for row in omop["death"]}
    for one in fhir["Encounter"]:
        coding = one.get("hospitalization", {}).get("dischargeDisposition", {}).get("coding", [{}])
        assert coding[0].get("code") == ended[int(one["id"].removeprefix("syn-e-"))]
