"""Models as data, scored one row at a time, to the same bits on every machine.

A tree ensemble is a treelite checkpoint, a linear model a list of numbers, a calibration a table: loading any of them
cannot run code, unlike a pickle or a joblib file. Where a model allows nothing else, `deployr_core.estimator_model`
wraps what somebody else has loaded.

Sums are taken in a fixed order or rounded once, and the logistic function is our own: the C library's ``exp`` gives
another last bit on another processor, and a BLAS adds in whatever order is fast.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.contributions import Explanation, TreePaths
from deployr_core.exact import logistic, softmax
from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.vectorize import FeatureVector

InputType = Literal["float32", "float64"]

_LARGEST = {"float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float64).max)}
_ENDINGS = frozenset({"identity", "identity_multiclass", "sigmoid", "softmax"})
_SUM_TOLERANCE = 1e-6
_DTYPE = {"float32": np.float32, "float64": np.float64}


class ModelUnusable(ValueError):
    """The model's bytes are not what the manifest promises; the message says in what way."""


class ScoreInvalid(ValueError):
    """The model gave something that is not what it predicts: a probability, probabilities that sum to 1, a number."""


class ModelAway(RuntimeError):
    """The model answers elsewhere, and cannot be asked now; the same row may well be answered later."""


class Reply(NamedTuple):
    """The answer, and what the model that gave it calls itself; None where it is the bundle's own."""

    outputs: tuple[float, ...]
    answered_by: str | None = None


class Scorer(Protocol):
    """A model that is ready: a row in, its outputs out."""

    def score(self, vector: FeatureVector) -> float:
        """Give the headline: the probability of the outcome, or of the named class or label, or the number.

        Raises:
            ScoreInvalid, ValueError: see ``answer``.
        """

    def answer(self, vector: FeatureVector) -> tuple[float, ...]:
        """Give every output, in the order of `deployr_core.outputs.Outputs.names`.

        Raises:
            ScoreInvalid: the model's answer is not as many finite numbers; or a probability is outside [0, 1]; or
                those of classes do not sum to 1 within a millionth.
            ValueError: the vector has another number of features than the model, or one that it cannot take.
            ModelAway: it answers elsewhere, and does not.
        """

    def reply(self, vector: FeatureVector) -> Reply:
        """Give the answer with what it came by.

        Raises:
            ScoreInvalid, ValueError, ModelAway: as for ``answer``.
        """

    def raw(self, vector: FeatureVector) -> tuple[float, ...]:
        """Give the model's own numbers, which need not be probabilities: what a calibration starts from.

        Raises:
            ScoreInvalid: the model's answer is not as many finite numbers.
            ValueError: as for ``answer``.
        """

    def explain(self, vector: FeatureVector) -> Explanation | None:
        """Take the headline's number apart by feature; None where the model is nothing that can be taken apart.

        Of a calibrated model it is the number that the calibration starts from.

        Raises:
            ScoreInvalid, ValueError: as for ``raw``.
        """


class ScorerBase:
    """What all models share: an answer is the raw numbers, if they are what is predicted."""

    outputs: Outputs = BINARY

    def raw(self, vector: FeatureVector) -> tuple[float, ...]:
        raise NotImplementedError

    def explain(self, _: FeatureVector) -> Explanation | None:
        """Give nothing: most models are no sum of parts; see `Scorer`."""
        return None

    def score(self, vector: FeatureVector) -> float:
        """Score one row; see `Scorer`."""
        return self.answer(vector)[self.outputs.place]

    def reply(self, vector: FeatureVector) -> Reply:
        """Give the answer; see `Scorer`."""
        return Reply(self.answer(vector))

    def answer(self, vector: FeatureVector) -> tuple[float, ...]:
        """Give every output for one row; see `Scorer`."""
        return checked_outputs(self.raw(vector), self.outputs)


def checked_outputs(numbers: tuple[float, ...], outputs: Outputs) -> tuple[float, ...]:
    """Give the numbers back, if they are what is predicted; see `Scorer.answer`.

    Raises:
        ScoreInvalid: they are not.
    """
    if len(numbers) != len(outputs.names):
        raise ScoreInvalid(f"expected {len(outputs.names)} numbers from the model, got {len(numbers)}")
    match outputs.target:
        case Target.REGRESSION:
            for number in numbers:
                finite(number)
        case target:
            if not all(0.0 <= number <= 1.0 for number in numbers):
                raise ScoreInvalid("expected probabilities from 0 to 1")
            if target is Target.MULTICLASS and abs(math.fsum(numbers) - 1.0) > _SUM_TOLERANCE:
                raise ScoreInvalid("expected the probabilities of the classes to sum to 1")
    return tuple(number + 0.0 for number in numbers)  # turns -0.0 into 0.0


