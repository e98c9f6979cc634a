"""Pictures as text: a few shapes, an axis frame, and a title and description that are read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

INK = "#1f2933"
MUTED = "#52606d"
GRID = "#e1e6eb"
LINE = "#0b5c8a"
BAND = "#a9cfe4"
CONTRAST = "#a8480b"
FONT = 12

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to pixels, linearly; either may run backwards."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def picture(name: str, *, title: str, description: str, width: int, height: int, content: Sequence[str]) -> str:
    """Give a whole ``<svg>``; ``name`` is unique on the page, for its title and description are found by it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{escape(name)}-title {escape(name)}-description" font-size="{FONT}" fill="{INK}">'
        f'<title id="{escape(name)}-title">{escape(title)}</title>'
        f'<desc id="{escape(name)}-description">{escape(description)}</desc>{"".join(content)}</svg>'
    )


def text(at: Point, words: str, *, anchor: str = "start", colour: str = INK, turned: bool = False) -> str:
    """Give words at a point; ``anchor`` is start, middle or end; ``turned`` reads upwards."""
    x, y = at
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{turn}>{escape(words)}</text>'


def line(points: Sequence[Point], *, colour: str = LINE, width: float = 2, dashed: bool = False) -> str:
    """Give a line through points."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<polyline points="{_pairs(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"'
        f' stroke-linejoin="round"{dashes}/>'
    )


def area(points: Sequence[Point], *, colour: str = BAND) -> str:
    """Give a filled shape without an outline."""
    return f'<polygon points="{_pairs(points)}" fill="{colour}" stroke="none"/>'


def dot(at: Point, *, radius: float = 4, colour: str = LINE, hollow: bool = False) -> str:
    """Give a dot; a hollow one is white inside."""
    fill = "#ffffff" if hollow else colour
    return (
        f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
    )


def diamond(at: Point, *, radius: float = 6, colour: str = CONTRAST) -> str:
    """Give a diamond: told from a dot without colour."""
    x, y = at
    return area([(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)], colour=colour)


def bar(low: Point, high: Point, *, colour: str = LINE) -> str:
    """Give an interval as a line with a short cap at either end, level or upright."""
    across = (0.0, 4.0) if low[1] == high[1] else (4.0, 0.0)
    caps = [
        line([(x - across[0], y - across[1]), (x + across[0], y + across[1])], colour=colour) for x, y in (low, high)
    ]
    return line([low, high], colour=colour) + "".join(caps)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A square of axes from 0 to 1 each way, with its grid and names."""

    x_name: str
    y_name: str
    width: int = 360
    height: int = 340
    x: Scale = field(default=Scale(low=0, high=1, start=52, end=346))
    y: Scale = field(default=Scale(low=0, high=1, start=288, end=12))

    def at(self, point: Point) -> Point:
        """Give the pixel of a point."""
        return self.x(point[0]), self.y(point[1])

    def drawn(self) -> list[str]:
        """Give the grid, its numbers and the axes' names."""
        shapes = []
        for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            shapes += [
                line([self.at((tick, 0)), self.at((tick, 1))], colour=GRID, width=1),
                line([self.at((0, tick)), self.at((1, tick))], colour=GRID, width=1),
                text((self.x(tick), self.y(0) + 18), f"{tick:g}", anchor="middle", colour=MUTED),
                text((self.x(0) - 8, self.y(tick) + 4), f"{tick:g}", anchor="end", colour=MUTED),
            ]
        middle = (self.x(0.5), self.y(0) + 40)
        return [
            *shapes,
            line([self.at((0, 1)), self.at((0, 0)), self.at((1, 0))], colour=MUTED, width=1),
            text(middle, self.x_name, anchor="middle"),
            text((14, self.y(0.5)), self.y_name, anchor="middle", turned=True),
        ]


def _pairs(points: Sequence[Point]) -> str:
    """Write points to a tenth of a pixel, those that would not be seen apart once."""
    pairs: list[str] = []
    for x, y in points:
        pair = f"{x:.1f},{y:.1f}"
        if not pairs or pairs[-1] != pair:
            pairs.append(pair)
    return " ".join(pairs)
