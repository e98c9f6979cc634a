"""`deployr monitor`: take from the store what monitoring reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import with_store
from deployr_core.bundle import FEATURES_FILE, MANIFEST_FILE, sha256_hex
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.retention import Kept
from deployr_serve.settings import Settings, read_settings
from deployr_serve.store_bootstrap import Store

if TYPE_CHECKING:
    from deployr_dash.extract import Extracted

EXTRACT_FOLDER = Path(".deployr/monitor")
"""Where the extract lies if nobody says otherwise."""
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
    try:
        from deployr_dash.extract import extract
    except ImportError:
        raise CommandFailed("expected pyarrow, pandas and duckdb, which deployr[dash] installs") from None
    site = read_settings(settings_values(settings, os.environ))
    console, now = Console(), SystemClock().now()
    with bar(console, "reading what changed") as tell:

        async def run(store: Store) -> Extracted:
            return await extract(
                store,
                folder,
                bundles=SiteBundles(site),
                now=now,
                kept_since=_kept_since(site, now),
                anew=anew,
                tell=tell,
            )

        done = with_store(site, run)
    console.print(f"{folder}: {done.read:,} packets read, {done.rows:,} in all", highlight=False, soft_wrap=True)
    if done.without_bundle:
        console.print(
            f"{done.without_bundle:,} were scored by bundles that are not here, or too old to be read: their rows have"
            " neither demographics nor the time of their labels. Where you have these bundles, put them into"
            " DEPLOYR_BUNDLE_ARCHIVE, and extract --anew",
            highlight=False,
            soft_wrap=True,
        )


class SiteBundles:
    """The manifests and declarations in a site's folders of bundles, by the digest that packets name."""

    def __init__(self, site: Settings) -> None:
        self._folders = tuple(each for each in (site.bundles, site.bundle_archive) if each is not None)
        self._places: dict[str, Path] | None = None

    def files(self, digest: str) -> tuple[bytes, bytes] | None:
        """Give manifest and declaration; None where no folder has the bundle."""
        if self._places is None:
            self._places = dict(self._found())
        place = self._places.get(digest)
        if place is None:
            return None
        return (place / MANIFEST_FILE).read_bytes(), (place / FEATURES_FILE).read_bytes()

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
