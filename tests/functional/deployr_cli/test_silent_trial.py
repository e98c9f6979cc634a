"""The silent trial as a person runs it: one command, real processes, the paper's tables, and the same ones again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployr_dash.plan import read_held_out
from deployr_dev.cohorts.tasks import TASK_GROUPS
from tests.functional.deployr_cli.dashboards import expect_dashboard

ROOT = Path(__file__).resolve().parents[3]
ORDERS = 60
# Four models are asked about a blood count, seven about a metabolic panel, one about magnesium.
FEWEST, MOST = ORDERS * 1, ORDERS * 7


def _trial(workspace: Path) -> tuple[dict[str, Any], str]:
    figures = workspace.with_suffix(".json")
    arguments = ["--orders", str(ORDERS), "--workspace", str(workspace), "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "deployr_cli.main", "trial", "silent", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(figures.read_text(encoding="utf-8")), done.stdout


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    workspace = tmp_path_factory.mktemp("trial") / "work"
    return workspace, *_trial(workspace)


@pytest.mark.slow
def test_trial_answers_every_order_with_every_model_and_loses_nothing(trial: tuple[Path, dict[str, Any], str]) -> None:
    _, figures, _ = trial

    assert (figures["orders"], figures["unfinished"], figures["failed"], figures["lost"]) == (ORDERS, 0, 0, 0)
    assert FEWEST <= figures["packets"] <= MOST
    labelled = sum(task["prospective"]["n"] for task in figures["tasks"].values())
    assert labelled + sum(figures["censored"].values()) == figures["packets"]
    assert figures["orders_per_second"] > 0
    assert figures["seconds"] > 0


@pytest.mark.slow
def test_trial_measures_all_twelve_before_and_in_service(trial: tuple[Path, dict[str, Any], str]) -> None:
    _, figures, _ = trial

    assert set(figures["tasks"]) == set(TASK_GROUPS["paper12"])
    for task in figures["tasks"].values():
        retrospective = task["retrospective"]
        assert retrospective["low"] <= retrospective["auroc"] <= retrospective["high"]
        assert 0 < retrospective["prevalence"] < 1
        assert set(task["prospective"]) == {"n", "prevalence", "auroc", "low", "high"}


@pytest.mark.slow
def test_trial_tells_what_each_process_used(trial: tuple[Path, dict[str, Any], str]) -> None:
    workspace, figures, _ = trial
    page = (workspace / "trial.html").read_text(encoding="utf-8")

    for process in ("EMR", "host 1", "host 2"):
        assert figures["processor_s"][process]["first_thread_s"] > 0
        assert figures["memory_mb"][process]["first_mb"] > 0
        assert f'<th scope="row">{process}</th>' in page


@pytest.mark.slow
def test_trial_prints_the_papers_figures_beside_ours(trial: tuple[Path, dict[str, Any], str]) -> None:
    _, figures, printed = trial

    ours = figures["tasks"]["hematocrit"]["retrospective"]
    row = next(line for line in printed.splitlines() if line.startswith("hematocrit retrospective"))
    assert "0.86 [0.85, 0.88]" in row
    assert f"{ours['auroc']:.2f} [{ours['low']:.2f}, {ours['high']:.2f}]" in row


@pytest.mark.slow
def test_trial_leaves_what_monitoring_reads_and_says_how_to_look_at_it(
    trial: tuple[Path, dict[str, Any], str],
) -> None:
    workspace, figures, printed = trial

    expect_dashboard(printed, workspace, models=12, packets=figures["packets"])
    curves = read_held_out(workspace / "reports")["sodium"]
    assert [len(each.roc) > 2 for each in curves.values()] == [True]


@pytest.mark.slow
def test_trial_page_shows_curves_of_every_model_and_asks_nobody_for_anything(
    trial: tuple[Path, dict[str, Any], str],
) -> None:
    workspace, _, _ = trial
    page = (workspace / "trial.html").read_text(encoding="utf-8")

    for task in TASK_GROUPS["paper12"]:
        for curve in ("roc", "precision-recall", "calibration"):
            assert f'id="{task}-retrospective-{curve}-title"' in page
        assert f'id="{task}-prospective-calibration-title"' in page
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert not re.search(r'(src|href)="https?:', page)


@pytest.mark.proof
def test_trial_with_the_same_seed_gives_the_same_tables(
    trial: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    _, first, _ = trial

    again, _ = _trial(tmp_path / "again")

    for measured_by_the_clock in ("seconds", "orders_per_second", "processor_s", "memory_mb"):
        assert again.pop(measured_by_the_clock) != first[measured_by_the_clock]
    assert again == {name: first[name] for name in again}


def test_trial_does_not_clear_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "deployr_cli.main", "trial", "silent", "--workspace", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )

    assert done.returncode == 2
    assert "choose another --workspace" in done.stderr
    assert (tmp_path / "thesis.txt").exists()
