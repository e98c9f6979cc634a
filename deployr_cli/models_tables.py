"""How the registry looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from deployr_cli.models_words import DIGITS
from deployr_core.bundle import Estimate
from deployr_core.registry.comparison import Compared, Comparison
from deployr_core.registry.journal import Action, Entry
from deployr_core.registry.run import DataSet
from deployr_core.registry.standing import Stage, Standing
from deployr_serve.core.registry_deeds import ShelvedRun
from deployr_serve.core.registry_journal import Journal

_WAITING = (Stage.CHALLENGER, Stage.APPROVED)


def models_table(journals: Iterable[Journal]) -> Table:
    """Give a row for each model: its champion, what waits for a decision, and what was done last."""
    table = Table(title="models", title_justify="left")
    for name in ("model", "champion", "since", "waiting", "last"):
        table.add_column(name, overflow="fold")
    for journal in journals:
        standing, last = journal.standing, journal.entries[-1]
        champion = standing.runs.get(standing.champion or "")
        waiting = [f"{run.run_id} ({run.stage})" for stage in _WAITING for run in standing.at(stage)]
        asked = [f"{standing.opened} asked for"] if standing.opened else []
        table.add_row(
            standing.model_id,
            "none" if champion is None else champion.run_id,
            "" if champion is None else _day(champion.stage_at),
            "\n".join([*waiting, *asked]) or "nothing",
            f"{_day(last.at)} {last.action} by {last.who}",
        )
    return table


def runs_table(standing: Standing) -> Table:
    """Give a row for each run of a model, in order of registration."""
    table = Table(title=f"{standing.model_id}: runs", title_justify="left")
    for name in ("run", "stage", "by", "since", "for", "trained by", "bundle"):
        table.add_column(name, overflow="fold")
    for run in standing.runs.values():
        style = "bold" if run.stage is Stage.CHAMPION else None
        digest = run.bundle_sha256[:DIGITS]
        cells = (run.run_id, run.stage, run.stage_by, _minute(run.stage_at), run.deploy_type, run.trained_by, digest)
        table.add_row(*(Text(str(cell)) for cell in cells), style=style)
    return table


def journal_table(entries: Sequence[Entry]) -> Table:
    """Give a row for each entry, the first one first."""
    table = Table(title="journal", title_justify="left")
    for name in ("#", "at", "who", "as", "what", "run", "why", "digest"):
        table.add_column(name, overflow="fold", justify="right" if name == "#" else "left")
    for entry in entries:
        cells = (
            str(entry.number),
            _minute(entry.at),
            entry.who,
            entry.role,
            _what(entry),
            entry.run_id,
            entry.why,
            entry.sha256[:DIGITS],
        )
        table.add_row(*(Text(cell) for cell in cells), style="red" if entry.action is Action.REFUSED else None)
    return table


def run_table(shelved: ShelvedRun) -> Table:
    """Give one run: what it was trained on, how it did, and who vouches for it."""
    run = shelved.run
    table = Table(title=run.run_id, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    sets = {"train": run.sets.train, "validation": run.sets.validation, "test": run.sets.test}
    rows = (
        ("model", f"{run.model_id} {shelved.manifest.version}, for the {run.deploy_type}"),
        ("opened", f"{_minute(run.opened_at)}, {run.opened_because}; trained by {run.trained_by}"),
        ("source", run.source),
        *((f"{name} set", _set(told)) for name, told in sets.items() if told is not None),
        *((name, _figure(figure)) for name, figure in run.test.items()),
        ("config", run.config_sha256),
        ("run.json", shelved.run_sha256),
        ("bundle", run.bundle_sha256),
        ("bundle signed", f"by {shelved.signed_by}" if shelved.signed_by else f"NO: {shelved.unsigned}"),
        ("record signed", f"by {shelved.run_signed_by}" if shelved.run_signed_by else f"NO: {shelved.run_unsigned}"),
        ("compared", "no" if shelved.comparison is None else f"with {shelved.comparison.champion.name}"),
    )
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Give champion and challenger side by side, with the difference and what it says."""
    names = f"{comparison.challenger.name} beside {comparison.champion.name}"
    table = Table(title=f"{names}: {comparison.rows:,} rows, {comparison.rows_are}", title_justify="left")
    for name in ("figure", "champion", "challenger", "difference", "the challenger is"):
        table.add_column(name)
    groups = (group for grouping in comparison.groupings for group in grouping.groups)
    named = [(each.name, each) for each in comparison.figures]
    named += [(f"{group.auroc.name}: {group.name}", group.auroc) for group in groups]
    for name, figure in named:
        table.add_row(name, *_compared(figure))
    return table


def _what(entry: Entry) -> str:
    match entry.action:
        case Action.REFUSED:
            return f"refused: {entry.tried} ({entry.reason})"
        case Action.COMPARED | Action.DEPLOYED | Action.EXPORTED | Action.ROLLED_BACK if entry.replaces:
            word = {Action.COMPARED: "with", Action.ROLLED_BACK: "back to"}.get(entry.action, "for")
            return f"{entry.action} {word} {entry.replaces}"
    return str(entry.action)


def _compared(figure: Compared) -> tuple[str, str, str, str]:
    told = (figure.champion, figure.challenger, figure.difference)
    champion, challenger, difference = (each if isinstance(each, str) else _figure(each) for each in told)
    return champion, challenger, difference, figure.verdict


def _figure(figure: Estimate) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _set(told: DataSet) -> str:
    positives = "" if told.positives is None else f", {told.positives:,} positive"
    return f"{told.rows:,} rows of {told.patients:,} patients{positives}, {told.first} to {told.last}"


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z"
