"""Rows of a made-up ward, by seed: patients who come again, a model of a few features, nothing that drifts unasked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.served_rows import ServedRows, part_of_the_week

BEGIN = datetime(2025, 1, 6, tzinfo=UTC)
"""A Monday."""
FEATURES = 60


def ward(
    days: int,
    *,
    a_day: float = 30.0,
    since: datetime = BEGIN,
    seed: int = 0,
    lost: float = 0.0,
    raised: float = 0.0,
) -> ServedRows:
    """Give days of a ward where each patient is asked about four times, over two days.

    Args:
        days: how many.
        a_day: requests on average.
        since: when they begin.
        seed: of everything.
        lost: the share of requests whose features of the group ``labs``, the more frequent half, are not there.
        raised: what is added to scores.
    """
    rng = np.random.default_rng(seed)
    patients = rng.poisson(a_day * days / 4)
    whose = np.repeat(np.arange(patients), 4)
    at = (rng.random(patients) * days)[whose] + 2.0 * rng.random(whose.size) - 1.0
    inside = (at >= 0.0) & (at < days)
    whose, at = whose[inside], at[inside]
    frailty = rng.normal(size=patients)
    shares = np.geomspace(0.01, 0.9, FEATURES)
    own = rng.random((patients, FEATURES)) < shares
    there = np.where(rng.random((whose.size, FEATURES)) < 0.7, own[whose], rng.random((whose.size, FEATURES)) < shares)
    gone = rng.random(whose.size) < lost
    there[gone, FEATURES // 2 :] = False
    scores = 1.0 / (1.0 + np.exp(-(frailty[whose] + 0.5 * rng.normal(size=whose.size) - 0.5 + raised)))
    hour = (at * 24).astype(np.int64) % 168
    columns: Any = np.where(there, rng.integers(1, 4, there.shape), np.nan)
    return ServedRows(
        since=since,
        until=since + timedelta(days=days),
        at=since.timestamp() + at * 86_400.0,
        patients=whose + 1_000_000 * seed,
        scores=scores,
        labels=(rng.random(whose.size) < scores).astype(np.float64),
        features=SparseRows.of_columns(columns),
        names=tuple(f"f{place}" for place in range(FEATURES)),
        present={
            "labs": there[:, FEATURES // 2 :].sum(axis=1).astype(np.float64),
            "drugs": there[:, : FEATURES // 2].sum(axis=1).astype(np.float64),
        },
        people={"sex": np.where(whose % 2 == 0, "female", "male")},
        calls={"channel": np.full(whose.size, "json"), "part of the week": part_of_the_week(hour)},
    )
