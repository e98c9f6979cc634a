"""The CDA-XML channel from the EMR's side: bytes in, bytes out, against the whole app and a mock EMR."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

import deployr_serve.core.infer as infer_module
import deployr_serve.triggers
from deployr_core.packet import EventKind, Failed, Scored
from deployr_serve.core.errors import SettingsInvalid
from mock_emr.faults import Rule
from tests.cda import EXAMPLE, SETTINGS, SOAP_11, SOAP_12, cda, ii, in_soap

SCHEMA = etree.XMLSchema(etree.parse(Path(deployr_serve.triggers.__file__).with_name("bpa.xsd")))
NONE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<AdvisoryResponse xmlns="urn:deployr:bpa:1" version="1"><Outcome>none</Outcome></AdvisoryResponse>'
)
PASSWORD = "correct horse battery"
DEPLOYMENT = """\
schema_version: 1
model: {model}
mode: {mode}
threshold: {threshold}
groups: [cbc]
advisory:
  headline: "{model}: {{score_percent}}"
  detail: "The last result is likely to stand."
  indicator: {indicator}
  acknowledge_reasons:
    - {{code: sicker, display: The patient's state has changed}}
"""


@pytest.fixture
def deploy(tmp_path):
    """Give a function that writes a model's deployment file, and gives the settings."""

    def make(model="hematocrit", *, mode="live", threshold=0.5, indicator="info", more=""):
        folder = tmp_path / "deployments"
        folder.mkdir(exist_ok=True)
        text = DEPLOYMENT.format(model=model, mode=mode, threshold=threshold, indicator=indicator)
        (folder / f"{model}.yaml").write_text(text + more)
        return {"DEPLOYR_DEPLOYMENTS": str(folder), **SETTINGS}

    return make


@pytest.fixture
async def emr(emr_of, chart_of):
    """Give an EMR whose patient p1 has one result before and one after the order; the model scores 3 / 4."""
    return await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))


@pytest.fixture
def app(emr, app_of, deploy):
    return app_of(emr.url, **deploy())


def advice_in(response):
    assert response.status_code == 200
    root = etree.fromstring(response.get_body())
    assert SCHEMA.validate(root), SCHEMA.error_log
    return {etree.QName(each).localname: each.text for each in root}


def is_none(response, outcome):
    assert (response.status_code, response.get_body()) == (200, NONE)
    assert SCHEMA.validate(etree.fromstring(response.get_body()))
    assert response.mimetype == "application/xml"
    assert response.headers["X-Correlation-Id"]
    assert response.headers["X-Bridge-Outcome"] == outcome
    return True


async def packets_of(app, model="hematocrit"):
    return await app.store.packets(model_id=model, after=None, limit=100)


# -- advised


async def test_an_order_is_advised_on_stored_and_noted_as_shown(app):
    response = await app.bpa(EXAMPLE)
    said = advice_in(response)
    [packet] = await packets_of(app)
    assert said["PacketId"] == response.headers["X-Packet-Id"] == packet.packet_id
    assert (said["Outcome"], said["Score"], said["Threshold"]) == ("advise", "0.75", "0.5")
    assert said["Headline"] == "hematocrit: 75 %"
    assert response.headers["X-Bridge-Outcome"] == "scored"
    assert packet.trigger.channel == "bpa"
    assert [event.kind for event in await app.store.events(packet.packet_id)] == [EventKind.SHOWN]


async def test_the_same_document_five_times_at_once_is_one_packet_and_one_answer(app, emr):
    responses = await asyncio.gather(*(app.bpa(EXAMPLE) for _ in range(5)))
    assert len({response.get_body() for response in responses}) == 1
    [packet] = await packets_of(app)
    assert len(await app.store.events(packet.packet_id)) == 1
    assert sum("X-Bridge-Replay" in response.headers for response in responses) == 4


async def test_json_and_bpa_asked_about_the_same_event_share_the_packet(app):
    asked = await app.infer()
    advised = advice_in(await app.bpa(EXAMPLE))
    assert advised["PacketId"] == asked.headers["X-Packet-Id"]
    assert float(advised["Score"]) == json.loads(asked.get_body())["score"]
    assert len(await packets_of(app)) == 1


