"""One model: three tabs of panels, over the window and the cohort that the address names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from deployr_dash.filters import (
    ALL_VERSIONS,
    EVERYBODY,
    Filters,
    before,
    chosen,
    filters_of,
    query_of,
    window_of,
    within,
)
from deployr_dash.one_thread import one_thread
from deployr_dash.panels.panel import Panel, Window
from deployr_dash.panels.people import PROPERTIES, group_name
from deployr_dash.panels.tabs import TABS, panels_of
from deployr_dash.parts import Index
from deployr_dash.plan import MonitoringPlan, plan_panel, read_held_out, read_plans
from deployr_dash.screens import reading
from deployr_dash.screens.all_models import no_packets
from deployr_dash.screens.frame import head, link, show
from deployr_dash.screens.shown import help_html
from deployr_dash.sources import Sources
from deployr_dash.views import as_planned, days_of, usual_first, usual_last, view_of, with_features

_SOME_PACKETS = 25
_HASHED: dict[str | type[Any], Callable[[Any], Any]] = {
    Sources: lambda each: str(each.extract),
    Index: lambda each: each.generation,
    Filters: repr,
    Window: repr,
    MonitoringPlan: repr,
}
"""What tells arguments apart whose answers are kept."""


def page(sources: Sources, index: Index, name: str) -> None:
    """Show the tab that was asked for."""
    query = st.query_params.to_dict()
    model = query.get("model", "")
    parts = [part for part in index.packets if part.model_id == model]
    extracted = index.extracted_at or datetime.min.replace(tzinfo=UTC)
    aside = f"extract of {extracted:%Y-%m-%d %H:%M} UTC"
    head(model or "No model", aside=aside, name=name, environment=sources.environment, model=model)
    if not index.packets:
        st.html(no_packets())
        return
    if not parts:
        st.html(
            help_html("No such model here", ("Nothing in the extract is of this model. Choose one of all models.",))
        )
        return
    first_day, last_day = days_of(parts)
    last_day = usual_last(last_day, extracted)
    tab = query.get("tab", "performance") if query.get("tab") in TABS else "performance"
    usual = usual_first(first_day, last_day)
    filters = filters_of({"from": usual.isoformat(), "to": last_day.isoformat(), **query})
    window = window_of(filters, first_day=first_day, last_day=last_day)
    every = reading.packets(sources.extract, index.generation, model, before(window).start, window.end)
    filters = _asked(filters, every, first_day=first_day, last_day=last_day)
    window = window_of(filters, first_day=first_day, last_day=last_day)
    every = reading.packets(sources.extract, index.generation, model, before(window).start, window.end)
    address = {"model": model, **query_of(filters)}
    panel = query.get("panel")
    st.query_params.from_dict({**address, "tab": tab, **({"panel": panel} if panel else {})})
    st.html(_tabs(tab, address))
    some = within(chosen(every, filters), window)
    if some.empty:
        st.html(_nothing(filters))
        return
    plan = read_plans(sources.plans).get(model)
    panels = _made(sources, index, model, filters, tab, window, extracted, plan)
    if tab == "impact" and set(some["mode"].dropna()) == {"silent"}:
        st.html(_silent())
    show(panels, asked=panel)
    if plan is not None:
        show([plan_panel(plan)])
    if tab == "integrity":
        st.html(f'<section class="d-alone"><h2>Single packets</h2>{_links(some)}</section>')


@st.cache_resource(
    max_entries=64,
    show_spinner="Measuring …",
    hash_funcs=_HASHED,
)
def _made(
    sources: Sources,
    index: Index,
    model: str,
    filters: Filters,
    tab: str,
    window: Window,
    now: datetime,
    plan: MonitoringPlan | None,
) -> tuple[Panel, ...]:
    view = view_of(
        reading.packets(sources.extract, index.generation, model, before(window).start, window.end),
        model=model,
        filters=filters,
        window=window,
        now=now,
        manifests=reading.manifests(sources.extract, index.generation).get(model, {}),
    )
    view = as_planned(view, plan, read_held_out(sources.plans))
    if tab == "integrity":
        view = with_features(view, sources.extract, filters=filters)
    with one_thread():
        return panels_of(view, tab)


def _asked(filters: Filters, packets: pd.DataFrame, *, first_day: date, last_day: date) -> Filters:
    """Show the filters at the side and give what they say now."""
    with st.sidebar:
        st.subheader("What is looked at")
        days = st.date_input(
            "Days (UTC), both included",
            value=(filters.first or first_day, filters.last or last_day),
            min_value=first_day - timedelta(days=366),
            max_value=last_day + timedelta(days=366),
            format="YYYY-MM-DD",
        )
        version = _choice("Version", ALL_VERSIONS, packets["version"], filters.version)
        cohort = {
            column: picked
            for column, called in PROPERTIES.items()
            if packets[column].notna().any()
            and (picked := _choice(called.capitalize(), EVERYBODY, packets[column], filters.cohort.get(column)))
        }
        only_ripe = st.toggle(
            "Ripe labels only",
            value=filters.only_ripe,
            help="Leaves out labels of packets whose label window has not passed: outcomes that come early are not like"
            " those that come late.",
        )
    first, last = (days[0], days[-1]) if isinstance(days, tuple) and days else (filters.first, filters.last)
    return Filters(first=first, last=last, version=version, cohort=cohort, only_ripe=only_ripe)


def _choice(label: str, everything: str, column: pd.Series, now: str | None) -> str | None:
    names = sorted({str(each) for each in column.dropna().unique()} | ({now} if now else set()))
    options = [everything, *names]
    picked = st.selectbox(label, options, index=options.index(now) if now in options else 0, format_func=group_name)
    return None if picked == everything else picked


def _tabs(tab: str, address: dict[str, str]) -> str:
    links = []
    for key, each in TABS.items():
        current = ' aria-current="page"' if key == tab else ""
        to = escape(link("model", {**address, "tab": key}))
        links.append(f'<a href="{to}" target="_self"{current}>{escape(each.title)}</a>')
    asks = f'<p class="d-quiet">{escape(TABS[tab].asks)}</p>'
    return f'<nav class="d-tabs" aria-label="What is asked">{"".join(links)}</nav>{asks}'


def _silent() -> str:
    return help_html(
        "This model runs silently",
        (
            "Its scores are stored and shown to nobody, so nobody acts on them yet. What acting on them would gain is"
            " under Usefulness; how many alerts that would be, under At thresholds in Performance.",
            "What clinicians do and whether it helps can be seen once a deployment advises, best in a trial:"
            " docs/trials.md says how.",
        ),
    )


def _nothing(filters: Filters) -> str:
    which = " of this cohort and version" if filters.cohort or filters.version else ""
    return help_html(
        "No packets here",
        (
            f"There are no packets{which} in these days.",
            "Choose other days, everybody, or all versions on the left. If there should be some, look at the app’s log"
            " and bring the extract up to date.",
        ),
        "deployr monitor extract",
    )


def _links(packets: pd.DataFrame) -> str:
    newest = packets.sort_values("received_at", ascending=False).head(_SOME_PACKETS)
    rows = "".join(
        f'<tr><th scope="row"><a href="{escape(link("packet", {"id": str(packet.packet_id)}))}" target="_self">'
        f"{escape(str(packet.packet_id)[:16])}…</a></th><td>{packet.received_at:%Y-%m-%d %H:%M:%S}</td>"
        f"<td>{escape(str(packet.kind))}</td><td>{'' if pd.isna(packet.score) else f'{packet.score:.3f}'}</td></tr>"
        for packet in newest.itertuples()
    )
    return (
        '<table class="d-table"><caption>The newest of what is looked at, to be opened</caption>'
        '<thead><tr><th scope="col">packet</th>'
        '<th scope="col">received (UTC)</th><th scope="col">what came of it</th><th scope="col">score</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
