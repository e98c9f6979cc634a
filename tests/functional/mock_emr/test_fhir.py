from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from fhirclient.models.bundle import Bundle
from fhirclient.models.capabilitystatement import CapabilityStatement
from fhirclient.models.operationoutcome import OperationOutcome

ROOT = "/api/FHIR/R4"


def ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", ()) if entry["search"]["mode"] == "match"]


def codes(outcome: dict[str, Any]) -> list[str]:
    OperationOutcome(outcome)
    return [issue["details"]["coding"][0]["code"] for issue in outcome["issue"]]


def link(bundle: dict[str, Any], relation: str) -> str | None:
    return next((one["url"] for one in bundle["link"] if one["relation"] == relation), None)


async def test_a_resource_is_read_by_its_id(emr: Any) -> None:
    patient = await emr.fhir("Patient/p1")
    assert patient == {
        "resourceType": "Patient",
        "id": "p1",
        "identifier": [{"system": "urn:mrn", "value": "MRN-p1"}],
    }


@pytest.mark.parametrize(
    "path", ["Patient/nobody", "Observation/p1-l6x", "Spaceship/p1", "Spaceship?patient=p1", "a/b/c"]
)
async def test_what_is_not_there_is_404_with_an_outcome(emr: Any, path: str) -> None:
    reply = await emr.get(f"{ROOT}/{path}")
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/fhir+json"
    OperationOutcome(reply.json())
    assert b"nobody" not in reply.body


async def test_what_is_not_offered_is_405_with_an_outcome(emr: Any) -> None:
    for method, path in (("POST", "Condition"), ("PUT", "Patient/p1"), ("DELETE", "Patient/p1")):
        reply = await emr.call(method, f"{ROOT}/{path}", json={})
        assert reply.status == 405
        OperationOutcome(reply.json())


async def test_a_search_gives_a_searchset_of_absolute_urls(emr: Any) -> None:
    bundle = await emr.fhir("Observation?patient=p1&category=laboratory&_format=json")
    Bundle(bundle)
    assert bundle["total"] == 7
    assert ids(bundle) == [f"p1-l{number}" for number in range(7)]
    assert bundle["entry"][0]["fullUrl"] == f"{emr.url}{ROOT}/Observation/p1-l0"
    assert link(bundle, "self") == f"{emr.url}{ROOT}/Observation?patient=p1&category=laboratory&_format=json"
    assert link(bundle, "next") is None


async def test_a_search_by_post_takes_parameters_from_its_form_and_its_url(emr: Any) -> None:
    reply = await emr.call(
        "POST", f"{ROOT}/Observation/_search?_count=2", data={"patient": "Patient/p1", "_sort": "-date"}
    )
    assert reply.status == 200
    assert ids(reply.json()) == ["p1-l6", "p1-l5"]


async def test_a_search_by_post_of_anything_but_a_form_is_refused(emr: Any) -> None:
    reply = await emr.call("POST", f"{ROOT}/Observation/_search", json={"patient": "p1"})
    assert reply.status == 415


async def test_pages_are_followed_to_the_end_without_saying_who_was_searched(emr: Any) -> None:
    bundle = await emr.fhir("Observation?patient=p1&_count=3")
    seen, following = ids(bundle), link(bundle, "next")
    while following is not None:
        assert urlsplit(following).netloc == urlsplit(emr.url).netloc
        assert "p1" not in urlsplit(following).query
        bundle = (await emr.get(following)).json()
        assert bundle["total"] == 7
        seen += ids(bundle)
        following = link(bundle, "next")
    assert seen == [f"p1-l{number}" for number in range(7)]


async def test_a_page_can_be_asked_for_again_and_does_not_see_the_clock_move(emr: Any) -> None:
    following = link(await emr.fhir("Observation?patient=p1&_count=3"), "next")
    first = await emr.get(following)
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-01T00:00:00Z"})
    assert (await emr.get(following)).json() == first.json()


@pytest.mark.parametrize(("query", "status"), [("sessionID=gone&page=2", 404), ("sessionID=gone&page=0", 400)])
async def test_a_page_that_is_not_kept_is_refused(emr: Any, query: str, status: int) -> None:
    reply = await emr.get(f"{ROOT}/Observation?{query}")
    assert reply.status == status
    if status == 404:
        assert codes(reply.json()) == ["4113"]


async def test_nothing_found_is_told_by_an_outcome_in_the_bundle(emr: Any) -> None:
    bundle = await emr.fhir("Observation?patient=nobody")
    assert (bundle["total"], ids(bundle)) == (0, [])
    assert codes(bundle["entry"][0]["resource"]) == ["4101"]


