"""From a fault of the EMR's to a message at a webhook and in the EMR, through the app's own timer."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mock_emr.faults import Rule

CANARY = "CANARYPATIENT1"


@pytest.fixture
async def hook():
    """Give a server that keeps what is posted to it."""
    got = []

    async def handle(request):
        got.append(await request.json())
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/hook", handle)
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url("/hook")), got
    await server.close()


async def test_an_emr_that_refuses_scores_is_told_of_once_by_every_way_and_nothing_of_the_patient(
    chart_of, emr_of, app_of, hook, now, caplog
):
    url, got = hook
    emr = await emr_of(*chart_of(CANARY, "e1", "o1", "42", "lab1", value=30, birth="1950-01-01"))
    app = app_of(
        emr.url,
        DEPLOYR_ALERT_SLACK_URL=f"{url}?token=s3cret",
        DEPLOYR_ALERT_FHIR_RECIPIENTS="Group/on-call",
        DEPLOYR_DASHBOARD_BASE="https://dash.example",
    )
    emr.parts.faults.put((Rule(route="score", status=422),))
    answered = await app.infer(patientId=CANARY)
    assert answered.status_code == 200
    for minutes in (0, 5, 10):
        app.set_clock(now + timedelta(minutes=minutes))
        await app.fire("watch_alerts")
    told = json.dumps(got)
    assert len(got) == 1
    assert "Scores were given up: score-column" in told
    communications = [each for each in emr.parts.written.resources() if each["resourceType"] == "Communication"]
    assert [each["recipient"] for each in communications] == [[{"reference": "Group/on-call"}]]
    assert "subject" not in communications[0]
    assert CANARY not in told + json.dumps(communications) + caplog.text
    assert "s3cret" not in caplog.text
