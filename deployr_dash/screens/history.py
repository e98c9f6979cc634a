"""A model's journal as it is stored: who did what, when, why and in whose place; and whether its digests hold."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec
import streamlit as st

from deployr_core.registry.journal import Action, CheckedItem, Entry
from deployr_dash.panels.of_a_run import DIGITS
from deployr_dash.registry import Journal, RegistryReader
from deployr_dash.screens import registry_parts as parts
from deployr_dash.screens.shown import linked_table
from deployr_dash.sources import Sources
from deployr_plots.words import of

_COLUMNS = ("#", "when (UTC)", "who", "as", "what", "run", "why", "digest; signed by")


def page(sources: Sources, reader: RegistryReader, name: str) -> None:
    """Show the journal of the model that the address names, the newest entry first."""
    model = st.query_params.get("model", "")
    journal = parts.asked_journal(sources, reader, name, title=f"{model}: history", tab="history")
    if journal is None:
        return
    if journal.fault is None:
        st.html(_whole(journal))
    shown = table(journal, journal.entries, caption="Every entry, the newest first")
    st.html(f'<section class="d-alone d-panel"><h2>Journal</h2>{shown}</section>')


def table(journal: Journal, entries: Sequence[Entry], *, caption: str) -> str:
    """Give entries as a table, the newest first; what the fault names, and all after it, is marked."""
    rows = [_row(journal, each) for each in reversed(entries)]
    return linked_table(caption, _COLUMNS, rows)


def _whole(journal: Journal) -> str:
    last = journal.entries[-1]
    signed = (
        "Every entry is signed by a key of the site, or vouched for by a later one that is."
        if journal.has_keys
        else "The site has no key for its journals, so that whoever can write everywhere could forge one:"
        " DEPLOYR_JOURNAL_KEY (docs/registry.md)."
    )
    return (
        '<section class="d-help" role="status"><h2>The chain of digests holds</h2>'
        f"<p>{of(len(journal.entries), 'entry', 'entries')}, every digest computed again just now, and compared with"
        f" {of(journal.compared, 'digest')} that the store and the deployed bundle were told. The last is entry"
        f" {last.number}, <code>{last.sha256}</code>.</p><p>{signed}</p>"
        "<p>If it was cut off at the end and both these places were forged, only the audit’s records tell; the command"
        f" compares with them, too:</p><p><code>deployr models verify {escape(journal.model_id)}</code></p></section>"
    )


def _row(journal: Journal, entry: Entry) -> tuple[str, ...]:
    number = str(entry.number)
    if journal.fault is not None and entry.number >= journal.fault.number:
        number = f'<span class="d-watch">{number} not to be trusted</span>'
    run = parts.to_run(journal.model_id, entry.run_id) if entry.run_id else parts.NONE
    what, other = _what(entry)
    if other:
        what += f" {parts.to_run(journal.model_id, other)}"
    return (
        number,
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        escape(entry.who),
        escape(entry.role.replace(",", ", ")),
        what,
        run,
        f"{escape(entry.why)}{_checklist(entry.checklist)}",
        f"<code>{entry.sha256[:DIGITS]}</code>{_signer(journal, entry)}",
    )


def _signer(journal: Journal, entry: Entry) -> str:
    if isinstance(entry.signature, msgspec.UnsetType):
        return '<br><span class="d-quiet">not signed</span>' if journal.has_keys else ""
    return f"<br><code>{escape(entry.signature.key_id)}</code>"


def _what(entry: Entry) -> tuple[str, str]:
    """Say what was done, and give the other run that it names, if any."""
    if entry.action is Action.REFUSED:
        return f'<span class="d-watch">refused</span>: {escape(entry.tried)} ({escape(entry.reason)})', ""
    words = {Action.COMPARED: "with", Action.ROLLED_BACK: "back to"}
    joined = f" {words.get(entry.action, 'in place of')}" if entry.replaces else ""
    return f"<strong>{escape(entry.action.value)}</strong>{joined}", entry.replaces or ""


def _checklist(items: Sequence[CheckedItem]) -> str:
    if not items:
        return ""
    lacking = [each for each in items if not each.passed]
    short = f"{len(lacking)} of {of(len(items), 'item')} not met" if lacking else f"all {of(len(items), 'item')} met"
    told = "".join(
        f"<li>{'' if each.passed else '<strong>not met</strong>: '}{escape(each.item)}: {escape(each.said)}</li>"
        for each in items
    )
    return f"<details><summary>Checklist: {short}</summary><ul>{told}</ul></details>"
