"""Model configs, and the runs that come of them: the same in, the same out, and whatever was changed is found."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from deployr_core.bundle import MANIFEST_FILE
from deployr_core.facts import Demographics
from deployr_core.registry.comparison import Comparison, Rows
from deployr_core.registry.run import BUNDLE_FOLDER, CONFIG_FILE, RUN_FILE, SNAPSHOT_FOLDER, Because, DeployType
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.estimators import EstimatorName
from deployr_dev.folds import CALIBRATION_FOLDS, Calibration, TrainingImpossible
from deployr_dev.runs.config import (
    ConfigInvalid,
    Estimator,
    Evidence,
    ModelConfig,
    ResolvedConfig,
    load_config,
    resolved,
)
from deployr_dev.runs.folder import FolderInvalid, RunFolder, verify, verify_against, write_run
from deployr_dev.runs.holdout import NotComparable, compare_runs, expect_same_task
from deployr_dev.runs.making import MadeRun, Opening, make_run
from deployr_dev.runs.page import comparison_html
from deployr_dev.runs.snapshot import TRAIN_FILE, Snapshot
from deployr_dev.search import Search
from deployr_dev.splits import SplitKind

OPENING = Opening(at=datetime(2031, 7, 1, tzinfo=UTC), by="ada", source="omop54:/data")
SMALL = Estimator(parameters={"n_estimators": 7, "min_samples_leaf": 2})
CONFIG = ModelConfig(
    schema_version=1,
    task="hematocrit",
    estimator=SMALL,
    split=SplitKind.PATIENT,
    held_out_share=0.4,
    seed=3,
    evidence=Evidence(patients=5, positives=5),
)


class Hospital:
    """The hospital of `conftest`, which also says who people are."""

    def __init__(self, hospital: Any) -> None:
        self._hospital = hospital

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hospital, name)

    def demographics(self, person_ids: Collection[int]) -> dict[int, Demographics]:
        return {int(who.patient_id): who.demographics for who in self._hospital.patients(person_ids)}


@pytest.fixture(scope="module")
def extract(hospital) -> Hospital:
    return Hospital(hospital())


@pytest.fixture(scope="module")
def config(task, declaration) -> ResolvedConfig:
    return ResolvedConfig(config=CONFIG, task=task, declaration=declaration)


def changed(config: ResolvedConfig, **keys: Any) -> ResolvedConfig:
    return msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, **keys))


@pytest.fixture(scope="module")
def made(extract, config) -> MadeRun:
    return make_run(extract, config, OPENING)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, made) -> Path:
    """Give the run's folder as it was written; nobody changes it."""
    return write_run(made, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(tmp_path, kept) -> Path:
    """Give a copy of it, to be changed."""
    return Path(shutil.copytree(kept, tmp_path / kept.name))


# -- configs


def written(folder: Path, text: str) -> Path:
    file = folder / "model.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_config_of_three_lines_is_whole_and_takes_what_training_takes_by_default(tmp_path):
    config = load_config(written(tmp_path, "schema_version: 1\ntask: hematocrit\nsource: omop54:/data\n"))

    whole = resolved(config, folder=tmp_path)
    assert whole.task == shipped_task("hematocrit")
    assert (whole.options.held_out_share, whole.options.split) == (0.3, SplitKind.TIME_AND_PATIENT)
    assert whole.options.estimator.name is EstimatorName.RANDOM_FOREST
    assert whole.config.deploy is DeployType.CLOUD


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("held_out_shar: 0.3", "unknown key 'held_out_shar'; did you mean 'held_out_share'"),
        ("held_out_share: 1.0", "expected held_out_share above 0 and below 1"),
        ("estimator: {name: forest}", "estimator"),
        ("estimator: {named: random-forest}", "unknown key 'named' in estimator"),
        ("deploy: moon", "deploy"),
        ("evidence: {patients: 1}", "expected evidence of at least 2 patients"),
        ("search: {folds: 1, parameters: {max_depth: [3]}}", "expected folds from 2 to 20"),
        ("labels: {known_before: 2031-01-01T00:00:00}", "expected known_before with its offset"),
        ("retrain: {schedules: nightly}", "unknown key 'schedules' in retrain"),
    ],
)
def test_a_config_that_is_wrong_says_at_which_key(tmp_path, line, said):
    file = written(tmp_path, f"schema_version: 1\ntask: hematocrit\n{line}\n")

    with pytest.raises(ConfigInvalid) as refused:
        load_config(file)
    assert str(file) in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize("key", ["task", "features"])
def test_a_name_that_is_nothings_says_what_there_is(tmp_path, key):
    config = msgspec.structs.replace(CONFIG, **{key: "no-such-thing"})

    with pytest.raises(ConfigInvalid, match=rf"{key}: expected .*hematocrit"):
        resolved(config, folder=tmp_path)


def test_the_config_that_lies_in_a_runs_folder_names_no_file_and_is_the_same_making(tmp_path, kept, made):
    again = resolved(load_config(kept / CONFIG_FILE), folder=tmp_path / "nowhere")

    assert again.task == made.config.task
    assert again.declaration == made.config.declaration
    assert again.sha256 == made.config.sha256 == made.run.config_sha256


