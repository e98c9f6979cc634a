"""How well scores tell outcomes apart and how true they are, in service beside before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, Interval, Ratios, measure
from deployr_core.monitoring.binary import BinaryPerformance, binary_performance
from deployr_core.monitoring.estimated import EstimatedPerformance, estimated_performance
from deployr_core.outputs import Target
from deployr_dash.panels.panel import (
    Labelled,
    NamedTable,
    Panel,
    View,
    auroc_of,
    estimate,
    labelled,
    nothing_labelled,
    patients_of,
    posix,
    said,
    threshold_of,
    too_few,
)
from deployr_plots.common import (
    Estimate,
    Row,
    agreement_figure,
    estimates_figure,
)
from deployr_plots.figures import Axis, Figure, Kind, Level, Points, numbers
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
    if view.target is Target.REGRESSION:
        return _of_numbers(view, name, title)
    rows = labelled(view)
    if not rows.labels.size:
        return nothing_labelled(view, name, title)
    found = measured_binary(view)
    before = _retrospective(view)
    both = [(shown, found.figures.get(key), before.get(key)) for key, shown in _SHOWN.items()]
    table = Table(
        columns=("figure", "prospective, in this window", "retrospective, on held-out rows"),
        rows=tuple(
            (shown, "" if now is None else said(now), "not given" if then is None else said(then))
            for shown, now, then in both
        ),
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
    """Show AUROC and calibration by stretches of the window, held against what the bundle says."""
    name, title = "over-time", "Over time"
    rows = labelled(view)
    if view.target is Target.REGRESSION:
        return Panel(name=name, title=title, missing="Not drawn for numbers yet: narrow the window instead.")
    if not rows.labels.size:
        return nothing_labelled(view, name, title)
    edges = np.linspace(view.window.start.timestamp(), view.window.end.timestamp(), _stretches(view, rows) + 1)
    asked = posix(view.packets["received_at"])[rows.rows]
    place = np.clip(np.searchsorted(edges, asked, side="right") - 1, 0, edges.size - 2)
    points = []
    for stretch in range(edges.size - 1):
        some = rows.of(place == stretch)
        if some.labels.size < _FEWEST_A_STRETCH:
            continue
        shown = estimate(auroc_of(view, some))
        if shown is not None:
            points.append(((edges[stretch] + edges[stretch + 1]) / 2, shown))
    then = estimate(_retrospective(view).get("auroc"))
    marks = [
        Points(
            name="AUROC in service",
            x=numbers(x for x, _ in points),
            y=numbers(shown.value for _, shown in points),
            low=numbers(shown.low for _, shown in points),
            high=numbers(shown.high for _, shown in points),
            joined=True,
        )
    ]
    levels = [] if then is None else [Level(name="retrospective", at=then.value, low=then.low, high=then.high)]
    if not points:
        return Panel(name=name, title=title, missing="No stretch of this window has enough labels. Widen the window.")
    least = min(0.5, *(shown.low for _, shown in points))
    figure = Figure(
        name="auroc-over-time",
        title="AUROC over time",
        told="; ".join(f"{pd.Timestamp(x, unit='s'):%Y-%m-%d}: {_told(shown)}" for x, shown in points) + ".",
        x=Axis(name="Day of the request (UTC)", kind=Kind.TIME, low=float(edges[0]), high=float(edges[-1])),
        y=Axis(name="AUROC", low=least, high=1.0),
        marks=(*levels, *marks),
        width=760,
        height=280,
    )
    return Panel(
        name=name,
        title=title,
        said=(_trend(points, then),),
        figures=(figure,),
        notes=(
            f"Stretches of equal length with at least {_FEWEST_A_STRETCH} labels. The last ones hold fewer, because"
            " labels take time.",
        ),
    )


def estimated(view: View) -> Panel:
    """Show what performance is expected to be on scores whose labels are not there yet."""
    name, title = "estimated", "Estimated, before labels"
    reference = labelled(view, view.before)
    rows = labelled(view)
    scored = view.packets["score"].notna().to_numpy(dtype=bool, copy=True)
    scored[rows.rows] = False
    if view.target is Target.REGRESSION or not reference.labels.size or not scored.any():
        return Panel(
            name=name,
            title=title,
            missing="It needs scores without labels in this window, and probabilities with labels before it.",
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
                caption=f"Estimated from {of(found.reference_rows, 'labelled packet')} before the window",
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


def _retrospective(view: View) -> dict[str, Measured]:
    """Give what the newest bundle at hand says of its held-out rows, by the names of the core's figures."""
    if view.manifest is None:
        return {}
    return {
        name: Interval(value=stated.value, low=stated.low, high=stated.high, resamples=0)
        for name, stated in view.manifest.evaluation.figures.items()
    }


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


def _trend(points: Sequence[tuple[float, Estimate]], then: Estimate | None) -> str:
    first, last = points[0][1], points[-1][1]
    sentence = f"First stretch {_told(first)}, last {_told(last)}."
    if then is not None and last.high < then.low:
        sentence += " The last lies below the whole interval of the retrospective figure."
    return sentence


def _compared(now: Interval, then: Interval) -> str:
    if now.high < then.low:
        return f"That is lower than on held-out rows, {said(then)}: the intervals do not meet."
    if now.low > then.high:
        return f"That is higher than on held-out rows, {said(then)}: the intervals do not meet."
    return f"On held-out rows it was {said(then)}; the intervals meet."


def _told(shown: Estimate) -> str:
    return f"{number(shown.value)} ({number(shown.low)} to {number(shown.high)})"


def _of_numbers(view: View, name: str, title: str) -> Panel:
    """Show predicted beside observed numbers."""
    rows = labelled(view)
    if rows.labels.size < 2:
        return nothing_labelled(view, name, title)
    unit = (None if view.manifest is None else view.manifest.task.outputs.unit) or "unit of the score"
    order = np.argsort(rows.scores, kind="stable")
    parts = [part for part in np.array_split(order, min(10, max(1, rows.labels.size // 20))) if part.size]
    bin_of_row = np.zeros(rows.labels.size, dtype=np.int64)
    for place, part in enumerate(parts):
        bin_of_row[part] = place
    inside = (bin_of_row[:, np.newaxis] == np.arange(len(parts))).astype(np.float64)
    columns = [*(inside * rows.labels[:, np.newaxis]).T, np.abs(rows.scores - rows.labels), rows.scores - rows.labels]
    ratios = Ratios(
        names=(*(f"observed@{place}" for place in range(len(parts))), "mae", "bias"),
        lacks=("at least one row",) * len(columns),
        numerators=np.column_stack(columns),
        denominators=np.column_stack([*inside.T, np.ones(rows.labels.size), np.ones(rows.labels.size)]),
        shares=(False,) * len(columns),
    )
    found = measure([ratios], rows.patients, rng=view.rng(), resamples=view.resamples)
    points = [
        (float(rows.scores[part].mean()), shown)
        for place, part in enumerate(parts)
        if (shown := estimate(found[f"observed@{place}"])) is not None
    ]
    return Panel(
        name=name,
        title=title,
        said=(
            f"Mean absolute error {said(found['mae'], digits=2)} {unit}; on average"
            f" {said(found['bias'], digits=2)} {unit} too high.",
        ),
        figures=(
            agreement_figure(
                points,
                told="; ".join(f"predicted {number(x, digits=2)}, observed {_told(shown)}" for x, shown in points)
                + ".",
                title="Predicted against observed",
                name="agreement",
                unit=unit,
            ),
        ),
        notes=("Bins of about equally many packets. Intervals: 95 %, bootstrap of patients.", *too_few(rows)),
    )
