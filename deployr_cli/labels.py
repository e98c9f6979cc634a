"""`deployr labels`: have labels extracted now, and say how those of each model stand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell
from deployr_cli.with_app import with_app
from deployr_serve.bootstrap import Application
from deployr_serve.settings import Settings
from label_extractors.collect import LEFT, collect_labels, failures_in
from label_extractors.pace import pace_of
from label_extractors.standing import Standing, standing_of

labels_app = typer.Typer(
    no_args_is_help=True,
    help="""What happened after the predictions: extract it now, and see how far it is known.

Start with: [bold]deployr labels status[/bold]""",
)

_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]
_Model = Annotated[str | None, typer.Option(help="Only this model; default: all that are deployed.")]


@labels_app.command()
def run(
    model: _Model = None,
    again: Annotated[
        bool, typer.Option("--again", help="Look at recent labels again, and at the answers to advisories.")
    ] = False,
    settings: _SettingsFile = None,
) -> None:
    """Label every packet whose outcome can be known by now, as the timer does; safe at any time, beside it too.

    One read of the EMR serves all packets of a patient. Shows counts, nothing of a patient. Exits with 1 if some could
    not be read, or the time was too short for all: run it again.
    """
    console = Console()

    async def work(site: Settings, application: Application, tell: Tell) -> Counter[str]:
        model_ids = None if model is None else (_deployed(application, model),)
        return await collect_labels(
            application.services,
            application.outcomes,
            name="command" if model is None else f"command.{model}",
            model_ids=model_ids,
            again=again,
            pace=pace_of(site.labels),
            tell=tell,
        )

    counts = with_app(settings, os.environ, work, console=console, title="Reading patients, labelling their packets")
    console.print(said(counts), highlight=False)
    raise typer.Exit(1 if failures_in(counts) or counts[LEFT] else 0)


@labels_app.command()
def status(model: _Model = None, settings: _SettingsFile = None) -> None:
    """Show for each model how many packets are scored, ripe and labelled, and why others are not. Reads all packets."""
    console = Console()

    async def work(_: Settings, application: Application, tell: Tell) -> list[Standing]:
        services = application.services
        model_ids = services.labelled.deployed() if model is None else (_deployed(application, model),)
        return [each async for each in standing_of(services, model_ids, now=services.clock.now(), tell=tell)]

    found = with_app(settings, os.environ, work, console=console, title="Reading packets and labels")
    console.print(table_of(found))


def said(counts: Mapping[str, int]) -> str:
    """Give what a run came to, in one line."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())) or "nothing to do"


def table_of(found: Sequence[Standing]) -> Table:
    """Give a line for each model."""
    numbers = ("scored", "ripe", "observed", "corrected", "not yet", "overdue")
    table = Table("model", "rule", box=None)
    for heading in numbers:
        table.add_column(heading, justify="right")
    table.add_column("censored")
    table.add_column("not scored")
    for each in found:
        counts = (each.scored, each.ripe, each.observed, each.corrected, each.not_yet, each.overdue)
        table.add_row(
            each.model_id, each.rule, *(f"{count:,}" for count in counts), _by(each.censored), _by(each.excluded)
        )
    return table


def _by(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.items()) or "-"


def _deployed(application: Application, model_id: str) -> str:
    deployed = application.services.labelled.deployed()
    if model_id not in deployed:
        raise CommandFailed(f"--model: expected one of {', '.join(sorted(deployed))}, got {model_id}")
    return model_id
