"""A model that somebody else has loaded, asked one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.scoring import ModelUnusable, ScoreInvalid, ScorerBase, dense_row, finite
from deployr_core.vectorize import FeatureVector


class EstimatorModel(ScorerBase):
    """An estimator with scikit-learn's interface that somebody else has loaded, forced to one job.

    A classifier's columns are found by their labels, wherever ``classes_`` has them; of several labels each is asked
    for the probability of 1. What has no ``predict_proba`` must ``predict`` what is predicted.
    """

    def __init__(self, estimator: Any, *, n_features: int, outputs: Outputs = BINARY) -> None:
        if not callable(getattr(estimator, "predict", None)):
            raise ModelUnusable("expected an estimator with predict_proba or predict")
        width = getattr(estimator, "n_features_in_", n_features)
        if width != n_features:
            raise ModelUnusable(f"expected a model of {n_features} features, as declared; it was trained on {width}")
        gives_probabilities = callable(getattr(estimator, "predict_proba", None))
        if gives_probabilities and outputs.target is Target.REGRESSION:
            raise ModelUnusable("expected an estimator that predicts a number, not classes")
        self._predict = estimator.predict_proba if gives_probabilities else estimator.predict
        self._columns = output_columns(estimator, outputs) if gives_probabilities else None
        _one_job(estimator)
        self._n_features = n_features
        self.outputs = outputs

    def raw(self, vector: FeatureVector) -> tuple[float, ...]:
        """Ask the estimator about this one row; see `Scorer`."""
        row = dense_row(vector, n_features=self._n_features, input_type="float64")
        try:
            numbers = self._asked(row)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ScoreInvalid("expected numbers, but the estimator failed") from error
        if len(numbers) != len(self.outputs.names):
            raise ScoreInvalid(f"expected {len(self.outputs.names)} numbers from the estimator")
        return tuple(finite(number) for number in numbers)

    def _asked(self, row: NDArray[Any]) -> list[float]:
        found = self._predict(row)
        if self._columns is None:
            numbers: list[float] = np.asarray(found, dtype=np.float64).ravel().tolist()
            return numbers
        if self.outputs.target is Target.MULTILABEL:
            return [float(each[0, column]) for each, column in zip(found, self._columns, strict=True)]
        (probabilities,) = np.asarray(found, dtype=np.float64)
        if probabilities.size != max(2, len(self.outputs.names)):
            return []
        return [float(probabilities[column]) for column in self._columns]


def output_columns(estimator: Any, outputs: Outputs) -> tuple[int, ...]:
    """Give the column of ``predict_proba`` that belongs to each output; of several labels, each label's own column.

    Raises:
        ModelUnusable: its labels are not 0 and 1, or not the classes' numbers, in whichever order.
    """
    held = getattr(estimator, "classes_", ())
    match outputs.target:
        case Target.MULTICLASS:
            places = range(len(outputs.names))
            found = np.asarray(held)
            if found.dtype.kind not in "biuf" or not np.array_equal(np.sort(found), places):
                raise ModelUnusable(f"expected a classifier that was trained on labels 0 to {places[-1]}")
            return tuple(found.tolist().index(place) for place in places)
        case Target.MULTILABEL:
            if not isinstance(held, list) or len(held) != len(outputs.names):
                raise ModelUnusable(f"expected a classifier that was trained on {len(outputs.names)} labels")
            return tuple(_positive(list(each)) for each in held)
        case _:
            return (_positive(list(held)),)


def _positive(classes: list[Any]) -> int:
    for order in ((0, 1), (1, 0)):
        if len(classes) == 2 and all(bool(label == wanted) for label, wanted in zip(classes, order, strict=True)):
            return order.index(1)
    raise ModelUnusable("expected a classifier that was trained on labels 0 and 1")


def _one_job(estimator: Any) -> None:
    """With more jobs one row is slower, and trees are summed in the order in which threads end."""
    if not (callable(getattr(estimator, "get_params", None)) and callable(getattr(estimator, "set_params", None))):
        return
    jobs = [name for name in estimator.get_params(deep=True) if name.rpartition("__")[2] == "n_jobs"]
    if jobs:
        estimator.set_params(**dict.fromkeys(jobs, 1))
