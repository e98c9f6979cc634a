"""From an extract and a task to a trained, measured bundle, all in memory; `deployr_dev.bundles` writes it."""

from __future__ import annotations

import hashlib
import hmac
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec
import numpy as np

from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    PARTS,
    SCHEMA_VERSION,
    Estimate,
    Evaluation,
    GoldenVector,
    Manifest,
    Training,
    describe_part,
)
from deployr_core.features import FeatureSpec
from deployr_core.layout import layout_of
from deployr_core.metrics import Interval, NotMeasurable, auroc_interval
from deployr_core.vectorize import FeatureVector
from deployr_dev.cohorts.orders import CohortRow, OrderSource, cohort_rows
from deployr_dev.cohorts.tasks import Task
from deployr_dev.fitting import fit
from deployr_dev.forest import Forest, ForestSettings, TrainingImpossible, checked_scores, score_of, train_forest
from deployr_dev.matrix import (
    FeatureMatrix,
    PatientSource,
    Progress,
    feature_matrix,
    patients_with_index_times,
    snapshot_sha256,
)

GOLDEN_VECTORS = 16
_GOLDEN_DONORS = 64
MIN_PATIENTS_PER_SIDE = 2


class TrainingSource(OrderSource, PatientSource, Protocol):
    """What training needs of an extract; `deployr_dev.sources.omop.OmopExtract` has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutPrediction:
    """What the model gave for a row of a patient whom it never saw, and what was true."""

    person_id: int = field(repr=False)
    order_id: str = field(repr=False)
    index_time: datetime
    label: float
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedBundle:
    """A bundle's files as bytes, with what they were made from. ``parts`` are all files but the manifest."""

    manifest: Manifest
    parts: Mapping[str, bytes]
    predictions: tuple[HeldOutPrediction, ...] = field(repr=False)
    spec: FeatureSpec = field(repr=False)


def train_bundle(
    extract: TrainingSource,
    task: Task,
    declaration: FeatureSpec,
    *,
    before: datetime | None = None,
    seed: int = 0,
    held_out_share: float = 0.3,
    settings: ForestSettings | None = None,
    progress: Progress | None = None,
) -> TrainedBundle:
    """Train a task's model and measure it on patients whom it never saw; the same arguments give the same bytes.

    The declaration is fitted and the forest grown on the training patients' rows alone. The AUROC's interval
    resamples held-out patients 1,000 times. The scores are those of the checkpoint that is deployed.

    Args:
        extract: where orders, results and patients come from.
        task: what is predicted.
        declaration: the features, with what is still to be learned.
        before: rows count only if they were signed, and their label was known, before this instant; None takes
            all. A patient with rows on both sides of it keeps the earlier ones, as it is in a hospital.
        seed: of the split, the forest and the bootstrap.
        held_out_share: of patients, above 0 and below 1.
        settings: of the forest; None takes the defaults.
        progress: told how many patients were read, of both passes over them.

    Raises:
        TrainingImpossible: no labelled row, too few patients on a side, one class only.
        CohortInvalid: an order there twice.
        ScoresDiffer: the checkpoint does not score as the forest it was made from.
    """
    rows = usable_rows(cohort_rows(extract, task), before=before)
    if not rows:
        when = "" if before is None else f" before {before.isoformat()}"
        raise TrainingImpossible(f"task {task.name}: expected labelled orders{when}, got none")
    held_out_patients = held_out({row.person_id for row in rows}, seed=seed, share=held_out_share)
    train_rows = tuple(row for row in rows if row.person_id not in held_out_patients)
    test_rows = tuple(row for row in rows if row.person_id in held_out_patients)
    _check_side(task, "training", train_rows)
    _check_side(task, "held-out", test_rows)

    fitting, steps = len(_patients(train_rows)), len(_patients(train_rows)) + len(_patients(rows))
    spec = fit(
        declaration, patients_with_index_times(extract, train_rows, progress=_shifted(progress, by=0, total=steps))
    )
    matrix = feature_matrix(
        extract, spec, (*train_rows, *test_rows), progress=_shifted(progress, by=fitting, total=steps)
    )
    train_matrix = FeatureMatrix(spec=spec, vectors=matrix.vectors[: len(train_rows)])
    test_matrix = FeatureMatrix(spec=spec, vectors=matrix.vectors[len(train_rows) :])

    forest = train_forest(train_matrix, _labels(train_rows), seed=seed, settings=settings)
    scores = checked_scores(forest, test_matrix)
    predictions = tuple(
        HeldOutPrediction(
            person_id=row.person_id,
            order_id=row.order_id,
            index_time=row.index_time,
            label=_label(row),
            score=float(score),
        )
        for row, score in zip(test_rows, scores, strict=True)
    )
    interval = _measured(task, predictions, seed=seed)
    parts = {
        FEATURES_FILE: spec.to_json(),
        MODEL_FILE: forest.checkpoint,
        GOLDEN_FILE: msgspec.json.encode(golden_vectors(test_matrix.vectors, score_of(forest, test_matrix), seed=seed)),
    }
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=task.name,
        version=content_version(parts),
        task=task.for_manifest(),
        score_name=task.score_name,
        n_features=len(layout_of(spec).names),
        spec_sha256=spec.digest(),
        parts={name: describe_part(content) for name, content in parts.items()},
        training=_training_record(train_rows, train_matrix, forest),
        evaluation=Evaluation(
            rows=len(test_rows),
            patients=len(_patients(test_rows)),
            prevalence=float(_labels(test_rows).mean()),
            auroc=Estimate(value=interval.value, low=interval.low, high=interval.high),
        ),
    )
    return TrainedBundle(manifest=manifest, parts=parts, predictions=predictions, spec=spec)


