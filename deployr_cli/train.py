"""`deployr train`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_core.bundle import Manifest
from deployr_core.features import FeatureSpec
from deployr_core.outputs import Target
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import TASK_GROUPS, Task, load_task, shipped_task, shipped_task_names
from deployr_dev.declarations.shipped import load_declaration, shipped_declaration, shipped_declaration_names
from deployr_dev.estimators import EstimatorChoice, EstimatorName
from deployr_dev.evaluation.held_out import evaluate_held_out
from deployr_dev.evaluation.report import IndexEntry, write_index, write_report
from deployr_dev.folds import Calibration, Parameter
from deployr_dev.matrix import FeatureEngine, Progress
from deployr_dev.search import load_search
from deployr_dev.sources.fact_source import FactSource
from deployr_dev.sources.in_place import open_warehouse
from deployr_dev.splits import SplitKind
from deployr_dev.trained import TrainedBundle
from deployr_dev.training import NotTrained, TrainingOptions, train_tasks

_Kind = TypeVar("_Kind", SplitKind, Calibration)

REPORTS = "reports"
"""The folder beside the bundles that gets a report per task; no task may be called that."""


def run_train(
    tasks: Sequence[str],
    *,
    source: str,
    out: Path,
    mapping: Path | None = None,
    group: str | None = None,
    features: str | None = None,
    estimator: str = EstimatorName.RANDOM_FOREST.value,
    settings: Sequence[str] = (),
    balanced: bool = False,
    calibration: str | None = None,
    split: str = SplitKind.TIME_AND_PATIENT.value,
    search: Path | None = None,
    allow_pickle: bool = False,
    seed: int = 0,
    engine_of: Callable[[FactSource], FeatureEngine] | None = None,
    console: Console | None = None,
) -> tuple[TrainedBundle | NotTrained, ...]:
    """Train tasks, write a bundle for each into ``out``, and show how they did.

    Args:
        tasks: shipped tasks' names, or task files (YAML).
        source: the extract's path, or a database's URL; ``NAME:`` of a shipped mapping may stand before it. On
            Spark, and with ``in_place=yes``, the feature query runs where the warehouse is.
        out: gets one folder per task, named as the task; none of them may exist yet.
        mapping: a source mapping file, in place of a shipped one.
        group: a group of shipped tasks, such as ``paper12``, beside ``tasks``.
        features: a shipped declaration's name, or a declaration file, in place of the tasks' own.
        estimator: an `EstimatorName`, or the dotted name of a class with scikit-learn's interface.
        settings: the estimator's parameters, ``NAME=VALUE`` each.
        balanced: both classes weigh the same.
        calibration: ``sigmoid`` or ``isotonic``.
        split: ``time``, ``patient`` or ``time+patient``.
        search: a search file (YAML); goes before the tasks' own.
        allow_pickle: also ships models that run code when they are loaded.
        seed: of everything that is drawn.
        engine_of: makes the engine that computes the features; None takes the reference engine.
        console: where to show things; None takes the standard output.

    Returns:
        Per task, in the order in which they were trained, the bundle or what the data lack for it.

    Raises:
        CommandFailed: an argument that cannot be, a folder that is there already, or no task could be trained.
        Other ValueErrors: a task, search or declaration file, or the extract, is not what it must be.
    """
    console = console or Console()
    chosen = find_tasks(tasks, group)
    options = TrainingOptions(
        estimator=find_estimator(estimator, settings, balanced=balanced, calibration=calibration),
        split=_one_of(SplitKind, split, "--split"),
        seed=seed,
        search=None if search is None else load_search(search),
        allow_pickle=allow_pickle,
    )
    declarations = {task.declaration: find_declaration(features or task.declaration) for task in chosen}
    for task in chosen:
        if task.model_id == REPORTS:
            raise CommandFailed(f"task {task.name}: expected another name, because the reports are kept under this one")
        if (out / task.model_id).exists():
            raise CommandFailed(
                f"{out / task.model_id}: expected a folder that does not exist yet; choose another --out or remove it"
            )

    def step(title: str) -> AbstractContextManager[Progress]:
        return bar(console, title)

    outcomes: list[TrainedBundle | NotTrained] = []
    entries: list[IndexEntry] = []
    reports = out / REPORTS
    with open_warehouse(source, mapping, steps=step) as extract:
        for outcome in train_tasks(
            extract,
            chosen,
            declaration_of=declarations.__getitem__,
            options=options,
            engine=None if engine_of is None else engine_of(extract),
            steps=step,
        ):
            if isinstance(outcome, TrainedBundle):
                # Serving knows a model by its folder's name.
                name = outcome.manifest.model_id
                write_bundle(outcome, out / name, allow_pickle=allow_pickle)
                evaluation = evaluate_held_out(outcome, extract, seed=seed)
                write_report(reports / name, manifest=outcome.manifest, evaluation=evaluation, spec=outcome.spec)
                entry = IndexEntry(manifest=outcome.manifest, evaluation=evaluation, link=f"{name}/report.html")
                entries.append(entry)
            outcomes.append(outcome)
    if entries:
        write_index(reports, entries)
    _show(outcomes, out, console)
    missed = [outcome for outcome in outcomes if isinstance(outcome, NotTrained)]
    if len(missed) == len(outcomes):
        reason = missed[0].reason if len(missed) == 1 else "the reasons are above"
        raise CommandFailed(f"no bundle was written, because none of the tasks could be trained: {reason}")
    return tuple(outcomes)


def find_tasks(names: Sequence[str], group: str | None) -> tuple[Task, ...]:
    """Give the tasks of files, the shipped ones of these names, and those of the group, each once.

    Raises:
        CommandFailed: no such task or group, none at all, or two different tasks of one name.
        TaskInvalid: a file is not a task.
    """
    if group is not None and group not in TASK_GROUPS:
        raise CommandFailed(f"{group}: expected a group of tasks, one of {', '.join(TASK_GROUPS)}")
    found: dict[str, Task] = {}
    for name in (*names, *(TASK_GROUPS[group] if group is not None else ())):
        task = find_task(name)
        if found.setdefault(task.name, task) != task:
            raise CommandFailed(f"{name}: expected each task's name once, but there are two tasks {task.name}")
    if not found:
        raise CommandFailed(f"expected a task: a file, or one of {', '.join(shipped_task_names())}")
    return tuple(found.values())


def find_task(name: str) -> Task:
    """Give the task of a file, or the shipped one of that name."""
    if Path(name).is_file():
        return load_task(Path(name))
    if name in shipped_task_names():
        return shipped_task(name)
    raise CommandFailed(f"{name}: expected a task file, or one of {', '.join(shipped_task_names())}")


def find_declaration(name: str) -> FeatureSpec:
    """Give the declaration of a file, or the shipped one of that name."""
    if Path(name).is_file():
        return load_declaration(Path(name))
    if name in shipped_declaration_names():
        return shipped_declaration(name)
    raise CommandFailed(f"{name}: expected a declaration file, or one of {', '.join(shipped_declaration_names())}")


def find_estimator(
    name: str, settings: Sequence[str], *, balanced: bool = False, calibration: str | None = None
) -> EstimatorChoice:
    """Give the estimator of that name, or of that dotted name, with its settings (``NAME=VALUE``).

    Raises:
        CommandFailed: there is none, or a setting is not ``NAME=VALUE``.
    """
    parameters = dict(map(_setting, settings))
    correction = None if calibration is None else _one_of(Calibration, calibration, "--calibration")
    if name in set(EstimatorName):
        return EstimatorChoice(
            name=EstimatorName(name), parameters=parameters, balanced=balanced, calibration=correction
        )
    return EstimatorChoice(
        make=_estimator_class(name), label=name, parameters=parameters, balanced=balanced, calibration=correction
    )


def _estimator_class(name: str) -> Callable[[], Any]:
    """Import the user's own estimator. Naming it on the command line is the consent to run its code."""
    module, _, attribute = name.rpartition(".")
    expected = f"expected one of {', '.join(EstimatorName)}, or the dotted name of an estimator class"
    if not module:
        raise CommandFailed(f"{name}: {expected}")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CommandFailed(f"{name}: {expected}; it cannot be imported ({error})") from None
    if not all(hasattr(made, method) for method in ("fit", "predict", "get_params", "set_params")):
        raise CommandFailed(f"{name}: expected a class with fit, predict, get_params and set_params")
    make: Callable[[], Any] = made
    return make


