"""Whether the system runs: how much is asked, what comes of it, how fast, and whether scores reach the EMR."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, Ratios, measure
from deployr_core.monitoring.closed_form import Z_95
from deployr_dash.panels.panel import (
    NamedTable,
    Panel,
    View,
    day_starts,
    days_from_start,
    estimate,
    patients_of,
    posix,
    said,
)
from deployr_plots.common import Row, estimates_figure
from deployr_plots.figures import Axis, Band, Bars, Figure, Kind, Line, Points, Role, numbers
from deployr_plots.tables import Table
from deployr_plots.words import count, number, of, percent

KINDS = {
    "scored": Role.MAIN,
    "abstained": Role.MUTED,
    "failed": Role.CONTRAST,
    "rejected": Role.FOURTH,
    "received": Role.THIRD,
}
_LONG_SILENCE = 5.0
"""How many times the longest usual gap between packets may pass before it is called silence."""
_DELIVERIES = ("pending", "sent", "dead", "superseded", "expired")


def volume(view: View) -> Panel:
    """Show how many packets each day had, by what came of them, and how long nothing has come."""
    packets, day = view.packets, days_from_start(view, view.packets)
    starts = day_starts(view)
    bars, bases = [], np.zeros(view.window.days)
    totals = {kind: int((packets["kind"] == kind).sum()) for kind in KINDS}
    for kind, role in KINDS.items():
        if not totals[kind]:
            continue
        heights = np.bincount(day[(packets["kind"] == kind).to_numpy(dtype=bool)], minlength=view.window.days)
        bars.append(
            Bars(
                name=kind,
                starts=numbers(starts[:-1]),
                ends=numbers(starts[1:]),
                heights=numbers(heights),
                bases=numbers(bases),
                role=role,
            )
        )
        bases = bases + heights
    shares = ", ".join(f"{count(n)} {kind} ({percent(n / max(1, len(packets)))})" for kind, n in totals.items() if n)
    empty = int((bases[: view.days_so_far] == 0).sum())
    figure = Figure(
        name="volume",
        title="Packets a day",
        told=f"{of(len(packets), 'packet')} in {of(view.days_so_far, 'day')}: {shares}. The busiest day had"
        f" {count(int(bases.max(initial=0)))}; {of(empty, 'day')} had none.",
        x=Axis(name="Day of the request (UTC)", kind=Kind.TIME, low=starts[0], high=starts[-1]),
        y=Axis(name="Packets a day", low=0.0),
        marks=tuple(bars),
        width=760,
        height=280,
    )
    return Panel(
        name="volume",
        title="Volume",
        said=(f"{of(len(packets), 'packet')}: {shares}.", silence(view)),
        figures=(figure,),
        notes=("A packet is one request for a score, whatever came of it. Days are of UTC.",),
    )


def silence(view: View) -> str:
    """Say how long nothing has come, held against the longest gap but one in a hundred."""
    asked = np.sort(posix(view.packets["received_at"]))
    then, until = ("the window ended", view.window.end) if view.window.end < view.now else ("the extract", view.now)
    waited_h = (until.timestamp() - asked[-1]) / 3600
    if asked.size < 2:
        return f"The only packet came {number(waited_h, digits=1)} hours before {then}."
    usual_h = float(np.quantile(np.diff(asked), 0.99)) / 3600
    words = (
        f"The last packet came {number(waited_h, digits=1)} hours before {then}; 99 of 100 gaps are shorter than"
        f" {number(usual_h, digits=1)} hours"
    )
    if view.is_replay:
        return f"{words}. This was a replay, which has ended."
    return f"{words}: the deployment may be dead." if waited_h > _LONG_SILENCE * max(usual_h, 1 / 60) else f"{words}."


def reasons(view: View) -> Panel:
    """Show why packets were not scored, each reason as a share of all packets with its interval."""
    unscored = view.packets.loc[view.packets["kind"].isin(("abstained", "failed", "rejected"))]
    if unscored.empty:
        return Panel(name="reasons", title="Not scored, and why", said=("Every finished packet was scored.",))
    named = unscored["reason"].astype("object") + " (" + unscored["kind"].astype("object") + ")"
    counts = named.value_counts()
    every = (view.packets["reason"].astype("object") + " (" + view.packets["kind"].astype("object") + ")").to_numpy()
    columns = {str(name): (every == name).astype(np.float64) for name in counts.index}
    found = _shares(view, columns, np.ones(len(every)))
    most = max((shown.high for shown in map(estimate, found.values()) if shown is not None), default=1.0)
    figure = estimates_figure(
        [Row(name=name, shown=estimate(share) or "not measurable") for name, share in found.items()],
        title="Packets without a score, by reason",
        told="; ".join(f"{name}: {said(share, as_percent=True)}" for name, share in found.items()) + ".",
        name="reasons",
        measure="Share of all packets",
        axis=Axis(name="Share of all packets", kind=Kind.PERCENT, low=0.0, high=1.1 * most),
        rows_are="Reason",
        width=620,
    )
    return Panel(
        name="reasons",
        title="Not scored, and why",
        said=(
            f"{count(len(unscored))} of {of(len(view.packets), 'packet')} have no score; most often"
            f" {counts.index[0]}, {count(int(counts.iloc[0]))}.",
        ),
        figures=(figure,),
        notes=("Codes are explained in docs/glossary.md. Intervals: 95 %, bootstrap of patients.",),
    )


def latency(view: View) -> Panel:
    """Show how long answers took each day, and which step took how long."""
    packets = view.packets.loc[view.packets["latency_ms"].notna()]
    if packets.empty and view.is_replay:
        return _latency_of_searches(view)
    if packets.empty:
        return Panel(name="latency", title="Latency", missing="No packet in this window has been finished yet.")
    took = packets["latency_ms"].to_numpy(dtype=np.float64)
    day, starts = days_from_start(view, packets), day_starts(view)
    middle = (starts[:-1] + starts[1:]) / 2
    quantiles = np.array([_quantiles(took[day == place]) for place in range(view.window.days)])
    overall = _quantiles(took)
    figure = Figure(
        name="latency",
        title="Time to answer, by day",
        told=f"Over the window, half of the answers took at most {number(overall[0], digits=0)} ms and 95 of 100"
        f" at most {number(overall[3], digits=0)} ms (95 % interval {number(overall[4], digits=0)} to"
        f" {number(overall[5], digits=0)} ms).",
        x=Axis(name="Day of the request (UTC)", kind=Kind.TIME, low=starts[0], high=starts[-1]),
        y=Axis(name="Time to answer", unit="ms", low=0.0),
        marks=(
            Band(name="median", x=numbers(middle), low=numbers(quantiles[:, 1]), high=numbers(quantiles[:, 2])),
            Points(name="median", x=numbers(middle), y=numbers(quantiles[:, 0]), joined=True),
            Band(
                name="95th percentile",
                x=numbers(middle),
                low=numbers(quantiles[:, 4]),
                high=numbers(quantiles[:, 5]),
                role=Role.CONTRAST,
            ),
            Points(
                name="95th percentile",
                x=numbers(middle),
                y=numbers(quantiles[:, 3]),
                joined=True,
                role=Role.CONTRAST,
            ),
        ),
        width=760,
        height=280,
    )
    steps = _steps(packets)
    return Panel(
        name="latency",
        title="Latency",
        said=(
            f"Half of the answers took at most {number(overall[0], digits=0)} ms, 95 of 100 at most"
            f" {number(overall[3], digits=0)} ms.",
        ),
        figures=(figure,),
        tables=(NamedTable(caption="Time by step, in ms; searches run beside each other", table=steps),),
        notes=(
            "From the request's arrival to its answer. Bands are 95 % intervals from order statistics; a day with too"
            " few answers for one has none.",
        ),
    )


def _latency_of_searches(view: View) -> Panel:
    steps = _steps(view.packets)
    return Panel(
        name="latency",
        title="Latency",
        said=(
            "A replay moved the clock, so how long answers took cannot be told from their instants. Searches of the EMR"
            " were timed all the same.",
        ),
        tables=(NamedTable(caption="Time by search, in ms; they run beside each other", table=steps),)
        if steps.rows
        else (),
    )


def deliveries(view: View) -> Panel:
    """Show what became of scores on their way to the EMR, and how long the oldest has been waiting."""
    sums = {state: int(view.packets[f"deliveries_{state}"].fillna(0).sum()) for state in _DELIVERIES}
    total = sum(sums.values())
    if not total:
        return Panel(
            name="deliveries",
            title="Deliveries",
            said=("Nothing was to be delivered: in silent mode, or without a configured way out, nothing is.",),
        )
    waiting = view.packets.loc[view.packets["deliveries_pending"].fillna(0) > 0, "received_at"]
    queue = "Nothing is waiting."
    if not waiting.empty:
        hours = (view.now - waiting.min().to_pydatetime()).total_seconds() / 3600
        queue = f"The oldest that waits was asked for {number(hours, digits=1)} hours before the extract was made."
    every = {state: view.packets[f"deliveries_{state}"].fillna(0).to_numpy(dtype=np.float64) for state in sums}
    found = _shares(view, every, np.sum(list(every.values()), axis=0))
    figure = estimates_figure(
        [
            Row(name=f"{state}: {count(sums[state])}", shown=estimate(share) or "not measurable")
            for state, share in found.items()
        ],
        title="Deliveries, by where they stand",
        told="; ".join(f"{state}: {count(sums[state])}" for state in found) + ".",
        name="deliveries",
        measure="Share of deliveries",
        axis=Axis(name="Share of deliveries", kind=Kind.PERCENT, low=0.0, high=1.0),
        rows_are="State",
        width=520,
    )
    return Panel(
        name="deliveries",
        title="Deliveries",
        said=(
            f"{count(sums['sent'])} of {of(total, 'delivery', 'deliveries')} arrived, {count(sums['dead'])} were given"
            f" up. {queue}",
        ),
        figures=(figure,),
        notes=("Intervals: 95 %, bootstrap of patients.",),
    )


def calling_pattern(view: View) -> Panel:
    """Show at which hours requests come, beside the period before."""
    now, earlier = (_by_hour(frame) for frame in (view.packets, view.before))
    marks = []
    for name, shares, role in (("this window", now, Role.MAIN), ("before", earlier, Role.CONTRAST)):
        if shares is not None:
            hours = np.arange(25)
            marks.append(Line(name=name, x=numbers(hours), y=numbers(np.r_[shares, shares[-1]]), steps=True, role=role))
    busiest = int(np.argmax(now)) if now is not None else 0
    return Panel(
        name="calling-pattern",
        title="Calling pattern",
        figures=(
            Figure(
                name="calling-pattern",
                title="Requests by hour of the day",
                told=f"Most requests come between {busiest}:00 and {busiest + 1}:00 UTC"
                f" ({percent(float(now[busiest])) if now is not None else ''})."
                + ("" if earlier is not None else " There is no earlier period to compare with."),
                x=Axis(name="Hour of the day, in UTC", low=0.0, high=24.0),
                y=Axis(name="Share of requests", kind=Kind.PERCENT, low=0.0),
                marks=tuple(marks),
                width=520,
                height=260,
            ),
        ),
        notes=("A change says that another workflow, or another caller, asks now.",),
    )


def _shares(view: View, columns: Mapping[str, Floats], out_of: Floats) -> dict[str, Measured]:
    """Give the share of each column's sum in that of ``out_of``, with intervals from a bootstrap of patients."""
    ratios = Ratios(
        names=tuple(columns),
        lacks=("at least one",) * len(columns),
        numerators=np.column_stack(list(columns.values())),
        denominators=np.column_stack([out_of] * len(columns)),
        shares=(True,) * len(columns),
    )
    return measure([ratios], patients_of(view.packets), rng=view.rng(), resamples=view.resamples)


