from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest
import treelite
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from deployr_core.contributions import Explanation, ExplanationInvalid
from deployr_core.estimator_model import EstimatorModel
from deployr_core.exact import logistic
from deployr_core.linear import LinearModel, LinearNumbers
from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.scoring import (
    Calibrated,
    IsotonicTable,
    SigmoidTable,
    TreeEnsemble,
    calibration_json,
)
from deployr_core.vectorize import FeatureVector

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

N_FEATURES = 6
NUMBER = Outputs(target=Target.REGRESSION, names=("value",), headline="value", unit="g/dL")
CLASSES = Outputs(target=Target.MULTICLASS, names=("low", "normal", "high"), headline="high")
LABELS = Outputs(target=Target.MULTILABEL, names=("anemia", "sepsis"), headline="sepsis")
FLOAT64_STEP = 2.0**-52
"""The distance from 1.0 to the next float64."""

Floats = NDArray[np.float64]


def rows_of(rng: np.random.Generator, n: int) -> Floats:
    rows = rng.normal(size=(n, N_FEATURES)) * 30
    rows[:, 4] = rng.poisson(0.5, n)
    rows[rng.random((n, N_FEATURES)) < 0.2] = 0.0
    return rows


def labels_of(rows: Floats, outputs: Outputs, rng: np.random.Generator) -> Any:
    number = rows[:, 0] + 10 * rows[:, 4] + rng.normal(size=len(rows)) * 20
    match outputs.target:
        case Target.BINARY:
            return (number > 0).astype(int)
        case Target.MULTICLASS:
            return np.digitize(number, [-15.0, 15.0])
        case Target.MULTILABEL:
            return np.column_stack([number > 0, rows[:, 1] + number > 10]).astype(int)
        case Target.REGRESSION:
            return number


def from_sklearn(model: Any) -> bytes:
    return bytes(treelite.sklearn.import_model(model).serialize_bytes())


def from_lightgbm(model: Any) -> bytes:
    return bytes(treelite.frontend.from_lightgbm(model.booster_).serialize_bytes())


def from_xgboost(model: Any) -> bytes:
    return bytes(treelite.frontend.from_xgboost(model.get_booster()).serialize_bytes())


BAGGED = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
QUIET = {"verbose": -1, "n_jobs": 1, "min_child_samples": 5}
XGB = {"missing": 0.0, "n_jobs": 1}


def gentle(estimator: Callable[..., Any], **more: Any) -> Callable[..., Any]:
    return lambda n, depth, seed: estimator(**more, n_estimators=n, max_depth=depth, random_state=seed)


def by_rounds(estimator: Callable[..., Any]) -> Callable[..., Any]:
    return lambda n, depth, seed: estimator(max_iter=n, max_depth=depth, random_state=seed, min_samples_leaf=5)


MAKERS: dict[str, tuple[Callable[..., Any], Callable[[Any], bytes], Outputs, dict[str, Any]]] = {
    "random forest": (gentle(RandomForestClassifier), from_sklearn, BINARY, {}),
    "extra trees": (gentle(ExtraTreesClassifier), from_sklearn, BINARY, {}),
    "forest, class weights": (gentle(RandomForestClassifier, class_weight="balanced"), from_sklearn, BINARY, {}),
    "forest, three classes": (gentle(RandomForestClassifier), from_sklearn, CLASSES, {}),
    "forest, two labels": (gentle(ExtraTreesClassifier), from_sklearn, LABELS, {}),
    "forest, a number": (gentle(RandomForestRegressor), from_sklearn, NUMBER, {}),
    "extra trees, a number": (gentle(ExtraTreesRegressor), from_sklearn, NUMBER, {}),
    "gradient boosting": (gentle(GradientBoostingClassifier), from_sklearn, BINARY, {}),
    "gradient boosting, three classes": (gentle(GradientBoostingClassifier), from_sklearn, CLASSES, {}),
    "histogram boosting": (by_rounds(HistGradientBoostingClassifier), from_sklearn, BINARY, {"input_type": "float64"}),
    "histogram boosting, a number": (
        by_rounds(HistGradientBoostingRegressor),
        from_sklearn,
        NUMBER,
        {"input_type": "float64"},
    ),
    "LightGBM": (gentle(lightgbm.LGBMClassifier, **QUIET), from_lightgbm, BINARY, {"input_type": "float64"}),
    "LightGBM, three classes": (
        gentle(lightgbm.LGBMClassifier, **QUIET),
        from_lightgbm,
        CLASSES,
        {"input_type": "float64"},
    ),
    "LightGBM, bagged": (
        gentle(lightgbm.LGBMClassifier, **QUIET, **BAGGED),
        from_lightgbm,
        BINARY,
        {"input_type": "float64"},
    ),
    "LightGBM, a number": (gentle(lightgbm.LGBMRegressor, **QUIET), from_lightgbm, NUMBER, {"input_type": "float64"}),
    "XGBoost": (gentle(xgboost.XGBClassifier, **XGB), from_xgboost, BINARY, {"zero_is_missing": True}),
    "XGBoost, three classes": (gentle(xgboost.XGBClassifier, **XGB), from_xgboost, CLASSES, {"zero_is_missing": True}),
    "XGBoost, two labels": (gentle(xgboost.XGBClassifier, **XGB), from_xgboost, LABELS, {"zero_is_missing": True}),
    "XGBoost, two labels in a leaf": (
        gentle(xgboost.XGBClassifier, **XGB, multi_strategy="multi_output_tree", tree_method="hist"),
        from_xgboost,
        LABELS,
        {"zero_is_missing": True},
    ),
    "XGBoost, a number": (gentle(xgboost.XGBRegressor, **XGB), from_xgboost, NUMBER, {"zero_is_missing": True}),
    "XGBoost, bagged": (gentle(xgboost.XGBRFClassifier, **XGB), from_xgboost, BINARY, {"zero_is_missing": True}),
}


