"""A trained bundle in memory: the model as it is shipped, measured on rows that it never saw."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import NotMeasured, measure
from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    SCHEMA_VERSION,
    Estimate,
    Evaluation,
    Manifest,
    Training,
    describe_part,
)
from deployr_core.features import FeatureSpec
from deployr_core.golden import GoldenVector
from deployr_core.layout import layout_of
from deployr_core.outputs import Outputs
from deployr_core.target_figures import headline_statistics, label_means
from deployr_core.vectorize import FeatureVector
from deployr_dev.code_version import code_version
from deployr_dev.cohorts.rows import CohortRow, IndexRow, LabelNumbers
from deployr_dev.cohorts.tasks import Task
from deployr_dev.estimators import Fitted
from deployr_dev.folds import TrainingImpossible
from deployr_dev.matrix import FeatureMatrix, snapshot_sha256
from deployr_dev.model_part import ModelPart
from deployr_dev.models import calibrated, model_part
from deployr_dev.splits import Split

GOLDEN_VECTORS = 16

_GOLDEN_DONORS = 64

_TOLERANCE = 1e-6


class ScoresDiffer(RuntimeError):
    """The shipped model does not score as the estimator that it was made from; it is never deployed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutPrediction:
    """What the model gave for a row that it never saw, and what was true, as `CohortRow.label` has it.

    ``outputs``: all that it gave, in the order of the manifest's names. ``features_present``: how many of the row's
    features are not 0.
    """

    person_id: int = field(repr=False)
    unit_id: str = field(repr=False)
    index_time: datetime
    label: LabelNumbers
    outputs: tuple[float, ...]
    features_present: int


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedBundle:
    """A bundle's files as bytes, with what they were made from. ``parts`` are all files but the manifest."""

    manifest: Manifest
    parts: Mapping[str, bytes]
    predictions: tuple[HeldOutPrediction, ...] = field(repr=False)
    spec: FeatureSpec = field(repr=False)
    split: Split = field(repr=False)


def measured_bundle(
    task: Task,
    fitted: Fitted,
    *,
    train_rows: Sequence[CohortRow],
    train_matrix: FeatureMatrix,
    test_rows: Sequence[CohortRow],
    test_matrix: FeatureMatrix,
    split: Split,
    seed: int,
    allow_pickle: bool,
) -> TrainedBundle:
    """Ship a trained estimator, measure what is shipped on the held-out rows, and put the bundle together.

    Raises:
        EstimatorRefused: no bundle can carry the model.
        ScoresDiffer: the shipped model does not score as the estimator.
        TrainingImpossible: the held-out rows cannot carry one of the figures.
    """
    spec = test_matrix.spec
    part = model_part(
        fitted.estimator, n_features=test_matrix.n_features, outputs=task.outputs, allow_pickle=allow_pickle
    )
    answers = checked_answers(part, fitted, test_matrix)
    if fitted.calibration is not None:
        part = calibrated(part, fitted.calibration)
        answers = _answers(part, test_matrix)
    present = np.diff(test_matrix.starts)
    predictions = tuple(
        HeldOutPrediction(
            person_id=row.person_id,
            unit_id=row.unit_id,
            index_time=row.index_time,
            label=_label(row),
            outputs=tuple(answers[place].tolist()),
            features_present=int(present[place]),
        )
        for place, row in enumerate(test_rows)
    )
    figures = measured_figures(
        task.outputs,
        labels_of(test_rows),
        np.array([row.person_id for row in test_rows], dtype=np.int64),
        answers,
        seed=seed,
        of=f"task {task.name}",
    )
    golden = golden_vectors(test_matrix, part.scorer(n_features=test_matrix.n_features).answer, seed=seed)
    parts = {FEATURES_FILE: spec.to_json(), **part.files(), GOLDEN_FILE: msgspec.json.encode(golden)}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=task.model_id,
        version=content_version(parts),
        task=task.for_manifest(),
        score_name=task.score_name,
        n_features=len(layout_of(spec).names),
        spec_sha256=spec.digest(),
        parts={name: describe_part(content) for name, content in parts.items()},
        training=_training_record(task, train_rows, train_matrix, fitted, split),
        evaluation=Evaluation(
            rows=len(test_rows),
            patients=len(_patients(test_rows)),
            label_means=label_means(task.outputs, labels_of(test_rows)),
            figures=figures,
        ),
        model=part.format,
        requires=task.requirements,
        code_version=code_version(),
    )
    return TrainedBundle(manifest=manifest, parts=parts, predictions=predictions, spec=spec, split=split)


