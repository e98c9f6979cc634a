"""The registry as the dashboard reads it: a site's store and shelf, opened for each look, never written to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TypeVar

from deployr_cli.dash_store import in_store
from deployr_cli.failures import CommandFailed, explain, is_expected
from deployr_cli.models_checklist import computed
from deployr_cli.models_site import RegistrySite
from deployr_cli.papers import make_card
from deployr_cli.run_live import compare_live
from deployr_core.bundle import MODEL_ID, BundleInvalid
from deployr_core.governance.card import Card
from deployr_core.registry.comparison import Comparison
from deployr_core.registry.journal import JournalBroken
from deployr_dash.away import StoreAway
from deployr_dash.parts import INDEX_FILE
from deployr_dash.registry import Journal, NothingOfTheRun, journal_of
from deployr_serve.adapters.bundle_files import DEPLOYED_FILE, read_marker
from deployr_serve.adapters.registry_heads import told_heads
from deployr_serve.core.registry_deeds import ShelvedRun
from deployr_serve.core.registry_journal import heads, stored_entries
from deployr_serve.sites_settings import AT
from deployr_serve.store_bootstrap import Store

_T = TypeVar("_T")
CARD_FILE, PARITY_FILE, BARS_FILE = "card.yaml", "parity.json", "bars.yaml"
"""Under the folder of plans: a model's in a folder by its name, the site's bars in the folder itself."""


class SiteRegistry:
    """See `deployr_dash.registry.RegistryReader`.

    Args:
        settings: the site's, as the command line names it.
        environ: the environment, without what is the dashboard's own.
        extract: the folder of `deployr monitor extract`.
        plans: the folder of plans; None without one.
    """

    def __init__(self, settings: Path, *, environ: Mapping[str, str], extract: Path, plans: Path | None) -> None:
        self.program = f"deployr --at {environ[AT]}" if environ.get(AT) else "deployr"
        self.options = f"--settings {quote(str(settings))}"
        self.extract = f"--extract {quote(str(extract))}"
        self._site, self._extract, self._plans = RegistrySite(settings, environ=environ), extract, plans

    def journals(self) -> tuple[Journal, ...]:
        """Give every model's journal, as `journal` does, from one look into the store."""
        now = self._site.now()

        async def read(store: Store) -> tuple[Journal, ...]:
            found = [await self._journal(store, model_id) for model_id in sorted(await heads(store, now=now))]
            return tuple(each for each in found if each is not None)

        return in_store(self._site.settings, read)

    def journal(self, model_id: str) -> Journal | None:
        """Give a model's journal, compared with the head in the store and the deployed bundle's marker.

        The audit's records are left to `deployr models verify`: they are many, and a page is looked at often.
        """
        if not MODEL_ID.match(model_id):
            return None
        return in_store(self._site.settings, lambda store: self._journal(store, model_id))

    async def _journal(self, store: Store, model_id: str) -> Journal | None:
        settings = self._site.settings
        try:
            entries, head = await stored_entries(store, model_id, now=self._site.now())
            told = (*([] if head is None else [head]), *told_heads(model_id, audit=None, bundles=settings.bundles))
        except BundleInvalid:
            raise _unreadable_marker(model_id) from None
        except JournalBroken as error:
            return Journal(model_id=model_id, entries=(), standing=None, fault=error.fault, compared=0, has_keys=False)
        if not entries and not told:
            return None
        return journal_of(entries, model_id=model_id, heads=told, keys=settings.registry.journal_keys.trusted)

    def in_place(self, model_id: str) -> str | None:
        """Give the digest in the marker."""
        try:
            marker = read_marker(self._site.settings.bundles / model_id)
        except BundleInvalid:
            raise _unreadable_marker(model_id) from None
        return None if marker is None else marker.bundle_sha256

    def run(self, model_id: str, run_id: str) -> ShelvedRun:
        """Give a run of the shelf, every digest and the signature checked."""
        return _of_run(lambda: asyncio.run(self._site.shelf.run(model_id, run_id)))

    def card(self, model_id: str, run_id: str) -> Card:
        """Give the papers as `deployr papers write --settings` makes them."""
        return _of_run(lambda: self._card(model_id, run_id))

    def live(self, model_id: str, run_id: str) -> Comparison:
        """Give the comparison as `deployr run compare-live` makes it."""
        return _of_run(lambda: compare_live(self._site.settings, model_id, run_id, extract=self._extract))

    def _card(self, model_id: str, run_id: str) -> Card:
        site = self._site
        archive = site.settings.bundle_archive
        if archive is None or not (MODEL_ID.match(model_id) and MODEL_ID.match(run_id)):
            raise CommandFailed("DEPLOYR_BUNDLE_ARCHIVE: expected the folder that runs are kept in, and a run of it")
        extract = self._extract if (self._extract / INDEX_FILE).is_file() else None
        card = make_card(archive / model_id / run_id, self._planned(model_id, CARD_FILE), extract, profiles=())
        items = computed(
            site,
            model_id,
            run_id,
            extract=extract,
            parity=self._planned(model_id, PARITY_FILE),
            bars=self._planned("", BARS_FILE),
            service=card.service,
        )
        return replace(card, checklist=items)

    def _planned(self, model_id: str, name: str) -> Path | None:
        file = None if self._plans is None else self._plans / model_id / name
        return file if file is not None and file.is_file() else None


def _unreadable_marker(model_id: str) -> StoreAway:
    return StoreAway(
        f"The marker {DEPLOYED_FILE} of {model_id}, beside its bundles, cannot be read: look at that file."
    )


def _of_run(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except Exception as error:
        # What a page lacks it says, as a command would; a fault of ours, and a store that is away, go on.
        if not is_expected(error):
            raise
        raise NothingOfTheRun(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    said = explain(error)
    return said if said.endswith((".", "?", "!")) else f"{said}."
