"""The pictures of several classes, of several labels, and of numbers, each from the records alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deployr_dev.evaluation.plain_records import NumberBin
from deployr_dev.evaluation.records import Figure, Measured, RocPoints
from deployr_dev.evaluation.svg import GRID, MUTED, Frame, Scale, bar, dot, line, picture, text
from deployr_dev.evaluation.words import figure, number


def roc_of(name: str, points: RocPoints, *, auroc: Figure) -> str:
    """Draw the ROC curve of one class against the rest, or of one label; chance as a dashed line."""
    frame = Frame(x_name=f"False alerts among rows that are not {name}", y_name="Sensitivity")
    curve = [(0.0, 0.0), *zip(points.false_positive_rates, points.sensitivities, strict=True)]
    shapes = [
        *frame.drawn(),
        line([frame.at((0, 0)), frame.at((1, 1))], colour=MUTED, width=1.5, dashed=True),
        line([frame.at(point) for point in curve], width=2.5),
    ]
    told = f"Area under the curve {figure(auroc)}."
    return picture(
        f"roc-{name}",
        title=f"ROC curve of {name}",
        description=told,
        width=frame.width,
        height=frame.height,
        content=shapes,
    )


def predicted_plot(bins: Sequence[NumberBin], *, unit: str) -> str:
    """Draw the mean observed number with its interval against the mean predicted one; dashed where both agree."""
    shown = [
        (each.predicted.value, each.observed)
        for each in bins
        if isinstance(each.predicted, Measured) and isinstance(each.observed, Measured)
    ]
    both = [x for x, _ in shown] + [bound for _, observed in shown for bound in (observed.low, observed.high)]
    ticks = _ticks(min(both, default=0.0), max(both, default=1.0))
    axes = _Axes(
        x=Scale(low=ticks[0], high=ticks[-1], start=60, end=346),
        y=Scale(low=ticks[0], high=ticks[-1], start=288, end=12),
        x_name=f"Predicted, mean ({unit})",
        y_name=f"Observed, mean ({unit})",
    )
    shapes = axes.drawn(ticks, ticks)
    ends = [axes.at((tick, tick)) for tick in (ticks[0], ticks[-1])]
    shapes.append(line(ends, colour=MUTED, width=1.5, dashed=True))
    shapes += [bar(axes.at((x, observed.low)), axes.at((x, observed.high))) for x, observed in shown]
    shapes += [dot(axes.at((x, observed.value))) for x, observed in shown]
    told = "; ".join(f"predicted {number(x, digits=2)}, observed {figure(observed, digits=2)}" for x, observed in shown)
    return picture(
        "predicted", title="Predicted against observed", description=f"{told}.", width=360, height=340, content=shapes
    )


def magnitude_plot(bins: Sequence[NumberBin], *, unit: str) -> str:
    """Draw the mean absolute error with its interval against the mean observed number."""
    shown = [
        (each.observed.value, each.error)
        for each in bins
        if isinstance(each.observed, Measured) and isinstance(each.error, Measured)
    ]
    across = _ticks(min((x for x, _ in shown), default=0.0), max((x for x, _ in shown), default=1.0))
    up = _ticks(0.0, max((error.high for _, error in shown), default=1.0))
    axes = _Axes(
        x=Scale(low=across[0], high=across[-1], start=60, end=346),
        y=Scale(low=up[0], high=up[-1], start=288, end=12),
        x_name=f"Observed, mean ({unit})",
        y_name=f"Mean absolute error ({unit})",
    )
    shapes = axes.drawn(across, up)
    shapes += [bar(axes.at((x, error.low)), axes.at((x, error.high))) for x, error in shown]
    shapes += [dot(axes.at((x, error.value))) for x, error in shown]
    told = "; ".join(f"observed {number(x, digits=2)}, error {figure(error, digits=2)}" for x, error in shown)
    return picture(
        "magnitude", title="Error by magnitude", description=f"{told}.", width=360, height=340, content=shapes
    )


@dataclass(frozen=True, kw_only=True)
class _Axes:
    x: Scale
    y: Scale
    x_name: str
    y_name: str

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        return self.x(point[0]), self.y(point[1])

    def drawn(self, across: Sequence[float], up: Sequence[float]) -> list[str]:
        shapes = []
        for tick in across:
            shapes.append(line([(self.x(tick), self.y.start), (self.x(tick), self.y.end)], colour=GRID, width=1))
            shapes.append(text((self.x(tick), self.y.start + 18), f"{tick:g}", anchor="middle", colour=MUTED))
        for tick in up:
            shapes.append(line([(self.x.start, self.y(tick)), (self.x.end, self.y(tick))], colour=GRID, width=1))
            shapes.append(text((self.x.start - 8, self.y(tick) + 4), f"{tick:g}", anchor="end", colour=MUTED))
        corner = (self.x.start, self.y.start)
        return [
            *shapes,
            line([(self.x.start, self.y.end), corner, (self.x.end, self.y.start)], colour=MUTED, width=1),
            text(((self.x.start + self.x.end) / 2, self.y.start + 40), self.x_name, anchor="middle"),
            text((14, (self.y.start + self.y.end) / 2), self.y_name, anchor="middle", turned=True),
        ]


def _ticks(low: float, high: float) -> list[float]:
    """Give about five round numbers that hold both between them."""
    apart = max(high - low, 1e-6 * max(1.0, abs(high)))
    rough = apart / 5
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(each * ten for each in (1.0, 2.0, 5.0, 10.0) if each * ten >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(place * step, 9) for place in range(first, max(last, first + 1) + 1)]
