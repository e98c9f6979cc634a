"""Time as it is driven over HTTP: set, stepped, run, paused; and what the chart shows meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

ROOT = "/api/FHIR/R4"
CLOCK = "/admin/clock"


async def drive(emr: Any, path: str, **sent: Any) -> Any:
    reply = await emr.call("POST", f"{CLOCK}/{path}", json=sent)
    assert reply.status == 200, reply.body
    return reply.json()


async def results(emr: Any) -> int:
    total: int = (await emr.fhir("Observation?patient=p1"))["total"]
    return total


async def test_the_chart_fills_as_the_clock_is_stepped(emr: Any) -> None:
    await emr.call("PUT", CLOCK, json={"now": "2015-01-06T10:00:00Z"})
    assert (await emr.get(f"{ROOT}/ServiceRequest/p1-o")).status == 404
    assert (await drive(emr, "step", seconds=1800))["now"] == "2015-01-06T10:30:00Z"
    assert (await emr.fhir("ServiceRequest/p1-o"))["status"] == "active"
    await drive(emr, "step", seconds=1860)
    assert await results(emr) == 2
    await drive(emr, "step", seconds=86400)
    assert (await emr.fhir("ServiceRequest/p1-o"))["status"] == "completed"
    assert (await emr.fhir("Encounter/p1-e"))["status"] == "finished"
    await drive(emr, "step", seconds=-86400)
    assert (await emr.fhir("Encounter/p1-e"))["status"] == "in-progress"


async def test_the_clock_jumps_to_the_next_event_of_a_kind(emr: Any) -> None:
    await emr.call("PUT", CLOCK, json={"now": "2015-01-06T09:00:00Z"})
    order = await drive(emr, "next", kind="order")
    assert order["event"] == {
        "at": "2015-01-06T10:30:00Z",
        "kind": "order",
        "reference": "ServiceRequest/p1-o",
        "patientId": "p1",
    }
    assert order["now"] == "2015-01-06T10:30:00Z"
    assert (await drive(emr, "next"))["event"]["kind"] == "result"
    assert (await drive(emr, "next", kind="discharge"))["now"] == "2015-01-07T10:00:00Z"
    nothing = await emr.call("POST", f"{CLOCK}/next", json={"kind": "order"})
    assert (nothing.status, "nothing does" in nothing.json()["error"]) == (400, True)


async def test_a_running_clock_says_how_it_runs_until_it_is_paused(emr: Any) -> None:
    running = await drive(emr, "run", rate=60, until="2015-01-07T00:00:00Z")
    assert running == {
        "now": "2015-01-06T12:00:00Z",
        "is_put": True,
        "rate": 60.0,
        "until": "2015-01-07T00:00:00Z",
    }
    assert (await emr.get(CLOCK)).json() == running
    assert (await drive(emr, "pause"))["rate"] is None


async def test_what_happened_is_told_up_to_now_and_further_only_when_asked(emr: Any) -> None:
    await emr.call("PUT", CLOCK, json={"now": "2015-01-06T11:02:00Z"})

    async def told(query: str) -> list[tuple[str, str]]:
        events = (await emr.get(f"/admin/events?{query}")).json()["events"]
        return [(event["kind"], event["patientId"]) for event in events]

    since = "after=2015-01-06T10:00:00Z"
    assert await told(f"{since}&patient=p1") == [("order", "p1"), ("result", "p1"), ("result", "p1"), ("result", "p1")]
    assert await told(f"{since}&kind=order") == [("order", "p1"), ("order", "p2")]
    assert await told(f"{since}&kind=discharge") == []
    to_come = f"{since}&kind=discharge,order&until=2015-01-08T00:00:00Z&limit=3"
    assert await told(to_come) == [("order", "p1"), ("order", "p2"), ("discharge", "p1")]


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("step", {}, '{"seconds": 3600}'),
        ("step", {"seconds": "an hour"}, "seconds"),
        ("step", {"seconds": 1e18}, "9999"),
        ("run", {"rate": 0}, "rate"),
        ("run", {"rate": 1, "until": "2015-01-01T00:00:00Z"}, "ahead"),
        ("run", {"rate": 1, "until": "2015-01-07"}, "until"),
        ("run", {"speed": 1}, '"rate": 60'),
        ("next", {"kind": "party"}, "kind"),
    ],
)
async def test_a_clock_that_cannot_go_there_says_why_and_stays(emr: Any, path: str, sent: Any, says: str) -> None:
    reply = await emr.call("POST", f"{CLOCK}/{path}", json=sent)
    assert reply.status == 400
    assert says in reply.json()["error"]
    assert (await emr.get(CLOCK)).json()["now"] == "2015-01-06T12:00:00Z"


@pytest.mark.parametrize(
    "query", ["", "after=noon", "after=2015-01-06T00:00:00Z&kind=party", "after=2015-01-06T00:00:00Z&x=1"]
)
async def test_a_question_about_events_that_cannot_be_meant_is_refused(emr: Any, query: str) -> None:
    reply = await emr.get(f"/admin/events?{query}")
    assert (reply.status, bool(reply.json()["error"])) == (400, True)
