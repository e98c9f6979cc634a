"""Each kind of scripted trouble over HTTP, as any client meets it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

ROOT = "/api/FHIR/R4"
SEARCH = f"{ROOT}/Observation?patient=p1"
SCORE = "/api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES?modelId=m&jobId=j"
IDENTIFIERS = "/api/epic/2010/Common/Patient/GETPATIENTIDENTIFIERS/Patient/Identifiers"


# wire-formats.md leaves open how an STU3 id looks; the mock makes p1's of a digest of its FHIR id.
STU3_ID = "T" + hashlib.sha256(b"patient:p1").hexdigest()[:32]


def batch(*urls: str) -> dict[str, Any]:
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    return {"resourceType": "Bundle", "type": "batch", "entry": entries}


async def add(emr: Any, **rule: Any) -> str:
    reply = await emr.call("POST", "/admin/faults", json=rule)
    assert reply.status == 201, reply.body
    name: str = reply.json()[0]["name"]
    return name


def ids(reply: Any) -> list[str]:
    return [entry["resource"]["id"] for entry in reply.json()["entry"]]


def next_url(reply: Any) -> str:
    return next(link["url"] for link in reply.json()["link"] if link["relation"] == "next")


def score(csn: str) -> dict[str, Any]:
    return {
        "ScoreDisplayed": "S",
        "EntityId": [{"ID": csn, "Type": "CSN"}],
        "Outputs": {"Output1": {"Scores": {"S": {"Values": ["95"]}}}},
    }


async def test_rules_are_listed_added_and_taken_back_one_by_one(emr: Any) -> None:
    first = await add(emr, route="Observation", status=503)
    second = await add(emr, route="Patient", status=500, name="mine")
    assert (first, second) == ("fault-1", "mine")
    listed = (await emr.get("/admin/faults")).json()
    assert listed == [
        {"route": "Observation", "name": "fault-1", "status": 503},
        {"route": "Patient", "name": "mine", "status": 500},
    ]
    assert (await emr.call("DELETE", "/admin/faults/fault-1")).json() == listed[1:]
    assert (await emr.get(SEARCH)).status == 200
    assert (await emr.get(f"{ROOT}/Patient/p1")).status == 500
    assert (await emr.call("DELETE", "/admin/faults/fault-1")).status == 404
    assert (await emr.call("DELETE", "/admin/faults")).json() == []
    assert (await emr.get(f"{ROOT}/Patient/p1")).status == 200


async def test_what_was_listed_can_be_put_back(emr: Any) -> None:
    await add(emr, route="Observation", status=503, **{"from": "2015-01-06T12:00:00Z"})
    listed = (await emr.get("/admin/faults")).json()
    await emr.call("DELETE", "/admin/faults")
    assert (await emr.call("PUT", "/admin/faults", json=listed)).json() == listed
    assert (await emr.get(SEARCH)).status == 503


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"route": "nowhere", "status": 500}, "route: expected a FHIR resource type or one of"),
        ({"route": "score"}, "at least one of status"),
        ({"route": "score", "status": 503, "until": "tonight"}, "from, until"),
        ({"route": "score", "body": "burning"}, "body"),
    ],
)
async def test_a_rule_that_cannot_be_meant_is_refused_with_what_was_expected(emr: Any, rule: Any, says: str) -> None:
    reply = await emr.call("POST", "/admin/faults", json=rule)
    assert reply.status == 400
    assert says in reply.json()["error"]
    assert (await emr.get("/admin/faults")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", f"{ROOT}/Patient/p1", {}),
        ("GET", SEARCH, {}),
        ("GET", f"{ROOT}/Observation?subject=Patient/p1", {}),
        ("GET", f"{ROOT}/Patient?identifier=urn:mrn|MRN-p1", {}),
        ("GET", f"{ROOT}/Patient/p1/$everything", {}),
        ("POST", f"{ROOT}/Observation/_search", {"data": {"patient": "p1"}}),
        ("POST", f"{ROOT}/ServiceRequest/_search", {"data": {"_id": "p1-o"}}),
        ("GET", IDENTIFIERS, {"params": {"PatientID": "42", "PatientIDType": "CSN"}}),
        ("GET", IDENTIFIERS, {"params": {"PatientID": "p1", "PatientIDType": "FHIR"}}),
        ("POST", SCORE, {"json": score("42")}),
        ("POST", ROOT, {"json": batch("Patient/p1")}),
        ("POST", ROOT, {"json": batch("Patient/p3", "Observation?patient=p1")}),
        ("GET", f"/api/FHIR/STU3/Observation?patient={STU3_ID}", {}),
        ("POST", SCORE, {"json": {"result": {"results": score("42")}}}),
        ("POST", f"{ROOT}/Flag", {"json": {"resourceType": "Flag", "subject": {"reference": "Patient/p1"}}}),
    ],
)
async def test_trouble_for_one_patient_finds_them_however_they_are_named(
    emr: Any, method: str, path: str, options: Any
) -> None:
    for about, status in (("p2", 200), ("p1", 503)):
        await emr.call("PUT", "/admin/faults", json=[{"route": "*", "patient": about, "status": 503}])
        reply = await emr.call(method, path, **options)
        assert (reply.status == 503) is (status == 503), reply.body


async def test_trouble_for_one_patient_follows_them_to_later_pages(emr: Any) -> None:
    first = await emr.get(f"{SEARCH}&_count=3")
    await add(emr, route="Observation", patient="p1", status=503)
    assert (await emr.get(next_url(first))).status == 503
    assert (await emr.get(f"{ROOT}/Observation?patient=p2")).status == 200


async def test_an_outage_begins_and_ends_by_the_clock(emr: Any) -> None:
    await add(emr, route="*", status=503, **{"from": "2015-01-06T13:00:00Z", "until": "2015-01-06T14:00:00Z"})
    seen = []
    for now in ("12:59:59", "13:00:00", "13:59:59", "14:00:00"):
        await emr.call("PUT", "/admin/clock", json={"now": f"2015-01-06T{now}Z"})
        seen.append((await emr.get(SEARCH)).status)
    assert seen == [200, 503, 503, 200]


async def test_a_dripping_answer_is_whole_and_comes_in_ten_pieces(emr: Any) -> None:
    whole = await emr.get(SEARCH)
    await add(emr, route="Observation", drip_ms=700, times=1)
    dripped = await emr.get(SEARCH)
    assert (dripped.status, dripped.body) == (200, whole.body)
    assert dripped.headers["content-length"] == str(len(whole.body))
    assert emr.sleeps == [0.7] * 10


async def test_a_restricted_record_is_refused_in_each_sides_words(emr: Any) -> None:
    await add(emr, route="*", body="restricted")
    fhir = await emr.get(f"{ROOT}/Patient/p1")
    assert fhir.status == 403
    assert fhir.json()["issue"][0]["details"]["coding"][0]["code"] == "4130"
    vendor = await emr.get(IDENTIFIERS, params={"PatientID": "p1", "PatientIDType": "FHIR"})
    assert (vendor.status, "BREAK-THE-GLASS" in vendor.json()["ExceptionMessage"]) == (403, True)
    assert (await emr.get(f"{ROOT}/metadata")).status == 200


async def test_a_token_that_expired_early_is_good_no_more(closed_emr: Any) -> None:
    token = (await closed_emr.token()).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await closed_emr.get(SEARCH, headers=bearer)).status == 200
    await add(closed_emr, route="*", body="expired-token", times=1)
    for _ in range(2):
        refused = await closed_emr.get(SEARCH, headers=bearer)
        assert (refused.status, "invalid_token" in refused.headers["www-authenticate"]) == (401, True)
    fresh = (await closed_emr.token(client_assertion=closed_emr.assertion(jti="2"))).json()["access_token"]
    assert (await closed_emr.get(SEARCH, headers={"Authorization": f"Bearer {fresh}"})).status == 200


async def test_duplicate_pages_give_the_first_page_once_more(emr: Any) -> None:
    await add(emr, route="Observation", body="duplicate-pages")
    first = await emr.get(f"{SEARCH}&_count=3")
    second = await emr.get(next_url(first))
    third = await emr.get(next_url(second))
    assert ids(first) == ids(second) == ids(third) == ["p1-l0", "p1-l1", "p1-l2"]
    assert third.json()["total"] == 7


async def test_a_foreign_next_leads_to_another_server(emr: Any) -> None:
    await add(emr, route="Observation", body="foreign-next")
    url = next_url(await emr.get(f"{SEARCH}&_count=3"))
    assert url.startswith(f"https://emr.elsewhere.example{ROOT}/Observation?sessionID=")


async def test_a_wrong_patient_is_read_searched_and_identified(emr: Any) -> None:
    await add(emr, route="*", body="foreign-subject")
    assert (await emr.get(f"{ROOT}/Patient/p1")).json()["id"] == "p2"
    assert (await emr.get(SEARCH)).json()["entry"][0]["resource"]["subject"]["reference"] == "Patient/p2"
    known = (await emr.get(IDENTIFIERS, params={"PatientID": "p1", "PatientIDType": "FHIR"})).json()["Identifiers"]
    assert {"ID": "p2", "IDType": "FHIR"} in known


async def test_html_a_truncated_body_a_status_and_a_delay_are_played_on_any_route(emr: Any) -> None:
    await add(emr, route="smart-configuration", body="html", status=502)
    reply = await emr.get(f"{ROOT}/.well-known/smart-configuration")
    assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (502, "text/html")
    await add(emr, route="metadata", body="truncated", delay_ms=1500)
    with pytest.raises(ValueError):
        (await emr.get(f"{ROOT}/metadata")).json()
    assert emr.sleeps == [1.5]


async def test_the_journal_names_the_rule_that_was_played(emr: Any) -> None:
    await add(emr, route="Observation", status=503, name="busy", times=1)
    await emr.get(SEARCH)
    await emr.get(SEARCH)
    entries = (await emr.get("/admin/journal")).json()["entries"]
    assert [entry["fault"] for entry in entries] == ["busy", None]
    faulty = (await emr.get("/admin/journal?faulty=true")).json()["entries"]
    assert [entry["sequence"] for entry in faulty] == [1]


async def test_calls_are_found_in_the_journal_by_what_they_were(closed_emr: Any) -> None:
    emr = closed_emr
    token = (await emr.token()).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "X-Correlation-Id": "c-1"}
    await emr.get(SEARCH, headers=headers)
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-06T13:00:00Z"})
    await emr.get(f"{ROOT}/Patient/p1", headers={**headers, "X-Correlation-Id": "a patient's name"})
    await emr.get(SEARCH)

    async def sequences(query: str) -> list[int]:
        reply = await emr.get(f"/admin/journal?{query}")
        assert reply.status == 200, reply.body
        return [entry["sequence"] for entry in reply.json()["entries"]]

    assert await sequences("face=oauth") == [1]
    assert await sequences("face=fhir&status=4xx") == [4]
    assert await sequences("status=200&resource_type=Observation") == [2]
    assert await sequences(f"route={ROOT}/%7Btype%7D/%7Bid%7D") == [3]
    assert await sequences("correlation_id=c-1") == [2]
    assert await sequences("after=2015-01-06T12:00:00Z") == [3, 4]
    assert await sequences("until=2015-01-06T12:00:00Z&method=GET") == [2]
    assert "name" not in str((await emr.get("/admin/journal")).json()["entries"][2]["correlation_id"])
    for query in ("face=side", "status=9xx", "faulty=maybe", "after=noon", "patient=p1", "since=x"):
        reply = await emr.get(f"/admin/journal?{query}")
        assert (reply.status, bool(reply.json()["error"])) == (400, True)
