"""``deployr sites``: the sites of one app, and what keeps any of them from starting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import app_values
from deployr_serve.sites_settings import SITES, Sites, read_sites


def sites(
    settings: Annotated[
        Path | None, typer.Option(help="The app's local.settings.json; the environment wins over it.")
    ] = None,
) -> None:
    """List the sites that one app serves, and what is wrong with their settings, or shared between them.

    Models and servers are not asked: deployr --at NAME doctor does that, site by site. Exits with 1 if a site would not
    start.

    Start with: [bold]DEPLOYR_SITES=sites deployr sites[/bold]
    """
    raise typer.Exit(0 if run_sites(settings, os.environ, console=Console()) else 1)


def run_sites(file: Path | None, environ: Mapping[str, str], *, console: Console) -> bool:
    """Print them; give whether all of them may start.

    Raises:
        CommandFailed: the settings name no folder of sites.
        SettingsInvalid: there is nothing in it.
    """
    values = app_values(file, environ)
    if not values.get(SITES):
        raise CommandFailed(f"{SITES}: expected the folder with a file for each site; without, there is one site")
    found = read_sites(values)
    console.print(_table(found))
    for name, why in sorted(found.refused.items()):
        console.print(f"{name}: {why}", markup=False, highlight=False, soft_wrap=True)
    if found.unread:
        console.print(f"No site reads: {', '.join(found.unread)}", markup=False, highlight=False, soft_wrap=True)
    return not found.refused


def _table(found: Sites) -> Table:
    table = Table("name", "site", "environment", "profile", "addresses begin with", "settings")
    for name in sorted({*found.settings, *found.refused}):
        each = found.settings.get(name)
        said = ("-", "-", "-") if each is None else (each.site, each.environment, each.profile.value)
        table.add_row(name, *said, f"/sites/{name}/", "wrong" if each is None else "ok")
    return table
