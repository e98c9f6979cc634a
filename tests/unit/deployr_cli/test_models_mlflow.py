"""`deployr models to-mlflow` and `from-mlflow`: over a store of MLflow's own, and over servers that answer amiss."""

from __future__ import annotations

import json
import os
import pwd
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_cli.mlflow_registry import MlflowRegistry
from deployr_core.registry.roles import RegistryRefused
from deployr_core.signing import SIGNATURE_FILE, sign_manifest
from deployr_serve.adapters.sqlite_store import SqliteStore
from tests.registry_parts import PUBLIC, people_file, write_run

ME = pwd.getpwuid(os.getuid()).pw_name
pytest.importorskip("mlflow", reason="needs mlflow-skinny, of the extra mlflow")

MODEL_OF_OTHERS = """
flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}
  sklearn: {pickled_model: model.pkl}
"""


@pytest.fixture
async def site_of(tmp_path, bundle_files, bundles_folder, model_proofs, monkeypatch):
    """Give a maker of sites, each with a store and a shelf of its own, that trust the same key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"):
        monkeypatch.setenv(name, "true" if name != "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR" else "false")
    for name, value in (("MAX_RETRIES", "0"), ("BACKOFF_FACTOR", "0"), ("BACKOFF_JITTER", "0"), ("TIMEOUT", "10")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlflow'}")
    (tmp_path / "site.pub.pem").write_bytes(PUBLIC)
    stores = [SqliteStore(tmp_path / f"{name}.sqlite") for name in ("a", "b")]
    for store in stores:
        await store.init()
        await store.aclose()

    class Site:
        def __init__(self, name):
            self.runs, self.audit = tmp_path / f"runs-{name}", tmp_path / f"audit-{name}"
            self.values = {
                "DEPLOYR_BUNDLES": str(bundles_folder),
                "DEPLOYR_BUNDLE_ARCHIVE": str(self.runs),
                "DEPLOYR_MODEL_PROOFS": str(model_proofs),
                "DEPLOYR_TRUSTED_KEYS": str(tmp_path / "site.pub.pem"),
                "DEPLOYR_STORE": f"sqlite:{tmp_path / f'{name}.sqlite'}",
                "DEPLOYR_AUDIT": f"folder:{self.audit}",
                "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:1/fhir",
            }

        def run(self, *arguments):
            file = tmp_path / "local.settings.json"
            file.write_text(json.dumps({"IsEncrypted": False, "Values": self.values}))
            result = CliRunner().invoke(app, ["models", *map(str, arguments), "--settings", str(file)])
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == 0, result.output
            return result.output

        def refused(self, *arguments, by=CommandFailed):
            with pytest.raises(by) as failure:
                self.run(*arguments)
            assert "\n" not in str(failure.value)
            return str(failure.value)

        def registered(self, version="1.1.0", **changes):
            run = write_run(tmp_path / "trained", bundle_files, version=version, **changes)
            self.run("register", tmp_path / "trained" / run.run_id, "--by", "dev")
            return run

        def live(self, run):
            self.run("approve", "hematocrit", run.run_id, "--by", "grace", "--why", "good", "--despite-failed")
            self.run("deploy", "hematocrit", run.run_id, "--by", "dev")

        def journal(self):
            return json.loads(self.run("show", "hematocrit", "--json"))

    return Site


def artifacts_of(uri="models:/hematocrit/1"):
    """Give the folder in which MLflow keeps a version's files."""
    from pathlib import Path

    return Path(MlflowRegistry(None).version(uri).source.removeprefix("file://"))