def ensemble_of(kind: str, *, n: int = 12, depth: int = 5, seed: int = 1) -> tuple[TreeEnsemble, bytes, Any]:
    make, convert, outputs, how = MAKERS[kind]
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, 200)
    model = make(n, depth, seed).fit(rows, labels_of(rows, outputs, rng))
    checkpoint = convert(model)
    return TreeEnsemble(checkpoint, n_features=N_FEATURES, outputs=outputs, **how), checkpoint, model


def plainly(kind: str, checkpoint: bytes, row: Floats) -> tuple[float, list[float]]:
    """Give base and path contributions, one node after another, from treelite's dump: the definition, written out."""
    _, _, outputs, how = MAKERS[kind]
    model = treelite.Model.deserialize_bytes(checkpoint)
    dump = json.loads(model.dump_as_json())
    precise = np.float64 if how.get("input_type") == "float64" else np.float32
    target = outputs.place if outputs.target is not Target.MULTICLASS else 0
    column = outputs.place if outputs.target is Target.MULTICLASS else max(dump["num_class"]) - 1
    added = [0.0] * N_FEATURES
    roots = []

    def value(nodes: dict[int, Any], node: Any, ids: tuple[int, int]) -> tuple[float, float]:
        """Give what a node expects, and its weight."""
        if "leaf_value" in node:
            held = node["leaf_value"]
            if isinstance(held, list):
                width = dump["leaf_vector_shape"][1]
                held = held[(target if ids[0] == -1 else 0) * width + (column if ids[1] == -1 else 0)]
            return float(held), float(node.get("sum_hess", node.get("data_count", 1)))
        (left, one), (right, other) = (value(nodes, nodes[node[side]], ids) for side in ("left_child", "right_child"))
        return (left * one + right * other) / (one + other), one + other

    for tree, *ids in zip(dump["trees"], dump["target_id"], dump["class_id"], strict=True):
        if ids[0] not in (-1, target) or ids[1] not in (-1, column):
            continue
        nodes = {node["node_id"]: node for node in tree["nodes"]}
        node = nodes[0]
        roots.append(value(nodes, node, (ids[0], ids[1]))[0])
        steps = []
        while "leaf_value" not in node:
            before, asked = value(nodes, node, (ids[0], ids[1]))[0], precise(row[node["split_feature_id"]])
            if how.get("zero_is_missing") and asked == 0.0:
                turns_left = node["default_left"]
            else:
                cut = precise(node["threshold"]) if how.get("zero_is_missing") else node["threshold"]
                turns_left = {"<": asked < cut, "<=": asked <= cut}[node["comparison_op"]]
            feature = node["split_feature_id"]
            node = nodes[node["left_child" if turns_left else "right_child"]]
            steps.append((feature, value(nodes, node, (ids[0], ids[1]))[0] - before))
        for feature, moved in steps:
            added[feature] += moved
    share = 1.0 / len(roots) if dump["average_tree_output"] else 1.0
    start = dump["base_scores"][target * max(dump["num_class"]) + column]
    return start + math.fsum(roots) * share, [each * share for each in added]


