"""What `deployr train` makes of its arguments, and what it leaves behind."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.train import find_estimator, find_tasks, run_train
from deployr_dev.bundles import read_bundle
from deployr_dev.cohorts.tasks import TASK_GROUPS
from deployr_dev.estimators import EstimatorName
from deployr_dev.trained import TrainedBundle
from deployr_dev.training import NotTrained
from mock_emr.population.config import PopulationConfig
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop

SMALL = ("n_estimators=5", "min_samples_leaf=5")


@pytest.fixture(scope="module")
def omop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital") / "omop"
    write_omop(generate(PopulationConfig(patients=60, weeks=4)), folder)
    return folder


def test_a_task_that_cannot_be_trained_is_listed_and_the_other_gets_its_bundle(omop: Path, tmp_path: Path):
    said = io.StringIO()

    outcomes = run_train(
        tasks=["icu_transfer", "hematocrit"],
        source=str(omop),
        out=tmp_path / "bundles",
        settings=SMALL,
        console=Console(file=said, width=100),
    )

    assert [type(outcome) for outcome in outcomes] == [NotTrained, TrainedBundle]
    assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == ["hematocrit", "reports"]
    assert (tmp_path / "bundles" / "reports" / "hematocrit" / "report.html").is_file()
    assert read_bundle(tmp_path / "bundles" / "hematocrit").manifest == outcomes[1].manifest
    assert "not trained: icu_transfer: expected" in said.getvalue()
    assert "hematocrit" in said.getvalue()


def test_where_nothing_can_be_trained_nothing_is_left(omop: Path, tmp_path: Path):
    with pytest.raises(CommandFailed, match="no bundle was written"):
        run_train(
            tasks=["icu_transfer"], source=str(omop), out=tmp_path / "bundles", console=Console(file=io.StringIO())
        )

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_there_is_refused_before_any_work(tmp_path: Path):
    (tmp_path / "hematocrit").mkdir()

    with pytest.raises(CommandFailed, match="choose another --out"):
        run_train(tasks=["hematocrit"], source=str(tmp_path / "no such extract"), out=tmp_path)


def test_bundles_lie_under_the_names_that_serving_knows_models_by(tmp_path: Path):
    (tmp_path / "long-stay").mkdir()

    with pytest.raises(CommandFailed, match="long-stay: expected a folder that does not exist yet"):
        run_train(tasks=["long_stay"], source=str(tmp_path / "no such extract"), out=tmp_path)


def test_a_group_and_names_are_the_tasks_each_once():
    assert [task.name for task in find_tasks(["sodium", "hematocrit"], "paper12")] == [
        "sodium",
        "hematocrit",
        *(name for name in TASK_GROUPS["paper12"] if name not in {"sodium", "hematocrit"}),
    ]


@pytest.mark.parametrize(
    ("names", "group", "named"),
    [([], None, "expected a task"), (["sodum"], None, "sodum: expected a task file"), ([], "paper", "paper12")],
)
def test_an_unknown_task_or_group_is_refused_with_those_that_there_are(names: list[str], group: str | None, named: str):
    with pytest.raises(CommandFailed, match=named):
        find_tasks(names, group)


def test_settings_are_read_as_numbers_where_they_are():
    choice = find_estimator("lightgbm", ["n_estimators=50", "boosting_type=dart", "reg_alpha=0.5", "subsample=null"])

    assert choice.name is EstimatorName.LIGHTGBM
    assert choice.parameters == {"n_estimators": 50, "boosting_type": "dart", "reg_alpha": 0.5, "subsample": None}


def test_an_estimator_of_ones_own_is_called_by_its_dotted_name():
    choice = find_estimator("sklearn.tree.DecisionTreeClassifier", [])

    assert (choice.label, type(choice.make()).__name__) == (  # type: ignore[misc]
        "sklearn.tree.DecisionTreeClassifier",
        "DecisionTreeClassifier",
    )


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("randomforest", "expected one of random-forest"),
        ("no_such_module.Forest", "cannot be imported"),
        ("sklearn.tree.NoTree", "cannot be imported"),
        ("pathlib.Path", "expected a class with fit"),
    ],
)
def test_what_is_no_estimator_is_refused_with_what_there_is(name: str, named: str):
    with pytest.raises(CommandFailed, match=named):
        find_estimator(name, [])


def test_a_setting_or_split_that_cannot_be_is_refused(tmp_path: Path):
    with pytest.raises(CommandFailed, match="NAME=VALUE"):
        find_estimator("lightgbm", ["50"])
    with pytest.raises(CommandFailed, match="--split: expected one of time, patient"):
        run_train(tasks=["sodium"], source="x", out=tmp_path, split="random")
    with pytest.raises(CommandFailed, match="--calibration"):
        find_estimator("lightgbm", [], calibration="platt")
