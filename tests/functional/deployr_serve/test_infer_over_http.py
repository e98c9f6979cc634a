"""Bytes in, bytes out: the functions as a host calls them, against an EMR on loopback, with packets in SQLite."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from datetime import timedelta

import msgspec
import pytest
from fhirclient.models.operationoutcome import OperationOutcome

from deployr_core.model_format import MODEL_FILE
from deployr_core.packet import DeliveryState, Failed, Rejected, Scored
from mock_emr.faults import Rule
from tests.registry_parts import write_run


@pytest.fixture
async def emr(emr_of, chart_of):
    """Give an EMR with two patients; each has one result before and one after the order."""
    return await emr_of(
        *chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"),
        *chart_of("p2", "e2", "o2", "422", "lab2", value=41.0, birth="1960"),
        {"resourceType": "Patient", "id": "p3", "gender": "male"},
    )


@pytest.fixture
def app(emr, app_of):
    return app_of(emr.url)


def content(response):
    return json.loads(response.get_body())


def refusal(response, status, reason):
    """Check that the answer is that refusal, as strict R4, and give what it says was expected."""
    assert response.status_code == status
    assert response.headers["X-Correlation-Id"]
    assert response.mimetype == "application/fhir+json"
    [issue] = OperationOutcome(content(response), strict=True).issue
    assert issue.details.coding[0].code == reason
    return issue.diagnostics


async def packets_of(app, model="hematocrit"):
    return await app.store.packets(model_id=model, after=None, limit=100)


def scores_in(emr):
    return {(cell.model_id, cell.csn): [row.score for row in cell.rows] for cell in emr.parts.scores.cells()}


# -- scored


async def test_an_order_is_scored_stored_and_written_to_the_score_column(app, emr):
    response = await app.infer()
    assert response.status_code == 200
    [packet] = await packets_of(app)
    assert content(response) == {
        "status": "scored",
        "packetId": packet.packet_id,
        "model": {"id": "hematocrit", "version": "1.0.0", "bundleSha256": packet.model.bundle_sha256},
        "asOf": "2015-01-06T20:55:00Z",
        "score": 0.75,  # the result before the order is seen
    }
    assert response.headers["X-Packet-Id"] == packet.packet_id
    assert "X-Bridge-Replay" not in response.headers
    assert isinstance(packet.outcome, Scored)
    assert (packet.outcome.entity_id, packet.outcome.coverage["labs.results"]) == ("421", 1)
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}
    delivery = await app.store.read_delivery(f"{packet.packet_id}.score-column")
    assert (delivery.state, delivery.attempts) == (DeliveryState.SENT, 1)


async def test_a_patient_without_results_is_scored_as_such(app, emr):
    response = await app.infer(patientId="p3", encounterId=None, orderId=None)
    assert content(response)["score"] == 0.25
    assert scores_in(emr) == {}  # no encounter, so no row to write to
    [packet] = await packets_of(app)
    delivery = await app.store.read_delivery(f"{packet.packet_id}.score-column")
    assert (delivery.state, delivery.last_error) == (DeliveryState.DEAD, "emr-refused")


async def test_the_encounter_is_found_through_the_order(app, emr):
    await app.infer(encounterId=None)
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}


async def test_no_address_that_the_emr_is_called_at_names_the_patient(app, emr):
    await app.infer()
    assert len(emr.addresses) == 7  # six searches and one write
    assert [address for address in emr.addresses if "p1" in address or "421" in address] == []


async def test_a_smart_emr_is_called_with_a_token_fetched_once(emr_of, app_of, chart_of, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from mock_emr.assertion import keys_in

    private = ec.generate_private_key(ec.SECP384R1())
    numbers = private.public_key().public_numbers()

    def coordinate(number):
        return base64.urlsafe_b64encode(number.to_bytes(48, "big")).decode().rstrip("=")

    jwk = {"kty": "EC", "crv": "P-384", "kid": "key-1", "x": coordinate(numbers.x), "y": coordinate(numbers.y)}
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    emr = await emr_of(
        *chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"),
        clients={"client-1": keys_in(json.dumps({"keys": [jwk]}).encode())},
    )
    app = app_of(
        emr.url,
        DEPLOYR_EMR_CLIENT_ID="client-1",
        DEPLOYR_EMR_KEY_FILE=str(key_file),
        DEPLOYR_EMR_KEY_ID="key-1",
        DEPLOYR_EMR_KEY_ALGORITHM="ES384",
    )
    assert content(await app.infer())["score"] == 0.75
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}
    assert len([address for address in emr.addresses if address.startswith("/oauth2/token")]) == 1


# -- again


async def test_a_repeat_gets_the_same_body_and_no_second_packet_or_write(app, emr):
    first = await app.infer()
    asked = len(emr.addresses)
    again = await app.infer()
    assert again.headers["X-Bridge-Replay"] == "1"
    assert (again.status_code, again.get_body()) == (first.status_code, first.get_body())
    assert len(emr.addresses) == asked
    assert len(await packets_of(app)) == 1
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}


async def test_twenty_at_once_get_the_same_body_for_one_packet_and_one_write(app, emr):
    responses = await asyncio.gather(*(app.infer() for _ in range(20)))
    assert len({response.get_body() for response in responses}) == 1
    assert sorted(response.headers.get("X-Bridge-Replay", "0") for response in responses) == ["0"] + ["1"] * 19
    assert len(await packets_of(app)) == 1
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}


async def test_a_repeat_after_a_restart_gets_the_stored_answer(app, app_of, emr):
    first = await app.infer()
    again = await app_of(emr.url).infer()
    assert (again.get_body(), again.headers["X-Bridge-Replay"]) == (first.get_body(), "1")
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}


async def test_a_key_used_for_another_patient_is_a_conflict(app, emr):
    await app.infer(idempotencyKey="k")
    response = await app.infer(idempotencyKey="k", patientId="p2", encounterId="e2", orderId="o2")
    refusal(response, 409, "idempotency-key-reused")
    assert len(await packets_of(app)) == 1


# -- refused


async def test_an_unknown_patient_is_rejected_and_stored(app, emr):
    refusal(await app.infer(patientId="p9", encounterId=None, orderId=None), 422, "unknown-patient")
    [packet] = await packets_of(app)
    assert packet.outcome == Rejected(reason="unknown-patient")
    assert scores_in(emr) == {}


@pytest.mark.parametrize("fields", [{"encounterId": "nowhere", "orderId": None}, {"orderId": "nowhere"}])
async def test_an_unknown_encounter_or_order_is_rejected_and_stored(app, fields):
    refusal(await app.infer(**fields), 422, "unknown-context")
    [packet] = await packets_of(app)
    assert packet.outcome == Rejected(reason="unknown-context")


@pytest.mark.parametrize(
    "fields", [{"encounterId": "e2", "orderId": None}, {"orderId": "o2", "encounterId": None}, {"patientId": "p2"}]
)
async def test_an_encounter_or_order_of_another_patient_is_rejected_and_stored(app, emr, fields):
    refusal(await app.infer(**fields), 422, "wrong-patient")
    [packet] = await packets_of(app)
    assert packet.outcome == Rejected(reason="wrong-patient")
    assert scores_in(emr) == {}


@pytest.mark.parametrize("route", ["Observation", "Patient"])
async def test_an_answer_with_another_patient_in_it_is_rejected_and_stored(app, emr, route):
    emr.parts.faults.put((Rule(route=route, body="foreign-subject"),))
    response = await app.infer()
    if route == "Patient":  # two patients where one was asked for
        refusal(response, 422, "unknown-patient")
    else:
        refusal(response, 422, "wrong-patient")
        [packet] = await packets_of(app)
        assert packet.outcome == Rejected(reason="wrong-patient")
    assert scores_in(emr) == {}


NOTHING_STORED = {
    "a patient id with a slash": ({"patientId": "p1/x"}, {}, 400, "malformed-request"),
    "no patient": ({"patientId": None}, {}, 400, "malformed-request"),
    "an unknown field": ({"score": 1}, {}, 400, "malformed-request"),
    "no JSON": ({"body": b"{"}, {}, 400, "malformed-request"),
    "another content type": ({}, {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
    "too large": ({"body": b" " * 70_000}, {}, 413, "request-too-large"),
    "an unknown model": ({"model": "unknown"}, {}, 404, "unknown-model"),
    "no model's name": ({"model": "../../etc/passwd"}, {}, 404, "unknown-model"),
    "an event in the future": ({"eventTime": "2015-01-09T20:55:00Z"}, {}, 422, "event-in-future"),
    "30 February": ({"eventTime": "2015-02-30T20:55:00Z"}, {}, 400, "malformed-request"),
}


@pytest.mark.parametrize("name", NOTHING_STORED)
async def test_what_cannot_be_asked_is_refused_before_the_emr_is_called_or_anything_is_stored(app, emr, name):
    fields, headers, status, reason = NOTHING_STORED[name]
    diagnostics = refusal(await app.infer(headers=headers, **fields), status, reason)
    assert diagnostics.removeprefix("patientId: ").removeprefix("eventTime: ").startswith("expected")
    assert emr.addresses == []
    assert await packets_of(app) == ()


# -- failed


async def failed_with(app, reason):
    """Check that the one packet has failed for that reason, and that nothing waits to be sent."""
    [packet] = await packets_of(app)
    assert isinstance(packet.outcome, Failed)
    assert packet.outcome.reason == reason
    tomorrow = packet.as_of + timedelta(days=3650)
    assert await app.store.pending_deliveries(due_before=tomorrow, limit=10) == ()


async def test_an_emr_that_is_down_is_a_503_with_a_stored_failed_packet(app_of):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    app = app_of(f"http://127.0.0.1:{port}")
    response = await app.infer()
    refusal(response, 503, "emr-unreachable")
    assert int(response.headers["Retry-After"]) > 0
    await failed_with(app, "emr-unreachable")


async def test_an_emr_that_does_not_answer_in_time_is_a_503_at_the_deadline(emr, app_of):
    emr.parts.faults.put((Rule(route="Observation", delay_ms=60_000),))
    app = app_of(emr.url, DEPLOYR_DEADLINE_S="0.3")
    loop = asyncio.get_running_loop()
    started = loop.time()
    refusal(await app.infer(), 503, "emr-timeout")
    assert loop.time() - started < 3
    await failed_with(app, "emr-timeout")
    assert scores_in(emr) == {}


@pytest.mark.parametrize("route", ["Patient", "Encounter", "ServiceRequest", "Observation", "Condition"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"body": "html"}, "emr-bad-response"),
        ({"body": "truncated"}, "emr-bad-response"),
        ({"body": "empty"}, "emr-bad-response"),
        ({"status": 500}, "emr-unreachable"),
        ({"status": 429}, "emr-throttled"),
        ({"status": 403}, "emr-refused"),
        ({"status": 404}, "emr-bad-response"),
    ],
    ids=str,
)
async def test_an_emr_that_answers_wrongly_is_a_503_and_never_scored_as_no_data(app, emr, route, fault, reason):
    emr.parts.faults.put((Rule(route=route, **fault),))
    refusal(await app.infer(), 503, reason)
    await failed_with(app, reason)
    assert scores_in(emr) == {}


async def test_a_moment_of_trouble_is_ridden_out_within_the_request(app, emr):
    emr.parts.faults.put((Rule(route="Observation", status=503, times=1),))
    assert content(await app.infer())["score"] == 0.75
    [packet] = await packets_of(app)
    assert {fetch.name: fetch.requests for fetch in packet.fetches}["labs"] == 2


async def test_a_failure_heals_when_it_is_asked_again(app, emr):
    emr.parts.faults.put((Rule(route="Observation", status=500, times=1),))
    refusal(await app.infer(), 503, "emr-unreachable")
    response = await app.infer()
    assert content(response)["score"] == 0.75
    assert "X-Bridge-Replay" not in response.headers
    [packet] = await packets_of(app)
    assert [attempt.reason for attempt in packet.earlier_attempts] == ["emr-unreachable"]
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}


async def test_a_failure_that_nobody_foresaw_is_a_500_that_tells_nothing_and_a_stored_failed_packet(app, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError("CANARY")

    monkeypatch.setattr(type(app.application.services.source), "fetch", fail)
    response = await app.infer()
    assert refusal(response, 500, "unexpected") is None
    assert b"CANARY" not in response.get_body()
    await failed_with(app, "unexpected")


async def test_without_a_store_there_is_no_score(emr, app_of, tmp_path):
    app = app_of(emr.url, DEPLOYR_STORE=f"sqlite:{tmp_path}")
    refusal(await app.infer(), 503, "store-unavailable")
    assert emr.addresses == []


# -- a bundle that is not what it says


@pytest.fixture
def spoilt(bundles_folder, app_of, emr):
    """Give the app with one bit of the hematocrit model flipped."""
    file = bundles_folder / "hematocrit" / MODEL_FILE
    model = bytearray(file.read_bytes())
    model[100] ^= 1
    file.write_bytes(model)
    return app_of(emr.url)


async def test_a_bundle_with_a_flipped_bit_is_a_503_with_a_stored_failed_packet_and_stops_no_other(spoilt, emr):
    refusal(await spoilt.infer(), 503, "model-unavailable")
    await failed_with(spoilt, "model-unavailable")
    assert emr.addresses == []
    assert content(await spoilt.infer(model="anemia"))["score"] == 0.75


async def test_readiness_says_which_model_is_not_available_and_why(spoilt):
    response = await spoilt.get("health_ready")
    assert response.status_code == 503
    answer = content(response)
    assert (answer["status"], answer["store"], answer["models"]["anemia"]) == ("not-ready", "ok", "ok")
    assert answer["models"]["hematocrit"].startswith(f"{MODEL_FILE}: expected SHA-256")


# -- health


async def test_an_app_with_its_models_and_its_store_is_ready(app):
    response = await app.get("health_ready")
    assert (response.status_code, content(response)) == (
        200,
        {"status": "ready", "store": "ok", "emr": "ok", "models": {"anemia": "ok", "hematocrit": "ok"}},
    )


async def test_readiness_lists_shadows_and_one_that_cannot_be_used_takes_nothing_away(
    emr, app_of, bundle_files, tmp_path
):
    whole, spoilt = (write_run(tmp_path / "runs" / "hematocrit", bundle_files, version=each) for each in ("2", "3"))
    (tmp_path / "runs" / "hematocrit" / spoilt.run_id / "bundle" / MODEL_FILE).write_bytes(b"")
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "hematocrit.yaml").write_text(
        f"schema_version: 1\nmodel: hematocrit\nmode: silent\nshadows: [{whole.run_id}, {spoilt.run_id}]\n"
    )
    app = app_of(
        emr.url, DEPLOYR_BUNDLE_ARCHIVE=str(tmp_path / "runs"), DEPLOYR_DEPLOYMENTS=str(tmp_path / "deployments")
    )
    ready = await app.get("health_ready")
    shadows = content(ready)["shadows"]
    assert (ready.status_code, shadows[whole.run_id]) == (200, "ok")
    assert shadows[spoilt.run_id].startswith(f"{MODEL_FILE}: expected")


async def test_an_app_without_its_store_is_alive_but_not_ready(emr, app_of, tmp_path):
    app = app_of(emr.url, DEPLOYR_STORE=f"sqlite:{tmp_path}")
    ready = await app.get("health_ready")
    assert (ready.status_code, content(ready)["store"]) == (503, "unavailable")
    live = await app.get("health_live")
    assert (live.status_code, content(live)) == (200, {"status": "live"})


async def test_an_app_without_models_is_not_ready(emr, app_of, tmp_path):
    app = app_of(emr.url, DEPLOYR_BUNDLES=str(tmp_path / "nowhere"))
    assert (await app.get("health_ready")).status_code == 503


# -- correlation


async def test_a_callers_correlation_id_is_kept_in_answer_and_packet(app):
    response = await app.infer(headers={"X-Correlation-Id": "caller-1.2_3"})
    assert response.headers["X-Correlation-Id"] == "caller-1.2_3"
    [packet] = await packets_of(app)
    assert packet.trigger.correlation_id == "caller-1.2_3"


@pytest.mark.parametrize("given", ["a\r\nSet-Cookie: x", "a%0d%0a", "a b", "x" * 65, "é", ""])
async def test_a_correlation_id_that_could_split_a_log_line_is_replaced(app, given):
    response = await app.infer(headers={"X-Correlation-Id": given})
    made = response.headers["X-Correlation-Id"]
    assert made != given
    assert len(made) == 36
    [packet] = await packets_of(app)
    assert packet.trigger.correlation_id == made


# -- timers


@pytest.mark.parametrize("fault", [{"status": 503}, {"body": "html"}], ids=str)
async def test_a_score_that_could_not_be_written_is_sent_by_the_relay(app, emr, now, fault):
    emr.parts.faults.put((Rule(route="score", times=1, **fault),))
    assert content(await app.infer())["score"] == 0.75
    assert scores_in(emr) == {}
    await app.fire("relay_deliveries")
    assert scores_in(emr) == {}  # still too young
    app.set_clock(now + timedelta(seconds=61))
    for _ in range(2):
        await app.fire("relay_deliveries")
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}


async def test_a_score_that_the_emr_refuses_is_dead_and_the_answer_stands(app, emr, now):
    emr.parts.faults.put((Rule(route="score", status=422),))
    assert content(await app.infer())["score"] == 0.75
    [packet] = await packets_of(app)
    delivery = await app.store.read_delivery(f"{packet.packet_id}.score-column")
    assert (delivery.state, delivery.last_error) == (DeliveryState.DEAD, "emr-refused")


async def test_a_write_whose_answer_was_lost_leaves_one_score_after_the_relay(app, emr, now):
    emr.parts.faults.put((Rule(route="score", body="truncated", times=1),))
    await app.infer()
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}
    app.set_clock(now + timedelta(seconds=61))
    await app.fire("relay_deliveries")
    assert scores_in(emr) == {("DEPLOYR.HCT@1", "421"): ["75"]}
    [packet] = await packets_of(app)
    delivery = await app.store.read_delivery(f"{packet.packet_id}.score-column")
    assert (delivery.state, delivery.attempts) == (DeliveryState.SENT, 2)


async def test_the_day_after_each_prediction_has_its_label_and_a_second_run_changes_nothing(app, emr, now):
    await app.infer()
    await app.infer(patientId="p2", encounterId="e2", orderId="o2")
    await app.infer(patientId="p3", encounterId=None, orderId=None)
    await app.infer(patientId="p9", encounterId=None, orderId=None)
    await app.fire("extract_labels")
    assert await app.store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10) == ()
    tomorrow = now + timedelta(days=1)
    app.set_clock(tomorrow)
    emr.parts.clock.put(tomorrow)
    for _ in range(2):
        await app.fire("extract_labels")
        labels = await app.store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10)
        outcomes = {label.packet_id: msgspec.to_builtins(label.outcome) for label in labels}
        by_patient = {packet.subject.patient_id: outcomes.get(packet.packet_id) for packet in await packets_of(app)}
        # 30 % is under 35 %; 41 % is within; no result ever came; never scored.
        assert (by_patient["p1"]["value"], by_patient["p1"]["source_id"]) == (1.0, "lab1-after")
        assert by_patient["p2"]["value"] == 0.0
        assert by_patient["p3"] == {"kind": "censored", "reason": "no-result"}
        assert by_patient["p9"] is None
