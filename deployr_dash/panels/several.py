"""Whatever a model predicts, with all of its outputs; and what is shown of several classes or several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, Interval, NotMeasurable
from deployr_core.calibration import CalibrationBin
from deployr_core.curves import roc_curve
from deployr_core.monitoring.binary import BinaryPerformance
from deployr_core.monitoring.more_outcomes import AnyPerformance, ClassPerformance, LabelPerformance, performance
from deployr_core.monitoring.number_errors import NumberPerformance
from deployr_core.outputs import Outputs, Target
from deployr_core.target_figures import one_column_each
from deployr_dash.panels.panel import (
    NamedTable,
    Panel,
    View,
    estimate,
    labelled,
    retrospective_figures,
    said,
    side_by_side,
    stated,
    threshold_of,
    too_few,
)
from deployr_plots.common import Curve, Estimate, calibration_figure, roc_figure
from deployr_plots.figures import SERIES, Axis, Figure, Kind, numbers, slug
from deployr_plots.tables import Table
from deployr_plots.words import count, number, of, percent

MOST_POINTS = 400
"""Of a curve: more could not be told apart."""
_FIGURES = {
    "auroc": "AUROC, mean",
    "average_precision": "Average precision, mean",
    "accuracy": "Accuracy of the likeliest",
    "brier_score": "Brier score",
    "log_loss": "Log loss (nats)",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """All outputs of labelled packets, as `deployr_core.monitoring.more_outcomes.performance` takes them.

    ``labels``: shape (n_rows,), or (n_rows, n_labels). ``answers``: shape (n_rows, n_outputs). ``rows``: their places
    in the view's packets.
    """

    outputs: Outputs
    rows: NDArray[np.intp]
    labels: Floats
    answers: Floats
    patients: NDArray[np.int64]


@lru_cache(maxsize=2)
def answered(view: View) -> Answered:
    """Give the rows that count, with every output; packets of a version with other outputs are left out.

    Kept for the views that were looked at last.

    Raises:
        NotMeasurable: no bundle is at hand, which names the outputs, or no packet holds all of them.
    """
    if view.manifest is None:
        raise NotMeasurable("expected the model's bundle, which names its outputs; see DEPLOYR_BUNDLE_ARCHIVE")
    outputs, rows = view.manifest.task.outputs, labelled(view)
    packets = view.packets.iloc[rows.rows]
    if len(outputs.names) == 1:
        labels, answers = rows.labels, rows.scores[:, np.newaxis]
    else:
        answers = _by_name(packets["outputs"], outputs.names)
        if outputs.target is Target.MULTICLASS:
            places = {name: float(place) for place, name in enumerate(outputs.names)}
            classes = packets["label_class"].astype("object")
            labels = np.array([places.get(str(each), np.nan) for each in classes], dtype=np.float64)
        else:
            labels = _by_name(packets["label_values"], outputs.names)
    whole = np.isfinite(labels.reshape(len(labels), -1)).all(axis=1) & np.isfinite(answers).all(axis=1)
    if not whole.any():
        raise NotMeasurable(f"expected packets with a label that hold each of {', '.join(outputs.names)}")
    return Answered(
        outputs=outputs,
        rows=rows.rows[whole],
        labels=labels[whole],
        answers=answers[whole],
        patients=rows.patients[whole],
    )


@lru_cache(maxsize=2)
def measured_whole(view: View) -> AnyPerformance:
    """Measure every output of the labelled rows; kept for the views that were looked at last."""
    rows = answered(view)
    return performance(
        rows.outputs,
        rows.labels,
        rows.answers,
        rows.patients,
        rng=view.rng(),
        threshold=threshold_of(view),
        resamples=view.resamples,
    )


def measured_numbers(view: View) -> NumberPerformance:
    """Measure predicted numbers.

    Raises:
        NotMeasurable: as for `answered`, or the model predicts something else.
    """
    found = measured_whole(view)
    if not isinstance(found, NumberPerformance):
        raise NotMeasurable("expected a model that predicts a number")
    return found


def each_in_short(view: View, name: str, title: str) -> Panel:
    """Show the figures of every class or label, in service beside what the bundle says of held-out history."""
    found, then = _measured(view), retrospective_figures(view)
    names, which = _names(view), _which(view)
    every = {key: shown for key, shown in _FIGURES.items() if key in found.figures}
    by_name = {each: _figures_of(found, each) for each in names}
    columns = ("prevalence", "auroc", "average_precision", "sensitivity", "ppv")
    shown = [key for key in columns if all(key in figures for figures in by_name.values())]
    titles = {"prevalence": "share with it", "auroc": "AUROC", "average_precision": "average precision", "ppv": "PPV"}
    return Panel(
        name=name,
        title=title,
        said=(
            f"Mean AUROC over {of(len(names), which, f'{which}es' if which == 'class' else f'{which}s')}:"
            f" {said(found.figures['auroc'])}; on held-out rows {stated(then, 'auroc')}.",
            f"Measured on {of(found.rows, 'packet')} with a label, of {of(found.patients, 'patient')}.",
        ),
        figures=(_beside(names, {each: figures["auroc"] for each, figures in by_name.items()}, then, which),),
        tables=(
            NamedTable(
                caption="Performance with 95 % intervals",
                table=Table(
                    columns=("figure", "prospective, in this window", "retrospective, on held-out rows"),
                    rows=tuple(
                        (shown_as, said(found.figures[key]), stated(then, key)) for key, shown_as in every.items()
                    ),
                ),
            ),
            NamedTable(
                caption=f"By {which}",
                table=Table(
                    columns=(which, *(titles.get(key, key) for key in shown), "AUROC, held-out"),
                    rows=tuple(
                        (
                            each,
                            *(said(figures[key], as_percent=key in _SHARES) for key in shown),
                            stated(then, f"auroc.{each}"),
                        )
                        for each, figures in by_name.items()
                    ),
                ),
            ),
        ),
        notes=(
            "A class is held against all others together; sensitivity and PPV are of the likeliest class."
            if isinstance(found, ClassPerformance)
            else "Each label is measured as an outcome of its own.",
            "Intervals: 95 %, bootstrap of patients. Panels below that need one score take the headline, "
            f"{_outputs(view).headline}.",
            *too_few(labelled(view)),
        ),
    )


def each_roc(view: View, name: str, title: str) -> Panel:
    """Show the ROC curve of every class or label, at most five: the headline, then those told apart worst."""
    found, rows = _measured(view), answered(view)
    columns = one_column_each(rows.outputs, rows.labels)
    areas = {each: _figures_of(found, each)["auroc"] for each in rows.outputs.names}
    chosen = _chosen(rows.outputs, areas)
    if not chosen:
        why = "; ".join(f"{each}: {said(area)}" for each, area in areas.items())
        return Panel(name=name, title=title, missing=f"Nothing can be told apart here. {why}.")
    curves = []
    for each in chosen:
        place = rows.outputs.names.index(each)
        curve = roc_curve(columns[:, place], rows.answers[:, place])
        curves.append(thinned(curve.false_positive_rates, curve.sensitivities, name=each))
    told = "; ".join(f"{each}: {said(areas[each])}" for each in chosen)
    return Panel(
        name=name,
        title=title,
        said=(f"Area under each curve: {told}.",),
        figures=(
            replace(
                roc_figure(curves, told=f"Areas under the curves: {told}.", negatives="all other packets"), width=480
            ),
        ),
        notes=_left_out(rows.outputs, chosen),
    )


def each_calibration(view: View, name: str, title: str) -> Panel:
    """Show what happened against what was said, of every class or label, at most five."""
    found, outputs = _measured(view), _outputs(view)
    areas = {each: _figures_of(found, each)["auroc"] for each in outputs.names}
    chosen = _chosen(outputs, areas) or outputs.names[: len(SERIES)]
    series = []
    for each in chosen:
        bins = _calibration_of(found, each)
        series.append((each, [(b.mean_score, s) for b in bins if (s := estimate(b.observed)) is not None]))
    told = "; ".join(
        f"{each}: " + ", ".join(f"said {percent(x)}, happened {percent(seen.value)}" for x, seen in points)
        for each, points in series
    )
    off = {each: _largest_gap(points) for each, points in series}
    worst = max(off, key=lambda each: off[each])
    return Panel(
        name=name,
        title=title,
        said=(f"Furthest from the line in a bin: {worst}, by {number(100 * off[worst], digits=1)} percentage points.",),
        figures=(replace(calibration_figure(series, told=f"{told}."), width=480),),
        notes=(
            "Bins hold about equally many packets. Intervals: 95 %, bootstrap of patients.",
            *_left_out(outputs, chosen),
        ),
    )


def confusion_panel(view: View, name: str, title: str) -> Panel:
    """Show which class was the likeliest where which happened, as shares of what happened."""
    found = _measured(view)
    if not isinstance(found, ClassPerformance):
        raise NotMeasurable("expected a model of several classes")
    names = found.names
    marks = side_by_side(
        names,
        {
            shown: {each: found.figures[f"{key}.{each}"] for each in names}
            for key, shown in (("sensitivity", "called so, of those it was"), ("ppv", "were it, of those called so"))
        },
    )
    told = "; ".join(
        f"{each}: called so {said(found.figures[f'sensitivity.{each}'], as_percent=True)} of those it was, right"
        f" {said(found.figures[f'ppv.{each}'], as_percent=True)} of the times"
        for each in names
    )
    return Panel(
        name=name,
        title=title,
        said=(f"The likeliest class was right in {said(found.figures['accuracy'], as_percent=True)} of the packets.",),
        figures=(
            Figure(
                name="classes",
                title="The likeliest class, by class",
                told=f"{told}.",
                x=Axis(name="Share", kind=Kind.PERCENT, low=0.0, high=1.0),
                y=Axis(name="Class", kind=Kind.NAMES, names=names),
                marks=marks,
                width=620,
                height=120 + 34 * len(names),
            ),
        ),
        tables=(
            NamedTable(
                caption="Packets by what happened, and by the likeliest class",
                table=Table(
                    columns=("what happened", *(f"called {each}" for each in names)),
                    rows=tuple((each, *counts) for each, counts in zip(names, found.confusion, strict=True)),
                ),
            ),
        ),
        notes=("Intervals: 95 %, bootstrap of patients. No threshold takes part: the likeliest class counts.",),
    )


def thinned(x: Floats, y: Floats, *, name: str = "") -> Curve:
    """Give a curve of at most `MOST_POINTS` points, both ends among them."""
    kept = np.unique(np.linspace(0, x.size - 1, min(x.size, MOST_POINTS)).astype(int))
    return Curve(name=name, x=numbers(x[kept]), y=numbers(y[kept]))


_SHARES = frozenset({"prevalence", "sensitivity", "ppv"})


def _measured(view: View) -> ClassPerformance | LabelPerformance:
    found = measured_whole(view)
    if not isinstance(found, ClassPerformance | LabelPerformance):
        raise NotMeasurable("expected a model of several classes or labels")
    return found


def _outputs(view: View) -> Outputs:
    return answered(view).outputs


def _names(view: View) -> tuple[str, ...]:
    return _outputs(view).names


def _which(view: View) -> str:
    return "class" if view.target is Target.MULTICLASS else "label"


def _figures_of(found: ClassPerformance | LabelPerformance, name: str) -> Mapping[str, Measured]:
    if isinstance(found, LabelPerformance):
        return found.by_label[name].figures
    ending = f".{name}"
    return {key.removesuffix(ending): figure for key, figure in found.figures.items() if key.endswith(ending)}


def _calibration_of(found: ClassPerformance | LabelPerformance, name: str) -> tuple[CalibrationBin, ...]:
    if isinstance(found, ClassPerformance):
        return found.calibration[name]
    label: BinaryPerformance = found.by_label[name]
    return label.calibration


def _chosen(outputs: Outputs, areas: Mapping[str, Measured]) -> tuple[str, ...]:
    """Give the outputs that curves are drawn of: the headline, and of the others those that are told apart worst."""
    known = {each: area.value for each, area in areas.items() if isinstance(area, Interval)}
    worst = sorted((each for each in known if each != outputs.headline), key=lambda each: known[each])
    first = (outputs.headline,) if outputs.headline in known else ()
    return (*first, *worst)[: len(SERIES)]


def _left_out(outputs: Outputs, chosen: Sequence[str]) -> tuple[str, ...]:
    left = len(outputs.names) - len(chosen)
    if left <= 0:
        return ()
    return (f"{count(left)} more are in the table above: here are the headline and those told apart worst.",)


def _beside(names: Sequence[str], now: Mapping[str, Measured], then: Mapping[str, Measured], which: str) -> Figure:
    """Draw each one's AUROC in service, and below it that of held-out rows where the bundle says it."""
    earlier = {each: then[f"auroc.{each}"] for each in names if f"auroc.{each}" in then}
    marks = side_by_side(names, {"prospective": now, "retrospective": earlier})
    lows = [low for mark in marks for low in mark.low]
    return Figure(
        name=f"auroc-by-{slug(which)}",
        title=f"AUROC by {which}, prospective beside retrospective",
        told="; ".join(f"{each}: {said(now[each])}" for each in names) + ".",
        x=Axis(name="AUROC", low=min(0.5, int(10 * min(lows, default=0.5)) / 10), high=1.0),
        y=Axis(name=which.capitalize(), kind=Kind.NAMES, names=tuple(names)),
        marks=marks,
        width=620,
        height=110 + 34 * len(names),
    )


def _largest_gap(points: Sequence[tuple[float, Estimate]]) -> float:
    return max((abs(seen.value - x) for x, seen in points), default=0.0)


def _by_name(column: Sequence[object], names: tuple[str, ...]) -> Floats:
    """Give the numbers of maps by name, shape (n_rows, n_names), NaN where one lacks it."""
    found: Floats = np.full((len(column), len(names)), np.nan)
    for row, each in enumerate(column):
        if each is None or isinstance(each, float):
            continue
        held = dict(each)  # type: ignore[call-overload]
        found[row] = [held.get(name, np.nan) for name in names]
    return found
