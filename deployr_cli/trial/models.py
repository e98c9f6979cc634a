"""The twelve models: trained on the past, measured on what was held out of it, and deployed silently."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell, bar
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import TASK_GROUPS, shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.estimators import EstimatorChoice
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from deployr_dev.trained import TrainedBundle
from deployr_dev.training import NotTrained, TrainingOptions, train_tasks

_FOREST = EstimatorChoice(parameters={"n_estimators": 100})
"""Half of the trees that one model alone gets: twelve of them are trained while somebody waits."""
_DEPLOYMENT = """\
# A silent trial: every score is stored, none is shown or written anywhere.
schema_version: 1
model: {model}
mode: silent
outputs: []
groups: [{group}]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What is ordered together and so asked about at once: ``name`` as in the deployment files, ``tasks`` by name."""

    name: str
    panels: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """What its models are called in URLs."""
        return tuple(shipped_task(task).model_id for task in self.tasks)


def _groups() -> tuple[Group, ...]:
    by_panels: dict[tuple[str, ...], list[str]] = {}
    for name in TASK_GROUPS["paper12"]:
        by_panels.setdefault(shipped_task(name).panels, []).append(name)
    # A group must not be called as a model is.
    names = ("cbc", "metabolic", "mg")
    return tuple(
        Group(name=name, panels=panels, tasks=tuple(tasks))
        for name, (panels, tasks) in zip(names, by_panels.items(), strict=True)
    )


GROUPS = _groups()


def train_models(
    omop: Path, bundles: Path, *, before: datetime, seed: int, console: Console
) -> Mapping[str, TrainedBundle]:
    """Train all twelve on what was known before an instant, and write a bundle for each; give them by task.

    Raises:
        CommandFailed: one of them could not be trained.
    """

    def step(title: str) -> AbstractContextManager[Tell]:
        return bar(console, title)

    trained: dict[str, TrainedBundle] = {}
    with Extract.open(omop) as extract:
        for outcome in train_tasks(
            extract,
            [shipped_task(name) for group in GROUPS for name in group.tasks],
            declaration_of=shipped_declaration,
            options=TrainingOptions(before=before, seed=seed, estimator=_FOREST),
            engine=SetEngine(extract),
            steps=step,
        ):
            if isinstance(outcome, NotTrained):
                raise CommandFailed(f"{outcome.task} could not be trained: {outcome.reason}; try more --orders")
            write_bundle(outcome, bundles / outcome.manifest.model_id)
            trained[outcome.manifest.task.name] = outcome
    return trained


def write_deployments(folder: Path) -> None:
    """Write each model's deployment file: silent, in its group."""
    folder.mkdir(parents=True)
    for group in GROUPS:
        for model in group.models:
            text = _DEPLOYMENT.format(model=model, group=group.name)
            (folder / f"{model}.yaml").write_text(text, encoding="utf-8")
