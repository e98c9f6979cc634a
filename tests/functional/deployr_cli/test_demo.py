"""The demo as a person runs it: one command, real processes, and figures that hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.functional.deployr_cli.dashboards import expect_dashboard

ROOT = Path(__file__).resolve().parents[3]
EICU = ROOT.parent / "shared" / "data" / "eicu-demo-paired"


def _deployr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployr_cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )


def _demo(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    figures = tmp_path / "figures.json"
    done = _deployr("demo", "--workspace", str(tmp_path / "work"), "--json", str(figures), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(figures.read_text(encoding="utf-8")), done.stdout


def _assert_nothing_failed_and_nothing_came_twice(figures: dict[str, Any]) -> None:
    assert figures["failed"] == 0
    assert figures["unfinished"] == 0
    assert figures["rerun"] == {"new_packets": 0, "new_labels": 0, "new_writes": 0}
    assert figures["score_rows"] == figures["inferences"]
    assert figures["labels_observed"] + figures["labels_censored"] == figures["inferences"]
    for name in ("auroc_retrospective", "auroc_prospective"):
        estimate = figures[name]
        assert estimate["low"] < estimate["value"] < estimate["high"]
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"]


@pytest.mark.slow
def test_demo_on_its_own_synthetic_hospital_succeeds_and_finds_every_feature_equal(tmp_path: Path) -> None:
    figures, printed = _demo(tmp_path)

    _assert_nothing_failed_and_nothing_came_twice(figures)
    assert figures["inferences"] >= 300
    assert figures["parity"]["features_equal"] == figures["parity"]["features_compared"] > 0
    expect_dashboard(printed, tmp_path / "work", models=1, packets=figures["inferences"])


@pytest.mark.slow
@pytest.mark.skipif(not EICU.is_dir(), reason="the eICU data (ODbL) is not beside this checkout")
def test_demo_on_real_patients_answers_every_order_and_finds_every_feature_equal(tmp_path: Path) -> None:
    figures, _ = _demo(tmp_path, "--data", str(EICU))

    _assert_nothing_failed_and_nothing_came_twice(figures)
    assert figures["inferences"] == 300  # the last 30 % of 1,000 orders for a blood count
    assert figures["parity"]["orders"] == 200
    assert figures["parity"]["features_equal"] == figures["parity"]["features_compared"]
    # With 100 patients the intervals are wide; a value outside this range would be a fault, not chance.
    assert 0.75 <= figures["auroc_retrospective"]["value"] <= 0.95
    assert 0.75 <= figures["auroc_prospective"]["value"] <= 0.95


def test_demo_on_a_folder_without_the_data_says_what_is_expected_in_one_line(tmp_path: Path) -> None:
    done = _deployr("demo", "--data", str(tmp_path), "--workspace", str(tmp_path / "work"))

    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"deployr: {tmp_path}/omop: expected the folder omop/ in {tmp_path}"]


def test_demo_does_not_clear_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")

    done = _deployr("demo", "--workspace", str(tmp_path))

    assert done.returncode == 2
    assert "choose another --workspace" in done.stderr
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("command", ["demo", "train", "host", "emr", "bundle"])
def test_every_command_explains_itself(command: str) -> None:
    done = _deployr(command, "--help")

    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_training_on_a_folder_that_is_no_extract_names_the_missing_tables(tmp_path: Path) -> None:
    done = _deployr("train", "hematocrit", "--source", str(tmp_path), "--out", str(tmp_path / "bundle"))

    assert done.returncode == 2
    assert "table person is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "bundle").exists()
