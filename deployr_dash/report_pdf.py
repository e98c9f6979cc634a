"""A report as PDF: tagged, with bookmarks, real tables, and figures as vectors whose words can be marked.

Typst sets it, from a template beside this module. It brings its own fonts and fetches nothing. Source: ISO 14289-1
(PDF/UA-1), which Typst checks as it writes.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import msgspec

from deployr_dash.panels.panel import NamedTable, Panel
from deployr_dash.report import Chapter, Drawings, Report
from deployr_dash.screens.shown import MOST_ROWS, left_out, numeric, written
from deployr_plots.drawing import FAMILY, font_folder
from deployr_plots.figures import Figure

_FAMILY = re.compile(r'(<svg [^>]*font-family=")[^"]*')


class PdfNotSet(ValueError):
    """The PDF could not be set; the message says why, and nothing of what was to be shown."""


def report_pdf(report: Report, drawings: Drawings) -> bytes:
    """Give the PDF; the same report gives the same bytes, with the same version of Typst.

    Raises:
        PdfNotSet: Typst refuses it.
    """
    import typst

    fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(font_folder())])
    said = msgspec.json.encode(_shown(report, drawings)).decode()
    try:
        made = typst.compile(
            (files("deployr_dash") / "report.typ").read_bytes(),
            format="pdf",
            font_paths=fonts,
            sys_inputs={"report": said},
            pdf_standards=["ua-1"],
            timestamp=report.made_at,
        )
    except typst.TypstError as error:
        raise PdfNotSet(f"the PDF could not be set: {error}; write --html, and tell us") from error
    return made


def _shown(report: Report, drawings: Drawings) -> dict[str, Any]:
    return {
        "title": report.title,
        "window": report.window,
        "made": report.made,
        "made_by": report.made_by,
        "made_at": list(report.made_at.timetuple()[:6]),
        "facts": report.facts,
        "glance": _panel(report.glance, drawings),
        "chapters": [_chapter(chapter, drawings) for chapter in report.chapters],
        "passages": [{"title": each.title, "points": each.points} for each in report.passages],
    }


def _chapter(chapter: Chapter, drawings: Drawings) -> dict[str, Any]:
    return {
        "title": chapter.title,
        "running": chapter.running,
        "about": chapter.about,
        "sections": [
            {"title": each.title, "asks": each.asks, "panels": [_panel(panel, drawings) for panel in each.panels]}
            for each in chapter.sections
        ],
    }


def _panel(panel: Panel, drawings: Drawings) -> dict[str, Any]:
    return {
        "title": panel.title,
        "said": panel.said,
        "missing": panel.missing,
        "notes": panel.notes,
        "figures": [_figure(figure, drawings[figure.name]) for figure in panel.figures],
        "tables": [_table(named) for named in panel.tables],
    }


def _figure(figure: Figure, drawn: str) -> dict[str, Any]:
    return {
        "title": figure.title,
        "told": figure.told,
        "svg": _FAMILY.sub(rf"\1{FAMILY}", drawn, count=1),
        "width": figure.width,
    }


def _table(named: NamedTable) -> dict[str, Any]:
    table = named.table
    return {
        "caption": named.caption,
        "columns": table.columns,
        "right": numeric(table),
        "rows": [[written(cell) for cell in row] for row in table.rows[:MOST_ROWS]],
        "more": left_out(table),
    }