class TreeEnsemble(ScorerBase):
    """A treelite checkpoint of a classifier, or of a regression.

    With ``input_type`` float32 features are rounded before any comparison, because scikit-learn's forests and XGBoost
    are trained on float32: only then do both take the same turn at every threshold. LightGBM and scikit-learn's
    histogram boosting cut between float64 values and must not be rounded. ``zero_is_missing`` takes 0.0, which is what
    an absent feature is, the way of a missing value, as XGBoost does when trained with ``missing=0.0``.
    """

    def __init__(
        self,
        checkpoint: bytes,
        *,
        n_features: int,
        input_type: InputType = "float32",
        zero_is_missing: bool = False,
        outputs: Outputs = BINARY,
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
        self._ending = str(header.get_field("postprocessor"))
        if self._ending not in _ENDINGS:
            raise ModelUnusable(
                f"expected trees that give numbers, probabilities or log-odds; these end in {self._ending!r}"
            )
        targets = int(header.get_field("num_target")[0])
        classes = {int(each) for each in header.get_field("num_class")}
        self._takes_last = outputs.target is not Target.MULTICLASS
        held = classes.pop() if outputs.target is Target.MULTICLASS and targets == 1 else targets
        if held != len(outputs.names) or (self._takes_last and not classes <= {1, 2}):
            raise ModelUnusable(f"expected trees that give {len(outputs.names)} outputs, as declared")
        # LightGBM's `sigmoid` parameter; 1 everywhere else.
        self._steepness = float(header.get_field("sigmoid_alpha")[0])
        self._n_features = n_features
        self._input_type: InputType = input_type
        self._zero_is_missing = zero_is_missing
        self.outputs = outputs
        target, column = (outputs.place, max(classes)) if self._takes_last else (0, outputs.place + 1)
        self._paths = TreePaths(self._model, target=target, column=column - 1)
        self._walked: tuple[bytes | None, list[float]] = None, []

    def raw(self, vector: FeatureVector) -> tuple[float, ...]:
        """Walk all trees; see `Scorer`."""
        numbers = self._numbers(self._row(vector))
        match self._ending:
            case "sigmoid":
                return tuple(logistic(self._steepness * number) for number in numbers)
            case "softmax":
                return softmax(numbers)
            case _:
                return tuple(numbers)

    def explain(self, vector: FeatureVector) -> Explanation:
        """Walk back from the leaves that scoring itself ends in; see `Scorer`."""
        row = self._row(vector)
        leaves = _walked(self._model, row, "leaf_id")[0]
        return self._paths.explanation(leaves, self._numbers(row)[self.outputs.place])

    def _row(self, vector: FeatureVector) -> NDArray[Any]:
        row = dense_row(vector, n_features=self._n_features, input_type=self._input_type)
        if self._zero_is_missing:
            row[row == 0.0] = np.nan
        return row

    def _numbers(self, row: NDArray[Any]) -> list[float]:
        """Walk all trees, unless the row is the very one of last time: what has just been scored is explained next."""
        content = row.tobytes()
        last, numbers = self._walked
        if content != last:
            numbers = self._found(row)
            self._walked = content, numbers
        return numbers

    def _found(self, row: NDArray[Any]) -> list[float]:
        found = _walked(self._model, row, "raw").astype(np.float64)
        # Shape (1, n_targets, n_classes), of which both classes of a forest's label are given, or the one margin.
        numbers: list[float] = (found[0, :, -1] if self._takes_last else found[0, 0]).tolist()
        return [finite(number) for number in numbers]


def _walked(model: Any, row: NDArray[Any], what: Literal["leaf_id", "raw"]) -> NDArray[Any]:
    """Walk all trees on this thread, as ``treelite.gtil.predict`` and ``predict_leaf`` do.

    These two read their configuration from JSON each time, which takes as long as a quarter of the walk.
    """
    from treelite.gtil.gtil import _predict_impl

    return np.asarray(_predict_impl(model, row, config=_walking(what)))


@cache
def _walking(what: Literal["leaf_id", "raw"]) -> Any:
    from treelite.gtil.gtil import GTILConfig

    return GTILConfig(nthread=1, predict_type=what)


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
        return logistic(finite(-(self.a * raw + self.b)))


CalibrationTable = IsotonicTable | SigmoidTable


def calibration_json(table: CalibrationTable) -> bytes:
    """Give a calibration's canonical bytes; every number reads back to the same bits."""
    return msgspec.json.encode(table, order="sorted")


class Calibrated(ScorerBase):
    """Another model of one probability whose raw number goes through a calibration table."""

    def __init__(self, model: Scorer, content: bytes) -> None:
        try:
            self._table = msgspec.json.decode(content, type=CalibrationTable)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelUnusable(f"expected a calibration table: {error}") from None
        self._model = model

    def raw(self, vector: FeatureVector) -> tuple[float, ...]:
        """Give the calibrated number; see `Scorer`."""
        (number,) = self._model.raw(vector)
        return (self._table.calibrated(number),)

    def explain(self, vector: FeatureVector) -> Explanation | None:
        """Take the number before the calibration apart; see `Scorer`."""
        return self._model.explain(vector)


def dense_row(vector: FeatureVector, *, n_features: int, input_type: InputType) -> NDArray[Any]:
    """Give the row that a model is asked about, shape (1, n_features).

    Raises:
        ValueError: another width, or a number that does not fit.
    """
    check_width(vector, n_features)
    if not (np.abs(vector.values) <= _LARGEST[input_type]).all():
        raise ValueError(f"expected features that fit into {input_type}")
    row = np.zeros((1, n_features), dtype=_DTYPE[input_type])
    row[0, vector.indices] = vector.values
    return row


def check_width(vector: FeatureVector, n_features: int) -> None:
    """Check that the vector has as many features as the model.

    Raises:
        ValueError: it has not.
    """
    if vector.size != n_features:
        raise ValueError(f"expected a vector of {n_features} features, got {vector.size}")


def finite(number: float) -> float:
    """Give the number back.

    Raises:
        ScoreInvalid: it is none.
    """
    if not math.isfinite(number):
        raise ScoreInvalid("expected one finite number from the model")
    return number
