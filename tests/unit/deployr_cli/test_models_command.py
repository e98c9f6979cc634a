"""`deployr models`: what it says, whom it lets do what, and what it leaves in journal and audit."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
from contextlib import closing

import msgspec
import pytest
from typer.testing import CliRunner

from deployr_cli.edge import export
from deployr_cli.failures import CommandFailed
from deployr_cli.models import models_app
from deployr_core.registry.journal import Action, JournalBroken, entry_bytes
from deployr_core.registry.roles import RegistryRefused
from deployr_core.registry.run import DeployType
from deployr_serve.adapters.sqlite_store import SqliteStore
from tests.registry_parts import PRIVATE, PUBLIC, comparison_of, deed, journal_of, people_file, write_run
from tests.unit.deployr_dash.made_up import packets, write_extract

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
async def site(tmp_path, bundle_files, bundles_folder, model_proofs, monkeypatch):
    """Give a site with nobody listed, whose settings stand in a file."""
    # An extract that happens to lie in a checkout would be looked at.
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(tmp_path / "store.sqlite")
    await store.init()
    await store.aclose()
    (tmp_path / "site.pub.pem").write_bytes(PUBLIC)

    class Site:
        audit, bundles, runs = tmp_path / "audit", bundles_folder, tmp_path / "runs"

        def __init__(self):
            self.values = {
                "DEPLOYR_BUNDLES": str(bundles_folder),
                "DEPLOYR_BUNDLE_ARCHIVE": str(tmp_path / "runs"),
                "DEPLOYR_MODEL_PROOFS": str(model_proofs),
                "DEPLOYR_TRUSTED_KEYS": str(tmp_path / "site.pub.pem"),
                "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
                "DEPLOYR_AUDIT": f"folder:{tmp_path / 'audit'}",
                "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:1/fhir",
            }

        def listed(self, *people):
            """List people from here on; who is logged in is one of them, or none."""
            self.values = {**self.values, "DEPLOYR_REGISTRY_PEOPLE": people_file(tmp_path, people=people)}

        def me(self, name, *roles):
            self.listed({"name": name, "roles": roles, "login": ME})

        def run(self, *arguments, code=0):
            """Give what the command says; a refusal is raised, as `deployr_cli.main.run` finds it."""
            file = tmp_path / "local.settings.json"
            file.write_text(json.dumps({"IsEncrypted": False, "Values": self.values}))
            result = CliRunner().invoke(
                models_app, [*map(str, arguments), "--settings", str(file)], env={"COLUMNS": "220"}
            )
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == code, result.output
            return result.output

        def refused(self, *arguments, by=RegistryRefused):
            with pytest.raises(by) as failure:
                self.run(*arguments)
            assert "\n" not in str(failure.value)
            return str(failure.value)

        def trained(self, version="1.1.0", **changes):
            run = write_run(tmp_path / "trained", bundle_files, version=version, **changes)
            return run, tmp_path / "trained" / run.run_id

        def told(self):
            """Give who did what and how it ended, as the audit has it."""
            files = sorted(self.audit.glob("*.ndjson"))
            events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            return [(each["agent"][1]["who"]["identifier"]["value"], each["outcomeDesc"]) for each in events]

    return Site()


def to_live(site, version="1.1.0", **changes):
    run, folder = site.trained(version, **changes)
    site.run("register", folder, "--by", "dev")
    site.run("approve", "hematocrit", run.run_id, "--by", "grace", "--why", "good", "--despite-failed")
    site.run("deploy", "hematocrit", run.run_id, "--by", "dev")
    return run


def test_a_run_from_challenger_to_champion_and_back(site):
    first = to_live(site)
    second, folder = site.trained("1.2.0", beside=first)
    said = site.run("register", folder, "--by", "dev")
    assert "is a challenger now" in said
    assert f"was compared with {first.run_id}" in said
    assert "the challenger is" in site.run("compare", "hematocrit", second.run_id)
    said = site.run("approve", "hematocrit", second.run_id, "--by", "grace", "--why", "as good, and newer")
    assert "[x] signed: by the site's key" in said
    assert f"[x] compared with the champion: with {first.run_id}" in said
    assert f"in place of {first.run_id}" in site.run("deploy", "hematocrit", second.run_id, "--by", "dev")
    said = site.run("rollback", "hematocrit", "--why", "alarms", "--by", "dev")
    assert f"{second.run_id} is withdrawn; {first.run_id} is the champion again" in said
    listed = site.run("list")
    assert first.run_id in listed
    assert "rolled-back by dev" in listed
    shown = site.run("show", "hematocrit")
    assert "as good, and newer" in shown
    assert f"approve a run: {second.run_id} (approver, but not ada or dev)" in shown
    assert "ok: hematocrit: 8 entries, compared with 10 digests" in site.run("verify")
    site.run("retire", "hematocrit", first.run_id, "--why", "closed", "--by", "grace")


def test_a_comparison_that_was_made_later_is_taken_from_the_runs_folder(site):
    first = to_live(site)
    second, folder = site.trained("1.2.0")
    site.run("register", folder, "--by", "dev")
    assert "deployr run compare" in site.refused("compare", "hematocrit", second.run_id, by=CommandFailed)
    (folder / "comparison.json").write_bytes(comparison_of(second, first).to_json())
    site.run("compare", "hematocrit", second.run_id, "--from", folder, "--record", "--by", "dev")
    site.run("approve", "hematocrit", second.run_id, "--why", "as good", "--by", "grace")


def test_a_trainer_who_approves_alone_and_a_viewer_who_deploys_are_refused_and_audited(site):
    run, folder = site.trained(trained_by="ada")
    site.run("register", folder, "--by", "dev")
    site.me("ada", "approver", "developer")
    assert "somebody else has to approve it" in site.refused("approve", "hematocrit", run.run_id, "--why", "mine")
    site.me("vic", "viewer")
    said = site.refused("deploy", "hematocrit", run.run_id)
    assert said == "to deploy a run takes the role developer or approver; vic is viewer"
    assert site.told() == [("dev", "registered"), ("ada", "refused: own-run"), ("vic", "refused: not-your-role")]
    site.me("grace", "approver")
    site.run("approve", "hematocrit", run.run_id, "--why", "good")


def test_who_goes_by_another_login_is_still_who_trained_it(site):
    run, folder = site.trained(trained_by=ME)
    site.run("register", folder, "--by", "dev")
    site.me("grace", "approver")
    site.refused("approve", "hematocrit", run.run_id, "--why", "mine")


def test_who_is_not_listed_may_do_nothing_and_cannot_say_to_be_somebody_else(site):
    _, folder = site.trained()
    site.listed({"name": "grace", "roles": ["developer"], "login": "somebody-else"})
    assert f"{ME} is without a role" in site.refused("register", folder)
    assert "--by: expected none" in site.refused("register", folder, "--by", "grace", by=CommandFailed)
    assert not site.runs.exists()
    assert site.told() == [(ME, "refused: not-your-role")]


def test_the_prod_profile_wants_people(site):
    _, folder = site.trained()
    (site.bundles.parent / "callers.json").write_text(
        json.dumps({"callers": [{"name": "engine", "models": ["*"], "password": "correct horse battery"}]})
    )
    site.values |= {
        "DEPLOYR_PROFILE": "prod",
        "DEPLOYR_EMR_FHIR_BASE": "https://emr.hospital.example/fhir",
        "DEPLOYR_EMR_AUTH": "basic",
        "DEPLOYR_EMR_BASIC_USER": "deployr",
        "DEPLOYR_EMR_BASIC_PASSWORD": "secret",
        "DEPLOYR_ID_KEY": "0123456789abcdef",
        "DEPLOYR_JSON_CALLERS": str(site.bundles.parent / "callers.json"),
    }
    assert "DEPLOYR_REGISTRY_PEOPLE" in site.refused("register", folder, by=CommandFailed)


def test_a_checklist_is_recorded_and_a_failed_item_needs_a_word(site, tmp_path):
    run, folder = site.trained()
    site.run("register", folder, "--by", "dev")
    (tmp_path / "list.json").write_text('[{"item": "coverage", "passed": false, "said": "61 % of rows"}]')
    asked = (
        "approve",
        "hematocrit",
        run.run_id,
        "--why",
        "good",
        "--by",
        "grace",
        "--checklist",
        tmp_path / "list.json",
    )
    assert "the checklist is not met in coverage" in site.refused(*asked)
    assert "[ ] coverage: 61 % of rows" in site.run(*asked, "--despite-failed")
    (tmp_path / "list.json").write_text("{}")
    assert "expected a JSON list" in site.refused(*asked, by=CommandFailed)


def test_the_go_no_go_checklist_is_computed_shown_and_recorded(site, tmp_path):
    run, folder = site.trained()
    site.run("register", folder, "--by", "dev")
    write_extract(tmp_path / "monitor", packets(20, trial=False))
    (tmp_path / "parity.json").write_text('{"orders": 30, "features_compared": 100, "features_equal": 100}')
    asked = ("hematocrit", run.run_id, "--extract", tmp_path / "monitor", "--parity", tmp_path / "parity.json")
    told = site.run("checklist", *asked, code=1)
    assert "100 of 100 features equal" in told
    assert "No go: cannot be told: days" in told
    approve = ("approve", *asked, "--why", "good", "--by", "grace")
    assert "the checklist is not met in days" in site.refused(*approve)
    assert "No go: cannot be told: days" in site.run(*approve, "--despite-failed")
    entry = json.loads(site.run("show", "hematocrit", "--json"))["journal"][-1]
    recorded = {each["item"]: each["passed"] for each in entry["checklist"]}
    assert (recorded["signed"], recorded["parity"], recorded["auroc"], recorded["drift"]) == (True, True, False, False)
    assert "signature" not in recorded


def test_a_run_for_the_edge_is_exported(site, tmp_path):
    run, folder = site.trained(deploy_type=DeployType.EDGE)
    site.run("register", folder, "--by", "dev")
    site.run("approve", "hematocrit", run.run_id, "--why", "good", "--by", "grace")
    assert "is for the edge" in site.refused("deploy", "hematocrit", run.run_id, "--by", "dev")
    said = site.run("deploy", "hematocrit", run.run_id, "--by", "dev", "--to", tmp_path / "edge")
    assert "is exported, and the champion" in said
    assert (tmp_path / "edge" / "manifest.json").is_file()


def test_that_a_run_is_exported_is_said_whatever_becomes_of_the_files_beside_it(site, tmp_path, monkeypatch):
    run, folder = site.trained(deploy_type=DeployType.EDGE)
    site.run("register", folder, "--by", "dev")
    site.run("approve", "hematocrit", run.run_id, "--why", "good", "--by", "grace")

    def full(folder, to, out):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(export, "export_bundle", full)
    said = site.run("deploy", "hematocrit", run.run_id, "--by", "dev", "--to", tmp_path / "edge")
    assert "is exported, and the champion" in said
    assert said.endswith("model.pmml: No space left on device\n")


def test_the_extract_that_lies_where_the_command_looks_is_the_checklists(site, tmp_path):
    run, folder = site.trained()
    site.run("register", folder, "--by", "dev")
    asked = ("checklist", "hematocrit", run.run_id)
    before = json.loads(site.run(*asked, "--json", code=1))["items"]
    served = packets(20, trial=False).assign(bundle_sha256=run.bundle_sha256)
    write_extract(tmp_path / ".deployr" / "monitor", served)
    after = json.loads(site.run(*asked, "--json", code=1))["items"]
    verdicts = [{each["item"]: each["verdict"] for each in items}["days"] for items in (before, after)]
    assert verdicts == ["cannot be told", "passed"]


def test_json_is_for_programs(site):
    run = to_live(site)
    assert json.loads(site.run("list", "--json"))["models"][0]["champion"] == run.run_id
    shown = json.loads(site.run("show", "hematocrit", "--json"))
    assert [entry["action"] for entry in shown["journal"]] == ["registered", "approved", "deployed"]
    assert json.loads(site.run("show", "hematocrit", run.run_id, "--json"))["signed_by"]
    assert json.loads(site.run("verify", "--json"))["models"][0]["is_whole"]


def change(site, *statements):
    """Change the store behind the registry's back."""
    with closing(sqlite3.connect(site.values["DEPLOYR_STORE"].removeprefix("sqlite:"))) as db, db:
        for statement in statements:
            assert db.execute(statement).rowcount == 1


