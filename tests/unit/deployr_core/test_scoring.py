from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import treelite
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)

from deployr_core import scoring
from deployr_core.estimator_model import EstimatorModel
from deployr_core.exact import logistic, softmax
from deployr_core.linear import LinearModel, LinearNumbers
from deployr_core.outputs import Outputs, Target
from deployr_core.scoring import (
    Calibrated,
    IsotonicTable,
    ModelUnusable,
    ScoreInvalid,
    SigmoidTable,
    TreeEnsemble,
    calibration_json,
)

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

N_FEATURES = 6


def training_rows() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(4711)
    rows = rng.normal(size=(400, N_FEATURES)) * 30
    rows[:, 4] = rng.poisson(0.5, 400)  # counts, mostly 0, beside real-valued features
    return rows, rows[:, 0] + 10 * rows[:, 4] + rng.normal(size=400) * 20 > 0


@pytest.fixture(scope="module", params=[RandomForestClassifier, ExtraTreesClassifier])
def forest(request: pytest.FixtureRequest) -> RandomForestClassifier:
    return request.param(25, min_samples_leaf=3, random_state=1).fit(*training_rows())


def checkpoint_of(model: object) -> bytes:
    return treelite.sklearn.import_model(model).serialize_bytes()


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    return checkpoint_of(RandomForestClassifier(5, max_depth=3, random_state=1).fit(*training_rows()))


def bits(scores: object) -> bytes:
    return np.asarray(scores, dtype=np.float64).tobytes()


def test_scores_equal_predict_proba_to_the_bit(forest: RandomForestClassifier, make: Make) -> None:
    rng = np.random.default_rng(20150106)
    rows = rng.normal(size=(500, N_FEATURES)) * 30
    rows[:, 4] = rng.poisson(0.5, 500)
    rows[::7, 1] = 0.0
    ensemble = TreeEnsemble(checkpoint_of(forest), n_features=N_FEATURES)
    expected = forest.predict_proba(rows)[:, 1]
    assert len(set(expected)) > 100
    assert bits([ensemble.score(make.vector(row)) for row in rows]) == bits(expected)


def test_a_value_beside_a_threshold_takes_the_turn_that_sklearn_takes(make: Make) -> None:
    """The threshold lies half way between two neighbours of float32, so rounding the feature decides the turn."""
    low = np.float32(100)
    high = np.nextafter(low, np.float32(np.inf))
    forest = RandomForestClassifier(1, bootstrap=False, random_state=1)
    forest.fit(np.array([[low], [low], [high], [high]]), [False, False, True, True])
    threshold = (float(low) + float(high)) / 2
    assert forest.estimators_[0].tree_.threshold[0] == threshold
    ensemble = TreeEnsemble(checkpoint_of(forest), n_features=1)
    beside = [float(low), np.nextafter(threshold, 0), threshold, np.nextafter(threshold, 999), float(high)]
    rows = np.array(beside).reshape(-1, 1)
    # Half way is rounded to the even neighbour, which is the lower one.
    assert forest.predict_proba(rows)[:, 1].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert [ensemble.score(make.vector(row)) for row in rows] == [0.0, 0.0, 0.0, 1.0, 1.0]
    # Above an odd one the even neighbour is the upper one: float32 turns right where float64 would turn left.
    odd, above = high, np.nextafter(high, np.float32(np.inf))
    forest.fit(np.array([[odd], [odd], [above], [above]]), [False, False, True, True])
    half_way = np.array([[(float(odd) + float(above)) / 2]])
    assert forest.predict_proba(half_way)[:, 1].tolist() == [1.0]
    assert TreeEnsemble(checkpoint_of(forest), n_features=1).score(make.vector(half_way[0])) == 1.0


def test_trees_are_walked_as_treelites_own_functions_walk_them(checkpoint: bytes, make: Make) -> None:
    """The walk goes past them, to a function that treelite does not promise to keep."""
    model = treelite.Model.deserialize_bytes(checkpoint)
    rows = training_rows()[0][:50].astype(np.float32)
    for row in rows:
        raw = treelite.gtil.predict(model, row.reshape(1, -1), nthread=1, pred_margin=True)
        assert bits(scoring._walked(model, row.reshape(1, -1), "raw")) == bits(raw)
        leaves = treelite.gtil.predict_leaf(model, row.reshape(1, -1), nthread=1)
        assert scoring._walked(model, row.reshape(1, -1), "leaf_id").tolist() == leaves.tolist()


