"""Small plots over time as coordinates that a template draws: no library, no script, no style but the sheet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

MARGIN = 6.0
"""Between the plot's edge and its marks, so that none is cut."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured value. ``text`` is how it was reported, ``flag`` L, H or nothing."""

    at: datetime
    value: float = field(repr=False)
    text: str = field(repr=False)
    flag: str = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point in the plot's own units, from the upper left."""

    x: float
    y: float
    flag: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What to draw: a line through marks, over a band between ``band_top`` and ``band_bottom`` where there is one."""

    width: int
    height: int
    line: str
    marks: tuple[Mark, ...]
    band_top: float | None
    band_bottom: float | None


def plot_of(
    points: Sequence[Point],
    *,
    width: int,
    height: int,
    span: tuple[datetime, datetime] | None = None,
    low: float | None = None,
    high: float | None = None,
    scale: tuple[float, float] | None = None,
) -> Plot:
    """Lay points out.

    Args:
        points: oldest first, at least one.
        width: of the plot.
        height: of the plot.
        span: the stretch of time from left to right; None is that of the points.
        low: where the band of normal values begins; None where it is open.
        high: where it ends.
        scale: the values at the lower and the upper edge; None fits the points and the band's ends.
    """
    start, end = span or (points[0].at, points[-1].at)
    seconds = max((end - start) / timedelta(seconds=1), 1.0)
    shown = [point.value for point in points] + [edge for edge in (low, high) if edge is not None]
    bottom, top = scale or (min(shown), max(shown))
    if top - bottom <= 0:
        bottom, top = bottom - 1, top + 1

    def across(at: datetime) -> float:
        return round(MARGIN + (width - 2 * MARGIN) * ((at - start) / timedelta(seconds=1)) / seconds, 1)

    def down(value: float) -> float:
        share = min(max((value - bottom) / (top - bottom), 0.0), 1.0)
        return round(height - MARGIN - (height - 2 * MARGIN) * share, 1)

    alone = start == end
    marks = tuple(
        Mark(x=width / 2 if alone else across(point.at), y=down(point.value), flag=point.flag) for point in points
    )
    has_band = low is not None or high is not None
    return Plot(
        width=width,
        height=height,
        line=" ".join(f"{mark.x},{mark.y}" for mark in marks),
        marks=marks,
        band_top=(0.0 if high is None else down(high)) if has_band else None,
        band_bottom=(float(height) if low is None else down(low)) if has_band else None,
    )