async def test_by_record_number_and_csn_the_same_event_is_the_same_packet(emr_of, chart_of, app_of, deploy):
    patient, *rest = chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04")
    patient["identifier"] = [{"system": "urn:mrn", "value": "M1"}]
    order = next(one for one in rest if one["resourceType"] == "ServiceRequest")
    order["identifier"] = [{"system": "urn:orders", "value": "4711"}]
    emr = await emr_of(patient, *rest)
    app = app_of(emr.url, **deploy(), DEPLOYR_EMR_IDENTIFIER_SYSTEMS="MRN=urn:mrn,ORDER=urn:orders")
    by_ids = advice_in(await app.bpa(EXAMPLE))
    by_numbers = advice_in(await app.bpa(cda(patient=ii(2, "M1"), encounter=ii(4, "421"), order=ii(6, "4711"))))
    by_both = advice_in(await app.bpa(cda(patient=ii(1, "p1") + ii(2, "M1"), encounter=ii(3, "e1") + ii(4, "421"))))
    assert by_ids == by_numbers == by_both
    assert is_none(await app.bpa(cda(patient=ii(2, "M9"))), "rejected;code=unknown-patient")
    assert is_none(await app.bpa(cda(encounter=ii(4, "999"))), "rejected;code=unknown-context")
    assert is_none(await app.bpa(cda(encounter=ii(3, "e2") + ii(4, "421"))), "rejected;code=unknown-context")
    assert is_none(await app.bpa(cda(order=ii(6, "4712"))), "rejected;code=unknown-context")
    assert is_none(await app.bpa(cda(patient=ii(1, "p2"), encounter=ii(4, "421"))), "rejected;code=wrong-patient")


async def test_of_a_group_the_most_urgent_advice_is_shown_and_all_are_stored(emr, app_of, deploy):
    deploy("anemia", indicator="critical")
    app = app_of(emr.url, **deploy("hematocrit", indicator="warning"))
    response = await app.bpa(EXAMPLE, model="cbc")
    said = advice_in(response)
    assert said["Headline"] == "anemia: 75 %"
    [anemia], [hematocrit] = await packets_of(app, "anemia"), await packets_of(app)
    assert response.headers["X-Packet-Id"] == f"{anemia.packet_id}, {hematocrit.packet_id}"
    assert [len(await app.store.events(one.packet_id)) for one in (anemia, hematocrit)] == [1, 0]
    assert len([address for address in emr.addresses if "Observation" in address]) == 1


async def test_of_a_group_of_which_one_model_fails_the_others_advice_is_noted_as_shown(
    emr, app_of, deploy, monkeypatch
):
    find_outcome = infer_module.find_outcome

    async def one_fails(request, *rest, **more):
        if request.model_id == "anemia":
            raise RuntimeError("unexpected")
        return await find_outcome(request, *rest, **more)

    monkeypatch.setattr(infer_module, "find_outcome", one_fails)
    deploy("anemia", indicator="critical")
    app = app_of(emr.url, **deploy("hematocrit", indicator="warning"))
    assert advice_in(await app.bpa(EXAMPLE, model="cbc"))["Headline"] == "hematocrit: 75 %"
    [hematocrit] = await packets_of(app)
    assert [event.kind for event in await app.store.events(hematocrit.packet_id)] == [EventKind.SHOWN]


@pytest.mark.parametrize(("namespace", "media_type"), [(SOAP_11, "text/xml"), (SOAP_12, "application/soap+xml")])
async def test_a_document_in_an_envelope_is_answered_in_one(app, namespace, media_type):
    response = await app.bpa(in_soap(EXAMPLE, namespace), headers={"Content-Type": media_type})
    [body] = etree.fromstring(response.get_body())
    assert body.tag == f"{{{namespace}}}Body"
    assert SCHEMA.validate(body[0])
    assert body[0].findtext("{*}Score") == "0.75"
    assert response.mimetype == media_type


@pytest.mark.parametrize(
    ("headers", "namespace"),
    [({"SOAPAction": '""'}, SOAP_11), ({"Content-Type": "application/soap+xml"}, SOAP_12), ({}, None)],
)
async def test_what_cannot_be_read_is_answered_as_its_headers_announce_it(app, headers, namespace):
    root = etree.fromstring((await app.bpa("<not xml", headers=headers)).get_body())
    assert etree.QName(root).namespace == (namespace or "urn:deployr:bpa:1")
    assert "none" in "".join(root.itertext())


