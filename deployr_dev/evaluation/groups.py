"""The rows in groups: by a property of the patient, and by how many features there were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployr_core import bootstrap
from deployr_core.bootstrap import Floats, measure
from deployr_core.calibration import calibration_bins
from deployr_core.metrics import overall
from deployr_core.thresholds import threshold_figures
from deployr_dev.evaluation.records import AvailabilityFifth, Group, GroupFigures, TooSmall, recorded

NOT_RECORDED = "not recorded"
FEWEST_ROWS = 20
FEWEST_OF_A_CLASS = 5
FEWEST_PATIENTS = 10
"""Resampling two patients gave intervals of .07 for AUROCs that were off by .15: under about ten, they mean nothing."""
FEW_PATIENTS = 30
"""Under so many, intervals from resampling patients are known to come out too narrow, and the report says so."""

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


def measured_group(
    name: str,
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    *,
    cut: float | None,
    rng: np.random.Generator,
    resamples: int,
) -> Group:
    """Measure a group on its own rows, at the threshold ``cut`` of everybody, or say why it is too small."""
    small = _too_small(labels, patients)
    if small is not None:
        return Group(name=name, rows=labels.size, patients=np.unique(patients).size, figures=small)
    statistics = overall(labels, scores)
    if cut is not None:
        statistics.append(threshold_figures(labels, scores, [cut]))
    measured = measure(statistics, patients, rng=rng, resamples=resamples)
    return Group(
        name=name,
        rows=labels.size,
        patients=np.unique(patients).size,
        figures=GroupFigures(
            prevalence=recorded(measured["prevalence"]),
            auroc=recorded(measured["auroc"]),
            calibration_in_the_large=recorded(measured["calibration_in_the_large"]),
            sensitivity=recorded(measured.get("sensitivity@0", bootstrap.NotMeasured(why="expected a threshold"))),
        ),
    )


def availability_fifths(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    available: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> tuple[AvailabilityFifth, ...]:
    """Cut the rows by how many features they have; rows with equally many are never parted, so there may be fewer."""
    fifth_of_row = calibration_bins(available.astype(np.float64), bins=5)
    fifths = []
    for number in range(int(fifth_of_row.max()) + 1):
        within = fifth_of_row == number
        group = measured_group(
            "", labels[within], scores[within], patients[within], cut=None, rng=rng, resamples=resamples
        )
        fifths.append(
            AvailabilityFifth(
                fewest=int(available[within].min()),
                most=int(available[within].max()),
                rows=group.rows,
                patients=group.patients,
                auroc=group.figures if isinstance(group.figures, TooSmall) else group.figures.auroc,
            )
        )
    return tuple(fifths)


def in_order(names: Strings) -> list[str]:
    """Give the distinct names in order, what was not recorded at the end."""
    distinct = [str(name) for name in np.unique(names)]
    return sorted(distinct, key=lambda name: (name == NOT_RECORDED, name))


def _too_small(labels: Floats, patients: NDArray[np.int64]) -> TooSmall | None:
    positives = int(labels.sum())
    if labels.size < FEWEST_ROWS:
        return TooSmall(why=f"under {FEWEST_ROWS} rows")
    if np.unique(patients).size < FEWEST_PATIENTS:
        return TooSmall(why=f"under {FEWEST_PATIENTS} patients")
    if positives < FEWEST_OF_A_CLASS:
        return TooSmall(why=f"under {FEWEST_OF_A_CLASS} rows with the outcome")
    if labels.size - positives < FEWEST_OF_A_CLASS:
        return TooSmall(why=f"under {FEWEST_OF_A_CLASS} rows without the outcome")
    return None