def test_a_row_gets_the_same_bits_every_time(checkpoint: bytes, make: Make) -> None:
    vector = make.vector([1.5, -2.0, 0.0, 0.0, 3.0, 0.1])
    scores = {TreeEnsemble(checkpoint, n_features=N_FEATURES).score(vector).hex() for _ in range(5)}
    assert len(scores) == 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(checkpoint: bytes, share: float) -> None:
    with pytest.raises(ModelUnusable, match="expected a treelite checkpoint"):
        TreeEnsemble(checkpoint[: int(len(checkpoint) * share)], n_features=N_FEATURES)


def test_a_checkpoint_without_its_last_byte_is_refused(checkpoint: bytes) -> None:
    with pytest.raises(ModelUnusable, match="expected a treelite checkpoint"):
        TreeEnsemble(checkpoint[:-1], n_features=N_FEATURES)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00" * 5000, id="zeros"),
        pytest.param(b"\xff" * 5000, id="ones"),
        pytest.param(b"<!DOCTYPE html><title>Sign in</title>" * 100, id="a sign-in page"),
        pytest.param(b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.", id="a pickle"),
        pytest.param(bytes(range(256)) * 20, id="all bytes"),
    ],
)
def test_bytes_that_are_no_checkpoint_are_refused(garbage: bytes) -> None:
    with pytest.raises(ModelUnusable, match="expected a treelite checkpoint"):
        TreeEnsemble(garbage, n_features=N_FEATURES)


def test_a_checkpoint_of_an_earlier_treelite_is_read(checkpoint: bytes, make: Make) -> None:
    version = np.frombuffer(checkpoint[:12], dtype=np.int32)
    assert ".".join(map(str, version)) == treelite.__version__
    earlier = np.array([version[0], version[1] - 1, 0], dtype=np.int32).tobytes() + checkpoint[12:]
    vector = make.vector([1.5, -2.0, 0.0, 0.0, 3.0, 0.1])
    score = TreeEnsemble(checkpoint, n_features=N_FEATURES).score(vector)
    assert TreeEnsemble(earlier, n_features=N_FEATURES).score(vector) == score


@pytest.mark.parametrize("n_features", [N_FEATURES - 1, N_FEATURES + 1, 0])
def test_a_model_of_another_width_than_declared_is_refused(checkpoint: bytes, n_features: int) -> None:
    with pytest.raises(ModelUnusable, match=f"of {n_features} features, as declared; it was trained on {N_FEATURES}"):
        TreeEnsemble(checkpoint, n_features=n_features)


@pytest.mark.parametrize("width", [N_FEATURES - 1, N_FEATURES + 1, 0])
def test_a_vector_of_another_width_than_the_model_is_refused(checkpoint: bytes, make: Make, width: int) -> None:
    with pytest.raises(ValueError, match=f"expected a vector of {N_FEATURES} features, got {width}"):
        TreeEnsemble(checkpoint, n_features=N_FEATURES).score(make.vector(np.zeros(width)))


@pytest.mark.parametrize("answer", [2.0, -0.5])
def test_an_answer_outside_0_to_1_is_no_score(make: Make, answer: float) -> None:
    rows, _ = training_rows()
    model = RandomForestRegressor(1, random_state=1).fit(rows, np.full(len(rows), answer))
    with pytest.raises(ScoreInvalid):
        TreeEnsemble(checkpoint_of(model), n_features=N_FEATURES).score(make.vector(rows[0]))


def test_three_classes_are_no_model_of_one_probability() -> None:
    rows, _ = training_rows()
    model = RandomForestClassifier(1, random_state=1).fit(rows, np.arange(len(rows)) % 3)
    with pytest.raises(ModelUnusable, match="trees that give 1 outputs"):
        TreeEnsemble(checkpoint_of(model), n_features=N_FEATURES)


@pytest.mark.parametrize(("positive", "score"), [(1.0, 1.0), (0.0, 0.0)])
def test_certainty_is_a_score(make: Make, positive: float, score: float) -> None:
    rows, _ = training_rows()
    model = RandomForestRegressor(3, random_state=1).fit(rows, np.full(len(rows), positive))
    assert TreeEnsemble(checkpoint_of(model), n_features=N_FEATURES).score(make.vector(rows[0])) == score


def test_a_value_too_large_for_float32_is_refused(checkpoint: bytes, make: Make) -> None:
    ensemble, largest = TreeEnsemble(checkpoint, n_features=N_FEATURES), float(np.finfo(np.float32).max)
    for too_large in (1e39, -1e39, np.inf, np.nan):
        with pytest.raises(ValueError, match="float32"):
            ensemble.score(make.vector([too_large, 0, 0, 0, 0, 0]))
    assert ensemble.score(make.vector([largest, 0, 0, 0, 0, -largest])) >= 0


