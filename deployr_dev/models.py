"""From a trained estimator to the file that a bundle ships, proven to score like the estimator before it is shipped."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.bundle import CALIBRATION_FILE, BundleInvalid, Manifest, ModelFormat, ModelKind, load_model
from deployr_core.scoring import (
    CalibrationTable,
    InputType,
    IsotonicTable,
    LinearNumbers,
    Link,
    ModelUnusable,
    Scorer,
    SigmoidTable,
    calibration_json,
    positive_column,
)
from deployr_dev.probes import probe_rows, row_vector

FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")
BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
LIGHTGBM = ("LGBMClassifier", "LGBMRegressor")
XGBOOST = ("XGBClassifier", "XGBRFClassifier", "XGBRegressor", "XGBRFRegressor")
LOGISTIC = ("LogisticRegression", "LogisticRegressionCV")
LINEAR = ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV")

TOLERANCE = {
    **dict.fromkeys(FORESTS, 0.0),
    **dict.fromkeys((*BOOSTED, *HISTOGRAM), 1e-12),
    **dict.fromkeys(LIGHTGBM, 1e-15),
    **dict.fromkeys(XGBOOST, 1e-6),
    **dict.fromkeys((*LOGISTIC, *LINEAR), 1e-9),
}
"""How far a shipped score may be from the estimator's own, on rows laid at the very thresholds.

