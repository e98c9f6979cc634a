"""Models as data, scored one row at a time, to the same bits on every machine.

A tree ensemble is a treelite checkpoint, a linear model a list of numbers, a calibration a table: loading any of them
cannot run code, unlike a pickle or a joblib file. Where a model allows nothing else, an `EstimatorModel` wraps what
somebody else has loaded.

Sums are taken in a fixed order or rounded once, and the logistic function is our own: the C library's ``exp`` gives
another last bit on another processor, and a BLAS adds in whatever order is fast.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import pairwise
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.vectorize import FeatureVector

InputType = Literal["float32", "float64"]
Link = Literal["logit", "identity"]

_LARGEST = {"float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float64).max)}
_DTYPE = {"float32": np.float32, "float64": np.float64}
_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999, traps=[])
_ONE = Decimal(1)


class ModelUnusable(ValueError):
    """The model's bytes are not what the manifest promises; the message says in what way."""


class ScoreInvalid(ValueError):
    """The model gave something that is not a probability."""


class Scorer(Protocol):
    """A model that is ready: a row in, a probability out."""

    def score(self, vector: FeatureVector) -> float:
        """Give the probability of the positive class, in [0, 1].

        Raises:
            ScoreInvalid: the model's answer is not one finite number in [0, 1].
            ValueError: the vector has another number of features than the model, or one that it cannot take.
        """

    def raw(self, vector: FeatureVector) -> float:
        """Give the model's own number, which need not be a probability: what a calibration starts from.

        Raises:
            ScoreInvalid: the model's answer is not one finite number.
            ValueError: as for ``score``.
        """


class _Scored:
    """What all models share: a score is the raw number, if that is a probability."""

    def raw(self, vector: FeatureVector) -> float:
        raise NotImplementedError

    def score(self, vector: FeatureVector) -> float:
        """Score one row; see `Scorer`."""
        score = self.raw(vector)
        if not 0.0 <= score <= 1.0:
            raise ScoreInvalid("expected one probability from 0 to 1")
        return score + 0.0  # turns -0.0 into 0.0


class TreeEnsemble(_Scored):
    """A treelite checkpoint of a binary classifier, or of a regression on labels 0 and 1.

    With ``input_type`` float32 features are rounded before any comparison, because scikit-learn's forests and XGBoost
    are trained on float32: only then do both take the same turn at every threshold. LightGBM and scikit-learn's
    histogram boosting cut between float64 values and must not be rounded. ``zero_is_missing`` takes 0.0, which is what
    an absent feature is, the way of a missing value, as XGBoost does when trained with ``missing=0.0``.
    """

    def __init__(
        self, checkpoint: bytes, *, n_features: int, input_type: InputType = "float32", zero_is_missing: bool = False
    ) -> None:
        import treelite

        try:
            self._model = treelite.Model.deserialize_bytes(checkpoint)
        except treelite.TreeliteError as error:
            raise ModelUnusable("expected a treelite checkpoint; treelite cannot read it") from error
        if self._model.num_feature != n_features:
            raise ModelUnusable(
                f"expected a model of {n_features} features, as declared; it was trained on {self._model.num_feature}"
            )
        header = self._model.get_header_accessor()
        ending = str(header.get_field("postprocessor"))
        if ending not in {"identity", "identity_multiclass", "sigmoid"}:
            raise ModelUnusable(f"expected trees that give a probability or a log-odds; these end in {ending!r}")
        # LightGBM's `sigmoid` parameter; 1 everywhere else.
        self._steepness = float(header.get_field("sigmoid_alpha")[0]) if ending == "sigmoid" else None
        self._predict = treelite.gtil.predict
        self._n_features = n_features
        self._input_type: InputType = input_type
        self._zero_is_missing = zero_is_missing

    def raw(self, vector: FeatureVector) -> float:
        """Walk all trees; see `Scorer`."""
        row = _row(vector, n_features=self._n_features, input_type=self._input_type)
        if self._zero_is_missing:
            row[row == 0.0] = np.nan
        answer = np.asarray(self._predict(self._model, row, nthread=1, pred_margin=True), dtype=np.float64).ravel()
        last = _finite(float(answer[-1]) if answer.size in (1, 2) else math.nan)
        return last if self._steepness is None else logistic(self._steepness * last)


