from __future__ import annotations

from typing import Any

import pytest

ROOT = "/api/FHIR/R4"
SCORE = "/api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"
SEARCH = f"{ROOT}/Observation?patient=p1"


def flat(csn: str = "42", value: str = "95") -> dict[str, Any]:
    return {
        "OutputType": "5",
        "PredictiveContext": {},
        "ScoreDisplayed": "S",
        "EntityId": [{"ID": csn, "Type": "CSN"}],
        "Outputs": {"Output1": {"Scores": {"S": {"Values": [value]}}}},
    }


async def write(emr: Any, body: Any, *, job: str = "j1", model: str = "SHC.COL@1") -> Any:
    return await emr.call("POST", SCORE, params={"modelId": model, "jobId": job}, json=body)


async def test_a_score_is_filed_under_model_and_encounter_once_per_job(emr: Any) -> None:
    assert (await write(emr, flat())).json() == {"Success": True, "Errors": []}
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-06T13:00:00Z"})
    wrapped = {"result": {"exit_code": "0", "results": flat(value="96")}}
    assert [(await write(emr, wrapped, job=job)).status for job in ("j1", "j2", "j2")] == [200, 200, 200]
    assert (await emr.get("/admin/scores")).json() == {
        "scores": [
            {
                "modelId": "SHC.COL@1",
                "csn": "42",
                "encounterId": "p1-e",
                "patientId": "p1",
                "rows": [
                    {"jobId": "j1", "score": "95", "writtenAt": "2015-01-06T12:00:00Z"},
                    {"jobId": "j2", "score": "96", "writtenAt": "2015-01-06T13:00:00Z"},
                ],
            }
        ]
    }
    assert (await emr.get("/admin/scores?modelId=other")).json() == {"scores": []}
    summary = (await emr.get("/admin/journal/summary")).json()
    assert (summary["score_writes_new"], summary["score_writes_repeated"]) == (2, 2)


@pytest.mark.parametrize(
    ("body", "query", "says"),
    [
        (flat(csn="44"), "modelId=m&jobId=j", "NO-ENTITY-FOUND"),
        ({**flat(), "EntityId": []}, "modelId=m&jobId=j", "EntityId"),
        (flat(), "jobId=j", "modelId"),
        (flat(), "modelId=m", "jobId"),
        (flat(), "modelId=&jobId=j", "modelId"),
        ([], "modelId=m&jobId=j", "body"),
    ],
)
async def test_a_write_that_cannot_be_filed_says_what_is_wrong(emr: Any, body: Any, query: str, says: str) -> None:
    reply = await emr.call("POST", f"{SCORE}?{query}", json=body)
    error = reply.json()
    assert reply.status == 400
    assert list(error) == ["Message", "ExceptionMessage", "ExceptionType", "StackTrace", "InnerException"]
    assert says in error["ExceptionMessage"]
    assert error["StackTrace"] is error["InnerException"] is None
    assert (await emr.get("/admin/scores")).json() == {"scores": []}


async def test_an_encounter_that_does_not_show_yet_cannot_be_scored(emr: Any) -> None:
    await emr.call("PUT", "/admin/clock", json={"now": "2015-01-06T09:00:00Z"})
    assert (await write(emr, flat())).status == 400


def at(now: str) -> dict[str, Any]:
    return {"now": now, "is_put": True, "rate": None, "until": None}


async def test_the_clock_is_put_and_read_in_utc(emr: Any) -> None:
    assert (await emr.get("/admin/clock")).json() == at("2015-01-06T12:00:00Z")
    reply = await emr.call("PUT", "/admin/clock", json={"now": "2014-06-01T00:00:00+05:45"})
    assert reply.json() == at("2014-05-31T18:15:00Z")


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"now":7}', b'{"now":"2015-01-06"}', b'{"now":"2015-01-06T12:00:00"}', b'{"now":null}', b"\xff"],
)
async def test_a_clock_that_cannot_be_put_stays_where_it_is(emr: Any, body: bytes) -> None:
    assert (await emr.call("PUT", "/admin/clock", data=body)).status == 400
    assert (await emr.get("/admin/clock")).json()["now"] == "2015-01-06T12:00:00Z"


