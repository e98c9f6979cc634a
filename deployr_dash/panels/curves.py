"""Discrimination, calibration, the spread of scores, and what follows from a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deployr_core.bootstrap import Floats, Interval
from deployr_core.curves import precision_recall_curve, roc_curve
from deployr_core.monitoring.binary import AtThreshold, BinaryPerformance, NoThreshold
from deployr_core.outputs import Target
from deployr_dash.panels.of_numbers import agreement, error_by_size
from deployr_dash.panels.panel import (
    Labelled,
    NamedTable,
    Panel,
    View,
    estimate,
    labelled,
    refused,
    retrospective_figures,
    said,
    stated,
    threshold_of,
    too_few,
)
from deployr_dash.panels.performance import measured_binary, scores_of
from deployr_dash.panels.several import confusion_panel, each_calibration, each_roc, thinned
from deployr_plots.common import (
    Curve,
    Estimate,
    Row,
    calibration_figure,
    estimates_figure,
    precision_recall_figure,
    roc_figure,
    spread_figure,
)
from deployr_plots.figures import Axis, Figure, Kind, numbers, round_ends
from deployr_plots.tables import Table
from deployr_plots.words import count, number, of, percent

_BINS = 20


def discrimination(view: View) -> Panel:
    """Show the ROC and the precision-recall curve, with where the deployment's threshold lies on them."""
    name, title = "discrimination", "Discrimination"
    rows = labelled(view)
    if (why := refused(view, rows, name, title)) is not None:
        return why
    if view.target is Target.REGRESSION:
        return error_by_size(view, name, "Error by size")
    if view.target is not Target.BINARY:
        return each_roc(view, name, title)
    found = measured_binary(view)
    roc, precision = found.figures["auroc"], found.figures["average_precision"]
    if not isinstance(roc, Interval):
        one = np.unique(rows.labels).size == 1
        missing = _one_class(rows) if one else f"AUROC is {said(roc)}. Widen the window."
        return Panel(name=name, title=title, missing=missing)
    at = _own_threshold(found)
    chosen = None if at is None else _points_at(at)
    curve = roc_curve(rows.labels, rows.scores)
    steps = precision_recall_curve(rows.labels, rows.scores)
    then = view.retrospective
    beside = then is not None and bool(then.roc) and bool(then.precision_recall)
    called = "prospective" if beside else ""
    figures = (
        roc_figure(
            [
                thinned(curve.false_positive_rates, curve.sensitivities, name=called),
                *([_held_out(then.roc)] if then is not None and beside else []),
            ],
            told=f"Area under the curve {said(roc)}. {_told_at(at)}"
            + (f" On held-out rows it was {stated(retrospective_figures(view), 'auroc')}." if beside else ""),
            operating=None if chosen is None else chosen[0],
            negatives="packets without the outcome",
        ),
        precision_recall_figure(
            [
                thinned(steps.recalls, steps.precisions, name=called),
                *([_held_out(then.precision_recall)] if then is not None and beside else []),
            ],
            told=f"Average precision {said(precision)}. A model that knows nothing gets"
            f" {said(found.figures['prevalence'])}.",
            prevalence=float(rows.labels.mean()),
            operating=None if chosen is None else chosen[1],
        ),
    )
    return Panel(
        name=name,
        title=title,
        said=(f"AUROC {said(roc)}, average precision {said(precision)}.",),
        figures=tuple(_behind(figure) for figure in figures),
        notes=(
            *(("The diamond is the deployment's threshold.",) if at else ()),
            *(
                (f"Retrospective: version {then.version} on held-out rows, by training's report.",)
                if then is not None and beside
                else ()
            ),
        ),
    )


