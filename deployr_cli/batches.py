"""`deployr batches`: which batches a site has, and how their last runs went, in counts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values

if TYPE_CHECKING:
    from deployr_serve.core.batch_runs import Run
    from deployr_serve.core.batch_start import Batches

batches_app = typer.Typer(name="batches", no_args_is_help=True, help="The batches of a site, and how they went.")

_Settings = Annotated[Path | None, typer.Option(help="A local.settings.json; the environment wins over it.")]


@batches_app.command("list")
def list_batches(settings: _Settings = None) -> None:
    """Say which batches there are, whom and when they score, and how the last run of each ended."""
    print_batches(*asyncio.run(_read(settings, os.environ)), console=Console())


@batches_app.command("runs")
def list_runs(
    batch: Annotated[str | None, typer.Argument(help="Only this batch; default: all.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many runs of each batch.")] = 10,
    settings: _Settings = None,
) -> None:
    """Say how the last runs went: how many were listed, skipped, scored, failed. No patient is shown."""
    batches, runs = asyncio.run(_read(settings, os.environ))
    if batch is not None and batch not in {declared.name for declared in batches.declared}:
        raise CommandFailed(f"expected one of the batches {', '.join(each.name for each in batches.declared)}")
    print_runs([run for run in runs if batch in {None, run.batch}], last=last, console=Console())


def print_batches(batches: Batches, runs: tuple[Run, ...], *, console: Console) -> None:
    """Print one line per batch."""
    table = Table("batch", "models", "schedule", "zone", "worklist", "last slot", "state", box=None)
    latest: dict[str, Run] = {}
    for run in runs:
        latest.setdefault(run.batch, run)
    for batch in batches.declared:
        run_or_none = latest.get(batch.name)
        table.add_row(
            batch.name,
            batch.group or ", ".join(batch.models),
            batch.schedule,
            batch.zone or str(batches.site_zone),
            str(batch.worklist.__struct_config__.tag),
            _instant(run_or_none.slot) if run_or_none else "-",
            str(run_or_none.state) if run_or_none else "-",
        )
    console.print(table)


def print_runs(runs: list[Run], *, last: int, console: Console) -> None:
    """Print one line per run, the latest of each batch first."""
    columns = ("scored", "abstained", "rejected", "failed", "quarantined")
    table = Table("batch", "slot", "state", "reason", "listed", "patients", "skipped", *columns, "gap", box=None)
    shown: dict[str, int] = {}
    for run in runs:
        shown[run.batch] = shown.get(run.batch, 0) + 1
        if shown[run.batch] > last:
            continue
        counts = (run.listed, run.patients, sum(run.skipped.values()), *(run.totals.get(it, 0) for it in columns))
        table.add_row(run.batch, _instant(run.slot), str(run.state), run.reason or "-", *map(str, counts), str(run.gap))
    console.print(table)


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"


async def _read(settings_file: Path | None, environ: Mapping[str, str]) -> tuple[Batches, tuple[Run, ...]]:
    from deployr_serve.bootstrap import build
    from deployr_serve.core.batch_runs import all_runs
    from deployr_serve.settings import read_settings

    application = build(read_settings(settings_values(settings_file, environ)))
    try:
        if application.batches is None:
            raise CommandFailed("this site has no batches: DEPLOYR_BATCHES names no folder with any")
        now = application.services.clock.now()
        return application.batches, await all_runs(application.services.records, now=now)
    finally:
        await application.aclose()
