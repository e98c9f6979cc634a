"""`deployr deliveries duplicates`: scores that stand in the EMR more than once, reported; marked only when asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from deployr_cli.audited import who, write_down
from deployr_cli.doctor.decide.writes import is_production
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_core.packet import DeliveryState
from deployr_serve.adapters.outputs_fhir import FhirWriter
from deployr_serve.bootstrap import Application, build
from deployr_serve.core.audit import Act
from deployr_serve.core.duplicates import Duplicates, duplicates_of
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import InferenceStore
from deployr_serve.outputs_settings import FHIR_KINDS
from deployr_serve.settings import Profile, Settings, read_settings
from deployr_serve.store_settings import InMemory

_PAGE = 500
_LOOKED_AT = (DeliveryState.SENT, DeliveryState.DEAD)


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What was found. ``failed``: how many deliveries the EMR could not be asked about, by no fault of theirs."""

    deliveries: int
    failed: int
    found: tuple[Duplicates, ...]


def duplicates(
    days: Annotated[int, typer.Option(min=1, help="Deliveries made in the last so many days.")] = 1,
    output: Annotated[str | None, typer.Option(help="Only those to this way out, such as flag.")] = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Mark all but the first as entered in error; nothing is deleted.")
    ] = False,
    environment: Annotated[
        str | None, typer.Option(help="The environment's name again; marking in production needs it.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who decided it; default: who is logged in here.")] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
    ] = None,
) -> None:
    """Look in the EMR for FHIR resources of ours that stand there more than once, by our identifier; report them.

    It only searches, unless --mark is given. Marking needs a scope to update, which the app itself does not ask for:
    name it in DEPLOYR_EMR_SCOPE for this command. Exits with 1 if there are duplicates that were not marked.
    """
    site = read_settings(settings_values(settings, os.environ))
    if mark:
        _insist_on_leave(site, environment)
    decided_by = who(by)
    looked = asyncio.run(look_for_duplicates(site, days=days, output=output, mark=mark))
    show(looked, Console())
    marked = sum(len(each.marked) for each in looked.found)
    if mark:
        details = {"found": str(len(looked.found)), "marked": str(marked)}
        write_down(site, Act.DELIVERIES, by=decided_by, said="duplicates", details=details)
    raise typer.Exit(1 if looked.failed or marked < sum(len(each.others) for each in looked.found) else 0)


async def look_for_duplicates(settings: Settings, *, days: int, output: str | None, mark: bool) -> Looked:
    """Ask the EMR about each delivery of the last days to a way out over FHIR.

    Raises:
        CommandFailed: there is no store to find deliveries in, or no such way out.
    """
    kinds = _kinds(settings, output)
    application = build(settings)
    try:
        since = application.services.clock.now() - timedelta(days=days)
        return await _looked(application, settings, kinds, since=since, mark=mark)
    finally:
        await application.aclose()


def show(looked: Looked, console: Console) -> None:
    """Print one line for each delivery that stands there more than once; ids are the EMR's, of our own resources."""
    for each in looked.found:
        others = ", ".join(f"{other}{' (marked)' if other in each.marked else ''}" for other in each.others)
        why = f"; not marked: {each.refusal}" if each.refusal else ""
        console.print(Text(f"{each.delivery_id}: {each.kind} {each.kept} kept, also {others}{why}"), soft_wrap=True)
    told = f"{len(looked.found)} of {looked.deliveries} deliveries stand in the EMR more than once"
    unasked = f"; about {looked.failed} it could not be asked" if looked.failed else ""
    console.print(Text(told + unasked, style="bold"))


async def _looked(
    application: Application, settings: Settings, kinds: dict[str, tuple[str, ...]], *, since: datetime, mark: bool
) -> Looked:
    services = application.services
    server = FhirWriter(
        base=settings.fhir_base,
        transport=application.network,
        credentials=application.access.fhir,
        search_by_get=settings.search_by_get,
    )
    deliveries = failed = 0
    found: list[Duplicates] = []
    for delivery_id, packet_id in await _chosen(services.store, tuple(kinds), since=since):
        delivery, stored = await services.store.read_delivery(delivery_id), await services.store.read(packet_id)
        if delivery is None or stored is None or stored.packet.environment != settings.environment:
            continue
        deliveries += 1
        try:
            found += await duplicates_of(delivery, stored.packet, kinds[delivery.output], server=server, mark=mark)
        except ServeError:
            failed += 1
    return Looked(deliveries=deliveries, failed=failed, found=tuple(found))


async def _chosen(store: InferenceStore, outputs: Sequence[str], *, since: datetime) -> list[tuple[str, str]]:
    chosen = []
    for state in _LOOKED_AT:
        after: str | None = None
        while page := await store.deliveries(state=state, after=after, limit=_PAGE):
            after = page[-1].delivery_id
            chosen += [
                (each.delivery_id, each.packet_id)
                for each in page
                if each.output in outputs and each.created_at >= since
            ]
    return chosen


def _kinds(settings: Settings, output: str | None) -> dict[str, tuple[str, ...]]:
    """Give by the name of each way out which types of resources it may have written."""
    if isinstance(settings.store, InMemory):
        raise CommandFailed("DEPLOYR_STORE: expected a store that is kept, to find deliveries in")
    kinds = {}
    for names in settings.outputs.chosen or ():
        written = tuple(FHIR_KINDS[name] for name in names if name in FHIR_KINDS)
        if written and output in {None, names[0]}:
            kinds[names[0]] = written
    if not kinds:
        raise CommandFailed("expected a way out over FHIR in DEPLOYR_OUTPUTS, such as flag or risk-assessment")
    return kinds


def _insist_on_leave(settings: Settings, environment: str | None) -> None:
    is_live = is_production(settings.environment, is_prod_profile=settings.profile is Profile.PROD)
    if environment is not None and environment != settings.environment:
        raise CommandFailed("--environment: expected the very name that DEPLOYR_ENVIRONMENT has")
    if environment is None and is_live:
        raise CommandFailed("--mark: this is a production environment; repeat its name, with --environment")
