"""One run: how it stands, what it was trained from, how it did, who vouches for it, its papers and its entries."""

from __future__ import annotations

from html import escape

import streamlit as st

from deployr_core.governance.card import Card, card_json
from deployr_core.governance.card_page import card_page
from deployr_core.governance.chai_xml import chai_xml
from deployr_core.registry.standing import RunStanding, Standing
from deployr_dash.deeds import offered, who_may
from deployr_dash.panels.of_a_run import go_or_no_go, held_out, papers, signature, what_went_in
from deployr_dash.panels.panel import Panel
from deployr_dash.registry import NothingOfTheRun, RegistryReader
from deployr_dash.screens import history
from deployr_dash.screens import registry_parts as parts
from deployr_dash.screens.frame import is_dark, show
from deployr_dash.screens.reading import card_of
from deployr_dash.screens.shown import linked_table, panel_html, picture
from deployr_dash.sources import Sources


def page(sources: Sources, reader: RegistryReader, name: str) -> None:
    """Show the run that the address names."""
    run_id = st.query_params.get("run", "")
    journal = parts.asked_journal(sources, reader, name, title=run_id or "No run", tab="")
    run = None if journal is None else parts.asked_run(journal, run_id)
    if journal is None or journal.standing is None or run is None:
        return
    st.html(_standing(journal.standing, run))
    try:
        shelved = reader.run(journal.model_id, run_id)
    except NothingOfTheRun as error:
        show([Panel(name="run-shelf", title="The run itself", missing=f"It is not to be read here: {error}")])
    else:
        show(
            [
                held_out(shelved.run, shelved.manifest),
                what_went_in(shelved.run, shelved.manifest, shelved.run_sha256),
                signature((shelved.signed_by, shelved.unsigned), (shelved.run_signed_by, shelved.run_unsigned)),
            ]
        )
        _evidence(sources, reader, journal.model_id, run_id)
    entries = history.table(journal, journal.about(run_id), caption="What was done to this run, the newest first")
    st.html(f'<section class="d-alone d-panel"><h2>Journal</h2>{entries}</section>')


def _standing(standing: Standing, run: RunStanding) -> str:
    approved = f", approved by {escape(run.approved_by)}" if run.approved_by else ""
    said = (
        f'<p class="d-said">{escape(run.stage.value.capitalize())} of {escape(standing.model_id)}, since'
        f" {run.stage_at:%Y-%m-%d %H:%M} UTC, by {escape(run.stage_by)}.</p>"
        f"<p>Trained by {escape(run.trained_by)}, registered by {escape(run.registered_by)}"
        f"{approved}; for the {escape(run.deploy_type)}.</p>"
        f"{parts.to_comparison(standing, run.run_id)}"
    )
    rows = [
        (
            parts.to_deed(standing.model_id, run.run_id, each.deed),
            escape(who_may(each.step)),
            escape(each.deed.means),
        )
        for each in offered(standing, run.run_id)
    ]
    may = linked_table("What may be done with it now", ("deed", "who may", "what follows"), rows) if rows else ""
    return f'<section class="d-alone d-panel"><h2>Standing</h2>{said}{may}</section>'


def _evidence(sources: Sources, reader: RegistryReader, model_id: str, run_id: str) -> None:
    try:
        card = card_of(reader, sources.extract, model_id, run_id)
    except NothingOfTheRun as error:
        show([Panel(name="run-checklist", title="Go or no-go, and papers", missing=f"They cannot be made: {error}")])
        return
    show([go_or_no_go(card.checklist)])
    with st.container(border=True, key="panel-run-papers"):
        st.html(panel_html(papers(card), lambda figure: picture(figure, dark=is_dark())))
        _downloads(card)


def _downloads(card: Card) -> None:
    with st.container(horizontal=True):
        for called, kind, mime, made in (
            ("Model card (HTML)", "html", "text/html", lambda: card_page(card).encode()),
            ("CHAI’s card (XML)", "xml", "application/xml", lambda: chai_xml(card)),
            ("Everything (JSON)", "json", "application/json", lambda: card_json(card)),
        ):
            st.download_button(
                called,
                data=made,
                file_name=f"{card.run_id}.{kind}",
                mime=mime,
                key=f"papers-{kind}",
                on_click="ignore",
            )
