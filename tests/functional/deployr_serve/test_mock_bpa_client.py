"""The mock EMR's alert and the bridge understand one another: document, envelopes, advisory, acknowledgement."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from deployr_core.packet import EventKind
from mock_emr.bpa_client import Advisory, Alert, BpaClient, Roots, advisory_in, document, wrapped
from mock_emr.cds_client import Reply
from tests.cda import SETTINGS
from tests.functional.deployr_serve.test_bpa_over_http import DEPLOYMENT

SIGNED = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)


@pytest.fixture
async def fired(emr_of, chart_of, app_of, tmp_path):
    """Give an app that advises from a threshold on, a client of it, and the alert about order o1 of patient p1."""
    chart = chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04")
    emr = await emr_of(*chart)
    by_id = {resource["id"]: resource for resource in chart}
    alert = Alert(order=by_id["o1"], encounter=by_id["e1"], provider="DR7", at=SIGNED)

    def make(*, threshold=0.5):
        text = DEPLOYMENT.format(model="hematocrit", mode="live", threshold=threshold, indicator="info")
        (tmp_path / "deployments").mkdir()
        (tmp_path / "deployments" / "hematocrit.yaml").write_text(text)
        app = app_of(emr.url, DEPLOYR_DEPLOYMENTS=str(tmp_path / "deployments"), **SETTINGS)

        async def send(method, url, headers, body):
            assert method == "POST"
            came = await app.bpa(body, model=urlsplit(url).path.removeprefix("/api/bpa/"), headers=headers)
            lowered = {name.lower(): value for name, value in came.headers.items()}
            return Reply(status=came.status_code, headers=lowered, body=came.get_body())

        return app, BpaClient("https://bridge.example/", send=send), alert

    return make


@pytest.mark.parametrize("wrapping", ["plain", "soap-1.1", "soap-1.2", "notereader"])
async def test_an_alert_is_advised_in_whatever_envelope_it_comes(fired, wrapping):
    app, client, alert = fired()
    advisory = advisory_in((await client.fire("hematocrit", alert, wrapping=wrapping)).body)
    [packet] = await app.store.packets(model_id="hematocrit", after=None, limit=9)
    assert advisory.packet_id == packet.packet_id
    assert (advisory.is_advised, advisory.score, advisory.threshold) == (True, "0.75", "0.5")
    assert advisory.headline == "hematocrit: 75 %"
    assert advisory.acknowledge_reasons == (("sicker", "The patient's state has changed"),)
    assert packet.subject.patient_id == "p1"
    assert (packet.subject.encounter_id, packet.subject.order_id) == ("e1", "o1")
    assert packet.as_of == SIGNED


async def test_no_advice_says_nothing_else(fired):
    _, client, alert = fired(threshold=0.9)
    assert advisory_in((await client.fire("hematocrit", alert)).body) == Advisory(is_advised=False)


async def test_an_acknowledgement_reaches_the_packet_with_its_reason(fired):
    app, client, alert = fired()
    advisory = advisory_in((await client.fire("hematocrit", alert)).body)
    reply = await client.acknowledge(advisory.packet_id, at=SIGNED, reason="sicker")
    assert reply.status == 204
    events = [(event.kind, event.reason) for event in await app.store.events(advisory.packet_id)]
    assert events == [(EventKind.SHOWN, None), (EventKind.ACKNOWLEDGED, "sicker")]


async def test_the_login_travels_as_basic_credentials():
    seen = []

    async def send(method, url, headers, body):
        seen.append((method, url, headers, body))
        return Reply(status=204, headers={}, body=b"")

    client = BpaClient("https://bridge.example", login=("alerts", "a:b"), send=send)
    await client.acknowledge("p0", at=SIGNED)
    [(method, url, headers, body)] = seen
    assert (method, url) == ("POST", "https://bridge.example/api/bpa/acknowledgements")
    # base64 of alerts:a:b
    assert headers["Authorization"] == "Basic YWxlcnRzOmE6Yg=="
    assert json.loads(body) == {"packetId": "p0", "at": "2015-01-06T20:55:00+00:00"}


def test_a_document_about_an_order_without_encounter_or_code_is_still_one():
    order = {"id": "o<1>", "subject": {"reference": "Patient/p&1"}}
    cda = document(Alert(order=order, encounter=None, provider="DR7", at=SIGNED), roots=Roots())
    assert b"componentOf" not in cda
    assert b'extension="o&lt;1&gt;"' in cda
    assert b'extension="p&amp;1"' in cda
    assert b'nullFlavor="OTH"' in cda
    assert wrapped(cda, "plain") == cda


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html/>",
        b"{}",
        b'<AdvisoryResponse xmlns="urn:deployr:bpa:1" version="2"><Outcome>none</Outcome></AdvisoryResponse>',
        b'<AdvisoryResponse xmlns="urn:deployr:bpa:1" version="1"><Outcome>maybe</Outcome></AdvisoryResponse>',
    ],
)
def test_an_answer_that_is_no_advisory_is_refused(body):
    with pytest.raises(ValueError, match="expected"):
        advisory_in(body)
