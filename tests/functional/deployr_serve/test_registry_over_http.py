"""The registry over HTTP, from bytes to bytes: who is let in, what they may, what is refused and audited."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import azure.functions as func
import pytest

from deployr_core.signing import SIGNATURE_FILE, sign_manifest
from deployr_serve.adapters import models
from deployr_serve.adapters.run_shelf import RunShelf
from deployr_serve.core import registry_showing
from deployr_serve.settings import SettingsInvalid
from tests.json_callers import OTHERS, OURS, VISITOR, entra_token, write_callers
from tests.registry_parts import PASSWORD, PRIVATE, PUBLIC, basic, people_file, write_run

ADVISES = "schema_version: 1\nmodel: hematocrit\nmode: live\nthreshold: 0.5\n"
FAILED = {"item": "parity", "passed": False, "said": "no"}
EVE = {"name": "eve", "roles": ["developer"], "password": PASSWORD, "only": {"developer": ["anemia"]}}
LINUS = {"name": "linus", "tenant": OURS, "object_id": VISITOR}


@pytest.fixture
async def emr(emr_of, chart_of):
    return await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))


@pytest.fixture
def app(emr, app_of, tmp_path, bundle_files):
    """Give the app, with a registry that is required, and `trained`, `by` and `audited` beside its functions."""
    (tmp_path / "site.pub.pem").write_bytes(PUBLIC)
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "hematocrit.yaml").write_text(ADVISES)
    write_callers(tmp_path)
    people = people_file(tmp_path)
    listed = json.loads((tmp_path / "people.json").read_text())
    listed["people"] += [LINUS, EVE]
    listed["tenants"] = [
        {"tenant": each, "audience": "api://deployr", "jwks_file": "entra.json"} for each in (OURS, OTHERS)
    ]
    (tmp_path / "people.json").write_text(json.dumps(listed))
    for model in ("hematocrit", "anemia"):
        at = tmp_path / "bundles" / model
        (at / SIGNATURE_FILE).write_bytes(sign_manifest((at / "manifest.json").read_bytes(), PRIVATE))
    made = app_of(
        emr.url,
        DEPLOYR_REGISTRY="required",
        DEPLOYR_REGISTRY_PEOPLE=people,
        DEPLOYR_BUNDLE_ARCHIVE=str(tmp_path / "runs"),
        DEPLOYR_TRUSTED_KEYS=str(tmp_path / "site.pub.pem"),
        DEPLOYR_DEPLOYMENTS=str(tmp_path / "deployments"),
        DEPLOYR_AUDIT=f"folder:{tmp_path / 'audit'}",
    )
    shelf = RunShelf(tmp_path / "runs", bundles=tmp_path / "bundles", trusted_keys=())

    def trained(version="1.1.0", **changes):
        run = write_run(tmp_path / "trained", bundle_files, version=version, **changes)
        shelf.take(tmp_path / "trained" / run.run_id)
        return run

    async def ask(name, *, method="GET", body=None, headers=None, **params):
        content = b"" if body is None else json.dumps(body).encode()
        sent = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
        request = func.HttpRequest(method, "/api/registry", headers=sent, route_params=params, body=content)
        answer = await made.functions[name](request)
        told = answer.get_body()
        return SimpleNamespace(
            status=answer.status_code, told=json.loads(told) if told else None, headers=answer.headers
        )

    async def act(act, run, *, by, why="", **body):
        said = {"why": why, **body}
        headers = basic(by) if isinstance(by, str) else by
        params = {"model": "hematocrit", "run": run.run_id, "act": act}
        return await ask("registry_act", method="POST", body=said, headers=headers, **params)

    def audited():
        made.application.audit.folder.close()
        lines = [
            line for file in sorted((tmp_path / "audit").glob("*.ndjson")) for line in file.read_text().splitlines()
        ]
        events = [json.loads(line) for line in lines]
        return [
            (each["agent"][1]["who"].get("identifier", {}).get("value", ""), each["outcome"], each["outcomeDesc"])
            for each in events
            if {"system": "urn:deployr:act", "code": "registry"} in each["subtype"]
        ]

    made.trained, made.ask, made.act, made.audited = trained, ask, act, audited
    return made


async def live(app, run):
    assert (await app.act("register", run, by="dev")).status == 200
    assert (await app.act("approve", run, by="grace", why="good", despite_failed=True)).status == 200
    answer = await app.act("deploy", run, by="dev")
    assert (answer.status, answer.told["note"]) == (200, "")


async def test_from_challenger_to_champion_by_two_people(app):
    run = app.trained()
    await live(app, run)
    told = (await app.ask("registry_model", headers=basic("vic"), model="hematocrit")).told
    assert (told["champion"], [entry["action"] for entry in told["journal"]]) == (
        run.run_id,
        ["registered", "approved", "deployed"],
    )
    listed = (await app.ask("registry_models", headers=basic("vic"))).told["models"]
    assert [(each["model_id"], each["champion"]) for each in listed] == [("hematocrit", run.run_id)]
    one = await app.ask("registry_run", headers=basic("vic"), model="hematocrit", run=run.run_id)
    assert (one.told["run"]["run_id"], one.told["version"]) == (run.run_id, "1.1.0")
    whole = (await app.ask("registry_verify", headers=basic("vic"), model="hematocrit")).told
    # Of three entries three were told to the audit; the last also to the head and to the marker.
    assert (whole["is_whole"], whole["entries"], whole["compared_heads"]) == (True, 3, 5)


async def test_a_trainer_who_approves_alone_and_a_viewer_who_deploys_are_refused_and_audited(app):
    run = app.trained(trained_by="ada")
    await app.act("register", run, by="dev")
    alone = await app.act("approve", run, by="ada", why="it is good")
    assert (alone.status, alone.told["reason"]) == (403, "own-run")
    assert alone.told["said"].endswith("somebody else has to approve it")
    await app.act("approve", run, by="grace", why="good")
    viewer = await app.act("deploy", run, by="vic")
    assert (viewer.status, viewer.told["reason"]) == (403, "not-your-role")
    assert app.audited() == [
        ("dev", "0", "registered"),
        ("ada", "4", "refused: own-run"),
        ("grace", "0", "approved"),
        ("vic", "4", "refused: not-your-role"),
    ]
    told = (await app.ask("registry_model", headers=basic("vic"), model="hematocrit")).told
    assert told["champion"] is None
    assert [(entry["action"], entry["tried"]) for entry in told["journal"]][1::2] == [
        ("refused", "approved"),
        ("refused", "deployed"),
    ]


async def test_without_proof_there_is_one_constant_answer_and_it_is_audited(app):
    refused = [
        await app.ask("registry_models"),
        await app.ask("registry_models", headers=basic("grace", "not the right one")),
        await app.ask("registry_rollback", method="POST", body={"why": "x"}, model="hematocrit"),
        await app.ask("registry_models", headers={"Authorization": "Bearer a.b.c"}),
    ]
    assert {(each.status, each.told, each.headers["WWW-Authenticate"]) for each in refused} == {(401, None, "Bearer")}
    assert [said for _, _, said in app.audited()] == [
        "not-authenticated: no-token",
        "not-authenticated: basic",
        "not-authenticated: no-token",
        "not-authenticated: not-a-token",
    ]


def token(*roles, **claims):
    said = {"aud": "api://deployr", "oid": VISITOR, "roles": list(roles), "azp": None, "scp": "access", **claims}
    return {"Authorization": f"Bearer {entra_token(**said)}"}


async def test_a_persons_roles_are_those_of_their_token(app):
    run = app.trained()
    await app.act("register", run, by="dev")
    viewer = await app.act("approve", run, by=token("viewer", "Scores.Ask"), why="good")
    approver = await app.act("approve", run, by=token("approver"), why="good")
    nobody = await app.ask("registry_models", headers=token("Scores.Ask"))
    assert (viewer.status, viewer.told["reason"]) == (403, "not-your-role")
    assert (approver.status, approver.told["entry"]["who"]) == (200, "linus")
    assert (nobody.status, nobody.told["reason"]) == (403, "not-your-role")


async def test_who_has_a_role_for_another_model_is_refused_and_audited_and_sees_only_that_one(app):
    run = app.trained()
    await live(app, run)
    assert [each["model_id"] for each in (await app.ask("registry_models", headers=basic("vic"))).told["models"]] == [
        "hematocrit"
    ]
    assert (await app.ask("registry_models", headers=basic("eve"))).told == {"models": []}
    for route in ("registry_model", "registry_verify", "registry_run"):
        told = await app.ask(route, headers=basic("eve"), model="hematocrit", run=run.run_id)
        assert (told.status, told.told["reason"]) == (403, "not-your-role")
    rolled = await app.ask(
        "registry_rollback", method="POST", body={"why": "x"}, headers=basic("eve"), model="hematocrit"
    )
    assert (rolled.status, rolled.told["said"]) == (
        403,
        "to roll back takes the role developer or approver; eve is without a role for hematocrit",
    )
    assert app.audited()[-4:] == [("eve", "4", "refused: not-your-role")] * 4


async def test_a_token_of_another_audience_or_of_a_person_whom_nobody_lists_lets_nobody_in(app):
    elsewhere = await app.ask("registry_models", headers=token("viewer", aud="api://other"))
    unlisted = await app.ask("registry_models", headers=token("viewer", oid=OTHERS))
    other_tenant = await app.ask("registry_models", headers=token("viewer", tid=OTHERS))
    assert (elsewhere.status, unlisted.status, other_tenant.status) == (401, 403, 403)
    assert unlisted.told["reason"] == "caller-not-allowed"


@pytest.mark.parametrize(
    ("act", "changes", "status", "reason"),
    [
        ("approve", {"why": " "}, 422, "no-why"),
        (
            "approve",
            {"why": "good", "checklist": [{"item": "parity", "passed": False, "said": "no"}]},
            422,
            "failed-items",
        ),
        ("deploy", {}, 409, "wrong-stage"),
        ("fly", {}, 404, "unknown-run"),
        ("approve", {"why": "good", "despite": True}, 400, "malformed-request"),
        ("approve", {"why": 7}, 400, "malformed-request"),
        ("approve", {"why": "\ud800"}, 400, "malformed-request"),
    ],
)
async def test_what_is_not_done_says_why(app, act, changes, status, reason):
    run = app.trained()
    await app.act("register", run, by="dev")
    answer = await app.act(act, run, by="grace", **changes)
    assert (answer.status, answer.told["reason"]) == (status, reason)


async def test_a_body_that_is_no_json_is_not_read(app):
    run = app.trained()
    params = {"model": "hematocrit", "run": run.run_id, "act": "register"}
    plain = await app.ask("registry_act", method="POST", headers=basic("dev"), **params)
    assert (plain.status, plain.told["reason"]) == (415, "unsupported-media-type")


async def test_what_is_no_models_id_is_looked_for_nowhere(app):
    await live(app, app.trained())
    for route in ("registry_model", "registry_verify", "registry_run"):
        for model in ("../bundles/hematocrit", "..", "Hematocrit", ""):
            told = await app.ask(route, headers=basic("vic"), model=model, run="any")
            assert (told.status, told.told["reason"]) == (404, "unknown-run")
            assert told.told["said"].startswith("expected the id of a model")
            # Whoever may read nothing learns nothing about ids either.
            refused = await app.ask(route, headers=token(), model=model, run="any")
            assert (refused.status, refused.told["reason"]) == (403, "not-your-role")


async def test_nothing_is_shown_before_the_registry_let_it_go_live(app):
    body = json.loads((await app.infer()).get_body())
    packet = (await app.store.read(body["packetId"])).packet
    assert (packet.is_advised, packet.outcome.decision.why) == (False, "not-approved")


async def test_a_flood_by_one_person_is_stopped(app):
    statuses = [(await app.ask("registry_models", headers=basic("vic"))).status for _ in range(60)]
    assert (statuses[0], statuses[-1], statuses.count(429) > 0) == (200, 429, True)
    assert (await app.ask("registry_models", headers=basic("grace"))).status == 200


def test_people_need_a_place_for_runs(emr, app_of, tmp_path):
    with pytest.raises(SettingsInvalid, match="DEPLOYR_BUNDLE_ARCHIVE"):
        app_of(emr.url, DEPLOYR_REGISTRY_PEOPLE=people_file(tmp_path))


@pytest.fixture
def at_once(monkeypatch):
    """Let the app look for new versions, and read the journal, with every request; give what waits for a look's end."""
    monkeypatch.setattr(models, "LOOKS_AGAIN_S", 0.0)
    monkeypatch.setattr(registry_showing, "HOLD_S", 0.0)

    async def looked():
        for thread in threading.enumerate():
            if thread.name == models.LOOKER:
                await asyncio.to_thread(thread.join)

    return looked


