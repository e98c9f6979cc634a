"""`deployr batches`: what a site's batches are and how they went, in counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from typer.testing import CliRunner

from deployr_cli.main import app
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.batch_runs import RUN, Run, RunState

SLOT = datetime(2015, 1, 6, 20, tzinfo=UTC)
DECLARED = """
schema_version: 1
name: icu
models: [hematocrit]
schedule: "0 0 * * * *"
worklist: {from: csv, file: /drop/icu.csv}
"""


def run_of(hour, **changes):
    slot = SLOT + timedelta(hours=hour)
    fields = {"state": RunState.COMPLETE, "listed": 12, "patients": 10, "models": 1, "skipped": {"discharged": 2}}
    return Run(batch="icu", slot=slot, started_at=slot, updated_at=slot, lease_until=slot, **(fields | changes))


@pytest.fixture
def command(tmp_path, bundles_folder, monkeypatch):
    """Give a function that runs `deployr batches` at a site with two runs."""
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "icu.yaml").write_text(DECLARED)
    settings = tmp_path / "local.settings.json"
    clock = tmp_path / "clock"
    clock.write_text("2015-01-06T22:00:00Z")
    values = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
        "DEPLOYR_BATCHES": str(tmp_path / "batches"),
        "AzureWebJobsStorage": f"sqlite:{tmp_path / 'queue.sqlite'}",
        "DEPLOYR_CLOCK_FILE": str(clock),
    }
    settings.write_bytes(msgspec.json.encode({"Values": values}))

    async def store_runs():
        store = SqliteStore(tmp_path / "store.sqlite")
        done = {"1": {"scored": 7, "abstained:sparse": 2, "failed:emr-timeout": 1}}
        for run in (run_of(0, done={"1": {"scored": 10}}), run_of(1, state=RunState.INCOMPLETE, done=done, gap=3)):
            await store.create_record(RUN, run.run_id, msgspec.json.encode(run), now=SLOT)
        await store.aclose()

    asyncio.run(store_runs())
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["batches", *arguments, "--settings", str(settings)])


def test_the_batches_are_listed_with_their_last_run(command):
    shown = command("list")
    assert shown.exit_code == 0, shown.output
    line = shown.output.splitlines()[1].split()
    assert line == [
        "icu",
        "hematocrit",
        "0",
        "0",
        "*",
        "*",
        "*",
        "*",
        "UTC",
        "csv",
        "2015-01-06T21:00:00Z",
        "incomplete",
    ]


def test_the_runs_are_shown_in_counts_the_latest_first(command):
    shown = command("runs")
    assert shown.exit_code == 0, shown.output
    latest, before = (line.split() for line in shown.output.splitlines()[1:3])
    # listed, patients, skipped; scored, abstained, rejected, failed, quarantined; gap
    assert latest == ["icu", "2015-01-06T21:00:00Z", "incomplete", "-", "12", "10", "2", "7", "2", "0", "1", "0", "3"]
    assert before[1:3] == ["2015-01-06T20:00:00Z", "complete"]
    assert len(command("runs", "icu", "--last", "1").output.splitlines()) == 2


def test_another_batch_is_refused_by_the_names_there_are(command):
    shown = command("runs", "ward")
    assert shown.exit_code == 1
    assert "expected one of the batches icu" in str(shown.exception)
