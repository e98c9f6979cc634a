"""Packets of one version as `ServedRows`: what reference periods are fitted on, and drift and alarms are told from."""

from __future__ import annotations

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Floats
from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.served_rows import ServedRows, part_of_the_week
from deployr_dash.panels.panel import View, labelled, patients_of, posix, words_of
from deployr_dash.panels.people import PROPERTIES, group_names
from deployr_dash.readings import SparseFeatures

NEEDS = (
    *("row", "version", "received_at", "patient_code", "kind", "score", "channel", "features_present", "value_unit"),
    *(*PROPERTIES, "label_kind", "label_value", "label_class", "label_values", "label_ripe_at"),
)
"""The columns of packets that this reads."""


def served_rows(view: View, features: SparseFeatures, version: str) -> ServedRows:
    """Give what one version answered in the view's window, its features read for at least that window.

    Labels count as the view says: with ``only_ripe`` those whose time has come.
    """
    packets = view.packets.loc[view.packets["version"] == version].reset_index(drop=True)
    labels = np.full(len(packets), np.nan)
    known = labelled(view, packets)
    labels[known.rows] = known.labels
    hours = packets["received_at"].dt.day_of_week * 24 + packets["received_at"].dt.hour
    names = features.names or tuple(f"feature {place}" for place in range(int(features.columns.max(initial=-1)) + 1))
    return ServedRows(
        since=view.window.start,
        until=view.window.end,
        at=posix(packets["received_at"]),
        patients=patients_of(packets),
        scores=packets["score"].to_numpy(dtype=np.float64, na_value=np.nan),
        labels=labels,
        features=_rows_of(features, packets, size=len(names)),
        names=names,
        # What does not say counts as none.
        present={group: np.nan_to_num(each) for group, each in amounts_of(packets["features_present"]).items()},
        people={
            called: group_names(packets[column])
            for column, called in PROPERTIES.items()
            if packets[column].notna().any()
        },
        calls={
            "outcome": words_of(packets["kind"]),
            "channel": words_of(packets["channel"]),
            "part of the week (UTC)": part_of_the_week(hours.to_numpy(dtype=np.int64)),
        },
    )


def _rows_of(features: SparseFeatures, packets: pd.DataFrame, *, size: int) -> SparseRows:
    """Give each packet's features, none where it has none."""
    order = np.argsort(features.rows, kind="stable")
    ranked = features.rows[order]
    wanted = packets["row"].to_numpy(dtype=np.int64)
    place = np.searchsorted(ranked, wanted)
    there = place < ranked.size
    there[there] = ranked[place[there]] == wanted[there]
    own = order[place[there]]
    lengths = np.zeros(wanted.size, dtype=np.int64)
    lengths[there] = np.diff(features.starts)[own]
    starts = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    begins = np.zeros(wanted.size, dtype=np.int64)
    begins[there] = features.starts[:-1][own]
    entries = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)
    return SparseRows(
        size=size,
        starts=starts,
        indices=features.columns[entries].astype(np.int64),
        values=features.values[entries].astype(np.float64),
    )


def amounts_of(column: pd.Series) -> dict[str, Floats]:
    """Give the numbers of a column of numbers by name, a column of shape (n_rows,) each; NaN where it is not named."""
    found: dict[str, Floats] = {}
    rows = len(column)
    for row, each in enumerate(column):
        for name, amount in () if each is None or isinstance(each, float) else each:
            if name not in found:
                found[name] = np.full(rows, np.nan)
            found[name][row] = amount
    return found
