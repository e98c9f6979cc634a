"""Every way out, from the request to what stands in the EMR, a folder or a service afterwards."""

from __future__ import annotations

import json

import pytest

from deployr_core.packet import DeliveryState
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.outputs.webhook import SIGNATURE, TIMESTAMP, sign
from mock_emr.faults import Rule
from mock_emr.written import WriteSite

KEY = "0123456789abcdef0123456789abcdef"
FHIR_OUTPUTS = {
    "observation": "Observation",
    "risk-assessment": "RiskAssessment",
    "communication": "Communication",
    "flag": "Flag",
    "document-reference": "DocumentReference",
}
IN_THE_EMR = ("score-column", "flowsheet", "smart-data", "in-basket", *FHIR_OUTPUTS)


@pytest.fixture
def outputs_file(tmp_path):
    (tmp_path / "drop").mkdir()
    file = tmp_path / "outputs.yaml"
    file.write_text(
        f"""
schema_version: 1
flowsheet: {{rows: {{hematocrit: "90001"}}}}
smart-data: {{elements: {{hematocrit: "DEPLOYR#001"}}}}
in-basket: {{recipients: [{{id: "P77"}}], sender_id: "DEPLOYR"}}
observation: {{rows: {{hematocrit: "90001"}}}}
file-drop: {{folder: "{tmp_path / "drop"}"}}
webhook: {{url: "http://127.0.0.1:1/scores"}}
"""
    )
    return file


@pytest.fixture
def bridge_of(chart_of, emr_of, app_of, outputs_file, tmp_path):
    """Give a function that starts an EMR over one patient and the app with these outputs."""

    async def make(names, *, write_site=None, **settings):
        chart = chart_of("p1", "e1", "o1", "42", "lab1", value=30, birth="1950-01-01")
        emr = await emr_of(*chart, write_site=write_site)
        app = app_of(
            emr.url,
            **{
                "DEPLOYR_OUTPUTS": names,
                "DEPLOYR_OUTPUTS_FILE": str(outputs_file),
                "DEPLOYR_EMR_USER_ID": "U1",
                "DEPLOYR_WEBHOOK_KEY": KEY,
                **settings,
            },
        )
        return app, emr

    return make


async def deliveries_of(app, *names):
    [packet] = await app.store.packets(model_id="hematocrit", after=None, limit=10)
    found = {name: await app.store.read_delivery(f"{packet.packet_id}.{name}") for name in names}
    return {name: (delivery.state, delivery.last_error) for name, delivery in found.items()}


async def relay(app):
    app.set_clock(app.application.services.clock.now().replace(hour=22))
    await app.fire("relay_deliveries")


def held(emr, name):
    """Give what the EMR holds of one output."""
    written = emr.parts.written
    match name:
        case "score-column":
            return [row for cell in emr.parts.scores.cells() for row in cell.rows]
        case "flowsheet":
            return written.flowsheet
        case "smart-data":
            return list(written.smart_data())
        case "in-basket":
            return written.messages
        case _:
            return [one for one in written.resources() if one["resourceType"] == FHIR_OUTPUTS[name]]


async def test_one_score_goes_out_by_every_way_at_once(bridge_of, tmp_path):
    app, emr = await bridge_of(",".join((*IN_THE_EMR, "file-drop")))
    response = await app.infer()
    assert response.status_code == 200
    assert set((await deliveries_of(app, *IN_THE_EMR, "file-drop")).values()) == {(DeliveryState.SENT, None)}
    assert {name: len(held(emr, name)) for name in IN_THE_EMR} == dict.fromkeys(IN_THE_EMR, 1)
    [flowsheet] = held(emr, "flowsheet")
    # Three of the four training rows with a result were positive: 3 / 4.
    assert (flowsheet.patient_id, flowsheet.csn, flowsheet.value) == ("p1", "42", "75")
    [risk] = held(emr, "risk-assessment")
    assert risk["prediction"][0]["probabilityDecimal"] == 0.75
    [file] = (tmp_path / "drop").iterdir()
    assert file.name.endswith(".file-drop.csv")
    assert (file.stat().st_mode & 0o777) == 0o600


@pytest.mark.parametrize("name", IN_THE_EMR)
async def test_a_lost_answer_leaves_exactly_one_score_in_the_emr(bridge_of, name):
    app, emr = await bridge_of(name)
    route = {"score-column": "score"}.get(name, FHIR_OUTPUTS.get(name, name))
    lost = Rule(route=route, body="lost", times=1)
    # Observations are searched once before one is written.
    emr.parts.faults.put([Rule(route=route, times=1), lost] if name == "observation" else [lost])
    await app.infer()
    await relay(app)
    assert len(held(emr, name)) == 1
    [(state, reason)] = (await deliveries_of(app, name)).values()
    if name == "in-basket":
        assert (state, reason) == (DeliveryState.DEAD, "outcome-unknown")
    else:
        assert (state, reason) == (DeliveryState.SENT, None)


@pytest.mark.parametrize("conditional", ["honoured", "ignored"])
@pytest.mark.parametrize("name", FHIR_OUTPUTS)
async def test_a_resource_is_created_once_with_or_without_conditional_create(bridge_of, bundle, name, conditional):
    app, emr = await bridge_of(name, write_site=WriteSite(conditional=conditional))
    await app.infer()
    [packet] = await app.store.packets(model_id="hematocrit", after=None, limit=10)
    [output] = app.application.services.outputs
    for _ in range(2):
        await output.send(packet, bundle, delivery_id=f"{packet.packet_id}.{name}")
    [resource] = held(emr, name)
    assert resource["identifier"] == [{"system": "urn:deployr:delivery", "value": f"{packet.packet_id}.{name}"}]


