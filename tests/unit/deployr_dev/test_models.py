"""Every kind of estimator becomes a file that scores like it, or is refused with what to do."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import treelite
from lightgbm import LGBMClassifier, LGBMRegressor
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier

from deployr_core.scoring import SigmoidTable, TreeEnsemble
from deployr_core.vectorize import FeatureVector
from deployr_dev.code_version import code_version
from deployr_dev.model_part import EstimatorRefused, ModelPart
from deployr_dev.models import calibrated, model_part

# XGBoost 3.4 (Python 3.12 and later) says that dart, gblinear and its random forest will go; until then they count.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning"),
]

N_FEATURES = 8


def rows_like_ours(n: int, *, seed: int) -> NDArray[np.float64]:
    """Give rows that are mostly 0: counts beside real numbers, one column nearly constant."""
    rng = np.random.default_rng(seed)
    rows = np.round(rng.normal(scale=30, size=(n, N_FEATURES)), 2)
    rows[:, 4] = rng.poisson(0.5, n)
    rows[:, 5] = 36.6
    rows[rng.random(rows.shape) < 0.4] = 0.0
    return rows


ROWS = rows_like_ours(600, seed=1)
LABELS = (ROWS[:, 0] + 10 * ROWS[:, 4] + np.random.default_rng(2).normal(size=600) * 20 > 0).astype(np.int64)
UNSEEN = rows_like_ours(200, seed=3)


def vector(row: NDArray[np.float64]) -> FeatureVector:
    indices = np.flatnonzero(row).astype(np.int32)
    return FeatureVector(spec_digest="", size=row.size, indices=indices, values=row[indices], coverage={})


def fitted(estimator: Any, labels: Any = LABELS) -> Any:
    return estimator.fit(ROWS, labels)


def raw_scores(part: ModelPart) -> NDArray[np.float64]:
    scorer = part.scorer(n_features=N_FEATURES)
    return np.array([scorer.raw(vector(row))[0] for row in UNSEEN])


def own_scores(estimator: Any, rows: Any = UNSEEN) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM names its columns and then misses the names
        if hasattr(estimator, "predict_proba"):
            return np.asarray(estimator.predict_proba(rows)[:, 1], dtype=np.float64)
        return np.asarray(estimator.predict(rows), dtype=np.float64)


def lightgbm(**settings: Any) -> Any:
    return LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1, random_state=0, **settings)


def xgboost(**settings: Any) -> Any:
    return XGBClassifier(**{"n_estimators": 20, "n_jobs": 1, "missing": 0.0, **settings})


TO_THE_BIT = {
    "random forest": lambda: RandomForestClassifier(20, random_state=0),
    "forest on leaves of 5": lambda: RandomForestClassifier(20, min_samples_leaf=5, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(20, random_state=0),
    "regression forest": lambda: RandomForestRegressor(20, random_state=0),
    "regression extra trees": lambda: ExtraTreesRegressor(20, random_state=0),
    "forest in a pipeline": lambda: make_pipeline("passthrough", RandomForestClassifier(20, random_state=0)),
    "LightGBM regression": lambda: LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1),
    "isotonic over a forest": lambda: CalibratedClassifierCV(
        RandomForestClassifier(20, random_state=0), method="isotonic", ensemble=False, cv=3
    ),
}

CLOSE = {
    "LightGBM": (lightgbm, 2**-52),
    "LightGBM with a steeper sigmoid": (lambda: lightgbm(sigmoid=0.5), 2**-52),
    "LightGBM, dart": (lambda: lightgbm(boosting_type="dart"), 2**-52),
    "LightGBM, random forest": (
        lambda: lightgbm(boosting_type="rf", bagging_freq=1, bagging_fraction=0.6),
        2**-52,
    ),
    "gradient boosting": (lambda: GradientBoostingClassifier(random_state=0), 2**-50),
    "histogram boosting": (lambda: HistGradientBoostingClassifier(random_state=0), 2**-50),
    "logistic regression": (lambda: LogisticRegression(max_iter=1000), 2**-50),
    "scaled by the largest": (lambda: make_pipeline(MaxAbsScaler(), LogisticRegression()), 2**-50),
    "liblinear": (lambda: make_pipeline(MaxAbsScaler(), LogisticRegression(solver="liblinear")), 2**-50),
    "scaled by deviation": (
        lambda: make_pipeline(StandardScaler(with_mean=False), LogisticRegression()),
        2**-50,
    ),
    "linear regression": (LinearRegression, 2**-48),
    "ridge": (Ridge, 2**-48),
    "sigmoid over a forest": (
        lambda: CalibratedClassifierCV(RandomForestClassifier(20, random_state=0), ensemble=False, cv=3),
        2**-50,
    ),
    "sigmoid over gradient boosting": (
        lambda: CalibratedClassifierCV(GradientBoostingClassifier(random_state=0), ensemble=False, cv=3),
        2**-50,
    ),
    "isotonic over histogram boosting": (
        lambda: CalibratedClassifierCV(
            HistGradientBoostingClassifier(random_state=0), method="isotonic", ensemble=False, cv=3
        ),
        1e-9,
    ),
    "isotonic over LightGBM": (
        lambda: CalibratedClassifierCV(lightgbm(), method="isotonic", ensemble=False, cv=3),
        1e-9,
    ),
    "sigmoid over a scaled logistic regression": (
        lambda: CalibratedClassifierCV(make_pipeline(MaxAbsScaler(), LogisticRegression()), ensemble=False, cv=3),
        2**-50,
    ),
    "XGBoost": (xgboost, 2**-20),
    "XGBoost, deep": (lambda: xgboost(max_depth=8, learning_rate=0.5), 2**-20),
    "XGBoost, dart": (lambda: xgboost(booster="dart"), 2**-20),
    "XGBoost, random forest": (lambda: XGBRFClassifier(n_estimators=20, n_jobs=1, missing=0.0), 2**-20),
    "XGBoost regression": (lambda: XGBRegressor(n_estimators=20, n_jobs=1, missing=0.0), 2**-20),
    "sigmoid over XGBoost": (lambda: CalibratedClassifierCV(xgboost(), ensemble=False, cv=3), 2**-20),
}
"""How far apart scores may be: 2^-52 is two units in the last place of a number near 1; XGBoost computes in float32."""


@pytest.mark.parametrize("name", TO_THE_BIT)
def test_200_rows_score_as_the_estimator_to_the_bit(name: str) -> None:
    estimator = fitted(TO_THE_BIT[name]())
    expected = own_scores(estimator)
    assert np.unique(expected).size > 10
    assert raw_scores(model_part(estimator, n_features=N_FEATURES)).tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.parametrize("name", CLOSE)
def test_200_rows_score_as_the_estimator_within_its_bound(name: str) -> None:
    make, bound = CLOSE[name]
    estimator = fitted(make())
    expected = own_scores(estimator)
    assert np.unique(expected).size > 10
    apart = np.abs(raw_scores(model_part(estimator, n_features=N_FEATURES)) - expected)
    assert apart.max() <= bound


@pytest.mark.parametrize("name", [*TO_THE_BIT, *CLOSE])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_a_model_trained_twice_has_the_same_bytes(name: str) -> None:
    make = TO_THE_BIT[name] if name in TO_THE_BIT else CLOSE[name][0]
    first, second = (model_part(fitted(make()), n_features=N_FEATURES) for _ in range(2))
    assert first == second
    assert not first.runs_code


# -- XGBoost: what is absent is missing, sparse or dense


def test_xgboost_scores_sparse_and_dense_rows_alike_and_so_do_we() -> None:
    from scipy.sparse import csr_matrix

    estimator = fitted(xgboost())
    dense, sparse = own_scores(estimator), own_scores(estimator, csr_matrix(UNSEEN))
    assert dense.tobytes() == sparse.tobytes()
    part = model_part(estimator, n_features=N_FEATURES)
    assert part.zero_is_missing
    assert np.abs(raw_scores(part) - dense).max() <= 2**-20
    # Zeros taken for numbers would go another way: the flag is not idle.
    as_numbers = TreeEnsemble(part.content, n_features=N_FEATURES)
    assert max(abs(as_numbers.score(vector(row)) - score) for row, score in zip(UNSEEN, dense, strict=True)) > 0.1


def test_xgboost_that_takes_absent_for_two_things_is_refused() -> None:
    with pytest.raises(EstimatorRefused, match=r"XGBClassifier: expected missing=0\.0, got nan"):
        model_part(fitted(xgboost(missing=np.nan)), n_features=N_FEATURES)


def test_xgboost_is_shipped_with_its_best_rounds_only() -> None:
    estimator = xgboost(n_estimators=200, early_stopping_rounds=3, learning_rate=0.8)
    estimator.fit(ROWS[:400], LABELS[:400], eval_set=[(ROWS[400:], LABELS[400:])], verbose=False)
    assert estimator.best_iteration < 20
    assert np.abs(raw_scores(model_part(estimator, n_features=N_FEATURES)) - own_scores(estimator)).max() <= 2**-20


# -- LightGBM and histogram boosting: float64 thresholds


BETWEEN = (100.0, 100.000001)
"""Two numbers that float32 takes for one."""


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        LGBMClassifier(n_estimators=5, min_child_samples=1, n_jobs=1, verbose=-1, min_data_in_bin=1),
        HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=1),
    ],
    ids=["LightGBM", "histogram boosting"],
)
def test_a_cut_between_neighbours_of_float64_is_kept(estimator: Any) -> None:
    low, high = BETWEEN
    rows = np.array([[low]] * 30 + [[high]] * 30)
    estimator.fit(rows, [0] * 30 + [1] * 30)
    part = model_part(estimator, n_features=1)
    assert part.input_type == "float64"
    scorer = part.scorer(n_features=1)
    scores = [scorer.score(vector(np.array([value]))) for value in BETWEEN]
    assert scores[0] < 0.5 < scores[1]
    assert scores == pytest.approx(own_scores(estimator, np.array([[low], [high]])).tolist(), abs=2**-52)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_what_was_trained_on_float32_rows_is_served_float32_rows() -> None:
    estimator = lightgbm().fit(ROWS.astype(np.float32), LABELS)
    part = model_part(estimator, n_features=N_FEATURES, trained_on="float32")
    assert part.input_type == "float32"
    expected = own_scores(estimator, UNSEEN.astype(np.float32))
    assert np.abs(raw_scores(part) - expected).max() <= 2**-52


# -- what cannot be shipped as data


REFUSED = {
    "LightGBM that takes zero for missing": (lambda: lightgbm(zero_as_missing=True), "expected zero_as_missing=False"),
    "LightGBM with linear leaves": (lambda: lightgbm(linear_tree=True), "trees that treelite can import"),
    "exponential loss, which treelite misreads": (
        lambda: GradientBoostingClassifier(loss="exponential", n_estimators=5, random_state=0),
        "some option of it cannot be represented",
    ),
    "boosting from a model": (
        lambda: GradientBoostingClassifier(init=LogisticRegression(max_iter=1000), n_estimators=5),
        "Custom init estimator not supported",
    ),
    "XGBoost, hinge": (lambda: xgboost(objective="binary:hinge"), "probabilities or log-odds"),
    "XGBoost, linear": (lambda: xgboost(booster="gblinear"), "take a LogisticRegression"),
    "a scaler that centres": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), "with_mean=False"),
    "two scalers": (lambda: make_pipeline(MaxAbsScaler(), MaxAbsScaler(), LogisticRegression()), "expected one"),
    "a scaler before trees": (lambda: make_pipeline(MaxAbsScaler(), RandomForestClassifier(3)), "trees need none"),
    "calibrated in three": (
        lambda: CalibratedClassifierCV(RandomForestClassifier(3, random_state=0), cv=3),
        "pass ensemble=False",
    ),
    "calibrated by temperature": (
        lambda: CalibratedClassifierCV(
            RandomForestClassifier(3, random_state=0), cv=3, ensemble=False, method="temperature"
        ),
        "'isotonic' or 'sigmoid'",
    ),
    "AdaBoost": (lambda: AdaBoostClassifier(n_estimators=3, random_state=0), "AdaBoostClassifier: expected an estimat"),
    "naive Bayes": (GaussianNB, "RandomForestClassifier, .*LGBMClassifier, .*LogisticRegression"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_data_is_refused_with_what_to_do(name: str) -> None:
    make, complaint = REFUSED[name]
    with pytest.raises(EstimatorRefused, match=rf"{complaint}.*or pass --allow-pickle") as refused:
        model_part(fitted(make()), n_features=N_FEATURES)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("labels", [LABELS * 2 - 1, LABELS + 1, np.where(LABELS == 1, "yes", "no"), np.arange(600) % 3])
@pytest.mark.parametrize("estimator", [RandomForestClassifier(3, random_state=0), LogisticRegression(max_iter=2000)])
def test_labels_other_than_0_and_1_are_refused(estimator: Any, labels: Any) -> None:
    with pytest.raises(EstimatorRefused, match="expected a classifier that was trained on labels 0 and 1"):
        model_part(fitted(estimator, labels), n_features=N_FEATURES)


@pytest.mark.parametrize("estimator", [RandomForestClassifier(3), LogisticRegression(max_iter=1000), GaussianNB()])
def test_another_number_of_features_is_refused(estimator: Any) -> None:
    with pytest.raises(EstimatorRefused, match=f"of 9 features, as declared; it (has|was trained on) {N_FEATURES}"):
        model_part(fitted(estimator), n_features=9, allow_pickle=isinstance(estimator, GaussianNB))


class Forest(RandomForestClassifier):
    """Somebody's own: it may score in any way it likes."""

    def predict_proba(self, X: Any) -> Any:  # noqa: N803 (scikit-learn's own name)
        return super().predict_proba(X)[:, ::-1]


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    with pytest.raises(EstimatorRefused, match="Forest: expected an estimator that can be shipped as data"):
        model_part(fitted(Forest(3, random_state=0)), n_features=N_FEATURES)


