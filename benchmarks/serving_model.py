"""A forest of 100 trees over some 5,000 sparse counts, as a bundle and as scikit-learn keeps it; and a chart for it."""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import joblib
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.patients import write_patients
from deployr_cli.demo.run import TASK
from deployr_core import bundle as bundles
from deployr_core.codes import ICD10CM, RXNORM, Code
from deployr_core.declared import EdgeBins, FixedCodes, Statistic
from deployr_core.facts import DiagnosisList
from deployr_core.features import AgeGroup, DiagnosisGroup, FeatureSpec, LabGroup, MedicationGroup, SexGroup
from deployr_core.golden import GoldenVector
from deployr_core.label_rules import LabComponent
from deployr_core.layout import layout_of
from deployr_core.model_format import MODEL_FILE, ModelFormat, load_model
from deployr_core.outputs import BINARY
from deployr_core.vectorize import FeatureVector
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.estimators import DEFAULTS, EstimatorName

_HEMATOCRIT = "4544-3"
TREES, _ROWS, _FACTS = 100, 4_000, 60
_PARAMETERS = {**DEFAULTS[EstimatorName.RANDOM_FOREST], "n_estimators": TREES}
"""As `deployr train` trains a forest, with as many trees as are compared."""
RESOURCES = 200
_OF_EACH = RESOURCES - 102
"""Results, beside 50 diagnoses, 50 medications, the patient and the encounter."""
_DIAGNOSES = [f"{letter}{number:02}.0" for letter in string.ascii_uppercase[:18] for number in range(100)]
_MEDICATIONS = [str(4000 + number) for number in range(1200)]


def declaration() -> FeatureSpec:
    """Give a declaration of some 5,000 counts, which asks for what the shipped one of the task asks for."""
    diagnoses = functools.partial(
        DiagnosisGroup, systems=(ICD10CM,), codes=FixedCodes(codes=tuple(Code(ICD10CM, code) for code in _DIAGNOSES))
    )
    shipped = shipped_declaration(shipped_task(TASK).declaration)
    analytes = next(group.analytes for group in shipped.groups if isinstance(group, LabGroup))
    return FeatureSpec(
        schema_version=1,
        groups=(
            AgeGroup(bins=EdgeBins(edges=(18.0, 40.0, 65.0, 80.0))),
            SexGroup(),
            diagnoses(name="problem_list", lookback_days=3650, recorded_in=(DiagnosisList.PROBLEM_LIST,)),
            diagnoses(name="encounter_diagnoses", lookback_days=365, recorded_in=(DiagnosisList.ENCOUNTER,)),
            MedicationGroup(
                name="medications",
                systems=(RXNORM,),
                codes=FixedCodes(codes=tuple(Code(RXNORM, code) for code in _MEDICATIONS)),
                lookback_days=28,
            ),
            LabGroup(
                name="labs",
                analytes=tuple(msgspec.structs.replace(analyte, bins=None) for analyte in analytes),
                statistics=(Statistic.COUNT, Statistic.LAST, Statistic.MIN, Statistic.MAX),
                lookback_days=14,
            ),
        ),
    )


def write_forest(folder: Path) -> Path:
    """Train the forest on made-up rows, write its bundle for us, and give the file that scikit-learn reads."""
    import treelite
    from sklearn.ensemble import RandomForestClassifier

    spec = declaration()
    rows, labels = _training_rows(len(layout_of(spec).names), np.random.default_rng(0))
    forest = RandomForestClassifier(**_PARAMETERS, random_state=0, n_jobs=2).fit(rows, labels)
    forest.n_jobs = None
    kept = folder / "forest.joblib"
    joblib.dump(forest, kept)
    parts = {
        bundles.FEATURES_FILE: spec.to_json(),
        MODEL_FILE: bytes(treelite.sklearn.import_model(forest).serialize_bytes()),
    }
    _write_bundle(folder / "bundles" / TASK, spec, parts, versions={"treelite": treelite.__version__})
    return kept


def write_chart(folder: Path, *, orders: int, now: datetime) -> None:
    """Write the patient whom everybody is asked about, of 200 resources, with so many orders, as NDJSON."""
    write_patients(folder, patients=1, orders=orders, of_each=_OF_EACH, now=now)


def _training_rows(size: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Give rows of some 60 counts each, of which the first features are the most common; half of the label is noise."""
    rows = np.zeros((_ROWS, size), dtype=np.float32)
    for row in rows:
        places = np.minimum(size * rng.random(_FACTS) ** 3, size - 1).astype(np.int64)
        np.add.at(row, places, 1.0)
    signal = rows[:, : size // 50].sum(axis=1)
    return rows, (signal + rng.normal(scale=signal.std(), size=_ROWS) > np.median(signal)).astype(np.int64)


def _write_bundle(folder: Path, spec: FeatureSpec, parts: Mapping[str, bytes], *, versions: Mapping[str, str]) -> None:
    n_features = len(layout_of(spec).names)
    scorer = load_model(ModelFormat(), parts[MODEL_FILE], n_features=n_features)
    nothing = FeatureVector(
        spec_digest=spec.digest(), size=n_features, indices=np.array([], np.int32), values=np.array([]), coverage={}
    )
    golden = GoldenVector(indices=(), values=(), outputs=scorer.answer(nothing))
    parts = {**parts, bundles.GOLDEN_FILE: msgspec.json.encode((golden,))}
    task = shipped_task(TASK)
    manifest = bundles.Manifest(
        schema_version=bundles.SCHEMA_VERSION,
        model_id=TASK,
        version="1.0.0",
        task=bundles.Task(
            name=TASK,
            unit="order",
            index_time="order signed",
            label="made up",
            rule=LabComponent(components=(_HEMATOCRIT,), window_hours=24),
            panels=task.panels,
            outputs=BINARY,
        ),
        score_name="BENCH",
        n_features=n_features,
        spec_sha256=spec.digest(),
        parts={name: bundles.describe_part(content) for name, content in parts.items()},
        training=bundles.Training(
            estimator="RandomForestClassifier",
            parameters=_PARAMETERS,
            rows=_ROWS,
            patients=_ROWS,
            label_means={"positive": 0.5},
            snapshot_sha256="0" * 64,
            library_versions=versions,
        ),
        evaluation=bundles.Evaluation(rows=_ROWS, patients=_ROWS, label_means={"positive": 0.5}, figures={}),
    )
    folder.mkdir(parents=True)
    for name, content in {bundles.MANIFEST_FILE: manifest.to_json(), **parts}.items():
        (folder / name).write_bytes(content)
