"""A headless Chromium, and a report of 5,000 made-up orders to look at in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import FEATURES_FILE, GOLDEN_FILE, SCHEMA_VERSION, Estimate, Manifest, Part, Task, Training
from deployr_core.bundle import Evaluation as StatedEvaluation
from deployr_core.groups import age_bands
from deployr_core.label_rules import Answer, LabComponent, LabelRule, LabPanel, outputs_of
from deployr_core.model_format import MODEL_FILE
from deployr_core.outputs import BINARY
from deployr_dev.evaluation.measuring import evaluate
from deployr_dev.evaluation.plain_measuring import evaluate_plain
from deployr_dev.evaluation.records import Evaluation
from deployr_dev.evaluation.report import write_report

ROWS, PATIENTS = 5000, 1800

Chromium = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Chromium:
    """Give a function that runs Chromium without a window and gives what it printed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """Give a manifest as training would write it."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_id="hematocrit",
        version="0123456789ab",
        task=Task(
            name="hematocrit",
            unit="one order for a complete blood count",
            index_time="when the order is signed",
            label="the hematocrit of this order lies outside its own reference range",
            rule=LabComponent(components=("4544-3", "20570-8"), window_hours=72),
            panels=("57021-8", "58410-2"),
            outputs=BINARY,
        ),
        score_name="HEMATOCRIT_ABNORMAL",
        n_features=1234,
        spec_sha256="5" * 64,
        parts={name: Part(sha256="a" * 64, size=1) for name in (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE)},
        training=Training(
            estimator="RandomForestClassifier",
            parameters={"n_estimators": 100, "max_depth": None, "min_samples_leaf": 5},
            rows=11_600,
            patients=4_200,
            label_means={"positive": 0.314},
            snapshot_sha256="b" * 64,
            library_versions={"numpy": "2.3.4", "python": "3.11.14", "scikit-learn": "1.9.0"},
        ),
        evaluation=StatedEvaluation(
            rows=ROWS,
            patients=PATIENTS,
            label_means={"positive": 0.31},
            figures={"auroc": Estimate(value=0.79, low=0.77, high=0.81)},
        ),
    )


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """Give an evaluation of seeded scores that are a little too sure, and no good for those of whom little is known."""
    rng = np.random.default_rng(3)
    patients = np.r_[np.arange(PATIENTS), rng.integers(0, PATIENTS, ROWS - PATIENTS)]
    frailty = rng.normal(scale=0.7, size=PATIENTS)[patients]
    available = rng.poisson(12 + 60 * rng.random(PATIENTS))[patients]
    ages = rng.uniform(12, 96, PATIENTS)[patients]
    known = np.clip(available / 60, 0.1, 1.0) * np.where(ages < 80, 1.0, 0.4)
    told = rng.normal(size=ROWS) * 1.3 * known
    risk = 1 / (1 + np.exp(-(-1.1 + told + frailty + 0.012 * (ages - 55))))
    labels = (rng.random(ROWS) < risk).astype(np.float64)
    scores = 1 / (1 + np.exp(-(-1.1 + 1.25 * told + 0.6 * frailty)))
    ethnicities = ("Hispanic or Latino", "Not Hispanic or Latino", "")
    races = ("Asian", "Black or African American", "White", "Native Hawaiian or Other Pacific Islander", "")
    return evaluate(
        labels,
        scores,
        patients,
        rng=rng,
        subgroups={
            "sex": rng.choice(("female", "male"), PATIENTS)[patients],
            "age": age_bands(ages),
            "race": rng.choice(races, PATIENTS, p=(0.2, 0.15, 0.5, 0.002, 0.148))[patients],
            "ethnicity": rng.choice(ethnicities, PATIENTS, p=(0.25, 0.7, 0.05))[patients],
        },
        available_features=available,
        threshold=0.6,
    )


@pytest.fixture(scope="session")
def report(manifest: Manifest, evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of a written report."""
    return write_report(tmp_path_factory.mktemp("report"), manifest=manifest, evaluation=evaluation)


TARGETS: dict[str, tuple[LabelRule, str | None]] = {
    "classes": (LabComponent(components=("777-3",), window_hours=24, answer=Answer.LEVEL), "low"),
    "labels": (
        LabPanel(components={"hemoglobin": ("718-7",), "hematocrit": ("4544-3",)}, window_hours=24),
        "hematocrit",
    ),
    "numbers": (LabComponent(components=("718-7",), window_hours=24, answer=Answer.VALUE, unit="g/dL"), None),
}


@pytest.fixture(scope="session", params=TARGETS)
def plain_report(request: pytest.FixtureRequest, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of a written report of each target beside the binary one."""
    rule, headline = TARGETS[request.param]
    outputs = outputs_of(rule, headline=headline)
    rng, rows = np.random.default_rng(5), 600
    if request.param == "numbers":
        labels = rng.normal(11.0, 2.0, rows)
        answers = (labels + rng.normal(size=rows)).reshape(-1, 1)
    elif request.param == "labels":
        labels = rng.integers(0, 2, (rows, 2)).astype(np.float64)
        answers = np.clip(labels * 0.4 + rng.random((rows, 2)) * 0.6, 0.0, 1.0)
    else:
        classes = rng.integers(0, 3, rows)
        labels = classes.astype(np.float64)
        shares = rng.random((rows, 3)) + np.eye(3)[classes]
        answers = shares / shares.sum(axis=1, keepdims=True)
    evaluation = evaluate_plain(
        outputs,
        labels,
        answers,
        np.arange(rows) // 3,
        rng=rng,
        subgroups={"sex": rng.choice(("female", "male"), rows)},
        available_features=rng.poisson(30, rows),
    )
    means = dict.fromkeys(outputs.names, 0.3)
    stated = msgspec.structs.replace(
        manifest,
        task=msgspec.structs.replace(manifest.task, rule=rule, outputs=outputs),
        training=msgspec.structs.replace(manifest.training, label_means=means),
        evaluation=msgspec.structs.replace(manifest.evaluation, label_means=means),
    )
    return write_report(tmp_path_factory.mktemp(request.param), manifest=stated, evaluation=evaluation)