def checked_answers(part: ModelPart, fitted: Fitted, matrix: FeatureMatrix) -> NDArray[np.float64]:
    """Score rows as the deployed bundle will, shape (n_rows, n_outputs); the estimator must say the same.

    A random forest must say the same to the bit, any other within a millionth (of the largest number that it
    says, where that is beyond 1): XGBoost adds in float32.

    Raises:
        ScoresDiffer: it does not.
    """
    answers = _answers(part, matrix)
    expected = fitted.scores(matrix.csr()).reshape(answers.shape)
    tolerance = 0.0 if type(fitted.estimator).__name__.startswith("RandomForest") else _TOLERANCE
    apart = np.abs(answers - expected) / max(1.0, np.max(np.abs(expected)))
    differing = int(np.count_nonzero(~(apart <= tolerance).all(axis=1)))
    if differing:
        raise ScoresDiffer(
            f"expected the shipped model to score as the estimator, but {differing} of {len(answers)} rows differ"
        )
    return answers


def golden_vectors(
    matrix: FeatureMatrix,
    answer: Callable[[FeatureVector], tuple[float, ...]],
    *,
    seed: int,
    count: int = GOLDEN_VECTORS,
) -> tuple[GoldenVector, ...]:
    """Make rows to test a loaded bundle with, and score them.

    A bundle travels, so no row of it may be a patient's: each feature's value comes from another row, drawn at random.
    """
    rng = np.random.default_rng(seed)
    donors = rng.permutation(matrix.n_rows)[:_GOLDEN_DONORS]
    return mixed_vectors([matrix.vector(int(place)) for place in donors], answer, rng=rng, count=count)


def mixed_vectors(
    donors: Sequence[FeatureVector],
    answer: Callable[[FeatureVector], tuple[float, ...]],
    *,
    rng: np.random.Generator,
    count: int = GOLDEN_VECTORS,
) -> tuple[GoldenVector, ...]:
    """Make golden vectors of rows of one declaration: each value is that of a donor drawn at random."""
    size, digest = donors[0].size, donors[0].spec_digest
    dense = np.stack([donor.dense() for donor in donors])
    golden = []
    for _ in range(count):
        row = dense[rng.integers(len(donors), size=size), np.arange(size)]
        indices = np.flatnonzero(row).astype(np.int32)
        mixed = FeatureVector(spec_digest=digest, size=size, indices=indices, values=row[indices], coverage={})
        golden.append(
            GoldenVector(indices=tuple(indices.tolist()), values=tuple(mixed.values.tolist()), outputs=answer(mixed))
        )
    return tuple(golden)


def content_version(parts: Mapping[str, bytes]) -> str:
    """Name a bundle by what is in it: 12 hex digits of the SHA-256 over its parts, in the order of their names."""
    digest = hashlib.sha256()
    for name, content in sorted(parts.items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def labels_of(rows: Sequence[CohortRow]) -> NDArray[np.float64]:
    """Give the labels, shape (n_rows,) or, where a row has several, (n_rows, n_labels); every row must have one."""
    return np.array([_label(row) for row in rows], dtype=np.float64)


def _label(row: CohortRow) -> LabelNumbers:
    if row.label is None:
        raise ValueError("expected a labelled row")
    return row.label


def _patients(rows: Sequence[IndexRow]) -> set[int]:
    return {row.person_id for row in rows}


def _answers(part: ModelPart, matrix: FeatureMatrix) -> NDArray[np.float64]:
    scorer = part.scorer(n_features=matrix.n_features)
    return np.array([scorer.answer(vector) for vector in matrix.vectors], dtype=np.float64)


def measured_figures(
    outputs: Outputs,
    labels: NDArray[np.float64],
    patients: NDArray[np.int64],
    answers: NDArray[np.float64],
    *,
    seed: int,
    of: str,
) -> dict[str, Estimate]:
    """Give the figures that a manifest holds, with intervals that resample patients.

    Raises:
        TrainingImpossible: the patients cannot carry one of them; ``of`` says whose it is.
    """
    found = measure(headline_statistics(outputs, labels, answers), patients, rng=np.random.default_rng(seed))
    figures = {}
    for name, figure in found.items():
        if isinstance(figure, NotMeasured):
            shown = "an AUROC" if name.startswith("auroc") else name
            raise TrainingImpossible(f"{of}: the held-out patients cannot carry {shown}: {figure.why}")
        figures[name] = Estimate(value=figure.value, low=figure.low, high=figure.high)
    return figures


def _training_record(
    task: Task, rows: Sequence[CohortRow], matrix: FeatureMatrix, fitted: Fitted, split: Split
) -> Training:
    cutoff = {} if split.cutoff is None else {"split.cutoff": split.cutoff.isoformat()}
    return Training(
        estimator=fitted.name,
        parameters={**fitted.parameters, "split": split.kind.value, **cutoff},
        rows=len(rows),
        patients=len(_patients(rows)),
        label_means=label_means(task.outputs, labels_of(rows)),
        snapshot_sha256=snapshot_sha256(rows, matrix),
        library_versions={**library_versions(), **fitted.libraries},
    )


def library_versions() -> dict[str, str]:
    """Give the versions of what models are trained with and scored by."""
    import sklearn
    import treelite

    return {
        "numpy": np.__version__,
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "treelite": treelite.__version__,
    }
