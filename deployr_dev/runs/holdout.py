"""Two runs on the same held-out rows: those of the challenger, but for patients whom either was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployr_core.bundle import Bundle
from deployr_core.monitoring.paired import PairedRows, compare
from deployr_core.outputs import Target
from deployr_core.registry.comparison import Comparison, Model, Rows
from deployr_dev.cohorts.cohort import cohort_rows, index_rows
from deployr_dev.cohorts.rows import CohortRow
from deployr_dev.evaluation.held_out import groups_of_people
from deployr_dev.matrix import FeatureEngine, FeatureMatrix, ReferenceEngine
from deployr_dev.runs.folder import RunFolder
from deployr_dev.runs.making import RunSource
from deployr_dev.runs.snapshot import Snapshot, SnapshotSet
from deployr_dev.trained import labels_of


class NotComparable(ValueError):
    """The two cannot be held against each other; the message says what stands in the way."""


def compare_runs(
    champion: RunFolder,
    challenger: RunFolder,
    extract: RunSource,
    *,
    threshold: float | None = None,
    engine: FeatureEngine | None = None,
    seed: int = 0,
) -> Comparison:
    """Score the challenger's held-out rows by both, and measure how far apart they are.

    Left out is whoever is in the training set of either: by their ids, which must mean the same people in both runs and
    in the extract, or nobody could say who was seen before.

    Args:
        champion: the run whose model is in service.
        challenger: the run that may replace it.
        extract: has the challenger's held-out rows.
        threshold: in force for the champion; None measures no net benefit.
        engine: computes the features; None takes the reference engine.
        seed: of the resampling of patients.

    Raises:
        NotComparable: other rows or labels are predicted, no one probability is, ids that mean others, or nobody left.
        FolderInvalid: one of them has no snapshot, or not the one that its record says.
    """
    models = champion.bundle(), challenger.bundle()
    expect_same_task(*models)
    snapshots = champion.snapshot(), challenger.snapshot()
    for folder, snapshot in zip((champion, challenger), snapshots, strict=True):
        _expect_same_people(folder, snapshot, extract)
    seen = snapshots[0].train.patients | snapshots[1].train.patients
    found = _held_out(challenger, snapshots[1], extract)
    rows = tuple(row for row in found if row.person_id not in seen)
    if not rows:
        raise NotComparable("expected held-out patients whom neither model was trained on, but none are left")
    engine = engine or ReferenceEngine(extract)
    first, second = (scores_of(model, engine.matrix(model.spec, rows, progress=None)) for model in models)
    return compare(
        PairedRows(
            labels=labels_of(rows),
            champion=first,
            challenger=second,
            patients=np.array([row.person_id for row in rows], dtype=np.int64),
            properties=groups_of_people(rows, extract),
        ),
        champion=_named(champion, models[0]),
        challenger=_named(challenger, models[1]),
        rows_are=Rows.HELD_OUT,
        outcome=models[1].manifest.task.label,
        rng=np.random.default_rng(seed),
        threshold=threshold,
        excluded_patients=len({row.person_id for row in found} & seen),
        notes=_notes(champion, challenger),
    )


def _notes(champion: RunFolder, challenger: RunFolder) -> tuple[str, ...]:
    """Say what favours one of them on these rows."""
    last, first = champion.run.sets.train.last, challenger.run.sets.test.first
    if last < first:
        return ()
    return (f"The champion was trained on rows of up to {last}; the held-out ones begin on {first}, which favours it.",)


def expect_same_task(champion: Bundle, challenger: Bundle) -> None:
    """Refuse models that predict different things, or not one probability.

    Raises:
        NotComparable: the message says what differs.
    """
    first, second = champion.manifest.task, challenger.manifest.task
    if first.outputs.target is not Target.BINARY:
        raise NotComparable(f"expected models of one probability, got {first.outputs.target}")
    for key in ("unit", "index_time", "rule", "panels", "outputs"):
        if getattr(first, key) != getattr(second, key):
            raise NotComparable(f"expected both to predict the same, but their task's {key} differs")


def scores_of(model: Bundle, matrix: FeatureMatrix) -> NDArray[np.float64]:
    """Score rows as the model in service does, shape (n_rows,)."""
    place = model.manifest.task.outputs.place
    return np.array([model.model.answer(vector)[place] for vector in matrix.vectors], dtype=np.float64)


def _expect_same_people(folder: RunFolder, snapshot: Snapshot, extract: RunSource) -> None:
    """Refuse ids that mean somebody else: what was trained on must be there, as the same persons'."""
    whose = {row.unit_id: row.person_id for row in index_rows(extract, folder.config.task)}
    known = [(person, whose[unit]) for person, unit, _ in snapshot.train.keys if unit in whose]
    if not known or any(was != is_now for was, is_now in known):
        raise NotComparable(
            f"{folder.run.run_id}: expected its training rows in this source, of the same persons: without that, nobody"
            " can say who is in both training sets"
        )


def _held_out(challenger: RunFolder, snapshot: Snapshot, extract: RunSource) -> tuple[CohortRow, ...]:
    """Give the challenger's held-out rows as the extract has them, which must be as they were."""
    cohort = {row.unit_id: row for row in cohort_rows(extract, challenger.config.task)}
    test = SnapshotSet.of(
        rows := tuple(cohort[unit] for unit in snapshot.test.unit_ids if unit in cohort), snapshot.test.matrix
    )
    if (test.keys, test.labels) != (snapshot.test.keys, snapshot.test.labels):
        raise NotComparable(
            f"{challenger.run.run_id}: expected its held-out rows in this source, with the labels that they had; has it"
            " changed since? `deployr run verify --source` says in what"
        )
    return rows


def _named(folder: RunFolder, bundle: Bundle) -> Model:
    return Model(name=folder.run.run_id, version=bundle.manifest.version, bundle_sha256=bundle.digest)
