"""The model card as one HTML file that needs nothing else: read on a screen in light and dark, and printed.

The mark-up is XML, too, so that it can be checked strictly.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from deployr_core.governance.card import Card, Paper
from deployr_core.governance.checklist import Checked, Verdict, in_words_of_all
from deployr_core.governance.facts import how_to_know
from deployr_core.governance.profile import Answer, State

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #556070; --line: #cdd4dc; --paper: #fff; --band: #f3f5f8;
 --good: #12633b; --bad: #9d1c1c; --open: #7a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --quiet: #a6b0bd; --line: #3b4551; --paper: #14181d;
 --band: #1d232a; --good: #7ed3a4; --bad: #ff9b94; --open: #f0c069; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 70rem; background: var(--paper); color: var(--ink);
 font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
code { overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.3rem; margin: 2.2rem 0 .4rem; } h3 { font-size: 1.05rem; }
p { margin: .3rem 0; } .quiet { color: var(--quiet); } code { font-size: .9em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .93rem; }
caption { text-align: left; color: var(--quiet); padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .45rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); } td p { margin: 0 0 .2rem; }
.passed, .answered { color: var(--good); font-weight: 600; } .failed, .missing { color: var(--bad); font-weight: 600; }
.untold, .partly { color: var(--open); font-weight: 600; } .word { white-space: nowrap; }
nav ul, .long { columns: 2; padding-left: 1.2rem; } .long li { break-inside: avoid; } a { color: inherit; }
@media (max-width: 40rem) { table { min-width: 44rem; } nav ul, .long { columns: 1; } body { padding: .8rem; } }
@media print { :root { --ink: #000; --quiet: #333; --line: #999; --paper: #fff; --band: #eee; --good: #000; --bad: #000;
 --open: #000; } body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
 tr { break-inside: avoid; } h2, h3 { break-after: avoid; } thead { display: table-header-group; }
 .wide { overflow: visible; } }
"""
_CLASS = {
    Verdict.PASSED: "passed",
    Verdict.FAILED: "failed",
    Verdict.UNTOLD: "untold",
    State.ANSWERED: "answered",
    State.PARTLY: "partly",
    State.MISSING: "missing",
}


def card_page(card: Card) -> str:
    """Give the page; the same card gives the same text."""
    title = escape(f"Model card: {card.model_id}")
    sections = [("known", "What is known", _known(card)), ("missing", "What is missing", _missing(card))]
    if card.checklist:
        sections.insert(0, ("checklist", "Go or no-go", checklist_html(card.checklist)))
    sections += [(f"paper-{paper.profile.name}", paper.profile.title, _paper(paper)) for paper in card.papers]
    contents = "".join(f'<li><a href="#{name}">{escape(called)}</a></li>' for name, called, _ in sections)
    body = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(called)}</h2>{content}</section>\n'
        for name, called, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n<link rel="icon" href="data:,"/>\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        f'<p class="quiet">Run <code>{escape(card.run_id)}</code>, bundle <code>{escape(card.bundle_sha256)}</code>'
        "</p>\n"
        "<p>Written from what is known; behind each answer stands who or what says so. What nobody said is missing, and"
        f' listed as that.</p>\n</header>\n<nav aria-label="Contents"><ul>{contents}</ul></nav>\n'
        f"<main>\n{body}</main>\n"
        "</body>\n</html>\n"
    )


def checklist_html(items: tuple[Checked, ...]) -> str:
    """Give the checklist as a table, with what it comes to before it."""
    rows = "".join(
        f'<tr><td><p>{escape(each.asked)}</p><p class="quiet"><code>{escape(each.item)}</code></p></td>'
        f'<td><p>{escape(each.bar)}</p><p class="quiet">{escape(each.because)}</p></td>'
        f'<td><p>{escape(each.figure)}</p><p class="quiet">{escape(each.said)}</p></td>'
        f'<td><span class="word {_CLASS[each.verdict]}">{each.verdict}</span></td><td>{escape(each.do)}</td></tr>'
        for each in items
    )
    columns = ("What is asked", "Bar, and why", "Figure", "Verdict", "What to do")
    return f"<p>{escape(in_words_of_all(items))}</p>{_table(columns, rows, 'Intervals are 95 %.')}"


def _known(card: Card) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(each.fact.replace("_", " "))}</th>'
        f"<td>{''.join(f'<p>{escape(line)}</p>' for line in each.lines)}</td><td>{escape(each.source)}</td></tr>"
        for each in card.known.values()
    )
    counts = "".join(f"<p>{escape(f'{paper.profile.title}: {paper.in_short}')}</p>" for paper in card.papers)
    return counts + _table(("Fact", "What is known", "By"), rows, "Everything that the papers below are made from.")


def _missing(card: Card) -> str:
    if not card.missing:
        return "<p>Nothing that these papers ask for.</p>"
    return f'<ul class="long">{"".join(f"<li>{escape(how_to_know(name))}</li>" for name in card.missing)}</ul>'


def _paper(paper: Paper) -> str:
    rows = "".join(_row(answer) for answer in paper.answers)
    return (
        f'<p class="quiet">{escape(paper.profile.source)}</p><p class="quiet">{escape(paper.profile.wording)}</p>'
        + _table(("Item", "What is asked", "Answer", "State"), rows, paper.in_short)
    )


def _row(answer: Answer) -> str:
    item = answer.item
    said = "".join(
        f'{"".join(f"<p>{escape(line)}</p>" for line in each.lines)}<p class="quiet">by {escape(each.source)}</p>'
        for each in answer.said
    )
    lacks = "".join(f'<p class="quiet">Missing: {escape(how_to_know(name))}</p>' for name in answer.missing)
    number = item.number.rpartition("/")[2]
    return (
        f'<tr><th scope="row">{escape(number)}</th><td><p>{escape(item.asked)}</p>'
        f'<p class="quiet">{escape(item.section)}</p></td><td>{said}{lacks}</td>'
        f'<td><span class="word {_CLASS[answer.state]}">{answer.state}</span></td></tr>'
    )


def _table(columns: Iterable[str], rows: str, caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