# -- the logistic function


@pytest.mark.parametrize(
    ("margin", "probability"),
    [
        (0.0, 0.5),
        (-0.0, 0.5),
        (1.0, 0.73105857863000487925),  # 1 / (1 + 1/e), to 20 digits
        (-1.0, 0.26894142136999512075),
        (710.0, 1.0),
        (1e308, 1.0),
        (-1e308, 0.0),
        (-800.0, 0.0),
        (37.0, 1.0 - 2**-53),  # e^-37 is 0.77 of 2^-53: nearer to the float64 below 1 than to 1
    ],
)
def test_the_logistic_function_is_correctly_rounded(margin: float, probability: float) -> None:
    assert logistic(margin) == probability


def test_the_logistic_function_is_within_an_ulp_of_the_c_librarys() -> None:
    for margin in np.random.default_rng(4).normal(scale=8, size=2000).tolist():
        assert logistic(margin) == pytest.approx(1.0 / (1.0 + math.exp(-margin)), rel=2**-50, abs=0)


# -- linear models


def linear(*coefficients: float, intercept: float = 0.0, link: Any = "logit", scale: Any = None) -> LinearModel:
    numbers = LinearNumbers(coefficients=(coefficients,), intercepts=(intercept,), link=link, scale=scale)
    return LinearModel(numbers.to_json(), n_features=len(coefficients))


def test_terms_that_cancel_are_added_exactly(make: Make) -> None:
    """In a float64 sum from left to right 1e16 + 1 - 1e16 would be 0."""
    assert linear(1e16, 1.0, -1e16).score(make.vector([1, 1, 1])) == logistic(1.0)
    assert linear(-1e16, 1.0, 1e16).score(make.vector([1, 1, 1])) == logistic(1.0)


def test_a_scale_divides_the_feature(make: Make) -> None:
    assert linear(3.0, 5.0, scale=(2.0, 4.0)).score(make.vector([1.0, 1.0])) == logistic(3 / 2 + 5 / 4)


def test_an_absent_feature_adds_nothing(make: Make) -> None:
    assert linear(3.0, 5.0, intercept=-0.5).score(make.vector([0.0, 0.0])) == logistic(-0.5)


@pytest.mark.parametrize(("feature", "probability"), [(0.0, 0.25), (1.0, 0.75), (1.5, 1.0)])
def test_the_identity_link_gives_the_sum(make: Make, feature: float, probability: float) -> None:
    assert linear(0.5, intercept=0.25, link="identity").score(make.vector([feature])) == probability


@pytest.mark.parametrize("feature", [-1.0, 2.0])
def test_a_sum_outside_0_to_1_is_no_score_but_a_raw_number(make: Make, feature: float) -> None:
    model = linear(0.5, intercept=0.25, link="identity")
    with pytest.raises(ScoreInvalid):
        model.score(make.vector([feature]))
    assert model.raw(make.vector([feature])) == (0.5 * feature + 0.25,)


@pytest.mark.parametrize("row", [[1e308, 1e308], [np.inf, 0.0], [np.inf, -np.inf], [np.nan, 1.0]])
def test_a_sum_that_is_no_number_is_no_score(make: Make, row: list[float]) -> None:
    with pytest.raises(ScoreInvalid):
        linear(1e10, 1e10).score(make.vector(row))


def test_a_linear_model_refuses_a_row_of_another_width(make: Make) -> None:
    with pytest.raises(ValueError, match="of 2 features, got 3"):
        linear(1.0, 1.0).score(make.vector([1, 1, 1]))


# -- calibrations

ISOTONIC = IsotonicTable(thresholds=(0.25, 0.5, 1.0), values=(0.0, 0.5, 0.625))


@pytest.mark.parametrize(
    ("raw", "value"),
    [(-9.0, 0.0), (0.25, 0.0), (0.375, 0.25), (0.5, 0.5), (0.75, 0.5625), (1.0, 0.625), (9.0, 0.625)],
)
def test_an_isotonic_table_is_a_line_through_its_points(raw: float, value: float) -> None:
    assert ISOTONIC.calibrated(raw) == value


def test_an_isotonic_table_of_one_point_is_constant() -> None:
    table = IsotonicTable(thresholds=(0.5,), values=(0.125,))
    assert [table.calibrated(raw) for raw in (0.0, 0.5, 1.0)] == [0.125] * 3