def test_a_run_becomes_a_version_with_figures_tags_and_aliases_that_follow_the_journal(site_of):
    site = site_of("a")
    first = site.registered()
    said = site.run("to-mlflow", "hematocrit", first.run_id)
    assert f"models:/hematocrit/1: is {first.run_id} now" in said
    assert "models:/hematocrit@challenger: is version 1" in said
    site.live(first)
    second = site.registered("1.2.0")
    said = site.run("to-mlflow", "hematocrit", second.run_id)
    assert "models:/hematocrit/1: is champion" in said
    assert "models:/hematocrit@champion: is version 1" in said
    assert "models:/hematocrit@challenger: is version 2" in said

    champion = MlflowRegistry(None).version("models:/hematocrit@champion")
    assert {key: champion.tags[key] for key in ("deployr.run_id", "deployr.bundle_sha256", "deployr.standing")} == {
        "deployr.run_id": first.run_id,
        "deployr.bundle_sha256": first.bundle_sha256,
        "deployr.standing": "champion",
    }
    assert len(champion.tags["deployr.signed_by"]) == 16
    from mlflow import MlflowClient

    client = MlflowClient()
    logged = client.get_run(client.get_model_version("hematocrit", "1").run_id)
    assert logged.data.metrics["test.auroc"] == 0.75
    assert logged.data.metrics["test.auroc.low"] == 0.5
    assert logged.data.metrics["train.patients"] == 8
    assert logged.info.start_time == int(first.opened_at.timestamp() * 1000)


def test_a_second_time_changes_nothing_and_a_rollback_is_followed(site_of):
    site = site_of("a")
    first = site.registered()
    site.live(first)
    second = site.registered("1.2.0", beside=first)
    for run in (first, second):
        site.run("to-mlflow", "hematocrit", run.run_id)
    assert site.run("to-mlflow", "hematocrit", second.run_id) == f"models:/hematocrit/2: is {second.run_id} already\n"
    site.live(second)
    said = site.run("to-mlflow", "hematocrit")
    assert "models:/hematocrit@champion: is version 2" in said
    assert "models:/hematocrit@challenger: names no version" in said
    site.run("rollback", "hematocrit", "--why", "alarms", "--by", "dev")
    assert "models:/hematocrit@champion: is version 1" in site.run("to-mlflow", "hematocrit")
    assert site.run("to-mlflow", "hematocrit") == "hematocrit: everything there is as the journal says\n"
    assert len(MlflowRegistry(None).versions("hematocrit")) == 2


def test_what_broke_while_it_was_sent_is_taken_up_again(site_of, monkeypatch):
    from mlflow import MlflowClient

    site = site_of("a")
    run = site.registered()

    def breaks(*_, **__):
        raise OSError(28, "no space left")

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "set_terminated", breaks)
        with pytest.raises(OSError):
            site.run("to-mlflow", "hematocrit", run.run_id)
    site.run("to-mlflow", "hematocrit", run.run_id)
    client = MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name == "deployr/hematocrit"]
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_version_of_ours_is_a_challenger_elsewhere_and_only_once(site_of):
    here, there = site_of("a"), site_of("b")
    run = here.registered()
    here.live(run)
    here.run("to-mlflow", "hematocrit", run.run_id)

    said = there.run("from-mlflow", "models:/hematocrit@champion", "--by", "dev")
    assert f"{run.run_id} is a challenger now" in said
    (entry,) = there.journal()["journal"]
    assert (entry["action"], entry["why"]) == ("registered", "from MLflow, models:/hematocrit/1")
    on_shelf = there.runs / "hematocrit" / run.run_id
    assert (on_shelf / "run.json").read_bytes() == (here.runs / "hematocrit" / run.run_id / "run.json").read_bytes()
    assert not (on_shelf / "comparison.json").exists()
    said = there.run("from-mlflow", "models:/hematocrit/1", "--by", "dev")
    assert said == f"{run.run_id}: registered already, and challenger now; nothing was changed\n"
    assert len(there.journal()["journal"]) == 1


