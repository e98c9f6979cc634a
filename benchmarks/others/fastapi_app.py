# mypy: ignore-errors
"""The bare FastAPI side of benchmarks/serving.py: a scikit-learn forest behind one route, and nothing else."""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

forest = joblib.load(os.environ["FOREST"])
app = FastAPI()


class Row(BaseModel):
    """A sparse row: the places of what is not zero, and what stands there."""

    indices: list[int]
    values: list[float]


# On the event loop itself: in a thread, as a plain function would run, it is slower.
@app.post("/score")
async def score(row: Row) -> dict[str, float]:
    """Give the probability."""
    dense = np.zeros((1, forest.n_features_in_), dtype=np.float32)
    dense[0, row.indices] = row.values
    return {"score": float(forest.predict_proba(dense)[0, 1])}
