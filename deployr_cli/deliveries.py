"""`deployr deliveries`: what is on its way to the EMR, what never got there and why, and how to have it sent again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployr_cli.audited import who, write_down
from deployr_cli.duplicates import duplicates
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import clock_of, with_store
from deployr_core.packet import Delivery, DeliveryState, InferencePacket
from deployr_serve.core.audit import Act
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.life import sent_again
from deployr_serve.core.ports import Clock
from deployr_serve.settings import read_settings
from deployr_serve.store_bootstrap import Store

deliveries_app = typer.Typer(
    no_args_is_help=True,
    help="""Scores on their way to the EMR: list them by state, show one, have dead ones sent again.

Something is wrong with the write-back? [bold]deployr deliveries list[/bold] shows what is dead and why. Once the reason
is gone: [bold]deployr deliveries retry --all --reason REASON[/bold].""",
)

deliveries_app.command("duplicates")(duplicates)

_PAGE = 500
_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]
_Output = Annotated[str | None, typer.Option(help="Only those to this way out, such as flowsheet.")]
_Reason = Annotated[str | None, typer.Option(help="Only those with this last error, such as emr-refused.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A delivery with its packet; None where that is not there any more."""

    delivery: Delivery
    packet: InferencePacket | None


@deliveries_app.command("list")
def list_deliveries(
    state: Annotated[DeliveryState, typer.Option(help="Which ones.")] = DeliveryState.DEAD,
    output: _Output = None,
    reason: _Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show; the counts below are of all.")] = 50,
    settings: _SettingsFile = None,
) -> None:
    """Show deliveries of one state, and below how many there are by way out and last error. No patient is shown."""
    site = read_settings(settings_values(settings, os.environ))
    found, counts = with_store(
        site, lambda store: _listed(store, state=state, output=output, reason=reason, limit=limit)
    )
    print_deliveries(found, counts, state=state, now=clock_of(site).now(), console=Console())


@deliveries_app.command("show")
def show_delivery(
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="As `list` shows it.")],
    settings: _SettingsFile = None,
) -> None:
    """Show all that is known of one delivery: its packet's model and times, its tries, and how it ended before."""
    site = read_settings(settings_values(settings, os.environ))
    found = with_store(site, lambda store: _found(store, delivery_id))
    print_delivery(found, console=Console())


@deliveries_app.command("retry")
def retry(
    delivery_ids: Annotated[list[str] | None, typer.Argument(metavar="[DELIVERY]...", help="As `list` shows.")] = None,
    all_of_them: Annotated[
        bool, typer.Option("--all", help="All that are dead; narrow them down as with list.")
    ] = False,
    output: _Output = None,
    reason: _Reason = None,
    by: Annotated[str | None, typer.Option(help="Who decided it; default: who is logged in here.")] = None,
    settings: _SettingsFile = None,
) -> None:
    """Have dead deliveries sent again by the relay, under the same ids, so that nothing is written twice.

    How each had ended stays on record. What has become too old to be shown late is not sent but ends as expired.
    """
    if all_of_them == bool(delivery_ids):
        raise CommandFailed("expected the ids of dead deliveries, or --all")
    if not all_of_them and (output or reason):
        raise CommandFailed("--output and --reason: expected them with --all, to narrow it down")
    site = read_settings(settings_values(settings, os.environ))
    decided_by, clock = who(by), clock_of(site)

    async def work(store: Store) -> tuple[int, int]:
        if all_of_them:
            chosen = await _all(store, state=DeliveryState.DEAD, output=output, reason=reason)
        else:
            chosen = [(await _found(store, each)).delivery for each in delivery_ids or ()]
        return await _retried(store, chosen, clock=clock)

    again, changed = with_store(site, work)
    details = {"again": str(again), "output": output or "any", "reason": reason or "any"}
    write_down(site, Act.DELIVERIES, by=decided_by, said="retry", details=details)
    print(f"{again} to be sent again by the relay" + (f"; {changed} changed meanwhile, left alone" if changed else ""))


