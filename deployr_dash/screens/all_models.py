"""All models at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from html import escape

import streamlit as st

from deployr_core.bundle import Manifest
from deployr_dash.filters import Filters, filters_of, query_of, window_of
from deployr_dash.panels.glance import COUNTED, NOTES, Glance, counted, glances, in_short
from deployr_dash.panels.panel import Window
from deployr_dash.parts import Index
from deployr_dash.screens import reading
from deployr_dash.screens.frame import head, is_dark, link
from deployr_dash.screens.shown import help_html, picture
from deployr_dash.sources import Sources
from deployr_dash.views import days_of, usual_first, usual_last
from deployr_plots.words import count, of


def page(sources: Sources, index: Index, name: str) -> None:
    """Show the table of models."""
    extracted = index.extracted_at or datetime.min.replace(tzinfo=UTC)
    aside = f"extract of {extracted:%Y-%m-%d %H:%M} UTC"
    head("All models", aside=aside, name=name, environment=sources.environment, here="./")
    if not index.packets:
        st.html(no_packets())
        return
    first_day, last_day = days_of(index.packets)
    last_day = usual_last(last_day, extracted)
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
    usual = usual_first(first_day, last_day)
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
    columns = ("model", "to look at", "packets a day", *COUNTED)
    head_cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    rows = "".join(_row(line, filters) for line in lines)
    notes = "".join(f'<p class="d-note">{escape(note)}</p>' for note in NOTES)
    return (
        f'<section class="d-alone"><p class="d-said">{escape(in_short(lines))}</p><div class="d-scroll" tabindex="0"'
        ' role="region" aria-label="Models"><table class="d-table d-glance">'
        f"<caption>{window.start:%Y-%m-%d} to {window.end - timedelta(days=1):%Y-%m-%d}, days of UTC</caption>"
        f"<thead><tr>{head_cells}</tr></thead><tbody>{rows}</tbody></table></div>{notes}</section>"
    )


def _row(line: Glance, filters: Filters) -> str:
    address = link("model", {"model": line.model_id, **query_of(filters)})
    watch = (
        "<br>".join(f'<span class="d-watch">{escape(each)}</span>' for each in line.watch)
        if line.watch
        else '<span class="d-fine">–</span>'
    )
    volume = f'{picture(line.volume, dark=is_dark())}<span class="d-fine">up to {count(line.most_a_day)} a day</span>'
    cells = (watch, volume, *(escape(each) for each in counted(line)))
    versions = f'<br><span class="d-quiet">{of(line.versions, "version")}</span>'
    name = f'<th scope="row"><a href="{escape(address)}" target="_self">{escape(line.model_id)}</a>{versions}</th>'
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