def parts_of(explanation: Explanation) -> list[float]:
    parts: list[float] = explanation.by_feature.tolist()
    return parts


def vector_of(row: Floats) -> FeatureVector:
    indices = np.flatnonzero(row).astype(np.int32)
    return FeatureVector(spec_digest="", size=len(row), indices=indices, values=row[indices], coverage={})


@pytest.fixture(scope="module")
def held_out() -> Floats:
    return rows_of(np.random.default_rng(2015), 40)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_trees_is_taken_apart_as_the_definition_says(kind: str, held_out: Floats) -> None:
    ensemble, checkpoint, _ = ensemble_of(kind)
    seen = set()
    for row in held_out:
        told = ensemble.explain(vector_of(row))
        base, added = plainly(kind, checkpoint, row)
        scale = 1.0 + math.fsum(map(abs, added))
        assert told.base == pytest.approx(base, abs=1e-13 * scale)
        assert parts_of(told) == pytest.approx(added, abs=1e-13 * scale)
        seen.add(tuple(added))
    assert len(seen) > 5


@pytest.mark.parametrize("kind", MAKERS)
def test_base_and_parts_add_up_to_the_number_to_the_last_bit(kind: str, held_out: Floats) -> None:
    ensemble, _, _ = ensemble_of(kind)
    for row in held_out:
        told = ensemble.explain(vector_of(row))
        parts, rest = told.closed(parts_of(told))
        assert math.fsum([told.base, *parts, rest]) == told.explained
        assert max(abs(a - b) for a, b in zip(parts, parts_of(told), strict=True)) <= told.rounding


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if "forest" in kind or "extra" in kind])
def test_of_a_forest_the_score_itself_is_explained(kind: str, held_out: Floats) -> None:
    ensemble, _, _ = ensemble_of(kind)
    for row in held_out:
        assert ensemble.explain(vector_of(row)).explained == ensemble.score(vector_of(row))


def test_what_is_explained_is_the_row_asked_about_whichever_was_scored_last(held_out: Floats) -> None:
    """The last row's numbers are kept: they must serve that row alone."""
    ensemble, checkpoint, _ = ensemble_of("gradient boosting")
    one, other = map(vector_of, held_out[:2])
    alone = [TreeEnsemble(checkpoint, n_features=N_FEATURES).explain(each).explained for each in (one, other)]
    assert alone[0] != alone[1]
    for scored in (one, other):
        ensemble.score(scored)
        assert [ensemble.explain(each).explained for each in (one, other)] == alone


@pytest.mark.parametrize("kind", ["gradient boosting", "histogram boosting", "LightGBM", "XGBoost"])
def test_of_boosted_trees_the_log_odds_are_explained(kind: str, held_out: Floats) -> None:
    ensemble, _, _ = ensemble_of(kind)
    for row in held_out:
        assert logistic(ensemble.explain(vector_of(row)).explained) == ensemble.score(vector_of(row))


@pytest.mark.parametrize("kind", ["random forest", "extra trees", "forest, class weights"])
def test_the_leaves_walked_back_from_give_the_score_to_the_bit(kind: str, held_out: Floats) -> None:
    """Summed tree by tree and then divided, as scikit-learn does: the very turns of scoring were taken."""
    ensemble, checkpoint, forest = ensemble_of(kind)
    model = treelite.Model.deserialize_bytes(checkpoint)
    for row in held_out:
        leaves = np.asarray(treelite.gtil.predict_leaf(model, row.astype(np.float32).reshape(1, -1), nthread=1))[0]
        assert leaves.astype(int).tolist() == forest.apply(row.reshape(1, -1))[0].tolist()
        total = 0.0
        for tree, leaf in zip(forest.estimators_, leaves.astype(int), strict=True):
            total += tree.tree_.value[leaf, 0, 1]
        assert total / len(leaves) == ensemble.score(vector_of(row))


