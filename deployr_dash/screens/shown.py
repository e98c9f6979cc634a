"""Panels as HTML: figures as pictures with their words, numbers in tables, all that is written escaped."""

from __future__ import annotations

import base64
from functools import lru_cache
from html import escape

from deployr_dash.panels.panel import NamedTable, Panel
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Figure
from deployr_plots.palettes import DARK, LIGHT
from deployr_plots.tables import Cell, figure_table

_MOST_ROWS = 500
"""Of one table on a page; the CSV has all of them."""
_FEW_COLUMNS = 4
"""Up to so many, a table stands beside its figures."""


@lru_cache(maxsize=1024)
def picture(figure: Figure, *, dark: bool) -> str:
    """Give the figure as an ``<img>`` with what it shows in words."""
    drawn = figure_svg(figure, palette=DARK if dark else LIGHT).encode()
    source = f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"
    return (
        f'<img src="{source}" width="{figure.width}" height="{figure.height}"'
        f' alt="{escape(f"{figure.title}. {figure.told}")}">'
    )


def panel_html(panel: Panel, *, dark: bool, asked: bool = False) -> str:
    """Give a panel; ``asked`` marks the one that an alert or a link leads to."""
    parts = [f'<h2 id="{escape(panel.name)}">{escape(panel.title)}</h2>']
    parts += [f'<p class="d-said">{escape(sentence)}</p>' for sentence in panel.said]
    if panel.missing is not None:
        parts.append(f'<p class="d-missing">{escape(panel.missing)}</p>')
    shown = "".join(_figure(figure, dark=dark) for figure in panel.figures)
    figures = f'<div class="d-figures">{shown}</div>' if shown else ""
    if figures or panel.tables:
        parts.append(f'<div class="d-body">{figures}{"".join(table_html(each) for each in panel.tables)}</div>')
    parts += [
        f"<details><summary>Numbers of “{escape(figure.title)}”</summary>"
        f"{table_html(NamedTable(caption=figure.title, table=figure_table(figure)))}</details>"
        for figure in panel.figures
    ]
    parts += [f'<p class="d-note">{escape(note)}</p>' for note in panel.notes]
    classes = "d-panel d-asked" if asked else "d-panel"
    return f'<section class="{classes}" aria-labelledby="{escape(panel.name)}">{"".join(parts)}</section>'


def table_html(named: NamedTable) -> str:
    """Give a table with its caption; it can be scrolled by keyboard."""
    table = named.table
    right = [
        all(isinstance(row[place], int | float) or row[place] is None for row in table.rows)
        for place in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{_right(is_right)}>{escape(name)}</th>'
        for name, is_right in zip(table.columns, right, strict=True)
    )
    body = "".join(_row(row, right) for row in table.rows[:_MOST_ROWS])
    wide = " d-wide" if len(table.columns) > _FEW_COLUMNS else ""
    left = len(table.rows) - _MOST_ROWS
    more = f'<p class="d-note">{left:,} more rows are in the CSV.</p>' if left > 0 else ""
    return (
        f'<div class="d-scroll{wide}" tabindex="0" role="region" aria-label="{escape(named.caption)}">'
        '<table class="d-table">'
        f"<caption>{escape(named.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def help_html(title: str, sentences: tuple[str, ...], command: str = "") -> str:
    """Give a page's word in place of figures: what is missing, and what to do."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    code = f"<p><code>{escape(command)}</code></p>" if command else ""
    return f'<section class="d-help" role="status"><h2>{escape(title)}</h2>{said}{code}</section>'


def _figure(figure: Figure, *, dark: bool) -> str:
    return f"<figure><figcaption>{escape(figure.title)}</figcaption>{picture(figure, dark=dark)}</figure>"


def _row(row: tuple[Cell, ...], right: list[bool]) -> str:
    first = f'<th scope="row">{_cell(row[0])}</th>'
    rest = zip(row[1:], right[1:], strict=True)
    return f"<tr>{first}{''.join(f'<td{_right(is_right)}>{_cell(cell)}</td>' for cell, is_right in rest)}</tr>"


def _right(is_right: bool) -> str:
    return ' class="d-number"' if is_right else ""


def _cell(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case str():
            return escape(cell)
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:.6g}"