class LinearNumbers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear model as a file: ``link(intercept + Σ coefficients[i] · (x[i] / scale[i]))``; no scale means 1."""

    coefficients: tuple[float, ...]
    intercept: float
    link: Link
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.coefficients, self.intercept))):
            raise ValueError("expected finite coefficients and intercept")
        if self.scale is not None and len(self.scale) != len(self.coefficients):
            raise ValueError("expected as many scales as coefficients")
        if self.scale is not None and not all(0.0 < each < math.inf for each in self.scale):
            raise ValueError("expected scales above 0")

    def to_json(self) -> bytes:
        """Give the canonical bytes; every number reads back to the same bits."""
        return msgspec.json.encode(self, order="sorted")


class LinearModel(_Scored):
    """Logistic or linear regression as numbers.

    This is the definition of the score, not a copy of scikit-learn's: each product is rounded once, then their exact
    sum, then the logistic function of it. scikit-learn's own dot product depends on the BLAS, the processor and the
    number of rows, so that its last bits cannot be reproduced; ours can.
    """

    def __init__(self, content: bytes, *, n_features: int) -> None:
        try:
            numbers = msgspec.json.decode(content, type=LinearNumbers)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelUnusable(f"expected a linear model as numbers: {error}") from None
        if len(numbers.coefficients) != n_features:
            raise ModelUnusable(
                f"expected a model of {n_features} features, as declared; it has {len(numbers.coefficients)}"
            )
        self._coefficients = np.array(numbers.coefficients)
        self._scale = np.ones(n_features) if numbers.scale is None else np.array(numbers.scale)
        self._intercept = numbers.intercept
        self._link = numbers.link
        self._n_features = n_features

    def raw(self, vector: FeatureVector) -> float:
        """Add up the features that are not 0; see `Scorer`."""
        _check_width(vector, self._n_features)
        places = vector.indices
        with np.errstate(over="ignore", invalid="ignore"):
            products = (vector.values / self._scale[places]) * self._coefficients[places]
        try:
            margin = math.fsum([*products.tolist(), self._intercept])
        except (OverflowError, ValueError):
            margin = math.nan
        return logistic(_finite(margin)) if self._link == "logit" else _finite(margin)


class IsotonicTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="isotonic"):
    """A non-decreasing line through the points; raw numbers beyond the first and last threshold get those values."""

    thresholds: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.thresholds or len(self.thresholds) != len(self.values):
            raise ValueError("expected as many isotonic values as thresholds, and at least one")
        if not all(map(math.isfinite, self.thresholds)) or any(a >= b for a, b in pairwise(self.thresholds)):
            raise ValueError("expected isotonic thresholds ascending, each once")
        if not all(0.0 <= each <= 1.0 for each in self.values) or any(a > b for a, b in pairwise(self.values)):
            raise ValueError("expected isotonic values from 0 to 1 that never descend")

    def calibrated(self, raw: float) -> float:
        """Give the value of the line at a raw number."""
        x, y = self.thresholds, self.values
        place = bisect_right(x, raw) - 1
        if place < 0 or place == len(x) - 1:
            return y[max(place, 0)]
        # The order of operations is that of numpy.interp, which scikit-learn calls.
        slope = (y[place + 1] - y[place]) / (x[place + 1] - x[place])
        return min(slope * (raw - x[place]) + y[place], y[place + 1])


class SigmoidTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sigmoid"):
    """Platt's scaling: ``1 / (1 + exp(a · raw + b))``; ``a`` is negative where more means likelier.

    Source: J. Platt (1999), Probabilistic outputs for support vector machines.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.a) and math.isfinite(self.b)):
            raise ValueError("expected finite a and b of a sigmoid calibration")

    def calibrated(self, raw: float) -> float:
        """Give the probability for a raw number."""
        return logistic(_finite(-(self.a * raw + self.b)))


CalibrationTable = IsotonicTable | SigmoidTable


def calibration_json(table: CalibrationTable) -> bytes:
    """Give a calibration's canonical bytes; every number reads back to the same bits."""
    return msgspec.json.encode(table, order="sorted")


