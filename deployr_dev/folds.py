"""What is chosen on folds of the training patients: an estimator's settings, and the correction of its scores."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployr_core.scoring import SigmoidTable
from deployr_dev.search import Search

Parameter = str | int | float | bool | None

Need = Literal["both", "train", "none"]

MIN_PATIENTS_PER_FOLD = 2

CALIBRATION_FOLDS = 5


class TrainingImpossible(ValueError):
    """These rows cannot make a model, or not one that could be measured; the message says what they lack."""


class EstimatorInvalid(ValueError):
    """There is no such estimator, or it has no such setting; the message says what there is."""


class Calibration(StrEnum):
    """How probabilities are corrected on folds of the training patients.

    Source: scikit-learn user guide, "Probability calibration"; Platt (1999); Zadrozny and Elkan (2002).
    """

    SIGMOID = "sigmoid"
    ISOTONIC = "isotonic"


def searched(
    estimator: Any, search: Search, rows: Any, labels: NDArray[Any], patients: NDArray[np.int64], *, seed: int
) -> tuple[Any, dict[str, Parameter]]:
    """Fit the best of the settings that the search tries, and say which; scored on folds of the patients.

    Raises:
        EstimatorInvalid: no such parameter or score.
        TrainingImpossible: see `patient_folds`.
    """
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

    single = labels.ndim == 1 and labels.dtype == np.int64
    folds = patient_folds(
        patients, labels, folds=search.folds, seed=seed, what="search", need="both" if single else "none"
    )
    tried = {full_name(estimator, key): values for key, values in search.parameters.items()}
    if unknown := sorted(set(tried) - set(estimator.get_params())):
        raise EstimatorInvalid(f"search: the estimator has no parameter {', '.join(unknown)}")
    shared = {"scoring": search.scoring, "cv": folds, "refit": True, "error_score": "raise"}
    if search.kind == "grid":
        found = GridSearchCV(estimator, tried, **shared)
    else:
        combinations = int(np.prod([len(values) for values in tried.values()]))
        drawn = min(search.iterations, combinations)
        found = RandomizedSearchCV(estimator, tried, n_iter=drawn, random_state=seed, **shared)
    try:
        found.fit(rows, labels)
    except ValueError as error:
        raise EstimatorInvalid(f"search: {str(error).splitlines()[0]}") from None
    return found.best_estimator_, {key.rpartition("__")[2]: value for key, value in found.best_params_.items()}


def out_of_fold(
    estimator: Any, rows: Any, labels: NDArray[Any], patients: NDArray[np.int64], *, seed: int
) -> NDArray[np.float64]:
    """Score each row by an estimator that has not seen its patient, shape (n_rows,)."""
    from sklearn.base import clone

    scores = np.zeros(labels.size)
    folds = patient_folds(patients, labels, folds=CALIBRATION_FOLDS, seed=seed, what="calibration", need="train")
    for train, test in folds:
        fitted = clone(estimator).fit(rows[train], labels[train])
        use_one_thread(fitted)
        scores[test] = fitted.predict_proba(rows[test])[:, 1]
    return scores


def calibration_of(kind: Calibration, scores: NDArray[np.float64], labels: NDArray[Any]) -> Any:
    """Fit a correction of scores; isotonic as scikit-learn has it, sigmoid with Platt's softened labels."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if kind is Calibration.ISOTONIC:
        return IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, labels)
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    softened = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    line = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.tile(scores, 2).reshape(-1, 1),
        np.repeat([1, 0], scores.size),
        sample_weight=np.concatenate([softened, 1.0 - softened]),
    )
    return SigmoidTable(a=-float(line.coef_[0, 0]), b=-float(line.intercept_[0]))


def patient_folds(
    patients: NDArray[np.int64], labels: NDArray[Any], *, folds: int, seed: int, what: str, need: Need = "both"
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cut rows into folds, a patient's rows in one of them; gives each fold's training and test positions.

    ``need`` says on which sides of each fold every class must be there.

    Raises:
        TrainingImpossible: fewer than 2 patients in a fold, or a fold that lacks a class.
    """
    from sklearn.model_selection import GroupKFold

    n_patients = np.unique(patients).size
    if n_patients < folds * MIN_PATIENTS_PER_FOLD:
        raise TrainingImpossible(
            f"{what}: expected at least {MIN_PATIENTS_PER_FOLD} training patients in each of {folds} folds,"
            f" got {n_patients} patients in all; ask for fewer folds, or leave it out"
        )
    cut = list(GroupKFold(n_splits=folds, shuffle=True, random_state=seed).split(patients, groups=patients))
    sides = [side for train, test in cut for side in {"both": (train, test), "train": (train,), "none": ()}[need]]
    if any(np.unique(labels[side]).size < np.unique(labels).size for side in sides):
        raise TrainingImpossible(
            f"{what}: expected training rows of every class in each of {folds} folds, but one lacks a class;"
            " ask for fewer folds, or leave it out"
        )
    return cut


def full_name(estimator: Any, key: str) -> str:
    """Give a parameter's name in a pipeline, where it belongs to the last step."""
    steps = getattr(estimator, "steps", None)
    return f"{steps[-1][0]}__{key}" if steps and "__" not in key else key


def use_one_thread(estimator: Any) -> None:
    """Score in one thread: trees summed in the order in which threads end differ in the last bit."""
    if type(estimator).__name__.startswith("RandomForest"):
        estimator.set_params(n_jobs=1)