async def test_the_journal_tells_what_was_asked_without_a_value(emr: Any) -> None:
    await emr.get(f"{SEARCH}&_count=3")
    await emr.get(f"{ROOT}/Patient/p1")
    await emr.get(f"{ROOT}/Patient/nobody")
    await emr.get(f"{ROOT}/Nobody?x=1")
    await write(emr, flat())
    answer = (await emr.get("/admin/journal")).json()
    entries = answer["entries"]
    assert answer["last"] == 5
    assert [(e["sequence"], e["method"], e["route"], e["resource_type"], e["status"]) for e in entries] == [
        (1, "GET", f"{ROOT}/{{type}}", "Observation", 200),
        (2, "GET", f"{ROOT}/{{type}}/{{id}}", "Patient", 200),
        (3, "GET", f"{ROOT}/{{type}}/{{id}}", "Patient", 404),
        (4, "GET", f"{ROOT}/{{type}}", None, 404),
        (5, "POST", SCORE, None, 200),
    ]
    assert entries[0]["parameters"] == ["_count", "patient"]
    assert entries[0]["emr_now"] == "2015-01-06T12:00:00Z"
    assert entries[0]["at"] == "2026-11-21T09:00:00Z"
    assert entries[4]["write"] == {"kind": "score", "model_id": "SHC.COL@1", "job_id": "j1", "is_new": True}
    assert not {"p1", "nobody", "42", "95"} & set(str(entries).replace("'", " ").split())
    assert [e["sequence"] for e in (await emr.get("/admin/journal?since=2&limit=2")).json()["entries"]] == [3, 4]
    assert (await emr.get("/admin/journal?since=-1")).status == 400


async def test_the_summary_counts_by_route_and_status(emr: Any) -> None:
    for _ in range(3):
        await emr.get(SEARCH)
    await emr.get(f"{ROOT}/Observation?code=1")
    summary = (await emr.get("/admin/journal/summary")).json()
    assert summary["calls"] == 4
    assert [(t["resource_type"], t["status"], t["count"]) for t in summary["tallies"]] == [
        ("Observation", 200, 3),
        ("Observation", 400, 1),
    ]
    assert summary["peak_concurrent"] == 1


async def test_every_fhir_and_vendor_call_is_delayed_and_no_other(running: Any) -> None:
    async with running(delay_s=0.3) as emr:
        await emr.get(SEARCH)
        await write(emr, flat())
        await emr.token()
        await emr.get("/admin/clock")
        assert emr.sleeps == [0.3, 0.3]


async def fault(emr: Any, **rule: Any) -> None:
    assert (await emr.call("PUT", "/admin/faults", json=[rule])).status == 200


async def test_a_failing_status_is_played_as_often_as_asked_and_files_nothing(emr: Any) -> None:
    await fault(emr, route="score", status=503, times=2)
    assert [(await write(emr, flat())).status for _ in range(3)] == [503, 503, 200]
    assert len((await emr.get("/admin/scores")).json()["scores"][0]["rows"]) == 1
    assert (await emr.get("/admin/faults")).json() == []


async def test_a_lost_answer_leaves_the_score_filed(emr: Any) -> None:
    await fault(emr, route="score", body="empty", times=1)
    assert (await write(emr, flat())).body == b""
    assert (await write(emr, flat())).status == 200
    assert len((await emr.get("/admin/scores")).json()["scores"][0]["rows"]) == 1


async def test_a_page_of_html_comes_with_success(emr: Any) -> None:
    await fault(emr, route="Observation", body="html")
    reply = await emr.get(SEARCH)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert (await emr.get(f"{ROOT}/Patient/p1")).headers["content-type"] == "application/fhir+json"


async def test_a_truncated_body_is_half_of_the_whole(emr: Any) -> None:
    whole = (await emr.get(f"{ROOT}/Patient/p1")).body
    await fault(emr, route="*", body="truncated", times=1)
    assert (await emr.get(f"{ROOT}/Patient/p1")).body == whole[: len(whole) // 2]


async def test_a_foreign_subject_is_slipped_into_a_search(emr: Any) -> None:
    await fault(emr, route="Observation", body="foreign-subject", times=1)
    subjects = [e["resource"]["subject"]["reference"] for e in (await emr.get(SEARCH)).json()["entry"]]
    assert sorted(subjects) == ["Patient/p1"] * 7 + ["Patient/p2"]


async def test_a_foreign_subject_is_never_the_patient_who_was_asked_about(emr: Any) -> None:
    await fault(emr, route="Observation", body="foreign-subject", times=1)
    found = (await emr.get(SEARCH + "&date=2020")).json()["entry"]
    assert [e["resource"]["subject"]["reference"] for e in found] == ["Patient/p2"]


async def test_a_delay_is_played_and_the_call_goes_on(emr: Any) -> None:
    await fault(emr, route="token", delay_ms=250)
    assert (await emr.token()).status == 200
    await emr.get(SEARCH)
    assert emr.sleeps == [0.25]


async def test_the_token_endpoint_fails_in_its_own_words(emr: Any) -> None:
    await fault(emr, route="token", status=503)
    reply = await emr.token()
    assert (reply.status, reply.json()["error"]) == (503, "temporarily_unavailable")


async def test_faults_are_taken_back(emr: Any) -> None:
    await fault(emr, route="*", status=500)
    assert (await emr.get(SEARCH)).status == 500
    await emr.call("DELETE", "/admin/faults")
    assert (await emr.get(SEARCH)).status == 200


async def test_rules_that_cannot_be_read_change_nothing(emr: Any) -> None:
    await fault(emr, route="*", status=500)
    assert (await emr.call("PUT", "/admin/faults", json=[{"route": "*", "colour": "red"}])).status == 400
    assert (await emr.get(SEARCH)).status == 500
