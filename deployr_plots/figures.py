"""What a figure is, before it is drawn: axes with units, marks with intervals, and words for who cannot see it.

A description holds plain numbers and names, so that panels and reports can make figures without a drawing library, and
tests can read what is shown. Instants are POSIX seconds. NaN is a gap: nothing is drawn and nothing is bridged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

Numbers = tuple[float, ...]


class Role(StrEnum):
    """What a mark stands for; colour, dashes and marker follow from it, so that no two roles differ by colour alone."""

    MAIN = "main"
    CONTRAST = "contrast"
    THIRD = "third"
    FOURTH = "fourth"
    FIFTH = "fifth"
    MUTED = "muted"


SERIES = (Role.MAIN, Role.CONTRAST, Role.THIRD, Role.FOURTH, Role.FIFTH)
"""In the order in which series of equal standing take them."""


class Kind(StrEnum):
    """How an axis is written: numbers, shares as per cent, instants in UTC, or names at 0, 1, 2 and so on."""

    NUMBER = "number"
    PERCENT = "percent"
    TIME = "time"
    NAMES = "names"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis. ``low`` and ``high``: where it begins and ends; None fits the marks. All marks must lie between them.

    ``names``: of the places of a `Kind.NAMES` axis, which speak for it; upright, the first stands on top.
    ``mirrored``: both ways from 0, written without a sign.
    """

    name: str
    unit: str = ""
    kind: Kind = Kind.NUMBER
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()
    mirrored: bool = False

    @property
    def title(self) -> str:
        """Give the name with its unit: ``Latency (ms)``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through points; ``steps`` holds each y until the next x. ``reference``: thin, dashed and muted."""

    name: str
    x: Numbers
    y: Numbers
    role: Role = Role.MAIN
    steps: bool = False
    reference: bool = False

    def __post_init__(self) -> None:
        _same_length(self.name, self.x, self.y)


@dataclass(frozen=True, kw_only=True)
class Band:
    """What lies between two lines, such as an interval along a curve."""

    name: str
    x: Numbers
    low: Numbers
    high: Numbers
    role: Role = Role.MAIN

    def __post_init__(self) -> None:
        _same_length(self.name, self.x, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points, each with its interval where ``low`` and ``high`` are given: upright, or ``level`` along x.

    ``joined``: with a line between them.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    level: bool = False
    joined: bool = False
    role: Role = Role.MAIN

    def __post_init__(self) -> None:
        _same_length(self.name, self.x, self.y, *((self.low, self.high) if self.low or self.high else ()))


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars from ``starts`` to ``ends`` along x, as high as ``heights`` from ``bases``, or from 0.

    ``level``: the bars lie, their places along y and their lengths along x.
    """

    name: str
    starts: Numbers
    ends: Numbers
    heights: Numbers
    bases: Numbers = ()
    level: bool = False
    role: Role = Role.MAIN

    def __post_init__(self) -> None:
        _same_length(self.name, self.starts, self.ends, self.heights, *((self.bases,) if self.bases else ()))


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value to hold the others against, as a dashed line through the plot with its interval as a band.

    ``upright``: a value of x, so that the line stands; otherwise a value of y.
    """

    name: str
    at: float
    low: float | None = None
    high: float | None = None
    upright: bool = False


@dataclass(frozen=True, kw_only=True)
class Words:
    """A few words in the plot. ``anchor``: start, middle or end."""

    text: str
    x: float
    y: float
    anchor: str = "start"


Mark = Line | Band | Points | Bars | Level | Words


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure. ``name`` is unique on its page, of letters, digits and hyphens, and names the files it is saved as.

    ``told``: what it shows, in words, for who cannot see it. ``width`` and ``height``: in pixels at 96 to the inch.
    ``is_small``: stands in a row of a table, whose heading names what it shows; its axes are not written out.
    """

    name: str
    title: str
    told: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    width: int = 360
    height: int = 340
    is_small: bool = False

    def __post_init__(self) -> None:
        if not self.told.strip():
            raise ValueError(f"expected figure {self.name!r} to say in words what it shows")
        if not self.x.title or not self.y.title:
            raise ValueError(f"expected figure {self.name!r} to name both axes")


def numbers(values: Iterable[float]) -> Numbers:
    """Give numbers, such as an array's, as a figure's."""
    return tuple(float(each) for each in values)


def slug(words: str) -> str:
    """Give words as a figure's name: lower case, anything but letters and digits as a hyphen."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in words.lower())


def round_ends(low: float, high: float) -> tuple[float, float]:
    """Give the round numbers next below and above, about a fifth of the stretch apart from the next ones."""
    apart = max(high - low, 1e-6 * max(1.0, abs(high)))
    rough = apart / 5
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(each * ten for each in (1.0, 2.0, 5.0, 10.0) if each * ten >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return round(first * step, 9), round(max(last, first + 1) * step, 9)


def _same_length(name: str, *columns: Numbers) -> None:
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"expected columns of one length in {name!r}, got {[len(column) for column in columns]}")
