"""What is shown of a model that predicts a number: how far it is off, by how much it said and how much it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Interval
from deployr_core.monitoring.number_errors import ErrorBin
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
    too_few,
)
from deployr_dash.panels.several import measured_numbers
from deployr_plots.common import agreement_figure, intervals
from deployr_plots.figures import Axis, Figure, Kind, Level, Role, round_ends
from deployr_plots.tables import Table
from deployr_plots.words import number, of

_FIGURES = {
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "bias": "Bias, predicted less observed",
    "r2": "R²",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
}
_IN_UNIT = ("mae", "rmse", "bias")


def numbers_in_short(view: View, name: str, title: str) -> Panel:
    """Show how far predictions are off, beside what the bundle says of held-out history."""
    found, then, unit = measured_numbers(view), retrospective_figures(view), view.unit
    sentences = [
        f"Mean absolute error {said(found.figures['mae'], digits=2)} {unit}; on held-out rows"
        f" {stated(then, 'mae', digits=2)}.",
        f"On average {said(found.figures['bias'], digits=2)} {unit} too high.",
        f"Measured on {of(found.rows, 'packet')} with a label, of {of(found.patients, 'patient')}.",
    ]
    return Panel(
        name=name,
        title=title,
        said=tuple(sentences),
        figures=(_errors(found.figures, then, unit),),
        tables=(
            NamedTable(
                caption="Performance with 95 % intervals",
                table=Table(
                    columns=("figure", "prospective, in this window", "retrospective, on held-out rows"),
                    rows=tuple(
                        (
                            f"{shown} ({unit})" if key in (*_IN_UNIT, "calibration_intercept") else shown,
                            said(found.figures[key]),
                            stated(then, key),
                        )
                        for key, shown in _FIGURES.items()
                    ),
                ),
            ),
        ),
        notes=("Intervals: 95 %, bootstrap of patients.", *too_few(labelled(view))),
    )


def error_by_size(view: View, name: str, title: str) -> Panel:
    """Show the error by how large the observed number was, and by how large the predicted one was."""
    found, unit = measured_numbers(view), view.unit
    figures = tuple(
        _by_size(bins, by=by, unit=unit, name=f"error-by-{by}")
        for by, bins in (("observed", found.by_observed), ("predicted", found.by_predicted))
    )
    largest = max(found.by_observed, key=lambda each: each.error.value if isinstance(each.error, Interval) else 0.0)
    return Panel(
        name=name,
        title=title,
        said=(
            f"Furthest off where {_range(largest, unit)} was observed: by {said(largest.error, digits=2)} {unit} on"
            " average.",
        ),
        figures=figures,
        tables=(
            NamedTable(
                caption="By the size of what was observed",
                table=Table(
                    columns=("observed", "packets", "mean error", "predicted less observed"),
                    rows=tuple(
                        (_range(each, unit), each.rows, said(each.error, digits=2), said(each.bias, digits=2))
                        for each in found.by_observed
                    ),
                ),
            ),
        ),
        notes=(
            "By what was observed, extremes are predicted too near to the middle even by a model that is right; only by"
            " what was predicted has a right model no bias.",
            "Bins of about equally many packets. Intervals: 95 %, bootstrap of patients.",
        ),
    )


def agreement(view: View, name: str, title: str) -> Panel:
    """Show observed numbers against predicted ones."""
    found, unit = measured_numbers(view), view.unit
    points = [
        (predicted.value, observed)
        for each in found.by_predicted
        if (predicted := estimate(each.predicted)) is not None and (observed := estimate(each.observed)) is not None
    ]
    told = "; ".join(
        f"predicted {number(x, digits=2)}, observed {number(seen.value, digits=2)} ({number(seen.low, digits=2)} to"
        f" {number(seen.high, digits=2)})"
        for x, seen in points
    )
    return Panel(
        name=name,
        title=title,
        said=(
            f"Slope {said(found.figures['calibration_slope'])}, intercept"
            f" {said(found.figures['calibration_intercept'], digits=2)} {unit}; 1 and 0 are right.",
        ),
        figures=(
            agreement_figure(points, told=f"{told}.", title="Predicted against observed", name="agreement", unit=unit),
        ),
        notes=("Bins of about equally many packets. Intervals: 95 %, bootstrap of patients.",),
    )


def _errors(now: Mapping[str, Measured], then: Mapping[str, Measured], unit: str) -> Figure:
    names = tuple(_FIGURES[key] for key in _IN_UNIT)
    series = {"prospective": now, "retrospective": then}
    marks = side_by_side(
        names,
        {
            called: {_FIGURES[key]: figures[key] for key in _IN_UNIT if key in figures}
            for called, figures in series.items()
        },
    )
    ends = [bound for mark in marks for bound in (*mark.low, *mark.high)]
    low, high = round_ends(min(0.0, *ends), max(0.0, *ends)) if ends else (0.0, 1.0)
    return Figure(
        name="errors",
        title="Errors, prospective beside retrospective",
        told="; ".join(f"{_FIGURES[key]} {said(now[key], digits=2)} {unit}" for key in _IN_UNIT) + ".",
        x=Axis(name="Error", unit=unit, low=low, high=high),
        y=Axis(name="Figure", kind=Kind.NAMES, names=names),
        marks=(Level(name="none", at=0.0, upright=True), *marks),
        width=620,
        height=220,
    )


def _by_size(bins: Sequence[ErrorBin], *, by: str, unit: str, name: str) -> Figure:
    points = []
    for each in bins:
        where, off = estimate(each.observed if by == "observed" else each.predicted), estimate(each.error)
        bias = estimate(each.bias)
        if where is not None and off is not None and bias is not None:
            points.append((where.value, off, bias))
    ends = [bound for _, off, bias in points for bound in (off.high, bias.low, bias.high)]
    low, high = round_ends(min([0.0, *ends]), max([0.0, *ends]))
    at = [x for x, _, _ in points]
    first, last = round_ends(min(at, default=0.0), max(at, default=1.0))
    return Figure(
        name=name,
        title=f"Error by what was {by}",
        told="; ".join(
            f"{by} {number(x, digits=2)}: off by {number(off.value, digits=2)}, {number(bias.value, digits=2)} too high"
            for x, off, bias in points
        )
        + ".",
        x=Axis(name=f"{by.capitalize()}, mean", unit=unit, low=first, high=last),
        y=Axis(name="Error", unit=unit, low=low, high=high),
        marks=(
            Level(name="none", at=0.0),
            replace(intervals("mean absolute error", [(x, off) for x, off, _ in points]), joined=True),
            replace(
                intervals("predicted less observed", [(x, bias) for x, _, bias in points], role=Role.CONTRAST),
                joined=True,
            ),
        ),
        width=460,
    )


def _range(each: ErrorBin, unit: str) -> str:
    return f"{number(each.lowest, digits=2)} to {number(each.highest, digits=2)} {unit}"
