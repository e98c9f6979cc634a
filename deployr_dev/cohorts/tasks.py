"""A task: what is predicted, about which orders, and what counts as the outcome; one JSON file each."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import msgspec

from deployr_core.bundle import MODEL_ID, SCORE_NAME
from deployr_core.bundle import Task as BundleTask
from deployr_core.labels import LabComponentRule

SCHEMA_VERSION = 1
_LOINC_CODE = re.compile(r"\d{1,7}-\d\Z", re.ASCII)
_SHIPPED = Path(__file__).parent


class TaskInvalid(ValueError):
    """The task file does not say what it must; the message names the file and the key."""


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prediction task over laboratory orders.

    The unit is one order for any of ``panels``, its index time is when it was signed. The label is 1.0 when the
    result of ``components`` is outside the reference range that came with it, ends included being normal. Several
    components are alternatives, the first one preferred.

    ``label_window_hours``: how long after the index time the result may be released, the end excluded. A result
    that names the order answers it; without such a link the first specimen taken from the index time on does.
    ``score_name``: what the EMR's score column is called. ``declaration``: the shipped features it starts from.
    ``observable_at_inference``: why the inclusion needs nothing that is known only after the index time. A cohort
    that is picked by its future, such as orders that got a result, is no cohort of the clinic.

    Raises:
        ValueError: a value that cannot be; the message says what was expected.
    """

    schema_version: int
    name: str
    unit: str
    index_time: str
    label: str
    score_name: str
    panels: tuple[str, ...]
    components: tuple[str, ...]
    label_window_hours: int
    observable_at_inference: str
    declaration: str

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
        if not MODEL_ID.match(self.name):
            raise ValueError(f"expected a name of lower-case letters, digits and hyphens, got {self.name!r}")
        if not SCORE_NAME.match(self.score_name):
            raise ValueError("expected a score_name of capitals, digits and underscores, such as HEMATOCRIT_ABNORMAL")
        for key in ("unit", "index_time", "label", "declaration"):
            if not getattr(self, key).strip():
                raise ValueError(f"expected {key} to say something")
        if not self.observable_at_inference.strip():
            raise ValueError(
                "expected observable_at_inference to say why the inclusion needs nothing from after the index time"
            )
        for key in ("panels", "components"):
            codes = getattr(self, key)
            if not codes or len(set(codes)) != len(codes) or not all(_LOINC_CODE.match(code) for code in codes):
                raise ValueError(f"expected {key} to be LOINC codes such as 4544-3, at least one, each once")
        if not 1 <= self.label_window_hours <= 24 * 366:
            raise ValueError("expected label_window_hours from 1 to 8784")

    def label_rule(self) -> LabComponentRule:
        """Give the rule that decides which result answers an order, the same in training and in service."""
        return LabComponentRule(components=self.components, window=timedelta(hours=self.label_window_hours))

    def for_manifest(self) -> BundleTask:
        """Give what the bundle's manifest says of the task."""
        return BundleTask(
            name=self.name,
            unit=self.unit,
            index_time=self.index_time,
            label=self.label,
            components=self.components,
            panels=self.panels,
            label_window_hours=self.label_window_hours,
        )


def load_task(path: Path) -> Task:
    """Read a task file.

    Raises:
        TaskInvalid: cannot be read, not JSON, a key missing, misspelt or of the wrong type, or a value that cannot be.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Task)
    except OSError as error:
        raise TaskInvalid(f"{path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TaskInvalid(f"{path}: {error}") from None


def shipped_task_names() -> tuple[str, ...]:
    """Name the shipped tasks."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob("*.json")))


def shipped_task(name: str) -> Task:
    """Read a shipped task.

    Raises:
        TaskInvalid: none of that name is shipped.
    """
    if name not in shipped_task_names():
        raise TaskInvalid(f"expected a shipped task ({', '.join(shipped_task_names())}), got {name!r}")
    return load_task(_SHIPPED / f"{name}.json")
