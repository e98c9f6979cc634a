"""`deployr send-test` against a mock EMR: what it prints, what it keeps to itself, and what it writes."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.send_test import run_send_test

FILE = """
schema_version: 1
flowsheet: {rows: {hematocrit: "90001"}}
smart-data: {elements: {hematocrit: "DEPLOYR#001"}}
in-basket: {recipients: [{id: "P77"}], sender_id: "DEPLOYR"}
observation: {rows: {hematocrit: "90001"}}
webhook: {url: "http://127.0.0.1:1/scores"}
"""
IDS = {"patient": "CanaryPatient7", "encounter": "CanaryEncounter7", "order": "CanaryOrder7", "csn": "970031415926"}
OTHERS = """
schema_version: 1
flowsheet: {rows: {anemia: "90001"}}
webhook: {url: "http://127.0.0.1:1/scores"}
"""
DEPLOYMENT = """
schema_version: 1
model: hematocrit
mode: live
threshold: 0.5
outputs: [webhook]
packed_in: [score-column]
message: ["{score_name} {score} by {model}"]
advisory: {headline: "Look twice: {score_percent}"}
"""
OUTPUTS = (
    "score-column",
    "flowsheet",
    "smart-data",
    "in-basket",
    "observation",
    "risk-assessment",
    "communication",
    "flag",
    "document-reference",
    "file-drop",
    "webhook",
)


@pytest.fixture
async def site(chart_of, emr_of, app_of, bundles_folder, model_proofs, tmp_path):
    """Give a function that runs the command about one scored packet of a site that writes nothing by itself."""
    patient, encounter, order, csn = IDS.values()
    emr = await emr_of(*chart_of(patient, encounter, order, csn, "lab1", value=30, birth="1950-01-01"))
    (tmp_path / "drop").mkdir()
    (tmp_path / "outputs.yaml").write_text(FILE + f'file-drop: {{folder: "{tmp_path / "drop"}"}}\n')
    settings = {
        # Nobody listens there: what is written to the EMR, the command has written.
        "DEPLOYR_OUTPUTS": "webhook",
        "DEPLOYR_OUTPUTS_FILE": str(tmp_path / "outputs.yaml"),
        "DEPLOYR_EMR_USER_ID": "U1",
        "DEPLOYR_WEBHOOK_KEY": "0123456789abcdef0123456789abcdef",
        "DEPLOYR_DEPLOYMENTS": str(tmp_path / "deployments"),
    }
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "hematocrit.yaml").write_text(DEPLOYMENT)
    app = app_of(emr.url, **settings)
    response = await app.infer(patientId=patient, encounterId=encounter, orderId=order)
    packet_id = response.headers["X-Packet-Id"]
    await app.application.aclose()

    async def run(output, *, packet=packet_id, send=False, environment=None, show_identifiers=False, **changes):
        said = io.StringIO()
        went_well = await asyncio.to_thread(
            run_send_test,
            None,
            packet_id=packet,
            output=output,
            send=send,
            environment=environment,
            show_identifiers=show_identifiers,
            console=Console(file=said, width=200),
            environ={
                "DEPLOYR_BUNDLES": str(bundles_folder),
                "DEPLOYR_MODEL_PROOFS": str(model_proofs),
                "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
                "DEPLOYR_EMR_FHIR_BASE": f"{emr.url}/api/FHIR/R4",
                "DEPLOYR_EMR_VENDOR_BASE": emr.url,
                "DEPLOYR_CLOCK_FILE": str(tmp_path / "clock"),
                **settings,
                **changes,
            },
        )
        return went_well, said.getvalue()

    run.emr = emr
    run.drop = tmp_path / "drop"
    return run


def written(site):
    parts = site.emr.parts
    return len(parts.scores.cells()), len(parts.written.flowsheet), len(parts.written.resources())


@pytest.mark.parametrize("output", OUTPUTS)
async def test_any_way_out_is_shown_and_nothing_is_sent(site, output):
    went_well, said = await site(output)
    assert went_well, said
    assert "Nothing was sent." in said
    # A document carries its text in base64.
    assert "75" in said or output == "document-reference"
    assert not any(each in said for each in IDS.values())
    assert written(site) == (0, 0, 0)
    assert list(site.drop.iterdir()) == []


async def test_it_shows_the_number_and_the_words_that_the_deployment_decides_on(site):
    assert '"1.0750"' in (await site("score-column"))[1]
    _, message = await site("in-basket")
    assert '"Look twice: 75 %"' in message
    assert '"HCT 75 % by hematocrit"' in message
    assert "Made by a computer" not in message
    assert "75 %,Look twice: 75 %" in (await site("file-drop"))[1]


async def test_identifiers_are_shown_on_demand(site):
    _, said = await site("risk-assessment", show_identifiers=True)
    assert f"Patient/{IDS['patient']}" in said
    assert f"Encounter/{IDS['encounter']}" in said


async def test_it_is_sent_once_however_often_it_is_asked_to(site):
    for _ in range(2):
        went_well, said = await site("risk-assessment", send=True)
        assert went_well, said
        assert "Sent, and taken by risk-assessment." in said
    assert written(site) == (0, 0, 1)


async def test_what_would_be_refused_is_said_before_anything_is_sent(site, tmp_path):
    (tmp_path / "others.yaml").write_text(OTHERS)
    went_well, said = await site("flowsheet", send=True, DEPLOYR_OUTPUTS_FILE=str(tmp_path / "others.yaml"))
    assert not went_well
    assert "Refused: output-not-offered" in said
    assert written(site) == (0, 0, 0)


async def test_a_packet_of_another_environment_is_refused(site):
    went_well, said = await site("flag", DEPLOYR_ENVIRONMENT="POC")
    assert not went_well
    assert "Refused: wrong-environment" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"output": "flag", "packet": "p00"}, "X-Packet-Id"),
        ({"output": "flags"}, "expected one of communication"),
        ({"output": "flag", "DEPLOYR_STORE": "memory"}, "DEPLOYR_STORE"),
        ({"output": "flag", "send": True, "environment": "PRD"}, "the very name"),
    ],
)
async def test_what_cannot_be_done_is_said_with_what_to_do(site, arguments, complaint):
    output = arguments.pop("output")
    with pytest.raises(CommandFailed, match=complaint):
        await site(output, **arguments)
    assert written(site) == (0, 0, 0)
