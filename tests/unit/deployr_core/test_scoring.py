from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import treelite
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)

from deployr_core.scoring import ModelUnusable, ScoreInvalid, TreeEnsemble

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


def test_three_classes_are_no_score(make: Make) -> None:
    rows, _ = training_rows()
    model = RandomForestClassifier(1, random_state=1).fit(rows, np.arange(len(rows)) % 3)
    with pytest.raises(ScoreInvalid):
        TreeEnsemble(checkpoint_of(model), n_features=N_FEATURES).score(make.vector(rows[0]))


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
