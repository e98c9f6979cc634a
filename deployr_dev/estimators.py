"""What can be trained: ready-made estimators and the user's own, seeded, with class weights, search and calibration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deployr_core.outputs import Target
from deployr_dev.folds import (
    Calibration,
    EstimatorInvalid,
    Parameter,
    TrainingImpossible,
    calibration_of,
    full_name,
    out_of_fold,
    searched,
    use_one_thread,
)
from deployr_dev.probes import estimator_answers
from deployr_dev.search import Search

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SPARSE_UNTOLD = frozenset({"lightgbm", "xgboost"})
"""Libraries whose estimators take sparse rows whatever their tags say."""


class EstimatorName(StrEnum):
    """The estimators that come with the product; LightGBM and XGBoost need the extra ``boosting``."""

    RANDOM_FOREST = "random-forest"
    LOGISTIC_REGRESSION = "logistic-regression"
    HIST_GRADIENT_BOOSTING = "hist-gradient-boosting"
    LIGHTGBM = "lightgbm"
    XGBOOST = "xgboost"


DEFAULTS: Mapping[EstimatorName, Mapping[str, Parameter]] = MappingProxyType(
    {
        # Chosen by the mean held-out AUROC over 12 splits of 98 ICU patients and 5 of 397 synthetic ones, none of them
        # the split of seed 0. Most features are absent in most rows, so that the usual square root often offers a split
        # nothing but absence: 0.880 and 0.900 with leaves of 5, against 0.887 and 0.920 with a share of 0.3 and leaves
        # of 10, which also make the smaller file. Trees beyond 200 changed nothing above 0.001.
        EstimatorName.RANDOM_FOREST: {"n_estimators": 200, "min_samples_leaf": 10, "max_features": 0.3},
        EstimatorName.LOGISTIC_REGRESSION: {"C": 1.0, "max_iter": 1000},
        EstimatorName.HIST_GRADIENT_BOOSTING: {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 15},
        EstimatorName.LIGHTGBM: {"n_estimators": 100, "learning_rate": 0.1, "num_leaves": 15},
        EstimatorName.XGBOOST: {"n_estimators": 100, "learning_rate": 0.1, "max_depth": 4},
    }
)


@dataclass(frozen=True, kw_only=True)
class EstimatorChoice:
    """Which estimator, and how it is set.

    ``parameters``: as its library calls them; they replace the defaults. ``balanced``: both classes weigh the same.
    ``make``: gives the user's own estimator, unfitted, with scikit-learn's interface; ``label`` then names it.
    """

    name: EstimatorName = EstimatorName.RANDOM_FOREST
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    balanced: bool = False
    calibration: Calibration | None = None
    make: Callable[[], Any] | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A trained estimator, before its calibration.

    ``calibration``: what its scores go through afterwards: a fitted ``IsotonicRegression`` or a `SigmoidTable`.
    ``parameters``: what was set, and what a search chose, for the manifest.
    """

    estimator: Any
    calibration: Any | None
    target: Target
    name: str
    parameters: Mapping[str, Parameter]
    libraries: Mapping[str, str]
    needs_dense: bool

    def scores(self, features: csr_matrix) -> NDArray[np.float64]:
        """Score rows, shape (n_rows, n_features), without the calibration.

        Returns:
            The probability of the positive class, shape (n_rows,); of each class, (n_rows, n_classes); of each label,
            (n_rows, n_labels); or the predicted number, (n_rows,).
        """
        rows = features.toarray() if self.needs_dense else features
        answers = estimator_answers(self.estimator, rows, self.target)
        return answers[:, 0] if self.target in {Target.BINARY, Target.REGRESSION} else answers


