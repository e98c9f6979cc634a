"""Estimators that are well-behaved for the golden vector, which is all zeros, and odd for everybody else."""

from __future__ import annotations

import sys
import threading

import numpy as np

_HANGS_FOR_S = 6.0
"""Longer than any case waits, and over before the suite is."""

_ANSWERS = {
    "one number": [0.25],
    "three columns": [[0.5, 0.25, 0.25]],
    "no rows": [],
    "text": [["a", "b"]],
    "NaN": [[0.5, np.nan]],
    "above one": [[-0.5, 1.5]],
}


class Estimator:
    """Gives 1 / 4 to a row of zeros, and to other rows what its behaviour says."""

    def __init__(self, behaves: str) -> None:
        self.behaves = behaves
        self.n_jobs = -1
        # "mislabelled" has its columns the other way round than its labels say.
        self.classes_ = [1, 0] if behaves in {"flipped", "mislabelled"} else [0, 1]

    def get_params(self, deep: bool = True) -> dict[str, object]:
        return {"n_jobs": self.n_jobs}

    def set_params(self, **params: int) -> None:
        self.n_jobs = params["n_jobs"]

    def predict(self, rows: np.ndarray) -> object:
        raise NotImplementedError

    def predict_proba(self, rows: np.ndarray) -> object:
        well = [[0.25, 0.75]] if self.behaves == "flipped" else [[0.75, 0.25]]
        if not rows.any():
            return well
        match self.behaves:
            case "raises":
                raise RuntimeError("of the CanaryPatient7")
            case "raises its own":
                raise _OfItsOwn
            case "exits":
                sys.exit(3)
            case "hangs":
                threading.Event().wait(_HANGS_FOR_S)
            case "several jobs" if self.n_jobs != 1:
                raise RuntimeError("asked with more than one job")
        return _ANSWERS.get(self.behaves, well)


class _OfItsOwn(Exception):
    pass
