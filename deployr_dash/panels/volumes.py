"""How many packets come now, against how many came."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Floats
from deployr_core.monitoring.drift_kinds import volume_change
from deployr_dash.panels.panel import NamedTable, Panel, View, estimate, said
from deployr_plots.common import Estimate, Row, estimates_figure
from deployr_plots.figures import Axis, round_ends
from deployr_plots.tables import Table
from deployr_plots.words import number, of

_WEEK, _FOUND = 7, 0.05


def volume_against_before(view: View) -> Panel:
    """Show how the daily volume has changed against the time before, over whole weeks."""
    name, title = "volume-change", "Volume, now and before"
    now = _whole_weeks(view.packets, view.window.start, min(view.window.end, view.now))
    then = _whole_weeks(view.before, view.window.start - (view.window.end - view.window.start), view.window.start)
    if min(len(now), len(then)) < 2 * _WEEK:
        return Panel(
            name=name,
            title=title,
            missing="It needs two whole weeks with packets in the window and two before it: a weekend more or less is a"
            " change too. Move the window, or wait.",
        )
    found = {
        called: volume_change(_on(then, which), _on(now, which))
        for called, which in (
            ("all days", range(_WEEK)),
            ("Mondays to Fridays", range(5)),
            ("weekends", (5, 6)),
        )
    }
    shown = {called: estimate(each.ratio) for called, each in found.items()}
    ends = [bound for each in shown.values() if each is not None for bound in (each.low, each.high)]
    low, high = round_ends(min([0.5, *ends]), max([1.5, *ends]))
    whole = found["all days"]
    return Panel(
        name=name,
        title=title,
        said=(
            f"{number(whole.now, digits=1)} packets a day, {number(whole.before, digits=1)} before: a ratio of"
            f" {said(whole.ratio, digits=2)},"
            f" {'more' if whole.p < _FOUND else 'no more'} than days differ from each other.",
        ),
        figures=(
            estimates_figure(
                [Row(name=called, shown=each or "not measurable") for called, each in shown.items()],
                title="Packets a day, for each one before",
                told="; ".join(f"{called}: {said(each.ratio, digits=2)}" for called, each in found.items()) + ".",
                name="volume-change",
                measure="Ratio",
                axis=Axis(name="Packets a day now, for each one before", low=max(0.0, low), high=high),
                everybody=Estimate(value=1.0, low=1.0, high=1.0),
                everybody_name="no change",
                rows_are="Days",
                width=560,
            ),
        ),
        tables=(
            NamedTable(
                caption="Packets a day, now and before",
                table=Table(
                    columns=("days", "before", "now", "p"),
                    rows=tuple(
                        (
                            called,
                            round(each.before, 1),
                            round(each.now, 1),
                            None if math.isnan(each.p) else round(each.p, 4),
                        )
                        for called, each in found.items()
                    ),
                ),
            ),
        ),
        notes=(
            f"The window's last {of(len(now), 'day')} against the {of(len(then), 'day')} before it: whole weeks from"
            " the first packet on. Intervals: 95 %, by how days differ within each period.",
        ),
    )


def _whole_weeks(frame: pd.DataFrame, start: datetime, end: datetime) -> pd.Series:
    """Count the packets of each day, by its first instant: of the last whole weeks up to ``end``, from the first on."""
    last = pd.Timestamp(end).floor("D")
    if frame.empty:
        return pd.Series(dtype=np.int64, index=pd.DatetimeIndex([], tz="UTC"))
    first = max(pd.Timestamp(start).floor("D"), frame["received_at"].min().floor("D"))
    weeks = (last - first) // pd.Timedelta(days=_WEEK)
    days = pd.date_range(end=last, periods=_WEEK * weeks + 1, freq="D", inclusive="left")
    return frame["received_at"].dt.floor("D").value_counts().reindex(days, fill_value=0)


def _on(counts: pd.Series, weekdays: Collection[int]) -> Floats:
    """Give the counts of these days of the week, Monday being 0."""
    found: Floats = counts.to_numpy(dtype=np.float64)[np.isin(counts.index.day_of_week, list(weekdays))]
    return found
