"""A task: what is predicted, about which orders or visits, and what counts as the outcome; one YAML file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from deployr_core.bundle import MODEL_ID, SCORE_NAME
from deployr_core.bundle import Task as BundleTask
from deployr_core.coverage import Requirements
from deployr_core.label_rules import Declared, IcuTransfer, LabelRule, LabRule, deciding_components, outputs_of
from deployr_core.outputs import Outputs
from deployr_dev.cohorts.observable import check_observable
from deployr_dev.cohorts.rules import AllRows, Inclusion, IndexTime, Period, Sampling, Unit
from deployr_dev.search import Search
from deployr_dev.yaml_files import FileInvalid, read_yaml

SCHEMA_VERSION = 2
_SHIPPED = Path(__file__).parent / "tasks"
_CBC = ("hematocrit", "hemoglobin", "wbc", "platelets")
_METABOLIC = ("albumin", "bun", "calcium", "co2", "creatinine", "potassium", "sodium")
TASK_GROUPS = MappingProxyType({"paper12": (*_CBC, *_METABOLIC, "magnesium")})
"""Tasks that are trained together. ``paper12``: Corbin et al. (2023), doi:10.1093/jamia/ocad114, Table 2."""


class TaskInvalid(ValueError):
    """The task file does not say what it must; the message names the file and the key."""


class Task(Declared, frozen=True, kw_only=True):
    """One prediction task.

    ``meaning``: what a label of 1 means, in words. ``score_name``: what the EMR's score column is called.
    ``headline``: which class or label is the score, where there are several. ``declaration``: the shipped features that
    it starts from. ``observable_at_inference``: why the inclusion needs
    nothing that is known only after the index time; that it uses no such key is checked. ``search``: which settings of
    the estimator are tried, if any. ``requires``: what must be known about a patient before the model may score.

    Raises:
        ValueError: a value that cannot be; the message says what was expected.
        FaultyCohort: rows picked by their future.
    """

    schema_version: int
    name: str
    score_name: str
    declaration: str
    unit: Unit
    index_time: IndexTime
    inclusion: Inclusion
    label: LabelRule
    meaning: str
    observable_at_inference: str
    sampling: Sampling = AllRows()
    period: Period = Period()
    search: Search | None = None
    headline: str | None = None
    requires: Requirements = Requirements()

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not MODEL_ID.match(self.model_id):
            raise ValueError(f"expected a name of lower-case letters, digits, _ and -, got {self.name!r}")
        if not SCORE_NAME.match(self.score_name):
            raise ValueError("expected a score_name of capitals, digits and underscores, such as HEMATOCRIT_ABNORMAL")
        for key in ("meaning", "declaration"):
            if not getattr(self, key).strip():
                raise ValueError(f"expected {key} to say something")
        if not self.observable_at_inference.strip():
            raise ValueError(
                "expected observable_at_inference to say why the inclusion needs nothing from after the index time"
            )
        outputs_of(self.label, headline=self.headline)
        if (self.requires.age_at_least, self.requires.age_below, self.requires.visit_classes) != (None, None, ()):
            raise ValueError("expected ages and visit_classes in inclusion: from there they are required in service")
        check_observable(self.unit, self.index_time, self.inclusion, self.label)

    @property
    def model_id(self) -> str:
        """What the model is called in URLs, where underscores are not allowed."""
        return self.name.replace("_", "-")

    @property
    def panels(self) -> tuple[str, ...]:
        """The LOINC codes of the orders that are rows; empty where the unit is a visit."""
        return self.inclusion.panels

    @property
    def components(self) -> tuple[str, ...]:
        """The LOINC codes of the results that decide the label; empty where no result does."""
        return deciding_components(self.label)

    @property
    def outputs(self) -> Outputs:
        """What a model of this task gives."""
        return outputs_of(self.label, headline=self.headline)

    @property
    def lab_rule(self) -> LabRule:
        """The rule that decides which results answer an order, the same in training and in service.

        Raises:
            ValueError: no result decides this task's label.
        """
        if not isinstance(self.label, LabRule):
            raise ValueError(f"task {self.name}: expected a lab-component or lab-panel label")  # noqa: TRY004 — about the file
        return self.label

    def shares_features_with(self, other: Task) -> bool:
        """True when both have the same rows and features, so that one matrix serves both."""
        return self._rows_and_features() == other._rows_and_features()

    def for_manifest(self) -> BundleTask:
        """Give what the bundle's manifest says of the task."""
        return BundleTask(
            name=self.name,
            unit=self._unit_in_words(),
            index_time=str(self.index_time),
            label=" ".join(self.meaning.split()),
            rule=self.label,
            panels=self.panels,
            outputs=self.outputs,
        )

    @property
    def requirements(self) -> Requirements:
        """What must be known in service: what is declared, and that the patient could have been a row."""
        return msgspec.structs.replace(
            self.requires,
            age_at_least=self.inclusion.age_at_least,
            age_below=self.inclusion.age_below,
            visit_classes=self.inclusion.visit_classes,
        )

    def _rows_and_features(self) -> tuple[object, ...]:
        return (self.unit, self.index_time, self.inclusion, self.sampling, self.period, self.declaration, self._icu())

    def _icu(self) -> tuple[str, ...]:
        """Give the classes whose patients are no rows."""
        return self.label.icu_classes if isinstance(self.label, IcuTransfer) else ()

    def _unit_in_words(self) -> str:
        classes = f" of class {', '.join(self.inclusion.visit_classes)}" if self.inclusion.visit_classes else ""
        if self.unit is Unit.ORDER:
            during = f", during a visit{classes}" if classes else ""
            return f"one order for a panel of {', '.join(self.panels)} (LOINC){during}"
        return f"one visit{classes}"


def load_task(path: Path) -> Task:
    """Read a task file.

    Raises:
        TaskInvalid: cannot be read, not YAML, a key missing, misspelt or of the wrong type, a value that cannot be, or
            rows that are picked by their future.
    """
    try:
        return read_yaml(path, Task)
    except FileInvalid as error:
        raise TaskInvalid(str(error)) from None


def shipped_task_names() -> tuple[str, ...]:
    """Name the shipped tasks."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob("*.yaml")))


def shipped_task(name: str) -> Task:
    """Read a shipped task.

    Raises:
        TaskInvalid: none of that name is shipped.
    """
    if name not in shipped_task_names():
        raise TaskInvalid(f"expected a shipped task ({', '.join(shipped_task_names())}), got {name!r}")
    return load_task(_SHIPPED / f"{name}.yaml")


def group_by_features(tasks: Sequence[Task]) -> tuple[tuple[Task, ...], ...]:
    """Put tasks together that one feature matrix serves, in the order in which they come."""
    groups: list[list[Task]] = []
    for task in tasks:
        home = next((group for group in groups if group[0].shares_features_with(task)), None)
        if home is None:
            groups.append([task])
        else:
            home.append(task)
    return tuple(tuple(group) for group in groups)