def test_a_journal_that_was_cut_off_is_noticed_by_what_the_audit_was_told(site):
    to_live(site)
    change(
        site,
        "DELETE FROM records WHERE kind = 'journal.hematocrit' AND record_id = '00000003'",
        "DELETE FROM records WHERE kind = 'journal-head'",
    )
    said = site.run("verify", "hematocrit", code=1)
    assert said.startswith("BROKEN: hematocrit, entry 3: expected 3 entries")


def test_a_changed_entry_stops_the_commands(site):
    run = to_live(site)
    change(
        site,
        "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), 'grace', 'barbara') AS BLOB)"
        " WHERE record_id = '00000002'",
    )
    said = site.refused("retire", "hematocrit", run.run_id, "--why", "x", "--by", "grace", by=JournalBroken)
    assert "entry 2: expected the digest of what it says: it was changed" in said
    assert site.run("verify", code=1).startswith("BROKEN: hematocrit, entry 2")


def test_every_journal_is_looked_through_whatever_is_wrong_with_one(site):
    """One that cannot be read, one that says what cannot have happened, and one that is whole."""
    to_live(site)
    for model in ("anemia", "sepsis"):
        [entry] = journal_of(deed(Action.OPENED), model_id=model)
        put(site, entry)
    [impossible] = journal_of(deed(Action.DEPLOYED, "a"), model_id="bleeding")
    put(site, impossible)
    change(site, "UPDATE records SET body = '{}' WHERE kind = 'journal.anemia'")
    told = json.loads(site.run("verify", "--json", code=1))["models"]
    assert [(each["model_id"], each["is_whole"]) for each in told] == [
        ("anemia", False),
        ("bleeding", False),
        ("hematocrit", True),
        ("sepsis", True),
    ]
    assert told[0]["fault"] == {"number": 1, "said": "expected an entry that can be read"}
    assert told[1]["fault"] == {"number": 1, "said": "expected a run that was registered"}