# -- joblib, where it is asked for


@pytest.mark.parametrize("make", [GaussianNB, lambda: AdaBoostClassifier(n_estimators=3, random_state=0)])
def test_anything_else_is_shipped_as_joblib_only_when_asked_for(make: Any) -> None:
    estimator = fitted(make())
    part = model_part(estimator, n_features=N_FEATURES, allow_pickle=True)
    assert (part.kind, part.file_name, part.runs_code, part.format.runs_code) == ("joblib", "model.joblib", True, True)
    expected = np.array([estimator.predict_proba(row.reshape(1, -1))[0, 1] for row in UNSEEN])
    assert raw_scores(part).tobytes() == expected.tobytes()
    assert part == model_part(fitted(make()), n_features=N_FEATURES, allow_pickle=True)


def test_what_can_be_data_is_data_even_where_code_is_allowed() -> None:
    part = model_part(fitted(RandomForestClassifier(3, random_state=0)), n_features=N_FEATURES, allow_pickle=True)
    assert part.kind == "treelite"


def test_what_is_no_classifier_is_not_shipped_even_as_joblib() -> None:
    with pytest.raises(EstimatorRefused, match="predict_proba or predict"):
        model_part({"weights": [1.0]}, n_features=N_FEATURES, allow_pickle=True)


