"""Shipped models of several classes, of several labels and of numbers give what their estimators give."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from xgboost import XGBClassifier, XGBRegressor

from deployr_core.outputs import Outputs, Target
from deployr_dev.model_part import EstimatorRefused
from deployr_dev.models import calibrated, model_part
from deployr_dev.probes import probe_rows, row_vector

N_FEATURES = 7
CLASSES = Outputs(target=Target.MULTICLASS, names=("low", "normal", "high"), headline="low")
LABELS = Outputs(target=Target.MULTILABEL, names=("hematocrit", "hemoglobin", "wbc"), headline="hemoglobin")
NUMBER = Outputs(target=Target.REGRESSION, names=("value",), headline="value", unit="g/dL")


def rows_like_ours(n: int, *, seed: int) -> NDArray[np.float64]:
    """Mostly absent features: counts, measurements with digits, and whole numbers."""
    rng = np.random.default_rng(seed)
    rows = np.round(rng.normal(37, 6, (n, N_FEATURES)), 1)
    rows[:, 3:] = rng.integers(0, 4, (n, N_FEATURES - 3))
    rows[rng.random(rows.shape) < 0.4] = 0.0
    return rows


ROWS = rows_like_ours(600, seed=1)
NOISE = np.random.default_rng(2).normal(size=600)
SIGNAL = ROWS[:, 0] + 10 * ROWS[:, 4] + 20 * NOISE
WANTED = {
    Target.MULTICLASS: np.digitize(SIGNAL, np.quantile(SIGNAL, [0.3, 0.8])),
    Target.MULTILABEL: np.column_stack([cut < SIGNAL for cut in np.quantile(SIGNAL, [0.2, 0.5, 0.7])]).astype(np.int64),
    Target.REGRESSION: SIGNAL,
}
LIGHT: dict[str, Any] = {"n_estimators": 20, "n_jobs": 1, "verbose": -1, "random_state": 0}
XGB: dict[str, Any] = {"n_estimators": 20, "n_jobs": 1, "missing": 0.0, "random_state": 0}
SCALED = make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=1000))

EQUAL = {
    "classes, random forest": (CLASSES, RandomForestClassifier(20, random_state=0), 0.0),
    "classes, forest on leaves of 7": (CLASSES, RandomForestClassifier(20, min_samples_leaf=7, random_state=0), 0.0),
    "classes, extra trees": (CLASSES, ExtraTreesClassifier(20, random_state=0), 0.0),
    "classes, gradient boosting": (CLASSES, GradientBoostingClassifier(n_estimators=20, random_state=0), 2**-48),
    "classes, histogram boosting": (CLASSES, HistGradientBoostingClassifier(max_iter=20, random_state=0), 2**-48),
    "classes, LightGBM": (CLASSES, LGBMClassifier(**LIGHT), 2**-50),
    "classes, XGBoost": (CLASSES, XGBClassifier(**XGB), 2**-20),
    "classes, logistic regression": (CLASSES, LogisticRegression(max_iter=5000), 2**-46),
    "classes, scaled": (CLASSES, SCALED, 2**-46),
    "labels, random forest": (LABELS, RandomForestClassifier(20, random_state=0), 0.0),
    "labels, forest on leaves of 7": (LABELS, RandomForestClassifier(20, min_samples_leaf=7, random_state=0), 0.0),
    "labels, extra trees": (LABELS, ExtraTreesClassifier(20, random_state=0), 0.0),
    "labels, XGBoost": (LABELS, XGBClassifier(**XGB), 2**-20),
    "labels, logistic regressions": (LABELS, MultiOutputClassifier(LogisticRegression(max_iter=5000)), 2**-46),
    "labels, scaled": (LABELS, MultiOutputClassifier(SCALED), 2**-46),
    "number, random forest": (NUMBER, RandomForestRegressor(20, random_state=0), 0.0),
    "number, extra trees": (NUMBER, ExtraTreesRegressor(20, random_state=0), 0.0),
    "number, gradient boosting": (NUMBER, GradientBoostingRegressor(n_estimators=20, random_state=0), 2**-44),
    "number, histogram boosting": (NUMBER, HistGradientBoostingRegressor(max_iter=20, random_state=0), 2**-44),
    "number, LightGBM": (NUMBER, LGBMRegressor(**LIGHT), 0.0),
    "number, XGBoost": (NUMBER, XGBRegressor(**XGB), 2**-20),
    "number, ridge": (NUMBER, Ridge(), 2**-44),
}
"""The estimator, and how far apart answers may be, relative to the largest of those beyond 1."""


def own(estimator: Any, rows: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Ask the estimator itself, shape (n_rows, n_outputs)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM names its columns and then misses the names
        if target is Target.REGRESSION:
            return np.asarray(estimator.predict(rows), dtype=np.float64).reshape(-1, 1)
        found = estimator.predict_proba(rows)
    return np.column_stack([each[:, 1] for each in found]) if isinstance(found, list) else np.asarray(found, np.float64)


@pytest.mark.parametrize("name", EQUAL)
def test_unseen_rows_and_rows_at_the_thresholds_get_the_estimators_own_outputs(name: str) -> None:
    outputs, estimator, apart = EQUAL[name]
    estimator.fit(ROWS, WANTED[outputs.target])
    part = model_part(estimator, n_features=N_FEATURES, outputs=outputs)
    scorer = part.scorer(n_features=N_FEATURES)
    at_thresholds = probe_rows(part.content if part.kind == "treelite" else None, n_features=N_FEATURES)
    rows = np.concatenate([rows_like_ours(200, seed=3), at_thresholds])

    answers = np.array([scorer.answer(row_vector(row)) for row in rows])

    expected = own(estimator, rows, outputs.target)
    assert answers.shape == expected.shape
    assert np.abs(answers - expected).max() / max(1.0, np.abs(expected).max()) <= apart
    headline = [scorer.score(row_vector(row)) for row in rows[:5]]
    assert headline == answers[:5, outputs.names.index(outputs.headline)].tolist()
    assert not part.runs_code


@pytest.mark.parametrize(
    ("outputs", "estimator"),
    [
        (LABELS, MultiOutputClassifier(HistGradientBoostingClassifier(max_iter=5))),
        (LABELS, MultiOutputClassifier(LGBMClassifier(**LIGHT))),
        (CLASSES, GaussianNB()),
    ],
    ids=str,
)
def test_what_cannot_be_data_goes_as_joblib_with_all_of_its_outputs(outputs: Outputs, estimator: Any) -> None:
    estimator.fit(ROWS, WANTED[outputs.target])
    with pytest.raises(EstimatorRefused, match="--allow-pickle"):
        model_part(estimator, n_features=N_FEATURES, outputs=outputs)

    part = model_part(estimator, n_features=N_FEATURES, outputs=outputs, allow_pickle=True)

    scorer, rows = part.scorer(n_features=N_FEATURES), rows_like_ours(20, seed=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = np.array([scorer.answer(row_vector(row)) for row in rows])
    assert part.runs_code
    assert np.array_equal(answers, own(estimator, rows, outputs.target))


def test_lightgbm_whose_classes_do_not_sum_to_1_is_refused() -> None:
    estimator = LGBMClassifier(**LIGHT, objective="multiclassova").fit(ROWS, WANTED[Target.MULTICLASS])

    with pytest.raises(EstimatorRefused, match="multiclass_ova"):
        model_part(estimator, n_features=N_FEATURES, outputs=CLASSES)


@pytest.mark.parametrize("make", [RandomForestClassifier, GaussianNB])
def test_a_classifier_is_no_model_of_a_number_even_as_joblib(make: Any) -> None:
    estimator = make().fit(ROWS, WANTED[Target.MULTICLASS])

    with pytest.raises(EstimatorRefused, match="predicts a number, not classes"):
        model_part(estimator, n_features=N_FEATURES, outputs=NUMBER, allow_pickle=True)


@pytest.mark.parametrize(
    ("outputs", "trained_as"),
    [(CLASSES, Target.MULTILABEL), (LABELS, Target.MULTICLASS), (CLASSES, Target.REGRESSION)],
)
def test_an_estimator_of_another_target_is_refused(outputs: Outputs, trained_as: Target) -> None:
    kind = RandomForestRegressor if trained_as is Target.REGRESSION else RandomForestClassifier
    estimator = kind(3, random_state=0).fit(ROWS, WANTED[trained_as])

    with pytest.raises(EstimatorRefused):
        model_part(estimator, n_features=N_FEATURES, outputs=outputs)


def test_a_classifier_that_never_saw_one_of_the_classes_is_refused() -> None:
    estimator = RandomForestClassifier(3, random_state=0).fit(ROWS, WANTED[Target.MULTICLASS] // 2)

    with pytest.raises(EstimatorRefused, match="labels 0 to 2"):
        model_part(estimator, n_features=N_FEATURES, outputs=CLASSES)


def test_only_one_probability_is_calibrated() -> None:
    estimator = RandomForestClassifier(3, random_state=0).fit(ROWS, WANTED[Target.MULTICLASS])
    part = model_part(estimator, n_features=N_FEATURES, outputs=CLASSES)

    with pytest.raises(EstimatorRefused, match="one probability"):
        calibrated(part, None)