0 means to the bit. LightGBM's log-odds are equal to the bit, and its own logistic function is not correctly rounded.
scikit-learn adds a boosted tree's leaves in another order. XGBoost computes in float32. A linear model is a dot product
whose terms may cancel. One threshold taken the other way is a difference of a leaf, many times as large.
"""


class EstimatorRefused(ValueError):
    """The estimator cannot be shipped as it is; the message says what to do instead."""


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """A model as a bundle ships it. ``calibration``: the bytes of ``calibration.json``, where there is one."""

    kind: ModelKind
    file_name: str
    content: bytes = field(repr=False)
    zero_is_missing: bool = False
    runs_code: bool = False
    input_type: InputType = "float32"
    calibration: bytes | None = field(default=None, repr=False)

    @property
    def format(self) -> ModelFormat:
        """What the manifest says of it, under ``model``."""
        return ModelFormat(
            kind=self.kind,
            input_type=self.input_type,
            zero_is_missing=self.zero_is_missing,
            runs_code=self.runs_code,
        )

    def files(self) -> dict[str, bytes]:
        """Give its parts of the bundle by file name."""
        calibration = {} if self.calibration is None else {CALIBRATION_FILE: self.calibration}
        return {self.file_name: self.content, **calibration}

    def scorer(self, *, n_features: int) -> Scorer:
        """Give the function that scores one row as the deployed bundle will.

        A model that runs code is deserialised for it: do this only with a part made in this process.
        """
        return load_model(
            self.format,
            self.content,
            n_features=n_features,
            calibration=self.calibration,
            estimator=_joblib_load(self.content) if self.runs_code else None,
        )


def model_part(
    estimator: Any, *, n_features: int, allow_pickle: bool = False, trained_on: InputType = "float64"
) -> ModelPart:
    """Give an estimator's file: trees as a treelite checkpoint, linear models as numbers, anything else as joblib.

    What is shipped as data is first scored beside the estimator, on rows laid at the trees' own thresholds: what
    treelite misreads without complaint (exponential loss, for one) is refused here and never reaches a bundle.

    Args:
        estimator: fitted on labels 0 and 1: one of scikit-learn's, LightGBM's or XGBoost's, or a scikit-learn pipeline
            of at most one scaler and a linear model, or a `CalibratedClassifierCV` of one fold (``ensemble=False``)
            over any of these.
        n_features: how many features the declaration has.
        allow_pickle: lets everything else through as joblib, which runs code wherever it is loaded.
        trained_on: the type of the rows that it was fitted on. LightGBM and histogram boosting cut between float64
            values; fitted on float32 rows they must be served rows that are rounded alike, or a value beside a
            threshold takes another turn. All other trees round their rows themselves.

    Raises:
        EstimatorRefused: it cannot be shipped as data, or scores otherwise; the message says what to do.
    """
    try:
        part = _as_data(estimator, n_features, trained_on)
    except EstimatorRefused as refused:
        if not allow_pickle:
            raise EstimatorRefused(
                f"{refused}; or pass --allow-pickle to ship it as joblib, which runs code wherever it is loaded"
            ) from refused.__cause__
        return _as_joblib(estimator, n_features)
    return part


def calibrated(part: ModelPart, calibration: Any) -> ModelPart:
    """Give the part with a calibration applied after it.

    Args:
        part: without one.
        calibration: a fitted ``IsotonicRegression``, fitted on the part's scores, or a `CalibrationTable`.

    Raises:
        EstimatorRefused: the part has a calibration already, or this is none.
    """
    if part.calibration is not None:
        raise EstimatorRefused("expected a model without a calibration; one table is applied after a model")
    table = calibration if isinstance(calibration, CalibrationTable) else _isotonic(calibration)
    return replace(part, calibration=calibration_json(table))


def load_pickle(manifest: Manifest, content: bytes) -> object:
    """Deserialise a joblib file, which runs code; see `deployr_core.bundle.LoadPickle`.

    Raises:
        BundleInvalid: joblib cannot read it.
    """
    try:
        return _joblib_load(content)
    except (AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError) as error:
        raise BundleInvalid(f"{manifest.model.file_name}: expected an estimator saved by joblib") from error


def _as_data(estimator: Any, n_features: int, trained_on: InputType) -> ModelPart:
    scale, final = _unwrapped(estimator)
    name, source = type(final).__name__, type(final).__module__.partition(".")[0]
    if (source, name) == ("sklearn", "CalibratedClassifierCV") and scale is None:
        return _from_calibrated(final, n_features, trained_on)
    if source == "sklearn" and name in LOGISTIC + LINEAR:
        part = _linear(final, scale, "logit" if name in LOGISTIC else "identity")
    elif scale is not None:
        raise EstimatorRefused(f"{name}: expected no scaler before anything but a linear model; trees need none")
    else:
        make = next((make for (home, names), make in _MAKERS.items() if source == home and name in names), None)
        if make is None:
            raise EstimatorRefused(f"{name}: expected an estimator that can be shipped as data ({_shippable()})")
        part = make(final, trained_on)
    _check_scores(part, estimator, n_features, trained_on, tolerance=TOLERANCE[name])
    return part


def _shippable() -> str:
    return ", ".join(name for _, names in _MAKERS for name in names) + ", " + ", ".join(LOGISTIC + LINEAR)


def _unwrapped(estimator: Any) -> tuple[NDArray[np.float64] | None, Any]:
    """Give the scale of a pipeline's one scaler, None without one, and its final estimator."""
    if (type(estimator).__module__.partition(".")[0], type(estimator).__name__) != ("sklearn", "Pipeline"):
        return None, estimator
    steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
    *before, final = steps
    if not before:
        return None, final
    (scaler, *more) = before
    name = type(scaler).__name__
    centred = name == "StandardScaler" and scaler.with_mean
    if more or name not in {"MaxAbsScaler", "StandardScaler"} or centred or getattr(scaler, "clip", False):
        steps_held = ", ".join(type(step).__name__ for step in before)
        raise EstimatorRefused(
            f"Pipeline: expected one MaxAbsScaler or StandardScaler(with_mean=False) before the model, got {steps_held}"
        )
    scale = np.ones(scaler.n_features_in_) if scaler.scale_ is None else np.asarray(scaler.scale_, dtype=np.float64)
    return scale, final


def _linear(estimator: Any, scale: NDArray[np.float64] | None, link: Link) -> ModelPart:
    if link == "logit":
        _expect_labels_in_order(estimator)
    coefficients = np.asarray(estimator.coef_, dtype=np.float64)
    if coefficients.ndim > 1 and coefficients.shape[0] != 1:
        raise EstimatorRefused(f"{type(estimator).__name__}: expected one output, got {coefficients.shape[0]}")
    numbers = LinearNumbers(
        coefficients=tuple(coefficients.ravel().tolist()),
        intercept=float(np.asarray(estimator.intercept_, dtype=np.float64).ravel()[0]),
        link=link,
        scale=None if scale is None else tuple(scale.tolist()),
    )
    return _part("linear", numbers.to_json())


def _sklearn_trees(estimator: Any, trained_on: InputType) -> ModelPart:
    import treelite

    if hasattr(estimator, "classes_"):
        _expect_labels_in_order(estimator)
    # Histogram boosting bins float64; everything else in scikit-learn grows its trees on float32.
    input_type: InputType = trained_on if type(estimator).__name__ in HISTOGRAM else "float32"
    return _trees(estimator, treelite.sklearn.import_model, input_type=input_type)