def test_what_is_not_signed_by_a_key_of_the_site_is_not_taken_whatever_its_tags_say(site_of):
    here, there = site_of("a"), site_of("b")
    run = here.registered()
    here.run("to-mlflow", "hematocrit", run.run_id)
    at = artifacts_of()
    stranger = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    manifest = (at / "bundle" / "manifest.json").read_bytes()
    (at / "bundle" / SIGNATURE_FILE).write_bytes(sign_manifest(manifest, stranger))
    assert "expected a signature by a trusted key" in there.refused("from-mlflow", "models:/hematocrit/1")
    (at / "bundle" / SIGNATURE_FILE).unlink()
    assert "the bundle is not signed" in there.refused("from-mlflow", "models:/hematocrit/1")
    there.values["DEPLOYR_TRUSTED_KEYS"] = ""
    assert "DEPLOYR_TRUSTED_KEYS: expected the keys" in there.refused("from-mlflow", "models:/hematocrit/1")
    assert not there.runs.exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("bundle/features.json", "expected SHA-256"),
        ("bundle/golden.json", "expected"),
        ("bundle/manifest.json", "of other bytes"),
        ("run.json", "run_id that follows from the contents"),
    ],
)
def test_what_was_changed_or_cut_off_is_not_taken(site_of, file, said):
    here, there = site_of("a"), site_of("b")
    run = here.registered()
    here.run("to-mlflow", "hematocrit", run.run_id)
    at = artifacts_of() / file
    content = at.read_bytes()
    changed = content[:-1] if file == "bundle/golden.json" else content.replace(b"1", b"2", 1)
    if file == "run.json":
        changed = content.replace(run.bundle_sha256.encode(), b"0" * 64)
    at.write_bytes(changed)
    assert said in there.refused("from-mlflow", "models:/hematocrit/1", by=(CommandFailed, RegistryRefused))
    assert not there.runs.exists()


def test_a_model_of_another_flavor_is_not_loaded_and_what_to_do_is_said(site_of, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient()
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "MLmodel").write_text(MODEL_OF_OTHERS)
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch was-loaded'\ntR.")
    run = client.create_run(client.create_experiment("theirs"))
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", f"{run.info.artifact_uri}/model", run.info.run_id)
    said = site_of("a").refused("from-mlflow", "models:/theirs/1")
    assert "a model of the flavors python_function, sklearn" in said
    assert "docs/model-kinds.md" in said
    assert not (tmp_path / "was-loaded").exists()


def test_a_run_that_is_not_registered_is_not_sent_and_who_may_not_register_takes_nothing(site_of, tmp_path):
    here, there = site_of("a"), site_of("b")
    run = here.registered()
    assert "expected a registered run of hematocrit" in there.refused("to-mlflow", "hematocrit", run.run_id)
    here.run("to-mlflow", "hematocrit", run.run_id)
    vic = {"name": "vic", "roles": ["viewer"], "login": ME}
    there.values["DEPLOYR_REGISTRY_PEOPLE"] = people_file(tmp_path, people=[vic])
    there.refused("from-mlflow", "models:/hematocrit/1", by=RegistryRefused)
    assert not there.runs.exists()
    assert '"refused: not-your-role"' in "".join(file.read_text() for file in there.audit.glob("*.ndjson"))


@contextmanager
def answering(status, content, content_type="text/html"):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (401, b"<h1>who are you</h1>", "expected to be let in; set MLFLOW_TRACKING_TOKEN"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "not you"}', "expected to be let in"),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}', "there is no such model, version"),
        (500, b"oops secret-of-theirs", "did not do what was asked"),
        (200, b"<html>a proxy's page</html>", "is it an MLflow server?"),
    ],
)
def test_a_server_that_answers_amiss_is_told_in_one_line_without_its_words(site_of, status, content, said):
    with answering(status, content) as url:
        told = site_of("a").refused("from-mlflow", "models:/hematocrit/1", "--tracking", url)
    assert said in told
    assert told.startswith("MLflow at 127.0.0.1: ")
    assert "secret-of-theirs" not in told


def test_a_server_that_is_down_and_a_uri_with_a_password_are_told(site_of):
    site = site_of("a")
    with answering(200, b"{}") as url:
        pass
    assert "MLflow at 127.0.0.1" in site.refused("from-mlflow", "models:/hematocrit/1", "--tracking", url)
    said = site.refused("from-mlflow", "models:/hematocrit/1", "--tracking", "https://ada:hidden@mlflow.example.org")
    assert "MLFLOW_TRACKING_PASSWORD" in said
    assert "hidden" not in said
    assert "expected models:/NAME/VERSION" in site.refused("from-mlflow", "hematocrit:3")