def _quantiles(took: Floats) -> tuple[float, ...]:
    """Give median, its bounds, the 95th percentile and its bounds; NaN where there are too few for them.

    Source: the bounds are order statistics at binomial quantiles, by their normal approximation; W. J. Conover (1999),
    Practical Nonparametric Statistics, section 3.2.
    """
    if not took.size:
        return (math.nan,) * 6
    ordered, n, found = np.sort(took), took.size, []
    for share in (0.5, 0.95):
        reach = Z_95 * math.sqrt(n * share * (1 - share))
        low, high = math.floor(n * share - reach), math.ceil(n * share + reach)
        bounds = (float(ordered[low]), float(ordered[high])) if low >= 0 and high < n else (math.nan, math.nan)
        found += [float(np.quantile(ordered, share)), *bounds]
    return tuple(found)


def _steps(packets: pd.DataFrame) -> Table:
    by_step: dict[str, list[float]] = {}
    for searches in packets["searches"]:
        for name, took in dict(searches if searches is not None else {}).items():
            by_step.setdefault(f"search: {name}", []).append(float(took))
    emr = packets["emr_ms"].dropna().to_numpy(dtype=np.float64)
    whole = packets["latency_ms"].dropna().to_numpy(dtype=np.float64)
    columns = {"whole answer": whole, "EMR, first to last": emr}
    columns |= {name: np.array(took) for name, took in sorted(by_step.items())}
    return Table(
        columns=("step", "packets", "median", "95th percentile", "longest"),
        rows=tuple(
            (name, took.size, *(round(float(np.quantile(took, share)), 1) for share in (0.5, 0.95, 1.0)))
            for name, took in columns.items()
            if took.size
        ),
    )


def _by_hour(frame: pd.DataFrame) -> Floats | None:
    if frame.empty:
        return None
    hours = np.bincount(frame["received_at"].dt.hour.to_numpy(dtype=np.int64), minlength=24)
    return np.asarray(hours / hours.sum(), dtype=np.float64)
