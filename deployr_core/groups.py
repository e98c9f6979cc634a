"""The rows in groups of people: how groups are named, and which of them are too small to speak of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats

NOT_RECORDED = "not recorded"
FEWEST_ROWS = 20
FEWEST_OF_A_CLASS = 5
FEWEST_PATIENTS = 10
"""Resampling two patients gave intervals of .07 for AUROCs that were off by .15: under about ten, they mean nothing."""
FEW_PATIENTS = 30
"""Under so many, intervals from resampling patients are known to come out too narrow, and reports say so."""

_AGE_EDGES = (18, 40, 65, 80)

Strings = NDArray[np.str_]


def age_bands(ages: Floats) -> Strings:
    """Name the band of each age in years, such as ``40 to 64``; NaN is not recorded.

    Raises:
        ValueError: an age below 0.
    """
    ages = np.asarray(ages, dtype=np.float64)
    if (ages < 0).any():
        raise ValueError("expected no age below 0")
    low = (0, *_AGE_EDGES[:-1])
    names = [f"{start} to {end - 1}" for start, end in zip(low, _AGE_EDGES, strict=True)]
    names += [f"{_AGE_EDGES[-1]} and over", NOT_RECORDED]
    band = np.where(np.isnan(ages), len(_AGE_EDGES) + 1, np.searchsorted(_AGE_EDGES, ages, side="right"))
    return np.array(names)[band]


def named_rows(name: str, names: Strings, shape: tuple[int, ...]) -> Strings:
    """Give each row's group, the empty ones as not recorded.

    Raises:
        ValueError: not one name per row.
    """
    names = np.asarray(names)
    if names.shape != shape:
        raise ValueError(f"expected one {name} per row, shape {shape}, got {names.shape}")
    if names.dtype.kind != "U":
        raise ValueError(f"expected {name} as strings, got {names.dtype}")
    return np.where(np.char.strip(names) == "", NOT_RECORDED, names)


def in_order(names: Strings) -> list[str]:
    """Give the distinct names in order, what was not recorded at the end."""
    distinct = [str(name) for name in np.unique(names)]
    return sorted(distinct, key=lambda name: (name == NOT_RECORDED, name))


def too_small(patients: NDArray[np.int64], *, labels: Floats | None = None) -> str | None:
    """Say why no figure is given for these rows: it would be noise, and could tell of a person. None: it is given.

    ``labels``: 0.0 or 1.0, shape (n_rows,), where the figures need both classes.
    """
    if patients.size < FEWEST_ROWS:
        return f"under {FEWEST_ROWS} rows"
    if np.unique(patients).size < FEWEST_PATIENTS:
        return f"under {FEWEST_PATIENTS} patients"
    if labels is None:
        return None
    positives = int(labels.sum())
    if positives < FEWEST_OF_A_CLASS:
        return f"under {FEWEST_OF_A_CLASS} rows with the outcome"
    if labels.size - positives < FEWEST_OF_A_CLASS:
        return f"under {FEWEST_OF_A_CLASS} rows without the outcome"
    return None
