"""The go / no-go checklist of a run, computed from the site's own evidence, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deployr_cli.failures import CommandFailed
from deployr_cli.papers_evidence import read_parity, read_service
from deployr_cli.stores import clock_of
from deployr_core.governance.bars import OURS, Bars, parse_bars
from deployr_core.governance.checklist import Checked, Evidence, Verdict, checklist, in_words_of_all
from deployr_core.strict_yaml import YamlInvalid
from deployr_serve.core.registry_deeds import ShelvedRun
from deployr_serve.store_bootstrap import Store

if TYPE_CHECKING:
    from deployr_cli.models_site import RegistrySite
    from deployr_core.governance.performance import Service

_COLOURS = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.UNTOLD: "yellow"}


def computed(
    site: RegistrySite,
    model: str,
    run: str,
    *,
    extract: Path | None,
    parity: Path | None = None,
    bars: Path | None = None,
    service: Service | None = None,
) -> tuple[Checked, ...]:
    """Compute the checklist of a run on the shelf.

    Args:
        site: whose shelf, keys and alarms count.
        model: the run's.
        run: its id.
        extract: the folder of `deployr monitor extract`; without one, what it would tell cannot be told.
        parity: the JSON of `deployr parity`.
        bars: the site's bars; None takes ours.
        service: what the extract says of this run, where that is measured already.

    Raises:
        RegistryRefused: no such run.
        CommandFailed: a file is not what it must be.
        ExtractMissing: the extract is not there.
        ReferenceInvalid, ReferenceOfAnotherBundle: its reference period of this bundle cannot be used.
    """
    shelved = site.shelved(model, run)
    if service is None and extract is not None:
        service = read_service(extract, shelved.run)
    evidence = Evidence(
        parity=read_parity(parity),
        service=service,
        drift=None if extract is None else _open_drift(site, extract, shelved),
        signed_by=shelved.signed_by,
        unsigned=shelved.unsigned,
    )
    return checklist(evidence, _bars(bars).of(model))


def show(items: tuple[Checked, ...]) -> None:
    """Print the checklist, then what it comes to."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("item", "what was found, and the bar", "what to do", title="Go or no-go")
    for each in items:
        item = Text(f"{each.item}\n").append(each.verdict, style=_COLOURS[each.verdict])
        found = Text(each.figure + (f"; {each.said}" if each.said else "")).append(f"\nbar: {each.bar}", style="dim")
        table.add_row(item, found, Text(each.do))
    Console().print(table)
    typer.echo(in_words_of_all(items))


def _open_drift(site: RegistrySite, extract: Path, shelved: ShelvedRun) -> tuple[str, ...] | None:
    """Give the alarms of drift that have begun and not ended; None where none could have been told.

    It takes a reference period of this very bundle, and somebody who looks each night.
    """
    from deployr_core.monitoring.alerting_operations import NIGHTLY
    from deployr_dash.references import read_reference
    from deployr_serve.alert_bootstrap import desk_of, read_rules

    if read_reference(extract, shelved.run.bundle_sha256) is None:
        return None
    models = {shelved.run.model_id, shelved.run.run_id, ""}

    async def read(store: Store) -> tuple[str, ...] | None:
        desk = desk_of(site.settings, read_rules(site.settings.alerts), records=store, clock=clock_of(site.settings))
        if NIGHTLY not in await desk.last_runs():
            return None
        standing = (await desk.standing()).values()
        return tuple(each.said for each in standing if each.rule == "drift" and each.model in models)

    return site.in_store(read)


def _bars(file: Path | None) -> Bars:
    if file is None:
        return OURS
    try:
        return parse_bars(file.read_bytes())
    except OSError as error:
        raise CommandFailed(f"{file}: expected a file of bars that can be read ({error.strerror})") from None
    except YamlInvalid as error:
        raise CommandFailed(f"{file}: {error}") from None
