"""From an extract and tasks to trained, measured bundles, all in memory; `deployr_dev.bundles` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import numpy as np

from deployr_core.features import FeatureSpec
from deployr_core.outputs import Target
from deployr_dev.cohorts.cohort import index_rows, labelled
from deployr_dev.cohorts.rows import CohortInvalid, CohortRow, IndexRow
from deployr_dev.cohorts.sources import NotInExtract, OrderSource
from deployr_dev.cohorts.tasks import Task, group_by_features
from deployr_dev.estimators import EstimatorChoice, fit_estimator
from deployr_dev.folds import TrainingImpossible
from deployr_dev.matrix import (
    FeatureEngine,
    FeatureMatrix,
    PatientSource,
    Progress,
    ReferenceEngine,
)
from deployr_dev.model_part import EstimatorRefused
from deployr_dev.search import Search
from deployr_dev.splits import Split, SplitKind, split_rows
from deployr_dev.trained import TrainedBundle, labels_of, measured_bundle

MIN_PATIENTS_PER_SIDE = 2


class TrainingSource(OrderSource, PatientSource, Protocol):
    """What training needs of an extract; `deployr_dev.sources` has it."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How models are trained and held to account.

    ``before``: rows count only if they were predicted, and their label was known, before this instant; None takes all.
    ``held_out_share``: of rows where time separates the sides, of patients where they do; above 0 and below 1. Time
    holds out the last year instead where there are two. ``search``: goes before the task's own. ``allow_pickle``: also
    ships models that run code when they are loaded.
    """

    estimator: EstimatorChoice = field(default_factory=EstimatorChoice)
    split: SplitKind = SplitKind.TIME_AND_PATIENT
    seed: int = 0
    held_out_share: float = 0.3
    before: datetime | None = None
    search: Search | None = None
    allow_pickle: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NotTrained:
    """A task that the data cannot support, and what they lack."""

    task: str
    reason: str


Steps = Callable[[str], AbstractContextManager[Progress]]
"""Opens a step of the work under a title, and gives what is told how far it is."""


def train_bundle(
    extract: TrainingSource,
    task: Task,
    declaration: FeatureSpec,
    *,
    before: datetime | None = None,
    seed: int = 0,
    options: TrainingOptions | None = None,
    engine: FeatureEngine | None = None,
    progress: Progress | None = None,
) -> TrainedBundle:
    """Train one task's model and measure it on rows it never saw; the same arguments give the same bytes.

    Args:
        extract: where rows, labels and patients come from.
        task: what is predicted.
        declaration: the features, with what is still to be learned.
        before: see `TrainingOptions`; replaces that of ``options``.
        seed: of everything that is drawn; replaces that of ``options``.
        options: None takes the defaults.
        engine: computes the features; None takes the reference engine.
        progress: told how many patients were read, of both passes over them.

    Raises:
        TrainingImpossible: no labelled row, too few patients on a side, one class only.
        NotInExtract: the extract does not have what the task is about.
        CohortInvalid: an order or visit there twice.
        EstimatorRefused: no bundle can carry the model.
        ScoresDiffer: the shipped model does not score as the one it was made from.
    """
    given = replace(options or TrainingOptions(), before=before, seed=seed)
    sets = training_sets(extract, task, declaration, options=given, engine=engine, progress=progress)
    return train_on(sets, task, given)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSets:
    """One task's labelled rows on both sides, with their features: row ``i`` of a matrix is that of row ``i``."""

    train_rows: tuple[CohortRow, ...] = field(repr=False)
    train_matrix: FeatureMatrix = field(repr=False)
    test_rows: tuple[CohortRow, ...] = field(repr=False)
    test_matrix: FeatureMatrix = field(repr=False)
    split: Split = field(repr=False)


def training_sets(
    extract: TrainingSource,
    task: Task,
    declaration: FeatureSpec,
    *,
    options: TrainingOptions,
    engine: FeatureEngine | None = None,
    progress: Progress | None = None,
) -> TrainingSets:
    """Give what a task is trained and measured on; the declaration is fitted on the training side.

    Args and Raises: as for `train_bundle`, which trains on them.
    """
    rows = _rows(extract, task, options)
    split = split_rows(rows, kind=options.split, seed=options.seed, held_out_share=options.held_out_share)
    sides = _sides(extract, task, rows, split, options)
    return _features(engine or ReferenceEngine(extract), declaration, rows, split, [sides], progress).sets(sides)


