"""The registry of the site whose settings a command has, and who acts in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec

from deployr_cli.audited import who
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_cli.stores import clock_of, with_store
from deployr_core.registry.journal import Action, CheckedItem, Entry
from deployr_core.registry.roles import Person, Role, Wish, role_for
from deployr_serve.adapters.run_shelf import RunShelf
from deployr_serve.audit_bootstrap import audit_of
from deployr_serve.bundle_bootstrap import shelf_of
from deployr_serve.core.audit import NotAudited
from deployr_serve.core.registry import Done, Registry
from deployr_serve.core.registry_deeds import Call, ShelvedRun
from deployr_serve.core.registry_journal import Journal, read_journal
from deployr_serve.core.registry_people import person_by_login
from deployr_serve.settings import Profile, read_settings
from deployr_serve.store_bootstrap import Store

_T = TypeVar("_T")
_CALL = Call(channel="command-line")


class RegistrySite:
    """One site's registry. ``settings`` may be None: the environment alone, in which ``environ`` leaves some out."""

    def __init__(self, settings: Path | None, *, environ: Mapping[str, str] = os.environ) -> None:
        self.settings = read_settings(settings_values(settings, environ))
        self._clock = clock_of(self.settings)
        self.audit = audit_of(
            self.settings.audit,
            site=self.settings.site,
            environment=self.settings.environment,
            clock=self._clock,
            transport=None,
        )

    @cached_property
    def shelf(self) -> RunShelf:
        """Give the site's runs.

        Raises:
            SettingsInvalid: it has no place for them.
        """
        return shelf_of(self.settings)

    def now(self) -> datetime:
        """Give the instant by the site's clock."""
        return self._clock.now()

    def in_store(self, work: Callable[[Store], Awaitable[_T]]) -> _T:
        """Do something with the site's store.

        Raises:
            CommandFailed: there is none that several processes share, or it does not answer.
        """
        return with_store(self.settings, work)

    async def journal(self, store: Store, model: str) -> Journal:
        """Give a model's journal, verified; empty where it has none.

        Raises:
            JournalBroken: it is not what was written.
        """
        return await read_journal(store, model, now=self.now(), keys=self.settings.registry.journal_keys.trusted)

    def shelved(self, model: str, run: str) -> ShelvedRun:
        """Give a run as it lies on the shelf; reading takes any role.

        Raises:
            RegistryRefused: it is not there, or not what its record says.
        """
        return asyncio.run(self.shelf.run(model, run))

    def may(self, action: Action, model: str, *, by: str | None) -> bool:
        """Say whether somebody's roles allow something with a model."""
        return role_for(self._person(by), action, model) is not None

    def do(
        self,
        action: Action,
        *,
        model: str,
        run: str = "",
        why: str = "",
        by: str | None,
        checklist: tuple[CheckedItem, ...] = (),
        despite: bool = False,
        to: Path | None = None,
    ) -> Done:
        """Do something in the registry; it is in the audit when this returns.

        Raises:
            RegistryRefused: it is not done; that it was tried is on record.
            JournalBroken: nothing is done.
            CommandFailed: nobody knows who asks, or what happened could not be written down.
        """
        person = self._person(by)
        wish = Wish(action=action, run_id=run, why=why, checklist=checklist, despite=despite)
        folder = None if to is None else str(to)
        return self._in_registry(lambda registry: registry.do(wish, model_id=model, by=person, call=_CALL, to=folder))

    def open_by_itself(self, model: str, *, why: str) -> Entry:
        """Write down that a schedule or an alarm asks for a run; it is in the audit when this returns.

        Raises:
            JournalBroken: nothing is done.
            CommandFailed: what happened could not be written down.
        """
        return self._in_registry(lambda registry: registry.open_by_itself(model, why=why, call=_CALL))

    def _in_registry(self, work: Callable[[Registry], Awaitable[_T]]) -> _T:
        sink = NotAudited() if self.audit is None else self.audit.folder
        try:
            return self.in_store(
                lambda store: work(
                    Registry(
                        records=store,
                        shelf=self.shelf,
                        clock=self._clock,
                        audit=sink,
                        keys=self.settings.registry.journal_keys,
                    )
                )
            )
        finally:
            self._keep_audit()

    def _keep_audit(self) -> None:
        if self.audit is None:
            return
        self.audit.folder.close()
        # What waits in memory would be lost with this process.
        if self.audit.folder.waiting:
            raise CommandFailed(f"DEPLOYR_AUDIT: {self.audit.folder.folder}: expected a folder that can be written")

    def _person(self, by: str | None) -> Person:
        people = self.settings.registry.people
        if people is None:
            if self.settings.profile is Profile.PROD:
                raise CommandFailed("DEPLOYR_REGISTRY_PEOPLE: expected a file of who may do what, in the prod profile")
            return Person(name=who(by), roles=frozenset(Role))
        if by is not None:
            raise CommandFailed(
                "--by: expected none where DEPLOYR_REGISTRY_PEOPLE lists people: who is logged in counts"
            )
        login = login_name()
        return person_by_login(login, people.people) or Person(name=login, roles=frozenset())


def checklist_in(file: Path) -> tuple[CheckedItem, ...]:
    """Read a checklist.

    Raises:
        CommandFailed: it is none.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=tuple[CheckedItem, ...])
    except msgspec.MsgspecError as error:
        raise CommandFailed(f'{file}: expected a JSON list of {{"item", "passed", "said"}}: {error}') from None


def login_name() -> str:
    """Give who is logged in, as the system knows it: the environment says whatever it was told to."""
    try:
        import pwd
    except ImportError:
        # Windows has no such list.
        return who(None)
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run under a number that has no name.
        return str(os.getuid())
