"""The score column as the screens show it: the latest number, its trend, and what it is made of.

Source: figure 4B of Corbin et al. (2023), J. Am. Med. Inform. Assoc. 30:1532-1542, doi:10.1093/jamia/ocad114: hovering
over a score shows its course, the features' values and their contributions.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mock_emr.scores import Cell
from mock_emr.screens.plots import Plot, Point, plot_of

_MOST_VALUES = 2
_TREND = (300, 56)
_BAR = 60.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """One feature of a score. ``bar`` is the contribution's length, from -60 to 60, against the largest of them."""

    name: str
    values: str = field(repr=False)
    contribution: str = field(repr=False)
    bar: float = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """One model's score of one patient. ``change`` is against the one before it; None for the first, or no number."""

    model: str
    score: str = field(repr=False)
    at: datetime
    change: float | None = field(repr=False)
    trend: Plot | None
    course: tuple[Point, ...] = field(repr=False)
    made_of: tuple[Made, ...] = field(repr=False)

    @property
    def direction(self) -> str:
        """Say which way the score went, in a word."""
        if self.change is None:
            return "first"
        return "unchanged" if self.change == 0 else "up" if self.change > 0 else "down"


def model_title(model_id: str) -> str:
    """Make `SHC.HEMATOCRIT_ABNORMAL@1` readable: `Hematocrit abnormal`."""
    name = re.sub(r"@\d+\Z", "", model_id).rpartition(".")[2] or model_id
    return name.replace("_", " ").strip().capitalize()


def by_contact(cells: Iterable[Cell]) -> Mapping[str, Sequence[Cell]]:
    """Put the cells under the contact serial numbers that they belong to."""
    found: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        found[cell.csn].append(cell)
    return found


def score_cells(cells: Iterable[Cell]) -> dict[str, ScoreCell]:
    """Give one cell a model, by model id: the course goes through all of these encounters' scores."""
    of_model: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        of_model[cell.model_id].append(cell)
    return {model_id: _score_cell(model_id, held) for model_id, held in sorted(of_model.items())}


def _score_cell(model_id: str, cells: Sequence[Cell]) -> ScoreCell:
    latest = max(cells, key=lambda cell: cell.rows[-1].written_at)
    row = latest.rows[-1]
    rows = sorted((row for cell in cells for row in cell.rows), key=lambda row: row.written_at)
    course = tuple(
        Point(at=row.written_at, value=value, text=row.score)
        for row in rows
        if (value := _number(row.score)) is not None
    )
    scale = (0.0, 100.0) if all(0 <= point.value <= 100 for point in course) else None
    return ScoreCell(
        model=model_title(model_id),
        score=row.score,
        at=row.written_at,
        change=course[-1].value - course[-2].value if len(course) > 1 else None,
        trend=plot_of(course, width=_TREND[0], height=_TREND[1], scale=scale) if course else None,
        course=course,
        made_of=_made_of(latest),
    )


def _made_of(cell: Cell) -> tuple[Made, ...]:
    """Give the features, the largest contribution first."""
    told = [(feature, _number(feature.contribution or "") or 0.0) for feature in cell.features]
    largest = max((abs(number) for _, number in told), default=0.0) or 1.0
    return tuple(
        Made(
            name=feature.name.replace("_", " "),
            values=_values(feature.values),
            contribution="" if feature.contribution is None else _signed(feature.contribution),
            bar=round(_BAR * number / largest, 1),
        )
        for feature, number in sorted(told, key=lambda pair: -abs(pair[1]))
    )


def _values(values: Sequence[str]) -> str:
    shown = ", ".join(_short(value) for value in values[:_MOST_VALUES])
    more = len(values) - _MOST_VALUES
    return f"{shown} and {more} more" if more > 0 else shown


def _short(text: str) -> str:
    number = _number(text)
    return text if number is None else f"{number:.6g}"


def _signed(text: str) -> str:
    number = _number(text)
    if number is None:
        return text
    decimals = 2 if abs(number) >= 0.1 or number == 0 else 3 if abs(number) >= 0.01 else 4
    return f"{number:+.{decimals}f}".replace("-", "−")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
