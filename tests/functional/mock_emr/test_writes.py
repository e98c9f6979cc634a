"""What can be written to the mock EMR beside scores, in every variant, and how to look at it."""

from __future__ import annotations

from typing import Any

import pytest

ADA = {"resourceType": "Patient", "id": "ada", "gender": "female", "birthDate": "1950-01-01"}
STAY = {
    "resourceType": "Encounter",
    "id": "stay",
    "status": "in-progress",
    "subject": {"reference": "Patient/ada"},
    "identifier": [{"type": {"text": "CSN"}, "value": "42"}],
    "period": {"start": "2015-01-06T08:00:00Z"},
}
FLOWSHEET = "/api/epic/2011/Clinical/Patient/ADDFLOWSHEETVALUE/FlowsheetValue"
SMART_DATA = "/api/epic/2013/Clinical/Utility/{}SMARTDATAVALUES/SmartData/Values"
MESSAGE = "/api/epic/2014/Common/Utility/SENDMESSAGE/Message"
FHIR = {"Content-Type": "application/fhir+json"}


def flowsheet(**changes: str) -> dict[str, str]:
    return {
        "Comment": "",
        "ContactID": "42",
        "ContactIDType": "CSN",
        "FlowsheetID": "90001",
        "FlowsheetIDType": "EXTERNAL",
        "InstantValueTaken": "2015-01-06T11:00:00Z",
        "PatientID": "ada",
        "PatientIDType": "FHIR",
        "UserID": "1",
        "UserIDType": "External",
        "Value": "75",
        **changes,
    }


@pytest.fixture
async def emr(running_over: Any) -> Any:
    async with running_over(ADA, STAY) as caller:
        yield caller


async def writes(emr: Any) -> Any:
    return (await emr.get("/admin/writes")).json()


@pytest.mark.parametrize("path", [FLOWSHEET, FLOWSHEET.upper().replace("/API/", "/api/"), FLOWSHEET.lower()])
async def test_a_flowsheet_value_is_filed_whatever_the_case_of_the_path(emr: Any, path: str) -> None:
    reply = await emr.call("POST", path, params=flowsheet(), json={})
    assert (reply.status, reply.json()) == (200, {"Success": True, "Errors": []})
    [value] = (await writes(emr))["flowsheet"]
    assert (value["patient_id"], value["csn"], value["row_id"], value["value"]) == ("ada", "42", "90001", "75")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PatientID": "9999999999"}, "EPT_ID_RETRIEVAL_ERROR"),
        ({"ContactID": "43"}, "CONTACT_IS_INVALID"),
        ({"FlowsheetID": "1"}, "FLOWSHEET-ROW-NOT-FOUND"),
        ({"InstantValueTaken": "yesterday"}, "InstantValueTaken"),
        ({"Value": ""}, "Value"),
    ],
)
async def test_a_flowsheet_value_that_cannot_be_filed_is_400_with_a_code(emr: Any, changes: Any, code: str) -> None:
    reply = await emr.call("POST", FLOWSHEET, params=flowsheet(**changes), json={})
    assert reply.status == 400
    assert code in reply.json()["ExceptionMessage"]
    assert (await writes(emr))["flowsheet"] == []


@pytest.mark.parametrize(
    "values",
    [
        [{"Comments": ["c"], "SmartDataID": "D#1", "SmartDataIDType": "SDI", "Values": "75"}],
        {
            "Value": [
                {
                    "Comments": {"string": ["c"]},
                    "SmartDataID": "D#1",
                    "SmartDataIDType": "SDI",
                    "Values": {"string": ["75"]},
                }
            ]
        },
    ],
    ids=["list", "wrapped"],
)
async def test_smart_data_is_set_in_both_encodings_and_read_back(emr: Any, values: Any) -> None:
    entity = {
        "ContextName": "ENCOUNTER",
        "EntityID": "ada",
        "EntityIDType": "FHIR",
        "ContactID": "42",
        "ContactIDType": "CSN",
        "UserID": "1",
        "UserIDType": "External",
    }
    body = {**entity, "Source": "Web Service", "SmartDataValues": values}
    for _ in range(2):
        reply = await emr.call("PUT", SMART_DATA.format("SET"), json=body)
        assert (reply.status, reply.json()) == (200, {"Success": True})
    [held] = (await writes(emr))["smartData"]
    assert (held["value"], held["comments"], held["times_set"]) == ("75", ["c"], 2)
    asked = {**entity, "SmartDataIDs": [{"ID": "D#1", "Type": "SDI"}]}
    [read] = (await emr.call("POST", SMART_DATA.format("GET"), json=asked)).json()["SmartDataValues"]
    assert read["Values"] == ["75"]
    unknown = await emr.call("PUT", SMART_DATA.format("SET"), json={**body, "EntityID": "nobody"})
    assert "NO-ENTITY-FOUND" in unknown.json()["ExceptionMessage"]


