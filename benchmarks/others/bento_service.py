# mypy: ignore-errors
"""The BentoML side of benchmarks/serving.py: a scikit-learn forest as a service of one worker, and nothing else."""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1)
class Forest:
    """Holds the forest."""

    def __init__(self) -> None:
        self.forest = joblib.load(os.environ["FOREST"])

    # On the event loop itself: in a thread, as a plain function would run, it is slower.
    @bentoml.api
    async def score(self, indices: list[int], values: list[float]) -> dict[str, float]:
        """Give the probability of a sparse row: the places of what is not zero, and what stands there."""
        dense = np.zeros((1, self.forest.n_features_in_), dtype=np.float32)
        dense[0, indices] = values
        return {"score": float(self.forest.predict_proba(dense)[0, 1])}
