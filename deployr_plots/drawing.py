"""Figures drawn: the one place of the product that knows a drawing library."""

from __future__ import annotations

import io
import re
import textwrap
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deployr_plots.figures import Axis, Band, Bars, Figure, Kind, Level, Line, Points, Role, Words
from deployr_plots.palettes import DASHES, LIGHT, MARKERS, Palette

FONT = 12
"""Pixels, in a figure as wide as it says."""
FAMILY = "DejaVu Sans"
"""What figures are laid out in; `font_folder` has it."""
_INCH = 72
"""Pixels of a description to the library's inch, so that a point is a pixel."""
_DAY_S = 86_400.0
_DATES = {
    "formats": ["%Y", "%b", "%-d %b", "%H:%M", "%H:%M", "%S.%f"],
    "zero_formats": ["%Y", "%Y", "%-d %b", "%-d %b", "%H:%M", "%H:%M"],
    "offset_formats": ["", "", "%Y", "%Y", "%-d %b %Y", "%-d %b %Y"],
}
"""How instants are written beside an axis: each level of the library's, from years to seconds, and what they share."""
_NAME_WIDTH = 24
"""Letters of a name on one line; at most two lines."""
_SETTINGS = Lock()
"""The library's settings are of the whole process, and a dashboard draws for many people at once."""


def figure_png(figure: Figure, *, palette: Palette = LIGHT, scale: float = 2.0) -> bytes:
    """Give the figure as PNG, ``scale`` times as many pixels each way as it says, on the palette's paper."""
    with _SETTINGS, mpl.rc_context(_settings(figure)):
        canvas = _drawn(figure, palette)
        canvas.set_facecolor(palette.paper)
        FigureCanvasAgg(canvas)
        written = io.BytesIO()
        canvas.savefig(written, format="png", dpi=_INCH * scale, metadata={"Software": None})
    return written.getvalue()


def figure_svg(figure: Figure, *, palette: Palette = LIGHT) -> str:
    """Give the figure as one ``<svg>`` that may stand in a page or alone: words as words, title and description in it.

    The same figure gives the same text. Nothing in it is fetched. Its ids begin with the figure's name.
    """
    with _SETTINGS, mpl.rc_context(_settings(figure)):
        canvas = _drawn(figure, palette)
        canvas.patch.set_visible(False)
        FigureCanvasSVG(canvas)
        written = io.StringIO()
        canvas.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _whole(figure, written.getvalue(), palette)


