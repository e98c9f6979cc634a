"""Colours for light and dark paper, told apart by people with any colour vision, and by dashes and markers besides.

Blue and orange of the palette of Okabe and Ito, darkened on white until words in them have a contrast of 4.5 to 1.

Source: Okabe and Ito (2008), Color Universal Design; WCAG 2.2, success criteria 1.4.1, 1.4.3 and 1.4.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployr_plots.figures import Role


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of one kind of paper. ``paper`` is behind a PNG; an SVG lets the page shine through."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    roles: Mapping[Role, str]


LIGHT = Palette(
    name="light",
    paper="#ffffff",
    ink="#1f2933",
    muted="#52606d",
    grid="#e1e6eb",
    roles={
        Role.MAIN: "#0b5c8a",
        Role.CONTRAST: "#a8480b",
        Role.THIRD: "#00735c",
        Role.FOURTH: "#8a3b80",
        Role.FIFTH: "#6b5a00",
        Role.MUTED: "#52606d",
    },
)
DARK = Palette(
    name="dark",
    paper="#1a222a",
    ink="#e6ebef",
    muted="#a3b0bb",
    grid="#33404b",
    roles={
        Role.MAIN: "#7cc4e4",
        Role.CONTRAST: "#f2a35e",
        Role.THIRD: "#7fd1ae",
        Role.FOURTH: "#dba5d5",
        Role.FIFTH: "#d8c667",
        Role.MUTED: "#a3b0bb",
    },
)

MARKERS: Mapping[Role, str] = {
    Role.MAIN: "o",
    Role.CONTRAST: "D",
    Role.THIRD: "s",
    Role.FOURTH: "^",
    Role.FIFTH: "v",
    Role.MUTED: "o",
}
DASHES: Mapping[Role, tuple[float, ...]] = {
    Role.MAIN: (),
    Role.CONTRAST: (7, 2),
    Role.THIRD: (2, 1.5),
    Role.FOURTH: (7, 2, 2, 2),
    Role.FIFTH: (4, 4),
    Role.MUTED: (1, 2),
}
