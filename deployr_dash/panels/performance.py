"""How well scores tell outcomes apart and how true they are, in service beside before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, Interval, Ratios, measure
from deployr_core.monitoring.binary import BinaryPerformance, binary_performance
from deployr_core.monitoring.estimated import EstimatedPerformance, estimated_performance
from deployr_core.outputs import Target
from deployr_dash.panels.of_numbers import numbers_in_short
from deployr_dash.panels.panel import (
    Labelled,
    NamedTable,
    Panel,
    View,
    auroc_name,
    auroc_of,
    estimate,
    labelled,
    patients_of,
    posix,
    refused,
    retrospective_figures,
    said,
    stated,
    threshold_of,
    too_few,
)
from deployr_dash.panels.several import each_in_short
from deployr_plots.common import Estimate, Row, estimates_figure, intervals
from deployr_plots.figures import Axis, Figure, Kind, Level, slug
from deployr_plots.tables import Table
from deployr_plots.words import number, of, percent

_FEWEST_A_STRETCH = 20
"""Labelled rows under which a stretch of time has no estimate of its own."""
_STRETCHES = 12

_SHOWN = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "prevalence": "Outcome (prevalence)",
    "mean_score": "Mean score",
    "calibration_in_the_large": "Calibration in the large",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
    "calibration_error": "Calibration error (ECE)",
    "brier_score": "Brier score",
    "log_loss": "Log loss (nats)",
}


def in_short(view: View) -> Panel:
    """Show every figure of performance in service, beside what the bundle says of held-out history."""
    name, title = "performance", "Prospective beside retrospective"
    rows = labelled(view)
    if (why := refused(view, rows, name, title)) is not None:
        return why
    if view.target is not Target.BINARY:
        return (numbers_in_short if view.target is Target.REGRESSION else each_in_short)(view, name, title)
    found = measured_binary(view)
    before = retrospective_figures(view)
    table = Table(
        columns=("figure", "prospective, in this window", "retrospective, on held-out rows"),
        rows=tuple((shown, said(found.figures[key]), stated(before, key)) for key, shown in _SHOWN.items()),
    )
    now, then = found.figures["auroc"], before.get("auroc")
    sentences = [f"AUROC in this window: {said(now)}."]
    if isinstance(now, Interval) and isinstance(then, Interval):
        sentences.append(_compared(now, then))
    pairs = [Row(name="prospective", shown=estimate(now) or "not measurable")]
    pairs += [Row(name="retrospective", shown=estimate(then) or "not given")]
    pairs += _by_version(view, rows)
    figure = estimates_figure(
        pairs,
        title="AUROC, prospective beside retrospective, and by version",
        told="; ".join(f"{row.name}: {row.shown if isinstance(row.shown, str) else _told(row.shown)}" for row in pairs),
        name="auroc-in-short",
        measure="AUROC",
        rows_are="Rows",
        width=560,
    )
    patients = f"{of(found.rows, 'packet')} with a label, of {of(found.patients, 'patient')}"
    return Panel(
        name=name,
        title=title,
        said=(*sentences, f"Measured on {patients}, {percent(found.positives / found.rows)} of them with the outcome."),
        figures=(figure,),
        tables=(NamedTable(caption="Performance with 95 % intervals", table=table),),
        notes=(
            "Intervals: 95 %, bootstrap of patients. Only packets whose outcome was observed count; where clinicians"
            " act on the score that biases them, and the design-weighted estimate under Impact is the one to go by.",
            "By chance alone the calibration error of this many rows would be"
            f" {number(found.calibration_error_by_chance)}.",
            *too_few(rows),
        ),
    )


def over_time(view: View) -> Panel:
    """Show AUROC, or the error of numbers, by stretches of the window, held against what the bundle says."""
    name, title = "over-time", "Over time"
    rows = labelled(view)
    if (why := refused(view, rows, name, title)) is not None:
        return why
    edges = np.linspace(view.window.start.timestamp(), view.window.end.timestamp(), _stretches(view, rows) + 1)
    asked = posix(view.packets["received_at"])[rows.rows]
    place = np.clip(np.searchsorted(edges, asked, side="right") - 1, 0, edges.size - 2)
    points = []
    for stretch in range(edges.size - 1):
        some = rows.of(place == stretch)
        if some.labels.size < _FEWEST_A_STRETCH:
            continue
        shown = estimate(_main_figure(view, some))
        if shown is not None:
            points.append(((edges[stretch] + edges[stretch + 1]) / 2, shown))
    if not points:
        return Panel(name=name, title=title, missing="No stretch of this window has enough labels. Widen the window.")
    key, called, axis = _main(view, points)
    then = estimate(retrospective_figures(view).get(key))
    levels = [] if then is None else [Level(name="retrospective", at=then.value, low=then.low, high=then.high)]
    is_error = view.target is Target.REGRESSION
    figure = Figure(
        name=f"{slug(called)}-over-time",
        title=f"{called} over time",
        told="; ".join(f"{pd.Timestamp(x, unit='s'):%Y-%m-%d}: {_told(shown)}" for x, shown in points) + ".",
        x=Axis(name="Day of the request (UTC)", kind=Kind.TIME, low=float(edges[0]), high=float(edges[-1])),
        y=axis,
        marks=(*levels, replace(intervals(f"{called} in service", points), joined=True)),
        width=760,
        height=280,
    )
    return Panel(
        name=name,
        title=title,
        said=(_trend(points, then, rises_when_worse=is_error),),
        figures=(figure,),
        notes=(
            f"Stretches of equal length with at least {_FEWEST_A_STRETCH} labels. The last ones hold fewer, because"
            " labels take time.",
            *((f"Of the headline, {key.partition('.')[2]}.",) if "." in key else ()),
        ),
    )


def estimated(view: View) -> Panel:
    """Show what performance is expected to be on scores whose labels are not there yet."""
    name, title = "estimated", "Estimated, before labels"
    newest = view.packets.loc[view.packets["received_at"].idxmax(), "version"]
    reference = labelled(view, view.before.loc[view.before["version"] == newest])
    rows = labelled(view)
    scored = (view.packets["score"].notna() & (view.packets["version"] == newest)).to_numpy(dtype=bool, copy=True)
    scored[rows.rows] = False
    if view.target is Target.REGRESSION or not reference.labels.size or not scored.any():
        return Panel(
            name=name,
            title=title,
            missing="It needs, of the version that answered last, scores without labels in this window and"
            " probabilities with labels before it: those of another version mean something else.",
        )
    found = estimated_performance(
        view.packets["score"].to_numpy(dtype=np.float64)[scored],
        patients_of(view.packets)[scored],
        reference_labels=reference.labels,
        reference_scores=reference.scores,
        reference_patients=reference.patients,
        rng=view.rng(),
        threshold=threshold_of(view),
        resamples=view.resamples,
    )
    shown = ("auroc", "average_precision", "prevalence", "brier_score", "sensitivity", "ppv")
    return Panel(
        name=name,
        title=title,
        said=(
            f"Estimate, not measured: AUROC {said(found.figures['auroc'])} of {of(found.rows, 'unlabelled score')}.",
        ),
        tables=(
            NamedTable(
                caption=f"Estimated from {of(found.reference_rows, 'labelled packet')} of version {newest} before the"
                " window",
                table=Table(
                    columns=("figure", "estimate"),
                    rows=tuple(
                        (_SHOWN.get(key, key.upper() if len(key) == 3 else key.capitalize()), said(found.figures[key]))
                        for key in shown
                        if key in found.figures
                    ),
                ),
            ),
        ),
        notes=(EstimatedPerformance.ASSUMES,),
    )


@lru_cache(maxsize=2)
def measured_binary(view: View) -> BinaryPerformance:
    """Measure the labelled rows, at the threshold in force and at fixed alert rates of all scores.

    Kept for the views that were looked at last: several panels show parts of it, and it is most of a page's work.
    """
    rows = labelled(view)
    return binary_performance(
        rows.labels,
        rows.scores,
        rows.patients,
        rng=view.rng(),
        threshold=threshold_of(view),
        scored=scores_of(view.packets),
        resamples=view.resamples,
    )


def scores_of(packets: pd.DataFrame) -> Floats:
    """Give the scores that there are."""
    found: Floats = packets["score"].dropna().to_numpy(dtype=np.float64)
    return found


def _main(view: View, points: Sequence[tuple[float, Estimate]]) -> tuple[str, str, Axis]:
    """Give the manifest's key of the figure that is followed, what it is called, and its axis."""
    if view.target is Target.REGRESSION:
        high = 1.15 * max(shown.high for _, shown in points)
        return "mae", "Mean absolute error", Axis(name="Mean absolute error", unit=view.unit, low=0.0, high=high)
    least = min(0.5, *(shown.low for _, shown in points))
    return auroc_name(view), "AUROC", Axis(name="AUROC", low=least, high=1.0)


