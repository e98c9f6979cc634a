"""All models at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from html import escape

import streamlit as st

from deployr_core.bundle import Manifest
from deployr_dash.filters import Filters, filters_of, query_of, window_of
from deployr_dash.panels.glance import Glance, glances
from deployr_dash.panels.panel import Window
from deployr_dash.parts import Index
from deployr_dash.screens import reading
from deployr_dash.screens.frame import head, is_dark, link
from deployr_dash.screens.shown import help_html, picture
from deployr_dash.sources import Sources
from deployr_plots.words import count, number, of, percent

_USUAL_DAYS = 90


def days_with_packets(index: Index) -> tuple[date, date]:
    """Give the first and the last day that the extract holds packets of, in UTC."""
    return (
        min(part.first for part in index.packets).astimezone(UTC).date(),
        max(part.last for part in index.packets).astimezone(UTC).date(),
    )


def page(sources: Sources, index: Index, name: str) -> None:
    """Show the table of models."""
    extracted = index.extracted_at or datetime.min.replace(tzinfo=UTC)
    head("All models", aside=f"extract of {extracted:%Y-%m-%d %H:%M} UTC", name=name, environment=sources.environment)
    if not index.packets:
        st.html(no_packets())
        return
    first_day, last_day = days_with_packets(index)
    filters = _asked(first_day, last_day)
    window = window_of(filters, first_day=first_day, last_day=last_day)
    found = reading.counts(sources.extract, index.generation, window.start.date(), window.end.date())
    newest = {
        model: _newest(versions) for model, versions in reading.manifests(sources.extract, index.generation).items()
    }
    lines = glances(found, window, newest, now=extracted)
    if not lines:
        st.html(help_html("No packets in these days", ("Choose other days on the left.",)))
        return
    st.html(_table(lines, window, filters))


def no_packets() -> str:
    """Say what an empty extract means."""
    return help_html(
        "No packets yet",
        (
            "The extract is there, and the store had no packets when it was made.",
            "Ask for a first score, then bring the extract up to date. docs/first-calls.md shows how to ask.",
        ),
        "deployr monitor extract",
    )


def _asked(first_day: date, last_day: date) -> Filters:
    query = filters_of(st.query_params.to_dict())
    usual = max(first_day, last_day - timedelta(days=_USUAL_DAYS - 1))
    with st.sidebar:
        days = st.date_input(
            "Days (UTC), both included",
            value=(query.first or usual, query.last or last_day),
            min_value=first_day - timedelta(days=366),
            max_value=last_day + timedelta(days=366),
            format="YYYY-MM-DD",
        )
    first, last = (days[0], days[-1]) if isinstance(days, tuple) and days else (usual, last_day)
    filters = Filters(first=first, last=last)
    st.query_params.from_dict(query_of(filters))
    return filters


def _newest(versions: Mapping[str, Manifest]) -> Manifest:
    return list(versions.values())[-1]


def _table(lines: list[Glance], window: Window, filters: Filters) -> str:
    watched = sum(bool(line.watch) for line in lines)
    said = (
        f"{of(len(lines), 'model')}, {count(watched)} to look at."
        if watched
        else f"{of(len(lines), 'model')}, nothing stands out."
    )
    columns = (
        "model",
        "to look at",
        "packets a day",
        "packets",
        "scored",
        "95 % answered in",
        "labels",
        "outcome",
        "AUROC",
        "retrospective",
    )
    head_cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    rows = "".join(_row(line, filters) for line in lines)
    return (
        f'<section class="d-alone"><p class="d-said">{escape(said)}</p><div class="d-scroll" style="max-height:none"'
        ' tabindex="0" role="region" aria-label="Models"><table class="d-table d-glance">'
        f"<caption>{window.start:%Y-%m-%d} to {window.end - timedelta(days=1):%Y-%m-%d}, days of UTC</caption>"
        f"<thead><tr>{head_cells}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="d-note">AUROC here is of all labels there are, ripe or not, from scores in steps of .02, without an'
        " interval: for a look around. A model’s page measures it properly. Models are looked at where over 2 % failed,"
        " deliveries were given up, nothing came for a day, or AUROC is below the interval of its held-out rows.</p>"
        "</section>"
    )


def _row(line: Glance, filters: Filters) -> str:
    def shown(value: float | None, words: str) -> str:
        return "–" if value is None else words

    address = link("model", {"model": line.model_id, **query_of(filters)})
    watch = (
        "<br>".join(f'<span class="d-watch">{escape(each)}</span>' for each in line.watch)
        if line.watch
        else '<span class="d-fine">–</span>'
    )
    stated = line.stated
    cells = (
        watch,
        picture(line.volume, dark=is_dark()),
        count(line.packets),
        shown(line.scored_share, percent(line.scored_share or 0)),
        shown(line.p95_ms, f"{number(line.p95_ms or 0, digits=0)} ms"),
        count(line.labels),
        shown(line.prevalence, percent(line.prevalence or 0)),
        shown(line.auroc, number(line.auroc or 0)),
        "–" if stated is None else f"{number(stated.value)} ({number(stated.low)} to {number(stated.high)})",
    )
    versions = f'<br><span class="d-quiet">{of(line.versions, "version")}</span>'
    name = f'<th scope="row"><a href="{escape(address)}" target="_self">{escape(line.model_id)}</a>{versions}</th>'
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
