"""Update, batch, everything about a patient, bulk export, STU3: over HTTP, as any client meets them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fhirclient.models.bundle import Bundle
from fhirclient.models.capabilitystatement import CapabilityStatement
from fhirclient.models.operationoutcome import OperationOutcome
from lxml import etree

ROOT = "/api/FHIR/R4"
STU3 = "/api/FHIR/STU3"
FHIR = {"Content-Type": "application/fhir+json"}
ASYNC = {"Prefer": "respond-async"}
XML = "{http://hl7.org/fhir}"


def flag(**elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "Flag",
        "status": "active",
        "code": {"text": "a note"},
        "subject": {"reference": "Patient/p1"},
        **elements,
    }


async def put(emr: Any, path: str, resource: Any, **headers: str) -> Any:
    return await emr.call("PUT", f"{ROOT}/{path}", data=json.dumps(resource), headers={**FHIR, **headers})


async def created(emr: Any) -> str:
    reply = await emr.call("POST", f"{ROOT}/Flag", data=json.dumps(flag()), headers=FHIR)
    assert (reply.status, reply.headers["etag"]) == (201, 'W/"1"')
    resource_id: str = reply.json()["id"]
    return resource_id


# -- update


async def test_what_was_created_is_updated_by_who_knows_its_version(emr: Any) -> None:
    flag_id = await created(emr)
    updated = await put(emr, f"Flag/{flag_id}", flag(id=flag_id, status="inactive"), **{"If-Match": 'W/"1"'})
    assert (updated.status, updated.headers["etag"]) == (200, 'W/"2"')
    read = await emr.get(f"{ROOT}/Flag/{flag_id}")
    assert (read.json()["status"], read.json()["meta"]["versionId"]) == ("inactive", "2")
    assert read.headers["etag"] == 'W/"2"'


async def test_an_update_of_another_version_is_412_and_changes_nothing(emr: Any) -> None:
    flag_id = await created(emr)
    for _ in range(2):
        reply = await put(emr, f"Flag/{flag_id}", flag(id=flag_id, status="inactive"), **{"If-Match": 'W/"7"'})
        assert reply.status == 412
        OperationOutcome(reply.json())
    assert (await emr.fhir(f"Flag/{flag_id}"))["status"] == "active"


async def test_an_update_that_is_not_what_it_must_be_is_refused(emr: Any) -> None:
    flag_id = await created(emr)
    other = {"reference": "Patient/p2"}
    for path, resource, status in (
        ("Flag/w99", flag(id="w99"), 405),
        ("Patient/p1", {"resourceType": "Patient", "id": "p1"}, 405),
        (f"Flag/{flag_id}", flag(), 400),
        (f"Flag/{flag_id}", flag(id="w2"), 400),
        (f"Flag/{flag_id}", flag(id=flag_id, subject=other), 422),
    ):
        reply = await put(emr, path, resource)
        assert reply.status == status
        OperationOutcome(reply.json())


# -- batch


async def test_a_batch_answers_each_of_its_entries(emr: Any) -> None:
    urls = ["Patient/p1", "Observation?patient=p2&_count=2", "Patient/nobody", "Observation?code=1"]
    sent = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": url}} for url in urls]
        + [{"request": {"method": "DELETE", "url": "Patient/p1"}}, {}],
    }
    for path in (ROOT, ROOT + "/"):
        reply = await emr.call("POST", path, data=json.dumps(sent), headers=FHIR)
        answered = reply.json()
        Bundle(answered)
        assert (reply.status, answered["type"]) == (200, "batch-response")
        statuses = [entry["response"]["status"] for entry in answered["entry"]]
        assert statuses == [
            "200 OK",
            "200 OK",
            "404 Not Found",
            "400 Bad Request",
            "405 Method Not Allowed",
            "405 Method Not Allowed",
        ]
        patient, search = (entry["resource"] for entry in answered["entry"][:2])
        assert patient["id"] == "p1"
        assert (search["total"], len(search["entry"])) == (7, 2)


async def test_a_transaction_is_refused_clearly(emr: Any) -> None:
    for bundle, status in (
        ({"resourceType": "Bundle", "type": "transaction"}, 422),
        ({"resourceType": "Bundle", "type": "batch", "entry": [{}] * 101}, 400),
        ({"resourceType": "Bundle", "type": "collection"}, 400),
        ({"resourceType": "Patient"}, 400),
        ([], 400),
    ):
        reply = await emr.call("POST", ROOT, data=json.dumps(bundle), headers=FHIR)
        assert reply.status == status
        OperationOutcome(reply.json())


# -- everything


async def test_everything_about_a_patient_is_what_shows_now(emr: Any) -> None:
    await created(emr)
    bundle = await emr.fhir("Patient/p1/$everything")
    types = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert types == ["Patient", "Encounter", "Flag", *["Observation"] * 7, "ServiceRequest"]
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-06T11:02:30Z"})
    assert (await emr.fhir("Patient/p1/$everything?_type=Observation"))["total"] == 3


async def test_everything_comes_in_pages(emr: Any) -> None:
    first = await emr.fhir("Patient/p1/$everything?_count=6")
    url = next(link["url"] for link in first["link"] if link["relation"] == "next")
    second = (await emr.get(url)).json()
    assert (first["total"], len(first["entry"]), len(second["entry"])) == (10, 6, 4)
    assert (await emr.get(f"{ROOT}/Patient/nobody/$everything")).status == 404
    assert (await emr.get(f"{ROOT}/Encounter/p1-e/$everything")).status == 404


# -- bulk export


async def test_an_export_is_waited_for_fetched_and_let_go(closed_emr: Any) -> None:
    emr = closed_emr
    headers = {"Authorization": f"Bearer {(await emr.token()).json()['access_token']}"}
    kicked = await emr.get(f"{ROOT}/Patient/$export?_type=Patient,Observation", headers={**headers, **ASYNC})
    assert (kicked.status, kicked.body) == (202, b"")
    status = kicked.headers["content-location"]
    waiting = await emr.get(status, headers=headers)
    assert (waiting.status, waiting.headers["retry-after"]) == (202, "1")
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-01T00:00:00Z"})
    manifest = (await emr.get(status, headers=headers)).json()
    assert manifest["transactionTime"] == "2015-01-06T12:00:00Z"
    assert manifest["requiresAccessToken"] is True
    assert [(file["type"], file["count"]) for file in manifest["output"]] == [("Patient", 2), ("Observation", 14)]
    assert (await emr.get(manifest["output"][1]["url"])).status == 401
    file = await emr.get(manifest["output"][1]["url"], headers=headers)
    assert file.headers["content-type"] == "application/fhir+ndjson"
    assert [json.loads(line)["resourceType"] for line in file.body.splitlines()] == ["Observation"] * 14
    assert (await emr.call("DELETE", status, headers=headers)).status == 202
    assert (await emr.get(status, headers=headers)).status == 404


async def test_an_export_of_all_holds_every_type(emr: Any) -> None:
    status = (await emr.get(f"{ROOT}/$export", headers=ASYNC)).headers["content-location"]
    await emr.get(status)
    output = (await emr.get(status)).json()["output"]
    assert {file["type"]: file["count"] for file in output} == {
        "Encounter": 2,
        "Observation": 14,
        "Patient": 2,
        "ServiceRequest": 2,
    }


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 400),
        ("?_outputFormat=csv", ASYNC, 400),
        ("?_type=Spaceship", ASYNC, 404),
        ("?_since=yesterday", ASYNC, 400),
        ("?_elements=id", ASYNC, 400),
        ("?_elements=id", {"Prefer": "respond-async, handling=lenient"}, 202),
    ],
)
async def test_an_export_that_cannot_be_made_is_refused(emr: Any, query: str, headers: Any, status: int) -> None:
    assert (await emr.get(f"{ROOT}/$export{query}", headers=headers)).status == status


async def exported(emr: Any, path: str) -> dict[str, int]:
    """Give how many resources of each type an export holds."""
    status = (await emr.get(f"{ROOT}/{path}", headers=ASYNC)).headers["content-location"]
    await emr.get(status)
    return {file["type"]: file["count"] for file in (await emr.get(status)).json()["output"]}


async def test_an_export_since_an_instant_holds_what_has_changed_after_it(emr: Any) -> None:
    # Each of the two patients has results from 11:00 on, a minute apart, seven of them; their stays began at 10:00, and
    # their orders, signed at 10:30, are completed by the last result, at 11:06.
    assert await exported(emr, "$export?_since=2015-01-06T11:04:00Z") == {"Observation": 4, "ServiceRequest": 2}
    assert await exported(emr, "$export?_since=2015-01-06T11:06:00Z") == {}


async def test_an_export_of_the_group_of_inpatients_holds_those_who_are_in_hospital(emr: Any) -> None:
    everybody = {"Encounter": 2, "Observation": 14, "Patient": 2, "ServiceRequest": 2}
    assert await exported(emr, "Group/inpatients/$export") == everybody
    assert (await emr.get(f"{ROOT}/Group/outpatients/$export", headers=ASYNC)).status == 404
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-08T00:00:00Z"})
    assert await exported(emr, "Group/inpatients/$export") == {}


# -- R4 in XML


@pytest.mark.parametrize(
    ("query", "headers"), [("&_format=xml", {}), ("", {"Accept": "application/fhir+xml"})], ids=["_format", "Accept"]
)
async def test_r4_is_answered_in_xml_where_that_is_asked_for(emr: Any, query: str, headers: Any) -> None:
    found = await emr.get(f"{ROOT}/Observation?patient=p1&_count=5{query}", headers=headers)
    assert (found.status, found.headers["content-type"]) == (200, "application/fhir+xml")
    bundle = etree.fromstring(found.body)
    assert bundle.tag == f"{XML}Bundle"
    observations = bundle.findall(f"{XML}entry/{XML}resource/{XML}Observation")
    assert len(observations) == 5
    elements = [element.tag.removeprefix(XML) for element in observations[0]]
    assert elements == ["id", "basedOn", "status", "category", "code", "subject", "effectiveDateTime", "valueQuantity"]
    [next_page] = [
        link.find(f"{XML}url").get("value")
        for link in bundle.findall(f"{XML}link")
        if link.find(f"{XML}relation").get("value") == "next"
    ]
    rest = etree.fromstring((await emr.get(next_page, headers=headers)).body)
    assert len(rest.findall(f"{XML}entry")) == 2


async def test_one_resource_and_a_refusal_are_in_xml_too(emr: Any) -> None:
    patient = await emr.get(f"{ROOT}/Patient/p1?_format=xml")
    assert etree.fromstring(patient.body).find(f"{XML}id").get("value") == "p1"
    refused = await emr.get(f"{ROOT}/Patient/nobody?_format=xml")
    assert (refused.status, etree.fromstring(refused.body).tag) == (404, f"{XML}OperationOutcome")


# -- STU3


def condition() -> dict[str, Any]:
    system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    return {
        "resourceType": "Condition",
        "id": "c1",
        "recordedDate": "2015-01-05",
        "subject": {"reference": "Patient/p1"},
        "encounter": {"reference": "Encounter/e1"},
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "D64.9"}]},
        "clinicalStatus": {"coding": [{"system": system, "code": "active"}]},
    }


async def stu3_id(emr: Any, patient_id: str) -> str:
    reply = await emr.get(
        "/api/epic/2010/Common/Patient/GETPATIENTIDENTIFIERS/Patient/Identifiers",
        params={"PatientID": patient_id, "PatientIDType": "FHIR"},
    )
    return next(one["ID"] for one in reply.json()["Identifiers"] if one["IDType"] == "FHIR STU3")


async def test_stu3_answers_in_xml_and_in_its_own_shape(running_over: Any) -> None:
    async with running_over({"resourceType": "Patient", "id": "p1"}, condition()) as emr:
        patient = await stu3_id(emr, "p1")
        reply = await emr.get(f"{STU3}/Condition?patient={patient}&clinical-status=active,resolved")
        assert reply.headers["content-type"] == "application/fhir+xml"
        root = etree.fromstring(reply.body)
        assert root.tag == f"{XML}Bundle"
        assert root.find(f"{XML}total").get("value") == "1"
        [found] = root.iterfind(f"{XML}entry/{XML}resource/{XML}Condition")
        assert [etree.QName(element).localname for element in found] == [
            "id",
            "clinicalStatus",
            "code",
            "subject",
            "context",
            "assertedDate",
        ]
        assert found.find(f"{XML}clinicalStatus").get("value") == "active"
        assert found.find(f"{XML}code/{XML}coding/{XML}code").get("value") == "D64.9"
        assert found.find(f"{XML}subject/{XML}reference").get("value") == f"Patient/{patient}"


async def test_stu3_answers_in_json_when_asked_and_pages_stay_in_their_format(emr: Any) -> None:
    patient = await stu3_id(emr, "p1")
    search = f"{STU3}/Observation?patient={patient}&code=http://loinc.org|2160-0&_count=5"
    first = await emr.get(search, headers={"Accept": "application/fhir+json"})
    bundle = first.json()
    assert (bundle["total"], len(bundle["entry"])) == (7, 5)
    url = next(link["url"] for link in bundle["link"] if link["relation"] == "next")
    assert len((await emr.get(url)).json()["entry"]) == 2
    pages = etree.fromstring((await emr.get(search)).body)
    urls = [link.find(f"{XML}url").get("value") for link in pages.iterfind(f"{XML}link")]
    assert len(list(etree.fromstring((await emr.get(urls[1])).body).iterfind(f"{XML}entry"))) == 2


async def test_an_unknown_stu3_patient_has_nothing_and_refusals_are_in_xml_too(emr: Any) -> None:
    nothing = etree.fromstring((await emr.get(f"{STU3}/Observation?patient=p1")).body)
    assert nothing.find(f"{XML}total").get("value") == "0"
    assert nothing.find(f"{XML}entry/{XML}resource/{XML}OperationOutcome") is not None
    for query, status in (("Observation?code=1", 400), ("Patient?_id=p1", 404), ("Observation?sessionID=x", 404)):
        refused = await emr.get(f"{STU3}/{query}")
        assert (refused.status, etree.fromstring(refused.body).tag) == (status, f"{XML}OperationOutcome")
    assert (await emr.get(f"{STU3}/Observation?patient=p1&_format=csv")).status == 406


# -- what it says about itself


async def test_the_server_says_that_it_updates_batches_and_exports(emr: Any) -> None:
    statement = await emr.fhir("metadata")
    CapabilityStatement(statement)
    [rest] = statement["rest"]
    assert rest["interaction"] == [{"code": "batch"}]
    assert [operation["name"] for operation in rest["operation"]] == ["export"]
    offered = {one["type"]: [each["code"] for each in one["interaction"]] for one in rest["resource"]}
    assert offered["Flag"] == ["read", "search-type", "create", "update"]
    assert offered["Patient"] == ["read", "search-type"]