def test_scikit_learns_own_node_values_give_the_same_parts(held_out: Floats) -> None:
    """The forest keeps each node's share of positives: weighting the leaves must lead to the same."""
    ensemble, _, forest = ensemble_of("forest, class weights")
    for row in held_out:
        added = np.zeros(N_FEATURES)
        for tree in forest.estimators_:
            path = tree.decision_path(row.reshape(1, -1).astype(np.float32)).indices
            for node, child in itertools.pairwise(path):
                moved = tree.tree_.value[child, 0, 1] - tree.tree_.value[node, 0, 1]
                added[tree.tree_.feature[node]] += moved / len(forest.estimators_)
        assert parts_of(ensemble.explain(vector_of(row))) == pytest.approx(added.tolist(), abs=1e-14)


@pytest.mark.parametrize("kind", ["XGBoost", "XGBoost, a number", "XGBoost, bagged"])
def test_xgboosts_own_path_contributions_are_the_same_within_its_float32(kind: str, held_out: Floats) -> None:
    ensemble, _, model = ensemble_of(kind)
    rows = xgboost.DMatrix(held_out, missing=0.0)
    expected = model.get_booster().predict(rows, pred_contribs=True, approx_contribs=True)
    for row, parts in zip(held_out, expected, strict=True):
        told = ensemble.explain(vector_of(row))
        assert [*parts_of(told), told.base] == pytest.approx(parts.tolist(), abs=2e-5)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    n=st.integers(1, 30),
    depth=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_whatever_the_trees_the_parts_add_up(kind: str, n: int, depth: int, seed: int) -> None:
    ensemble, checkpoint, _ = ensemble_of(kind, n=n, depth=depth, seed=seed)
    for row in rows_of(np.random.default_rng(seed + 1), 5):
        told = ensemble.explain(vector_of(row))
        parts, rest = told.closed(parts_of(told))
        assert math.fsum([told.base, *parts, rest]) == told.explained
        base, added = plainly(kind, checkpoint, row)
        scale = 1.0 + math.fsum(map(abs, added))
        assert [told.base, *parts_of(told)] == pytest.approx([base, *added], abs=1e-12 * scale)


def test_a_stump_is_explained_by_hand(make: Make) -> None:
    """Of 8 rows 4 are positive; of the 4 without a count 1 is, of the 4 with one 3 are."""
    rows = np.array([[0.0]] * 4 + [[1.0]] * 4)
    forest = RandomForestClassifier(1, bootstrap=False).fit(rows, [0, 0, 0, 1, 0, 1, 1, 1])
    ensemble = TreeEnsemble(from_sklearn(forest), n_features=1)
    for feature, part, score in ((0.0, 1 / 4 - 4 / 8, 1 / 4), (1.0, 3 / 4 - 4 / 8, 3 / 4)):
        told = ensemble.explain(make.vector([feature]))
        assert (told.base, parts_of(told), told.explained) == (4 / 8, [part], score)


def test_trees_of_a_single_leaf_have_a_base_and_no_parts(make: Make) -> None:
    model = RandomForestRegressor(3, random_state=1).fit(np.zeros((5, 2)), np.full(5, 0.25))
    told = TreeEnsemble(from_sklearn(model), n_features=2).explain(make.vector([1.0, 2.0]))
    assert (told.base, parts_of(told), told.explained) == (0.25, [0.0, 0.0], 0.25)


def test_the_same_row_gives_the_same_bits_from_another_copy_of_the_model(held_out: Floats) -> None:
    _, checkpoint, _ = ensemble_of("random forest", n=40, depth=12)
    found = set()
    for _ in range(3):
        told = TreeEnsemble(checkpoint, n_features=N_FEATURES).explain(vector_of(held_out[0]))
        found.add((told.base, told.explained, told.by_feature.tobytes()))
    assert len(found) == 1


def test_a_calibrated_model_explains_the_number_before_the_calibration(held_out: Floats) -> None:
    inner, _, _ = ensemble_of("random forest")
    table = IsotonicTable(thresholds=(0.0, 1.0), values=(0.1, 0.3))
    told = Calibrated(inner, calibration_json(table)).explain(vector_of(held_out[0]))
    assert told is not None
    assert told.explained == inner.score(vector_of(held_out[0]))


def test_a_linear_model_is_its_intercept_and_its_products(make: Make) -> None:
    numbers = LinearNumbers(coefficients=((3.0, 5.0, 7.0),), intercepts=(-0.5,), link="logit", scale=(2.0, 4.0, 1.0))
    told = LinearModel(numbers.to_json(), n_features=3).explain(make.vector([1.0, 2.0, 0.0]))
    assert (told.base, parts_of(told), told.explained) == (-0.5, [3 / 2, 5 * 2 / 4, 0.0], 3 / 2 + 5 / 2 - 0.5)


