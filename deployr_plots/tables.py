"""The numbers of a figure: as a table to read beside it, and as CSV to take away."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from deployr_plots.figures import Axis, Band, Bars, Figure, Kind, Level, Line, Points, Words

Cell = str | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns by name, and rows of as many cells; None where there is nothing to say."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def figure_table(figure: Figure) -> Table:
    """Give every number that the figure draws, in its order, with its interval; columns without any are left out."""
    columns = ("series", figure.x.title, figure.y.title, "low", "high")
    rows = [row for mark in figure.marks for row in _rows(mark, figure)]
    kept = [place for place in range(len(columns)) if place < 3 or any(row[place] is not None for row in rows)]
    return Table(
        columns=tuple(columns[place] for place in kept), rows=tuple(tuple(row[place] for place in kept) for row in rows)
    )


def figure_csv(figure: Figure) -> bytes:
    """Give the table as CSV in UTF-8, numbers as they are, instants in UTC, an empty cell for what is not known.

    Source: RFC 4180.
    """
    table, written = figure_table(figure), io.StringIO()
    writer = csv.writer(written)
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return written.getvalue().encode()


def _rows(mark: Line | Band | Points | Bars | Level | Words, figure: Figure) -> Iterator[tuple[Cell, ...]]:
    x, y = figure.x, figure.y
    match mark:
        case Line():
            for across, up in zip(mark.x, mark.y, strict=True):
                yield mark.name, _said(across, x), _said(up, y), None, None
        case Band():
            for across, low, high in zip(mark.x, mark.low, mark.high, strict=True):
                yield mark.name, _said(across, x), None, _said(low, y), _said(high, y)
        case Points():
            ends = x if mark.level else y
            nothing = (math.nan,) * len(mark.x)
            for across, up, low, high in zip(mark.x, mark.y, mark.low or nothing, mark.high or nothing, strict=True):
                yield mark.name, _said(across, x), _said(up, y), _said(low, ends), _said(high, ends)
        case Bars():
            for start, end, height in zip(mark.starts, mark.ends, mark.heights, strict=True):
                along, length = (y, x) if mark.level else (x, y)
                if along.kind is Kind.NAMES:
                    place = _said((start + end) / 2, along)
                else:
                    place = f"{_said(start, along)} to {_said(end, along)}"
                said = _said(abs(height) if length.mirrored else height, length)
                yield mark.name, *((said, place) if mark.level else (place, said)), None, None
        case Level():
            axis = x if mark.upright else y
            said_at = _said(mark.at, axis)
            low_end, high_end = (None if each is None else _said(each, axis) for each in (mark.low, mark.high))
            yield mark.name, *((said_at, None) if mark.upright else (None, said_at)), low_end, high_end
        case Words():
            return


def _said(value: float, axis: Axis) -> Cell:
    if not math.isfinite(value):
        return None
    match axis.kind:
        case Kind.TIME:
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case Kind.NAMES:
            place = round(value)
            return axis.names[place] if 0 <= place < len(axis.names) else value
        case Kind.NUMBER | Kind.PERCENT:
            return value
