"""What the pages of the registry share: their tabs, the alarm of a broken journal, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import streamlit as st

from deployr_core.registry.standing import RunStanding, Standing
from deployr_dash.answering import Answering, answering
from deployr_dash.deeds import Deed
from deployr_dash.parts import UNREADABLE
from deployr_dash.registry import Journal, RegistryReader
from deployr_dash.screens.frame import head, link
from deployr_dash.screens.reading import state
from deployr_dash.screens.shown import help_html, words_html
from deployr_dash.sources import Sources

NONE = '<span class="d-quiet">none</span>'
_TABS: Mapping[str, str] = {"registry": "Standing", "compare": "Compare", "history": "History"}


def to(page: str, words: str, **query: str) -> str:
    """Give words as a link to a page of the dashboard."""
    return f'<a href="{escape(link(page, query))}" target="_self">{escape(words)}</a>'


def to_run(model_id: str, run_id: str) -> str:
    """Give a run's id as a link to its page."""
    return to("run", run_id, model=model_id, run=run_id)


def to_deed(model_id: str, run_id: str, deed: Deed) -> str:
    """Give what may be done as a link to the page where it is."""
    return to("decide", deed.says, model=model_id, run=run_id, deed=deed.verb)


def to_comparison(standing: Standing, run_id: str) -> str:
    """Give a paragraph that leads to the run beside the champion; empty where there is nothing to compare with."""
    if standing.champion in {None, run_id}:
        return ""
    return f"<p>{to('compare', 'Compare it with the champion', model=standing.model_id, run=run_id)}</p>"


def asked_journal(sources: Sources, reader: RegistryReader, name: str, *, title: str, tab: str) -> Journal | None:
    """Show the head and the tabs of the model that the address names, and give its journal; None where there is none.

    A journal that is broken is said to be on every page of the model.
    """
    model = st.query_params.get("model", "")
    # What cannot be read is said in place of the page, head and all.
    journal = reader.journal(model)
    known = () if journal is not None else [each.model_id for each in reader.journals()]
    head(title, aside="as it is now", name=name, environment=sources.environment, here=_here(model, tab), model=model)
    if journal is None:
        told = (f"Models with a journal: {', '.join(known) or 'none yet'}.",)
        st.html(help_html("No such model in the registry", told, "deployr models list"))
        return None
    st.html(_tabs(model, tab))
    if journal.fault is not None:
        st.html(alarm_html([journal]))
    return journal


def asked_run(journal: Journal, run_id: str) -> RunStanding | None:
    """Give the run that the address names; where it names none of the model's, say so."""
    run = None if journal.standing is None else journal.standing.runs.get(run_id)
    if run is None and journal.standing is not None:
        st.html(
            help_html(
                "No such run in this journal",
                ("Choose one under Standing. A run that was only trained is not there before it is registered:",),
                "deployr models register RUN",
            )
        )
    return run


def alarm_html(journals: Sequence[Journal]) -> str:
    """Give the alarm of journals that are not what was written."""
    told = "".join(
        f"<p><strong>{escape(each.model_id)}, {_at(each)}</strong>: {words_html(each.fault.said)}.</p>"
        for each in journals
        if each.fault is not None
    )
    return (
        '<section class="d-alarm" role="alert"><h2>The journal is not what was written</h2>'
        f"{told}<p>Nothing can be approved or deployed by it, and where the registry is required nothing of the model"
        " is shown. Do not mend it: keep the store as it is, compare with the audit’s records, and look for who could"
        " write to the store.</p><p><code>deployr models verify</code></p></section>"
    )


def _at(journal: Journal) -> str:
    number = 0 if journal.fault is None else journal.fault.number
    return f"entry {number}" if number else "its entries"


def lately(sources: Sources) -> Sequence[Answering] | None:
    """Give what answered lately by the extract; None without one that can be read."""
    try:
        index = state(sources.extract)
        if index.extracted_at is None:
            return None
        return _answering(sources.extract, index.generation)
    except UNREADABLE:
        return None


@st.cache_resource(max_entries=2, show_spinner=False)
def _answering(folder: Path, generation: int) -> Sequence[Answering]:  # noqa: ARG001 # what is kept is kept by it
    index = state(folder)
    last = max((part.last for part in index.packets), default=index.extracted_at)
    return () if last is None else answering(folder, until=last)


def _here(model: str, tab: str) -> str:
    return link("registry", {"model": model}) if tab == "registry" else ""


def _tabs(model: str, tab: str) -> str:
    links = []
    for key, title in _TABS.items():
        current = ' aria-current="page"' if key == tab else ""
        links.append(f'<a href="{escape(link(key, {"model": model}))}" target="_self"{current}>{title}</a>')
    return f'<nav class="d-tabs" aria-label="What is asked of the registry">{"".join(links)}</nav>'