async def test_versions_are_swapped_under_load_without_a_failed_request_and_back(at_once, app):
    """How many seconds a worker may go by what it read is another test's; here every request looks again."""
    first, second = app.trained("1.1.0"), app.trained("1.2.0")
    orders = iter(range(1000))

    async def asked(number=1):
        answers = await asyncio.gather(*(app.infer(idempotencyKey=f"key-{next(orders)}") for _ in range(number)))
        assert [answer.status_code for answer in answers] == [200] * number
        told = [json.loads(answer.get_body()) for answer in answers]
        return [(await app.store.read(each["packetId"])).packet for each in told]

    async def settled():
        """Give version and advice once a look has noticed what there is to notice."""
        await asked()
        await at_once()
        [packet] = await asked()
        return packet.model.version, packet.is_advised

    assert await settled() == ("1.0.0", False)
    await live(app, first)
    assert await settled() == ("1.1.0", True)
    packets, _ = await asyncio.gather(asked(30), live(app, second))
    assert {packet.model.version for packet in packets} <= {"1.1.0", "1.2.0"}
    # Of the earlier champion's requests none went without its advice because another came.
    assert all(packet.is_advised for packet in packets)
    assert await settled() == ("1.2.0", True)
    packets, back = await asyncio.gather(
        asked(30),
        app.ask("registry_rollback", method="POST", body={"why": "alarms"}, headers=basic("dev"), model="hematocrit"),
    )
    assert (back.status, back.told["entry"]["replaces"]) == (200, first.run_id)
    assert await settled() == ("1.1.0", True)
    # What the withdrawn one had advised is not told again, as late as it is asked for.
    withdrawn = next(packet for packet in packets if packet.model.version == "1.2.0")
    assert (
        await app.application.services.switches.why_nothing_is_sent("hematocrit", withdrawn.model.bundle_sha256)
        == "not-approved"
    )