def _main_figure(view: View, rows: Labelled) -> Measured:
    if view.target is not Target.REGRESSION:
        return auroc_of(view, rows)
    errors = Ratios(
        names=("mae",),
        lacks=("at least one row",),
        numerators=np.abs(rows.scores - rows.labels)[:, np.newaxis],
        denominators=np.ones((rows.labels.size, 1)),
        shares=(False,),
    )
    return measure([errors], rows.patients, rng=view.rng(), resamples=view.resamples)["mae"]


def _by_version(view: View, rows: Labelled) -> list[Row]:
    """Give each version's AUROC where the window holds several."""
    versions = view.packets["version"].astype("object").to_numpy()[rows.rows]
    names = sorted({str(each) for each in versions})
    if len(names) < 2:
        return []
    found = []
    for name in names:
        some = rows.of(versions == name)
        shown = estimate(auroc_of(view, some))
        found.append(Row(name=f"version {name}", shown=shown or "not measurable"))
    return found


def _stretches(view: View, rows: Labelled) -> int:
    return int(min(_STRETCHES, view.window.days, max(1, rows.labels.size // (2 * _FEWEST_A_STRETCH))))


def _trend(points: Sequence[tuple[float, Estimate]], then: Estimate | None, *, rises_when_worse: bool) -> str:
    first, last = points[0][1], points[-1][1]
    sentence = f"First stretch {_told(first)}, last {_told(last)}."
    if then is not None and (last.low > then.high if rises_when_worse else last.high < then.low):
        side = "above" if rises_when_worse else "below"
        sentence += f" The last lies {side} the whole interval of the retrospective figure."
    return sentence


def _compared(now: Interval, then: Interval) -> str:
    if now.high < then.low:
        return f"That is lower than on held-out rows, {said(then)}: the intervals do not meet."
    if now.low > then.high:
        return f"That is higher than on held-out rows, {said(then)}: the intervals do not meet."
    return f"On held-out rows it was {said(then)}; the intervals meet."


def _told(shown: Estimate) -> str:
    return f"{number(shown.value)} ({number(shown.low)} to {number(shown.high)})"
