"""Deployment files as the app reads them: groups, modes and the kill switch, from bytes to what reaches the EMR."""

from __future__ import annotations

import asyncio
import json

import azure.functions as func
import pytest
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app as command_line
from deployr_core import bundle as bundles
from deployr_core.packet import Mode, Scored
from deployr_core.patient_groups import PatientGroups, Payer
from deployr_serve.core.switches import HOLD_S
from mock_emr.faults import Rule

ASKED = {"patientId": "p1", "encounterId": "e1", "orderId": "o1", "eventTime": "2015-01-06T20:55:00Z"}
IN_GROUP = "schema_version: 1\nmodel: {model}\nmode: live\ngroups: [cbc]\n"
TRIAL = """\
schema_version: 1
model: hematocrit
mode: trial
threshold: 0.5
trial:
  trial_id: t
  version: 1
  unit: department
  arms: [{name: control, shows: false}, {name: advisory, shows: true}]
"""


def _coverage(code, **elements):
    kind = {"coding": [{"system": "https://nahdo.org/sopt", "code": code}]}
    coverage = {"resourceType": "Coverage", "id": f"c{code}", "status": "active", "type": kind}
    return {**coverage, "subscriberId": "CANARY", "beneficiary": {"reference": "Patient/p1"}, **elements}


@pytest.fixture
async def emr(emr_of, chart_of):
    chart = chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04")
    return await emr_of(*chart, _coverage("512", order=2), _coverage("111", order=1))


@pytest.fixture
def deployed(emr, app_of, bundle_files, tmp_path):
    """Give a function that makes the app with these models and deployment files."""

    def make(*files, models=("hematocrit",), **settings):
        for model in models:
            folder = tmp_path / "deployed" / model
            folder.mkdir(parents=True)
            manifest = json.loads(bundle_files[bundles.MANIFEST_FILE]) | {"model_id": model}
            for name, content in {**bundle_files, bundles.MANIFEST_FILE: json.dumps(manifest).encode()}.items():
                (folder / name).write_bytes(content)
        deployments = tmp_path / "deployments"
        deployments.mkdir()
        for number, text in enumerate(files):
            (deployments / f"{number}.yaml").write_text(text)
        return app_of(
            emr.url, DEPLOYR_BUNDLES=str(tmp_path / "deployed"), DEPLOYR_DEPLOYMENTS=str(deployments), **settings
        )

    return make


async def ask_group(app, group="cbc", body=None):
    request = func.HttpRequest(
        "POST",
        f"/api/groups/{group}/infer",
        headers={"Content-Type": "application/json"},
        route_params={"group": group},
        body=json.dumps(ASKED).encode() if body is None else body,
    )
    response = await app.functions["infer_group"](request)
    return response, json.loads(response.get_body())


async def packet_of_model(app, model="hematocrit"):
    [packet] = await app.store.packets(model_id=model, after=None, limit=10)
    return packet


# -- groups


async def test_a_group_is_answered_model_by_model_with_one_fetch_and_each_its_own_packet(deployed, emr):
    models = ("hematocrit", "hemoglobin")
    app = deployed(*(IN_GROUP.format(model=model) for model in models), models=models)
    response, content = await ask_group(app)
    assert response.status_code == 200
    assert {model: result["score"] for model, result in content["results"].items()} == dict.fromkeys(models, 0.75)
    ids = {result["packetId"] for result in content["results"].values()}
    assert ids == {(await packet_of_model(app, model)).packet_id for model in models}
    # Six searches for both of them, and a write each.
    assert len(emr.addresses) == 6 + 2
    again, same = await ask_group(app)
    assert (same, again.headers["X-Bridge-Replay"]) == (content, "1")
    assert len(emr.addresses) == 6 + 2


async def test_a_model_that_is_not_available_hides_no_other(deployed, tmp_path):
    models = ("hematocrit", "hemoglobin")
    files = [IN_GROUP.format(model=model) for model in models]
    (tmp_path / "deployed" / "platelets").mkdir(parents=True)
    (tmp_path / "deployed" / "platelets" / bundles.MANIFEST_FILE).write_text("{}")
    app = deployed(*files, IN_GROUP.format(model="platelets"), models=models)
    response, content = await ask_group(app)
    assert response.status_code == 200
    assert {model: result["status"] for model, result in content["results"].items()} == {
        "hematocrit": "scored",
        "hemoglobin": "scored",
        "platelets": "failed",
    }
    assert content["results"]["platelets"]["reason"] == "model-unavailable"


async def test_where_nothing_could_be_scored_the_group_gets_the_status_of_its_first_model(deployed, emr):
    app = deployed(IN_GROUP.format(model="hematocrit"))
    body = json.dumps({**ASKED, "patientId": "nobody"}).encode()
    response, content = await ask_group(app, body=body)
    assert response.status_code == 422
    assert content["results"]["hematocrit"]["status"] == "rejected"


@pytest.mark.parametrize("group", ["other", "hematocrit", "..%2f", ""])
async def test_an_unknown_group_is_a_404(deployed, group):
    response, content = await ask_group(deployed(IN_GROUP.format(model="hematocrit")), group=group)
    assert (response.status_code, content["resourceType"]) == (404, "OperationOutcome")


async def test_a_bad_body_to_a_group_is_refused_as_for_a_model(deployed):
    response, _ = await ask_group(deployed(IN_GROUP.format(model="hematocrit")), body=b'{"patientId":"p1"}')
    assert response.status_code == 400


# -- modes


