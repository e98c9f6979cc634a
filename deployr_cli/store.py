"""`deployr store`: make, check, migrate, export, purge the site's store, and forget a patient."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployr_cli.audited import who, write_down
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import with_store
from deployr_core.forgetting import derive_patient_hash
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.audit import Act
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.request import FHIR_ID
from deployr_serve.core.retention import Kept, count_about, forget, migrate, purge
from deployr_serve.core.spool import SpoolUnavailable
from deployr_serve.core.store_counts import StoreCounts, count_store
from deployr_serve.facts_bootstrap import Vault, open_vault
from deployr_serve.settings import Settings, read_settings
from deployr_serve.spool_bootstrap import open_spool
from deployr_serve.store_bootstrap import Store, open_store
from deployr_serve.store_settings import InFile, InMemory

store_app = typer.Typer(
    no_args_is_help=True,
    help="""The store of packets, deliveries, labels and events (DEPLOYR_STORE): make it, check it, take out of it.

Before go-live: [bold]deployr store init[/bold], then [bold]deployr store check[/bold]. After an upgrade:
[bold]deployr store migrate[/bold].""",
)

_SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
]
_By = Annotated[str | None, typer.Option(help="Who decided it; default: who is logged in here.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without, only say what would be done.")]


@store_app.command("init")
def init_store(settings: _SettingsFile = None) -> None:
    """Make the file, or the containers with their indexes, as declared. What is there already stays."""
    site = _site(settings)
    match site.store:
        case InMemory():
            raise CommandFailed("DEPLOYR_STORE: memory needs nothing; expected sqlite:FILE or cosmos:ADDRESS")
        case InFile(file=file) if not file.parent.is_dir():
            raise CommandFailed(f"DEPLOYR_STORE: {file.parent}: no such folder; make it, for the app's own user alone")

    async def run() -> tuple[str, ...]:
        store = open_store(site.store, clock=SystemClock(), deadline_s=site.deadline_s, owner=site.site_apart)
        try:
            done = await store.init()
            await store.check()
        except StoreUnavailable as error:
            raise CommandFailed(f"DEPLOYR_STORE: {error}") from error
        finally:
            await store.aclose()
        return done

    for line in asyncio.run(run()) or ("everything is as declared already",):
        print(line)


@store_app.command("check")
def check_store(settings: _SettingsFile = None) -> None:
    """Compare the store with what is declared, read everything once, and count. Exits with 1 if something is wrong.

    No patient is shown. It reads every packet: on a large store run it where nobody waits for the store.
    """
    site, console = _site(settings), Console()

    async def look(store: Store) -> tuple[tuple[str, ...], StoreCounts]:
        differences = await store.differences()
        await store.check()
        with bar(console, "reading the packets") as tell:
            return differences, await count_store(store, now=SystemClock().now(), tell=lambda read: tell(read, read))

    differences, counts = with_store(site, look)
    print_counts(counts, console=console)
    problems = (*differences, *counts.problems(now=SystemClock().now()))
    for problem in problems:
        console.print(f"[red]✗[/red] {problem}", highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)
    console.print("[green]✓[/green] as declared, whole, and can be written", highlight=False)


@store_app.command("migrate")
def migrate_store(yes: _Yes = False, by: _By = None, settings: _SettingsFile = None) -> None:
    """Bring packets of older schema versions to today's; needed once after an upgrade, while the app runs.

    A SQLite file's tables are brought up to date by whoever opens it first; this is for what is in them. It can be
    interrupted and run again.
    """
    site, console = _site(settings), Console()

    def hash_of(patient_id: str) -> str:
        return derive_patient_hash(site.id_key, patient_id)

    async def run(store: Store) -> int:
        with bar(console, "migrating" if yes else "counting") as tell:
            return await migrate(store, hash_of, dry_run=not yes, tell=tell)

    count = with_store(site, run)
    if count and yes:
        write_down(site, Act.MIGRATE, by=who(by), said="migrated", details={"packets": str(count)})
    _told(f"{count} packets of schema version 1", yes=yes or not count)


@store_app.command("export")
def export_store(
    out: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    key_file: Annotated[
        Path | None,
        typer.Option(help="A secret of 16 bytes or more; exports made with the same one can be joined."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Packets asked for from here on, such as 2025-01-01T00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Packets asked for before this instant.")] = None,
    identified: Annotated[
        bool, typer.Option("--identified", help="With FHIR ids and true instants: this is a disclosure.")
    ] = False,
    why: Annotated[str | None, typer.Option(help="For --identified: on what grounds; kept on record.")] = None,
    by: _By = None,
    settings: _SettingsFile = None,
) -> None:
    """Write Parquet tables for analysts, de-identified: inferences, features, deliveries, events, labels and more.

    Ids are hashed under a key that is thrown away, each patient's instants are shifted by the same whole weeks, and
    clinicians' comments are left out; docs/audit.md says what remains. A data dictionary lies beside the tables.
    """
    from deployr_cli.store_export import Export, run_export
    from deployr_core.instants import parse_instant

    site = _site(settings)
    if identified and not why:
        raise CommandFailed("--why: expected on what grounds ids leave the store, with --identified")
    export = Export(
        out=out,
        key_file=key_file,
        since=parse_instant(since) if since else None,
        until=parse_instant(until) if until else None,
        identified=identified,
    )
    decided_by = who(by)
    details = {"identified": str(int(identified)), "folder": out.name, **({"why": why} if why else {})}
    # Before anything leaves: what is interrupted has begun.
    write_down(site, Act.EXPORT, by=decided_by, said="begun", details=details, must=identified)
    rows = run_export(site, export, console=Console())
    details |= {table: str(count) for table, count in rows.items()}
    write_down(site, Act.EXPORT, by=decided_by, said="exported", details=details, must=identified)


@store_app.command("forget")
def forget_patients(
    ids_file: Annotated[
        Path | None, typer.Option("--from", help="A file of FHIR patient ids, one a line; - is standard input.")
    ] = None,
    yes: _Yes = False,
    by: _By = None,
    settings: _SettingsFile = None,
) -> None:
    """Erase all that is stored about a patient: packets, deliveries, labels, events, kept facts.

    The id is asked for, or read from a file: what stands in a command is seen by everybody who lists processes, and
    stays in the shell's history. Of each packet there stays its id, so that it is not made again. What was written to
    the EMR stays there. Without --yes it only counts. Exits with 1 if something could not be reached.
    """
    site, clock = _site(settings), SystemClock()
    hashes = [derive_patient_hash(site.id_key, patient_id) for patient_id in _patient_ids(ids_file)]
    decided_by = who(by)
    if yes:
        for patient_hash in hashes:
            write_down(site, Act.FORGET, by=decided_by, said="begun", patient_hash=patient_hash, must=True)

    async def run(store: Store) -> bool:
        complete = await _is_reachable(site, store)
        vault = _vault(site)
        try:
            for patient_hash in hashes:
                if yes:
                    counts = await forget(store, patient_hash, vault=vault, clock=clock)
                    details = {name: str(count) for name, count in sorted(counts.items())}
                    said = "erased" if complete else "erased in part"
                    write_down(
                        site,
                        Act.FORGET,
                        by=decided_by,
                        said=said,
                        patient_hash=patient_hash,
                        details=details,
                        must=True,
                    )
                else:
                    counts = await count_about(store, patient_hash)
                _told(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing", yes=yes)
        finally:
            if vault is not None:
                await vault.aclose()
        return complete

    if not with_store(site, run):
        raise typer.Exit(1)


@store_app.command("purge")
def purge_store(yes: _Yes = False, by: _By = None, settings: _SettingsFile = None) -> None:
    """Take out what has been kept for as long as DEPLOYR_RETENTION_DAYS says; the app does it each night by itself."""
    site, console, now = _site(settings), Console(), SystemClock().now()
    if not site.audit.retention_days:
        raise CommandFailed("DEPLOYR_RETENTION_DAYS: expected days by kind, such as scored:2557,unscored:400")
    decided_by = who(by)
    if yes:
        write_down(site, Act.PURGE, by=decided_by, said="begun", must=True)

    async def run(store: Store) -> dict[Kept, int]:
        vault = _vault(site)
        try:
            with bar(console, "purging" if yes else "counting") as tell:
                return await purge(store, site.audit.retention_days, vault=vault, now=now, dry_run=not yes, tell=tell)
        finally:
            if vault is not None:
                await vault.aclose()

    counts = with_store(site, run)
    if yes:
        details = {kind.value: str(count) for kind, count in sorted(counts.items())}
        write_down(site, Act.PURGE, by=decided_by, said="purged", details=details, must=True)
    told = ", ".join(f"{count} {kind} packets" for kind, count in sorted(counts.items()))
    _told(told or "nothing is that old", yes=yes or not told)


def print_counts(counts: StoreCounts, *, console: Console) -> None:
    """Print a line per model, and one of all that belongs to packets."""
    kinds = ("scored", "abstained", "failed", "rejected", "received", "forgotten")
    table = Table("model", *kinds, box=None)
    for model_id, found in counts.packets.items():
        table.add_row(model_id, *(str(found[kind]) for kind in kinds))
    console.print(table)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.deliveries.items())) or "none"
    console.print(f"deliveries: {states}; labels: {counts.labels}; events: {counts.events}", highlight=False)
    if counts.live_without_delivery:
        console.print(
            f"{counts.live_without_delivery} packets were scored in live mode and owe nothing to any way out",
            highlight=False,
        )


async def _is_reachable(site: Settings, store: Store) -> bool:
    """Say on standard error what this command cannot reach, and what to do then; True if that is nothing."""
    complete = True
    if await store.packets_of("", after=None, limit=1):
        complete = False
        print(
            "there are packets that no patient is found by: run deployr store migrate, then this again", file=sys.stderr
        )
    spool = open_spool(site.spool)
    if spool is not None:
        try:
            waiting = (await spool.standing()).waiting
        except SpoolUnavailable as error:
            raise CommandFailed(f"DEPLOYR_SPOOL: {error}; packets about the patient may wait there") from error
        finally:
            await spool.aclose()
        if waiting:
            complete = False
            print(f"{waiting} packets wait in the spool: run this again when they are in the store", file=sys.stderr)
    return complete


def _vault(site: Settings) -> Vault | None:
    return None if site.facts is None else open_vault(site.facts, deadline_s=site.deadline_s)


def _patient_ids(file: Path | None) -> tuple[str, ...]:
    if file is None and sys.stdin.isatty():
        lines: Iterable[str] = [typer.prompt("FHIR id of the patient", hide_input=True)]
    elif file is None or str(file) == "-":
        lines = sys.stdin
    else:
        lines = file.read_text(encoding="utf-8").splitlines()
    ids = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids or not all(FHIR_ID.match(each) for each in ids):
        raise CommandFailed("expected FHIR ids of patients, one a line: letters, digits, hyphens and dots, up to 64")
    return ids


def _site(settings: Path | None) -> Settings:
    return read_settings(settings_values(settings, os.environ))


def _told(what: str, *, yes: bool) -> None:
    print(what if yes else f"{what}; nothing was done: add --yes to do it")