def _lightgbm(estimator: Any, trained_on: InputType) -> ModelPart:
    import treelite

    if hasattr(estimator, "classes_"):
        _expect_labels_in_order(estimator)
    text = estimator.booster_.model_to_string()
    decisions = {
        int(word)
        for line in text.splitlines()
        if line.startswith("decision_type=")
        for word in line.removeprefix("decision_type=").split()
    }
    # Bits 2 and 3: 0 nothing is missing, 1 zero is, 2 NaN is. treelite 4.8 reads 1 as 0, and says nothing.
    if any(decision >> 2 & 3 == 1 for decision in decisions):
        raise EstimatorRefused(
            f"{type(estimator).__name__}: expected zero_as_missing=False, because treelite cannot represent it"
        )
    return _trees(estimator.booster_, treelite.frontend.from_lightgbm, input_type=trained_on)


def _xgboost(estimator: Any, _: InputType) -> ModelPart:
    import treelite

    name = type(estimator).__name__
    if hasattr(estimator, "classes_"):
        _expect_labels_in_order(estimator)
    missing = estimator.get_params().get("missing")
    if missing != 0.0:
        raise EstimatorRefused(
            f"{name}: expected missing=0.0, got {missing}: otherwise XGBoost takes what a sparse row leaves out for "
            "missing and a dense row's 0 for a number, and scores the two apart"
        )
    booster = estimator.get_booster()
    if estimator.get_params().get("booster") == "gblinear":
        raise EstimatorRefused(f"{name}: expected trees; for a linear model take a LogisticRegression")
    best = booster.attr("best_iteration")
    if best is not None:
        # After early stopping the estimator predicts with the best rounds only; treelite would take them all.
        booster = booster[: int(best) + 1]
    return _trees(booster, treelite.frontend.from_xgboost, input_type="float32", zero_is_missing=True)


_MAKERS: dict[tuple[str, tuple[str, ...]], Callable[[Any, InputType], ModelPart]] = {
    ("sklearn", FORESTS + BOOSTED + HISTOGRAM): _sklearn_trees,
    ("lightgbm", LIGHTGBM): _lightgbm,
    ("xgboost", XGBOOST): _xgboost,
}