async def test_a_sites_stylesheet_shapes_every_answer(emr, app_of, deploy, tmp_path):
    (tmp_path / "site.xsl").write_text(
        '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform" '
        'xmlns:a="urn:deployr:bpa:1" exclude-result-prefixes="a"><xsl:template match="/a:AdvisoryResponse">'
        '<Alert show="{a:Outcome}"><xsl:value-of select="a:Headline"/></Alert></xsl:template></xsl:stylesheet>'
    )
    app = app_of(emr.url, **deploy(), DEPLOYR_BPA_XSLT=str(tmp_path / "site.xsl"))
    assert b'<Alert show="advise">hematocrit: 75 %</Alert>' in (await app.bpa(EXAMPLE)).get_body()
    assert b'<Alert show="none"/>' in (await app.bpa("no XML")).get_body()


async def test_a_sites_paths_choose_the_order(emr, app_of, deploy, tmp_path):
    (tmp_path / "paths.json").write_text('{"order": null, "eventTime": "c:author/c:time"}')
    app = app_of(emr.url, **deploy(), DEPLOYR_BPA_PATHS=str(tmp_path / "paths.json"))
    await app.bpa(cda(time='<effectiveTime value="2015"/>'))
    [packet] = await packets_of(app)
    assert packet.subject.order_id is None


# -- nothing advised: always the same bytes


TRIAL = """\
trial:
  trial_id: stable-labs
  version: {version}
  unit: order
  arms: [{{name: control, weight: 1, shows: false}}, {{name: advised, weight: 1, shows: true}}]
"""


@pytest.mark.parametrize("case", [{"mode": "silent"}, {"threshold": 0.9}])
async def test_a_silent_model_and_a_low_score_answer_the_same_bytes_and_the_same_header(emr, app_of, deploy, case):
    app = app_of(emr.url, **deploy(**case))
    assert is_none(await app.bpa(EXAMPLE), "scored")
    [packet] = await packets_of(app)
    assert isinstance(packet.outcome, Scored)
    assert await app.store.events(packet.packet_id) == ()


async def test_a_control_arm_gets_the_same_bytes_and_headers_as_a_low_score(emr, app_of, deploy, tmp_path):
    seen = {}
    for version in range(1, 9):
        trial = deploy(mode="trial", more=TRIAL.format(version=version))
        app = app_of(emr.url, **trial, DEPLOYR_STORE=f"sqlite:{tmp_path / f'{version}.sqlite'}")
        response = await app.bpa(EXAMPLE, headers={"X-Correlation-Id": "one"})
        [packet] = await packets_of(app)
        seen.setdefault(packet.outcome.decision.assignment.arm, (response, dict(response.headers)))
    assert set(seen) == {"control", "advised"}
    assert is_none(seen["control"][0], "scored")
    assert advice_in(seen["advised"][0])["Outcome"] == "advise"
    assert seen["control"][1] == seen["advised"][1]


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        ("", "rejected;code=malformed-request"),
        (cda(record_target=""), "rejected;code=missing-patient"),
        (cda(patient=ii(1, "p1") + ii(1, "p2")), "rejected;code=ambiguous-patient"),
        (cda(patient=ii(1, "p404")), "rejected;code=unknown-patient"),
        (cda(time='<effectiveTime value="20250106155500-0500"/>'), "rejected;code=event-in-future"),
        (f"<r>{'<a/>' * 70_000}</r>", "rejected;code=request-too-large"),
    ],
)
async def test_a_request_that_cannot_be_answered_gets_no_advice(app, document, outcome):
    assert is_none(await app.bpa(document), outcome)


async def test_another_model_and_another_type_get_no_advice(app):
    assert is_none(await app.bpa(EXAMPLE, model="unknown"), "rejected;code=unknown-model")
    assert is_none(
        await app.bpa(EXAMPLE, headers={"Content-Type": "application/json"}), "rejected;code=unsupported-media-type"
    )


