"""A bundle is on disk whole and proven, or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployr_core.bundle import GOLDEN_FILE, BundleInvalid
from deployr_core.features import FeatureSpec
from deployr_core.model_format import MODEL_FILE
from deployr_dev.bundles import BundleExists, read_bundle, write_bundle
from deployr_dev.cohorts.tasks import Task
from deployr_dev.estimators import EstimatorChoice
from deployr_dev.splits import SplitKind
from deployr_dev.trained import TrainedBundle
from deployr_dev.training import TrainingOptions, train_bundle


@pytest.fixture
def train(hospital: Callable[..., Any], task: Task, declaration: FeatureSpec) -> Callable[[int], TrainedBundle]:
    forest = EstimatorChoice(parameters={"n_estimators": 3, "min_samples_leaf": 2})
    options = TrainingOptions(estimator=forest, split=SplitKind.PATIENT, held_out_share=0.4)
    return lambda seed: train_bundle(hospital(), task, declaration, seed=seed, options=options)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_was_trained_and_nothing_else_is_left(
    train: Callable[[int], TrainedBundle], tmp_path: Path
):
    trained = train(3)

    bundle = write_bundle(trained, tmp_path / "deep" / "hematocrit")

    assert bundle.manifest == trained.manifest
    assert everything_in(tmp_path / "deep") == {
        "hematocrit/manifest.json": trained.manifest.to_json(),
        **{f"hematocrit/{name}": content for name, content in trained.parts.items()},
    }


def test_writing_the_same_bundle_again_changes_nothing(train: Callable[[int], TrainedBundle], tmp_path: Path):
    folder = tmp_path / "hematocrit"
    first = write_bundle(train(3), folder)
    inode = folder.stat().st_ino

    assert write_bundle(train(3), folder).digest == first.digest
    assert folder.stat().st_ino == inode


def test_another_bundle_is_only_replaced_when_asked_for(train: Callable[[int], TrainedBundle], tmp_path: Path):
    folder = tmp_path / "hematocrit"
    first = write_bundle(train(4), folder)

    with pytest.raises(BundleExists, match="another bundle is there"):
        write_bundle(train(5), folder)
    assert read_bundle(folder).digest == first.digest

    second = write_bundle(train(5), folder, replace=True)
    assert read_bundle(folder).digest == second.digest != first.digest
    assert [path.name for path in tmp_path.iterdir()] == ["hematocrit"]


@pytest.mark.parametrize("replace", [True, False])
def test_what_is_not_a_bundle_is_never_replaced(train: Callable[[int], TrainedBundle], tmp_path: Path, replace: bool):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(BundleExists, match="something else is there"):
        write_bundle(train(3), tmp_path, replace=replace)
    with pytest.raises(BundleExists, match="something else is there"):
        write_bundle(train(3), tmp_path / "thesis.txt", replace=replace)

    assert everything_in(tmp_path) == {"thesis.txt": b"years of work"}


def test_an_empty_folder_is_filled(train: Callable[[int], TrainedBundle], tmp_path: Path):
    assert write_bundle(train(3), tmp_path).manifest.model_id == "hematocrit"


def test_a_bundle_that_does_not_open_is_not_left_behind_and_replaces_nothing(
    train: Callable[[int], TrainedBundle], tmp_path: Path
):
    folder = tmp_path / "hematocrit"
    good = write_bundle(train(4), folder)
    trained = train(5)
    bad = dataclasses.replace(trained, parts={**trained.parts, GOLDEN_FILE: b"[]"})

    with pytest.raises(BundleInvalid, match=r"golden\.json"):
        write_bundle(bad, folder, replace=True)
    with pytest.raises(BundleInvalid, match=r"golden\.json"):
        write_bundle(bad, tmp_path / "new")

    assert read_bundle(folder).digest == good.digest
    assert [path.name for path in tmp_path.iterdir()] == ["hematocrit"]


def test_a_replacement_that_fails_halfway_puts_the_old_bundle_back(
    train: Callable[[int], TrainedBundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "hematocrit"
    good = write_bundle(train(4), folder)
    rename = Path.rename

    def full_disk(path: Path, target: Path) -> Path:
        if path.name == "fresh":
            raise OSError("no space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_bundle(train(5), folder, replace=True)

    assert read_bundle(folder).digest == good.digest
    assert [path.name for path in tmp_path.iterdir()] == ["hematocrit"]


@pytest.mark.parametrize("name", ["manifest.json", MODEL_FILE, GOLDEN_FILE])
def test_a_bundle_with_a_file_missing_is_refused_by_name(
    train: Callable[[int], TrainedBundle], tmp_path: Path, name: str
):
    write_bundle(train(3), tmp_path / "b")
    (tmp_path / "b" / name).unlink()

    with pytest.raises(BundleInvalid, match=name):
        read_bundle(tmp_path / "b")


def test_a_bundle_with_one_flipped_bit_is_refused(train: Callable[[int], TrainedBundle], tmp_path: Path):
    write_bundle(train(3), tmp_path / "b")
    path = tmp_path / "b" / MODEL_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(BundleInvalid, match=r"model\.treelite: expected SHA-256"):
        read_bundle(tmp_path / "b")