def usable_rows(rows: Sequence[CohortRow], *, before: datetime | None) -> tuple[CohortRow, ...]:
    """Give the labelled rows that could be trained with at ``before``: signed, and their label known, by then."""
    return tuple(
        row
        for row in rows
        if row.label is not None
        and row.label_known_at is not None
        and (before is None or (row.index_time < before and row.label_known_at < before))
    )


def held_out(person_ids: Collection[int], *, seed: int, share: float) -> frozenset[int]:
    """Choose the patients to hold out, each by a keyed hash of the id alone.

    So a patient keeps their side when others come or go, and ``share`` is only met on average.

    Raises:
        ValueError: ``share`` is not above 0 and below 1.
    """
    if not 0.0 < share < 1.0:
        raise ValueError("expected a held_out_share above 0 and below 1")
    key = f"deployr-split-{seed}".encode()

    def position(person_id: int) -> float:
        digest = hmac.new(key, str(person_id).encode(), hashlib.sha256).digest()
        return int.from_bytes(digest[:6]) / 2**48

    return frozenset(person_id for person_id in person_ids if position(person_id) < share)


def golden_vectors(
    vectors: Sequence[FeatureVector], score: Callable[[FeatureVector], float], *, seed: int, count: int = GOLDEN_VECTORS
) -> tuple[GoldenVector, ...]:
    """Make rows to test a loaded bundle with, and score them.

    A bundle travels, so no row of it may be a patient's: each feature's value comes from another row, drawn at random.
    """
    rng = np.random.default_rng(seed)
    size = vectors[0].size
    donors = rng.permutation(len(vectors))[:_GOLDEN_DONORS]
    dense = np.stack([vectors[place].dense() for place in donors])
    golden = []
    for _ in range(count):
        row = dense[rng.integers(len(donors), size=size), np.arange(size)]
        indices = np.flatnonzero(row).astype(np.int32)
        mixed = FeatureVector(
            spec_digest=vectors[0].spec_digest, size=size, indices=indices, values=row[indices], coverage={}
        )
        golden.append(
            GoldenVector(
                indices=tuple(indices.tolist()), values=tuple(mixed.values.tolist()), score=float(score(mixed))
            )
        )
    return tuple(golden)


def content_version(parts: Mapping[str, bytes]) -> str:
    """Name a bundle by what is in it: 12 hex digits of the SHA-256 over its parts, in their fixed order."""
    digest = hashlib.sha256()
    for name in PARTS:
        digest.update(f"{name} {len(parts[name])}\n".encode())
        digest.update(parts[name])
    return digest.hexdigest()[:12]


def _shifted(progress: Progress | None, *, by: int, total: int) -> Progress | None:
    """Count a pass over patients on from the ``by`` steps before it, of ``total`` in all."""
    if progress is None:
        return None

    def tell(done: int, _total: int, /) -> None:
        progress(by + done, total)

    return tell


def _patients(rows: Sequence[CohortRow]) -> set[int]:
    return {row.person_id for row in rows}


def _label(row: CohortRow) -> float:
    if row.label is None:
        raise ValueError("expected a labelled row")
    return row.label


def _labels(rows: Sequence[CohortRow]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([_label(row) for row in rows], dtype=np.float64)


def _check_side(task: Task, side: str, rows: Sequence[CohortRow]) -> None:
    patients = len(_patients(rows))
    if patients < MIN_PATIENTS_PER_SIDE:
        raise TrainingImpossible(
            f"task {task.name}: expected at least {MIN_PATIENTS_PER_SIDE} {side} patients with labelled orders,"
            f" got {patients}"
        )
    labels = {row.label for row in rows}
    if len(labels) < 2:
        raise TrainingImpossible(
            f"task {task.name}: expected {side} orders of both classes, but all {len(rows)} are labelled"
            f" {labels.pop():g}"
        )


def _measured(task: Task, predictions: Sequence[HeldOutPrediction], *, seed: int) -> Interval:
    try:
        return auroc_interval(
            np.array([row.label for row in predictions]),
            np.array([row.score for row in predictions]),
            np.array([row.person_id for row in predictions], dtype=np.int64),
            rng=np.random.default_rng(seed),
        )
    except NotMeasurable as error:
        raise TrainingImpossible(f"task {task.name}: the held-out patients cannot carry an AUROC: {error}") from error


def _training_record(rows: Sequence[CohortRow], matrix: FeatureMatrix, forest: Forest) -> Training:
    import sklearn
    import treelite

    return Training(
        estimator=type(forest.estimator).__name__,
        parameters=forest.parameters,
        rows=len(rows),
        patients=len(_patients(rows)),
        prevalence=float(_labels(rows).mean()),
        snapshot_sha256=snapshot_sha256(rows, matrix),
        library_versions={
            "numpy": np.__version__,
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "treelite": treelite.__version__,
        },
    )
