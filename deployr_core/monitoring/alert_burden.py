"""How much work alerts make: per day, and per clinician who is at work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import RESAMPLES, Figure, NotMeasured, Ratios, measure


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertBurden:
    """Alerts counted by who has to read them.

    ``per_day``: mean alerts a day, days without any inference among them; its interval resamples days.
    ``share_of_inferences``: that are alerts; likewise.
    ``per_clinician_day``: mean alerts of a clinician on a day on which at least one inference was about a patient of
    theirs; its interval resamples clinicians. ``busiest_clinician_day``: the most alerts of one clinician on one day.
    ``of_busiest_tenth``: the share of all alerts that goes to the tenth of clinicians who get most, at least to one.
    None and not measured where clinicians are not known.
    """

    days: int
    alerts: int
    clinicians: int | None
    per_day: Figure
    share_of_inferences: Figure
    per_clinician_day: Figure
    busiest_clinician_day: int | None
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
    by_day = _ratios(
        per_day=(of_day, np.ones(count), "at least one day"),
        share_of_inferences=(of_day, asked, "at least one inference"),
    )
    # The rows that are measured are days here, and each is a cluster of its own.
    figures = measure([by_day], np.arange(count), rng=rng, resamples=resamples)
    known = None if clinicians is None else clinicians >= 0
    if clinicians is None or known is None or not known.any():
        why = "expected to be told which clinician each inference was for"
        return AlertBurden(
            days=count,
            alerts=int(alerts.sum()),
            clinicians=None,
            per_day=figures["per_day"],
            share_of_inferences=figures["share_of_inferences"],
            per_clinician_day=NotMeasured(why=why),
            busiest_clinician_day=None,
            of_busiest_tenth=None,
        )
    pairs, place = np.unique(np.column_stack([clinicians[known], days[known]]), axis=0, return_inverse=True)
    of_pair = np.bincount(place, weights=alerts[known]).astype(np.float64)
    by_clinician = _ratios(per_clinician_day=(of_pair, np.ones(of_pair.size), "at least one clinician"))
    figures |= measure([by_clinician], pairs[:, 0], rng=rng, resamples=resamples)
    of_clinician = np.sort(np.bincount(np.unique(pairs[:, 0], return_inverse=True)[1], weights=of_pair))[::-1]
    tenth = of_clinician[: max(1, of_clinician.size // 10)]
    return AlertBurden(
        days=count,
        alerts=int(alerts.sum()),
        clinicians=of_clinician.size,
        per_day=figures["per_day"],
        share_of_inferences=figures["share_of_inferences"],
        per_clinician_day=figures["per_clinician_day"],
        busiest_clinician_day=int(of_pair.max()),
        of_busiest_tenth=float(tenth.sum() / of_clinician.sum()) if of_clinician.any() else None,
    )


def _ratios(**figures: tuple[NDArray[np.float64], NDArray[np.float64], str]) -> Ratios:
    return Ratios(
        names=tuple(figures),
        lacks=tuple(lacks for _, _, lacks in figures.values()),
        numerators=np.column_stack([above for above, _, _ in figures.values()]),
        denominators=np.column_stack([below for _, below, _ in figures.values()]),
        shares=(False,) * len(figures),
    )
