"""What a task file must say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployr_dev.cohorts.tasks import Task, TaskInvalid, load_task, shipped_task, shipped_task_names

SHIPPED = Path(__file__).parents[3] / "deployr_dev" / "cohorts" / "hematocrit.json"


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "task.json"
    path.write_text(json.dumps({**json.loads(SHIPPED.read_bytes()), **changes}))
    return path


def test_every_shipped_task_can_be_read_and_is_named_as_its_file():
    assert [shipped_task(name).name for name in shipped_task_names()] == list(shipped_task_names())


def test_hematocrit_is_about_blood_counts_with_and_without_differential(task: Task):
    assert task.panels == ("58410-2", "57021-8", "57782-5")
    assert task.components == ("4544-3", "20570-8")


def test_the_manifest_takes_over_what_the_task_says(task: Task):
    manifest = task.for_manifest()

    assert (manifest.name, manifest.components, manifest.panels) == (task.name, task.components, task.panels)
    assert manifest.label_window_hours == 72


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pannels": []}, "pannels"),
        ({"panels": []}, "panels"),
        ({"panels": ["58410-2", "58410-2"]}, "each once"),
        ({"components": ["hematocrit"]}, "LOINC"),
        ({"name": "Hematocrit!"}, "name of lower-case"),
        ({"label": " "}, "label to say something"),
        ({"label_window_hours": 0}, "label_window_hours"),
        ({"label_window_hours": "72"}, "label_window_hours"),
        ({"observable_at_inference": "  "}, "observable_at_inference"),
        ({"schema_version": 2}, "schema_version 1"),
    ],
)
def test_a_task_that_does_not_say_what_it_must_is_refused_by_file_and_key(
    tmp_path: Path, changes: dict[str, Any], named: str
):
    path = written(tmp_path, **changes)

    with pytest.raises(TaskInvalid, match=named) as raised:
        load_task(path)

    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_or_not_json_is_refused_by_name(tmp_path: Path):
    with pytest.raises(TaskInvalid, match=r"absent\.json: cannot be read"):
        load_task(tmp_path / "absent.json")
    (tmp_path / "task.json").write_text("name: hematocrit")
    with pytest.raises(TaskInvalid, match=r"task\.json"):
        load_task(tmp_path / "task.json")


def test_an_unknown_task_is_refused_with_those_that_there_are():
    with pytest.raises(TaskInvalid, match="hematocrit"):
        shipped_task("sodium")