def put(site, entry):
    """Write an entry and its head as somebody does who has the store's file."""
    name = (f"journal.{entry.model_id}", f"{entry.number:08d}")
    head = ("journal-head", entry.model_id)
    with closing(sqlite3.connect(site.values["DEPLOYR_STORE"].removeprefix("sqlite:"))) as db, db:
        for (kind, record_id), content in ((name, entry_bytes(entry)), (head, msgspec.json.encode(entry.head))):
            db.execute(
                "INSERT INTO records (kind, record_id, body, etag) VALUES (?, ?, ?, '1')", (kind, record_id, content)
            )


def test_a_parity_report_and_bars_count_without_an_extract_too(site, tmp_path):
    run, folder = site.trained()
    site.run("register", folder, "--by", "dev")
    (tmp_path / "parity.json").write_text('{"orders": 30, "features_compared": 100, "features_equal": 99}')
    (tmp_path / "bars.yaml").write_text("nonsense: 1\n")
    asked = ("approve", "hematocrit", run.run_id, "--why", "good", "--by", "grace")
    assert "bars.yaml" in site.refused(*asked, "--bars", tmp_path / "bars.yaml", by=CommandFailed)
    site.run(*asked, "--parity", tmp_path / "parity.json", "--despite-failed")
    entry = json.loads(site.run("show", "hematocrit", "--json"))["journal"][-1]
    recorded = {each["item"]: each["said"] for each in entry["checklist"]}
    assert "99 of 100" in recorded["parity"]


