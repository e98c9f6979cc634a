"""`deployr switch`: the kill switch of a model, of a site, or of everything, for all workers at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from deployr_cli.audited import who, write_down
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import with_store
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.audit import Act
from deployr_serve.core.ports import Clock
from deployr_serve.core.switches import EVERYTHING, Change, Switch, list_switches, model_switch, site_switch, turn
from deployr_serve.settings import Settings, read_settings

switch_app = typer.Typer(no_args_is_help=True, help="Switch a model, this site or everything off and on again.")

_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]
_Model = Annotated[str | None, typer.Option(help="One model, by its id.")]
_Site = Annotated[bool, typer.Option("--site", help="All models of this site.")]
_All = Annotated[bool, typer.Option("--all", help="Everything that shares the store.")]
_Why = Annotated[str, typer.Option(help="Kept on record; nothing about a patient.")]
_By = Annotated[str | None, typer.Option(help="Who decided it; default: who is logged in here.")]


@switch_app.command()
def off(
    why: _Why,
    model: _Model = None,
    site: _Site = False,
    everything: _All = False,
    by: _By = None,
    settings: _SettingsFile = None,
) -> None:
    """Stop: within 5 seconds no worker scores, shows or sends anything more. No restart, no deployment."""
    _turn(True, why=why, model=model, site=site, everything=everything, by=by, settings=settings)


@switch_app.command()
def on(
    why: _Why,
    model: _Model = None,
    site: _Site = False,
    everything: _All = False,
    by: _By = None,
    settings: _SettingsFile = None,
) -> None:
    """Go on, where nothing else is switched off too. What was not sent meanwhile stays unsent."""
    _turn(False, why=why, model=model, site=site, everything=everything, by=by, settings=settings)


@switch_app.command("list")
def list_all(settings: _SettingsFile = None) -> None:
    """Show every switch that was ever turned: how it stands, who turned it, when and why."""
    site = read_settings(settings_values(settings, os.environ))
    switches = with_store(site, lambda store: list_switches(store, now=SystemClock().now()))
    for line in told(switches):
        print(line)


def told(switches: Mapping[str, Switch]) -> tuple[str, ...]:
    """Give a line for each switch and below it one for each change, the last one first."""
    if not switches:
        return ("nothing was ever switched off",)
    return tuple(
        line
        for name, switch in sorted(switches.items())
        for line in (
            f"{name}: {'OFF' if switch.is_off else 'on'}",
            *(
                f"  {change.at:%Y-%m-%dT%H:%M:%SZ} {'off' if change.is_off else 'on'} by {change.by}: {change.why}"
                for change in reversed(switch.changes)
            ),
        )
    )


def name_of(settings: Settings, *, model: str | None, site: bool, everything: bool) -> str:
    """Give the name of the one switch that is meant.

    Raises:
        CommandFailed: none or several are, or a model that is not deployed: its switch would stop nothing.
    """
    names = [
        *([model_switch(model)] if model is not None else []),
        *([site_switch(settings.site)] if site else []),
        *([EVERYTHING] if everything else []),
    ]
    if len(names) != 1:
        raise CommandFailed("expected one of --model ID, --site and --all")
    if model is not None and not (settings.bundles / model).is_dir():
        raise CommandFailed(f"--model: expected a model in {settings.bundles}, got {model}")
    return names[0]


def _turn(
    is_off: bool, *, why: str, model: str | None, site: bool, everything: bool, by: str | None, settings: Path | None
) -> None:
    in_force = read_settings(settings_values(settings, os.environ))
    name = name_of(in_force, model=model, site=site, everything=everything)
    clock: Clock = SystemClock()
    change = Change(is_off=is_off, by=who(by), why=why, at=clock.now())
    switch = with_store(in_force, lambda store: turn(store, name, change))
    details = {"switch": name, "why": why}
    write_down(in_force, Act.SWITCH, by=change.by, said="off" if is_off else "on", details=details)
    for line in told({name: switch})[:2]:
        print(line)
