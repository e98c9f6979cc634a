"""What the audit holds after calls over each channel, answered and refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from deployr_core.forgetting import derive_patient_hash, forgotten
from deployr_serve.core.audit import answer_id
from deployr_serve.core.retention import forget
from mock_emr.cds_client import accepted
from tests.cda import EXAMPLE, SETTINGS
from tests.functional.deployr_serve.cds_parts import ISSUER, advise, client_of, draft, let_in, order_sign, signer
from tests.json_callers import basic, entra_token, write_callers

HASH = derive_patient_hash(b"deployr-development-only", "p1")


@pytest.fixture
def site(app_of, emr_of, chart_of, tmp_path):
    """Give a function that starts the app with an audit, beside an EMR whose patient is p1."""

    async def make(**settings):
        emr = await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))
        given = {"DEPLOYR_AUDIT": f"folder:{tmp_path / 'audit'}", **advise(tmp_path, "hematocrit"), **settings}
        return app_of(emr.url, **given)

    return make


@pytest.fixture
def audited(tmp_path):
    """Give a function that gives the events so far, each as the few things that tests look at."""

    def read():
        text = "".join(file.read_text() for file in sorted((tmp_path / "audit").glob("*.ndjson")))
        return [seen(json.loads(line)) for line in text.splitlines()]

    return read


def seen(event):
    entities = {(each["type"]["code"]): each["what"]["identifier"]["value"] for each in event["entity"]}
    details = {each["type"]: each["valueString"] for each in event["entity"][0]["detail"]}
    return {
        "act": event["subtype"][1]["code"],
        "by": event["agent"][0]["who"].get("identifier", {}).get("value"),
        "user": event["agent"][2]["who"]["identifier"]["value"] if len(event["agent"]) > 2 else None,
        "said": event["outcomeDesc"],
        "patient": entities.get("1"),
        "channel": details["channel"],
        "model": details.get("model"),
        "id": details["audit-id"],
        "replayed": details.get("replayed"),
    }


def short(event):
    return event["by"], event["said"], event["patient"]


async def test_json_answers_repeats_and_refusals(site, audited, tmp_path):
    app = await site(DEPLOYR_JSON_CALLERS=write_callers(tmp_path))
    engine, visitor = ({"Authorization": f"Basic {basic(name)}"} for name in ("engine", "visitor"))
    answer = await app.infer(headers={**engine, "X-Correlation-Id": "first"})
    await app.infer(headers=engine)
    await app.infer(headers={"Authorization": "Basic nonsense"})
    await app.infer(headers=visitor)
    await app.infer(headers={"Authorization": f"Bearer {entra_token(roles=[])}"})
    await app.infer(headers=engine, eventTime="2015-01-09T00:00:00Z")
    await app.infer(headers=engine, body=b"{")
    events = audited()
    assert [short(event) for event in events] == [
        ("engine", "scored: advised", HASH),
        ("engine", "scored: advised", HASH),
        (None, "not-authenticated: basic", None),
        ("visitor", "refused: unknown-model", None),
        (None, "refused: caller-not-allowed", None),
        ("engine", "refused: event-in-future", HASH),
        ("engine", "refused: malformed-request", None),
    ]
    assert [event["replayed"] for event in events[:2]] == [None, "1"]
    assert events[0]["id"] == answer_id(answer.headers["X-Packet-Id"], "first")
    assert {event["channel"] for event in events} == {"json"}
    [packet] = await app.store.packets(model_id="hematocrit", after=None, limit=9)
    assert (packet.trigger.caller, packet.patient_hash) == ("engine", HASH)


async def test_an_alert_and_its_acknowledgement(site, audited):
    callers = json.dumps({"epic": "correct horse battery"})
    app = await site(**SETTINGS, DEPLOYR_BPA_CALLERS=callers)
    who = {"Authorization": f"Basic {basic('epic')}"}
    answer = await app.bpa(EXAMPLE, headers=who)
    told = {"packetId": answer.headers["X-Packet-Id"], "reason": "changed", "at": "2015-01-06T20:56:00Z"}
    await app.bpa(json.dumps(told), model="acknowledgements", headers=who)
    await app.bpa(EXAMPLE)
    await app.bpa("<no/>", headers=who)
    events = audited()
    assert [event["act"] for event in events] == ["infer", "feedback", "infer", "infer"]
    assert [short(event)[:2] for event in events] == [
        ("epic", "scored: advised"),
        ("epic", "acknowledged"),
        (None, "not-authenticated: no-basic"),
        ("epic", "refused: malformed-request"),
    ]
    assert [event["patient"] for event in events] == [HASH, HASH, None, None]


async def test_a_hook_and_its_feedback(site, audited, tmp_path):
    app = await site(**let_in(tmp_path))
    client = client_of(app, fhir_base=app.application.cds.fhir_base, signed_by=signer())
    [service] = [one for one in (await client.discover()).content["services"] if one["id"] == "hematocrit-order-sign"]
    reply = await client.fire(service, order_sign(draft()))
    [card] = reply.content["cards"]
    await client.feed_back("hematocrit-order-sign", [accepted(card, at=datetime(2015, 1, 6, 20, 57, tzinfo=UTC))])
    await app.cds("POST", "hematocrit-order-sign", body=b"{}")
    events = audited()
    assert [short(event) for event in events] == [
        (ISSUER, "scored: advised", HASH),
        (ISSUER, "accepted", HASH),
        (None, "not-authenticated: no-token", None),
    ]
    assert events[0]["user"].startswith("Practitioner/")
    assert {event["channel"] for event in events} == {"cds-hooks"}


async def test_what_is_asked_again_after_it_was_forgotten_is_not_answered(site, audited):
    app = await site()
    services = app.application.services
    first = await app.infer()
    await forget(services.store, HASH, vault=None, clock=services.clock)
    again = await app.infer()
    assert again.status_code == 410
    assert json.loads(again.get_body())["issue"][0]["details"]["coding"][0]["code"] == "forgotten"
    assert (await app.store.read(first.headers["X-Packet-Id"])).packet == forgotten(
        (await app.store.read(first.headers["X-Packet-Id"])).packet, at=services.clock.now()
    )
    assert [event["said"] for event in audited()] == ["scored: advised", "rejected: forgotten"]


async def test_lost_records_are_written_down_by_the_timer(site, audited, tmp_path, now):
    app = await site()
    answer = await app.infer()
    app.application.audit.folder.close()
    for file in (tmp_path / "audit").iterdir():
        file.unlink()
    app.set_clock(now + timedelta(hours=1))
    await app.fire("keep_audit")
    await app.fire("keep_audit")
    [event] = audited()
    assert (event["said"], event["patient"]) == ("scored: advised", HASH)
    assert answer.headers["X-Correlation-Id"]
    assert event["id"] == answer_id(answer.headers["X-Packet-Id"], answer.headers["X-Correlation-Id"])


async def test_nothing_is_kept_where_no_audit_is_configured(site, tmp_path):
    app = await site(DEPLOYR_AUDIT="")
    assert (await app.infer()).status_code == 200
    assert "audit" not in json.loads((await app.get("health_ready")).get_body())
    assert not (tmp_path / "audit").exists()