def _setting(text: str) -> tuple[str, Parameter]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise CommandFailed(f"{text}: expected a setting as NAME=VALUE, such as n_estimators=500")
    try:
        return key, msgspec.json.decode(value, type=Parameter)
    except msgspec.DecodeError:
        return key, value


def _one_of(kind: type[_Kind], value: str, option: str) -> _Kind:
    try:
        return kind(value)
    except ValueError:
        raise CommandFailed(f"{option}: expected one of {', '.join(kind)}, got {value!r}") from None


def _show(outcomes: Sequence[TrainedBundle | NotTrained], out: Path, console: Console) -> None:
    """Show the figures in the layout of the paper's Table 2, then what could not be trained."""
    trained = [outcome for outcome in outcomes if isinstance(outcome, TrainedBundle)]
    if trained:
        for table in _tables(trained):
            console.print(table)
        bundles = f"{len(trained)} bundle{'s' if len(trained) > 1 else ''} in {out}"
        console.print(f"{bundles}; reports in {out / REPORTS}/index.html", highlight=False, soft_wrap=True)
    for outcome in outcomes:
        if isinstance(outcome, NotTrained):
            console.print(
                f"not trained: {outcome.task}: {outcome.reason}", highlight=False, markup=False, soft_wrap=True
            )


