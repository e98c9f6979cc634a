"""The vendor's reading services of the mock EMR, in every variant that the wire formats document lists."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mock_emr.vendor_site import VendorSite

COMMON = "/api/epic/2010/Common/Patient"
IDENTIFIERS = f"{COMMON}/GETPATIENTIDENTIFIERS/Patient/Identifiers"
DEMOGRAPHICS_2010 = f"{COMMON}/GETPATIENTDEMOGRAPHICS/Patient/Demographics"
DEMOGRAPHICS_2019 = "/api/epic/2019/PatientAccess/Patient/GetPatientDemographics/Patient/Demographics"
RESULTS = "/api/epic/2014/Results/Utility/GETPATIENTRESULTCOMPONENTS/ResultComponents"
RESULTS_URN = "/urn:Epic-com:Results.2014.Services.Utility.GetPatientResultComponents"
FLOWSHEET_ROWS = "/api/epic/2014/Clinical/Patient/GETFLOWSHEETROWS/FlowsheetRows"
CENSUS = "/api/epic/2012/Access/Patient/GETCENSUSBYUNIT/UnitCensus"
LOCATION = "/api/epic/2012/Access/Patient/GETPATIENTLOCATION/Location"
USER = {"UserID": "bridge", "UserIDType": "External"}
LOINC = "http://loinc.org"


async def identifiers(emr: Any, patient_id: str = "p1", kind: str = "FHIR") -> dict[str, str]:
    reply = await emr.get(IDENTIFIERS, params={"PatientID": patient_id, "PatientIDType": kind})
    assert reply.status == 200, reply.body
    return {one["IDType"]: one["ID"] for one in reply.json()["Identifiers"]}


def asking(patient_id: str = "p1", kind: str = "FHIR", **changes: Any) -> dict[str, Any]:
    return {
        "PatientID": patient_id,
        "PatientIDType": kind,
        **USER,
        "NumberDaysToLookBack": 2,
        "MaxNumberOfResults": 200,
        "FromInstant": "",
        "ComponentTypes": [{"Value": "CR", "Type": "base-name"}],
        **changes,
    }


async def results(emr: Any, path: str = RESULTS, **changes: Any) -> Any:
    reply = await emr.call("POST", path, json=asking(**changes))
    assert reply.status == 200, reply.body
    return reply.json()["ResultComponents"]


def says(reply: Any, code: str) -> bool:
    return reply.status == 400 and code in reply.json()["ExceptionMessage"]


# -- who


async def test_every_identifier_of_a_patient_is_told_and_leads_back_to_all_of_them(emr: Any) -> None:
    told = await identifiers(emr)
    assert list(told) == ["FHIR", "FHIR STU3", "EPI", "INTERNAL", "EXTERNAL", "MRN", "SHCMRN", "MYCHARTLOGIN"]
    assert told["FHIR"] == "p1"
    for kind, value in told.items():
        assert await identifiers(emr, value, kind) == told
    assert set(told.values()).isdisjoint((await identifiers(emr, "p2")).values())


async def test_a_contact_leads_to_its_patient_and_is_told_beside_the_others(emr: Any) -> None:
    assert await identifiers(emr, "42", "CSN") == {**await identifiers(emr), "CSN": "42"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"PatientID": "nobody", "PatientIDType": "FHIR"}, "EPT_ID_RETRIEVAL_ERROR"),
        ({"PatientID": "4711", "PatientIDType": "CSN"}, "EPT_ID_RETRIEVAL_ERROR"),
        ({"PatientID": "p1", "PatientIDType": "SSN"}, "INVALID-ID-TYPE"),
        ({"PatientID": "p1"}, "INVALID-PARAMETER"),
        ({"PatientIDType": "FHIR"}, "INVALID-PARAMETER"),
    ],
)
async def test_identifiers_that_are_nobodys_are_refused(emr: Any, query: dict[str, str], code: str) -> None:
    assert says(await emr.get(IDENTIFIERS, params=query), code)


async def test_both_shapes_of_demographics_are_told(running_over: Any) -> None:
    race = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
    ethnicity = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"
    patient = {
        "resourceType": "Patient",
        "id": "p1",
        "birthDate": "1950-03-04",
        "gender": "female",
        "extension": [
            {"url": race, "extension": [{"url": "ombCategory", "valueCoding": {"code": code}} for code in codes]}
            for codes in (("2106-3", "2028-9"),)
        ]
        + [{"url": ethnicity, "extension": [{"url": "ombCategory", "valueCoding": {"code": "2186-5"}}]}],
    }
    async with running_over(patient) as emr:
        query = {"PatientID": "p1", "PatientIDType": "FHIR"}
        assert (await emr.get(DEMOGRAPHICS_2010, params=query)).json() == {
            "DateOfBirth": "3/4/1950",
            "Gender": "Female",
            "Race": "White^Asian",
        }
        newer = (await emr.get(DEMOGRAPHICS_2019, params=query)).json()
        assert newer["DateOfBirth"] == "1950-03-04"
        assert (newer["LegalSex"], newer["Race"]) == ({"Title": "Female"}, [{"Title": "White"}, {"Title": "Asian"}])
        assert newer["Ethnicity"] == {"Title": "Not Hispanic or Latino"}


async def test_two_patients_with_one_number_are_refused_and_neither_is_taken(running_over: Any) -> None:
    number = {"type": {"coding": [{"code": "MR"}]}, "value": "M1"}
    twins = [{"resourceType": "Patient", "id": one, "identifier": [number]} for one in ("p1", "p2")]
    async with running_over(*twins) as emr:
        reply = await emr.get(IDENTIFIERS, params={"PatientID": "M1", "PatientIDType": "MRN"})
        assert says(reply, "MULTIPLE-PATIENTS-FOUND")


# -- results


@pytest.mark.parametrize("path", [RESULTS, RESULTS_URN])
@pytest.mark.parametrize("kind", ["FHIR", "FHIR STU3", "EPI"])
async def test_results_are_told_newest_first_by_any_identifier_and_either_path(emr: Any, path: str, kind: str) -> None:
    patient_id = (await identifiers(emr))[kind]
    rows = await results(emr, path, patient_id=patient_id, kind=kind)
    # Seven at 11:00 to 11:06; without a release time they count from the specimen's.
    assert [row["ResultTime"] for row in rows] == [f"11:0{minute} AM" for minute in (6, 5, 4, 3, 2, 1, 0)]
    assert rows[0] == {
        "Value": ["1.5"],
        "Units": "",
        "ResultDate": "01/06/2015",
        "ResultTime": "11:06 AM",
        "Abnormality": None,
        "ComponentID": [{"ID": "CR", "Type": "base-name"}],
    }


async def test_only_what_was_asked_for_is_told_and_null_where_there_is_none(emr: Any) -> None:
    assert await results(emr, ComponentTypes=[{"Value": "HCT", "Type": "base-name"}]) is None
    both = [{"Value": name, "Type": "base-name"} for name in ("HCT", "cr")]
    assert len(await results(emr, ComponentTypes=both)) == 7
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-06T11:02:30Z"})
    assert len(await results(emr)) == 3
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-08T11:02:30Z"})
    assert len(await results(emr, NumberDaysToLookBack="2")) == 4  # from 11:02:30 two days ago on
    assert len(await results(emr, MaxNumberOfResults=2)) == 2
    assert len(await results(emr, FromInstant="2015-01-06T11:03:00Z")) == 4


async def test_a_site_dates_its_results_in_its_zone_and_may_show_instants(running_over: Any) -> None:
    site = VendorSite(zone=ZoneInfo("America/New_York"), shows_instants=True, names_components=False)
    observation = {
        "resourceType": "Observation",
        "id": "l1",
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"coding": [{"system": LOINC, "code": "4544-3"}]},
        "subject": {"reference": "Patient/p1"},
        "issued": "2015-01-06T03:05:42Z",
        "valueQuantity": {"value": 30.25, "unit": "%", "comparator": "<"},
        "interpretation": [{"coding": [{"code": "LL"}]}],
    }
    others = [{**observation, "id": "l2", "status": "preliminary"}, {**observation, "id": "l3", "category": []}]
    async with running_over({"resourceType": "Patient", "id": "p1"}, observation, *others, vendor_site=site) as emr:
        assert await results(emr, ComponentTypes=[{"Value": "HCT", "Type": "base-name"}]) == [
            {
                "Value": ["<30.25"],
                "Units": "%",
                "ResultDate": "01/05/2015",
                "ResultTime": "10:05 PM",
                "Abnormality": {"Title": "Low Panic"},
                "Instant": "2015-01-06T03:05:42Z",
            }
        ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"patient_id": "nobody"}, "EPT_ID_RETRIEVAL_ERROR"),
        ({"kind": "SSN"}, "INVALID-ID-TYPE"),
        ({"UserID": None}, "INVALID-PARAMETER"),
        ({"NumberDaysToLookBack": -1}, "INVALID-PARAMETER"),
        ({"MaxNumberOfResults": "many"}, "INVALID-PARAMETER"),
        ({"FromInstant": "yesterday"}, "INVALID-PARAMETER"),
        ({"ComponentTypes": []}, "INVALID-PARAMETER"),
        ({"ComponentTypes": [{"Value": "1", "Type": "INTERNAL"}]}, "INVALID-PARAMETER"),
    ],
)
async def test_a_request_for_results_that_is_not_what_it_must_be_is_refused(
    emr: Any, changes: dict[str, Any], code: str
) -> None:
    assert says(await emr.call("POST", RESULTS, json=asking(**changes)), code)


async def test_a_body_that_is_no_object_is_refused(emr: Any) -> None:
    for body in (b"", b"[]", b"\xff"):
        assert says(await emr.call("POST", RESULTS, data=body), "INVALID-BODY")


# -- flowsheets, census, location


def vital(number: int, taken: str, *, code: str | None = None, value: Any = None, **elements: Any) -> dict[str, Any]:
    resource = {
        "resourceType": "Observation",
        "id": f"v{number}",
        "status": "final",
        "category": [{"coding": [{"code": "vital-signs"}]}],
        "code": {"coding": [{"system": LOINC, "code": code or "85354-9"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": taken,
        **elements,
    }
    return resource if value is None else {**resource, "valueQuantity": {"value": value, "unit": "/min"}}


def part(code: str, value: float) -> dict[str, Any]:
    return {
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "valueQuantity": {"value": value, "unit": "mm[Hg]"},
    }


STAY = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "in-progress",
    "class": {"code": "IMP"},
    "subject": {"reference": "Patient/p1"},
    "identifier": [{"type": {"text": "CSN"}, "value": "42"}],
    "period": {"start": "2015-01-05T10:00:00Z"},
}
ADA = {
    "resourceType": "Patient",
    "id": "p1",
    "gender": "female",
    "birthDate": "1950-03-04",
    "name": [{"given": ["Ada", "B."], "family": "Canary"}],
}


def flowsheet(**changes: Any) -> dict[str, Any]:
    return {
        "PatientID": "p1",
        "PatientIDType": "FHIR",
        "ContactID": "42",
        "ContactIDType": "CSN",
        "LookbackHours": "24",
        **USER,
        "FlowsheetRowIDs": [{"ID": row, "Type": "EXTERNAL"} for row in ("5", "8")],
        **changes,
    }


async def test_flowsheet_rows_of_a_contact_are_told_with_their_values(running_over: Any) -> None:
    async with running_over(
        ADA,
        STAY,
        vital(1, "2015-01-06T10:00:00Z", component=[part("8480-6", 120), part("8462-4", 80.5)]),
        vital(2, "2015-01-06T11:00:00Z", code="8867-4", value=72),
        vital(3, "2015-01-04T11:00:00Z", code="8867-4", value=73),
        vital(4, "2015-01-06T11:30:00Z", code="8867-4", value=74, encounter={"reference": "Encounter/other"}),
    ) as emr:
        reply = await emr.call("POST", FLOWSHEET_ROWS, json=flowsheet())
        pressures, pulses = reply.json()["FlowsheetRows"]
        assert pressures["FlowsheetRowID"] == [{"ID": "5", "Type": "EXTERNAL"}]
        assert (pressures["Unit"], pulses["Unit"]) == ("mm[Hg]", "/min")
        assert [(one["Instant"], one["RawValue"]) for one in pressures["FlowsheetColumns"]] == [
            ("2015-01-06T10:00:00Z", "120/80.5")
        ]
        assert [(one["Instant"], one["RawValue"]) for one in pulses["FlowsheetColumns"]] == [
            ("2015-01-06T11:00:00Z", "72")
        ]
        for changes, code in (
            ({"ContactID": "43"}, "CONTACT_IS_INVALID"),
            ({"ContactIDType": "DAT"}, "INVALID-ID-TYPE"),
            ({"LookbackHours": 73}, "LookbackHours"),
            ({"FlowsheetRowIDs": [{"ID": "1", "Type": "EXTERNAL"}]}, "FLOWSHEET-ROW-NOT-FOUND"),
        ):
            assert says(await emr.call("POST", FLOWSHEET_ROWS, json=flowsheet(**changes)), code)


async def test_a_unit_lists_those_who_lie_in_it_and_each_knows_where(running_over: Any) -> None:
    elsewhere = {
        **STAY,
        "id": "e2",
        "subject": {"reference": "Patient/p2"},
        "identifier": [{"type": {"text": "CSN"}, "value": "43"}],
        "location": [{"location": {"reference": "Location/7"}}],
    }
    gone = {
        **STAY,
        "id": "e3",
        "identifier": [],
        "period": {"start": "2015-01-01", "end": "2015-01-02"},
        "status": "finished",
    }
    async with running_over(ADA, {"resourceType": "Patient", "id": "p2"}, STAY, elsewhere, gone) as emr:
        [patient] = (await emr.get(CENSUS, params={"UnitID": "1"})).json()["BeddedPatients"]
        assert (patient["FirstName"], patient["MiddleName"], patient["LastName"]) == ("Ada", "B.", "Canary")
        assert (patient["Sex"], patient["DateOfBirth"]) == ("Female", "1950-03-04")
        assert {one["Type"]: one["ID"] for one in patient["PatientIDs"]} == await identifiers(emr)
        assert patient["ContactIDs"] == [{"ID": "42", "Type": "CSN"}]
        assert (await emr.get(CENSUS, params={"UnitID": "9"})).json() == {"BeddedPatients": []}
        body = {"PatientID": "p2", "PatientIDType": "FHIR", **USER}
        assert (await emr.call("POST", LOCATION, json=body)).json()["UnitID"] == "7"
        await emr.call("PUT", "/admin/clock", json={"now": "2015-01-04T00:00:00Z"})
        assert (await emr.call("POST", LOCATION, json=body)).json()["UnitID"] is None


# -- behind the same gate as everything else


async def test_reads_ask_for_a_token(closed_emr: Any) -> None:
    assert (await closed_emr.get(IDENTIFIERS, params={"PatientID": "p1", "PatientIDType": "FHIR"})).status == 401
    assert (await closed_emr.call("POST", RESULTS, json=asking())).status == 401
    token = (await closed_emr.token()).json()["access_token"]
    reply = await closed_emr.call("POST", RESULTS, json=asking(), headers={"Authorization": f"Bearer {token}"})
    assert reply.status == 200


async def test_faults_are_played_by_the_name_of_the_service(emr: Any) -> None:
    query = {"PatientID": "p1", "PatientIDType": "FHIR"}
    rules = [
        {"route": "result-components", "body": "vendor-error", "times": 1},
        {"route": "result-components", "status": 503, "times": 1},
        {"route": "identifiers", "body": "foreign-subject", "times": 1},
        {"route": "demographics", "body": "html", "times": 1},
    ]
    await emr.call("PUT", "/admin/faults", json=rules)
    said = await emr.call("POST", RESULTS, json=asking())
    assert (said.status, said.json()["Status"]) == (200, 0)
    assert said.json()["ErrorMessage"]
    assert (await emr.call("POST", RESULTS, json=asking())).status == 503
    assert (await identifiers(emr))["FHIR"] == "p2"
    assert b"<html>" in (await emr.get(DEMOGRAPHICS_2010, params=query)).body
    assert len(await results(emr)) == 7
    assert (await identifiers(emr))["FHIR"] == "p1"


async def test_the_journal_names_the_service_and_no_value(emr: Any) -> None:
    await identifiers(emr)
    await results(emr)
    first, second = (await emr.get("/admin/journal")).json()["entries"]
    assert (first["route"], first["parameters"]) == (IDENTIFIERS, ["PatientID", "PatientIDType"])
    assert second["route"] == RESULTS
    assert "p1" not in str((first, second)).replace("'", " ").split()
