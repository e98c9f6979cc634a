"""What can be trained, and that it comes out the same twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from deployr_core.bootstrap import Statistic
from deployr_core.outputs import Outputs, Target
from deployr_core.scoring import SigmoidTable
from deployr_core.target_figures import class_statistics, headline_statistics
from deployr_dev.estimators import EstimatorChoice, EstimatorName, fit_estimator
from deployr_dev.folds import Calibration, EstimatorInvalid, TrainingImpossible, patient_folds
from deployr_dev.search import Search, SearchInvalid, load_search

ROWS, PATIENTS = 240, 60
ALL = list(EstimatorName)


def rows() -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Give counts, of which the first one decides the label mostly, labels and patients."""
    rng = np.random.default_rng(0)
    features = rng.poisson(0.7, size=(ROWS, 12)).astype(np.float64)
    labels = (features[:, 0] + rng.normal(scale=0.3, size=ROWS) > 0.5).astype(np.float64)
    return csr_matrix(features), labels, np.repeat(np.arange(PATIENTS), ROWS // PATIENTS)


def fitted(choice: EstimatorChoice, **changes: Any) -> Any:
    features, labels, patients = rows()
    return fit_estimator(choice, features, labels, patients, **{"seed": 1, **changes})


@pytest.mark.parametrize("name", ALL)
def test_every_estimator_finds_a_clear_signal_and_gives_the_same_bits_twice(name: EstimatorName):
    features, labels, _ = rows()

    first, second = fitted(EstimatorChoice(name=name)), fitted(EstimatorChoice(name=name))

    scores = first.scores(features)
    assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.4
    assert scores.tobytes() == second.scores(features).tobytes()


@pytest.mark.parametrize("name", ALL)
def test_balanced_classes_raise_the_scores_of_the_rarer_one(name: EstimatorName):
    features, labels, patients = rows()
    rare = labels * (patients % 4 == 0)

    plain, balanced = (
        fit_estimator(EstimatorChoice(name=name, balanced=flag), features, rare, patients, seed=1) for flag in (0, 1)
    )

    assert balanced.scores(features).mean() > plain.scores(features).mean()
    assert balanced.parameters["balanced"] is True


def test_xgboost_takes_an_absent_feature_and_a_zero_for_the_same():
    features, _, _ = rows()
    model = fitted(EstimatorChoice(name=EstimatorName.XGBOOST))

    assert np.array_equal(model.scores(features), model.scores(csr_matrix(features.toarray())))
    assert np.array_equal(model.estimator.predict_proba(features.toarray())[:, 1], model.scores(features))


def test_a_users_own_estimator_is_seeded_and_named():
    choice = EstimatorChoice(make=DecisionTreeClassifier, label="mine.Tree", parameters={"max_depth": 2})

    model = fitted(choice)

    assert (model.name, model.parameters) == ("mine.Tree", {"max_depth": 2, "random_state": 1})
    assert model.estimator.random_state == 1


def test_an_estimator_that_takes_no_sparse_rows_gets_dense_ones():
    features, _, _ = rows()

    assert fitted(EstimatorChoice(make=GaussianNB, label="mine")).scores(features).shape == (ROWS,)


def test_an_unknown_parameter_is_refused_by_name():
    with pytest.raises(EstimatorInvalid, match=r"random-forest: .*n_trees"):
        fitted(EstimatorChoice(parameters={"n_trees": 5}))
    with pytest.raises(EstimatorInvalid, match="does not weigh classes"):
        fitted(EstimatorChoice(make=GaussianNB, balanced=True))


def test_one_class_no_feature_or_a_value_beyond_float32_is_refused():
    features, labels, patients = rows()
    choice = EstimatorChoice()

    with pytest.raises(TrainingImpossible, match="both classes"):
        fit_estimator(choice, features, np.ones(ROWS), patients, seed=1)
    with pytest.raises(TrainingImpossible, match="at least one feature"):
        fit_estimator(choice, features[:, :0], labels, patients, seed=1)
    with pytest.raises(TrainingImpossible, match="float32"):
        fit_estimator(choice, features * 1e39, labels, patients, seed=1)


@pytest.mark.parametrize("kind", ["grid", "random"])
def test_a_search_chooses_among_the_settings_and_records_its_choice(kind: Any):
    search = Search(kind=kind, iterations=99, parameters={"max_depth": [1, 3], "min_samples_leaf": [2, 200]})
    choice = EstimatorChoice(parameters={"n_estimators": 5})

    first, second = fitted(choice, search=search), fitted(choice, search=search)

    # With leaves of 200 of 240 rows every tree is a stump's root: any smaller leaf is better.
    assert first.parameters["search.min_samples_leaf"] == 2
    assert first.parameters == second.parameters
    assert first.scores(rows()[0]).tobytes() == second.scores(rows()[0]).tobytes()


def test_a_search_over_a_pipeline_names_its_last_step():
    search = Search(kind="grid", parameters={"C": [0.01, 1.0]})

    assert "search.C" in fitted(EstimatorChoice(name=EstimatorName.LOGISTIC_REGRESSION), search=search).parameters


def test_a_search_over_an_unknown_parameter_or_score_is_refused():
    with pytest.raises(EstimatorInvalid, match="no parameter depth"):
        fitted(EstimatorChoice(), search=Search(parameters={"depth": [1]}))
    with pytest.raises(EstimatorInvalid, match="search: "):
        fitted(EstimatorChoice(), search=Search(parameters={"max_depth": [1]}, scoring="auroc"))


def test_folds_keep_a_patient_together_and_refuse_too_few():
    _, labels, patients = rows()

    for train, test in patient_folds(patients, labels, folds=4, seed=0, what="search"):
        assert set(patients[train]).isdisjoint(patients[test])
    with pytest.raises(TrainingImpossible, match="search: expected at least 2 training patients in each of 3 folds"):
        patient_folds(patients[:20], labels[:20], folds=3, seed=0, what="search")
    one_positive = (np.arange(ROWS) == 0).astype(np.float64)
    with pytest.raises(TrainingImpossible, match="lacks a class"):
        patient_folds(patients, one_positive, folds=3, seed=0, what="calibration")


@pytest.mark.parametrize("kind", list(Calibration))
def test_a_calibration_is_fitted_on_scores_of_patients_not_seen_and_brings_their_mean_to_the_prevalence(
    kind: Calibration,
):
    features, labels, _ = rows()
    # Balanced weights spoil probabilities; the correction brings them back.
    choice = EstimatorChoice(name=EstimatorName.RANDOM_FOREST, balanced=True, calibration=kind)

    model = fitted(choice)
    raw = model.scores(features)
    if isinstance(model.calibration, SigmoidTable):
        corrected = np.array([model.calibration.calibrated(float(score)) for score in raw])
        assert model.calibration.a < 0
    else:
        corrected = model.calibration.predict(raw)

    assert abs(corrected.mean() - labels.mean()) < 0.1
    assert np.all(np.diff(corrected[np.argsort(raw)]) >= 0)
    assert model.parameters["calibration"] == kind.value


def test_only_binary_scores_are_calibrated():
    features, _, patients = rows()

    with pytest.raises(TrainingImpossible, match="binary"):
        fit_estimator(
            EstimatorChoice(calibration=Calibration.SIGMOID),
            features,
            features.toarray()[:, 0],
            patients,
            seed=1,
            target=Target.REGRESSION,
        )


def outputs(target: Target, *names: str) -> Outputs:
    unit = "g/dL" if target is Target.REGRESSION else None
    return Outputs(target=target, names=names, headline=names[0], unit=unit)


def figures_of(statistics: list[Statistic], n_rows: int) -> dict[str, float]:
    """Measure without resampling."""
    weights = np.ones((1, n_rows))
    return {
        name: float(value)
        for statistic in statistics
        for name, value in zip(statistic.names, statistic.measured(weights)[0], strict=True)
    }


@pytest.mark.parametrize("name", ALL)
def test_several_classes_are_trained_and_measured(name: EstimatorName):
    features, _, patients = rows()
    classes = np.clip(features.toarray()[:, 0], 0, 2)
    model = fit_estimator(EstimatorChoice(name=name), features, classes, patients, seed=1, target=Target.MULTICLASS)
    answers = model.scores(features)

    of = outputs(Target.MULTICLASS, "low", "normal", "high")
    figures = figures_of(headline_statistics(of, classes, answers), classes.size)

    assert figures["auroc"] > 0.9
    assert figures["auroc"] == pytest.approx(np.mean([figures[f"auroc.{name}"] for name in of.names]))
    assert figures_of(class_statistics(classes, answers), classes.size)["accuracy"] > 0.8


@pytest.mark.parametrize("name", ALL)
def test_several_labels_are_trained_and_measured(name: EstimatorName):
    features, _, patients = rows()
    labels = (features.toarray()[:, :2] > 0).astype(np.float64)
    model = fit_estimator(EstimatorChoice(name=name), features, labels, patients, seed=1, target=Target.MULTILABEL)

    of = outputs(Target.MULTILABEL, "a", "b")
    figures = figures_of(headline_statistics(of, labels, model.scores(features)), len(labels))

    assert min(figures["auroc.a"], figures["auroc.b"]) > 0.9


@pytest.mark.parametrize("name", [name for name in ALL if name is not EstimatorName.LOGISTIC_REGRESSION])
def test_numbers_are_trained_and_measured(name: EstimatorName):
    features, _, patients = rows()
    numbers = 3.0 * features.toarray()[:, 0]
    model = fit_estimator(EstimatorChoice(name=name), features, numbers, patients, seed=1, target=Target.REGRESSION)
    answers = model.scores(features).reshape(-1, 1)

    of = outputs(Target.REGRESSION, "value")
    assert figures_of(headline_statistics(of, numbers, answers), numbers.size)["r2"] > 0.7


def test_logistic_regression_predicts_no_numbers():
    features, _, patients = rows()
    choice = EstimatorChoice(name=EstimatorName.LOGISTIC_REGRESSION)

    with pytest.raises(TrainingImpossible, match="classes"):
        fit_estimator(choice, features, features.toarray()[:, 0], patients, seed=1, target=Target.REGRESSION)


def test_a_search_file_with_a_misspelt_key_is_refused_by_file_and_key(tmp_path: Path):
    path = tmp_path / "search.yaml"
    path.write_text("kind: grid\nparameter:\n  C: [1]\n")

    with pytest.raises(SearchInvalid, match=r"search\.yaml: unknown key 'parameter'; did you mean 'parameters'\?"):
        load_search(path)
    path.write_text("kind: grid\nparameters:\n  C: [1, 0.5]\n")
    assert load_search(path).parameters == {"C": [1, 0.5]}


def test_the_choice_is_not_changed_by_training():
    choice = EstimatorChoice(parameters={"n_estimators": 3})
    before = dataclasses.replace(choice)

    fitted(choice)

    assert choice == before
