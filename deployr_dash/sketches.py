"""Distributions as counts by bucket: those of parts add up to those of the whole, so days and versions can be merged.

Of durations the buckets grow with the value, so that every quantile is off by at most 1 % of itself; of probabilities
they are equally wide.

Source: C. Masson, J. E. Rim, H. K. Lee (2019), DDSketch, Proc. VLDB Endow. 12:2195-2205, doi:10.14778/3352063.3352135,
with one bucket for whatever is at most a microsecond.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ACCURACY = 0.01
"""How far a quantile may be off, as a share of itself."""
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
SHORTEST_MS = 0.001
SCORE_BINS = 50
"""Of probabilities: the bin ``i`` is ``[i / 50, (i + 1) / 50)``, and the last one includes 1."""


def quantiles(
    buckets: NDArray[np.int64], counts: NDArray[np.int64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give durations in milliseconds that these shares of all are at most as long as.

    Args:
        buckets: of durations, shape (n,), in any order, each as often as one likes.
        counts: how many are in each, shape (n,).
        shares: from 0 to 1, shape (n_shares,).

    Returns:
        Shape (n_shares,), each within 1 % of the order statistic of rank ``floor(share * (count - 1))``; NaN of none.
    """
    total = int(counts.sum())
    if not total:
        return np.full(shares.shape, math.nan)
    order = np.argsort(buckets, kind="stable")
    # Counts of what is at most as long; the first to exceed a rank holds it.
    upto = np.cumsum(counts[order])
    places = np.searchsorted(upto, np.floor(shares * (total - 1)), side="right")
    middle: NDArray[np.float64] = 2.0 * GAMMA ** buckets[order][places].astype(np.float64) / (GAMMA + 1.0)
    return middle


def histogram(bins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give how many scores are in each of the 50 bins, shape (50,).

    Args:
        bins: from 0 to 49, shape (n,), each as often as one likes.
        counts: how many are in each, shape (n,).
    """
    found = np.zeros(SCORE_BINS, dtype=np.int64)
    np.add.at(found, bins, counts)
    return found
