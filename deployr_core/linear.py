"""Linear and logistic regression as numbers in a file."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.contributions import Explanation
from deployr_core.exact import logistic, softmax
from deployr_core.outputs import BINARY, Outputs
from deployr_core.scoring import ModelUnusable, ScorerBase, check_width, finite
from deployr_core.vectorize import FeatureVector

Link = Literal["logit", "softmax", "identity"]


class LinearNumbers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear model as a file: for each output ``k``, ``intercepts[k] + Σ coefficients[k][i] · (x[i] / scale[i])``.

    Then the link: the logistic function of each, or the softmax of all. No scale means 1.
    """

    coefficients: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    link: Link
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.coefficients or len({len(row) for row in self.coefficients}) != 1:
            raise ValueError("expected at least one row of coefficients, all of one length")
        if len(self.intercepts) != len(self.coefficients):
            raise ValueError("expected as many intercepts as rows of coefficients")
        if not all(math.isfinite(each) for row in (*self.coefficients, self.intercepts) for each in row):
            raise ValueError("expected finite coefficients and intercepts")
        if self.scale is not None and len(self.scale) != len(self.coefficients[0]):
            raise ValueError("expected as many scales as coefficients")
        if self.scale is not None and not all(0.0 < each < math.inf for each in self.scale):
            raise ValueError("expected scales above 0")

    def to_json(self) -> bytes:
        """Give the canonical bytes; every number reads back to the same bits."""
        return msgspec.json.encode(self, order="sorted")


class LinearModel(ScorerBase):
    """Logistic or linear regression as numbers.

    This is the definition of the score, not a copy of scikit-learn's: each product is rounded once, then their exact
    sum, then the logistic function of it. scikit-learn's own dot product depends on the BLAS, the processor and the
    number of rows, so that its last bits cannot be reproduced; ours can.
    """

    def __init__(self, content: bytes, *, n_features: int, outputs: Outputs = BINARY) -> None:
        try:
            numbers = msgspec.json.decode(content, type=LinearNumbers)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelUnusable(f"expected a linear model as numbers: {error}") from None
        width = len(numbers.coefficients[0])
        if width != n_features:
            raise ModelUnusable(f"expected a model of {n_features} features, as declared; it has {width}")
        if len(numbers.coefficients) != len(outputs.names):
            raise ModelUnusable(f"expected a model of {len(outputs.names)} outputs, as declared")
        self._coefficients = np.array(numbers.coefficients)
        self._scale = np.ones(n_features) if numbers.scale is None else np.array(numbers.scale)
        self._intercepts = numbers.intercepts
        self._link = numbers.link
        self._n_features = n_features
        self.outputs = outputs

    def raw(self, vector: FeatureVector) -> tuple[float, ...]:
        """Add up the features that are not 0; see `deployr_core.scoring.Scorer`."""
        products = self._products(vector).tolist()
        margins = [_sum(row, intercept) for row, intercept in zip(products, self._intercepts, strict=True)]
        match self._link:
            case "logit":
                return tuple(map(logistic, margins))
            case "softmax":
                return softmax(margins)
            case "identity":
                return tuple(margins)

    def explain(self, vector: FeatureVector) -> Explanation:
        """Give each feature's product: their exact sum with the intercept is what the link is applied to."""
        place = self.outputs.place
        products = self._products(vector)[place]
        margin = _sum(products.tolist(), self._intercepts[place])
        by_feature = np.zeros(self._n_features)
        by_feature[vector.indices] = products
        size = abs(self._intercepts[place]) + float(np.abs(products).sum())
        return Explanation(
            base=self._intercepts[place],
            by_feature=by_feature,
            explained=margin,
            rounding=float(np.finfo(np.float64).eps) * (products.size + 1) * size,
        )

    def _products(self, vector: FeatureVector) -> NDArray[np.float64]:
        """Give what each feature that is not 0 adds to each output, shape (n_outputs, n_nonzero)."""
        check_width(vector, self._n_features)
        places = vector.indices
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((vector.values / self._scale[places]) * self._coefficients[:, places])


def _sum(products: list[float], intercept: float) -> float:
    try:
        total = math.fsum([*products, intercept])
    except (OverflowError, ValueError):  # too large, or infinities of both signs
        total = math.nan
    return finite(total)