def test_a_newer_comparison_is_laid_onto_the_shelf_by_who_may_and_for_the_run_that_was_named(site):
    first = to_live(site)
    second, folder = site.trained("1.2.0", beside=first)
    site.run("register", folder, "--by", "dev")
    on_shelf = site.runs / "hematocrit" / second.run_id / "comparison.json"
    before = on_shelf.read_bytes()
    newer = msgspec.structs.replace(comparison_of(second, first), notes=("newer",))
    (folder / "comparison.json").write_bytes(newer.to_json())
    asked = ("compare", "hematocrit", second.run_id, "--from", folder)
    site.me("vic", "viewer")
    assert "takes the role developer" in site.refused(*asked)
    assert on_shelf.read_bytes() == before
    assert site.told()[-1] == ("vic", "refused: not-your-role")
    site.me("dev", "developer")
    assert f"expected the folder of {first.run_id}" in site.refused(
        "compare", "hematocrit", first.run_id, "--from", folder, by=CommandFailed
    )
    site.run(*asked)
    assert on_shelf.read_bytes() == newer.to_json()


def test_a_journal_from_before_there_was_a_key_is_vouched_for_and_then_signed(site, tmp_path):
    first = to_live(site)
    (tmp_path / "journal.pem").write_bytes(PRIVATE)
    site.values["DEPLOYR_JOURNAL_KEY"] = str(tmp_path / "journal.pem")
    assert "entry 1: expected a signature by the site's key" in site.run("verify", code=1)
    retire = ("retire", "hematocrit", first.run_id, "--why", "closed", "--by", "grace")
    assert "deployr models vouch" in site.refused(*retire, by=JournalBroken)
    said = site.run("vouch", "hematocrit", "--why", "compared with the audit", "--by", "grace")
    assert said.startswith("hematocrit: its journal is vouched for, up to this entry")
    site.run(*retire)
    assert "ok: hematocrit: 5 entries, 2 of them signed, compared with 7 digests" in site.run("verify")
    shown = json.loads(site.run("show", "hematocrit", "--json"))["journal"]
    assert [("signature" in entry) for entry in shown] == [False, False, False, True, True]


def test_a_model_without_a_journal_says_how_to_begin_one(site):
    assert "deployr models register" in site.refused("show", "anemia", by=CommandFailed)
    assert "no model has a journal" in site.run("verify")
