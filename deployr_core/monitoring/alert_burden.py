"""How much work alerts make: per day, and per clinician who is at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, Floats, Ratios, measure


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Alerts in each of many counts. Median and 90th percentile: the least that so large a share has no more than.

    ``most``: the largest; it has no interval, for no resample holds more than was seen. ``frequencies``: how many of
    the counts are 0, 1 and so on up to ``most``.
    """

    mean: Figure
    median: Figure
    percentile_90: Figure
    most: int
    frequencies: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertBurden:
    """Alerts counted by who has to read them.

    ``per_day``: alerts of a day, days without any inference among them; its intervals resample days.
    ``share_of_inferences``: that are alerts; likewise.
    ``per_clinician_day``: alerts of a clinician on a day on which at least one inference was made for them; its
    intervals resample clinicians, with all their days. ``of_busiest_tenth``: the share of all alerts that goes to the
    tenth of clinicians who get most, at least to one. ``known``: rows whose clinician is known. None and 0 where
    clinicians are not known.
    """

    days: int
    alerts: int
    per_day: Distribution
    share_of_inferences: Figure
    known: int
    clinicians: int | None
    per_clinician_day: Distribution | None
    of_busiest_tenth: float | None


def alert_burden(
    alerts: NDArray[np.bool_],
    days: NDArray[np.int64],
    *,
    first_day: int,
    last_day: int,
    rng: np.random.Generator,
    clinicians: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
) -> AlertBurden:
    """Give how many alerts there were, of which each is somebody's work.

    Args:
        alerts: whether the row's advisory was shown, shape (n_rows,); a row is one inference.
        days: the day of each row, counted from any, shape (n_rows,).
        first_day: of the period; days without rows count as days without alerts.
        last_day: of the period, included.
        rng: where the resampling comes from.
        clinicians: whom each row was for, any integers from 0, below 0 where nobody knows; None: not known at all.
        resamples: of each interval.

    Raises:
        ValueError: shapes differ, no day in the period, or a row outside it.
    """
    alerts, days = np.asarray(alerts, dtype=np.bool_), np.asarray(days, dtype=np.int64)
    if alerts.shape != days.shape or alerts.ndim != 1 or (clinicians is not None and clinicians.shape != days.shape):
        raise ValueError("expected an alert, a day and a clinician for each row, shape (n_rows,)")
    if last_day < first_day:
        raise ValueError("expected a period of at least one day, the last day not before the first")
    if days.size and (days.min() < first_day or days.max() > last_day):
        raise ValueError("expected rows of days inside the period")
    count = last_day - first_day + 1
    of_day = np.bincount(days - first_day, weights=alerts, minlength=count).astype(np.float64)
    asked = np.bincount(days - first_day, minlength=count).astype(np.float64)
    # The rows that are measured are days here, and each is a cluster of its own.
    by_day, share = _distribution(
        of_day,
        np.arange(count),
        rng=rng,
        resamples=resamples,
        beside=_ratio("share", of_day, asked, lacks="at least one inference"),
    )
    known = np.zeros(days.shape, dtype=np.bool_) if clinicians is None else clinicians >= 0
    if clinicians is None or not known.any():
        return AlertBurden(
            days=count,
            alerts=int(alerts.sum()),
            per_day=by_day,
            share_of_inferences=share["share"],
            known=0,
            clinicians=None,
            per_clinician_day=None,
            of_busiest_tenth=None,
        )
    pairs, place = np.unique(np.column_stack([clinicians[known], days[known]]), axis=0, return_inverse=True)
    of_pair = np.bincount(place, weights=alerts[known]).astype(np.float64)
    by_clinician_day, _ = _distribution(of_pair, pairs[:, 0], rng=rng, resamples=resamples)
    of_clinician = np.sort(np.bincount(np.unique(pairs[:, 0], return_inverse=True)[1], weights=of_pair))[::-1]
    tenth = of_clinician[: max(1, of_clinician.size // 10)]
    return AlertBurden(
        days=count,
        alerts=int(alerts.sum()),
        per_day=by_day,
        share_of_inferences=share["share"],
        known=int(known.sum()),
        clinicians=of_clinician.size,
        per_clinician_day=by_clinician_day,
        of_busiest_tenth=float(tenth.sum() / of_clinician.sum()) if of_clinician.any() else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Quantiles:
    """Quantiles of counts, shape (n_rows,), each by the name it goes by."""

    counts: Floats
    of: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.of)

    @property
    def lacks(self) -> tuple[str, ...]:
        return ("at least one count",) * len(self.of)

    def measured(self, weights: Floats) -> Floats:
        order = np.argsort(self.counts, kind="stable")
        upto = np.cumsum(weights[:, order], axis=1)
        places = [(upto < share * upto[:, -1:]).sum(axis=1) for share in self.of.values()]
        found: Floats = self.counts[order][np.column_stack(places)]
        return found


def _distribution(
    counts: Floats,
    clusters: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    resamples: int,
    beside: Ratios | None = None,
) -> tuple[Distribution, dict[str, Figure]]:
    """Give the counts' distribution, and what is measured beside it from the same resamples."""
    mean = _ratio("mean", counts, np.ones_like(counts), lacks="at least one count")
    quantiles = _Quantiles(counts=counts, of={"median": 0.5, "percentile_90": 0.9})
    figures = measure([mean, quantiles, *([] if beside is None else [beside])], clusters, rng=rng, resamples=resamples)
    made = {name: figures.pop(name) for name in ("mean", "median", "percentile_90")}
    frequencies = np.bincount(counts.astype(np.int64)).tolist()
    return Distribution(most=len(frequencies) - 1, frequencies=tuple(frequencies), **made), figures


def _ratio(name: str, above: Floats, below: Floats, *, lacks: str) -> Ratios:
    return Ratios(
        names=(name,),
        lacks=(lacks,),
        numerators=above[:, np.newaxis],
        denominators=below[:, np.newaxis],
        shares=(False,),
    )
