"""Figures described, as tables and CSV, and drawn."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from deployr_plots.common import Curve, Estimate, Row, calibration_figure, estimates_figure, roc_figure, spread_figure
from deployr_plots.drawing import figure_png, figure_svg
from deployr_plots.figures import Axis, Bars, Figure, Kind, Level, Line, Points, Role, Words, round_ends, slug
from deployr_plots.palettes import DARK, DASHES, LIGHT, MARKERS
from deployr_plots.tables import figure_csv, figure_table

NAMED = estimates_figure(
    [Row(name="female", shown=Estimate(value=0.8, low=0.7, high=0.9)), Row(name="male", shown="too small")],
    title="AUROC by sex",
    told="female: 0.8; male: too small.",
    name="auroc-by-sex",
    measure="AUROC",
    everybody=Estimate(value=0.75, low=0.72, high=0.78),
)
ROC = roc_figure([Curve(name="", x=(0.0, 0.5, 1.0), y=(0.4, 0.9, 1.0))], told="A curve.", operating=(0.5, 0.9))


def a_line(x: tuple[float, ...], y: tuple[float, ...], kind: Kind = Kind.NUMBER) -> Figure:
    return Figure(
        name="line",
        title="A line",
        told="A line.",
        x=Axis(name="When", kind=kind),
        y=Axis(name="How much", unit="ms"),
        marks=(Line(name="median", x=x, y=y),),
    )


def test_the_table_holds_every_number_with_its_interval_and_the_axes_units() -> None:
    table = figure_table(NAMED)
    assert table.columns == ("series", "AUROC", "Group", "low", "high")
    assert table.rows == (("everybody", 0.75, None, 0.72, 0.78), ("AUROC", 0.8, "female", 0.7, 0.9))
    assert figure_table(a_line((1.0,), (2.0,))).columns == ("series", "When", "How much (ms)")


def test_instants_are_written_in_utc_and_what_is_not_known_is_an_empty_cell() -> None:
    [header, first, second] = csv.reader(
        io.StringIO(figure_csv(a_line((0.0, 60.0), (5.0, math.nan), Kind.TIME)).decode())
    )
    assert header == ["series", "When", "How much (ms)"]
    assert (first, second) == (["median", "1970-01-01T00:00:00Z", "5.0"], ["median", "1970-01-01T00:01:00Z", ""])


def test_a_mirrored_bar_is_written_without_its_sign() -> None:
    figure = spread_figure(("with", (0.25, 0.75)), ("without", (1.0, 0.0)), told="Two spreads.")
    assert [row[2] for row in figure_table(figure).rows] == [0.25, 0.75, 1.0, 0.0]


def test_a_figure_without_words_or_with_an_axis_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="say in words"):
        replace(ROC, told=" ")
    with pytest.raises(ValueError, match="name both axes"):
        replace(ROC, x=Axis(name=""))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        Points(name="a", x=(1.0,), y=(1.0, 2.0))


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.0, 1.0, (0.0, 1.0)), (0.13, 9.2, (0.0, 10.0)), (3.0, 3.0, (3.0, 3.000001))]
)
def test_round_ends_hold_both_numbers_between_them(low: float, high: float, expected: tuple[float, float]) -> None:
    assert round_ends(low, high) == pytest.approx(expected, abs=1e-6)


def test_an_svg_is_whole_tells_what_it_shows_and_refers_to_nothing() -> None:
    drawn = figure_svg(ROC)
    root = ET.fromstring(drawn)  # noqa: S314 # our own
    names = {each.tag.rpartition("}")[2]: each.text for each in root if each.text}
    assert (names["title"], names["desc"]) == ("ROC curve", "A curve.")
    assert not re.search(r"url\(|href=\"http|<style|<script|<!--", drawn)
    assert "no better than chance" in "".join(root.itertext())


def test_words_of_a_figure_are_escaped() -> None:
    figure = replace(ROC, title="<b>&", told='"<i>', marks=(*ROC.marks, Words(text="<u>", x=0.1, y=0.1)))
    drawn = figure_svg(figure)
    assert not re.search(r"<[biu]>", drawn)
    ET.fromstring(drawn)  # noqa: S314 # our own


def test_the_same_figure_gives_the_same_picture() -> None:
    assert figure_svg(NAMED) == figure_svg(NAMED)
    assert figure_png(NAMED) == figure_png(NAMED)


def test_two_figures_of_a_page_share_no_id() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', figure_svg(each))) for each in (ROC, NAMED)]
    assert ids[0] and ids[1]  # noqa: PT018 # neither is empty
    assert not ids[0] & ids[1]


def test_a_png_has_as_many_pixels_as_asked_and_its_palettes_paper() -> None:
    drawn = figure_png(ROC, palette=DARK, scale=3.0)
    assert drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(drawn[16:20], "big"), int.from_bytes(drawn[20:24], "big")) == (1080, 1020)
    assert drawn != figure_png(ROC, palette=LIGHT, scale=3.0)


def test_what_cannot_be_drawn_leaves_a_gap() -> None:
    nothing = Estimate(value=math.nan, low=math.nan, high=math.nan)
    figures = [
        a_line((1.0, 2.0, 3.0), (1.0, math.nan, 3.0)),
        a_line((), ()),
        calibration_figure([("", [])], told="No bins."),
        estimates_figure([Row(name="a", shown=nothing)], title="t", told="t", name="n", measure="m"),
    ]
    assert all(figure_svg(each).endswith("</svg>") for each in figures)


def test_bars_lie_on_named_places() -> None:
    figure = Figure(
        name="bars",
        title="Bars",
        told="Two bars.",
        x=Axis(name="Packets"),
        y=Axis(name="Stage", kind=Kind.NAMES, names=("asked", "scored")),
        marks=(
            Bars(name="", starts=(-0.4, 0.6), ends=(0.4, 1.4), heights=(100.0, 10.0), level=True),
            Level(name="", at=5.0, upright=True),
        ),
    )
    assert [row[2] for row in figure_table(figure).rows] == ["asked", "scored", None]
    assert "scored" in figure_svg(figure)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_role_has_a_contrast_of_4_5_to_the_paper(palette: object) -> None:
    assert isinstance(palette, type(LIGHT))
    shades = [*palette.roles.values(), palette.ink, palette.muted]
    assert min(_contrast(each, palette.paper) for each in shades) >= 4.5


def test_no_two_roles_are_told_apart_by_colour_alone() -> None:
    drawn = [role for role in Role if role is not Role.MUTED]
    assert len({MARKERS[role] for role in drawn}) == len({DASHES[role] for role in drawn}) == len(drawn)


def test_a_name_for_a_file_holds_letters_digits_and_hyphens() -> None:
    assert slug("Age & Größe 2") == "age---gr--e-2"


def _contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, relative luminance and contrast ratio."""
    lights = []
    for colour in (one, other):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)