def _trees(
    source: Any, import_model: Callable[[Any], Any], *, input_type: InputType, zero_is_missing: bool = False
) -> ModelPart:
    import treelite

    try:
        checkpoint = bytes(import_model(source).serialize_bytes())
    except (treelite.TreeliteError, NotImplementedError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rpartition(": ")[2]
        raise EstimatorRefused(f"expected trees that treelite can import, but it says: {reason}") from error
    return _part("treelite", checkpoint, input_type=input_type, zero_is_missing=zero_is_missing)


def _from_calibrated(estimator: Any, n_features: int, trained_on: InputType) -> ModelPart:
    """A `CalibratedClassifierCV` calibrates ``decision_function`` where there is one, else ``predict_proba``."""
    name = "CalibratedClassifierCV"
    _expect_labels_in_order(estimator)
    folds = estimator.calibrated_classifiers_
    if len(folds) != 1:
        raise EstimatorRefused(f"{name}: expected one calibrated model, got {len(folds)}: pass ensemble=False")
    (calibrator,) = folds[0].calibrators
    inner = folds[0].estimator
    # A model that is frozen to be calibrated without being fitted again.
    inner = getattr(inner, "estimator", inner) if type(inner).__name__ == "FrozenEstimator" else inner
    part = _as_data(inner, n_features, trained_on)
    if part.calibration is not None:
        raise EstimatorRefused(f"{name}: expected it over a model that is not calibrated yet")
    if hasattr(inner, "decision_function"):
        part = _without_link(part)
    # The model was found equal already. A steep table turns its last bits into more.
    steepest = 1.0
    kind = type(calibrator).__name__
    if kind == "IsotonicRegression":
        part = calibrated(part, calibrator)
        runs, rises = np.diff(calibrator.X_thresholds_), np.diff(calibrator.y_thresholds_)
        steepest = float(np.max(rises / runs, initial=1.0))
    elif kind == "_SigmoidCalibration":
        part = calibrated(part, SigmoidTable(a=float(calibrator.a_), b=float(calibrator.b_)))
        steepest = max(1.0, abs(float(calibrator.a_)))
    else:
        raise EstimatorRefused(f"{name}: expected method='isotonic' or 'sigmoid'")
    tolerance = steepest * max(1e-12, TOLERANCE[type(_unwrapped(inner)[1]).__name__])
    _check_scores(part, estimator, n_features, trained_on, tolerance=tolerance)
    return part


def _without_link(part: ModelPart) -> ModelPart:
    """Give the model as it is before its logistic function: the number that ``decision_function`` gives."""
    import treelite

    if part.kind == "linear":
        numbers = msgspec.json.decode(part.content, type=LinearNumbers)
        return replace(part, content=msgspec.structs.replace(numbers, link="identity").to_json())
    model = treelite.Model.deserialize_bytes(part.content)
    model.get_header_accessor().set_field("postprocessor", "identity")
    return replace(part, content=bytes(model.serialize_bytes()))


def _isotonic(calibration: Any) -> IsotonicTable:
    if type(calibration).__name__ != "IsotonicRegression" or not hasattr(calibration, "X_thresholds_"):
        raise EstimatorRefused("expected a fitted IsotonicRegression, or a table, as the calibration")
    try:
        return IsotonicTable(
            thresholds=tuple(calibration.X_thresholds_.astype(np.float64).tolist()),
            values=tuple(calibration.y_thresholds_.astype(np.float64).tolist()),
        )
    except ValueError as error:
        raise EstimatorRefused(f"IsotonicRegression: {error}: fit it with y_min=0, y_max=1, increasing=True") from None


def _as_joblib(estimator: Any, n_features: int) -> ModelPart:
    import joblib

    file = io.BytesIO()
    joblib.dump(estimator, file)
    part = _part("joblib", file.getvalue())
    try:
        part.scorer(n_features=n_features)
    except ModelUnusable as error:
        raise EstimatorRefused(f"{type(estimator).__name__}: {error}") from error
    return part


def _part(
    kind: ModelKind, content: bytes, *, input_type: InputType = "float32", zero_is_missing: bool = False
) -> ModelPart:
    runs_code = kind == "joblib"
    made = ModelFormat(kind=kind, input_type=input_type, zero_is_missing=zero_is_missing, runs_code=runs_code)
    return ModelPart(
        kind=kind,
        file_name=made.file_name,
        content=content,
        zero_is_missing=zero_is_missing,
        runs_code=runs_code,
        input_type=input_type,
    )


def _joblib_load(content: bytes) -> object:
    import joblib

    loaded: object = joblib.load(io.BytesIO(content))
    return loaded


def _expect_labels_in_order(estimator: Any) -> None:
    try:
        column = positive_column(estimator)
    except ModelUnusable as error:
        raise EstimatorRefused(f"{type(estimator).__name__}: {error}") from None
    if column != 1:
        raise EstimatorRefused(f"{type(estimator).__name__}: expected classes_ in the order 0, 1")


def _check_scores(part: ModelPart, estimator: Any, n_features: int, trained_on: InputType, *, tolerance: float) -> None:
    name = type(estimator).__name__
    try:
        scorer = part.scorer(n_features=n_features)
    except ModelUnusable as error:
        raise EstimatorRefused(f"{name}: {error}") from error
    checkpoint = part.content if part.kind == "treelite" else None
    rows = probe_rows(checkpoint, n_features=n_features).astype(trained_on)
    with warnings.catch_warnings():
        # Estimators that were fitted with column names complain of rows without.
        warnings.simplefilter("ignore")
        if hasattr(estimator, "predict_proba"):
            expected = np.asarray(estimator.predict_proba(rows), dtype=np.float64)[:, 1]
        else:
            expected = np.asarray(estimator.predict(rows), dtype=np.float64)
    scores = np.array([scorer.raw(row_vector(row.astype(np.float64))) for row in rows])
    # Relative where a regression gives numbers beyond 1.
    apart = float(np.max(np.abs(scores - expected) / np.maximum(1.0, np.abs(expected))))
    if not apart <= tolerance:
        raise EstimatorRefused(
            f"{name}: expected the shipped model to score as the estimator does within {tolerance:g}, but they are "
            f"{apart:.2g} apart: some option of it cannot be represented"
        )