def train_tasks(
    extract: TrainingSource,
    tasks: Sequence[Task],
    *,
    declaration_of: Callable[[str], FeatureSpec],
    options: TrainingOptions,
    engine: FeatureEngine | None = None,
    steps: Steps | None = None,
) -> Iterator[TrainedBundle | NotTrained]:
    """Train several tasks, those that share rows and features from one matrix; gives each as it is done.

    A task comes out the same bytes whether it is trained alone or among others: the declaration is fitted on all
    training rows that the tasks share, labelled or not.

    Args:
        extract: where rows, labels and patients come from.
        tasks: what is predicted; each name once.
        declaration_of: gives the declaration of a name.
        options: how.
        engine: computes the features; None takes the reference engine.
        steps: opens a step of the work, for progress bars.

    Yields:
        In the order of the tasks within each group: the bundle, or what the data lack for it.

    Raises:
        EstimatorInvalid: the estimator is not set as it can be; that concerns every task.
        ScoresDiffer: as for `train_bundle`.
    """
    engine, open_step = engine or ReferenceEngine(extract), steps or _silently
    for group in group_by_features(tasks):
        yield from _train_group(extract, group, declaration_of, options, engine, open_step)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sides:
    """One task's labelled rows, and the positions of those that it is trained on and measured with."""

    cohort: tuple[CohortRow, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shared:
    """The matrix of all rows that any of the tasks uses; ``place`` finds a row of the cohort in it."""

    matrix: FeatureMatrix
    place: Mapping[int, int]
    split: Split

    def sets(self, sides: _Sides) -> TrainingSets:
        return TrainingSets(
            train_rows=tuple(sides.cohort[i] for i in sides.train),
            train_matrix=self._of(sides.train),
            test_rows=tuple(sides.cohort[i] for i in sides.test),
            test_matrix=self._of(sides.test),
            split=self.split,
        )

    def _of(self, positions: Sequence[int]) -> FeatureMatrix:
        return self.matrix.take([self.place[position] for position in positions])


_REASONS = (TrainingImpossible, NotInExtract, CohortInvalid, EstimatorRefused)


def _train_group(
    extract: TrainingSource,
    group: Sequence[Task],
    declaration_of: Callable[[str], FeatureSpec],
    options: TrainingOptions,
    engine: FeatureEngine,
    open_step: Steps,
) -> Iterator[TrainedBundle | NotTrained]:
    try:
        rows = _rows(extract, group[0], options)
    except _REASONS:
        yield from (_why_no_rows(extract, task, options) for task in group)
        return
    split = split_rows(rows, kind=options.split, seed=options.seed, held_out_share=options.held_out_share)
    ready: dict[str, _Sides] = {}
    refused: dict[str, str] = {}
    for task in group:
        try:
            ready[task.name] = _sides(extract, task, rows, split, options)
        except _REASONS as error:
            refused[task.name] = _reason(task, error)
    shared = None
    if ready:
        names = ", ".join(ready)
        with open_step(f"Features for {names if len(ready) < 3 else f'{len(ready)} tasks'}") as tell:
            declaration = declaration_of(group[0].declaration)
            shared = _features(engine, declaration, rows, split, list(ready.values()), tell)
    for task in group:
        if shared is None or task.name in refused:
            yield NotTrained(task=task.name, reason=refused[task.name])
            continue
        outcome: TrainedBundle | NotTrained
        with open_step(f"Training {task.name}") as tell:
            try:
                outcome = train_on(shared.sets(ready[task.name]), task, options)
            except _REASONS as error:
                outcome = NotTrained(task=task.name, reason=_reason(task, error))
            tell(1, 1)
        yield outcome


def _rows(extract: OrderSource, task: Task, options: TrainingOptions) -> tuple[IndexRow, ...]:
    rows = index_rows(extract, task)
    if options.before is not None:
        rows = tuple(row for row in rows if row.index_time < options.before)
    if not rows:
        raise TrainingImpossible(f"task {task.name}: expected {task.unit}s to train on{_when(options)}, got none")
    return rows


def _why_no_rows(extract: OrderSource, task: Task, options: TrainingOptions) -> NotTrained:
    """Say what the data lack for rows that tasks share, in the words of each of them."""
    try:
        _rows(extract, task, options)
    except _REASONS as error:
        return NotTrained(task=task.name, reason=_reason(task, error))
    raise CohortInvalid(f"task {task.name}: expected the same rows each time they are read")


def _sides(
    extract: OrderSource, task: Task, rows: Sequence[IndexRow], split: Split, options: TrainingOptions
) -> _Sides:
    """Label the task's rows and check that both sides can carry a model, before any feature is computed."""
    cohort = labelled(extract, task, rows)
    if not any(is_known(row, before=options.before) for row in cohort):
        raise TrainingImpossible(
            f"task {task.name}: expected labelled {task.unit}s{_when(options)}, got none: {_why_not(cohort)}"
        )
    ends = [instant for instant in (options.before, split.cutoff) if instant is not None]
    sides = _Sides(
        cohort=cohort,
        train=tuple(i for i in split.train if is_known(cohort[i], before=min(ends, default=None))),
        test=tuple(i for i in split.test if is_known(cohort[i], before=options.before)),
    )
    _check_side(task, split, "training", [cohort[i] for i in sides.train])
    _check_side(task, split, "held-out", [cohort[i] for i in sides.test])
    return sides


def is_known(row: CohortRow, *, before: datetime | None) -> bool:
    """True when the row has a label, and anybody could have known it before that instant."""
    if row.label is None or row.label_known_at is None:
        return False
    return before is None or row.label_known_at < before


def _features(
    engine: FeatureEngine,
    declaration: FeatureSpec,
    rows: Sequence[IndexRow],
    split: Split,
    sides: Sequence[_Sides],
    progress: Progress | None,
) -> _Shared:
    train_rows = [rows[i] for i in split.train]
    used = sorted({i for side in sides for i in (*side.train, *side.test)})
    used_rows = [rows[i] for i in used]
    fitting = len(_patients(train_rows))
    steps = fitting + len(_patients(used_rows))
    spec = engine.fit(declaration, train_rows, progress=_shifted(progress, by=0, total=steps))
    matrix = engine.matrix(spec, used_rows, progress=_shifted(progress, by=fitting, total=steps))
    return _Shared(matrix=matrix, place={position: place for place, position in enumerate(used)}, split=split)


def train_on(sets: TrainingSets, task: Task, options: TrainingOptions) -> TrainedBundle:
    """Train on one side and measure on the other.

    Raises:
        TrainingImpossible, EstimatorInvalid, EstimatorRefused, ScoresDiffer: as for `train_bundle`.
    """
    try:
        fitted = fit_estimator(
            options.estimator,
            sets.train_matrix.csr(),
            labels_of(sets.train_rows),
            np.array([row.person_id for row in sets.train_rows], dtype=np.int64),
            seed=options.seed,
            search=options.search or task.search,
            target=task.outputs.target,
        )
    except TrainingImpossible as error:
        raise TrainingImpossible(f"task {task.name}: {error}") from error
    return measured_bundle(
        task,
        fitted,
        train_rows=sets.train_rows,
        train_matrix=sets.train_matrix,
        test_rows=sets.test_rows,
        test_matrix=sets.test_matrix,
        split=sets.split,
        seed=options.seed,
        allow_pickle=options.allow_pickle,
    )


def _silently(_title: str) -> AbstractContextManager[Progress]:
    def tell(_done: int, _total: int, /) -> None:
        pass

    return nullcontext(tell)


def _shifted(progress: Progress | None, *, by: int, total: int) -> Progress | None:
    """Count a pass over patients on from the ``by`` steps before it, of ``total`` in all."""
    if progress is None:
        return None

    def tell(done: int, _total: int, /) -> None:
        progress(by + done, total)

    return tell


def _patients(rows: Sequence[IndexRow]) -> set[int]:
    return {row.person_id for row in rows}


def _reason(task: Task, error: BaseException) -> str:
    return str(error).removeprefix(f"task {task.name}: ")


def _when(options: TrainingOptions) -> str:
    return "" if options.before is None else f" before {options.before.isoformat()}"


def _why_not(cohort: Sequence[CohortRow]) -> str:
    reasons = ["a label known too late" if row.unlabelled is None else row.unlabelled.value for row in cohort]
    return ", ".join(f"{reasons.count(reason)} with {reason}" for reason in sorted(set(reasons)))


def _check_side(task: Task, split: Split, side: str, rows: Sequence[CohortRow]) -> None:
    patients = len(_patients(rows))
    if patients < MIN_PATIENTS_PER_SIDE:
        raise TrainingImpossible(
            f"task {task.name}: expected at least {MIN_PATIENTS_PER_SIDE} {side} patients with labelled {task.unit}s,"
            f" got {patients} (split by {split.kind}; another split may leave more)"
        )
    if task.outputs.target is Target.REGRESSION:
        return
    labels = labels_of(rows)
    classes = len(task.outputs.names) if task.outputs.target is Target.MULTICLASS else 2
    for name, column in zip(_label_names(task), labels.reshape(len(rows), -1).T, strict=True):
        held = np.unique(column)
        if held.size < classes:
            both = "both classes" if classes == 2 else f"all {classes} classes"
            raise TrainingImpossible(
                f"task {task.name}: expected {side} {task.unit}s of {both}{name}, but all {len(rows)} are labelled"
                f" {' or '.join(_in_words(task, each) for each in held.tolist())}"
            )


def _label_names(task: Task) -> tuple[str, ...]:
    return tuple(f" of {name}" for name in task.outputs.names) if task.outputs.target is Target.MULTILABEL else ("",)


def _in_words(task: Task, label: float) -> str:
    return task.outputs.names[int(label)] if task.outputs.target is Target.MULTICLASS else f"{label:g}"
