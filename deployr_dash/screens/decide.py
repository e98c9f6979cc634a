"""A deed: what speaks for it, a reason in words, and then the app’s answer, or the command where nobody can send it."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import streamlit as st

from deployr_core.governance.checklist import for_journal
from deployr_core.registry.journal import LONGEST_WHY, Action, CheckedItem
from deployr_core.registry.standing import RunStanding, Standing
from deployr_dash.deeds import BY_COMMAND, DEEDS, Ended, Outcome, SendsDeeds, Wanted, command, missing, offered, who_may
from deployr_dash.panels.of_a_run import go_or_no_go
from deployr_dash.panels.panel import NamedTable, Panel
from deployr_dash.registry import NothingOfTheRun, RegistryReader
from deployr_dash.screens import registry_parts as parts
from deployr_dash.screens.frame import show
from deployr_dash.screens.reading import card_of
from deployr_dash.screens.shown import help_html
from deployr_dash.sign_in import SignInKind
from deployr_dash.sources import Sources
from deployr_plots.tables import Table
from deployr_plots.words import of
from deployr_serve.core.registry_deeds import own_items

_TYPE_IT = "type this where the site’s settings are, under your own login."
_WRITES = f"It writes a folder on a machine: {_TYPE_IT}"
_WHY_TYPED = {
    (False, False): f"The dashboard only reads, and has no proof of who you are that the app could take: {_TYPE_IT}",
    (False, True): f"The sign-in gave no proof that the app could take: sign out and in again, or {_TYPE_IT}",
    (True, False): _WRITES,
    (True, True): _WRITES,
}
"""By whether it is a command's alone, and whether whoever is signed in should have had a proof."""
_WHY, _DESPITE, _OUTCOME = "deed-why", "deed-despite", "deed-outcome"


def page(sources: Sources, reader: RegistryReader, name: str) -> None:
    """Show the deed that the address names."""
    run_id, deed = st.query_params.get("run", ""), DEEDS.get(st.query_params.get("deed", ""))
    title = run_id if deed is None else f"{deed.says}: {run_id}"
    journal = parts.asked_journal(sources, reader, name, title=title, tab="")
    run = None if journal is None else parts.asked_run(journal, run_id)
    if journal is None or journal.standing is None or run is None:
        return
    done = st.session_state.get(_OUTCOME)
    if isinstance(done, Outcome):
        st.html(_ended(done, journal.model_id, run_id))
        if done.ended is not Ended.REFUSED:
            return
    found = next((each for each in offered(journal.standing, run_id) if each.deed is deed), None)
    if deed is None or found is None:
        st.html(_not_now(journal.standing, run))
        return
    st.html(
        f'<section class="d-alone d-panel"><p class="d-said">{escape(deed.says)}'
        f" {parts.to_run(journal.model_id, run_id)}, {escape(run.stage.value)} of {escape(journal.model_id)}.</p>"
        f"<p>{escape(deed.means)}</p><p>Takes the role {escape(who_may(found.step))}.{_as(name)}</p>"
        f"{parts.to_comparison(journal.standing, run_id)}</section>"
    )
    wanted = Wanted(deed=deed, model_id=journal.model_id, run_id=run_id)
    if deed.action is Action.APPROVED:
        wanted = _with_checklist(sources, reader, journal.standing, wanted)
    authorization = _authorization(sources)
    if sources.deeds is not None and authorization and deed.action not in BY_COMMAND:
        _form(sources.deeds, authorization, wanted)
    else:
        lost_token = sources.deeds is not None and not authorization
        _typed(reader, wanted, why=_WHY_TYPED[deed.action in BY_COMMAND, lost_token])


def _as(name: str) -> str:
    return f" You are signed in as {escape(name)}; the app decides whether you may." if name else ""


def _authorization(sources: Sources) -> str:
    """Give the proof under which whoever looks may act; empty where they have none that the app takes."""
    if sources.sign_in.kind is SignInKind.ENTRA:
        token = st.user.tokens.to_dict().get("access", "") if st.user.is_logged_in else ""
        return f"Bearer {token}" if token else ""
    return sources.authorization or ""