@pytest.mark.parametrize("text", ["one\ntwo", ["one", "two"]], ids=["text", "lines"])
async def test_a_message_is_sent_in_both_forms_of_its_text(emr: Any, text: Any) -> None:
    body = {
        "PatientID": "ada",
        "PatientIDType": "FHIR",
        "Recipients": [{"ID": "P77", "IDType": "External", "IsPool": True}],
        "MessageText": text,
        "SenderID": "1",
        "SenderIDType": "External",
        "MessageType": "Staff Message",
    }
    reply = await emr.call("POST", MESSAGE, json=body)
    assert reply.json() == {"IDTypes": [{"ID": "m1", "Type": "Internal"}]}
    [message] = (await writes(emr))["messages"]
    assert (message["lines"], message["recipients"]) == (["one", "two"], ["P77"])
    for change, code in (({"MessageType": "Other"}, "INVALID-MESSAGE-TYPE"), ({"PatientID": "x"}, "INVALID-PATIENT")):
        refused = await emr.call("POST", MESSAGE, json={**body, **change})
        assert code in refused.json()["ExceptionMessage"]


async def test_a_resource_is_created_conditionally_searched_and_read(emr: Any) -> None:
    flag = {
        "resourceType": "Flag",
        "identifier": [{"system": "urn:x", "value": "1"}],
        "status": "active",
        "code": {"text": "c"},
        "subject": {"reference": "Patient/ada"},
    }
    condition = {**FHIR, "If-None-Exist": "identifier=urn:x|1"}
    first = await emr.call("POST", "/api/FHIR/R4/Flag", json=flag, headers=condition)
    again = await emr.call("POST", "/api/FHIR/R4/Flag", json=flag, headers=condition)
    assert (first.status, again.status) == (201, 200)
    assert first.headers["location"] == again.headers["location"] == f"{emr.url}/api/FHIR/R4/Flag/w1/_history/1"
    found = await emr.fhir("Flag?identifier=urn:x|1")
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["w1"]
    assert (await emr.fhir("Flag/w1"))["code"] == {"text": "c"}
    assert (await emr.call("POST", "/api/FHIR/R4/Flag", json=flag, headers=FHIR)).status == 201
    assert (await emr.call("POST", "/api/FHIR/R4/Flag", json=flag, headers=condition)).status == 412


async def test_an_observation_is_filed_in_one_flowsheet_row_once_for_an_instant(emr: Any) -> None:
    system = "http://open.epic.com/FHIR/StructureDefinition/observation-flowsheet-id"
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": system, "code": "90001"}]},
        "subject": {"reference": "Patient/ada"},
        "effectiveDateTime": "2015-01-06T11:00:00Z",
        "valueQuantity": {"value": 75, "unit": "%"},
    }

    async def create(**changes: Any) -> tuple[int, str]:
        reply = await emr.call("POST", "/api/FHIR/R4/Observation", json={**observation, **changes}, headers=FHIR)
        issues = reply.json().get("issue") if reply.status >= 400 else None
        return reply.status, issues[0]["details"]["coding"][0]["code"] if issues else ""

    assert await create(code={"text": "no row"}) == (400, "59188")
    assert await create(valueQuantity={}) == (400, "59189")
    assert await create() == (201, "")
    assert await create() == (400, "59141")


async def test_what_can_be_created_is_advertised(emr: Any) -> None:
    statement = await emr.fhir("metadata")
    kinds = {kind["type"]: kind for kind in statement["rest"][0]["resource"]}
    assert {"code": "create"} in kinds["RiskAssessment"]["interaction"]
    assert kinds["RiskAssessment"]["conditionalCreate"] is True
    assert {"code": "create"} not in kinds["Condition"]["interaction"]


async def test_writing_needs_a_token_like_reading(closed_emr: Any) -> None:
    for method, path in (
        ("POST", FLOWSHEET),
        ("PUT", SMART_DATA.format("SET")),
        ("POST", MESSAGE),
        ("POST", "/api/FHIR/R4/Flag"),
    ):
        assert (await closed_emr.call(method, path, json={})).status == 401
