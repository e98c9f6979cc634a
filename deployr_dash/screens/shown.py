"""Panels as HTML: figures as pictures with their words, numbers in tables, all that is written escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape

from deployr_dash.panels.panel import NamedTable, Panel
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Figure
from deployr_plots.palettes import DARK, LIGHT
from deployr_plots.tables import Cell, Table, figure_table

MOST_ROWS = 500
"""Of one table on a page; the CSV has all of them."""
_LEAST = 0.75
"""Of its width, what a figure keeps where there is little room, so that its words can be read; the rest is scrolled."""
_LARGE = 10_000.0
"""From here on, a number is written whole, with its thousands apart."""
_FEW_COLUMNS = 4
_SHORT = 8
"""Up to so many columns and rows, a table stands beside its figures."""
_FEW_ROWS = 25
"""Up to so many, a table stands there whole; longer ones scroll."""
_TYPED = re.compile(r"`([^`]+)`")


@lru_cache(maxsize=1024)
def picture(figure: Figure, *, dark: bool) -> str:
    """Give the figure as an ``<img>`` with what it shows in words."""
    drawn = figure_svg(figure, palette=DARK if dark else LIGHT).encode()
    source = f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"
    return (
        f'<img src="{source}" width="{figure.width}" height="{figure.height}"'
        f' style="min-width: {_LEAST * figure.width:.0f}px"'
        f' alt="{escape(f"{figure.title}. {figure.told}")}">'
    )


def panel_html(panel: Panel, draw: Callable[[Figure], str], *, level: int = 2, asked: bool = False) -> str:
    """Give a panel.

    Args:
        panel: what is shown; its name is its anchor, so that a page holds it once.
        draw: gives a figure as it stands on this page.
        level: of its heading.
        asked: marks the one that an alert or a link leads to.
    """
    name = escape(panel.name)
    parts = [f'<h{level} id="{name}">{escape(panel.title)}</h{level}>']
    parts += [f'<p class="d-said">{words_html(sentence)}</p>' for sentence in panel.said]
    if panel.missing is not None:
        parts.append(f'<p class="d-missing">{words_html(panel.missing)}</p>')
    # A wide figure is scrolled where there is little room; whoever has no pointer must be able to reach it for that.
    shown = "".join(
        f'<figure tabindex="0"><figcaption>{escape(figure.title)}</figcaption>{draw(figure)}</figure>'
        for figure in panel.figures
    )
    figures = f'<div class="d-figures">{shown}</div>' if shown else ""
    if figures or panel.tables:
        parts.append(f'<div class="d-body">{figures}{"".join(table_html(each) for each in panel.tables)}</div>')
    parts += [
        f"<details><summary>Numbers of “{escape(figure.title)}”</summary>"
        f"{table_html(NamedTable(caption=figure.title, table=figure_table(figure)))}</details>"
        for figure in panel.figures
    ]
    parts += [f'<p class="d-note">{words_html(note)}</p>' for note in panel.notes]
    classes = "d-panel d-asked" if asked else "d-panel"
    return f'<section class="{classes}" role="group" aria-labelledby="{name}">{"".join(parts)}</section>'


def absent_html(panels: Sequence[Panel]) -> str:
    """Give the panels that have nothing to show, by why that is; each keeps its anchor."""
    rows = "".join(
        '<tr><th scope="row">'
        + "<br>".join(f'<span id="{escape(each.name)}">{escape(each.title)}</span>' for each in some)
        + f"</th><td>{words_html(reason)}</td></tr>"
        for reason, some in by_reason(panels).items()
    )
    return (
        '<section class="d-panel" aria-labelledby="absent"><h2 id="absent">Nothing to show here yet</h2>'
        '<table class="d-table d-absent"><caption class="d-hidden">What is missing, and why</caption><thead'
        ' class="d-hidden"><tr><th scope="col">panel</th><th scope="col">why</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def by_reason(panels: Iterable[Panel]) -> Mapping[str, Sequence[Panel]]:
    """Give the panels that have nothing to show, by why that is, in their order."""
    found: dict[str, list[Panel]] = {}
    for panel in panels:
        if panel.missing is not None:
            found.setdefault(panel.missing, []).append(panel)
    return found


def table_html(named: NamedTable) -> str:
    """Give a table with its caption; it can be scrolled by keyboard."""
    table = named.table
    right = numeric(table)
    head = "".join(
        f'<th scope="col"{_right(is_right)}>{escape(name)}</th>'
        for name, is_right in zip(table.columns, right, strict=True)
    )
    body = "".join(_row(row, right) for row in table.rows[:MOST_ROWS])
    classes = "d-scroll"
    if len(table.columns) > _FEW_COLUMNS or len(table.rows) > _SHORT:
        classes += " d-wide"
    if len(table.rows) > _FEW_ROWS:
        classes += " d-long"
    more = f'<p class="d-note">{escape(left_out(table))}</p>' if left_out(table) else ""
    return (
        f'<div class="{classes}" tabindex="0" role="group" aria-label="{escape(named.caption)}">'
        '<table class="d-table">'
        f"<caption>{escape(named.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def linked_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a table whose cells are HTML already, such as links; the first heads its row. Long ones scroll."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="d-scroll{" d-long" if len(rows) > _FEW_ROWS else ""}" tabindex="0" role="group"'
        f' aria-label="{escape(caption)}">'
        f'<table class="d-table d-linked"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def numeric(table: Table) -> tuple[bool, ...]:
    """Say of each column whether it holds numbers alone, which stand to the right."""
    return tuple(
        all(isinstance(row[place], int | float) or row[place] is None for row in table.rows)
        for place in range(len(table.columns))
    )


def left_out(table: Table) -> str:
    """Say how many rows are beyond `MOST_ROWS`, and where they are; empty where none is."""
    left = len(table.rows) - MOST_ROWS
    return f"{left:,} more rows are in the dashboard’s CSV." if left > 0 else ""


def written(cell: Cell) -> str:
    """Give a cell as it is read, empty where there is nothing to say."""
    match cell:
        case None:
            return ""
        case str():
            return cell
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:.6g}" if abs(cell) < _LARGE else f"{cell:,.0f}"


def help_html(title: str, sentences: tuple[str, ...], command: str = "") -> str:
    """Give a page's word in place of figures: what is missing, and what to do."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    code = f"<p><code>{escape(command)}</code></p>" if command else ""
    return f'<section class="d-help" role="status"><h2>{escape(title)}</h2>{said}{code}</section>'


def _row(row: tuple[Cell, ...], right: Sequence[bool]) -> str:
    first, *rest = (words_html(written(cell)) for cell in row)
    cells = "".join(f"<td{_right(is_right)}>{cell}</td>" for cell, is_right in zip(rest, right[1:], strict=True))
    return f'<tr><th scope="row">{first}</th>{cells}</tr>'


def words_html(text: str) -> str:
    """Give a sentence as HTML; what stands between backticks is to be typed."""
    return _TYPED.sub(r"<code>\1</code>", escape(text))


def _right(is_right: bool) -> str:
    return ' class="d-number"' if is_right else ""