# -- calibration added afterwards


def test_an_isotonic_regression_of_the_scores_is_added_as_a_table() -> None:
    estimator = fitted(RandomForestClassifier(20, random_state=0))
    part = model_part(estimator, n_features=N_FEATURES)
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(own_scores(estimator, ROWS), LABELS)
    with_table = calibrated(part, isotonic)
    assert set(with_table.files()) == {"model.treelite", "calibration.json"}
    assert raw_scores(with_table).tobytes() == isotonic.predict(own_scores(estimator)).tobytes()


def test_a_model_is_calibrated_once() -> None:
    part = model_part(fitted(RandomForestClassifier(3, random_state=0)), n_features=N_FEATURES)
    once = calibrated(part, SigmoidTable(a=-1.0, b=0.0))
    with pytest.raises(EstimatorRefused, match="without a calibration"):
        calibrated(once, SigmoidTable(a=-1.0, b=0.0))


@pytest.mark.parametrize("calibration", [IsotonicRegression(), {"a": 1}, None])
def test_what_is_no_calibration_is_refused(calibration: Any) -> None:
    part = model_part(fitted(RandomForestClassifier(3, random_state=0)), n_features=N_FEATURES)
    with pytest.raises(EstimatorRefused, match="expected a fitted IsotonicRegression"):
        calibrated(part, calibration)


