"""Who lies in a unit: each patient once, by ids, and no name."""

from __future__ import annotations

import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic_census import BeddedPatient, EpicCensus
from deployr_serve.adapters.epic_client import VendorClient
from deployr_serve.core.errors import EmrBadResponse, EmrUnreachable

BASE = "https://emr.example/Interconnect"


def bedded(fhir_id="p1", csn="42", *, ids=None, contacts=None):
    return {
        "FirstName": "Ada",
        "LastName": "Canary",
        "DateOfBirth": "1950-03-04",
        "PatientIDs": [{"ID": fhir_id, "Type": "FHIR"}] if ids is None else ids,
        "ContactIDs": [{"ID": csn, "Type": "CSN"}] if contacts is None else contacts,
    }


@pytest.fixture
def census_of(clock, transport_of):
    """Give a function that makes the census of a vendor who answers so."""

    def make(answer):
        transport = transport_of(answer)
        client = VendorClient(base=BASE, transport=transport, credentials=NoCredentials(), clock=clock)
        return EpicCensus(client, user={"UserID": "bridge", "UserIDType": "External"}), transport

    return make


async def test_each_patient_of_a_unit_is_given_by_ids_and_contact(census_of):
    census, transport = census_of({"BeddedPatients": [bedded(), bedded("p2", "43")]})
    found = await census.unit("7", budget=None)
    assert found.patients == (BeddedPatient(ids={"FHIR": "p1"}, csn="42"), BeddedPatient(ids={"FHIR": "p2"}, csn="43"))
    assert (found.dropped, found.record.resources, found.record.via) == ({}, 2, "epic")
    assert transport.requests[0].url.endswith("GETCENSUSBYUNIT/UnitCensus?UnitID=7")


async def test_no_name_or_id_shows(census_of):
    census, _ = census_of({"BeddedPatients": [bedded()]})
    found = await census.unit("7", budget=None)
    shown = repr(found) + repr(found.patients[0])
    assert not any(canary in shown for canary in ("Ada", "Canary", "p1", "42", "1950"))


async def test_an_empty_unit_is_an_answer(census_of):
    census, _ = census_of({"BeddedPatients": []})
    assert (await census.unit("7", budget=None)).patients == ()


async def test_a_patient_listed_twice_is_given_once(census_of):
    census, _ = census_of({"BeddedPatients": [bedded(), bedded()]})
    found = await census.unit("7", budget=None)
    assert (len(found.patients), found.dropped) == (1, {"census.repeated": 1})


@pytest.mark.parametrize(
    "nobody",
    [
        bedded(ids=[]),
        bedded(ids=[{"ID": " ", "Type": "FHIR"}]),
        bedded(ids=[{"ID": "p1", "Type": "FHIR"}, {"ID": "p2", "Type": "FHIR"}]),
        bedded(contacts=[]),
        bedded(contacts=[{"ID": "1", "Type": "DAT"}]),
        bedded(contacts=[{"ID": "42", "Type": "CSN"}, {"ID": "43", "Type": "CSN"}]),
    ],
)
async def test_a_patient_without_usable_ids_is_left_out_and_counted(census_of, nobody):
    census, _ = census_of({"BeddedPatients": [nobody, bedded("p3", "44")]})
    found = await census.unit("7", budget=None)
    assert [patient.csn for patient in found.patients] == ["44"]
    assert found.dropped == {"census.no_usable_ids": 1}


async def test_an_id_that_two_patients_have_makes_both_of_them_nobody(census_of):
    census, _ = census_of({"BeddedPatients": [bedded("p1", "42"), bedded("p2", "42"), bedded("p3", "44")]})
    found = await census.unit("7", budget=None)
    assert [patient.csn for patient in found.patients] == ["44"]
    assert found.dropped == {"census.conflicting_ids": 2}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"BeddedPatients": None},
        {"BeddedPatients": [{"FirstName": "Ada"}]},
        {"BeddedPatients": [], "Status": 0},
        {"ErrorMessage": "No", "BeddedPatients": []},
    ],
)
async def test_a_failed_census_is_never_an_empty_unit(census_of, answer):
    census, _ = census_of(answer)
    with pytest.raises(EmrBadResponse) as raised:
        await census.unit("7", budget=None)
    assert raised.value.fetches[0].name == "census"


async def test_a_census_that_is_not_answered_is_a_failure(census_of, status_of):
    census, _ = census_of(status_of(503))
    with pytest.raises(EmrUnreachable):
        await census.unit("7", budget=None)


async def test_a_patients_unit_is_read_and_nowhere_is_an_answer(census_of):
    for unit in ("7", None):
        census, transport = census_of({"UnitID": unit, "RoomAndBedName": "Bed 1"})
        found = await census.location({"PatientID": "E1", "PatientIDType": "EPI"}, budget=None)
        assert found.unit_id == unit
        assert b'"UserID":"bridge"' in transport.requests[0].body
    census, _ = census_of({})
    with pytest.raises(EmrBadResponse):
        await census.location({}, budget=None)