def fit_estimator(
    choice: EstimatorChoice,
    features: csr_matrix,
    labels: NDArray[np.float64],
    patients: NDArray[np.int64],
    *,
    seed: int,
    search: Search | None = None,
    target: Target = Target.BINARY,
) -> Fitted:
    """Train an estimator; the same rows, choice and seed give the same model, bit for bit.

    Args:
        choice: which estimator.
        features: the training rows, float64, shape (n_rows, n_features); absent is 0. What grows its trees on float32
            rounds them itself, so that each library sees in training what it will see in service.
        labels: what `deployr_core.outputs.Target` says, shape (n_rows,) or (n_rows, n_labels).
        patients: whose each row is, shape (n_rows,): a patient's rows are in one fold of a search or a calibration.
        seed: of everything that is drawn.
        search: which settings are tried.
        target: what the labels are.

    Raises:
        TrainingImpossible: no feature, one class only, too few patients for the folds, or an estimator or a calibration
            that is not for this target.
        EstimatorInvalid: the estimator has no such setting.
    """
    from threadpoolctl import threadpool_limits

    _check_rows(features, labels, target)
    estimator = new_estimator(choice, target=target, seed=seed, labels=labels)
    needs_dense = not _takes_sparse(estimator)
    rows = features.toarray() if needs_dense else features
    wanted = labels if target is Target.REGRESSION else labels.astype(np.int64)
    name, parameters = _described(choice, estimator, seed)
    # On a busy machine OpenMP's threads wait for each other: histogram boosting then took 26 s in place of 5.
    with threadpool_limits(limits=1, user_api="openmp"):
        if search is not None:
            estimator, chosen = searched(estimator, search, rows, wanted, patients, seed=seed)
            parameters = {**parameters, **{f"search.{key}": value for key, value in chosen.items()}}
        else:
            estimator.fit(rows, wanted)
        calibration = None
        if choice.calibration is not None:
            if target is not Target.BINARY:
                raise TrainingImpossible(f"calibration: expected a binary label, got {target}; leave it out")
            scores = out_of_fold(estimator, rows, wanted, patients, seed=seed)
            calibration = calibration_of(choice.calibration, scores, wanted)
            parameters["calibration"] = choice.calibration.value
    use_one_thread(estimator)
    return Fitted(
        estimator=estimator,
        calibration=calibration,
        target=target,
        name=name,
        parameters=parameters,
        libraries=_libraries(estimator),
        needs_dense=needs_dense,
    )


def new_estimator(choice: EstimatorChoice, *, target: Target, seed: int, labels: NDArray[np.float64]) -> Any:
    """Make the estimator, unfitted.

    Raises:
        EstimatorInvalid: no such parameter, or it cannot be weighted.
    """
    if choice.make is not None:
        estimator = choice.make()
        settings: dict[str, Any] = {**choice.parameters}
        if "random_state" in estimator.get_params():
            settings.setdefault("random_state", seed)
    else:
        estimator = _MAKE[choice.name](target)
        settings = {**DEFAULTS[choice.name], "random_state": seed, **choice.parameters}
    if choice.balanced:
        settings |= _balance(estimator, labels)
    try:
        estimator.set_params(**{full_name(estimator, key): value for key, value in settings.items()})
    except ValueError as error:
        message = str(error).splitlines()[0]
        raise EstimatorInvalid(f"estimator {choice.label or choice.name.value}: {message}") from None
    at_once = {EstimatorName.RANDOM_FOREST, EstimatorName.XGBOOST}
    if target is Target.MULTILABEL and choice.make is None and choice.name not in at_once:
        from sklearn.multioutput import MultiOutputClassifier

        return MultiOutputClassifier(estimator)
    return estimator


def _check_rows(features: csr_matrix, labels: NDArray[np.float64], target: Target) -> None:
    if features.shape[1] == 0:
        raise TrainingImpossible("expected at least one feature, but the fitted declaration has none")
    if not (np.abs(features.data) <= np.finfo(np.float32).max).all():
        raise TrainingImpossible("expected features that fit into float32")
    columns = labels.reshape(labels.shape[0], -1)
    if not np.isfinite(labels).all():
        raise TrainingImpossible("expected labels that are numbers")
    if target is not Target.REGRESSION and any(np.unique(column).size < 2 for column in columns.T):
        raise TrainingImpossible("expected training rows of both classes, got only one")