async def test_a_failing_emr_gets_no_advice_and_a_failed_packet(app, emr):
    emr.parts.faults.put((Rule(route="Observation", status=403),))
    assert is_none(await app.bpa(EXAMPLE), "failed;code=emr-refused")
    [packet] = await packets_of(app)
    assert packet.outcome == Failed(reason="emr-refused", retryable=False)


async def test_the_deadline_holds_whatever_hangs(emr, app_of, deploy, monkeypatch):
    app = app_of(emr.url, **deploy(), DEPLOYR_DEADLINE_S="0.3")

    async def never(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(type(app.application.vendor.subjects), "subject", never)
    async with asyncio.timeout(20):
        assert is_none(await app.bpa(EXAMPLE), "failed;code=in-progress")


async def test_what_nobody_foresaw_gets_no_advice_and_a_failed_packet(app, monkeypatch):
    async def broken(*_, **__):
        raise RuntimeError("CanaryName7")

    monkeypatch.setattr(type(app.application.services.source), "fetch", broken)
    assert is_none(await app.bpa(EXAMPLE), "failed;code=unexpected")
    [packet] = await packets_of(app)
    assert packet.outcome == Failed(reason="unexpected", retryable=False)


# -- who calls


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def closed(emr, app_of, deploy):
    """Give a function that builds an app that lets two callers in."""

    def make(**settings):
        callers = json.dumps({"epic": PASSWORD, "tests": PASSWORD[::-1]})
        return app_of(emr.url, **deploy(), DEPLOYR_BPA_CALLERS=callers, **settings)

    return make


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer " + PASSWORD},
        basic("epic", "wrong"),
        basic("nobody", PASSWORD),
        basic("epic\0", PASSWORD),
        basic("epic", PASSWORD + "\0"),
        basic("epic", 3000 * "x"),
        basic("epic", 30_000 * "x"),
        basic("tests", PASSWORD),
        basic("", ""),
        {"Authorization": "Basic " + base64.b64encode(b"epic").decode()},
    ],
)
async def test_who_does_not_prove_who_it_is_gets_an_empty_401_and_nothing_is_done(closed, emr, headers):
    app = closed()
    for model in ("hematocrit", "unknown", "acknowledgements"):
        response = await app.bpa(EXAMPLE, model=model, headers=headers)
        assert (response.status_code, response.get_body()) == (401, b"")
        assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert emr.addresses == []
    assert await packets_of(app) == ()


async def test_each_caller_is_let_in_by_its_own_password(closed):
    app = closed()
    for headers in (basic("epic", PASSWORD), basic("tests", PASSWORD[::-1])):
        assert advice_in(await app.bpa(EXAMPLE, headers=headers))["Outcome"] == "advise"


async def test_a_caller_that_asks_too_often_gets_no_advice_and_others_are_answered(closed):
    app = closed(DEPLOYR_BPA_PER_SECOND="1")
    epic, tests = basic("epic", PASSWORD), basic("tests", PASSWORD[::-1])
    for _ in range(2):
        advice_in(await app.bpa(EXAMPLE, headers=epic))
    refused = await app.bpa(EXAMPLE, headers=epic)
    assert is_none(refused, "failed;code=too-many-requests")
    assert refused.headers["Retry-After"] == "1"
    assert advice_in(await app.bpa(EXAMPLE, headers=tests))


@pytest.mark.parametrize("given_id", ["a\r\nSet-Cookie: x", "a%0d%0aSet-Cookie:x", "x" * 65, "", "é"])
async def test_a_correlation_id_that_is_not_one_is_replaced(app, given_id):
    got = (await app.bpa("no XML", headers={"X-Correlation-Id": given_id})).headers["X-Correlation-Id"]
    assert got != given_id
    assert got.replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DEPLOYR_BPA_ID_ROOTS", "1.2.3"),
        ("DEPLOYR_BPA_ID_ROOTS", "1.2.3=MRN,1.2.3=FHIR"),
        ("DEPLOYR_BPA_PATHS", "none.json"),
        ("DEPLOYR_BPA_XSLT", "none.xsl"),
        ("DEPLOYR_BPA_CALLERS", '{"epic": "short"}'),
        ("DEPLOYR_BPA_CALLERS", '{"epic:1": "correct horse battery"}'),
        ("DEPLOYR_BPA_CALLERS", "epic"),
        ("DEPLOYR_BPA_STRICT", "yes"),
        ("DEPLOYR_BPA_PER_SECOND", "0"),
    ],
)
def test_settings_that_cannot_work_are_named_at_start(emr, app_of, deploy, setting, value):
    with pytest.raises(SettingsInvalid, match=setting) as raised:
        app_of(emr.url, **{**deploy(), setting: value})
    assert "horse" not in str(raised.value)