def test_a_config_is_the_same_making_wherever_its_data_lie(config):
    assert changed(config, source="omop54:/elsewhere").sha256 == config.sha256
    assert changed(config, seed=4).sha256 != config.sha256


# -- runs


def test_the_same_config_data_and_code_give_the_same_run_to_the_byte_and_what_is_there_stays(
    tmp_path, extract, config, made, folder
):
    record = (folder / RUN_FILE).read_bytes()

    again = make_run(extract, config, replace(OPENING, by="grace", because=Because.SCHEDULE))

    assert again.run.run_id == made.run.run_id
    assert (again.trained.manifest, again.trained.parts) == (made.trained.manifest, made.trained.parts)
    assert write_run(again, tmp_path) == folder
    assert (folder / RUN_FILE).read_bytes() == record


def test_a_run_says_what_it_was_trained_and_tested_on_and_holds_no_identity(made):
    sets = made.run.sets

    # 30 persons with an order on each of 4 days from 2031-03-05 on.
    assert sets.train.patients + sets.test.patients == 30
    assert sets.train.rows == 4 * sets.train.patients
    assert (str(sets.train.first), str(sets.train.last)) == ("2031-03-05", "2031-03-08")
    assert sets.test.positives == sum(row.label for row in made.trained.predictions)
    assert sets.validation is None
    assert made.run.test == made.trained.manifest.evaluation.figures
    ids = {row.unit_id for row in made.trained.predictions}
    values = [each for key, each in _leaves(json.loads(made.run.to_json())) if key not in {"rows", "patients"}]
    assert not ids & {str(value) for value in values}