def _balance(estimator: Any, labels: NDArray[np.float64]) -> dict[str, Any]:
    names = estimator.get_params()
    if full_name(estimator, "class_weight") in names:
        return {"class_weight": "balanced"}
    if "scale_pos_weight" in names and set(np.unique(labels)) <= {0.0, 1.0}:
        return {"scale_pos_weight": float((labels == 0.0).sum() / max(1, (labels == 1.0).sum()))}
    raise EstimatorInvalid(f"balanced: {type(estimator).__name__} does not weigh classes")


def _described(choice: EstimatorChoice, estimator: Any, seed: int) -> tuple[str, dict[str, Parameter]]:
    steps = getattr(estimator, "steps", None)
    name = choice.label or type(steps[-1][1] if steps else estimator).__name__
    defaults = DEFAULTS[choice.name] if choice.make is None else {}
    parameters: dict[str, Parameter] = {**defaults, **choice.parameters, "random_state": seed}
    if choice.balanced:
        parameters["balanced"] = True
    return name, parameters


def _takes_sparse(estimator: Any) -> bool:
    from sklearn.utils import get_tags

    first = getattr(estimator, "steps", [("", estimator)])[0][1]
    return bool(get_tags(first).input_tags.sparse) or type(first).__module__.partition(".")[0] in _SPARSE_UNTOLD


def _libraries(estimator: Any) -> dict[str, str]:
    """Give the version of the package that the estimator comes from, where it is not scikit-learn."""
    package = type(estimator).__module__.partition(".")[0]
    version = getattr(sys.modules.get(package), "__version__", None)
    return {} if package == "sklearn" or version is None else {package: str(version)}


def _random_forest(target: Target) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    # Trees draw from their own seeds, so growing them in parallel changes no bit; scoring is another matter.
    return (RandomForestRegressor if target is Target.REGRESSION else RandomForestClassifier)(n_jobs=-1)


def _logistic_regression(target: Target) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    if target is Target.REGRESSION:
        raise TrainingImpossible("logistic-regression predicts classes, not numbers; take another estimator")
    # liblinear is exact and seeded, but knows two classes only; dividing by the largest value keeps zeros zero.
    return make_pipeline(
        MaxAbsScaler(), LogisticRegression(solver="lbfgs" if target is Target.MULTICLASS else "liblinear")
    )


def _hist_gradient_boosting(target: Target) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    # Early stopping would draw its validation rows without regard to patients.
    kind = HistGradientBoostingRegressor if target is Target.REGRESSION else HistGradientBoostingClassifier
    return kind(early_stopping=False)


def _lightgbm(target: Target) -> Any:
    lightgbm = _boosting("lightgbm")
    kind = lightgbm.LGBMRegressor if target is Target.REGRESSION else lightgbm.LGBMClassifier
    return kind(n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)


def _xgboost(target: Target) -> Any:
    xgboost = _boosting("xgboost")
    kind = xgboost.XGBRegressor if target is Target.REGRESSION else xgboost.XGBClassifier
    # Without missing=0.0 a sparse row and the same dense row scored up to 0.97 apart: absent would mean missing.
    return kind(n_jobs=1, tree_method="hist", missing=0.0)


def _boosting(library: str) -> Any:
    try:
        if library == "lightgbm":
            import lightgbm

            return lightgbm
        import xgboost
    except ImportError:
        raise EstimatorInvalid(f"{library}: not installed; install deployr with the extra boosting") from None
    return xgboost


_MAKE: Mapping[EstimatorName, Callable[[Target], Any]] = MappingProxyType(
    {
        EstimatorName.RANDOM_FOREST: _random_forest,
        EstimatorName.LOGISTIC_REGRESSION: _logistic_regression,
        EstimatorName.HIST_GRADIENT_BOOSTING: _hist_gradient_boosting,
        EstimatorName.LIGHTGBM: _lightgbm,
        EstimatorName.XGBOOST: _xgboost,
    }
)
