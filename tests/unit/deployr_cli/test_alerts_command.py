"""`deployr alerts`: rules shown, an extract looked at, sinks tried, alerts listed and silenced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from deployr_cli.alerts import silenced_of
from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_core.monitoring.alert_rules import NAMES
from deployr_core.monitoring.alerting import Finding, Verdict
from deployr_core.monitoring.alerting_operations import NIGHTLY
from deployr_serve.adapters.clock import ReplayClock
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.alert_bootstrap import desk_of, read_rules
from deployr_serve.core.alert_desk import Seen
from deployr_serve.settings import read_settings
from tests.unit.deployr_dash.made_up import NOW, packets, write_extract


@pytest.fixture
def values(tmp_path, bundles_folder):
    clock = tmp_path / "clock"
    clock.write_text(NOW.isoformat())
    return {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
        "DEPLOYR_CLOCK_FILE": str(clock),
        "DEPLOYR_AUDIT": f"folder:{tmp_path / 'audit'}",
    }


@pytest.fixture
def command(tmp_path, values, monkeypatch):
    """Give a function that runs `deployr alerts` with a store that is there, at the end of the made-up season."""
    asyncio.run(_opened(tmp_path))
    monkeypatch.setenv("COLUMNS", "220")

    def run(*arguments, **more):
        settings = tmp_path / "local.settings.json"
        settings.write_bytes(msgspec.json.encode({"Values": {**values, **more}}))
        return CliRunner().invoke(app, ["alerts", *arguments, "--settings", str(settings)])

    return run


async def _opened(folder):
    store = SqliteStore(folder / "store.sqlite")
    await store.records("any", now=NOW)
    await store.aclose()


def look(values, *findings):
    """Take findings into account as an evaluator does."""
    settings = read_settings(values)
    clock = ReplayClock(settings.clock_file)

    async def run():
        store = SqliteStore(Path(values["DEPLOYR_STORE"].removeprefix("sqlite:")))

        async def find(last_runs):
            return Seen(findings=findings, watched=NAMES)

        await desk_of(settings, read_rules(settings.alerts), records=store, clock=clock).look(NIGHTLY, find)
        await store.aclose()

    asyncio.run(run())


def test_the_rules_are_shown_with_what_they_mean(command, tmp_path):
    file = tmp_path / "alerts.yaml"
    file.write_text("schema_version: 1\nmodels: {hematocrit: {auroc: {bar: 0.7, severity: page}}}\n")
    own = command("rules", "--model", "hematocrit", DEPLOYR_ALERT_RULES=str(file))
    plain = command("rules")
    assert own.exit_code == plain.exit_code == 0
    assert all(name in plain.stdout for name in NAMES)
    assert "auroc  page  bar=0.7  least_of_class=50" in own.stdout
    assert "auroc  warn  least_of_class=50" in plain.stdout


def test_a_run_looks_at_every_model_tells_and_lists_it(command, tmp_path):
    extract = tmp_path / "monitor"
    write_extract(extract, packets())
    file = tmp_path / "alerts.yaml"
    file.write_text("schema_version: 1\nrules: {auroc: {bar: 0.99, begin_minutes: 0}, calibration: {enabled: false}}\n")
    first = command("run", str(extract), DEPLOYR_ALERT_RULES=str(file))
    assert first.exit_code == 1, first.output
    assert "auroc/hematocrit" in first.stdout
    assert "cannot be told" in first.stdout
    listed = command("list", DEPLOYR_ALERT_RULES=str(file))
    assert listed.exit_code == 0
    assert "the bar is 0.99" in listed.stdout
    assert "begun" in listed.stdout
    again = command("run", str(extract), DEPLOYR_ALERT_RULES=str(file))
    assert again.exit_code == 1
    assert command("list", DEPLOYR_ALERT_RULES=str(file)).stdout.count("begun") == listed.stdout.count("begun")


def test_a_run_without_an_extract_says_what_to_do(command, tmp_path):
    result = command("run", str(tmp_path / "nothing"))
    assert result.exit_code != 0
    assert "deployr monitor extract" in f"{result.output} {result.exception}"


OVERDUE = Finding(rule="labels-overdue", model="hematocrit", verdict=Verdict.FIRING, said="Half of them.")


def test_nothing_wrong_is_said_so(command):
    assert "nothing is wrong" in command("list").stdout


def test_an_alert_is_silenced_with_a_name_and_a_reason_and_written_down(command, values, tmp_path):
    look(values, OVERDUE)
    done = command("silence", "labels-overdue/hematocrit", "--hours", "24", "--why", "seen to", "--by", "ana")
    assert done.exit_code == 0, done.output
    assert done.stdout == "labels-overdue/hematocrit: silenced until 2015-04-02T00:00:00Z by ana\n"
    listed = command("list").stdout
    assert "warn (silenced)" in listed
    assert "silenced until 2015-04-02 00:00Z: labels-overdue/hematocrit, by ana: seen to" in listed
    written = "".join(file.read_text() for file in (tmp_path / "audit").glob("*.ndjson"))
    assert '"silence"' in written
    assert "seen to" in written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("auroc",), "expected one of --until and --hours"),
        (("auroc", "--hours", "1", "--until", "2015-04-02T00:00:00Z"), "expected one of --until and --hours"),
        (("auroc", "--until", "2015-03-31T00:00:00Z"), "yet to come"),
        (("aurok", "--hours", "1"), "expected an alert as"),
    ],
)
def test_a_silence_that_cannot_be_is_refused(command, arguments, told):
    result = command("silence", *arguments, "--why", "x", "--by", "ana")
    assert result.exit_code != 0
    assert told in f"{result.output} {result.exception}"


@pytest.mark.parametrize(
    ("alert", "parts"),
    [
        ("*", (None, None, None)),
        ("auroc", ("auroc", None, None)),
        ("auroc/m", ("auroc", "m", None)),
        ("coverage/m/labs/blood", ("coverage", "m", "labs/blood")),
        ("spool//disk", ("spool", "", "disk")),
    ],
)
def test_an_alerts_name_or_its_beginning_says_what_is_silenced(alert, parts):
    made = silenced_of(alert, until=NOW.replace(year=2016), by="ana", why="x", now=NOW)
    assert (made.rule, made.model, made.part) == parts
    with pytest.raises(CommandFailed):
        silenced_of(alert, until=NOW, by="ana", why="x", now=NOW)


def test_a_trial_message_goes_to_every_sink_and_says_which_took_it(command):
    result = command(
        "test",
        DEPLOYR_ALERT_TEAMS_URL="http://127.0.0.1:9/hook?sig=s3cret",
        DEPLOYR_ALERT_SLACK_URL="http://127.0.0.1:9/s",
    )
    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert {"log taken", "teams emr-unreachable", "slack emr-unreachable"} <= set(lines)
    assert "s3cret" not in result.output


def test_the_example_of_the_docs_is_a_file_of_rules(command, tmp_path):
    file = Path(__file__).parents[3] / "docs" / "examples" / "alerts" / "alerts.yaml"
    shown = command("rules", DEPLOYR_ALERT_RULES=str(file))
    assert shown.exit_code == 0, shown.output
    assert "longest_hours=26" in command("rules", "--model", "sepsis", DEPLOYR_ALERT_RULES=str(file)).stdout