def test_an_isotonic_table_gives_the_bits_of_scikit_learns() -> None:
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(12)
    scores = rng.random(800)
    fitted = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1).fit(scores, rng.random(800) < scores**2)
    table = IsotonicTable(thresholds=tuple(fitted.X_thresholds_.tolist()), values=tuple(fitted.y_thresholds_.tolist()))
    rows = np.concatenate([rng.random(300) * 1.2 - 0.1, fitted.X_thresholds_])
    assert bits([table.calibrated(each) for each in rows.tolist()]) == bits(fitted.predict(rows))


def test_a_calibration_starts_from_the_raw_number(make: Make) -> None:
    """The sum is 3, which is no probability; Platt's scaling of it is."""
    model = linear(3.0, link="identity")
    assert Calibrated(model, calibration_json(SigmoidTable(a=-1.0, b=1.0))).score(make.vector([1.0])) == logistic(2.0)


@pytest.mark.parametrize(
    "table",
    [
        {"type": "isotonic", "thresholds": [], "values": []},
        {"type": "isotonic", "thresholds": [0.1, 0.2], "values": [0.1]},
        {"type": "isotonic", "thresholds": [0.2, 0.1], "values": [0.1, 0.2]},
        {"type": "isotonic", "thresholds": [0.1, 0.1], "values": [0.1, 0.2]},
        {"type": "isotonic", "thresholds": [0.1, 0.2], "values": [0.2, 0.1]},
        {"type": "isotonic", "thresholds": [0.1, 0.2], "values": [0.1, 1.1]},
        {"type": "sigmoid", "a": 1.0},
        {"type": "temperature", "t": 1.0},
        {},
    ],
)
def test_a_table_that_is_no_calibration_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ModelUnusable, match="calibration table"):
        Calibrated(linear(1.0), msgspec.json.encode(table))


# -- estimators that somebody else has loaded


class Asked:
    """An estimator that gives what it is told to."""

    classes_: Any = (0, 1)

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def predict(self, rows: Any) -> Any:
        raise NotImplementedError

    def predict_proba(self, rows: Any) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class FlippedClasses(Asked):
    classes_ = np.array([1, 0])


def test_the_positive_column_is_found_by_its_label(make: Make) -> None:
    assert EstimatorModel(Asked([[0.25, 0.75]]), n_features=1).score(make.vector([1])) == 0.75
    assert EstimatorModel(FlippedClasses([[0.25, 0.75]]), n_features=1).score(make.vector([1])) == 0.25


