"""Two hospitals in one app: whatever is one's own is tried at the other, by the app's real routes, and refused."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from datetime import UTC, datetime, timedelta

import azure.functions as func
import pytest
from typer.testing import CliRunner

from deployr_cli.main import app as command_line
from deployr_core.bundle import MANIFEST_FILE, sha256_hex
from deployr_core.monitoring.alerting import Silenced
from deployr_core.packet import Scored
from deployr_serve.adapters.proving import Prover
from deployr_serve.core.alert_desk import silence, silences
from deployr_serve.core.batch_runs import all_runs
from deployr_serve.core.ports import Belongings
from deployr_serve.local_host.queue_file import QueueFile
from tests.cda import EXAMPLE
from tests.functional.deployr_serve.cds_parts import draft, order_sign, signer
from tests.json_callers import entra_token
from tests.site_parts import ADMIN, Hospitals, audience, basic, public, write_site

ASKED = {
    "patientId": "p1",
    "encounterId": "e1",
    "orderId": "o1",
    "eventTime": "2015-01-06T20:55:00Z",
    "idempotencyKey": "the-same-at-both",
}
NORTH, SOUTH = "north", "south"
SLOT = datetime(2015, 1, 6, 20, tzinfo=UTC)


def hook_call(fhir_base):
    return {
        "hook": "order-sign",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "fhirServer": fhir_base,
        "context": order_sign(draft()),
    }


def token_of_hooks(site, path):
    return {"Authorization": f"Bearer {signer().token(audience=f'{public(site)}/{path}', now=datetime.now(UTC))}"}


def token_of_entra(site, **claims):
    return {"Authorization": f"Bearer {entra_token(aud=audience(site), **claims)}"}


@pytest.fixture
async def written(emr_of, chart_of, bundles_folder, tmp_path, model_proofs, now, monkeypatch):
    """Give the addresses of two EMRs that know a patient p1; at the north alone there is a result before the order."""
    chart = chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04")
    # At the south nothing is known before the order, so that the model says 1 / 4 there and 3 / 4 at the north.
    later = [each for each in chart if each.get("id") != "lab1-before"]
    ward = [{**each, "location": [{"location": {"reference": "Location/icu"}}]} for each in chart if each["id"] == "e1"]
    chart = [each for each in chart if each["id"] != "e1"] + ward
    emrs = {NORTH: await emr_of(*chart, at=NORTH + "-chart"), SOUTH: await emr_of(*later, at=SOUTH + "-chart")}
    clock = tmp_path / "clock"
    clock.write_text(now.isoformat())

    def copied(to):
        shutil.copytree(bundles_folder, to, dirs_exist_ok=True)

    # What was tried out once need not be again; each site has a file of its own all the same.
    tried = {sha256_hex((each / MANIFEST_FILE).read_bytes()): each for each in bundles_folder.iterdir()}
    assert Prover(model_proofs, allow_pickle=False, trusted_keys=()).refused(tried) == {}

    def proofs(site):
        return shutil.copy(model_proofs, tmp_path / site / "proofs.json")

    def write(site, **settings):
        url = emrs[site].url if site in emrs else emrs[SOUTH].url
        return write_site(tmp_path, site, url, copied, clock=clock, proofs=proofs, **settings)

    for site in emrs:
        write(site)
    monkeypatch.setenv("DEPLOYR_SITES", str(tmp_path / "sites"))
    monkeypatch.setenv("AzureWebJobsStorage", f"sqlite:{tmp_path / 'queues.sqlite'}")
    return type("Written", (), {"emrs": emrs, "write": staticmethod(write), "clock": clock})


@pytest.fixture
async def opened(written, tmp_path):
    """Give a function that starts the app over what is written."""
    before, made = logging.getLogRecordFactory(), []

    def start():
        made.append(Hospitals(tmp_path))
        return made[-1]

    yield start
    for each in made:
        await each.aclose()
    logging.setLogRecordFactory(before)


@pytest.fixture
def hospitals(opened):
    return opened()


async def infer(hospitals, site, *, model="hematocrit", headers=None, **asked):
    proof = basic(site, "engine") if headers is None else headers
    return await hospitals.ask("POST", f"/sites/{site}/api/models/{model}/infer", {**ASKED, **asked}, **proof)


async def test_the_same_question_at_both_gets_each_its_own_answer_packet_and_hash(hospitals):
    answers = await asyncio.gather(*(infer(hospitals, site) for site in (NORTH, SOUTH) * 2))
    assert [answer.status for answer in answers] == [200] * 4
    # One result in the window, or none.
    assert [json.loads(answer.told)["score"] for answer in answers] == [3 / 4, 1 / 4] * 2
    [north], [south] = await hospitals.packets(NORTH), await hospitals.packets(SOUTH)
    assert (north.site, south.site) == (NORTH, SOUTH)
    assert north.packet_id != south.packet_id
    assert north.patient_hash != south.patient_hash
    assert await hospitals.store(SOUTH).read(north.packet_id) is None
    assert await hospitals.store(SOUTH).packets_of(north.patient_hash, after=None, limit=9) == ()
    assert await hospitals.store(SOUTH).belongings(north.packet_id) == Belongings()


CROSSINGS = {
    "JSON by password": ("POST", "api/models/hematocrit/infer", ASKED, lambda site: basic(site, "engine")),
    "JSON by Entra": ("POST", "api/models/hematocrit/infer", ASKED, token_of_entra),
    "a group": ("POST", "api/groups/cbc/infer", ASKED, lambda site: basic(site, "engine")),
    "a form": ("GET", "api/models/hematocrit/form", b"", lambda site: basic(site, "engine")),
    "hooks, discovery": ("GET", "cds-services", b"", lambda site: token_of_hooks(site, "cds-services")),
    "hooks": (
        "POST",
        "cds-services/hematocrit-order-sign",
        hook_call("https://emr.example"),
        lambda site: token_of_hooks(site, "cds-services/hematocrit-order-sign"),
    ),
    "feedback": (
        "POST",
        "cds-services/hematocrit-order-sign/feedback",
        {"feedback": []},
        lambda site: token_of_hooks(site, "cds-services/hematocrit-order-sign"),
    ),
    "an alert": ("POST", "api/bpa/hematocrit", EXAMPLE.encode(), lambda site: basic(site, "alert")),
    "the registry by password": ("GET", "api/registry/models", b"", lambda site: basic(site, "grace")),
    "the registry by Entra": (
        "GET",
        "api/registry/models",
        b"",
        lambda site: token_of_entra(site, oid=ADMIN, azp=None, scp="x", roles=["deployr.approver"]),
    ),
}


async def test_what_lets_in_at_one_is_refused_at_the_other_like_any_stranger_and_audited_there(hospitals, written):
    for number, (what, (method, path, body, proof)) in enumerate(CROSSINGS.items(), start=1):
        for mine, theirs in ((NORTH, SOUTH), (SOUTH, NORTH)):
            asked_before = len(written.emrs[theirs].addresses)
            crossed = await hospitals.ask(method, f"/sites/{theirs}/{path}", body, **proof(mine))
            stranger = await hospitals.ask(method, f"/sites/{theirs}/{path}", body, Authorization="Basic bm9ib2R5Onh4")
            nothing = await hospitals.ask(method, f"/sites/{theirs}/{path}", body)
            assert (crossed.status, crossed.told) == (401, stranger.told), what
            assert {crossed.status, stranger.status, nothing.status} == {401}, what
            assert len(written.emrs[theirs].addresses) == asked_before, what
            told = hospitals.audited(theirs)[-3:]
            assert told == [("", "not-authenticated", theirs)] * 3, what
        # And it is no broken proof: at home it lets in.
        at_home = await hospitals.ask(method, f"/sites/{NORTH}/{path}", body, **proof(NORTH))
        assert at_home.status not in {401, 500}, (what, at_home.told)
        refused = [
            sum(said.startswith("not-auth") for _, said, _ in hospitals.audited(site)) for site in (NORTH, SOUTH)
        ]
        assert refused == [3 * number] * 2, what


async def test_a_role_is_a_sites_own(hospitals):
    # Grace may approve at both, and Vic may only look: her words there are not Vic's, and his are not hers.
    act = "api/registry/models/hematocrit/runs/hematocrit-0123456789ab/approve"
    body = {"why": "good"}
    forged = {"Authorization": basic(NORTH, "grace")["Authorization"]}
    assert (await hospitals.ask("POST", f"/sites/{SOUTH}/{act}", body, **forged)).status == 401
    viewer = await hospitals.ask("POST", f"/sites/{SOUTH}/{act}", body, **basic(SOUTH, "vic"))
    assert (viewer.status, json.loads(viewer.told)["reason"]) == (403, "not-your-role")
    assert hospitals.audited(SOUTH) == [("", "not-authenticated", SOUTH), ("vic", "refused", SOUTH)]
    assert hospitals.audited(NORTH) == []


async def test_a_card_of_one_is_unknown_at_the_other_even_to_the_others_own_client(hospitals, written):
    path = "cds-services/hematocrit-order-sign"
    body = hook_call(f"{written.emrs[NORTH].url}/api/FHIR/R4")
    shown = await hospitals.ask("POST", f"/sites/{NORTH}/{path}", body, **token_of_hooks(NORTH, path))
    [card] = json.loads(shown.told)["cards"]
    told = {"card": card["uuid"], "outcome": "accepted", "outcomeTimestamp": "2015-01-06T20:57:00Z"}
    body = {"feedback": [{**told, "acceptedSuggestions": [{"id": card["suggestions"][0]["uuid"]}]}]}
    unknown = {"feedback": [{**body["feedback"][0], "card": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"}]}
    crossed, absent = [
        await hospitals.ask("POST", f"/sites/{SOUTH}/{path}/feedback", each, **token_of_hooks(SOUTH, path))
        for each in (body, unknown)
    ]
    assert (crossed.status, crossed.told) == (404, absent.told)
    [packet] = await hospitals.packets(NORTH)
    before = await hospitals.store(NORTH).events(packet.packet_id)
    at_home = await hospitals.ask("POST", f"/sites/{NORTH}/{path}/feedback", body, **token_of_hooks(NORTH, path))
    assert at_home.status == 200
    assert len(await hospitals.store(NORTH).events(packet.packet_id)) == len(before) + 1
    assert await hospitals.packets(SOUTH) == []


async def test_the_same_unit_is_assigned_at_each_by_itself(hospitals):
    for site in (NORTH, SOUTH):
        answer = await infer(hospitals, site, model="anemia", context={"department": "icu"})
        assert answer.status == 200, answer.told
    [north], [south] = [[each.outcome.decision for each in await hospitals.packets(site)] for site in (NORTH, SOUTH)]
    assert north.assignment.unit_hash != south.assignment.unit_hash
    now = datetime(2015, 1, 6, 21, tzinfo=UTC)
    kept = [await records_of(hospitals.store(site), now) for site in (NORTH, SOUTH)]
    assert all(kept)
    assert not set(kept[0]) & set(kept[1])


async def records_of(store, now):
    return [record_id for kind in ("assignment", "trial-unit") for record_id in await store.records(kind, now=now)]


async def test_what_is_switched_off_or_silenced_at_one_goes_on_at_the_other(hospitals):
    # Which makes their stores; switches are read when somebody is asked for the first time.
    assert (await hospitals.ask("GET", "/api/health/ready")).status == 200
    off = ["switch", "off", "--all", "--why", "wrong units", "--by", "ada"]
    unnamed = await asyncio.to_thread(CliRunner().invoke, command_line, off)
    assert "say which" in str(unnamed.exception)
    named = await asyncio.to_thread(CliRunner().invoke, command_line, ["--at", NORTH, *off])
    assert named.exit_code == 0, named.output
    north, south = [await infer(hospitals, site) for site in (NORTH, SOUTH)]
    assert [json.loads(each.told)["status"] for each in (north, south)] == ["abstained", "scored"]
    now = datetime(2015, 1, 6, 21, tzinfo=UTC)
    until = now + timedelta(hours=1)
    quiet = Silenced(rule=None, model=None, part=None, until=until, by="ada", why="known", at=now)
    await silence(hospitals.store(NORTH), NORTH, quiet)
    assert [len(await silences(hospitals.store(site), site, now=now)) for site in (NORTH, SOUTH)] == [1, 0]


async def test_a_chunk_of_one_is_refused_at_the_other(hospitals, written, caplog, tmp_path):
    queues = QueueFile(tmp_path / "queues.sqlite", clock=lambda: datetime.now(UTC))
    assert {each.queue for each in hospitals.functions.values() if hasattr(each, "queue")} == {
        "deployr-chunks-north",
        "deployr-chunks-south",
    }
    await hospitals.functions["north_batch_icu"].call(None)
    await hospitals.functions["south_batch_icu"].call(None)
    # The same slot of a batch of the same name is run at each.
    slots = [[run.slot for run in await all_runs(hospitals.store(site), now=SLOT)] for site in (NORTH, SOUTH)]
    assert slots == [[SLOT], [SLOT]]
    taken = queues.take("deployr-chunks-north", hidden=timedelta(minutes=5))
    assert taken.body.startswith(b"north/icu.")
    message = func.QueueMessage(id=taken.message_id, body=taken.body)
    await hospitals.functions["south_score_chunk"].call(message)
    assert "alert=chunk-of-another-site site=south" in caplog.text
    assert [await hospitals.packets(site) for site in (NORTH, SOUTH)] == [[], []]
    await hospitals.functions["north_score_chunk"].call(message)
    [scored] = await hospitals.packets(NORTH)
    assert isinstance(scored.outcome, Scored)
    assert await hospitals.packets(SOUTH) == []


async def test_commands_look_into_the_site_that_is_named_and_know_no_other_sites_packets(hospitals):
    for site in (NORTH, SOUTH):
        await infer(hospitals, site)
    [north], [south] = [await hospitals.packets(site) for site in (NORTH, SOUTH)]
    unknown = "p" + "0" * 32

    async def replayed(site, packet_id):
        ran = await asyncio.to_thread(CliRunner().invoke, command_line, ["--at", site, "replay", packet_id])
        return ran.exit_code, f"{ran.output}{ran.exception}".replace(packet_id, "ID")

    assert (await replayed(NORTH, north.packet_id))[0] == 0
    assert (await replayed(SOUTH, south.packet_id))[0] == 0
    crossed = await replayed(SOUTH, north.packet_id)
    assert crossed == await replayed(SOUTH, unknown)
    assert crossed[0] != 0


async def test_one_site_that_cannot_start_and_one_whose_emr_is_away_leave_the_others_alone(opened, written, tmp_path):
    written.write("east")
    (tmp_path / "east" / "deployments" / "hematocrit.yaml").write_text("schema_version: 1\nmode: lively\n")
    written.write("west", DEPLOYR_EMR_FHIR_BASE="http://127.0.0.1:1/api/FHIR/R4", DEPLOYR_DEADLINE_S="1")
    hospitals = opened()
    answers = await asyncio.gather(infer(hospitals, NORTH), infer(hospitals, "west"), infer(hospitals, "east"))
    assert [answer.status for answer in answers] == [200, 503, 503]
    assert json.loads(answers[2].told) == {"status": "not-started"}
    ready = await hospitals.ask("GET", "/api/health/ready")
    assert (ready.status, json.loads(ready.told)) == (
        200,
        {
            "status": "partly-ready",
            "sites": {"east": "not-started", "north": "ready", "south": "ready", "west": "ready"},
        },
    )
    own = await hospitals.ask("GET", "/sites/north/api/health/ready")
    assert (own.status, json.loads(own.told)["emr"]) == (200, "ok")
    assert (await hospitals.ask("GET", "/sites/east/api/health/ready")).status == 503
    assert (await hospitals.ask("GET", "/sites/nowhere/api/health/ready")).status == 404
    # Nothing is served that is not below a site's own name.
    assert (await hospitals.ask("POST", "/api/models/hematocrit/infer", ASKED, **basic(NORTH, "engine"))).status == 404


async def test_where_no_site_can_start_the_app_does_not(opened, written):
    for site in (NORTH, SOUTH):
        written.write(site, DEPLOYR_EMR_FHIR_BASE="no address")
    with pytest.raises(Exception, match=r"site north: .*DEPLOYR_EMR_FHIR_BASE.*; site south"):
        opened()


async def test_every_log_line_says_which_site_it_is_about_and_nothing_of_a_patient(hospitals, caplog):
    caplog.set_level(logging.INFO)
    await infer(hospitals, SOUTH)
    await hospitals.functions["south_relay_deliveries"].call(None)
    lines = [each.getMessage() for each in caplog.records if each.name.startswith(("deployr", "label"))]
    assert lines
    assert [line for line in lines if not line.endswith(" site=south")] == []
    assert "p1" not in caplog.text


async def test_asked_how_all_are_a_site_says_in_its_own_name_that_its_store_is_down(hospitals, tmp_path, caplog):
    # Where its store is to be made, a folder is in the way.
    (tmp_path / NORTH / "store.sqlite").mkdir()
    answers = [await hospitals.ask("GET", "/api/health/ready") for _ in range(3)]
    assert [json.loads(each.told)["sites"] for each in answers] == [{NORTH: "not-ready", SOUTH: "ready"}] * 3
    [line] = [each.getMessage() for each in caplog.records if "alert=store" in each.getMessage()]
    assert line == "alert=store-unavailable site=north"