class Calibrated(_Scored):
    """Another model whose raw number goes through a calibration table."""

    def __init__(self, model: Scorer, content: bytes) -> None:
        try:
            self._table = msgspec.json.decode(content, type=CalibrationTable)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelUnusable(f"expected a calibration table: {error}") from None
        self._model = model

    def raw(self, vector: FeatureVector) -> float:
        """Give the calibrated number; see `Scorer`."""
        calibrated: float = self._table.calibrated(self._model.raw(vector))
        return calibrated


class EstimatorModel(_Scored):
    """An estimator with scikit-learn's interface that somebody else has loaded, forced to one job.

    A classifier's column is found by its label: it is the probability of 1, wherever ``classes_`` has it. What has no
    ``predict_proba`` must ``predict`` a probability.
    """

    def __init__(self, estimator: Any, *, n_features: int) -> None:
        if not callable(getattr(estimator, "predict", None)):
            raise ModelUnusable("expected an estimator with predict_proba or predict")
        width = getattr(estimator, "n_features_in_", n_features)
        if width != n_features:
            raise ModelUnusable(f"expected a model of {n_features} features, as declared; it was trained on {width}")
        self._predict = getattr(estimator, "predict_proba", None) or estimator.predict
        self._column = None
        if callable(getattr(estimator, "predict_proba", None)):
            self._column = positive_column(estimator)
        _one_job(estimator)
        self._n_features = n_features

    def raw(self, vector: FeatureVector) -> float:
        """Ask the estimator about this one row; see `Scorer`."""
        row = _row(vector, n_features=self._n_features, input_type="float64")
        try:
            answer = np.asarray(self._predict(row), dtype=np.float64)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ScoreInvalid("expected one probability, but the estimator failed") from error
        if self._column is None:
            return _finite(float(answer.ravel()[0]) if answer.size == 1 else math.nan)
        return _finite(float(answer[0, self._column]) if answer.shape == (1, 2) else math.nan)


def positive_column(estimator: Any) -> int:
    """Give the column of ``predict_proba`` that belongs to label 1.

    Raises:
        ModelUnusable: its labels are not 0 and 1, in whichever order.
    """
    classes = list(getattr(estimator, "classes_", ()))
    for order in ((0, 1), (1, 0)):
        if len(classes) == 2 and all(bool(held == label) for held, label in zip(classes, order, strict=True)):
            return order.index(1)
    raise ModelUnusable("expected a classifier that was trained on labels 0 and 1")


def logistic(margin: float) -> float:
    """Give ``1 / (1 + exp(-margin))``, correctly rounded, so that the bits are the same on every machine.

    Computed in 40 decimal digits of integer arithmetic: 13 microseconds, where ``math.exp`` would take 0.1 and its last
    bit would depend on the C library and on the processor's instructions.
    """
    # Beyond 750 the answer is nearer to 0 or 1 than to any other float64.
    exponent = Decimal(max(-750.0, min(750.0, -margin)))
    return float(_EXACT.divide(_ONE, _EXACT.add(_ONE, _EXACT.exp(exponent))))


def _row(vector: FeatureVector, *, n_features: int, input_type: InputType) -> NDArray[Any]:
    _check_width(vector, n_features)
    dense = vector.dense()
    if not (np.abs(dense) <= _LARGEST[input_type]).all():
        raise ValueError(f"expected features that fit into {input_type}")
    return dense.astype(_DTYPE[input_type]).reshape(1, -1)


def _check_width(vector: FeatureVector, n_features: int) -> None:
    if vector.size != n_features:
        raise ValueError(f"expected a vector of {n_features} features, got {vector.size}")


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ScoreInvalid("expected one finite number from the model")
    return number


def _one_job(estimator: Any) -> None:
    """With more jobs one row is slower, and trees are summed in the order in which threads end."""
    if not (callable(getattr(estimator, "get_params", None)) and callable(getattr(estimator, "set_params", None))):
        return
    jobs = [name for name in estimator.get_params(deep=True) if name.rpartition("__")[2] == "n_jobs"]
    if jobs:
        estimator.set_params(**dict.fromkeys(jobs, 1))