def calibration(view: View) -> Panel:
    """Show what happened against what was said."""
    name, title = "calibration", "Calibration"
    rows = labelled(view)
    if (why := refused(view, rows, name, title)) is not None:
        return why
    if view.target is not Target.BINARY:
        return (agreement if view.target is Target.REGRESSION else each_calibration)(view, name, title)
    found = measured_binary(view)
    points = [(each.mean_score, shown) for each in found.calibration if (shown := estimate(each.observed)) is not None]
    if not points:
        gap = found.figures["calibration_in_the_large"]
        return Panel(name=name, title=title, missing=f"Nothing can be drawn: {said(gap)}. Widen the window.")
    told = "; ".join(f"said {percent(x)}, happened {percent(shown.value)}" for x, shown in points)
    then = view.retrospective
    series: list[tuple[str, list[tuple[float, Estimate]]]] = [("", points)]
    if then is not None and then.calibration:
        seen = [(x, shown) for x, figure in then.calibration if (shown := estimate(figure)) is not None]
        series = [("prospective", points), ("retrospective", seen)]
    gap = found.figures["calibration_in_the_large"]
    sentence = f"What happened less what was said, on average: {said(gap)}."
    if isinstance(gap, Interval) and not gap.low <= 0 <= gap.high:
        sentence += " The scores promise too little." if gap.low > 0 else " The scores promise too much."
    return Panel(
        name=name,
        title=title,
        said=(sentence, f"Slope {said(found.figures['calibration_slope'])}; 1 is right, below it scores are too sure."),
        figures=(_behind(calibration_figure(series, told=f"In {len(found.calibration)} bins of scores: {told}.")),),
        notes=(
            "Bins hold about equally many packets. Intervals: 95 %, bootstrap of patients.",
            *(
                (f"Retrospective: version {then.version} on held-out rows, by training's report.",)
                if then is not None and len(series) > 1
                else ()
            ),
        ),
    )


def distributions(view: View) -> Panel:
    """Show how scores are spread: with the outcome and without, and before and now."""
    name, title = "distributions", "Distributions"
    scores = scores_of(view.packets)
    if not scores.size:
        return Panel(name=name, title=title, missing="No packet in this window was scored.")
    threshold = threshold_of(view)
    rows, earlier = labelled(view), scores_of(view.before)
    unit = "" if view.manifest is None else view.manifest.task.outputs.unit or ""
    ends = (0.0, 1.0) if view.target is not Target.REGRESSION else _ends(scores, earlier, rows.labels)
    figures: list[Figure] = []
    if rows.labels.size and view.target is Target.REGRESSION:
        figures.append(
            spread_figure(
                ("predicted", _shares(rows.scores, ends)),
                ("observed", _shares(rows.labels, ends)),
                told=f"{of(rows.labels.size, 'packet')} with a label, what was predicted upwards and what was observed"
                f" downwards. Means {number(float(rows.scores.mean()))} and {number(float(rows.labels.mean()))}.",
                title="Predicted and observed",
                name="predicted-and-observed",
                ends=ends,
                x_name="Predicted or observed",
                unit=unit,
            )
        )
    if rows.labels.size and view.target is not Target.REGRESSION:
        yes, no = rows.scores[rows.labels == 1.0], rows.scores[rows.labels == 0.0]
        figures.append(
            spread_figure(
                ("with outcome", _shares(yes, ends)),
                ("without", _shares(no, ends)),
                told=f"{of(yes.size, 'packet')} with the outcome upwards and {count(no.size)} without it downwards,"
                " each side to its own total.",
                title="Scores by outcome",
                name="scores-by-outcome",
                threshold=threshold,
            )
        )
    if earlier.size:
        figures.append(
            spread_figure(
                ("this window", _shares(scores, ends)),
                ("before", _shares(earlier, ends)),
                told=f"{of(scores.size, 'score')} of this window upwards, {count(earlier.size)} of the time before"
                f" downwards, each side to its own total. Means {number(float(scores.mean()))} and"
                f" {number(float(earlier.mean()))}.",
                title="Scores now and before",
                name="scores-now-and-before",
                ends=ends,
                threshold=threshold,
                unit=unit,
            )
        )
    sentence = f"{of(scores.size, 'score')}, mean {number(float(scores.mean()))}."
    if threshold is not None:
        sentence += f" {percent(float((scores >= threshold).mean()))} reach the threshold of {number(threshold)}."
    return Panel(
        name=name,
        title=title,
        said=(sentence,),
        figures=tuple(figures),
        notes=(
            *(("There is no earlier period of the same length to compare with.",) if not earlier.size else ()),
            *((f"Scores are of the headline, {headline}.",) if (headline := _headline(view)) else ()),
        ),
    )


