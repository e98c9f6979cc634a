"""The registry: how every model stands, and one model's runs with what may be done next by whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import streamlit as st

from deployr_core.registry.run import DeployType
from deployr_core.registry.standing import RunStanding, Stage, Standing
from deployr_dash.answering import Answering, followed
from deployr_dash.away import StoreAway
from deployr_dash.deeds import offered, who_may
from deployr_dash.panels.of_a_run import DIGITS
from deployr_dash.registry import Journal, RegistryReader
from deployr_dash.screens import registry_parts as parts
from deployr_dash.screens.frame import head
from deployr_dash.screens.shown import help_html, linked_table
from deployr_dash.sources import Sources
from deployr_plots.words import count, of

_ENDED = (Stage.REJECTED, Stage.ROLLED_BACK, Stage.RETIRED)


def page(sources: Sources, reader: RegistryReader, name: str) -> None:
    """Show all models, or the one that the address names."""
    model = st.query_params.get("model", "")
    if not model:
        journals = reader.journals()
        head("Registry", aside="as it is now", name=name, environment=sources.environment, here="registry")
        if not journals:
            st.html(nobody_registered())
            return
        st.html(_models(journals, reader, parts.lately(sources)))
        return
    journal = parts.asked_journal(sources, reader, name, title=model, tab="registry")
    if journal is None or journal.standing is None:
        return
    lately = parts.lately(sources)
    st.html(_champion(journal.standing, reader, lately))
    st.html(_runs(journal.standing, lately))
    st.html(_next(journal.standing))


def nobody_registered() -> str:
    """Say how the first run comes into the registry."""
    return help_html(
        "No model is in the registry yet",
        (
            "A model’s journal begins with its first run: train one, have it signed, and register it."
            " docs/registry.md goes through it.",
        ),
        "deployr models register RUN",
    )


def _models(journals: Sequence[Journal], reader: RegistryReader, lately: Sequence[Answering] | None) -> str:
    rows = [_model(each, reader, lately) for each in journals]
    broken = [each.model_id for each in journals if each.fault is not None]
    said = f"{of(len(journals), 'model')}, {of(sum(_waits(each) for each in journals), 'run')} waiting for a decision."
    alarm = parts.alarm_html(journals) if broken else ""
    note = (
        "“Answered lately” is of the extract’s last seven days; all else is of the journals, as they are now."
        if lately is not None
        else "There is no extract that can be read to say what answered lately; all else is of the journals."
    )
    columns = (
        "model",
        "champion",
        "answered lately",
        "waiting for a decision",
        "shadows",
        "earlier and ended",
        "journal",
    )
    return (
        f'{alarm}<section class="d-alone d-panel"><p class="d-said">{escape(said)}</p>'
        f"{linked_table('How every model stands', columns, rows)}"
        f'<p class="d-note">{escape(note)}</p></section>'
    )


def _waits(journal: Journal) -> int:
    standing = journal.standing
    return 0 if standing is None else len(standing.at(Stage.CHALLENGER))


def _model(journal: Journal, reader: RegistryReader, lately: Sequence[Answering] | None) -> tuple[str, ...]:
    name = parts.to("registry", journal.model_id, model=journal.model_id)
    last = journal.entries[-1] if journal.entries else None
    done = f"{last.at:%Y-%m-%d} {last.action} by {last.who}" if last is not None else ""
    if journal.standing is None:
        broken = parts.to("history", "not what was written", model=journal.model_id)
        return (name, *['<span class="d-quiet">not known</span>'] * 5, f'<strong class="d-watch">{broken}</strong>')
    standing = journal.standing
    champion = standing.runs.get(standing.champion or "")
    entries = of(len(journal.entries), "entry", "entries")
    whole = parts.to("history", f"{entries}, whole", model=journal.model_id)
    return (
        name,
        parts.NONE if champion is None else f"{parts.to_run(standing.model_id, champion.run_id)}<br>{_since(champion)}",
        _where(standing, reader, lately),
        _listed(_waiting(standing)),
        _listed(_shadows(standing, lately)),
        _listed(
            [
                f"{count(len(standing.at(stage)))} {stage.value}"
                for stage in (Stage.FORMER, *_ENDED)
                if standing.at(stage)
            ]
        ),
        f'{whole}<br><span class="d-quiet">{escape(done)}</span>',
    )


def _since(run: RunStanding) -> str:
    return f'<span class="d-quiet">since {run.stage_at:%Y-%m-%d}, by {escape(run.stage_by)}</span>'


def _waiting(standing: Standing) -> list[str]:
    found = [
        f'{parts.to_run(standing.model_id, run.run_id)}<br><span class="d-quiet">{said}</span>'
        for stage, said in ((Stage.CHALLENGER, "for approval"), (Stage.APPROVED, "approved, to be deployed"))
        for run in standing.at(stage)
    ]
    return found + ([f"{of(standing.opened, 'run')} asked for, not trained yet"] if standing.opened else [])


def _shadows(standing: Standing, lately: Sequence[Answering] | None) -> list[str]:
    return [
        f'{parts.to_run(standing.model_id, run_id)}<br><span class="d-quiet">{of(packets, "packet")}</span>'
        for run_id, packets in followed(lately or ()).items()
        if run_id in standing.runs
    ]


def _where(standing: Standing, reader: RegistryReader, lately: Sequence[Answering] | None) -> str:
    """Say which bundles answered where, and warn where that is not what the journal says."""
    champion = standing.runs.get(standing.champion or "")
    found = [each for each in lately or () if each.name == standing.model_id and not each.is_shadow]
    told = []
    newest: set[str] = set()
    for each in found:
        run = next((run for run in standing.runs.values() if run.bundle_sha256 == each.bundle_sha256), None)
        called = escape(run.run_id) if run is not None else f"a bundle without a run ({each.bundle_sha256[:DIGITS]}…)"
        is_newest = each.where not in newest
        newest.add(each.where)
        is_off = is_newest and champion is not None and run is not champion
        stage = "not in the registry" if run is None else run.stage.value
        words = f'<span class="{"d-watch" if is_off else "d-quiet"}">{stage}, last {each.last:%Y-%m-%d %H:%M}</span>'
        told.append(f"{escape(each.where)}: {called}<br>{words}")
    if champion is not None and champion.deploy_type is DeployType.CLOUD:
        try:
            placed = reader.in_place(standing.model_id)
        except StoreAway as error:
            told.insert(0, f'<span class="d-watch">{escape(str(error))}</span>')
        else:
            if placed not in {None, champion.bundle_sha256}:
                told.insert(0, '<span class="d-watch">another bundle than the champion’s lies in place here</span>')
    return _listed(told)


def _listed(items: Iterable[str]) -> str:
    """Give HTML of several things in one cell, or a dash."""
    return "<br>".join(items) or parts.NONE


def _champion(standing: Standing, reader: RegistryReader, lately: Sequence[Answering] | None) -> str:
    champion = standing.runs.get(standing.champion or "")
    if champion is None:
        said = "<p class='d-said'>There is no champion: nobody is shown a score of this model by the registry.</p>"
    else:
        back = standing.may_go_back()
        said = (
            f'<p class="d-said">The champion is {parts.to_run(standing.model_id, champion.run_id)}, since'
            f" {champion.stage_at:%Y-%m-%d %H:%M} UTC, by {escape(champion.stage_by)}; approved by"
            f" {escape(champion.approved_by)}.</p>"
        )
        if champion.replaced is not None:
            way = "a rollback brings it back" if back is not None else "it cannot come back"
            said += f"<p>It took the place of {parts.to_run(standing.model_id, champion.replaced)}; {way}.</p>"
    where = _where(standing, reader, lately)
    shown = f"<p>Answered in the extract’s last seven days:<br>{where}</p>" if where != parts.NONE else ""
    return f'<section class="d-alone d-panel"><h2>Champion</h2>{said}{shown}</section>'


def _runs(standing: Standing, lately: Sequence[Answering] | None) -> str:
    shadows = followed(lately or ())
    rows = []
    for run in reversed(list(standing.runs.values())):
        stage = f"<strong>{run.stage}</strong>"
        if run.run_id in shadows:
            stage += f"<br>shadow: {of(shadows[run.run_id], 'packet')} lately"
        rows.append(
            (
                parts.to_run(standing.model_id, run.run_id),
                stage,
                f"{run.stage_at:%Y-%m-%d %H:%M}<br>by {escape(run.stage_by)}",
                escape(run.trained_by),
                escape(run.registered_by),
                escape(run.approved_by) or parts.NONE,
                escape(run.deploy_type),
                "with the champion" if standing.champion in run.compared_with else parts.NONE,
                f"<code>{run.bundle_sha256[:DIGITS]}</code>",
            )
        )
    columns = ("run", "stage", "since (UTC)", "trained by", "registered by", "approved by", "for", "compared", "bundle")
    table = linked_table("Every registered run, the newest first", columns, rows)
    return f'<section class="d-alone d-panel"><h2>Runs</h2>{table}</section>'


def _next(standing: Standing) -> str:
    rows = [
        (
            parts.to_deed(standing.model_id, run, each.deed),
            parts.to_run(standing.model_id, run),
            escape(who_may(each.step)),
            escape(each.deed.means),
        )
        for run in standing.runs
        for each in offered(standing, run)
    ]
    if not rows:
        return ""
    table = linked_table(
        "Opens a page that shows what speaks for it first", ("deed", "run", "who may", "what follows"), rows
    )
    return f'<section class="d-alone d-panel"><h2>What may be done next</h2>{table}</section>'
