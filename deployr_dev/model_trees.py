"""From a library's trees to a treelite checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deployr_core.outputs import Outputs, Target
from deployr_core.scoring import InputType
from deployr_dev.model_part import EstimatorRefused, ModelPart, expect_labels_in_order, new_part

FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")
BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
LIGHTGBM = ("LGBMClassifier", "LGBMRegressor")
XGBOOST = ("XGBClassifier", "XGBRFClassifier", "XGBRegressor", "XGBRFRegressor")


def _sklearn_trees(estimator: Any, outputs: Outputs, trained_on: InputType) -> ModelPart:
    import treelite

    expect_labels_in_order(estimator, outputs)
    # Histogram boosting bins float64; everything else in scikit-learn grows its trees on float32.
    name = type(estimator).__name__
    input_type: InputType = trained_on if name in HISTOGRAM else "float32"
    part = _trees(estimator, outputs, treelite.sklearn.import_model, input_type=input_type)
    return _with_own_leaves(part, estimator) if outputs.target is Target.MULTICLASS and name in FORESTS else part


def _with_own_leaves(part: ModelPart, forest: Any) -> ModelPart:
    """Give each leaf the very shares that scikit-learn holds.

    treelite divides them by their sum, which for three classes may be a bit below 1, and every answer with it.
    """
    import treelite

    model = treelite.Model.deserialize_bytes(part.content)
    for number, grown in enumerate(forest.estimators_):
        tree = model.get_tree_accessor(number)
        shares = tree.get_field("leaf_vector").copy()
        starts, ends = (tree.get_field(f"leaf_vector_{side}").tolist() for side in ("begin", "end"))
        for node, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if end > start:
                shares[start:end] = grown.tree_.value[node].ravel()
        tree.set_field("leaf_vector", shares)
    return replace(part, content=bytes(model.serialize_bytes()))


def _lightgbm(estimator: Any, outputs: Outputs, trained_on: InputType) -> ModelPart:
    import treelite

    expect_labels_in_order(estimator, outputs)
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
    return _trees(estimator.booster_, outputs, treelite.frontend.from_lightgbm, input_type=trained_on)


def _xgboost(estimator: Any, outputs: Outputs, _: InputType) -> ModelPart:
    import treelite

    name = type(estimator).__name__
    # Of several labels XGBoost tells nothing but their trees, which are counted when they are loaded.
    if outputs.target is not Target.MULTILABEL:
        expect_labels_in_order(estimator, outputs)
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
    return _trees(booster, outputs, treelite.frontend.from_xgboost, input_type="float32", zero_is_missing=True)


TREE_MAKERS: dict[tuple[str, tuple[str, ...]], Callable[[Any, Outputs, InputType], ModelPart]] = {
    ("sklearn", FORESTS + BOOSTED + HISTOGRAM): _sklearn_trees,
    ("lightgbm", LIGHTGBM): _lightgbm,
    ("xgboost", XGBOOST): _xgboost,
}
"""By the library and its estimators' names, what makes their file."""


def _trees(
    source: Any,
    outputs: Outputs,
    import_model: Callable[[Any], Any],
    *,
    input_type: InputType,
    zero_is_missing: bool = False,
) -> ModelPart:
    import treelite

    try:
        checkpoint = bytes(import_model(source).serialize_bytes())
    except (treelite.TreeliteError, NotImplementedError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rpartition(": ")[2]
        raise EstimatorRefused(f"expected trees that treelite can import, but it says: {reason}") from error
    return new_part("treelite", checkpoint, outputs, input_type=input_type, zero_is_missing=zero_is_missing)