def _leaves(record: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(record, dict):
        return [leaf for name, each in record.items() for leaf in _leaves(each, name)]
    return [(key, record)]


def test_what_was_chosen_on_folds_of_the_training_patients_has_them_as_its_validation_set(made, config):
    searched = changed(config, search=Search(kind="grid", folds=3, parameters={"min_samples_leaf": [2, 4]}))
    corrected = changed(config, estimator=msgspec.structs.replace(SMALL, calibration=Calibration.SIGMOID))

    for each, folds in ((searched, 3), (corrected, CALIBRATION_FOLDS)):
        sets = made.snapshot.described(each)
        assert sets.validation == msgspec.structs.replace(sets.train, folds=folds)


def test_with_less_evidence_than_the_config_asks_for_nothing_is_trained(extract, config):
    with pytest.raises(TrainingImpossible, match="patients: expected at least 1000, got"):
        make_run(extract, changed(config, evidence=Evidence(patients=1000)), OPENING)


# -- folders


def test_a_run_is_written_whole_its_snapshot_for_its_owner_alone(kept, made):
    assert kept.name == made.run.run_id
    assert {"run.json", "config.yaml", "bundle", "report.html", "report.json", "snapshot"} == {
        each.name for each in kept.iterdir()
    }
    assert stat.S_IMODE((kept / SNAPSHOT_FOLDER).stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (kept / SNAPSHOT_FOLDER).iterdir()} == {0o600}
    assert list(kept.parent.iterdir()) == [kept]
    assert verify(kept) == ()


@pytest.fixture
def without(folder, made) -> Path:
    """Give the run as it lies where rows and features were not kept."""
    shutil.rmtree(folder / SNAPSHOT_FOLDER)
    (folder / RUN_FILE).write_bytes(msgspec.structs.replace(made.run, has_snapshot=False).to_json())
    return folder


def test_a_snapshot_may_be_left_out_and_its_digests_stay(without, made):
    assert RunFolder.open(without).run.sets == made.run.sets
    assert verify(without) == ()
    with pytest.raises(FolderInvalid, match="expected a run whose snapshot was kept"):
        RunFolder.open(without).snapshot()


def test_a_write_that_fails_leaves_nothing(tmp_path, made, monkeypatch):
    def fails(*_args: object, **_kwargs: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("deployr_dev.runs.folder.write_report", fails)

    with pytest.raises(OSError, match="no space"):
        write_run(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_is_read_back_as_it_was(kept, made):
    back = RunFolder.open(kept).snapshot()

    assert made.snapshot is not None
    assert back.train.keys == made.snapshot.train.keys
    assert back.train.labels == made.snapshot.train.labels
    np.testing.assert_array_equal(back.train.matrix.csr().toarray(), made.snapshot.train.matrix.csr().toarray())


def test_whatever_is_changed_in_a_runs_folder_is_said(folder):
    config = (folder / CONFIG_FILE).read_bytes()
    (folder / CONFIG_FILE).write_bytes(config.replace(b'"seed": 3', b'"seed": 4'))
    assert [said.split(":")[0] for said in verify(folder)] == [CONFIG_FILE]
    (folder / CONFIG_FILE).write_bytes(config)

    train = folder / SNAPSHOT_FOLDER / TRAIN_FILE
    rows, content = pq.read_table(train), train.read_bytes()
    pq.write_table(rows.slice(1), train)
    assert verify(folder)[0].startswith("train set: ")
    train.write_bytes(content[:-100])
    assert "expected a file of a snapshot, whole" in verify(folder)[0]
    train.write_bytes(content)

    manifest = folder / BUNDLE_FOLDER / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert verify(folder)[0].startswith(f"{BUNDLE_FOLDER}/{MANIFEST_FILE}: expected")


def test_sets_that_are_made_again_from_a_changed_extract_differ_in_words(kept, hospital):
    run = RunFolder.open(kept)

    assert verify_against(run, Hospital(hospital())) == ()
    (first, *_) = verify_against(run, Hospital(hospital(days=5)))
    assert first.startswith("train set: ")
    assert "rows before" in first


# -- two runs


@pytest.fixture(scope="module")
def two(tmp_path_factory, kept, hospital, config) -> tuple[RunFolder, RunFolder, Hospital]:
    """Give a champion of 30 persons, a challenger of 60 with another seed, and the extract of the 60."""
    now = Hospital(hospital(persons=60))
    later = make_run(now, changed(config, seed=5), OPENING)
    return RunFolder.open(kept), RunFolder.open(write_run(later, tmp_path_factory.mktemp("later"))), now


@pytest.fixture(scope="module")
def compared(two) -> Comparison:
    champion, challenger, extract = two
    return compare_runs(champion, challenger, extract, threshold=0.5)


def test_both_score_the_held_out_rows_of_patients_that_neither_was_trained_on(two, compared):
    champion, challenger, _ = two
    found = compared

    trained_on = champion.snapshot().train.patients | challenger.snapshot().train.patients
    held_out = challenger.snapshot().test.patients
    assert found.patients == len(held_out - trained_on)
    assert found.excluded_patients == len(held_out & trained_on) > 0
    assert found.rows == 4 * found.patients
    assert found.rows_are is Rows.HELD_OUT
    assert (found.champion.name, found.challenger.name) == (champion.run.run_id, challenger.run.run_id)
    assert {each.name for each in found.groupings} == {"sex", "age", "race", "ethnicity"}
    assert found.delong is None
    # Patients alone separate the sides here, so that the champion has seen the same days.
    [note] = found.notes
    assert "trained on rows of up to 2031-03-08; the held-out ones begin on 2031-03-05" in note


def test_the_page_says_in_words_what_the_figures_say(compared):
    page = comparison_html(compared)

    assert compared.challenger.name in page
    assert "net benefit at 0.5" in page
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    live = comparison_html(msgspec.structs.replace(compared, rows_are=Rows.LIVE, unpaired_rows=3, threshold=None))
    assert "3 rows that only one of the two has a score for" in live
    assert "None is in force" in live


def test_without_a_snapshot_nobody_can_say_who_was_trained_on_and_nothing_is_compared(two, without):
    _, challenger, extract = two

    with pytest.raises(FolderInvalid, match="expected a run whose snapshot was kept"):
        compare_runs(RunFolder.open(without), challenger, extract)


def test_ids_that_mean_other_people_are_refused(two):
    champion, challenger, extract = two

    class Renumbered(Hospital):
        def lab_orders(self, panels: Collection[str]) -> Any:
            return (replace(each, person_id=61 - each.person_id) for each in extract.lab_orders(panels))

    with pytest.raises(NotComparable, match="of the same persons"):
        compare_runs(champion, challenger, Renumbered(extract))


def test_held_out_rows_that_are_not_as_they_were_are_refused(two, hospital):
    champion, challenger, _ = two

    healed = Hospital(hospital(persons=60, level=lambda _: 40.0))

    with pytest.raises(NotComparable, match="with the labels that they had"):
        compare_runs(champion, challenger, healed)


def test_models_of_other_outcomes_are_refused(kept):
    bundle = RunFolder.open(kept).bundle()
    task = bundle.manifest.task
    sooner = msgspec.structs.replace(task, rule=msgspec.structs.replace(task.rule, window_hours=24))
    other = msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, task=sooner))

    with pytest.raises(NotComparable, match="their task's rule differs"):
        expect_same_task(bundle, other)


def test_a_snapshots_digest_does_not_know_the_order_of_its_rows(made):
    assert made.snapshot is not None
    train = made.snapshot.train
    order = np.random.default_rng(0).permutation(train.person_ids.size)
    shuffled = replace(
        train,
        person_ids=train.person_ids[order],
        unit_ids=tuple(train.unit_ids[i] for i in order),
        index_times=train.index_times[order],
        labels=tuple(train.labels[i] for i in order),
        matrix=train.matrix.take(order),
    )

    described = Snapshot(train=shuffled, test=made.snapshot.test).described(made.config)

    assert described == made.run.sets


def test_the_example_with_every_key_is_read_and_names_every_key():
    example = Path(__file__).parents[3] / "docs" / "examples" / "runs" / "model.yaml"

    config = load_config(example)

    assert (config.task, config.retrain.on_drift_alarm) == ("hematocrit", True)
    text = example.read_text(encoding="utf-8")
    assert [key for key in ModelConfig.__struct_fields__ if f"{key}:" not in text] == []