async def test_the_first_alternative_that_the_emr_offers_is_taken(bridge_of):
    app, emr = await bridge_of("risk-assessment|observation|flowsheet", write_site=WriteSite(creates=frozenset()))
    await app.infer()
    assert len(held(emr, "flowsheet")) == 1
    assert await deliveries_of(app, "risk-assessment") == {"risk-assessment": (DeliveryState.SENT, None)}


async def test_a_type_that_is_not_offered_and_has_no_alternative_is_dead(bridge_of):
    app, emr = await bridge_of("flag", write_site=WriteSite(creates=frozenset({"Observation"})))
    await app.infer()
    assert await deliveries_of(app, "flag") == {"flag": (DeliveryState.DEAD, "output-not-offered")}
    assert emr.parts.written.resources() == ()


async def test_an_older_score_that_comes_after_a_newer_one_is_superseded(bridge_of):
    app, emr = await bridge_of("flag")
    await app.infer()
    older = await app.infer(eventTime="2015-01-06T20:50:00Z")
    assert older.status_code == 200
    states = [
        (await app.store.read_delivery(f"{packet.packet_id}.flag")).state
        for packet in await app.store.packets(model_id="hematocrit", after=None, limit=10)
    ]
    assert sorted(states) == [DeliveryState.SENT, DeliveryState.SUPERSEDED]
    assert len(held(emr, "flag")) == 1


async def test_a_score_that_could_not_be_sent_for_a_day_is_not_sent_any_more(bridge_of):
    app, emr = await bridge_of("flag")
    emr.parts.faults.put([Rule(route="Flag", status=503)])
    await app.infer()
    emr.parts.faults.put([])
    clock = app.application.services.clock
    app.set_clock(clock.now().replace(day=7, hour=20, minute=55, second=1))
    await app.fire("relay_deliveries")
    assert await deliveries_of(app, "flag") == {"flag": (DeliveryState.EXPIRED, "expired")}
    assert held(emr, "flag") == []


async def test_a_webhook_is_signed_and_repeats_its_key(bridge_of, outputs_file, server_of, reply_of, bundle):
    async def answer(head, writer):
        writer.write(reply_of(b"", status="204 No Content"))

    service = await server_of(answer)
    outputs_file.write_text(f'schema_version: 1\nwebhook: {{url: "{service.url}/scores"}}\n')
    app, _ = await bridge_of("webhook")
    await app.infer()
    assert await deliveries_of(app, "webhook") == {"webhook": (DeliveryState.SENT, None)}
    [head], [body] = service.seen.heads, service.seen.bodies
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert first == "POST /scores HTTP/1.1"
    assert headers[SIGNATURE] == "v1=" + sign(body, timestamp=headers[TIMESTAMP], key=KEY.encode())
    assert "Authorization" not in headers
    event = json.loads(body)
    assert headers["Idempotency-Key"] == event["delivery_id"]
    assert (event["patient_id"], event["score"], event["unit"]) == ("p1", 0.75, None)


async def test_a_parquet_file_holds_the_same_record(bridge_of, outputs_file, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    outputs_file.write_text(f'schema_version: 1\nfile-drop: {{folder: "{tmp_path / "drop"}", format: parquet}}\n')
    app, _ = await bridge_of("file-drop")
    await app.infer()
    [file] = (tmp_path / "drop").iterdir()
    [row] = pq.read_table(file).to_pylist()
    assert (row["patient_id"], row["csn"], row["score"], row["unit"]) == ("p1", "42", 0.75, None)


@pytest.mark.parametrize(
    ("settings", "file", "complaint"),
    [
        ({"DEPLOYR_OUTPUTS": "flowsheets"}, None, "DEPLOYR_OUTPUTS: expected each once"),
        ({"DEPLOYR_OUTPUTS": "flag,flag"}, None, "DEPLOYR_OUTPUTS: expected each once"),
        ({"DEPLOYR_OUTPUTS": "flowsheet", "DEPLOYR_EMR_USER_ID": ""}, None, "DEPLOYR_EMR_USER_ID"),
        ({"DEPLOYR_OUTPUTS": "flowsheet"}, "schema_version: 1\n", "DEPLOYR_OUTPUTS_FILE: flowsheet"),
        ({"DEPLOYR_OUTPUTS": "webhook", "DEPLOYR_WEBHOOK_KEY": "short"}, None, "at least 32 bytes"),
        ({"DEPLOYR_OUTPUTS": "webhook"}, 'schema_version: 1\nwebhook: {url: "http://h/?id=1"}\n', "without user name"),
        ({"DEPLOYR_OUTPUTS": "file-drop"}, 'schema_version: 1\nfile-drop: {folder: "/none"}\n', "one that exists"),
        ({"DEPLOYR_OUTPUTS": "flag"}, "schema_version: 1\nflagg: {}\n", "flagg"),
    ],
)
async def test_the_app_does_not_start_without_what_an_output_needs(bridge_of, outputs_file, settings, file, complaint):
    if file is not None:
        outputs_file.write_text(file)
    with pytest.raises(SettingsInvalid, match=complaint):
        await bridge_of(settings.pop("DEPLOYR_OUTPUTS"), **settings)
