"""`deployr labels`: labels extracted at once, and how they stand, in counts."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest
from typer.testing import CliRunner

from deployr_cli.labels import said
from deployr_cli.main import app
from deployr_core.packet import Censored, Failed, Label, Observed
from deployr_serve.adapters.sqlite_store import SqliteStore


@pytest.fixture
def command(tmp_path, bundles_folder, monkeypatch, packet_of, now):
    """Give a function that runs `deployr labels` where of four packets two are labelled, and the EMR is off."""
    settings, clock = tmp_path / "local.settings.json", tmp_path / "clock"
    clock.write_text((now + timedelta(hours=25)).isoformat())
    values = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
        "DEPLOYR_CLOCK_FILE": str(clock),
        "DEPLOYR_DEADLINE_S": "0.5",
    }
    settings.write_bytes(msgspec.json.encode({"Values": values}))

    async def store_packets():
        store = SqliteStore(tmp_path / "store.sqlite")
        for packet in (
            packet_of("p01"),
            packet_of("p02", order_id="o2"),
            packet_of("p03", order_id="o3"),
            packet_of("p04", outcome=Failed(reason="emr-timeout", retryable=True)),
        ):
            await store.create(packet)
        observed = Observed(value=1.0, at=now, known_at=now, source_id="lab1")
        for packet_id, outcome in (("p01", observed), ("p02", Censored(reason="no-result"))):
            label_id = f"{packet_id}.lab-component"
            await store.attach_label(
                Label(label_id=label_id, packet_id=packet_id, rule="lab-component", outcome=outcome, attached_at=now)
            )
        await store.aclose()

    asyncio.run(store_packets())
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["labels", *arguments, "--settings", str(settings)])


def test_the_status_is_a_line_for_each_model(command):
    result = command("status", "--model", "hematocrit")
    assert result.exit_code == 0
    heading, line = [" ".join(each.split()) for each in result.stdout.splitlines()[-2:]]
    assert heading == "model rule scored ripe observed corrected not yet overdue censored not scored"
    assert line == "hematocrit lab-component 3 3 1 0 0 1 no-result 1 failed 1"


def test_a_run_that_cannot_read_the_emr_says_how_many_failed_and_exits_with_1(command):
    result = command("run")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "1 failed:emr-unreachable"
    assert "p1" not in result.stdout


def test_a_model_that_is_not_deployed_is_refused_with_those_that_are(command):
    result = command("run", "--model", "albumin")
    assert result.exit_code != 0
    assert "expected one of anemia, hematocrit, got albumin" in str(result.exception)


def test_what_a_run_came_to_is_one_line():
    assert said({"observed": 1200, "censored": 3}) == "3 censored, 1,200 observed"
    assert said({}) == "nothing to do"