def _tables(trained: Sequence[TrainedBundle]) -> list[Table]:
    """Give the table of probabilities, and that of classes, labels and numbers, each where there are any."""
    tables = []
    for binary in (True, False):
        manifests = [
            each.manifest for each in trained if (each.manifest.task.outputs.target is Target.BINARY) == binary
        ]
        if not manifests:
            continue
        kind = "" if binary else "Other targets: "
        table = Table(
            title=f"{kind}{'H' if binary else 'h'}eld-out performance (training / held out)", title_justify="left"
        )
        table.add_column("Task", no_wrap=True)
        for heading in ("Rows", "Patients", *(("Prevalence", "AUROC [95 % CI]") if binary else ("Figure [95 % CI]",))):
            table.add_column(heading, justify="right", no_wrap=True)
        for manifest in manifests:
            training, held_out = manifest.training, manifest.evaluation
            table.add_row(
                manifest.task.name,
                f"{training.rows:,} / {held_out.rows:,}",
                f"{training.patients:,} / {held_out.patients:,}",
                *([_prevalence(manifest)] if binary else []),
                _main_figure(manifest),
            )
        tables.append(table)
    return tables


def _prevalence(manifest: Manifest) -> str:
    name = manifest.task.outputs.headline
    return f"{manifest.training.label_means[name]:.2f} / {manifest.evaluation.label_means[name]:.2f}"


def _main_figure(manifest: Manifest) -> str:
    """Give the AUROC, the mean of several, or how far numbers are off on average."""
    outputs = manifest.task.outputs
    figure = manifest.evaluation.figures["auroc" if outputs.unit is None else "mae"]
    bounds = f"[{figure.low:.2f}, {figure.high:.2f}]"
    if outputs.target is Target.BINARY:
        return f"{figure.value:.2f} {bounds}"
    if outputs.unit is not None:
        return f"MAE {figure.value:.2f} {outputs.unit} {bounds}"
    return f"mean AUROC {figure.value:.2f} {bounds}"
