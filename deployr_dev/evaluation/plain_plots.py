"""The pictures of several classes, of several labels, and of numbers, each from the records alone."""

from __future__ import annotations

from collections.abc import Sequence

from deployr_dev.evaluation.plain_records import NumberBin
from deployr_dev.evaluation.records import Figure, Measured, RocPoints
from deployr_dev.evaluation.words import figure, number
from deployr_plots.common import Curve, Estimate, agreement_figure, intervals, roc_figure
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Axis, numbers, round_ends, slug
from deployr_plots.figures import Figure as Description


def roc_of(name: str, points: RocPoints, *, auroc: Figure) -> str:
    """Draw the ROC curve of one class against the rest, or of one label; chance as a dashed line."""
    curve = Curve(name="", x=numbers(points.false_positive_rates), y=numbers(points.sensitivities))
    return figure_svg(
        roc_figure(
            [curve],
            told=f"Area under the curve {figure(auroc)}.",
            title=f"ROC curve of {name}",
            name=f"roc-{slug(name)}",
            negatives=f"rows that are not {name}",
        )
    )


def predicted_plot(bins: Sequence[NumberBin], *, unit: str) -> str:
    """Draw the mean observed number with its interval against the mean predicted one; dashed where both agree."""
    shown = [
        (each.predicted.value, each.observed)
        for each in bins
        if isinstance(each.predicted, Measured) and isinstance(each.observed, Measured)
    ]
    told = "; ".join(f"predicted {number(x, digits=2)}, observed {figure(observed, digits=2)}" for x, observed in shown)
    return figure_svg(
        agreement_figure(
            [(x, _estimate(observed)) for x, observed in shown],
            told=f"{told}.",
            title="Predicted against observed",
            name="predicted",
            unit=unit,
        )
    )


def magnitude_plot(bins: Sequence[NumberBin], *, unit: str) -> str:
    """Draw the mean absolute error with its interval against the mean observed number."""
    shown = [
        (each.observed.value, each.error)
        for each in bins
        if isinstance(each.observed, Measured) and isinstance(each.error, Measured)
    ]
    left, right = round_ends(min((x for x, _ in shown), default=0.0), max((x for x, _ in shown), default=1.0))
    bottom, top = round_ends(0.0, max((error.high for _, error in shown), default=1.0))
    told = "; ".join(f"observed {number(x, digits=2)}, off by {figure(error, digits=2)}" for x, error in shown)
    return figure_svg(
        Description(
            name="magnitude",
            title="Error by magnitude",
            told=f"{told}.",
            x=Axis(name="Observed, mean", unit=unit, low=left, high=right),
            y=Axis(name="Mean absolute error", unit=unit, low=bottom, high=top),
            marks=(intervals("mean absolute error", [(x, _estimate(error)) for x, error in shown]),),
        )
    )


def _estimate(measured: Measured) -> Estimate:
    return Estimate(value=measured.value, low=measured.low, high=measured.high)
