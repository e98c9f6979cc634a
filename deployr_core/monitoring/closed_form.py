"""Intervals without resampling: for a million rows at once, and, where rows are independent, Wilson's and DeLong's.

With several scores a patient, Wilson's and DeLong's intervals are far too narrow: with 26 a patient DeLong's 95 %
interval was measured to hold the truth 4 times in 10. So they ask whose the rows are, and refuse a patient who is there
twice.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure, Floats, Interval, NotMeasured
from deployr_core.metrics import BOTH_CLASSES, checked_patients, checked_rows

Z_95 = NormalDist().inv_cdf(0.975)
"""How many standard errors a 95 % bound is away."""


def wilson_interval(holds: NDArray[np.bool_], patients: NDArray[np.int64]) -> Figure:
    """Give the share of rows for which something holds, where no patient has two rows.

    Unlike the normal approximation it stays inside [0, 1] and does not collapse at none or all.

    Args:
        holds: shape (n_rows,).
        patients: which patient each row belongs to, shape (n_rows,).

    Returns:
        An interval of closed form (``resamples`` is 0), or why there is none: no rows, or rows that depend on others.

    Source: E. B. Wilson (1927), J. Am. Stat. Assoc. 22:209-212, doi:10.1080/01621459.1927.10502953.
    """
    holds = np.asarray(holds, dtype=np.bool_)
    patients = checked_patients(patients, holds.astype(np.float64))
    if holds.size == 0:
        return NotMeasured(why="expected at least one row")
    if (why := _dependent(patients)) is not None:
        return NotMeasured(why=why)
    n, share = holds.size, float(holds.mean())
    shrink = 1.0 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / shrink
    margin = Z_95 / shrink * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    return Interval(value=share, low=max(0.0, centre - margin), high=min(1.0, centre + margin), resamples=0)


def delong_interval(labels: Floats, scores: Floats, patients: NDArray[np.int64]) -> Figure:
    """Give the AUROC with DeLong's 95 % interval, where no patient has two rows; else say that it would be too narrow.

    Args and Raises: as for `clustered_auroc_interval`, of which this is the case of one row a patient.

    Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845, doi:10.2307/2531595.
    """
    labels, scores = checked_rows(labels, scores)
    patients = checked_patients(patients, labels)
    if (why := _dependent(patients)) is not None:
        return NotMeasured(why=why)
    return clustered_auroc_interval(labels, scores, patients)


def delong_difference(labels: Floats, first: Floats, second: Floats, patients: NDArray[np.int64]) -> Figure:
    """Give the second scores' AUROC less the first ones', of the same rows, where no patient has two rows.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        first: finite, shape (n_rows,).
        second: finite, shape (n_rows,).
        patients: which patient each row belongs to, shape (n_rows,).

    Returns:
        An interval of closed form (``resamples`` is 0), or why there is none: rows that depend on others, fewer than
        two rows of a class, or scores that rank all rows alike.

    Raises:
        ValueError: as for `deployr_core.metrics.auroc`.

    Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845, doi:10.2307/2531595.
    """
    labels, first = checked_rows(labels, first)
    labels, second = checked_rows(labels, second)
    patients = checked_patients(patients, labels)
    if (why := _dependent(patients)) is not None:
        return NotMeasured(why=why)
    positive = labels == 1.0
    if min(positive.sum(), (~positive).sum()) < 2:
        return NotMeasured(why=f"expected {BOTH_CLASSES}, at least two of each")
    apart = _share_beaten(second, positive) - _share_beaten(first, positive)
    difference = float(apart[positive].mean())
    error = math.sqrt(sum(float(apart[of].var(ddof=1)) / int(of.sum()) for of in (positive, ~positive)))
    if error == 0.0:
        return NotMeasured(why="expected scores that rank some rows differently")
    return Interval(value=difference, low=difference - Z_95 * error, high=difference + Z_95 * error, resamples=0)


def clustered_auroc_interval(labels: Floats, scores: Floats, patients: NDArray[np.int64]) -> Figure:
    """Give the AUROC with a 95 % interval that knows of the patients, in one sorting: for rows by the million.

    The bounds are made on the log odds, so that they stay inside 0 to 1. For fewer than some 30 patients, take the
    bootstrap of `deployr_core.bootstrap.measure`.

    Args:
        labels: 0.0 or 1.0, shape (n_rows,).
        scores: finite, shape (n_rows,).
        patients: which patient each row belongs to, any integers, shape (n_rows,).

    Returns:
        An interval of closed form (``resamples`` is 0), or why there is none: one class only, one patient only, or
        an AUROC of exactly 0 or 1, which has no variance.

    Raises:
        ValueError: as for `deployr_core.metrics.auroc`.

    Source: Obuchowski (1997), Biometrics 53:567-578, doi:10.2307/2533958; Pepe (2003), The Statistical Evaluation of
    Medical Tests, section 5.2.4, for the log odds.
    """
    labels, scores = checked_rows(labels, scores)
    patients = checked_patients(patients, labels)
    positive = labels == 1.0
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        return NotMeasured(why=f"expected {BOTH_CLASSES}")
    patient_of_row, held = _from_zero(patients)
    if np.count_nonzero(held) < 2:
        return NotMeasured(why="expected rows of at least two patients for an interval")
    won = _share_beaten(scores, positive)
    area = float(won[positive].mean())
    if area in (0.0, 1.0):
        return NotMeasured(why="expected classes that no threshold separates")
    deviation = won - area
    # With one row a patient this is DeLong's variance, each class with its own degree of freedom.
    by_class, spread = [], 0.0
    for rows, total in ((positive, positives), (~positive, negatives)):
        sums = np.bincount(patient_of_row[rows], weights=deviation[rows], minlength=held.size) / total
        patients_of_class = int(np.count_nonzero(np.bincount(patient_of_row[rows])))
        spread += _unbiased(patients_of_class) * float((sums**2).sum())
        by_class.append(sums)
    together = 2.0 * _unbiased(int(np.count_nonzero(held))) * float((by_class[0] * by_class[1]).sum())
    error = math.sqrt(max(spread + together, 0.0)) / (area * (1.0 - area))
    odds = math.log(area / (1.0 - area))
    low, high = (1.0 / (1.0 + math.exp(-(odds + side * Z_95 * error))) for side in (-1, 1))
    return Interval(value=area, low=low, high=high, resamples=0)


def _from_zero(patients: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each row's patient as a number from 0 that is not much above the number of rows, and the rows of each."""
    # Codes of a dictionary are that already; to sort a million of them again took longer than all the rest.
    if patients.min() < 0 or patients.max() > 2 * patients.size:
        patients = np.unique(patients, return_inverse=True)[1]
    return patients, np.bincount(patients)


def _unbiased(clusters: int) -> float:
    return clusters / max(1, clusters - 1)


def _share_beaten(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Give, for each positive row, the share of negatives below it; for each negative, that of positives above it."""
    order = np.argsort(scores)
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    tie = np.cumsum(np.r_[True, ranked[1:] != ranked[:-1]]) - 1
    positives_before = np.r_[0, np.cumsum(positive[order])].astype(np.float64)
    negatives_before = np.arange(ranked.size + 1) - positives_before
    ends = np.r_[starts[1:], ranked.size]
    below = (negatives_before[starts] + negatives_before[ends])[tie] / (2 * negatives_before[-1])
    above = positives_before[-1] - (positives_before[starts] + positives_before[ends])[tie] / 2
    shares = np.empty(scores.size)
    shares[order] = np.where(positive[order], below, above / positives_before[-1])
    return shares


def _dependent(patients: NDArray[np.int64]) -> str | None:
    """Say why rows are not independent."""
    if np.unique(patients).size == patients.size:
        return None
    return (
        "expected no patient with two rows: for those this interval is too narrow, and patients are resampled instead"
    )
