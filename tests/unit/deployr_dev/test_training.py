"""From a cohort to a bundle: who is held out, what may be learned from, and that it comes out the same twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import GOLDEN_FILE, MODEL_FILE, PARTS, GoldenVector, open_bundle
from deployr_core.features import FeatureSpec
from deployr_core.scoring import TreeEnsemble
from deployr_core.vectorize import FeatureVector, vectorize
from deployr_dev.cohorts.orders import CohortRow, Unlabelled, cohort_rows
from deployr_dev.cohorts.tasks import Task
from deployr_dev.fitting import fit
from deployr_dev.forest import ForestSettings, ScoresDiffer, TrainingImpossible, checked_scores, train_forest
from deployr_dev.matrix import (
    PatientsMissing,
    feature_matrix,
    patients_with_index_times,
    snapshot_sha256,
)
from deployr_dev.training import (
    TrainedBundle,
    content_version,
    golden_vectors,
    held_out,
    train_bundle,
    usable_rows,
)

DAY_0 = datetime(2031, 3, 5, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SMALL = ForestSettings(trees=7, min_samples_leaf=2)
Hospital = Any
MakeHospital = Callable[..., Hospital]


@pytest.fixture
def train(hospital: MakeHospital, task: Task, declaration: FeatureSpec) -> Callable[..., TrainedBundle]:
    """Give a function that trains a small forest on the default hospital, but for what is named."""

    def trained(extract: Hospital = None, **changes: Any) -> TrainedBundle:
        options = {"seed": 3, "held_out_share": 0.4, "settings": SMALL, **changes}
        return train_bundle(extract or hospital(), task, declaration, **options)

    return trained


def a_row(**changes: Any) -> CohortRow:
    return CohortRow(
        **{
            "person_id": 1,
            "order_id": "a",
            "visit_occurrence_id": None,
            "index_time": DAY_0,
            "label": 1.0,
            "label_known_at": DAY_0 + HOUR,
            "unlabelled": None,
            **changes,
        }
    )


def test_the_same_arguments_give_the_same_bytes(train: Callable[..., TrainedBundle]):
    first, second = train(), train()

    assert first.manifest.to_json() == second.manifest.to_json()
    assert first.parts == second.parts
    assert first.predictions == second.predictions


def test_another_seed_gives_another_version(train: Callable[..., TrainedBundle]):
    assert train(seed=4).manifest.version != train(seed=5).manifest.version


def test_the_version_names_the_content():
    parts = dict.fromkeys(PARTS, b"x")

    assert content_version(parts) == content_version(dict(reversed(parts.items())))
    assert content_version(parts) != content_version({**parts, GOLDEN_FILE: b"y"})
    assert len(content_version(parts)) == 12


def test_the_bundle_opens_as_serving_opens_it(train: Callable[..., TrainedBundle], task: Task):
    trained = train()

    bundle = open_bundle(trained.manifest.to_json(), trained.parts)

    assert bundle.spec == trained.spec
    assert bundle.manifest.task == task.for_manifest()
    assert set(bundle.manifest.training.library_versions) == {"numpy", "python", "scikit-learn", "treelite"}
    assert bundle.manifest.training.parameters["n_estimators"] == 7


def test_a_clear_signal_is_found_in_held_out_patients(train: Callable[..., TrainedBundle], hospital: MakeHospital):
    trained = train()
    evaluation = trained.manifest.evaluation

    assert evaluation.rows == len(trained.predictions) == 4 * evaluation.patients
    assert trained.manifest.training.patients + evaluation.patients == 30
    assert 0.7 < evaluation.auroc.low <= evaluation.auroc.value <= evaluation.auroc.high <= 1.0


def test_predictions_are_of_held_out_patients_and_carry_what_the_deployed_model_gives(
    train: Callable[..., TrainedBundle], hospital: MakeHospital
):
    trained = train()
    people = {int(who.patient_id): who for who in hospital().people}
    model = TreeEnsemble(trained.parts["model.treelite"], n_features=trained.manifest.n_features)

    assert {row.person_id for row in trained.predictions} == held_out(people, seed=3, share=0.4)
    for row in trained.predictions:
        assert row.score == model.score(vectorize(people[row.person_id], trained.spec, row.index_time))


def test_nothing_is_learned_from_held_out_patients(train: Callable[..., TrainedBundle], hospital: MakeHospital):
    whole = hospital()
    out = held_out(range(1, 31), seed=3, share=0.4)
    shifted = dataclasses.replace(
        whole,
        people=tuple(
            msgspec.structs.replace(
                who, labs=tuple(msgspec.structs.replace(lab, value=999.0, known_at=lab.at) for lab in who.labs)
            )
            if int(who.patient_id) in out
            else who
            for who in whole.people
        ),
    )

    assert train(shifted).spec == train(whole).spec
    assert train(shifted).parts["model.treelite"] == train(whole).parts["model.treelite"]


def test_the_split_keeps_a_patient_on_one_side_whoever_else_comes():
    few, many = held_out(range(100), seed=1, share=0.3), held_out(range(1000), seed=1, share=0.3)

    assert few == {person for person in many if person < 100}
    assert 250 < len(many) < 350
    assert held_out(range(1000), seed=2, share=0.3) != many


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float):
    with pytest.raises(ValueError, match="held_out_share"):
        held_out({1, 2}, seed=0, share=share)


def test_rows_count_if_they_were_signed_and_their_label_known_before():
    before = DAY_0 + DAY
    good = a_row()
    rows = [
        good,
        a_row(index_time=before),
        a_row(label_known_at=before),
        a_row(label=None, label_known_at=None, unlabelled=Unlabelled.NO_RESULT),
    ]

    assert usable_rows(rows, before=before) == (good,)
    assert usable_rows(rows, before=None) == tuple(rows[:3])


def test_training_before_an_instant_is_training_without_what_came_after(
    train: Callable[..., TrainedBundle], hospital: MakeHospital
):
    before = DAY_0 + 2 * DAY
    whole = hospital()
    past = dataclasses.replace(
        whole,
        orders=tuple(order for order in whole.orders if order.ordered_at < before),
        results=tuple((person, lab) for person, lab in whole.results if lab.known_at < before),
    )

    assert train(whole, before=before).parts == train(past).parts


@pytest.mark.parametrize(
    ("population", "options", "named"),
    [
        ({"persons": 0}, {}, "expected labelled orders, got none"),
        ({}, {"before": DAY_0 - DAY}, "expected labelled orders before 2031-03-04"),
        ({"level": lambda _: 30.0}, {}, "both classes"),
        ({"persons": 3}, {"held_out_share": 0.01}, "at least 2 held-out patients"),
        ({"persons": 3}, {"held_out_share": 0.99}, "at least 2 training patients"),
    ],
    ids=["no rows", "no rows before", "one class", "nobody held out", "everybody held out"],
)
def test_what_cannot_be_trained_or_measured_is_refused_in_words(
    train: Callable[..., TrainedBundle],
    hospital: MakeHospital,
    population: dict[str, Any],
    options: dict[str, Any],
    named: str,
):
    with pytest.raises(TrainingImpossible, match=named) as raised:
        train(hospital(**population), **options)

    assert "hematocrit" in str(raised.value)


def test_progress_counts_both_passes_to_their_total(train: Callable[..., TrainedBundle]):
    told: list[tuple[int, int]] = []

    trained = train(progress=lambda done, total: told.append((done, total)))

    total = trained.manifest.training.patients + 30
    assert told == [(done, total) for done in range(1, total + 1)]


def test_golden_vectors_are_nobodys_rows_but_made_of_real_values(
    train: Callable[..., TrainedBundle], hospital: MakeHospital
):
    trained = train()
    golden = msgspec.json.decode(trained.parts[GOLDEN_FILE], type=tuple[GoldenVector, ...])
    ensemble = TreeEnsemble(trained.parts[MODEL_FILE], n_features=trained.manifest.n_features)

    assert len(golden) == 16
    for row in golden:
        vector = FeatureVector(
            spec_digest=trained.manifest.spec_sha256,
            size=trained.manifest.n_features,
            indices=np.array(row.indices, dtype=np.int32),
            values=np.array(row.values),
            coverage={},
        )
        assert ensemble.score(vector) == row.score


def test_a_golden_vector_mixes_the_values_of_several_rows():
    def donor(value: float) -> FeatureVector:
        return FeatureVector(
            spec_digest="", size=40, indices=np.arange(40, dtype=np.int32), values=np.full(40, value), coverage={}
        )

    golden = golden_vectors([donor(1.0), donor(2.0), donor(3.0)], lambda _: 0.5, seed=0, count=4)

    assert all(set(row.values) == {1.0, 2.0, 3.0} for row in golden)
    assert golden == golden_vectors([donor(1.0), donor(2.0), donor(3.0)], lambda _: 0.5, seed=0, count=4)


def test_the_matrix_has_the_rows_in_the_order_asked_for(hospital: MakeHospital, task: Task, declaration: FeatureSpec):
    extract = hospital(persons=3)
    rows = cohort_rows(extract, task)[::-1]
    spec = fit(declaration, patients_with_index_times(extract, rows))
    people = {int(who.patient_id): who for who in extract.people}

    matrix = feature_matrix(extract, spec, rows)

    assert matrix.vectors == tuple(vectorize(people[row.person_id], spec, row.index_time) for row in rows)
    dense = np.array([vector.dense() for vector in matrix.vectors], dtype=np.float32)
    assert matrix.csr().dtype == np.float32
    assert np.array_equal(matrix.csr().toarray(), dense)


def test_a_row_of_a_patient_who_is_not_in_the_extract_is_refused(hospital: MakeHospital, declaration: FeatureSpec):
    with pytest.raises(PatientsMissing, match="1 rows have none"):
        feature_matrix(hospital(persons=1), fit(declaration, []), [a_row(), a_row(person_id=99)])


def test_the_snapshot_changes_with_a_label_an_id_or_a_feature(hospital: MakeHospital, declaration: FeatureSpec):
    extract = hospital(persons=2)
    rows = [a_row(), a_row(person_id=2)]
    matrix = feature_matrix(extract, fit(declaration, []), rows)
    later = feature_matrix(extract, fit(declaration, []), [a_row(index_time=DAY_0 + 2 * DAY), rows[1]])

    digests = {
        snapshot_sha256(rows, matrix),
        snapshot_sha256([a_row(label=0.0), rows[1]], matrix),
        snapshot_sha256([a_row(order_id="b"), rows[1]], matrix),
        snapshot_sha256(rows, later),
    }

    assert len(digests) == 4


def test_a_checkpoint_that_scores_otherwise_than_its_forest_is_refused(
    hospital: MakeHospital, task: Task, declaration: FeatureSpec
):
    extract = hospital(persons=12)
    rows = cohort_rows(extract, task)
    spec = fit(declaration, patients_with_index_times(extract, rows))
    matrix = feature_matrix(extract, spec, rows)
    labels = np.array([row.label for row in rows])
    forest = train_forest(matrix, labels, seed=0, settings=SMALL)
    other = train_forest(matrix, 1.0 - labels, seed=0, settings=SMALL)

    assert checked_scores(forest, matrix).size == len(rows)
    with pytest.raises(ScoresDiffer, match="rows differ"):
        checked_scores(dataclasses.replace(forest, checkpoint=other.checkpoint), matrix)


@pytest.mark.parametrize("changes", [{"trees": 0}, {"min_samples_leaf": 0}, {"max_features": 0.0}])
def test_a_forest_that_cannot_grow_is_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="expected"):
        ForestSettings(**changes)


def test_predictions_do_not_print_whose_they_are(train: Callable[..., TrainedBundle]):
    assert "person_id" not in repr(train().predictions[0])
    assert "person_id" not in repr(train())