def print_deliveries(
    found: Sequence[Found], counts: Counter[tuple[str, str]], *, state: DeliveryState, now: datetime, console: Console
) -> None:
    """Print one line per delivery, and one per way out and reason."""
    if not counts:
        console.print(f"no delivery is {state}")
        return
    table = Table("delivery", "model", "made", "age", "tries", "last error", "next try", box=None)
    for each in found:
        delivery, packet = each.delivery, each.packet
        is_pending = delivery.state is DeliveryState.PENDING
        table.add_row(
            delivery.delivery_id,
            packet.model.model_id if packet else "-",
            _instant(delivery.created_at),
            _age(now, delivery.created_at),
            str(delivery.attempts),
            delivery.last_error or "-",
            _instant(delivery.due_at or delivery.created_at) if is_pending else "-",
        )
    console.print(table)
    console.print()
    summary = Table(str(state), "output", "last error", box=None)
    for (name, why), count in counts.most_common():
        summary.add_row(str(count), name, why)
    console.print(summary)
    if sum(counts.values()) > len(found):
        console.print(f"{len(found)} of {sum(counts.values())} shown; --limit shows more")


def print_delivery(found: Found, *, console: Console) -> None:
    """Print what is known of one delivery, line by line."""
    delivery, packet = found.delivery, found.packet
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    rows: list[tuple[str, str]] = [
        ("delivery", delivery.delivery_id),
        ("output", delivery.output),
        ("state", str(delivery.state)),
        ("made", _instant(delivery.created_at)),
        ("last change", _instant(delivery.updated_at)),
        ("tries", str(delivery.attempts)),
        ("last error", delivery.last_error or "-"),
    ]
    if delivery.state is DeliveryState.PENDING:
        rows.append(("next try", _instant(delivery.due_at or delivery.created_at)))
    if packet is None:
        rows.append(("packet", f"{delivery.packet_id} is not there any more"))
    else:
        rows += [
            ("packet", packet.packet_id),
            ("outcome", str(packet.outcome.__struct_config__.tag)),
            ("model", f"{packet.model.model_id} {packet.model.version}"),
            ("channel", packet.trigger.channel),
            ("as of", _instant(packet.as_of)),
            ("scored", _instant(packet.updated_at)),
        ]
    for number, each in enumerate(delivery.earlier, start=1):
        how = f"{each.state} at {_instant(each.ended_at)} after {each.attempts} tries: {each.last_error or '-'}"
        rows.append((f"before, {number}", how))
    for name, text in rows:
        table.add_row(name, text)
    console.print(table)


async def _listed(
    store: Store, *, state: DeliveryState, output: str | None, reason: str | None, limit: int
) -> tuple[list[Found], Counter[tuple[str, str]]]:
    everything = await _all(store, state=state, output=output, reason=reason)
    found = []
    for delivery in everything[:limit]:
        stored = await store.read(delivery.packet_id)
        found.append(Found(delivery=delivery, packet=None if stored is None else stored.packet))
    return found, Counter((each.output, each.last_error or "-") for each in everything)


async def _all(store: Store, *, state: DeliveryState, output: str | None, reason: str | None) -> list[Delivery]:
    """Give the deliveries in that state that are meant, the oldest first."""
    found: list[Delivery] = []
    after: str | None = None
    while page := await store.deliveries(state=state, after=after, limit=_PAGE):
        after = page[-1].delivery_id
        found += (each for each in page if output in {None, each.output} and reason in {None, each.last_error})
    return sorted(found, key=lambda each: (each.created_at, each.delivery_id))


async def _found(store: Store, delivery_id: str) -> Found:
    delivery = await store.read_delivery(delivery_id)
    if delivery is None:
        raise CommandFailed("expected the id of a delivery, as `deployr deliveries list` shows it")
    stored = await store.read(delivery.packet_id)
    return Found(delivery=delivery, packet=None if stored is None else stored.packet)


async def _retried(store: Store, chosen: Sequence[Delivery], *, clock: Clock) -> tuple[int, int]:
    """Make them pending again; give how many are, and how many somebody else changed first."""
    for delivery in chosen:
        if delivery.state is not DeliveryState.DEAD:
            raise CommandFailed(f"{delivery.delivery_id}: expected a dead delivery, it is {delivery.state}")
    again = changed = 0
    for delivery in chosen:
        try:
            await store.save_delivery(sent_again(delivery, now=clock.now()), was=delivery)
        except RecordChanged:
            changed += 1
        else:
            again += 1
    return again, changed


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"


def _age(now: datetime, since: datetime) -> str:
    minutes = max(int((now - since).total_seconds()) // 60, 0)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} d"
