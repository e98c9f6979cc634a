"""What was read of an extract, as panels take it; nothing here reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SparseFeatures:
    """The features that packets were scored with, as compressed sparse rows.

    ``rows``: the packets' numbers, as in the column ``row`` of `load_frame`, and ``received_at``, in UTC, both of shape
    (n_packets,). Packet ``i`` has ``values[starts[i]:starts[i + 1]]`` in the columns ``columns`` of the
    same places; all others are 0. ``names`` and ``groups``: of the columns, empty where the bundle is not known.
    ``concepts``: what clinicians call each column, likewise.
    """

    rows: NDArray[np.int64]
    received_at: NDArray[np.datetime64]
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    concepts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """Counts by model, version, day, mode and arm; of each of these there may be several rows, which add up.

    ``daily``: the columns of `deployr_dash.overview.COUNTED`, ``score_sum``, and ``last_at``, when the last packet
    came. ``tallies``: how often (``n``) each ``word`` stands in the column ``what``, and how many are in each
    ``bucket`` of the distribution ``what``; see `WORDS` and `BUCKETS` there, and `deployr_dash.sketches` for what
    buckets come to.
    """

    daily: pd.DataFrame
    tallies: pd.DataFrame
