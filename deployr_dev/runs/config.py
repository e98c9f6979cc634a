"""A model config: all that makes a model, in one file, so that it can be trained again by anybody, or by a schedule.

It names a task and a declaration, or holds them itself: `resolved` puts them in, so that the copy that lies in a run's
folder needs nothing else. Estimators, searches and splits are those of `deployr_dev.training`, under the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from deployr_core.features import FeatureSpec
from deployr_core.registry.run import DeployType
from deployr_dev.cohorts.tasks import Task, load_task, shipped_task, shipped_task_names
from deployr_dev.declarations.shipped import load_declaration, shipped_declaration, shipped_declaration_names
from deployr_dev.estimators import EstimatorChoice, EstimatorName
from deployr_dev.folds import Calibration, Parameter
from deployr_dev.search import Search
from deployr_dev.splits import SplitKind
from deployr_dev.training import TrainingOptions
from deployr_dev.yaml_files import FileInvalid, read_yaml

SCHEMA_VERSION = 1


class ConfigInvalid(ValueError):
    """The config does not say what it must; the message names the file and the key."""


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is as it is by default is not written, so that a digest survives keys that come in later."""


class Estimator(_Declared, frozen=True, kw_only=True):
    """Which estimator, and how it is set; see `deployr_dev.estimators.EstimatorChoice`."""

    name: EstimatorName = EstimatorName.RANDOM_FOREST
    parameters: Mapping[str, Parameter] = msgspec.field(default_factory=dict)
    balanced: bool = False
    calibration: Calibration | None = None


class Labels(_Declared, frozen=True, kw_only=True):
    """Which labels count; what a label is, the task says.

    ``known_before``: rows that were predicted, and whose label was known, before this instant; None takes all.
    """

    known_before: datetime | None = None

    def __post_init__(self) -> None:
        if self.known_before is not None and self.known_before.tzinfo is None:
            raise ValueError("expected known_before with its offset, such as 2026-01-05T00:00:00+00:00")


class Evidence(_Declared, frozen=True, kw_only=True):
    """How many held-out patients and rows with the outcome there must be; with fewer nothing is trained.

    The defaults are what intervals need to mean anything at all, not what a decision needs.
    """

    patients: int = 30
    positives: int = 10

    def __post_init__(self) -> None:
        if self.patients < 2 or self.positives < 1:
            raise ValueError("expected evidence of at least 2 patients and 1 positive")


class Retraining(_Declared, frozen=True, kw_only=True):
    """What opens a run by itself; nothing deploys one by itself.

    ``schedule``: NCRONTAB, in UTC, such as ``0 0 3 1 * *`` for the first of each month at 03:00. ``on_drift_alarm``: an
    alarm of drift about this model does, too.
    """

    schedule: str | None = None
    on_drift_alarm: bool = False


class ModelConfig(_Declared, frozen=True, kw_only=True):
    """One model's making.

    ``task``: a shipped task's name, a task file beside the config, or the task itself. ``source``: the extract, as for
    `deployr train`; the command line may name another. ``features``: a shipped declaration's name, a declaration file,
    or the declaration itself, in place of the task's own. ``search``: goes before the task's own. ``held_out_share``:
    see `deployr_dev.training.TrainingOptions`, as for ``split``, ``seed`` and ``allow_pickle``.

    Raises:
        ValueError: a value that cannot be; the message names the key.
    """

    schema_version: int
    task: str | Task
    source: str | None = None
    features: str | FeatureSpec | None = None
    labels: Labels = Labels()
    estimator: Estimator = Estimator()
    search: Search | None = None
    split: SplitKind = SplitKind.TIME_AND_PATIENT
    held_out_share: float = 0.3
    seed: int = 0
    allow_pickle: bool = False
    evidence: Evidence = Evidence()
    deploy: DeployType = DeployType.CLOUD
    retrain: Retraining = Retraining()

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not 0.0 < self.held_out_share < 1.0:
            raise ValueError("expected held_out_share above 0 and below 1")
        if self.seed < 0:
            raise ValueError("expected a seed of at least 0")


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A config with its task and declaration in it, and without its source: the same making, wherever the data are."""

    config: ModelConfig
    task: Task
    declaration: FeatureSpec

    @property
    def options(self) -> TrainingOptions:
        """How it is trained."""
        chosen, before = self.config.estimator, self.config.labels.known_before
        return TrainingOptions(
            estimator=EstimatorChoice(
                name=chosen.name,
                parameters=chosen.parameters,
                balanced=chosen.balanced,
                calibration=chosen.calibration,
            ),
            split=self.config.split,
            seed=self.config.seed,
            held_out_share=self.config.held_out_share,
            before=None if before is None else before.astimezone(UTC),
            search=self.config.search,
            allow_pickle=self.config.allow_pickle,
        )

    def to_yaml(self) -> bytes:
        """Give the config as it lies in a run's folder: one that names no file. JSON is YAML."""
        content = msgspec.structs.replace(self.config, source=None, task=self.task, features=self.declaration)
        return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1) + b"\n"

    @property
    def sha256(self) -> str:
        """Give the digest of the making: of what the config says, however its file is laid out."""
        return hashlib.sha256(self.to_yaml()).hexdigest()


def load_config(path: Path) -> ModelConfig:
    """Read a config file (YAML).

    Raises:
        ConfigInvalid: cannot be read, not YAML, a key missing, misspelt or of the wrong type, or a value that
            cannot be.
    """
    try:
        return read_yaml(path, ModelConfig)
    except FileInvalid as error:
        raise ConfigInvalid(str(error)) from None


def resolved(config: ModelConfig, *, folder: Path) -> ResolvedConfig:
    """Find what the config names.

    Args:
        config: as read.
        folder: where its file lies; files that it names lie there or are named from there.

    Raises:
        ConfigInvalid: no such task or declaration; the message names the key.
        TaskInvalid, DeclarationInvalid: a file is none.
    """
    task = _task(config.task, folder)
    return ResolvedConfig(config=config, task=task, declaration=_declaration(config.features, task, folder))


def _task(named: str | Task, folder: Path) -> Task:
    if isinstance(named, Task):
        return named
    if (folder / named).is_file():
        return load_task(folder / named)
    if named in shipped_task_names():
        return shipped_task(named)
    raise ConfigInvalid(f"task: expected a task file, or one of {', '.join(shipped_task_names())}, got {named}")


def _declaration(named: str | FeatureSpec | None, task: Task, folder: Path) -> FeatureSpec:
    if isinstance(named, FeatureSpec):
        return named
    if named is None:
        return shipped_declaration(task.declaration)
    if (folder / named).is_file():
        return load_declaration(folder / named)
    if named in shipped_declaration_names():
        return shipped_declaration(named)
    names = ", ".join(shipped_declaration_names())
    raise ConfigInvalid(f"features: expected a declaration file, or one of {names}, got {named}")
