"""`deployr run` as it is typed: a config becomes a run, a run is checked, and a schedule opens the next one."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_cli.models_site import RegistrySite
from deployr_cli.run_retraining import open_if_due
from deployr_core.registry.journal import Action
from deployr_core.registry.run import RUN_FILE, Because, parse_run
from deployr_serve.adapters.clock import ReplayClock
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.registry_journal import append, read_journal
from mock_emr.population.config import PopulationConfig
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop
from tests.registry_parts import deed

NOW = datetime(2015, 2, 2, tzinfo=UTC)
CONFIG = {
    "schema_version": 1,
    "task": "hematocrit",
    "estimator": {"parameters": {"n_estimators": 5}},
    "evidence": {"patients": 5, "positives": 5},
    "retrain": {"schedule": "0 0 3 1 * *"},
}


def written(folder: Path, **changes: object) -> Path:
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return file


@pytest.fixture(scope="module")
def omop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital") / "omop"
    write_omop(generate(PopulationConfig(patients=60, weeks=4)), folder)
    return folder


def test_without_a_source_it_is_said_where_one_belongs(tmp_path: Path):
    with pytest.raises(CommandFailed, match="source: expected an extract there, or --source"):
        CliRunner().invoke(app, ["run", str(written(tmp_path))], catch_exceptions=False)


# -- retraining


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegistrySite:
    """Give a site on the second of February, whose model had its last run registered on the sixth of January."""
    (tmp_path / "bundles").mkdir()
    (tmp_path / "now").write_text(NOW.isoformat())
    values = {
        "DEPLOYR_PROFILE": "dev",
        "DEPLOYR_BUNDLES": str(tmp_path / "bundles"),
        "DEPLOYR_BUNDLE_ARCHIVE": str(tmp_path / "shelf"),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'packets.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:1",
        "DEPLOYR_CLOCK_FILE": str(tmp_path / "now"),
    }
    (tmp_path / "settings.json").write_text(json.dumps({"Values": values}))
    registered = deed(Action.REGISTERED, "hematocrit-aaaaaaaaaaaa")

    async def begin() -> None:
        store = SqliteStore(tmp_path / "packets.sqlite")
        await append(store, "hematocrit", lambda _: registered, clock=ReplayClock(tmp_path / "now"))
        await store.aclose()

    asyncio.run(begin())
    return RegistrySite(tmp_path / "settings.json")


def test_a_slot_that_has_come_opens_one_run_and_deploys_nothing(site: RegistrySite, tmp_path: Path):
    config = written(tmp_path)

    said = [open_if_due(config, site) for _ in range(2)]

    assert said == [
        "opened, entry 2 of the journal of hematocrit: schedule: due 2015-02-01T03:00Z",
        "a run is opened already, and waits: deployr run next",
    ]
    journal = site.in_store(lambda store: read_journal(store, "hematocrit", now=NOW))
    assert [entry.action for entry in journal.entries] == [Action.REGISTERED, Action.OPENED]
    assert (journal.entries[-1].who, journal.entries[-1].role) == ("timer", "app")
    assert list((tmp_path / "bundles").iterdir()) == []


def test_what_was_opened_is_trained_once_into_a_run_that_verifies(site: RegistrySite, omop: Path, tmp_path: Path):
    config, out, settings = written(tmp_path), tmp_path / "runs", str(tmp_path / "settings.json")
    typed = [
        "run",
        "next",
        str(config),
        "--source",
        str(omop),
        "--out",
        str(out),
        "--by",
        "ada",
        "--settings",
        settings,
    ]
    assert "nothing is opened" in CliRunner().invoke(app, typed, catch_exceptions=False).output
    open_if_due(config, site)

    first, again = (CliRunner().invoke(app, typed, catch_exceptions=False).output for _ in range(2))

    [folder] = out.iterdir()
    run = parse_run((folder / RUN_FILE).read_bytes())
    assert (run.opened_because, run.opened_for, run.trained_by) == (Because.SCHEDULE, "hematocrit:2", "ada")
    assert f"run {run.run_id}" in first
    assert "trained already, and not registered yet" in again
    assert CliRunner().invoke(app, ["run", "verify", str(folder)]).exit_code == 0
    kept = folder / "config.yaml"
    kept.write_bytes(kept.read_bytes().replace(b'"n_estimators": 5', b'"n_estimators": 6'))
    refused = CliRunner().invoke(app, ["run", "verify", str(folder)])
    assert (refused.exit_code, "config.yaml: expected" in refused.output) == (1, True)


def test_a_config_without_either_is_trained_by_hand_and_a_wrong_schedule_is_named(site: RegistrySite, tmp_path: Path):
    assert "neither a schedule nor on_drift_alarm" in open_if_due(written(tmp_path, retrain={}), site)
    with pytest.raises(CommandFailed, match=r"retrain\.schedule: expected six fields"):
        open_if_due(written(tmp_path, retrain={"schedule": "nightly"}), site)