def test_a_linear_model_of_several_outputs_explains_its_headline(make: Make) -> None:
    numbers = LinearNumbers(coefficients=((1.0,), (2.0,), (4.0,)), intercepts=(0.0, 0.0, 0.5), link="softmax")
    told = LinearModel(numbers.to_json(), n_features=1, outputs=CLASSES).explain(make.vector([3.0]))
    assert (told.base, parts_of(told), told.explained) == (0.5, [12.0], 12.5)


def test_terms_of_a_linear_model_that_cancel_still_add_up(make: Make) -> None:
    numbers = LinearNumbers(coefficients=((1e16, 1.0, -1e16),), intercepts=(0.0,), link="logit")
    told = LinearModel(numbers.to_json(), n_features=3).explain(make.vector([1.0, 1.0, 1.0]))
    assert told.explained == 1.0
    assert told.closed(parts_of(told)) == ([1e16, 1.0, -1e16], 0.0)


def test_an_estimator_that_somebody_else_loaded_is_not_taken_apart(make: Make) -> None:
    rows = np.array([[0.0], [1.0]])
    model = EstimatorModel(RandomForestClassifier(2, random_state=1).fit(rows, [0, 1]), n_features=1)
    assert model.explain(make.vector([1.0])) is None
    table = calibration_json(SigmoidTable(a=-1.0, b=0.0))
    assert Calibrated(model, table).explain(make.vector([1.0])) is None


# -- closing a sum


def explanation(base: float, explained: float, rounding: float) -> Explanation:
    return Explanation(base=base, by_feature=np.zeros(0), explained=explained, rounding=rounding)


def test_what_rounding_leaves_goes_to_the_largest_part_that_can_hold_it() -> None:
    """A quarter of a step at 1: too fine for the part of 1, and held by the part of 1 / 4, whose steps are finer."""
    over = FLOAT64_STEP / 4
    parts, rest = explanation(-1.0, 0.25 + over, 1e-9).closed([1.0, 0.25])
    assert (parts, rest) == ([1.0, 0.25 + over], 0.0)


def test_a_rest_that_no_part_can_hold_is_told_apart() -> None:
    """1 - 1 is 0, the number is 1e-30, and neither part is fine enough to make up for it."""
    assert explanation(1.0, 1e-30, 1e-9).closed([-1.0]) == ([-1.0], 1e-30)


@pytest.mark.parametrize("explained", [0.5 + 1e-6, 0.5 - 1e-6, math.nan, math.inf])
def test_parts_that_miss_the_number_by_more_than_rounding_are_refused(explained: float) -> None:
    with pytest.raises(ExplanationInvalid):
        explanation(0.25, explained, 1e-9).closed([0.25])


def test_the_bias_that_the_documentation_tells_of(make: Make) -> None:
    """A tree of `x and y` that asks about x first: 1/4, then 1/2, then 1; by Shapley both would get 3/8."""
    builder = treelite.model_builder
    tree = builder.ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=builder.Metadata(
            num_feature=2,
            task_type="kRegressor",
            average_tree_output=False,
            num_target=1,
            num_class=[1],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=builder.TreeAnnotation(num_tree=1, target_id=[0], class_id=[0]),
        postprocessor=builder.PostProcessorFunc(name="identity"),
        base_scores=[0.0],
    )
    tree.start_tree()
    for node, (feature, left, right) in enumerate([(0, 1, 2), (1, 3, 4)]):
        tree.start_node(node * 2)
        tree.numerical_test(feature, 0.5, default_left=True, opname="<", left_child_key=left, right_child_key=right)
        tree.data_count(4 // (node + 1))
        tree.end_node()
    for node, value, rows in ((1, 0.0, 2), (3, 0.0, 1), (4, 1.0, 1)):
        tree.start_node(node)
        tree.leaf(value)
        tree.data_count(rows)
        tree.end_node()
    tree.end_tree()
    checkpoint = bytes(tree.commit().serialize_bytes())
    told = TreeEnsemble(checkpoint, n_features=2, input_type="float64").explain(make.vector([1.0, 1.0]))
    assert (told.base, parts_of(told), told.explained) == (1 / 4, [1 / 4, 1 / 2], 1.0)
