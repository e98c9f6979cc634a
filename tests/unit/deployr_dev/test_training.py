"""From a cohort to a bundle: who is held out, what may be learned from, and that it comes out the same twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import GOLDEN_FILE, open_bundle
from deployr_core.facts import BirthDate, Demographics, PatientFacts, Sex
from deployr_core.features import FeatureSpec
from deployr_core.golden import GoldenVector
from deployr_core.label_rules import LabComponent
from deployr_core.model_format import MODEL_FILE
from deployr_core.scoring import TreeEnsemble
from deployr_core.vectorize import FeatureVector, vectorize
from deployr_dev.cohorts.cohort import cohort_rows
from deployr_dev.cohorts.rows import CohortRow, Unlabelled
from deployr_dev.cohorts.sources import NotInExtract
from deployr_dev.cohorts.tasks import Task
from deployr_dev.estimators import EstimatorChoice, EstimatorName, fit_estimator
from deployr_dev.fitting import fit
from deployr_dev.folds import Calibration, TrainingImpossible
from deployr_dev.matrix import (
    FeatureMatrix,
    PatientsMissing,
    ReferenceEngine,
    feature_matrix,
    patients_with_index_times,
    snapshot_sha256,
)
from deployr_dev.models import model_part
from deployr_dev.splits import SplitKind, held_out
from deployr_dev.trained import ScoresDiffer, TrainedBundle, checked_answers, content_version, golden_vectors
from deployr_dev.training import NotTrained, TrainingOptions, is_known, train_bundle, train_tasks

DAY_0 = datetime(2031, 3, 5, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SMALL = EstimatorChoice(parameters={"n_estimators": 7, "min_samples_leaf": 2})
OPTIONS = TrainingOptions(estimator=SMALL, split=SplitKind.PATIENT, held_out_share=0.4, seed=3)
Hospital = Any
MakeHospital = Callable[..., Hospital]


@pytest.fixture
def train(hospital: MakeHospital, task: Task, declaration: FeatureSpec) -> Callable[..., TrainedBundle]:
    """Give a function that trains a small forest on the default hospital, but for what is named."""

    def trained(
        extract: Hospital = None, *, seed: int = 3, before: datetime | None = None, progress: Any = None, **changes: Any
    ) -> TrainedBundle:
        options = dataclasses.replace(OPTIONS, **changes)
        given = {"seed": seed, "before": before, "progress": progress, "options": options}
        return train_bundle(extract or hospital(), task, declaration, **given)

    return trained


def a_row(**changes: Any) -> CohortRow:
    return CohortRow(
        **{
            "person_id": 1,
            "unit_id": "a",
            "visit_id": None,
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
    parts = dict.fromkeys(("a", "b", GOLDEN_FILE), b"x")

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
    auroc = evaluation.figures["auroc"]
    assert 0.7 < auroc.low <= auroc.value <= auroc.high <= 1.0


def test_predictions_are_of_held_out_patients_and_carry_what_the_deployed_model_gives(
    train: Callable[..., TrainedBundle], hospital: MakeHospital
):
    trained = train()
    people = {int(who.patient_id): who for who in hospital().people}
    model = TreeEnsemble(trained.parts["model.treelite"], n_features=trained.manifest.n_features)

    assert {row.person_id for row in trained.predictions} == held_out(people, seed=3, share=0.4)
    for row in trained.predictions:
        vector = vectorize(people[row.person_id], trained.spec, row.index_time)
        assert (row.outputs, row.features_present) == (model.answer(vector), vector.indices.size)


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


def test_a_row_is_known_if_its_label_was_known_strictly_before():
    before = DAY_0 + DAY

    assert is_known(a_row(), before=before)
    assert is_known(a_row(), before=None)
    assert not is_known(a_row(label_known_at=before), before=before)
    assert not is_known(a_row(label=None, label_known_at=None, unlabelled=Unlabelled.NO_RESULT), before=None)


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
        ({}, {"before": DAY_0 - DAY}, "expected orders to train on before 2031-03-04"),
        ({}, {"before": DAY_0 + HOUR / 4}, "expected labelled orders"),
        ({"level": lambda _: 30.0}, {}, "both classes"),
        ({"persons": 3}, {"held_out_share": 0.01}, "at least 2 held-out patients"),
        ({"persons": 3}, {"held_out_share": 0.99}, "at least 2 training patients"),
    ],
    ids=["no rows before", "no label before", "one class", "nobody held out", "everybody held out"],
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
        assert ensemble.answer(vector) == row.outputs


def test_a_golden_vector_mixes_the_values_of_several_rows(declaration: FeatureSpec):
    matrix = FeatureMatrix(
        spec=fit(declaration, []),
        starts=np.array([0, 3, 6, 9]),
        features=np.tile(np.arange(3, dtype=np.int32), 3),
        values=np.repeat([1.0, 2.0, 3.0], 3),
    )

    golden = golden_vectors(matrix, lambda _: 0.5, seed=0, count=40)

    assert {row.values for row in golden} > {(1.0, 2.0, 3.0), (3.0, 2.0, 1.0)}
    assert golden == golden_vectors(matrix, lambda _: 0.5, seed=0, count=40)


def test_the_matrix_has_the_rows_in_the_order_asked_for(hospital: MakeHospital, task: Task, declaration: FeatureSpec):
    extract = hospital(persons=3)
    rows = cohort_rows(extract, task)[::-1]
    spec = fit(declaration, patients_with_index_times(extract, rows))
    people = {int(who.patient_id): who for who in extract.people}

    matrix = feature_matrix(extract, spec, rows)

    assert matrix.vectors == tuple(vectorize(people[row.person_id], spec, row.index_time) for row in rows)
    dense = np.array([vector.dense() for vector in matrix.vectors])
    assert matrix.csr().dtype == np.float64
    assert np.array_equal(matrix.csr().toarray(), dense)
    assert np.array_equal(matrix.take([4, 0, 4]).csr().toarray(), dense[[4, 0, 4]])


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
        snapshot_sha256([a_row(unit_id="b"), rows[1]], matrix),
        snapshot_sha256(rows, later),
    }

    assert len(digests) == 4


def test_a_model_that_scores_otherwise_than_its_estimator_is_refused(
    hospital: MakeHospital, task: Task, declaration: FeatureSpec
):
    extract = hospital(persons=12)
    rows = cohort_rows(extract, task)
    matrix = feature_matrix(extract, fit(declaration, patients_with_index_times(extract, rows)), rows)
    labels = np.array([row.label for row in rows])
    patients = np.array([row.person_id for row in rows])
    forest = fit_estimator(SMALL, matrix.csr(), labels, patients, seed=0)
    other = fit_estimator(SMALL, matrix.csr(), 1.0 - labels, patients, seed=0)
    part = model_part(forest.estimator, n_features=matrix.n_features)

    assert checked_answers(part, forest, matrix).shape == (len(rows), 1)
    with pytest.raises(ScoresDiffer, match="rows differ"):
        checked_answers(part, other, matrix)


def test_predictions_do_not_print_whose_they_are(train: Callable[..., TrainedBundle]):
    assert "person_id" not in repr(train().predictions[0])
    assert "person_id" not in repr(train())


def sister(task: Task, **changes: Any) -> Task:
    """Give a task over the same orders with another name."""
    return msgspec.structs.replace(task, **{"name": "sister", "score_name": "SISTER", **changes})


def train_all(
    extract: Hospital, tasks: list[Task], declaration: FeatureSpec, **changes: Any
) -> dict[str, TrainedBundle | NotTrained]:
    outcomes = train_tasks(
        extract,
        tasks,
        declaration_of=lambda _: declaration,
        options=dataclasses.replace(OPTIONS, **{key: value for key, value in changes.items() if key != "engine"}),
        engine=changes.get("engine"),
    )
    return {o.task if isinstance(o, NotTrained) else o.manifest.task.name: o for o in outcomes}


def test_a_task_comes_out_the_same_alone_or_among_others(
    train: Callable[..., TrainedBundle], hospital: MakeHospital, task: Task, declaration: FeatureSpec
):
    both = train_all(hospital(), [task, sister(task)], declaration)
    alone = train()

    assert both["hematocrit"].manifest.to_json() == alone.manifest.to_json()
    assert both["hematocrit"].parts == alone.parts == both["sister"].parts


@dataclasses.dataclass
class CountingEngine:
    """The reference engine, counting how often it is asked."""

    inner: ReferenceEngine
    asked: list[str] = dataclasses.field(default_factory=list)

    def fit(self, *arguments: Any, **named: Any) -> FeatureSpec:
        self.asked.append("fit")
        return self.inner.fit(*arguments, **named)

    def matrix(self, *arguments: Any, **named: Any) -> FeatureMatrix:
        self.asked.append("matrix")
        return self.inner.matrix(*arguments, **named)


def test_tasks_that_share_rows_are_trained_from_one_matrix(
    hospital: MakeHospital, task: Task, declaration: FeatureSpec
):
    extract = hospital()
    engine = CountingEngine(ReferenceEngine(extract))

    train_all(extract, [task, sister(task), sister(task, name="third")], declaration, engine=engine)

    assert engine.asked == ["fit", "matrix"]


def test_a_task_that_the_data_cannot_support_says_why_and_does_not_stop_the_others(
    hospital: MakeHospital, task: Task, declaration: FeatureSpec
):
    sodium = sister(task, name="sodium", label=LabComponent(components=("2951-2",), window_hours=72))
    other_orders = sister(task, name="panel", inclusion=msgspec.structs.replace(task.inclusion, panels=("24323-8",)))

    outcomes = train_all(hospital(), [sodium, task, other_orders], declaration)

    assert isinstance(outcomes["hematocrit"], TrainedBundle)
    assert outcomes["sodium"] == NotTrained(task="sodium", reason="expected results of 2951-2 (LOINC), got none")
    assert isinstance(outcomes["panel"], NotTrained)
    assert outcomes["panel"].reason.startswith("expected orders for the panels 24323-8 (LOINC), got none")


def test_an_empty_cohort_is_refused(train: Callable[..., TrainedBundle], hospital: MakeHospital):
    with pytest.raises(NotInExtract, match="expected orders for the panels"):
        train(hospital(persons=0))


@pytest.mark.parametrize("kind", [SplitKind.TIME, SplitKind.TIME_AND_PATIENT])
def test_training_labels_were_known_before_the_cutoff(
    train: Callable[..., TrainedBundle], hospital: MakeHospital, kind: SplitKind
):
    trained = train(hospital(persons=40, days=6), split=kind)
    cutoff = trained.split.cutoff

    assert cutoff is not None
    assert trained.manifest.training.parameters["split.cutoff"] == cutoff.isoformat()
    assert all(row.index_time >= cutoff for row in trained.predictions)


def test_a_calibrated_model_is_shipped_with_its_table_and_opens(train: Callable[..., TrainedBundle]):
    for kind in Calibration:
        trained = train(estimator=dataclasses.replace(SMALL, calibration=kind))

        bundle = open_bundle(trained.manifest.to_json(), trained.parts)

        assert "calibration.json" in bundle.manifest.parts
        assert bundle.manifest.training.parameters["calibration"] == kind.value


@pytest.mark.parametrize("name", list(EstimatorName))
def test_every_estimator_becomes_a_bundle_that_opens(train: Callable[..., TrainedBundle], name: EstimatorName):
    trained = train(estimator=EstimatorChoice(name=name))

    assert open_bundle(trained.manifest.to_json(), trained.parts).manifest.version == trained.manifest.version
    assert trained.parts == train(estimator=EstimatorChoice(name=name)).parts


def test_facts_of_patients_without_rows_are_not_needed(train: Callable[..., TrainedBundle], hospital: MakeHospital):
    extract = hospital()
    stranger = PatientFacts(patient_id="777", demographics=Demographics(birth_date=BirthDate(year=1950), sex=Sex.MALE))

    assert train(dataclasses.replace(extract, people=(*extract.people, stranger))).parts == train(extract).parts
