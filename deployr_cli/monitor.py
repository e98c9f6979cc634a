"""`deployr monitor`: take from the store what monitoring reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import clock_of, with_store
from deployr_cli.workspaces import EXTRACT_FOLDER
from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, sha256_hex
from deployr_core.documents import DOCUMENTS_FILE
from deployr_serve.core.retention import Kept
from deployr_serve.settings import Settings, read_settings
from deployr_serve.store_bootstrap import Store

if TYPE_CHECKING:
    from deployr_dash.extract import Extracted

_REFERENCE_WEEKS = 8
_KINDS = {Kept.SCORED: ("scored",), Kept.UNSCORED: ("abstained", "failed", "rejected")}

monitor_app = typer.Typer(
    no_args_is_help=True,
    help="""What monitoring reads: tables without identities, taken from the store and kept up to date.

Start with: [bold]deployr monitor extract[/bold]""",
)


@monitor_app.command("extract")
def extract_command(
    folder: Annotated[Path, typer.Argument(help="Where the extract lies, or is to lie.")] = EXTRACT_FOLDER,
    anew: Annotated[bool, typer.Option("--anew", help="Read everything again, not only what changed.")] = False,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="A local.settings.json; the environment wins over it.")
    ] = None,
) -> None:
    """Bring the extract up to date with the store: safe at any time, beside the app, interrupted and run again.

    It holds no identities: patients are numbers, whose meaning lies in codes.sqlite beside it, for its owner alone.
    Run it each night, and after deployr store forget, so that what was forgotten is gone from here, too.
    """
    site, console = read_settings(settings_values(settings, os.environ)), Console()
    done = brought_up_to_date(site, folder, anew=anew, console=console)
    console.print(f"{folder}: {done.read:,} packets read, {done.rows:,} in all", highlight=False, soft_wrap=True)
    if done.without_bundle:
        console.print(
            f"{done.without_bundle:,} were scored by bundles that are not here, or too old to be read: their rows have"
            " neither demographics nor the time of their labels. Where you have these bundles, put them into"
            " DEPLOYR_BUNDLE_ARCHIVE, and extract --anew",
            highlight=False,
            soft_wrap=True,
        )


def brought_up_to_date(site: Settings, folder: Path, *, console: Console, anew: bool = False) -> Extracted:
    """Bring a site's extract up to date, as of the site's clock.

    Raises:
        CommandFailed: what it needs is not installed, or the store is not there or does not answer.
        ExtractBusy: another process is at it.
    """
    try:
        from deployr_dash.extract import extract
    except ImportError:
        raise CommandFailed("expected pyarrow, pandas and duckdb, which deployr[dash] installs") from None
    now = clock_of(site).now()
    with bar(console, "Reading what changed in the store") as tell:

        async def run(store: Store) -> Extracted:
            return await extract(
                store,
                folder,
                bundles=SiteBundles(site),
                now=now,
                kept_since=_kept_since(site, now),
                anew=anew,
                replayed=site.clock_file is not None,
                tell=tell,
            )

        return with_store(site, run)


@monitor_app.command("reference")
def reference_command(
    model: Annotated[str, typer.Argument(help="The model, as its packets name it.")],
    folder: Annotated[Path, typer.Argument(help="Where the extract lies.")] = EXTRACT_FOLDER,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="The first day, UTC. Default: of the version's packets.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="The last day, included. Default: so that it is 8 weeks.")
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="Default: the one that answered last.")] = None,
) -> None:
    """Make the reference period that drift is held against: what a version answered in days when all was well.

    The best are the weeks of a silent trial that was looked at. It holds counts and no row of anybody, and stays with
    the bundle in the extract until another is made; drift panels and drift alarms use it from then on.
    """
    try:
        from deployr_dash.references import write_reference
        from deployr_dash.served import NothingServed, load_served, served_days
    except ImportError:
        raise CommandFailed("expected pyarrow, pandas and duckdb, which deployr[dash] installs") from None
    from deployr_core.monitoring.drift_reference import ReferencePeriod
    from deployr_dash.panels.panel import Window

    begun, ended = _day(first, "--from"), _day(last, "--to")
    try:
        known = served_days(folder, model=model, version=version)
        begun = begun or known[0]
        ended = ended or min(begun + timedelta(weeks=_REFERENCE_WEEKS, days=-1), known[1])
        if ended < begun:
            raise CommandFailed(f"expected --to on or after --from, {begun.isoformat()}")
        window = Window(start=_midnight(begun), end=_midnight(ended + timedelta(days=1)))
        rows, served, digest = load_served(folder, model=model, window=window, version=version)
        reference = ReferencePeriod.of(rows, model_id=model, version=served, bundle_sha256=digest)
    except NothingServed as error:
        raise CommandFailed(str(error)) from None
    place = write_reference(folder, reference)
    Console().print(
        f"{model} {served[:12]}, {begun.isoformat()} to {ended.isoformat()}: {reference.requests:,} requests about"
        f" {reference.patients:,} patients, in {place}",
        highlight=False,
        soft_wrap=True,
    )


@monitor_app.command("seismometer")
def seismometer_command(
    model: Annotated[str, typer.Argument(help="The model, as its packets name it: one of yes or no.")],
    to: Annotated[Path, typer.Argument(help="The folder to write; one that was written so before is written anew.")],
    folder: Annotated[Path, typer.Option("--extract", help="Where the extract lies.")] = EXTRACT_FOLDER,
) -> None:
    """Write what one model answered, and what happened, for Epic's open-source seismometer.

    It reads config.yml in that folder. Patients are the extract's numbers; a packet is a context of its own. Only
    scores with a ripe outcome are written: of the last days it is known what happened, and not yet what did not.
    """
    try:
        from deployr_dash.parts import ExtractMissing
        from deployr_dash.seismometer import NotForSeismometer, write_seismometer
    except ImportError:
        raise CommandFailed("expected pyarrow, pandas and duckdb, which deployr[dash] installs") from None
    try:
        written = write_seismometer(folder, to, model=model)
    except (ExtractMissing, NotForSeismometer, FileExistsError) as error:
        raise CommandFailed(str(error)) from None
    Console().print(
        f"{to / 'config.yml'}: {written.predictions:,} scores of {model} with a ripe outcome;"
        f" {written.left_out:,} without one were left out",
        highlight=False,
        soft_wrap=True,
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _day(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"{option}: expected a day such as 2026-01-31") from None


class SiteBundles:
    """The manifests and declarations in a site's folders of bundles, by the digest that packets name."""

    def __init__(self, site: Settings) -> None:
        self._folders = tuple(each for each in (site.bundles, site.bundle_archive) if each is not None)
        self._places: dict[str, Path] | None = None

    def files(self, digest: str) -> dict[str, bytes] | None:
        """Give manifest and declarations by file; None where no folder has the bundle."""
        if self._places is None:
            self._places = dict(self._found())
        place = self._places.get(digest)
        if place is None:
            return None
        names = (MANIFEST_FILE, FEATURES_FILE, DOCUMENTS_FILE)
        return {name: (place / name).read_bytes() for name in names if (place / name).is_file()}

    def _found(self) -> Iterator[tuple[str, Path]]:
        for folder in self._folders:
            for manifest in sorted(folder.rglob(MANIFEST_FILE)):
                if (manifest.parent / FEATURES_FILE).is_file():
                    yield sha256_hex(manifest.read_bytes()), manifest.parent


def _kept_since(site: Settings, now: datetime) -> dict[str, datetime]:
    return {
        kind: now - timedelta(days=days)
        for kept, days in site.audit.retention_days.items()
        for kind in _KINDS.get(kept, ())
    }
