"""The figures that reports and the dashboard have in common, so that the same thing looks the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deployr_plots.figures import (
    Axis,
    Band,
    Bars,
    Figure,
    Kind,
    Level,
    Line,
    Mark,
    Numbers,
    Points,
    Role,
    Words,
    round_ends,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One curve among others: its name is in the legend where there are several."""

    name: str
    x: Numbers
    y: Numbers


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of estimates: a name, and its estimate or why there is none, in two or three words."""

    name: str
    shown: Estimate | str


def roc_figure(
    curves: Sequence[Curve],
    *,
    told: str,
    title: str = "ROC curve",
    name: str = "roc",
    operating: tuple[float, float] | None = None,
    negatives: str = "rows without the outcome",
) -> Figure:
    """Describe ROC curves: x the false alerts, y the sensitivity; chance dashed, the operating threshold a diamond."""
    marks: list[Mark] = [
        Line(name="no better than chance", x=(0.0, 1.0), y=(0.0, 1.0), reference=True),
        Words(text="no better than chance", x=0.98, y=0.35, anchor="end"),
    ]
    for curve, role in zip(curves, Role, strict=False):
        marks.append(Line(name=curve.name, x=(0.0, *curve.x), y=(0.0, *curve.y), role=role))
    return Figure(
        name=name,
        title=title,
        told=told,
        x=Axis(name=f"False alerts among {negatives}", low=0.0, high=1.0),
        y=Axis(name="Sensitivity", low=0.0, high=1.0),
        marks=(*marks, *_threshold(operating)),
    )


def precision_recall_figure(
    curves: Sequence[Curve],
    *,
    told: str,
    title: str = "Precision-recall curve",
    name: str = "precision-recall",
    prevalence: float | None = None,
    operating: tuple[float, float] | None = None,
) -> Figure:
    """Describe precision-recall curves in steps: x the sensitivity, y the precision; the prevalence dashed."""
    marks: list[Mark] = []
    if prevalence is not None:
        marks += [
            Line(name="no better than chance", x=(0.0, 1.0), y=(prevalence, prevalence), reference=True),
            Words(text="no better than chance", x=0.02, y=prevalence - 0.05 if prevalence > 0.1 else prevalence + 0.04),
        ]
    for curve, role in zip(curves, Role, strict=False):
        corners = [(0.0, curve.y[0])] if curve.y else []
        for recall, precision in zip(curve.x, curve.y, strict=True):
            corners += [(corners[-1][0], precision), (recall, precision)]
        x, y = (tuple(corner[place] for corner in corners) for place in (0, 1))
        marks.append(Line(name=curve.name, x=x, y=y, role=role))
    return Figure(
        name=name,
        title=title,
        told=told,
        x=Axis(name="Sensitivity (recall)", low=0.0, high=1.0),
        y=Axis(name="Positive predictive value (precision)", low=0.0, high=1.0),
        marks=(*marks, *_threshold(operating)),
    )


def calibration_figure(
    series: Sequence[tuple[str, Sequence[tuple[float, Estimate]]]],
    *,
    told: str,
    title: str = "Calibration curve",
    name: str = "calibration",
) -> Figure:
    """Describe what happened against what was said, with 95 % bands; the dashed line is where both agree.

    ``series``: names with points of mean score and observed share.
    """
    marks: list[Mark] = [Line(name="said and happened agree", x=(0.0, 1.0), y=(0.0, 1.0), reference=True)]
    for (series_name, points), role in zip(series, Role, strict=False):
        x = tuple(said for said, _ in points)
        low, high = (tuple(getattr(seen, end) for _, seen in points) for end in ("low", "high"))
        if len(points) > 1 and len(series) == 1:
            marks.append(Band(name=series_name, x=x, low=low, high=high, role=role))
        y = tuple(seen.value for _, seen in points)
        marks.append(Points(name=series_name, x=x, y=y, low=low, high=high, joined=len(points) > 1, role=role))
    return Figure(
        name=name,
        title=title,
        told=told,
        x=Axis(name="What the model said (mean score)", low=0.0, high=1.0),
        y=Axis(name="What happened (share with the outcome)", low=0.0, high=1.0),
        marks=tuple(marks),
    )


def spread_figure(
    above: tuple[str, Numbers],
    below: tuple[str, Numbers],
    *,
    told: str,
    title: str = "Spread of the scores",
    name: str = "scores",
    ends: tuple[float, float] = (0.0, 1.0),
    threshold: float | None = None,
    x_name: str = "Score",
    unit: str = "",
) -> Figure:
    """Describe two spreads back to back: shares of each in bins of one width from ``ends[0]`` to ``ends[1]``."""
    marks: list[Mark] = []
    for (series, shares), sign, role in ((above, 1.0, Role.MAIN), (below, -1.0, Role.CONTRAST)):
        width = (ends[1] - ends[0]) / max(1, len(shares))
        starts = tuple(ends[0] + place * width for place in range(len(shares)))
        marks.append(
            Bars(
                name=series,
                starts=starts,
                ends=tuple(start + width for start in starts),
                heights=tuple(sign * share for share in shares),
                role=role,
            )
        )
    if threshold is not None and ends[0] <= threshold <= ends[1]:
        marks.append(Level(name="threshold", at=threshold, upright=True))
    tallest = max(0.01, *above[1], *below[1])
    return Figure(
        name=name,
        title=title,
        told=told,
        x=Axis(name=x_name, unit=unit, low=ends[0], high=ends[1]),
        y=Axis(name="Share of each", kind=Kind.PERCENT, mirrored=True, low=-1.08 * tallest, high=1.08 * tallest),
        marks=tuple(marks),
    )


def estimates_figure(
    rows: Sequence[Row],
    *,
    title: str,
    told: str,
    name: str,
    measure: str,
    everybody: Estimate | None = None,
    everybody_name: str = "everybody",
    axis: Axis | None = None,
    rows_are: str = "Group",
    width: int = 420,
) -> Figure:
    """Describe one estimate a row with its interval, against that of everybody.

    Without an ``axis``: from the tenth below the lowest bound, at least from 0.5, up to 1, because an axis that is cut
    at its data would exaggerate.
    """
    shown = [(place, row.shown) for place, row in enumerate(rows) if isinstance(row.shown, Estimate)]
    if axis is None:
        bounds = [estimate.low for _, estimate in shown if math.isfinite(estimate.low)]
        bounds += [everybody.low] if everybody else []
        axis = Axis(name=measure, low=min(0.5, int(10 * min(bounds, default=0.5)) / 10), high=1.0)
    marks: list[Mark] = []
    if everybody is not None:
        marks.append(
            Level(name=everybody_name, at=everybody.value, low=everybody.low, high=everybody.high, upright=True)
        )
    marks.append(
        Points(
            name=measure,
            x=tuple(estimate.value for _, estimate in shown),
            y=tuple(float(place) for place, _ in shown),
            low=tuple(estimate.low for _, estimate in shown),
            high=tuple(estimate.high for _, estimate in shown),
            level=True,
        )
    )
    at = axis.low if axis.low is not None else min((estimate.low for _, estimate in shown), default=0.0)
    marks += [
        Words(text=f" {row.shown}", x=at, y=float(place))
        for place, row in enumerate(rows)
        if isinstance(row.shown, str)
    ]
    return Figure(
        name=name,
        title=title,
        told=told,
        x=axis,
        y=Axis(name=rows_are, kind=Kind.NAMES, names=tuple(row.name for row in rows)),
        marks=tuple(marks),
        width=width,
        height=76 + 30 * len(rows),
    )


def agreement_figure(
    points: Sequence[tuple[float, Estimate]], *, told: str, title: str, name: str, unit: str
) -> Figure:
    """Describe the mean observed number with its interval against the mean predicted one; dashed where both agree."""
    both = [x for x, _ in points] + [bound for _, seen in points for bound in (seen.low, seen.high)]
    low, high = round_ends(min(both, default=0.0), max(both, default=1.0))
    return Figure(
        name=name,
        title=title,
        told=told,
        x=Axis(name="Predicted, mean", unit=unit, low=low, high=high),
        y=Axis(name="Observed, mean", unit=unit, low=low, high=high),
        marks=(
            Line(name="predicted and observed agree", x=(low, high), y=(low, high), reference=True),
            intervals("observed", points),
        ),
    )


def intervals(name: str, points: Sequence[tuple[float, Estimate]], *, role: Role = Role.MAIN) -> Points:
    """Give points at x with their upright intervals."""
    return Points(
        name=name,
        x=tuple(x for x, _ in points),
        y=tuple(seen.value for _, seen in points),
        low=tuple(seen.low for _, seen in points),
        high=tuple(seen.high for _, seen in points),
        role=role,
    )


def _threshold(operating: tuple[float, float] | None) -> tuple[Mark, ...]:
    if operating is None:
        return ()
    return (Points(name="at the threshold", x=operating[:1], y=operating[1:], role=Role.CONTRAST),)
