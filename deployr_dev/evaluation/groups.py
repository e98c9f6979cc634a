"""The rows in groups: by a property of the patient, and by how many features there were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deployr_core import bootstrap
from deployr_core.bootstrap import Floats, measure
from deployr_core.calibration import calibration_bins
from deployr_core.groups import too_small
from deployr_core.monitoring.subgroups import group_statistics
from deployr_dev.evaluation.records import AvailabilityFifth, Group, GroupFigures, TooSmall, recorded


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
    small = too_small(patients, labels=labels)
    if small is not None:
        return Group(name=name, rows=labels.size, patients=np.unique(patients).size, figures=TooSmall(why=small))
    # Each group by patients of its own, not in everybody's resamples as `binary_subgroups` does: nothing is tested
    # here, and a group's interval must not hang on who else is in the report.
    measured = measure(group_statistics(labels, scores, cut), patients, rng=rng, resamples=resamples)
    return Group(
        name=name,
        rows=labels.size,
        patients=np.unique(patients).size,
        figures=GroupFigures(
            prevalence=recorded(measured["prevalence"]),
            auroc=recorded(measured["auroc"]),
            calibration_in_the_large=recorded(measured["calibration_in_the_large"]),
            sensitivity=recorded(measured.get("sensitivity", bootstrap.NotMeasured(why="expected a threshold"))),
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
