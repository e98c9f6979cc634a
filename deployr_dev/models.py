"""From a trained estimator to the file that a bundle ships, proven to score like the estimator before it is shipped."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.bundle import BundleInvalid, Manifest
from deployr_core.linear import LinearNumbers, Link
from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.scoring import (
    CalibrationTable,
    InputType,
    IsotonicTable,
    ModelUnusable,
    SigmoidTable,
    calibration_json,
)
from deployr_dev.model_part import EstimatorRefused, ModelPart, expect_labels_in_order, joblib_load, new_part
from deployr_dev.model_trees import BOOSTED, FORESTS, HISTOGRAM, LIGHTGBM, TREE_MAKERS, XGBOOST
from deployr_dev.probes import estimator_answers, probe_rows, row_vector

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


def model_part(
    estimator: Any,
    *,
    n_features: int,
    outputs: Outputs = BINARY,
    allow_pickle: bool = False,
    trained_on: InputType = "float64",
) -> ModelPart:
    """Give an estimator's file: trees as a treelite checkpoint, linear models as numbers, anything else as joblib.

    What is shipped as data is first scored beside the estimator, on rows laid at the trees' own thresholds: what
    treelite misreads without complaint (exponential loss, for one) is refused here and never reaches a bundle.

    Args:
        estimator: fitted on labels as `deployr_core.outputs.Target` has them: one of scikit-learn's, LightGBM's or
            XGBoost's, or a scikit-learn pipeline of at most one scaler and a linear model, or a
            `CalibratedClassifierCV` of one fold (``ensemble=False``) over any of these, or a `MultiOutputClassifier`
            of logistic regressions.
        n_features: how many features the declaration has.
        outputs: what it predicts.
        allow_pickle: lets everything else through as joblib, which runs code wherever it is loaded.
        trained_on: the type of the rows that it was fitted on. LightGBM and histogram boosting cut between float64
            values; fitted on float32 rows they must be served rows that are rounded alike, or a value beside a
            threshold takes another turn. All other trees round their rows themselves.

    Raises:
        EstimatorRefused: it cannot be shipped as data, or scores otherwise; the message says what to do.
    """
    gives_classes, wants_classes = hasattr(estimator, "predict_proba"), outputs.target is not Target.REGRESSION
    if gives_classes and not wants_classes:
        raise EstimatorRefused(f"{type(estimator).__name__}: expected an estimator that predicts a number, not classes")
    try:
        part = _as_data(estimator, n_features, outputs, trained_on)
    except EstimatorRefused as refused:
        if not allow_pickle:
            raise EstimatorRefused(
                f"{refused}; or pass --allow-pickle to ship it as joblib, which runs code wherever it is loaded"
            ) from refused.__cause__
        return _as_joblib(estimator, n_features, outputs)
    return part


def calibrated(part: ModelPart, calibration: Any) -> ModelPart:
    """Give the part with a calibration applied after it.

    Args:
        part: without one.
        calibration: a fitted ``IsotonicRegression``, fitted on the part's scores, or a `CalibrationTable`.

    Raises:
        EstimatorRefused: the part has a calibration already, or this is none.
    """
    if part.calibration is not None or len(part.outputs.names) > 1:
        raise EstimatorRefused("expected a model of one probability without a calibration: one table goes after it")
    table = calibration if isinstance(calibration, CalibrationTable) else _isotonic(calibration)
    return replace(part, calibration=calibration_json(table))


def load_pickle(manifest: Manifest, content: bytes) -> object:
    """Deserialise a joblib file, which runs code; see `deployr_core.bundle.LoadPickle`.

    Raises:
        BundleInvalid: joblib cannot read it.
    """
    try:
        return joblib_load(content)
    except (AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError) as error:
        raise BundleInvalid(f"{manifest.model.file_name}: expected an estimator saved by joblib") from error


def _as_data(estimator: Any, n_features: int, outputs: Outputs, trained_on: InputType) -> ModelPart:
    scale, final = _unwrapped(estimator)
    name, source = type(final).__name__, type(final).__module__.partition(".")[0]
    if (source, name) == ("sklearn", "CalibratedClassifierCV") and scale is None:
        return _from_calibrated(final, n_features, trained_on)
    if (source, name) == ("sklearn", "MultiOutputClassifier") and scale is None:
        part, tolerance = _linear_of_each(final, outputs), TOLERANCE["LogisticRegression"]
        _check_scores(part, estimator, n_features, trained_on, tolerance=tolerance)
        return part
    if source == "sklearn" and name in LOGISTIC + LINEAR:
        part = _linear(final, scale, outputs, is_logistic=name in LOGISTIC)
    elif scale is not None:
        raise EstimatorRefused(f"{name}: expected no scaler before anything but a linear model; trees need none")
    else:
        make = next((make for (home, names), make in TREE_MAKERS.items() if source == home and name in names), None)
        if make is None:
            raise EstimatorRefused(f"{name}: expected an estimator that can be shipped as data ({_shippable()})")
        part = make(final, outputs, trained_on)
    _check_scores(part, estimator, n_features, trained_on, tolerance=TOLERANCE[name])
    return part


def _shippable() -> str:
    return ", ".join(name for _, names in TREE_MAKERS for name in names) + ", " + ", ".join(LOGISTIC + LINEAR)


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


def _linear(estimator: Any, scale: NDArray[np.float64] | None, outputs: Outputs, *, is_logistic: bool) -> ModelPart:
    if is_logistic:
        expect_labels_in_order(estimator, outputs)
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    intercepts = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64).ravel(), coefficients.shape[:1])
    link: Link = "identity"
    if is_logistic:
        link = "logit" if coefficients.shape[0] == 1 else "softmax"
    numbers = LinearNumbers(
        coefficients=tuple(map(tuple, coefficients.tolist())),
        intercepts=tuple(intercepts.tolist()),
        link=link,
        scale=None if scale is None else tuple(scale.tolist()),
    )
    return new_part("linear", numbers.to_json(), outputs)


def _linear_of_each(estimator: Any, outputs: Outputs) -> ModelPart:
    """Several labels, each with a logistic regression of its own over the same scaled rows."""
    parts = []
    for each in estimator.estimators_:
        scale, final = _unwrapped(each)
        if type(final).__name__ not in LOGISTIC:
            raise EstimatorRefused(
                f"MultiOutputClassifier: expected logistic regressions, or a random forest or XGBoost of all labels at "
                f"once; several {type(final).__name__} cannot be shipped as data"
            )
        parts.append(msgspec.json.decode(_linear(final, scale, BINARY, is_logistic=True).content, type=LinearNumbers))
    if len({part.scale for part in parts}) != 1:
        raise EstimatorRefused("MultiOutputClassifier: expected one scale for all of its models")
    numbers = LinearNumbers(
        coefficients=tuple(part.coefficients[0] for part in parts),
        intercepts=tuple(part.intercepts[0] for part in parts),
        link="logit",
        scale=parts[0].scale,
    )
    return new_part("linear", numbers.to_json(), outputs)


def _from_calibrated(estimator: Any, n_features: int, trained_on: InputType) -> ModelPart:
    """A `CalibratedClassifierCV` calibrates ``decision_function`` where there is one, else ``predict_proba``."""
    name = "CalibratedClassifierCV"
    expect_labels_in_order(estimator, BINARY)
    folds = estimator.calibrated_classifiers_
    if len(folds) != 1:
        raise EstimatorRefused(f"{name}: expected one calibrated model, got {len(folds)}: pass ensemble=False")
    (calibrator,) = folds[0].calibrators
    inner = folds[0].estimator
    # A model that is frozen to be calibrated without being fitted again.
    inner = getattr(inner, "estimator", inner) if type(inner).__name__ == "FrozenEstimator" else inner
    part = _as_data(inner, n_features, BINARY, trained_on)
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


def _as_joblib(estimator: Any, n_features: int, outputs: Outputs) -> ModelPart:
    import joblib

    file = io.BytesIO()
    joblib.dump(estimator, file)
    part = new_part("joblib", file.getvalue(), outputs)
    try:
        part.scorer(n_features=n_features)
    except ModelUnusable as error:
        raise EstimatorRefused(f"{type(estimator).__name__}: {error}") from error
    return part


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
        expected = estimator_answers(estimator, rows, part.outputs.target)
    scores = np.array([scorer.raw(row_vector(row.astype(np.float64))) for row in rows])
    if scores.shape != expected.shape:
        raise EstimatorRefused(
            f"{name}: expected {scores.shape[1]} outputs, as declared, but it gives {expected.shape[1]}"
        )
    # Relative where a regression gives numbers beyond 1: its last bits are those of the largest terms that it adds.
    apart = float(np.max(np.abs(scores - expected)) / max(1.0, np.max(np.abs(expected))))
    if not apart <= tolerance:
        raise EstimatorRefused(
            f"{name}: expected the shipped model to score as the estimator does within {tolerance:g}, but they are "
            f"{apart:.2g} apart: some option of it cannot be represented"
        )