async def test_silent_mode_answers_the_system_and_writes_nothing_to_the_emr(deployed, emr):
    app = deployed("schema_version: 1\nmodel: hematocrit\nmode: silent\nthreshold: 0.5\n")
    content = json.loads((await app.infer()).get_body())
    assert (content["status"], content["score"]) == ("scored", 0.75)
    assert emr.parts.scores.cells() == ()
    assert (await packet_of_model(app)).outcome.decision.mode is Mode.SILENT


async def test_json_tells_nothing_of_the_arm_and_the_packet_everything(deployed, emr):
    app = deployed(TRIAL)
    answers, shown = [], []
    for number in range(16):
        response = await app.infer(orderId=None, idempotencyKey=f"k{number}", context={"department": f"d{number}"})
        content = json.loads(response.get_body())
        packet = (await app.store.read(content.pop("packetId"))).packet
        assert isinstance(packet.outcome, Scored)
        assert packet.outcome.decision.assignment.arm in {"control", "advisory"}
        answers.append(content)
        shown.append(packet.outcome.decision.advise)
        delivery = await app.store.read_delivery(f"{packet.packet_id}.score-column")
        # A score that can be seen in a column is no control.
        assert (delivery is not None) == packet.outcome.decision.advise
    assert set(shown) == {True, False}
    assert all(content == answers[0] for content in answers)


async def test_without_the_unit_nobody_takes_part(deployed):
    app = deployed(TRIAL)
    await app.infer()
    assert (await packet_of_model(app)).outcome.decision.why == "not-eligible"


WEDGE = (
    TRIAL
    + """\
  method:
    kind: stepped-wedge
    clusters: [7A, 7B]
    steps: [2015-01-01T00:00:00Z, 2015-06-01T00:00:00Z]
    sequence: [[7B], [7A]]
"""
)


async def test_a_stepped_wedge_shows_in_the_cluster_that_has_changed_over_and_in_no_other(deployed):
    app = deployed(WEDGE)
    for ward, why in (("7A", "control"), ("7B", "advised"), ("8A", "cluster-not-listed")):
        response = await app.infer(idempotencyKey=ward, context={"department": ward, "provider": "dr1"})
        decision = (await app.store.read(json.loads(response.get_body())["packetId"])).packet.outcome.decision
        assert (decision.why, decision.eligible) == (why, why != "cluster-not-listed")


# -- who pays


async def test_the_emr_is_asked_who_pays_where_the_deployment_says_so(deployed, emr):
    app = deployed("schema_version: 1\nmodel: hematocrit\nmode: live\nread_insurance: true\n")
    assert json.loads((await app.infer()).get_body())["score"] == 0.75
    packet = await packet_of_model(app)
    assert packet.patient_groups == PatientGroups(insurance=Payer.PUBLIC)
    assert [each.resource for each in packet.fetches].count("Coverage") == 1
    assert sum("Coverage/_search" in each for each in emr.addresses) == 1


async def test_an_emr_that_does_not_say_who_pays_leaves_the_score_as_it_is(deployed, emr):
    app = deployed("schema_version: 1\nmodel: hematocrit\nmode: live\nread_insurance: true\n")
    emr.parts.faults.put((Rule(route="Coverage", status=403),))
    assert json.loads((await app.infer()).get_body())["score"] == 0.75
    packet = await packet_of_model(app)
    assert packet.patient_groups is None
    [failed] = [each for each in packet.fetches if each.error]
    assert (failed.name, failed.error) == ("coverage", "emr-refused")


# -- the command line


@pytest.fixture
def switch(tmp_path, emr, monkeypatch):
    """Give a function that runs `deployr switch` with the app's settings."""
    settings = tmp_path / "site.settings.json"

    def run(*arguments):
        values = {
            "DEPLOYR_BUNDLES": str(tmp_path / "deployed"),
            "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
            "DEPLOYR_EMR_FHIR_BASE": f"{emr.url}/api/FHIR/R4",
        }
        settings.write_text(json.dumps({"Values": values}))
        return CliRunner().invoke(command_line, ["switch", *arguments, "--settings", str(settings)])

    return run


async def test_the_command_stops_a_running_app_and_lets_it_go_on(deployed, emr, switch, monkeypatch):
    app = deployed(IN_GROUP.format(model="hematocrit"))
    await app.infer()
    clock = app.application.services.clock
    for command, status in (("off", "abstained"), ("on", "scored")):
        arguments = [command, "--model", "hematocrit", "--why", "a test", "--by", "on-call"]
        told = await asyncio.to_thread(switch, *arguments)
        assert told.exit_code == 0, told.output
        later = clock.monotonic() + HOLD_S
        monkeypatch.setattr(clock, "monotonic", lambda now=later: now)
        response = await app.infer(idempotencyKey=command)
        assert json.loads(response.get_body())["status"] == status
    listed = (await asyncio.to_thread(switch, "list")).output
    assert "model.hematocrit: on" in listed
    assert "off by on-call: a test" in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("off", "--model", "hematocrti", "--why", "x"), "expected a model in"),
        (("off", "--why", "x"), "expected one of --model ID, --site and --all"),
        (("off", "--site", "--all", "--why", "x"), "expected one of --model ID, --site and --all"),
        (("off", "--site", "--why", "x"), "is this where the app runs?"),
    ],
)
def test_a_command_that_would_stop_nothing_is_refused(switch, arguments, said):
    told = switch(*arguments)
    assert isinstance(told.exception, CommandFailed)
    assert said in str(told.exception)