def font_folder() -> Path:
    """Give the folder of the drawing library's own fonts, for whatever draws an SVG of ours without a browser."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def _settings(figure: Figure) -> dict[Any, Any]:
    return {
        "font.size": FONT,
        "font.family": FAMILY,
        "svg.fonttype": "none",
        "svg.hashsalt": figure.name,
        "axes.unicode_minus": True,
        "path.simplify_threshold": 0.1,
    }


def _whole(figure: Figure, drawn: str, palette: Palette) -> str:
    """Keep the shapes alone: no prologue, no style that reaches the page, no ids but those that are referred to."""
    content = drawn[drawn.index(">", drawn.index("<svg")) + 1 : drawn.rindex("</svg>")]
    content = re.sub(r"<!--.*?-->|<(metadata|style|clipPath).*?</\1>", "", content, flags=re.DOTALL)
    # Nothing is drawn outside the axes, so nothing has to be cut.
    content = re.sub(r' clip-path="[^"]*"', "", content).replace("xlink:href", "href")
    referred = set(re.findall(r'href="#([^"]+)', content))
    content = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referred else "", content)
    name = escape(figure.name)
    content = re.sub(r'(href="#| id=")', rf"\1{name}-", content)
    # The family is the page's, or the one below where the picture stands alone.
    content = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", content)
    content = re.sub(r"font-family: [^;\"]*;? ?", "", content)
    content = re.sub(r"[0-9]+\.[0-9]{3,}", lambda found: f"{float(found[0]):.2f}", content)
    content = re.sub(r"<defs>\s*</defs>|<g/>", "", content)
    content = re.sub(r"\s*\n\s*", "\n", content).strip()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {figure.width} {figure.height}" role="img"'
        f' aria-labelledby="{name}-title {name}-description" font-size="{FONT}" fill="{palette.ink}"'
        ' font-family="system-ui, Segoe UI, Roboto, Noto Sans, sans-serif" stroke-linejoin="round">'
        f'<title id="{name}-title">{escape(figure.title)}</title>'
        f'<desc id="{name}-description">{escape(figure.told)}</desc>\n{content}\n</svg>'
    )


def _drawn(figure: Figure, palette: Palette) -> Canvas:
    canvas = Canvas(figsize=(figure.width / _INCH, figure.height / _INCH), dpi=_INCH)
    canvas.set_layout_engine(ConstrainedLayoutEngine(w_pad=6 / _INCH, h_pad=4 / _INCH))
    plot = canvas.add_subplot()
    plot.patch.set_visible(False)
    plot.set_axisbelow(True)
    named = 0
    for mark in figure.marks:
        match mark:
            case Line():
                named += _line(plot, mark, figure, palette)
            case Band():
                across = [_at(each, figure.x) for each in mark.x]
                plot.fill_between(
                    across, mark.low, mark.high, color=palette.roles[mark.role], alpha=0.25, linewidth=0, zorder=1.5
                )
            case Points():
                named += _points(plot, mark, figure, palette)
            case Bars():
                named += _bars(plot, mark, figure, palette)
            case Level():
                _level(plot, mark, figure, palette)
            case Words():
                at = (_at(mark.x, figure.x), _at(mark.y, figure.y))
                anchor = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
                plot.annotate(mark.text, at, ha=anchor, va="center", color=palette.muted, zorder=4)
    for artist in plot.get_children():
        # A point on the edge is drawn whole, and an SVG refers to nothing.
        artist.set_clip_on(False)
    _axis(plot, figure.x, palette, upright=False)
    _axis(plot, figure.y, palette, upright=True)
    for side in ("left", "bottom", "top", "right"):
        plot.spines[side].set_visible(side in ("left", "bottom") and not (side == "left" and _is_names(figure.y)))
        plot.spines[side].set_color(palette.muted)
    grids: Literal["x", "y", "both"] = "x" if _is_names(figure.y) else "y" if _is_names(figure.x) else "both"
    plot.grid(visible=True, axis=grids, color=palette.grid, linewidth=1)
    if figure.is_small:
        plot.set_axis_off()
    if named > 1:
        wide = max(1, min(named, figure.width // 180))
        canvas.legend(
            loc="outside upper left",
            ncols=wide,
            frameon=False,
            labelcolor=palette.ink,
            handlelength=2.2,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
    return canvas


def _is_names(axis: Axis) -> bool:
    return axis.kind is Kind.NAMES


def _line(plot: Axes, mark: Line, figure: Figure, palette: Palette) -> int:
    across, up = [_at(each, figure.x) for each in mark.x], [_at(each, figure.y) for each in mark.y]
    if mark.reference:
        plot.plot(across, up, color=palette.muted, linewidth=1.5, dashes=(5, 4), zorder=2)
        return 0
    (drawn,) = plot.plot(
        across,
        up,
        color=palette.roles[mark.role],
        linewidth=2.2,
        drawstyle="steps-post" if mark.steps else "default",
        label=mark.name or "_nobody",
        zorder=3,
    )
    if DASHES[mark.role]:
        drawn.set_dashes(DASHES[mark.role])
    return 1 if mark.name else 0


def _points(plot: Axes, mark: Points, figure: Figure, palette: Palette) -> int:
    colour = palette.roles[mark.role]
    across, up = (
        np.array([_at(each, axis) for each in column]) for column, axis in ((mark.x, figure.x), (mark.y, figure.y))
    )
    if mark.low:
        ends = figure.x if mark.level else figure.y
        low, high = (np.array([_at(each, ends) for each in column]) for column in (mark.low, mark.high))
        middle = across if mark.level else up
        # A percentile interval need not hold its own figure; the library takes distances only.
        gaps = np.clip([middle - low, high - middle], 0.0, None)
        plot.errorbar(
            across,
            up,
            **({"xerr": gaps} if mark.level else {"yerr": gaps}),
            fmt="none",
            ecolor=colour,
            elinewidth=2,
            capsize=4,
            capthick=2,
            zorder=2.5,
        )
    plot.plot(
        across,
        up,
        color=colour,
        marker=MARKERS[mark.role],
        markersize=6.5,
        markeredgecolor=palette.paper,
        markeredgewidth=0.8,
        linestyle="-" if mark.joined else "none",
        linewidth=2,
        label=mark.name or "_nobody",
        zorder=3.5,
    )
    return 1 if mark.name else 0


def _bars(plot: Axes, mark: Bars, figure: Figure, palette: Palette) -> int:
    along = figure.y if mark.level else figure.x
    starts, ends = (np.array([_at(each, along) for each in column]) for column in (mark.starts, mark.ends))
    bases = mark.bases or (0.0,) * len(mark.heights)
    looks: dict[str, Any] = {
        "color": palette.roles[mark.role],
        "edgecolor": palette.paper,
        "linewidth": 0.6,
        "zorder": 2,
    }
    label = mark.name or "_nobody"
    if mark.level:
        plot.barh(starts, mark.heights, height=ends - starts, left=bases, align="edge", label=label, **looks)
    else:
        plot.bar(starts, mark.heights, width=ends - starts, bottom=bases, align="edge", label=label, **looks)
    return 1 if mark.name else 0


def _level(plot: Axes, mark: Level, figure: Figure, palette: Palette) -> None:
    axis = figure.x if mark.upright else figure.y
    at = _at(mark.at, axis)
    drawn, shaded = (plot.axvline, plot.axvspan) if mark.upright else (plot.axhline, plot.axhspan)
    if mark.low is not None and mark.high is not None:
        shaded(_at(mark.low, axis), _at(mark.high, axis), color=palette.roles[Role.MAIN], alpha=0.12, linewidth=0)
    drawn(at, color=palette.muted, linewidth=1.5, dashes=(5, 4), zorder=2.2)
    beside: dict[str, Any] = {"ha": "center", "va": "bottom"} if mark.upright else {"ha": "left", "va": "center"}
    plot.annotate(
        mark.name,
        (at, 1.0) if mark.upright else (1.0, at),
        xycoords=plot.get_xaxis_transform() if mark.upright else plot.get_yaxis_transform(),
        xytext=(0, 3) if mark.upright else (4, 0),
        textcoords="offset points",
        color=palette.muted,
        annotation_clip=False,
        zorder=4,
        **beside,
    )


def _axis(plot: Axes, axis: Axis, palette: Palette, *, upright: bool) -> None:
    drawn = plot.yaxis if upright else plot.xaxis
    if not _is_names(axis):
        drawn.set_label_text(axis.title, color=palette.ink)
    drawn.set_tick_params(color=palette.grid, labelcolor=palette.muted, length=0, pad=6 if upright else 8)
    limits = plot.set_ylim if upright else plot.set_xlim
    match axis.kind:
        case Kind.NAMES:
            drawn.set_ticks(range(len(axis.names)), [_in_lines(name) for name in axis.names])
            drawn.set_tick_params(labelcolor=palette.ink)
            ends = (-0.6, max(len(axis.names), 1) - 0.4)
            limits(*(reversed(ends) if upright else ends))
            return
        case Kind.TIME:
            places = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
            drawn.set_major_locator(places)
            drawn.set_major_formatter(ConciseDateFormatter(places, **_DATES))  # type: ignore[no-untyped-call]
            drawn.get_offset_text().set_color(palette.muted)
        case Kind.PERCENT:
            drawn.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
            drawn.set_major_formatter(FuncFormatter(lambda value, _: _number(100 * value, axis) + "\u00a0%"))
        case Kind.NUMBER:
            drawn.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            drawn.set_major_formatter(FuncFormatter(lambda value, _: _number(value, axis)))
    low, high = (None if each is None else _at(each, axis) for each in (axis.low, axis.high))
    limits(low, high)


def _number(value: float, axis: Axis) -> str:
    shown = abs(value) if axis.mirrored else value
    rounded = round(shown, 9)
    return (f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}").replace("-", "\u2212")


def _at(value: float, axis: Axis) -> float:
    if axis.kind is Kind.TIME:
        return value / _DAY_S
    return value


def _in_lines(name: str) -> str:
    return "\n".join(textwrap.wrap(name, width=_NAME_WIDTH, max_lines=2, placeholder=" …") or [""])