async def test_an_unknown_parameter_is_ignored_and_told_or_refused_when_strict(emr: Any) -> None:
    bundle = await emr.fhir("Observation?patient=p1&favourite=blue")
    assert len(ids(bundle)) == 7
    assert codes(bundle["entry"][-1]["resource"]) == ["4122"]
    assert "favourite" not in (link(bundle, "self") or "")
    strict = await emr.get(f"{ROOT}/Observation?patient=p1&favourite=blue", headers={"Prefer": "handling=strict"})
    assert strict.status == 400
    assert codes(strict.json()) == ["4122"]


async def test_a_clinical_search_without_a_patient_is_refused(emr: Any) -> None:
    reply = await emr.get(f"{ROOT}/Observation?category=laboratory")
    assert reply.status == 400
    assert codes(reply.json()) == ["59108"]


async def test_a_count_of_zero_asks_for_the_total_alone(emr: Any) -> None:
    bundle = await emr.fhir("Observation?patient=p1&_count=0")
    assert (bundle["total"], "entry" in bundle, link(bundle, "next")) == (7, False, None)


async def test_the_clock_decides_what_reads_and_searches_show(emr: Any) -> None:
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-06T11:02:00Z"})
    assert ids(await emr.fhir("Observation?patient=p1")) == ["p1-l0", "p1-l1", "p1-l2"]
    assert (await emr.get(f"{ROOT}/Observation/p1-l3")).status == 404
    assert (await emr.fhir("ServiceRequest/p1-o"))["status"] == "active"
    encounter = await emr.fhir("Encounter/p1-e")
    assert (encounter["status"], "end" in encounter["period"]) == ("in-progress", False)
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-07T05:00:00-05:00"})
    assert (await emr.fhir("ServiceRequest/p1-o"))["status"] == "completed"
    assert (await emr.fhir("Encounter/p1-e"))["status"] == "finished"


async def test_the_server_says_what_it_can_do_before_it_is_asked_for_a_token(closed_emr: Any) -> None:
    statement = await closed_emr.fhir("metadata")
    CapabilityStatement(statement)
    searchable = {one["type"]: {p["name"] for p in one["searchParam"]} for one in statement["rest"][0]["resource"]}
    assert {"patient", "category", "code", "date", "based-on"} <= searchable["Observation"]
    smart = (await closed_emr.get(f"{ROOT}/.well-known/smart-configuration")).json()
    assert smart["token_endpoint"] == f"{closed_emr.url}/oauth2/token"
    assert smart["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]


async def test_an_emr_that_was_not_told_its_address_answers_with_the_callers(running: Any) -> None:
    async with running(knows_its_address=False) as emr:
        by_name = emr.url.replace("127.0.0.1", "localhost")
        bundle = (
            await emr.get(f"{ROOT}/Observation?patient=p1&_count=3", headers={"Host": urlsplit(by_name).netloc})
        ).json()
        assert bundle["entry"][0]["fullUrl"] == f"{by_name}{ROOT}/Observation/p1-l0"
        assert (link(bundle, "next") or "").startswith(f"{by_name}{ROOT}/Observation?sessionID=")


async def test_a_document_is_found_from_its_date_on_and_its_binary_is_given_as_json_or_as_it_is(
    running_over: Any,
) -> None:
    kind = {"coding": [{"system": "http://loinc.org", "code": "34117-2"}]}
    held = [
        {"resourceType": "Patient", "id": "p1"},
        *(
            {
                "resourceType": "DocumentReference",
                "id": doc_id,
                "status": "current",
                "type": kind,
                "subject": {"reference": "Patient/p1"},
                "date": date,
                "content": [{"attachment": {"contentType": "text/plain", "url": "Binary/b1"}}],
            }
            for doc_id, date in (("d1", "2015-01-06T11:00:00Z"), ("d2", "2015-01-06T13:00:00Z"))
        ),
        {
            "resourceType": "Binary",
            "id": "b1",
            "contentType": "text/plain;charset=utf-8",
            "securityContext": {"reference": "Patient/p1"},
            "data": "Q291Z2g=",
        },
    ]
    async with running_over(*held) as emr:
        search = "DocumentReference?patient=p1&status=current&type=http://loinc.org|34117-2&date=ge2015-01-01"
        # It stands at 12:00: the second was not written yet.
        assert ids(await emr.fhir(search)) == ["d1"]
        assert ids(await emr.fhir("DocumentReference?patient=p1&type=18748-4")) == []
        raw = await emr.call("GET", f"{ROOT}/Binary/b1", headers={"Accept": "*/*"})
        assert (raw.body, raw.headers["content-type"]) == (b"Cough", "text/plain;charset=utf-8")
        assert raw.headers["x-security-context"] == "Patient/p1"
        whole = await emr.call("GET", f"{ROOT}/Binary/b1", headers={"Accept": "application/fhir+json"})
        assert whole.json() == held[-1]
