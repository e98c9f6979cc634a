"""A tree ensemble in treelite's checkpoint format, scored one row at a time, always to the same bits.

The format is data: loading it cannot run code, unlike a pickle or a joblib file.
"""

from __future__ import annotations

import math

import numpy as np

from deployr_core.vectorize import FeatureVector

_LARGEST = float(np.finfo(np.float32).max)


class ModelUnusable(ValueError):
    """The model's bytes are not what the manifest promises; the message says in what way."""


class ScoreInvalid(ValueError):
    """The model gave something that is not a probability."""


class TreeEnsemble:
    """A binary classifier; ``score`` gives the probability of the positive class, in [0, 1].

    Features are rounded to float32 before any comparison, because scikit-learn trains its trees on float32: only
    then do both take the same turn at every threshold.
    """

    def __init__(self, checkpoint: bytes, *, n_features: int) -> None:
        import treelite

        try:
            self._model = treelite.Model.deserialize_bytes(checkpoint)
        except treelite.TreeliteError as error:
            raise ModelUnusable("expected a treelite checkpoint; treelite cannot read it") from error
        if self._model.num_feature != n_features:
            raise ModelUnusable(
                f"expected a model of {n_features} features, as declared; it was trained on {self._model.num_feature}"
            )
        self._predict = treelite.gtil.predict
        self._n_features = n_features

    def score(self, vector: FeatureVector) -> float:
        """Score one row.

        Raises:
            ScoreInvalid: the model's answer is not one finite number in [0, 1].
            ValueError: the vector has another number of features than the model, or one too large for float32.
        """
        if vector.size != self._n_features:
            raise ValueError(f"expected a vector of {self._n_features} features, got {vector.size}")
        dense = vector.dense()
        if not (np.abs(dense) <= _LARGEST).all():
            raise ValueError("expected features that fit into float32")
        row = dense.astype(np.float32).reshape(1, -1)
        answer = np.asarray(self._predict(self._model, row, nthread=1), dtype=np.float64).ravel()
        score = float(answer[-1]) if answer.size in (1, 2) else math.nan
        if not (math.isfinite(score) and 0.0 <= score <= 1.0):
            raise ScoreInvalid("expected one probability from 0 to 1")
        return score + 0.0  # turns -0.0 into 0.0
