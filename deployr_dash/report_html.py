"""A report as one HTML file that needs nothing else: read on a screen in light and dark, by keyboard, and printed.

The mark-up is XML, too, so that it can be checked strictly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from html import escape
from importlib.resources import files

from deployr_dash.report import Chapter, Drawings, Facts, Passage, Report, Section
from deployr_dash.screens.shown import panel_html
from deployr_dash.theme import RULES, colours
from deployr_plots.figures import Figure
from deployr_plots.palettes import DARK, LIGHT, Palette

_HEX = re.compile(r"#([0-9a-f]{6})\b")


def report_html(report: Report, drawings: Drawings) -> str:
    """Give the page; the same report gives the same text."""
    draw = partial(_drawn, drawings)
    chapters = "".join(_chapter(chapter, draw) for chapter in report.chapters)
    passages = "".join(_passage(passage) for passage in report.passages)
    title = escape(report.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n<link rel="icon" href="data:,"/>\n'
        f"<title>{title}</title>\n<style>{_style()}</style>\n</head>\n<body>\n"
        '<a class="r-skip" href="#main">Skip to the report</a>\n'
        f'<header class="r-cover"><p class="d-quiet">deployr</p><h1>{title}</h1>{_facts(report.facts)}</header>\n'
        f'{_contents(report)}\n<main id="main">\n'
        f'<section class="r-chapter">{panel_html(report.glance, draw)}</section>\n{chapters}{passages}</main>\n'
        f'<footer class="r-end d-note"><p>{title}. Made {escape(report.made)}. Nothing in it names a patient.</p>'
        "</footer>\n</body>\n</html>\n"
    )


def _chapter(chapter: Chapter, draw: Callable[[Figure], str]) -> str:
    sections = "".join(
        _section(_anchor(chapter, number), section, draw) for number, section in enumerate(chapter.sections, start=1)
    )
    anchor = escape(chapter.anchor)
    return (
        f'<article class="r-chapter" aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(chapter.title)}</h2>'
        f"{_facts(chapter.about)}{sections}</article>\n"
    )


def _section(anchor: str, section: Section, draw: Callable[[Figure], str]) -> str:
    panels = "".join(panel_html(panel, draw, level=4) for panel in section.panels)
    name = escape(anchor)
    return (
        f'<section role="group" aria-labelledby="{name}"><h3 id="{name}">{escape(section.title)}</h3>'
        f'<p class="d-quiet">{escape(section.asks)}</p>{panels}</section>'
    )


def _passage(passage: Passage) -> str:
    points = "".join(f"<li>{escape(point)}</li>" for point in passage.points)
    anchor = escape(passage.anchor)
    return (
        f'<section class="r-chapter" aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(passage.title)}</h2>'
        f"<ul>{points}</ul></section>\n"
    )


def _contents(report: Report) -> str:
    entries = [_entry(report.glance.name, report.glance.title)]
    for chapter in report.chapters:
        sections = "".join(
            _entry(_anchor(chapter, number), section.title) for number, section in enumerate(chapter.sections, start=1)
        )
        entries.append(_entry(chapter.anchor, chapter.title, f"<ol>{sections}</ol>"))
    entries += [_entry(passage.anchor, passage.title) for passage in report.passages]
    return f'<nav class="r-contents" aria-label="Contents"><h2>Contents</h2><ol>{"".join(entries)}</ol></nav>'


def _entry(anchor: str, title: str, inside: str = "") -> str:
    return f'<li><a href="#{escape(anchor)}">{escape(title)}</a>{inside}</li>'


def _anchor(chapter: Chapter, number: int) -> str:
    return f"{chapter.anchor}-part-{number}"


def _facts(facts: Facts) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in facts)
    return f'<dl class="r-facts">{lines}</dl>' if lines else ""


def _drawn(drawings: Drawings, figure: Figure) -> str:
    """Give the figure in the page itself, so that its colours follow the page's and its words can be marked."""
    known = _tones(LIGHT)
    svg = _HEX.sub(lambda found: f"var(--f-{found[1]})" if found[0] in known else found[0], drawings[figure.name])
    return svg.replace("<svg ", f'<svg style="--width:{figure.width}px" ', 1)


@cache
def _style() -> str:
    """Give the style sheet: dark where the reader's screen is, and light on paper."""
    names = tuple(_tones(LIGHT))
    light, dark = (
        " ".join(f"--f-{name[1:]}: {tone};" for name, tone in zip(names, _tones(palette).values(), strict=True))
        for palette in (LIGHT, DARK)
    )
    own = (files("deployr_dash") / "report.css").read_text(encoding="utf-8")
    return (
        f":root {{ color-scheme: light; {colours(dark=False)} {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {colours(dark=True)} {dark} }}"
        f" }}\n{RULES}{own}"
    )


def _tones(palette: Palette) -> Mapping[str, str]:
    """Give the palette's colours by those of `LIGHT` in their places."""
    tones = {"paper": palette.paper, "ink": palette.ink, "muted": palette.muted, "grid": palette.grid}
    usual = {"paper": LIGHT.paper, "ink": LIGHT.ink, "muted": LIGHT.muted, "grid": LIGHT.grid}
    named = {usual[name]: tone for name, tone in tones.items()}
    return {**named, **{LIGHT.roles[role]: tone for role, tone in palette.roles.items()}}
