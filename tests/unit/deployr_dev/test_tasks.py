"""What a task file must say, and that no task may pick its rows by their future."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from deployr_core.bundle import MODEL_ID
from deployr_core.coverage import Requirements
from deployr_core.outputs import BINARY, Target
from deployr_dev.cohorts.rules import Period
from deployr_dev.cohorts.tasks import (
    TASK_GROUPS,
    Task,
    TaskInvalid,
    group_by_features,
    load_task,
    shipped_task,
    shipped_task_names,
)

SHIPPED = Path(__file__).parents[3] / "deployr_dev" / "cohorts" / "tasks"


def written(folder: Path, shipped: str = "hematocrit", **changes: Any) -> Path:
    """Write a shipped task with changes; a dict is merged into what is there, None removes a key."""
    content = yaml.safe_load((SHIPPED / f"{shipped}.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        merged = {**content[key], **value} if isinstance(value, dict) and key in content else value
        if isinstance(merged, dict):
            merged = {k: v for k, v in merged.items() if v is not None}
        content[key] = merged
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def _other(**label: Any) -> dict[str, Any]:
    """Give the change that puts this label in the place of a shipped one."""
    return {"label": {"components": None, "window_hours": None, **label}}


def _fhirpath(expression: str) -> dict[str, Any]:
    searches = [{"resource_type": "Observation"}]
    return _other(kind="fhirpath", expression=expression, searches=searches, hours=24)


@pytest.mark.parametrize("name", shipped_task_names())
def test_every_shipped_task_can_be_read_is_named_as_its_file_and_can_stand_in_a_url(name: str):
    task = shipped_task(name)

    assert task.name == name
    assert MODEL_ID.match(task.model_id)
    assert len(task.observable_at_inference.split()) > 20


def test_the_papers_twelve_tasks_are_a_group_and_share_three_matrices():
    tasks = [shipped_task(name) for name in TASK_GROUPS["paper12"]]

    assert [[task.name for task in group] for group in group_by_features(tasks)] == [
        ["hematocrit", "hemoglobin", "wbc", "platelets"],
        ["albumin", "bun", "calcium", "co2", "creatinine", "potassium", "sodium"],
        ["magnesium"],
    ]


def test_a_label_by_an_expression_goes_with_either_unit(tmp_path: Path):
    expression = "Bundle.entry.resource.where(issued >= %as_of and issued < %until).exists()"
    assert load_task(written(tmp_path, **_fhirpath(expression))).outputs == BINARY
    change = {**_fhirpath(expression)["label"], "days": None}
    assert load_task(written(tmp_path, "long_stay", label=change)).outputs == BINARY


def test_tasks_with_other_rows_or_features_share_no_matrix(task: Task):
    other = msgspec.structs.replace(task, name="other", period=Period(start=date(2030, 1, 1)))

    assert not task.shares_features_with(other)
    assert not task.shares_features_with(msgspec.structs.replace(task, declaration="inpatient"))


def test_hematocrit_is_about_blood_counts_with_and_without_differential(task: Task):
    assert task.panels == ("58410-2", "57021-8", "57782-5")
    assert task.components == ("4544-3", "20570-8")


def test_the_manifest_takes_over_what_the_task_says(task: Task):
    manifest = task.for_manifest()

    assert (manifest.name, manifest.rule, manifest.panels) == (task.name, task.label, task.panels)
    assert manifest.outputs == BINARY
    assert manifest.index_time == "when the order was signed"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pannels": []}, "unknown key 'pannels'"),
        ({"inclusion": {"pannels": []}}, r"unknown key 'pannels' in inclusion; did you mean 'panels'\?"),
        ({"label": {"component": []}}, "unknown key 'component' in label; did you mean 'components'"),
        ({"score_name": None}, "expected the key 'score_name'"),
        ({"label": {"window_hours": None}}, "expected the key 'window_hours' in label"),
        ({"inclusion": {"panels": []}}, "panels"),
        ({"inclusion": {"panels": ["58410-2", "58410-2"]}}, "each once"),
        ({"label": {"components": ["hematocrit"]}}, "LOINC"),
        ({"label": {"kind": "lab-value"}}, "lab-value"),
        ({"name": "Hematocrit!"}, "name of lower-case"),
        ({"meaning": " "}, "meaning to say something"),
        ({"label": {"window_hours": 0}}, "window_hours"),
        ({"label": {"window_hours": "72"}}, "window_hours"),
        ({"observable_at_inference": "  "}, "observable_at_inference"),
        ({"schema_version": 1}, "schema_version 2"),
        ({"period": {"start": date(2020, 1, 1), "end": date(2020, 1, 1)}}, "starts before it ends"),
        ({"sampling": {"kind": "one-per-patient", "hours": 0}}, "at least 1"),
        ({"search": {"parameters": {}}}, "at least one parameter"),
        ({"headline": "low"}, "no headline"),
        ({"label": {"answer": "level"}}, "expected a headline, .* low, normal, high"),
        ({"label": {"answer": "level"}, "headline": "lower"}, "one of low, normal, high"),
        ({"label": {"answer": "number"}}, "number"),
        ({"label": {"answer": "value"}}, "expected a unit, such as g/dL"),
        ({"label": {"unit": "%"}}, "expected a unit, such as g/dL"),
        ({"label": {"kind": "lab-panel"}, "headline": "hematocrit"}, "components"),
        (_fhirpath("Bundle.entry.count()) > 1"), "to its last character"),
        (_fhirpath("now() > %as_of"), r"without now\(\)"),
        (_fhirpath("Bundle.entry.exists()"), "by %as_of and %until"),
        (_other(kind="diagnosis", codes={"http://hl7.org/fhir/sid/icd-10-cm": ["N*17"]}, days=7), "only at the end"),
        (_other(kind="diagnosis", codes={}, days=7), "codes by the URI"),
        (_other(kind="mortality", days=0), "days of at least an hour"),
    ],
)
def test_a_task_that_does_not_say_what_it_must_is_refused_by_file_and_key(
    tmp_path: Path, changes: dict[str, Any], named: str
):
    path = written(tmp_path, **changes)

    with pytest.raises(TaskInvalid, match=named) as raised:
        load_task(path)

    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("hematocrit", {"inclusion": {"has_result": True}}, "inclusion.has_result"),
        ("hematocrit", {"inclusion": {"minimum_stay_hours": 24}}, "inclusion.minimum_stay_hours"),
        ("hematocrit", {"inclusion": {"maximum_stay_hours": 240}}, "inclusion.maximum_stay_hours"),
        ("hematocrit", {"inclusion": {"discharged_alive": True}}, "inclusion.discharged_alive"),
        ("long_stay", {"inclusion": {"minimum_stay_hours": 25}}, "inclusion.minimum_stay_hours"),
        ("long_stay", {"inclusion": {"maximum_stay_hours": 999}}, "inclusion.maximum_stay_hours"),
        ("long_stay", {"inclusion": {"discharged_alive": True}}, "inclusion.discharged_alive"),
        ("long_stay", {"label": {"days": 1}}, "label.days"),
        ("long_stay", {"index_time": {"kind": "discharge", "hours": None}}, "label"),
        ("in_hospital_mortality", {"index_time": {"kind": "discharge", "hours": None}}, "label"),
    ],
)
def test_a_cohort_that_is_picked_by_its_future_is_refused_as_what_it_is(
    tmp_path: Path, name: str, changes: dict[str, Any], key: str
):
    path = written(tmp_path, name, **changes)

    with pytest.raises(TaskInvalid, match="faulty cohort design") as raised:
        load_task(path)

    assert str(raised.value).startswith(f"{path}: {key}")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("long_stay", {"inclusion": {"minimum_stay_hours": 24}}),
        ("readmission_30d", {"inclusion": {"minimum_stay_hours": 48, "maximum_stay_hours": 480}}),
        ("hematocrit", {"inclusion": {"visit_classes": ["IMP"], "age_at_least": 18}}),
    ],
)
def test_what_is_known_at_the_index_time_may_pick_the_rows(tmp_path: Path, name: str, changes: dict[str, Any]):
    assert load_task(written(tmp_path, name, **changes)).name == name


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("hematocrit", {"index_time": {"kind": "discharge"}}, "expected order-signed for the unit order"),
        ("long_stay", {"inclusion": {"panels": ["58410-2"]}}, "inclusion.panels"),
        ("readmission_30d", {"index_time": {"kind": "after-admission", "hours": 24}}, "expected discharge"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, name: str, changes: dict[str, Any], named: str):
    if name == "readmission_30d":
        changes = {**changes, "inclusion": {"discharged_alive": None}}
    with pytest.raises(TaskInvalid, match=named):
        load_task(written(tmp_path, name, **changes))


def test_a_file_that_is_not_there_or_not_a_task_is_refused_by_name(tmp_path: Path):
    with pytest.raises(TaskInvalid, match=r"absent\.yaml: cannot be read"):
        load_task(tmp_path / "absent.yaml")
    path = tmp_path / "task.yaml"
    for content, named in (
        (b"- a list", "expected YAML keys"),
        (b"name: [1", r"task\.yaml: line \d"),
        (b"name: caf\xe9", "UTF-8"),
        (b"name: a\nname: b\n", "line 2: expected the key 'name' once"),
        (b"1: a\n", "keys that are text"),
    ):
        path.write_bytes(content)
        with pytest.raises(TaskInvalid, match=named):
            load_task(path)


def test_an_unknown_task_is_refused_with_those_that_there_are():
    with pytest.raises(TaskInvalid, match="hematocrit"):
        shipped_task("hematokrit")


def test_a_period_includes_its_first_day_and_excludes_its_last():
    period = Period(start=date(2030, 1, 1), end=date(2031, 1, 1))

    assert period.holds(datetime(2030, 1, 1, tzinfo=UTC))
    assert not period.holds(datetime(2031, 1, 1, tzinfo=UTC))
    assert not period.holds(datetime(2029, 12, 31, 23, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "target", "names", "headline", "unit"),
    [
        ("platelets_level", Target.MULTICLASS, ("low", "normal", "high"), "low", None),
        ("cbc_panel", Target.MULTILABEL, ("hematocrit", "hemoglobin", "platelets", "wbc"), "hemoglobin", None),
        ("hemoglobin_value", Target.REGRESSION, ("value",), "value", "g/dL"),
        ("length_of_stay", Target.REGRESSION, ("stay",), "stay", "d"),
    ],
)
def test_the_label_says_what_a_model_gives(
    name: str, target: Target, names: tuple[str, ...], headline: str, unit: str | None
):
    outputs = shipped_task(name).for_manifest().outputs

    assert (outputs.target, outputs.names, outputs.headline, outputs.unit) == (target, names, headline, unit)
    assert name not in TASK_GROUPS["paper12"]


def test_a_model_requires_in_service_what_its_cohort_was_picked_by_and_what_is_declared(tmp_path: Path):
    inclusion = {"age_at_least": 18, "age_below": 90, "visit_classes": ["IMP"]}
    task = load_task(written(tmp_path, inclusion=inclusion, requires={"features_present": 5, "groups": ["labs_2d"]}))
    assert task.requirements == Requirements(
        features_present=5, groups=("labs_2d",), age_at_least=18, age_below=90, visit_classes=("IMP",)
    )


@pytest.mark.parametrize("twice", [{"age_at_least": 18}, {"age_below": 90}, {"visit_classes": ["IMP"]}], ids=str)
def test_ages_and_visit_classes_are_said_once(tmp_path: Path, twice: dict[str, Any]):
    with pytest.raises(TaskInvalid, match="in inclusion"):
        load_task(written(tmp_path, requires=twice))