@pytest.mark.parametrize(
    "answer",
    [
        [[0.2, 0.3, 0.5]],
        [[0.5]],
        [0.5, 0.5],
        [[0.5, 0.5], [0.5, 0.5]],
        [[0.5, np.nan]],
        [[-0.1, 1.1]],
        [["a", "b"]],
        None,
        RuntimeError("out of memory"),
        ValueError("needs 7 features"),
        KeyError("column"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
def test_an_estimator_that_gives_no_probability_gives_no_score(make: Make, answer: Any) -> None:
    with pytest.raises(ScoreInvalid):
        EstimatorModel(Asked(answer), n_features=1).score(make.vector([1]))


@pytest.mark.parametrize("classes", [(), (0,), (0, 1, 2), ("no", "yes"), (-1, 1)])
def test_labels_other_than_0_and_1_are_refused(classes: Any) -> None:
    estimator = Asked([[0.5, 0.5]])
    estimator.classes_ = classes
    with pytest.raises(ModelUnusable, match="labels 0 and 1"):
        EstimatorModel(estimator, n_features=1)


def test_what_is_no_estimator_is_refused() -> None:
    with pytest.raises(ModelUnusable, match="predict_proba or predict"):
        EstimatorModel({"model": "none"}, n_features=1)


def test_an_estimator_scores_in_one_job() -> None:
    from sklearn.pipeline import make_pipeline

    rows, labels = training_rows()
    pipeline = make_pipeline(RandomForestClassifier(3, n_jobs=2, random_state=1)).fit(rows, labels)
    EstimatorModel(pipeline, n_features=N_FEATURES)
    assert pipeline[-1].n_jobs == 1


# -- trees of other libraries


def test_trees_that_end_in_something_else_are_refused(checkpoint: bytes) -> None:
    model = treelite.Model.deserialize_bytes(checkpoint)
    model.get_header_accessor().set_field("postprocessor", "exponential")
    with pytest.raises(ModelUnusable, match=r"numbers, probabilities or log-odds; .* 'exponential'"):
        TreeEnsemble(model.serialize_bytes(), n_features=N_FEATURES)


def test_float64_trees_are_not_rounded(make: Make) -> None:
    """Two values that float32 takes for one, and histogram boosting cuts between them."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    low, high = 100.0, 100.000001
    assert np.float32(low) == np.float32(high)
    model = HistGradientBoostingClassifier(min_samples_leaf=1, max_iter=1, learning_rate=1.0)
    model.fit(np.array([[low]] * 20 + [[high]] * 20), [False] * 20 + [True] * 20)
    expected = model.predict_proba([[low], [high]])[:, 1]
    assert expected[0] < 0.2 < 0.8 < expected[1]
    exact = TreeEnsemble(checkpoint_of(model), n_features=1, input_type="float64")
    rounded = TreeEnsemble(checkpoint_of(model), n_features=1)
    assert [exact.score(make.vector([x])) for x in (low, high)] == pytest.approx(expected.tolist(), rel=1e-15)
    assert rounded.score(make.vector([low])) == rounded.score(make.vector([high]))


def test_float64_trees_take_what_float32_cannot_hold_but_nothing_infinite(make: Make) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=1).fit(*training_rows())
    exact = TreeEnsemble(checkpoint_of(model), n_features=N_FEATURES, input_type="float64")
    assert 0 <= exact.score(make.vector([1e39, 0, 0, 0, 0, 0])) <= 1
    for no_number in (np.inf, np.nan):
        with pytest.raises(ValueError, match="float64"):
            exact.score(make.vector([no_number, 0, 0, 0, 0, 0]))


# -- several outputs

CLASSES = Outputs(target=Target.MULTICLASS, names=("low", "normal", "high"), headline="high")
TWO_LABELS = Outputs(target=Target.MULTILABEL, names=("a", "b"), headline="b")
NUMBER = Outputs(target=Target.REGRESSION, names=("value",), headline="value", unit="g/dL")


def several(rows: Any, *, link: Any, outputs: Outputs, intercepts: Any = None) -> LinearModel:
    numbers = LinearNumbers(coefficients=rows, intercepts=intercepts or (0.0,) * len(rows), link=link)
    return LinearModel(numbers.to_json(), n_features=len(rows[0]), outputs=outputs)


def test_softmax_of_equal_margins_is_an_equal_share_however_large_they_are() -> None:
    assert softmax([0.0] * 4) == softmax([1e300] * 4) == (1 / 4,) * 4


@pytest.mark.parametrize("margin", [-800.0, -3.5, 0.0, 1e-9, 2.25, 40.0, 800.0])
def test_softmax_of_two_is_the_logistic_function_of_their_difference(margin: float) -> None:
    assert softmax([0.0, margin])[1] == logistic(margin)


def test_each_class_has_its_row_of_coefficients_and_the_headline_is_the_score(make: Make) -> None:
    model = several(((1.0, 0.0), (0.0, 2.0), (0.5, 0.5)), link="softmax", outputs=CLASSES)
    vector = make.vector([2.0, 3.0])
    assert model.answer(vector) == softmax([2.0, 6.0, 2.5])
    assert model.score(vector) == softmax([2.0, 6.0, 2.5])[2]


def test_each_label_has_a_probability_of_its_own(make: Make) -> None:
    model = several(((1.0,), (-2.0,)), link="logit", outputs=TWO_LABELS, intercepts=(0.5, 0.0))
    assert model.answer(make.vector([1.0])) == (logistic(1.5), logistic(-2.0))
    assert model.score(make.vector([1.0])) == logistic(-2.0)


@pytest.mark.parametrize("number", [-12.5, 0.0, 1e6])
def test_a_number_need_not_be_a_probability(make: Make, number: float) -> None:
    assert several(((1.0,),), link="identity", outputs=NUMBER).score(make.vector([number])) == number


def test_probabilities_of_classes_that_do_not_sum_to_1_are_no_score(make: Make) -> None:
    model = several(((0.0,),) * 3, link="identity", outputs=CLASSES, intercepts=(0.25, 0.25, 0.25))
    with pytest.raises(ScoreInvalid, match="sum to 1"):
        model.score(make.vector([1.0]))


@pytest.mark.parametrize("outputs", [CLASSES, NUMBER])
def test_a_linear_model_of_another_number_of_outputs_is_refused(outputs: Outputs) -> None:
    with pytest.raises(ModelUnusable, match="outputs, as declared"):
        several(((1.0,), (-2.0,)), link="logit", outputs=outputs)