def _with_checklist(sources: Sources, reader: RegistryReader, standing: Standing, wanted: Wanted) -> Wanted:
    """Show what the approval will record, and give the wish with it."""
    items: tuple[CheckedItem, ...] = ()
    own: tuple[CheckedItem, ...] = ()
    try:
        own = own_items(reader.run(wanted.model_id, wanted.run_id), standing)
        checked = card_of(reader, sources.extract, wanted.model_id, wanted.run_id).checklist
    except NothingOfTheRun as error:
        show([Panel(name="run-checklist", title="Go or no-go", missing=f"It cannot be computed: {error}")])
    else:
        items = for_journal(checked)
        show([go_or_no_go(checked)])
    if own:
        rows = tuple((each.item, "✓ met" if each.passed else "✕ not met", each.said) for each in own)
        table = Table(columns=("item", "verdict", "what was found"), rows=rows)
        show(
            [
                Panel(
                    name="run-own-items",
                    title="What the registry looks at itself",
                    tables=(NamedTable(caption="On every approval, whatever else is", table=table),),
                )
            ]
        )
    return replace(wanted, checklist=items, unmet=sum(not each.passed for each in (*own, *items)))


def _form(deeds: SendsDeeds, authorization: str, wanted: Wanted) -> None:
    deed = wanted.deed
    with st.container(border=True, key="panel-deed"), st.form("deed", border=False):
        _why(wanted)
        st.form_submit_button(
            f"{deed.says} {wanted.run_id}", type="primary", on_click=_send, args=(deeds, authorization, wanted)
        )


def _why(wanted: Wanted) -> None:
    st.text_area(
        "Reason" if wanted.deed.needs_why else "Reason (optional)",
        key=_WHY,
        max_chars=LONGEST_WHY,
        help="In your own words. It stays on record for good, so nothing about a patient.",
    )
    if wanted.unmet:
        st.checkbox(
            f"Approve although {of(wanted.unmet, 'item')} of the checklist did not pass; that stays on record",
            key=_DESPITE,
        )


def _send(deeds: SendsDeeds, authorization: str, wanted: Wanted) -> None:
    """Send it once; a second click on a page that has not come back yet does nothing."""
    before = st.session_state.get(_OUTCOME)
    if isinstance(before, Outcome) and before.ended is not Ended.REFUSED:
        return
    wanted = _filled(wanted)
    lacks = missing(wanted)
    outcome = Outcome(ended=Ended.REFUSED, said=(lacks,)) if lacks else deeds.send(wanted, authorization=authorization)
    st.session_state[_OUTCOME] = outcome


def _filled(wanted: Wanted) -> Wanted:
    why, despite = st.session_state.get(_WHY, ""), bool(st.session_state.get(_DESPITE, False))
    return replace(wanted, why=str(why), despite=despite)


def _typed(reader: RegistryReader, wanted: Wanted, *, why: str) -> None:
    """Show the command in place of a button."""
    with st.container(border=True, key="panel-command"):
        st.html(f'<section class="d-panel"><h2>The command</h2><p>{why}</p></section>')
        _why(wanted)
        line = command(_filled(wanted), program=reader.program, options=reader.options, extract=reader.extract)
        st.code(line, language=None, wrap_lines=True)
        if wanted.deed.needs_why and not _filled(wanted).why.strip():
            st.html(
                '<p class="d-note">Write the reason above first: it goes into the command in place of the dots.</p>'
            )


def _ended(outcome: Outcome, model_id: str, run_id: str) -> str:
    title, classes, role = {
        Ended.DONE: ("Done", "d-help", "status"),
        Ended.REFUSED: ("Not done", "d-alarm", "alert"),
        Ended.UNKNOWN: ("Nobody knows whether it was done", "d-alarm", "alert"),
    }[outcome.ended]
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in outcome.said)
    ways = f"<p>{parts.to_run(model_id, run_id)} · {parts.to('history', 'History', model=model_id)}</p>"
    return f'<section class="{classes}" role="{role}"><h2>{title}</h2>{said}{ways}</section>'


def _not_now(standing: Standing, run: RunStanding) -> str:
    may = ", ".join(each.deed.says.lower() for each in offered(standing, run.run_id)) or "nothing"
    return help_html(
        "This cannot be done now",
        (f"{run.run_id} is {run.stage}; what may be done with it: {may}. Somebody may have been faster.",),
    )
