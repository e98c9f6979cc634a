"""Champion against challenger: on held-out rows as recorded, and on live requests that a shadow scored, too."""

from __future__ import annotations

from html import escape

import streamlit as st

from deployr_core.registry.comparison import Comparison, Rows
from deployr_core.registry.standing import Stage, Standing
from deployr_dash.panels.beside import beside, nothing_beside
from deployr_dash.panels.panel import Panel
from deployr_dash.registry import NothingOfTheRun, RegistryReader
from deployr_dash.screens import registry_parts as parts
from deployr_dash.screens.frame import show
from deployr_dash.screens.reading import live_of
from deployr_dash.screens.shown import help_html
from deployr_dash.sources import Sources

_MAY_REPLACE = (Stage.CHALLENGER, Stage.APPROVED, Stage.FORMER)


def page(sources: Sources, reader: RegistryReader, name: str) -> None:
    """Show the run that the address names beside the champion; where it names none, the newest that waits.

    So, too, where it names the champion: what was compared may have been deployed since.
    """
    model, asked = st.query_params.get("model", ""), st.query_params.get("run", "")
    journal = parts.asked_journal(sources, reader, name, title=f"{model}: compare", tab="compare")
    if journal is None or journal.standing is None:
        return
    standing = journal.standing
    if standing.champion is None:
        st.html(_no_champion(standing))
        return
    choices = [run.run_id for stage in _MAY_REPLACE for run in reversed(standing.at(stage))]
    named = asked if asked != standing.champion else ""
    run_id = named or (choices[0] if choices else "")
    if not run_id:
        st.html(_nobody_else(standing))
        return
    if parts.asked_run(journal, run_id) is None:
        return
    st.html(_choice(standing, run_id, choices))
    show(_panels(sources, reader, standing, run_id))


def _panels(sources: Sources, reader: RegistryReader, standing: Standing, run_id: str) -> list[Panel]:
    model, champion = standing.model_id, standing.champion or ""
    recorded: Comparison | None = None
    why = "No comparison lies on the shelf."
    try:
        recorded = reader.run(model, run_id).comparison
    except NothingOfTheRun as error:
        why = f"The run cannot be read: {error}"
    if recorded is not None and recorded.rows_are is Rows.HELD_OUT:
        held = beside(recorded, against=champion)
    else:
        if recorded is not None:
            why = "The shelf keeps the latest comparison, and that is the one of live requests."
        held = nothing_beside(
            Rows.HELD_OUT,
            f"{why} Where both runs’ folders are: `deployr run compare {champion} {run_id} --source SOURCE`, then"
            f" `deployr models compare {model} {run_id} --from RUN --record`.",
        )
    try:
        live = beside(live_of(reader, sources.extract, model, run_id, champion), against=champion)
    except NothingOfTheRun as error:
        if recorded is not None and recorded.rows_are is Rows.LIVE:
            live = beside(recorded, against=champion)
        else:
            live = nothing_beside(
                Rows.LIVE,
                f"{error} A shadow is named in the champion’s deployment file, `shadows: [{run_id}]`, and scores from"
                " the app’s next start on (docs/runs.md); then bring the extract up to date.",
            )
    return [held, live]


def _choice(standing: Standing, run_id: str, choices: list[str]) -> str:
    in_journal = standing.champion in standing.runs[run_id].compared_with
    record = (
        "The journal has a comparison of the two."
        if in_journal
        else "The journal has no comparison of the two yet, and an approval asks for one."
    )
    others = [parts.to("compare", each, model=standing.model_id, run=each) for each in choices if each != run_id]
    more = f"<p>Others to compare: {', '.join(others)}.</p>" if others else ""
    typed = escape(f"deployr models compare {standing.model_id} {run_id} --record")
    command = "" if in_journal else f"<p><code>{typed}</code></p>"
    return (
        f'<section class="d-alone d-panel"><p class="d-said">{parts.to_run(standing.model_id, run_id)}'
        f" ({standing.runs[run_id].stage}) beside the champion,"
        f" {parts.to_run(standing.model_id, standing.champion or '')}.</p><p>{record}</p>{command}{more}</section>"
    )


def _no_champion(standing: Standing) -> str:
    waiting = ", ".join(run.run_id for run in standing.at(Stage.CHALLENGER)) or "none"
    return help_html(
        "There is no champion to compare with",
        (f"The first run of a model is judged by its own figures. Waiting for a decision: {waiting}.",),
    )


def _nobody_else(standing: Standing) -> str:
    return help_html(
        "There is only the champion",
        (
            f"{standing.champion} answers, and no other run waits or could come back. Train another one, then register"
            " it:",
        ),
        "deployr run CONFIG --source SOURCE",
    )