def test_an_isotonic_regression_that_leaves_0_to_1_is_refused() -> None:
    part = model_part(fitted(RandomForestClassifier(3, random_state=0)), n_features=N_FEATURES)
    with pytest.raises(EstimatorRefused, match="y_min=0, y_max=1"):
        calibrated(part, IsotonicRegression().fit([0.0, 0.5, 1.0], [0.0, 1.0, 2.0]))


def test_a_frozen_model_is_calibrated_as_it_is() -> None:
    model = fitted(make_pipeline(MaxAbsScaler(), LogisticRegression()))
    estimator = fitted(CalibratedClassifierCV(FrozenEstimator(model), method="isotonic"))
    part = model_part(estimator, n_features=N_FEATURES)
    assert part.kind == "linear"
    assert np.abs(raw_scores(part) - own_scores(estimator)).max() <= 1e-9


# -- the code that trained


def test_the_code_version_names_the_package_and_its_sources() -> None:
    version = code_version()
    assert version.package == "0.1.0"
    assert len(version.sources_sha256) == 64
    assert version == code_version()


def test_the_checkpoint_is_what_treelite_reads(tmp_path: Path) -> None:
    part = model_part(fitted(RandomForestClassifier(3, random_state=0)), n_features=N_FEATURES)
    file = tmp_path / part.file_name
    file.write_bytes(part.content)
    assert treelite.Model.deserialize(os.fspath(file)).num_tree == 3
