"""`deployr run compare-live`: a shadow beside its champion, on what both were asked in service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import clock_of
from deployr_cli.workspaces import EXTRACT_FOLDER
from deployr_core.registry.comparison import Comparison
from deployr_core.registry.run import RUN_FILE, RunInvalid, parse_run
from deployr_serve.settings import Settings, read_settings


def live_command(
    model: Annotated[str, typer.Argument(help="The champion, by the id under which it is served.")],
    shadow: Annotated[str, typer.Argument(help="The run that scores beside it, as its deployment file names it.")],
    extract: Annotated[Path, typer.Argument(help="The folder of deployr monitor extract.")] = EXTRACT_FOLDER,
    out: Annotated[
        Path | None, typer.Option("--out", help="Gets comparison.json and its page; default: the run on the shelf.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
    ] = None,
) -> None:
    """Compare what a champion and its shadow said of the same requests with what came of them."""
    from deployr_cli.run import write_comparison

    site, console = read_settings(settings_values(settings, os.environ)), Console()
    folder = out or _on_shelf(site, model, shadow)
    write_comparison(compare_live(site, model, shadow, extract=extract), folder, console=console)


def compare_live(site: Settings, model: str, shadow: str, *, extract: Path, seed: int = 0) -> Comparison:
    """Compare a champion and its shadow from an extract, as of the site's clock.

    Raises:
        CommandFailed: what it needs is not installed.
        NotPaired, ExtractMissing: there is nothing to compare.
    """
    try:
        import numpy as np

        from deployr_dash.loading import load_frame, load_models
        from deployr_dash.paired import COLUMNS, live_comparison
    except ImportError:
        raise CommandFailed("expected pyarrow, pandas and duckdb, which deployr[dash] installs") from None
    frames = [load_frame(extract, model=name, columns=COLUMNS) for name in (model, shadow)]
    digests = {str(each) for each in frames[0]["bundle_sha256"].unique()}
    labels = [each.manifest.task.label for each in load_models(extract) if each.bundle_sha256 in digests]
    found = live_comparison(
        frames[0],
        frames[1],
        names=(model, shadow),
        outcome=labels[0] if labels else "not known: no bundle of the champion's is here",
        now=clock_of(site).now(),
        rng=np.random.default_rng(seed),
    )
    return _by_run(found, site, model)


def _by_run(comparison: Comparison, site: Settings, model: str) -> Comparison:
    """Call the champion by its run, where that lies on the shelf: the journal knows runs."""
    import msgspec

    champion = comparison.champion
    for record in sorted((site.bundle_archive / model).glob(f"*/{RUN_FILE}")) if site.bundle_archive else ():
        try:
            run = parse_run(record.read_bytes())
        except RunInvalid:
            continue
        if run.bundle_sha256 == champion.bundle_sha256:
            return msgspec.structs.replace(comparison, champion=msgspec.structs.replace(champion, name=run.run_id))
    return comparison


def _on_shelf(site: Settings, model: str, shadow: str) -> Path:
    folder = None if site.bundle_archive is None else site.bundle_archive / model / shadow
    if folder is None or not folder.is_dir():
        raise CommandFailed(f"--out: expected a folder, because {shadow} is not on this site's shelf")
    return folder
