"""From a knob of the mock EMR to the alarm, the whole way: charts, HTTP, packets, extract, reference period, decision.

It also shows that what `benchmarks.drift_alarms` takes in place of this way, features read from the charts at once, is
what packets hold.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from deployr_cli.asking import ID_ROOTS
from deployr_cli.demo.events import orders_signed
from deployr_cli.demo.making import trained_model
from deployr_cli.demo.processes import SETTINGS_FILE, running
from deployr_cli.demo.replay import Driver
from deployr_cli.main import app
from deployr_cli.trial.hospital import TrialOrder
from deployr_cli.trial.models import Group
from deployr_cli.trial.replay import TrialReplay
from deployr_core.monitoring.drift_alarm import DriftAlarm, DriftLook, drift_alarm
from deployr_core.monitoring.served_rows import DriftKind, ServedRows
from deployr_dash.panels.panel import Window
from deployr_dash.references import read_reference
from deployr_dash.served import load_served
from deployr_dev.cohorts.cohort import index_rows
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from deployr_serve.adapters.bundle_files import read_bundle
from mock_emr.population.profiles import HOSPITAL
from mock_emr.population.shift import InfrastructureShift
from mock_emr.population.writing import write_population

PATIENTS, PAST_WEEKS, QUIET_WEEKS, DAYS_AFTER = 240, 4, 4, 6
TASK = shipped_task("hematocrit")
MODEL = TASK.model_id
GROUP = Group(name="cbc", panels=TASK.panels, tasks=(TASK.name,))
CHANGED = InfrastructureShift(other_units=("Creatinine", "Glucose"), units_labelled=False)
SILENT = f"schema_version: 1\nmodel: {MODEL}\nmode: silent\noutputs: []\ngroups: [cbc]\n"
PASSWORD = "the-proof's-own-password-of-a-caller"
SETTINGS = {
    "DEPLOYR_BPA_ID_ROOTS": ID_ROOTS,
    "DEPLOYR_BPA_CALLERS": f'{{"alerts": "{PASSWORD}"}}',
    "DEPLOYR_BPA_PER_SECOND": "1000",
    "DEPLOYR_ID_KEY": "one-key-for-both-parts-of-the-proof",
}


class Ward:
    """A hospital whose interface is switched: until an instant the EMR shows its charts as they are, then otherwise."""

    def __init__(self, folder: Path) -> None:
        config = replace(HOSPITAL, patients=PATIENTS, weeks=PAST_WEEKS + QUIET_WEEKS + 1, seed=11)
        self.folder = folder
        self.begins = config.start + timedelta(weeks=PAST_WEEKS)
        self.switched = self.begins + timedelta(weeks=QUIET_WEEKS)
        self.ends = self.switched + timedelta(days=DAYS_AFTER)
        for name, shift in (("rest", InfrastructureShift()), ("changed", CHANGED)):
            write_population(replace(config, shift=shift), folder / name)
        quiet = Console(quiet=True)
        trained_model(
            folder / "rest" / "omop", folder / "bundles" / MODEL, task=TASK, before=self.begins, console=quiet
        )
        (folder / "deployments").mkdir()
        (folder / "deployments" / f"{MODEL}.yaml").write_text(SILENT, encoding="utf-8")

    def served(self) -> None:
        """Ask about every order over HTTP, first of one EMR, then of the other; both fill one store."""
        events = orders_signed(self.folder / "rest" / "fhir", panels=GROUP.panels)
        for name, since, until in (("rest", self.begins, self.switched), ("changed", self.switched, self.ends)):
            orders = [
                TrialOrder(event=event, group=GROUP, chart_stands_until=event.signed_at)
                for event in events
                if since <= event.signed_at < until
            ]
            self._play(self.folder / name / "fhir", orders)

    def _play(self, fhir: Path, orders: Sequence[TrialOrder]) -> None:
        with running(
            workspace=self.folder,
            fhir=fhir,
            bundles=self.folder / "bundles",
            now=orders[0].event.signed_at,
            clock_file=self.folder / "now",
            settings={"DEPLOYR_DEPLOYMENTS": str(self.folder / "deployments"), **SETTINGS},
        ) as processes:

            async def play() -> None:
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
                    driver = Driver(processes, self.folder / "now", session)
                    replay = TrialReplay(processes, driver, session, caller="alerts", password=PASSWORD)
                    await replay.play(orders, last_ripe=timedelta(hours=73), tell=lambda _done, _of: None)

            asyncio.run(play())

    def command(self, *arguments: str) -> str:
        env: Mapping[str, str | None] = {name: None for name in os.environ if name.startswith("DEPLOYR_")}
        done = CliRunner().invoke(app, ["monitor", *arguments], env=env)
        assert done.exit_code == 0, done.output
        return done.output

    def rows(self, since: datetime, until: datetime) -> ServedRows:
        return load_served(self.folder / "monitor", model=MODEL, window=Window(start=since, end=until))[0]

    def decisions(self) -> list[DriftAlarm]:
        """Decide at the end of each day after the switch, and of the day before."""
        (digest,) = (place.name for place in (self.folder / "monitor" / "models").iterdir())
        reference = read_reference(self.folder / "monitor", digest)
        assert reference is not None
        looks: list[DriftLook] = []
        decided = []
        for days in range(DAYS_AFTER + 1):
            until = self.switched + timedelta(days=days)
            decided.append(drift_alarm(reference, self.rows(until - timedelta(days=28), until), looks))
            looks.append(decided[-1].look)
        return decided


@pytest.mark.proof
@pytest.mark.long
def test_units_that_change_without_a_word_are_an_alarm_within_days(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.served()
    ward.command("extract", str(tmp_path / "monitor"), "--settings", str(tmp_path / SETTINGS_FILE))
    last_quiet = ward.switched - timedelta(days=8)
    said = ward.command(
        *("reference", MODEL, str(tmp_path / "monitor")),
        *("--from", f"{ward.begins:%Y-%m-%d}", "--to", f"{last_quiet:%Y-%m-%d}"),
    )
    assert "requests about" in said

    decided = ward.decisions()
    assert not decided[0].raised
    assert decided[-1].raised
    assert DriftKind.FEATURES in decided[-1].kinds
    assert any("2160-0" in moved.name or "2345-7" in moved.name for moved in decided[-1].moved)

    # What packets hold is what the benchmark reads at once from the charts.
    spec = read_bundle(tmp_path / "bundles" / MODEL).spec
    rows = ward.rows(ward.begins, ward.switched)
    with Extract.open(tmp_path / "rest" / "fhir") as extract:
        asked = [row for row in index_rows(extract, TASK) if ward.begins <= row.index_time < ward.switched]
        matrix = SetEngine(extract).matrix(spec, asked)
    at = np.array([row.index_time.timestamp() for row in asked])
    order = np.argsort(at, kind="stable")
    assert rows.rows == len(asked)
    equal = sum(
        dict(zip(*_row(matrix.starts, matrix.features, matrix.values, int(one)), strict=True))
        == dict(zip(*_row(rows.features.starts, rows.features.indices, rows.features.values, other), strict=True))
        for one, other in zip(order, np.argsort(rows.at, kind="stable").tolist(), strict=True)
    )
    assert equal == len(asked)


def _row(starts: np.ndarray, columns: np.ndarray, values: np.ndarray, row: int) -> tuple[list[int], list[float]]:
    inside = slice(int(starts[row]), int(starts[row + 1]))
    return columns[inside].tolist(), np.float32(values[inside]).tolist()