def test_the_prod_profile_takes_no_open_door_and_no_strict_answers(emr, app_of, deploy):
    with pytest.raises(SettingsInvalid) as raised:
        app_of(emr.url, **deploy(), DEPLOYR_PROFILE="prod", DEPLOYR_BPA_STRICT="1")
    assert "DEPLOYR_BPA_CALLERS" in str(raised.value)
    assert "DEPLOYR_BPA_STRICT" in str(raised.value)


async def test_the_strict_profile_says_what_is_wrong(emr, app_of, deploy):
    app = app_of(emr.url, **deploy(), DEPLOYR_BPA_STRICT="1")
    plain = await app.bpa(cda(record_target=""))
    assert plain.status_code == 400
    assert "patientRole" in json.loads(plain.get_body())["issue"][0]["diagnostics"]
    assert plain.headers["X-Bridge-Outcome"] == "rejected;code=missing-patient"
    soap = await app.bpa(in_soap(cda(record_target="")), headers={"Content-Type": "text/xml"})
    assert soap.status_code == 400
    assert b"faultstring" in soap.get_body()
    assert advice_in(await app.bpa(EXAMPLE))["Outcome"] == "advise"


# -- acknowledged


def acknowledged(packet_id, **changes):
    return json.dumps({"packetId": packet_id, "reason": "sicker", "at": "2015-01-06T20:56:00Z"} | changes)


async def test_an_acknowledgement_is_stored_once_with_the_packet(app):
    packet_id = advice_in(await app.bpa(EXAMPLE))["PacketId"]
    for _ in range(2):
        response = await app.bpa(acknowledged(packet_id), model="acknowledgements")
        assert (response.status_code, response.get_body()) == (204, b"")
    shown, event = await app.store.events(packet_id)
    assert (shown.kind, event.kind, event.reason) == (EventKind.SHOWN, EventKind.ACKNOWLEDGED, "sicker")
    assert event.at == datetime(2015, 1, 6, 20, 56, tzinfo=UTC)


async def test_what_was_asked_about_as_json_first_can_be_acknowledged_once_it_is_shown(app):
    packet_id = (await app.infer()).headers["X-Packet-Id"]
    assert (await app.bpa(acknowledged(packet_id), model="acknowledgements")).status_code == 404
    assert advice_in(await app.bpa(EXAMPLE))["PacketId"] == packet_id
    assert (await app.bpa(acknowledged(packet_id), model="acknowledgements")).status_code == 204


async def test_an_acknowledgement_does_not_tell_a_hidden_advisory_from_none(emr, app_of, deploy):
    app = app_of(emr.url, **deploy(mode="silent"))
    hidden = (await app.bpa(EXAMPLE)).headers["X-Packet-Id"]
    of_hidden, of_nobody = [
        await app.bpa(acknowledged(packet_id), model="acknowledgements") for packet_id in (hidden, "p" + 32 * "0")
    ]
    assert of_hidden.status_code == of_nobody.status_code == 404
    assert of_hidden.get_body() == of_nobody.get_body()
    assert await app.store.events(hidden) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"packetId": "p1"},
        {"packetId": None},
        {"reason": ""},
        {"reason": 7},
        {"reason": "two words"},
        {"at": "2015-01-06T20:56:00"},
        {"at": "2015-01-06T21:56:00Z"},
        {"patientId": "p1"},
    ],
)
async def test_an_acknowledgement_that_is_not_one_is_refused(app, changes):
    packet_id = advice_in(await app.bpa(EXAMPLE))["PacketId"]
    response = await app.bpa(acknowledged(packet_id, **changes), model="acknowledgements")
    assert response.status_code == 400
    assert json.loads(response.get_body())["resourceType"] == "OperationOutcome"
