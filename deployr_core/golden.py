"""Golden vectors: rows, none of them a patient's, and the outputs that a loaded model must give each, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np

from deployr_core.elsewhere import Promise
from deployr_core.scoring import ScoreInvalid, Scorer
from deployr_core.vectorize import FeatureVector


class ScoreDiffers(ValueError):
    """The model gives a golden vector another answer than was promised, by one bit or more."""


class GoldenVector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row and the outputs that it must get, to the bit, wherever the bundle is loaded."""

    indices: tuple[int, ...]
    values: tuple[float, ...]
    outputs: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.indices) != len(self.values):
            raise ValueError("expected as many values as indices in a golden vector")
        if any(low >= high for low, high in pairwise((-1, *self.indices))):
            raise ValueError("expected a golden vector's indices ascending from 0, each once")


def promise_of(golden: Sequence[GoldenVector], *, spec_sha256: str, size: int, n_outputs: int) -> Promise:
    """Give the golden vectors as rows that a model can be asked about.

    Raises:
        ValueError: there is none, or one does not fit a model of ``size`` columns and ``n_outputs`` outputs.
    """
    if not golden:
        raise ValueError("expected at least one golden vector")
    for number, row in enumerate(golden):
        if row.indices and row.indices[-1] >= size:
            raise ValueError(f"expected vector {number} to name only features that there are")
        if len(row.outputs) != n_outputs:
            raise ValueError(f"vector {number} does not have each output's number")
    rows = (
        FeatureVector(
            spec_digest=spec_sha256,
            size=size,
            indices=np.array(row.indices, dtype=np.int32),
            values=np.array(row.values, dtype=np.float64),
            coverage={},
        )
        for row in golden
    )
    return Promise(rows=tuple(rows), outputs=tuple(row.outputs for row in golden))


def expect_promised(model: Scorer, promise: Promise) -> None:
    """Return if the model gives every row what was promised.

    Raises:
        ScoreDiffers: it does not.
        ValueError: a row cannot be scored; the message names it.
    """
    for number, (row, outputs) in enumerate(zip(promise.rows, promise.outputs, strict=True)):
        try:
            answer = model.answer(row)
        except (ScoreInvalid, ValueError) as error:
            raise ValueError(f"vector {number} cannot be scored: {error}") from error
        if answer != outputs:
            raise ScoreDiffers(f"vector {number} does not get its score on this machine")
