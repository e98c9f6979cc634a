"""Drift of what is not a stored vector: predictions and labels, names such as channels and hours, gaps, and volume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure, Floats, Interval, NotMeasured
from deployr_core.groups import Strings
from deployr_core.monitoring.closed_form import Z_95
from deployr_core.monitoring.drift import DriftReference, Drifts, drifts
from deployr_core.monitoring.drift_cells import SparseRows


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeChange:
    """How many a day come now, over how many came. ``p``: of no change, with days as they vary within each period."""

    before: float
    now: float
    ratio: Figure
    p: float


def numbers_drift(
    before: Mapping[str, Floats],
    now: Mapping[str, Floats],
    *,
    patients_before: NDArray[np.int64],
    patients_now: NDArray[np.int64],
    scores_before: Floats | None = None,
    bins: int = 10,
) -> Drifts:
    """Hold numbers against a reference period: scores, labels, how many features there were.

    NaN is missing, a cell of its own in PSI and Jensen-Shannon, and in ``share_before`` and ``share_now``; the
    Wasserstein distance is of what is there, exact.

    Args:
        before: by name, shape (n_before,) each.
        now: the same names, shape (n_now,) each.
        patients_before: which patient each row belongs to.
        patients_now: likewise.
        scores_before: in which the drift is to be told, see `DriftReference.of`.
        bins: of about equally many numbers of the reference.

    Raises:
        ValueError: other names, shapes that differ, or no rows.
    """
    names = _same_names(before, now)
    then, here = (
        np.column_stack([np.asarray(each[name], dtype=np.float64) for name in names]) for each in (before, now)
    )
    reference = DriftReference.of(
        names, SparseRows.of_columns(then), patients_before, scores=scores_before, bins=bins, absent_is_zero=False
    )
    found = drifts(reference, SparseRows.of_columns(here), patients_now)
    exact = [wasserstein(a[~np.isnan(a)], b[~np.isnan(b)]) for a, b in zip(then.T, here.T, strict=True)]
    return replace(found, wasserstein=np.array(exact))


def presence_drift(
    before: Mapping[str, NDArray[np.bool_]],
    now: Mapping[str, NDArray[np.bool_]],
    *,
    patients_before: NDArray[np.int64],
    patients_now: NDArray[np.int64],
    scores_before: Floats | None = None,
) -> Drifts:
    """Hold what is there at all against a reference period: groups of features, searches that were answered.

    The Wasserstein distance is the change of the share. Args and Raises: as for `numbers_drift`.
    """
    names = _same_names(before, now)
    then, here = (
        SparseRows.of_columns(np.where(np.column_stack([np.asarray(each[name]) for name in names]), 1.0, np.nan))
        for each in (before, now)
    )
    return drifts(DriftReference.of(names, then, patients_before, scores=scores_before, bins=1), here, patients_now)


def names_drift(
    before: Mapping[str, Strings],
    now: Mapping[str, Strings],
    *,
    patients_before: NDArray[np.int64],
    patients_now: NDArray[np.int64],
    scores_before: Floats | None = None,
) -> Drifts:
    """Hold names against a reference period: channel, site, ward, hour of the day, day of the week, class of the label.

    Names have no order, so there is no Wasserstein distance. Args and Raises: as for `numbers_drift`.
    """
    names = _same_names(before, now)
    coded = []
    for name in names:
        both, place = np.unique(np.concatenate([before[name], now[name]]), return_inverse=True)
        coded.append((both.size, place[: len(before[name])], place[len(before[name]) :]))
    widest = max(size for size, _, _ in coded)
    edges = np.tile(np.arange(1, max(widest, 1)) - 0.5, (len(names), 1))
    then = SparseRows.of_columns(np.column_stack([place.astype(np.float64) for _, place, _ in coded]))
    here = SparseRows.of_columns(np.column_stack([place.astype(np.float64) for _, _, place in coded]))
    reference = DriftReference.of(names, then, patients_before, scores=scores_before, edges=edges, absent_is_zero=False)
    found = drifts(reference, here, patients_now)
    return replace(found, wasserstein=np.full(len(names), np.nan))


def volume_change(before: Floats, now: Floats) -> VolumeChange:
    """Give how the daily volume has changed, by the spread of days: no Poisson law, for a ward's days are not alike.

    Compare whole weeks with whole weeks: a weekend more or less is a change too.

    Args:
        before: how many came on each day, days without any included, shape (n_days,).
        now: likewise.

    Raises:
        ValueError: no days in one of them.

    Source: delta method on the logarithm of a ratio of means; Fieller (1954) treats the exact case.
    """
    before, now = np.asarray(before, dtype=np.float64), np.asarray(now, dtype=np.float64)
    if before.size == 0 or now.size == 0:
        raise ValueError("expected at least one day in both periods")
    means = [float(days.mean()) for days in (before, now)]
    if min(means) == 0.0:
        return VolumeChange(before=means[0], now=means[1], ratio=NotMeasured(why="expected some in both"), p=math.nan)
    ratio = means[1] / means[0]
    if min(before.size, now.size) < 2:
        why = "expected at least two days in both periods for an interval"
        return VolumeChange(before=means[0], now=means[1], ratio=NotMeasured(why=why), p=math.nan)
    error = math.sqrt(
        sum(float(days.var(ddof=1)) / days.size / mean**2 for days, mean in zip((before, now), means, strict=True))
    )
    bounds = [ratio * math.exp(side * Z_95 * error) for side in (-1, 1)]
    p = math.erfc(abs(math.log(ratio)) / error / math.sqrt(2)) if error > 0 else math.nan
    figure = Interval(value=ratio, low=bounds[0], high=bounds[1], resamples=0)
    return VolumeChange(before=means[0], now=means[1], ratio=figure, p=p)


def wasserstein(before: Floats, now: Floats) -> float:
    """Give how far numbers moved on average, in their unit; NaN where there are none in one of the periods.

    Source: the area between the two distribution functions; S. S. Vallender (1974), Theory Probab. Appl. 18:784-786.
    """
    if before.size == 0 or now.size == 0:
        return math.nan
    both = np.sort(np.concatenate([before, now]))
    shares = [np.searchsorted(np.sort(each), both[:-1], side="right") / each.size for each in (before, now)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(both)).sum())


def _same_names(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, ...]:
    if not before or set(before) != set(now):
        raise ValueError("expected the same names in both periods, at least one")
    return tuple(before)