def at_thresholds(view: View) -> Panel:
    """Show what comes of alerting at the deployment's threshold and at fixed alert rates."""
    name, title = "thresholds", "At thresholds"
    rows = labelled(view)
    why = refused(view, rows, name, title, of_numbers="The model predicts a number; nothing alerts at a probability.")
    if why is not None:
        return why
    if view.target is Target.MULTICLASS:
        return confusion_panel(view, name, "Confusion")
    found = measured_binary(view)
    shown = ("sensitivity", "specificity", "ppv", "npv")
    lines: list[tuple[str | float | None, ...]] = []
    for each in found.at:
        if isinstance(each, NoThreshold):
            lines.append((f"{percent(each.alert_rate)} alerts", each.why, *[""] * 5))
            continue
        label = "deployment" if each.alert_rate is None else f"{percent(each.alert_rate)} alerts"
        nne = said(each.figures["number_needed_to_evaluate"], digits=1)
        lines.append((label, number(each.threshold), *(said(each.figures[key], as_percent=True) for key in shown), nne))
    own = _own_threshold(found)
    figures: tuple[Figure, ...] = ()
    tables = [
        NamedTable(
            caption="What comes of alerting, with 95 % intervals",
            table=Table(
                columns=("alerting on", "threshold", "sensitivity", "specificity", "PPV", "NPV", "needed to evaluate"),
                rows=tuple(lines),
            ),
        )
    ]
    if own is not None:
        cells = own.confusion
        tables.append(
            NamedTable(
                caption=f"Packets at the deployment's threshold of {number(own.threshold)}",
                table=Table(
                    columns=("decision", "with the outcome", "without it"),
                    rows=(
                        ("alert", cells.true_positives, cells.false_positives),
                        ("no alert", cells.false_negatives, cells.true_negatives),
                    ),
                ),
            )
        )
        four = [
            Row(name=key.upper() if len(key) == 3 else key, shown=estimate(own.figures[key]) or "not measurable")
            for key in shown
        ]
        figures = (
            estimates_figure(
                four,
                title="At the deployment's threshold",
                told="; ".join(f"{key}: {said(own.figures[key], as_percent=True)}" for key in shown) + ".",
                name="at-threshold",
                measure="Share",
                axis=Axis(name="Share", kind=Kind.PERCENT, low=0.0, high=1.0),
                rows_are="Figure",
                width=520,
            ),
        )
    return Panel(
        name=name,
        title=title,
        said=(
            _told_at(own) or "The deployment has no threshold in this window; below is what fixed alert rates give.",
        ),
        figures=figures,
        tables=tuple(tables),
        notes=("Number needed to evaluate: alerts that are looked at for each one that is right.", *too_few(rows)),
    )


def _own_threshold(found: BinaryPerformance) -> AtThreshold | None:
    return next((each for each in found.at if isinstance(each, AtThreshold) and each.alert_rate is None), None)


def _points_at(at: AtThreshold) -> tuple[tuple[float, float], tuple[float, float]] | None:
    sensitivity, specificity, ppv = (at.figures[name] for name in ("sensitivity", "specificity", "ppv"))
    if isinstance(sensitivity, Interval) and isinstance(specificity, Interval) and isinstance(ppv, Interval):
        return (1 - specificity.value, sensitivity.value), (sensitivity.value, ppv.value)
    return None


def _told_at(at: AtThreshold | None) -> str:
    if at is None:
        return ""
    sensitivity, ppv = (said(at.figures[name], as_percent=True) for name in ("sensitivity", "ppv"))
    return f"At the threshold of {number(at.threshold)}: sensitivity {sensitivity}, PPV {ppv}."


def _one_class(rows: Labelled) -> str:
    which = "all of them with the outcome" if rows.labels.all() else "none of them with the outcome"
    return (
        f"{of(rows.labels.size, 'packet')} have a label, {which}: how well scores tell apart cannot be said of one"
        " class. Widen the window or the cohort; if it stays so, check the label's rule with `deployr labels`."
    )


def _behind(figure: Figure) -> Figure:
    """Draw what is of held-out rows first, so that what is of the window lies on it."""
    return replace(
        figure, marks=tuple(sorted(figure.marks, key=lambda mark: getattr(mark, "name", "") != "retrospective"))
    )


def _held_out(points: Sequence[tuple[float, float]]) -> Curve:
    return Curve(name="retrospective", x=numbers(x for x, _ in points), y=numbers(y for _, y in points))


def _headline(view: View) -> str:
    """Name the headline of several outputs; empty where there is but one."""
    if view.manifest is None or view.target not in {Target.MULTICLASS, Target.MULTILABEL}:
        return ""
    return view.manifest.task.outputs.headline


def _shares(scores: Floats, ends: tuple[float, float]) -> tuple[float, ...]:
    counts, _ = np.histogram(scores, bins=_BINS, range=ends)
    return numbers(counts / max(1, counts.sum()))


def _ends(*columns: Floats) -> tuple[float, float]:
    """Give round numbers around all of them: the smallest and the largest themselves are each of one patient."""
    every = np.concatenate(columns)
    return round_ends(float(every.min()), float(every.max()))
