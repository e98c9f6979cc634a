"""What may be done with a model's runs: registered, approved, deployed, rolled back; and what is written down of it.

Each act is decided from the verified journal, written into it, and only then takes effect: a champion is in the journal
before its bundle is put in place. Whoever dies in between leaves the old bundle at work, and the same act, done again,
puts the new one in place. What somebody may not do is refused, and the refusal is written down like an act.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Protocol

from deployr_core.bundle import MODEL_ID
from deployr_core.registry.journal import NO_KEYS, Action, Deed, Entry, Head, JournalBroken, JournalKeys
from deployr_core.registry.roles import APP, Person, Reason, RegistryRefused, Wish, expect_may, role_for
from deployr_core.registry.run import DeployType
from deployr_core.registry.standing import GOES_LIVE, RunStanding, Standing
from deployr_serve.core.audit import AuditSink
from deployr_serve.core.errors import SettingsInvalid, StoreUnavailable
from deployr_serve.core.ports import Clock, Records
from deployr_serve.core.registry_deeds import (
    BROKEN,
    Call,
    ShelvedRun,
    deed_of,
    of_entry,
    of_repeat,
    of_unwritten,
    refused_deed,
)
from deployr_serve.core.registry_journal import Decide, Journal, append, read_journal, tell_head

_log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where runs lie, and the folder that models are served from."""

    async def run(self, model_id: str, run_id: str) -> ShelvedRun:
        """Give a run.

        Raises:
            RegistryRefused: there is none, or it is not what its record says.
        """

    async def prepare(self, run: ShelvedRun) -> str:
        """Lay a run's bundle beside the one that serves, and try it out as serving would; nothing takes effect.

        Returns:
            Why a running app will only take it when it is started again; empty if it takes it as it runs.

        Raises:
            RegistryRefused: it may not be loaded here.
        """

    async def put_in_place(self, run: ShelvedRun, head: Head) -> None:
        """Let a prepared bundle serve, from one instant to the next. ``head``: which entry of the journal says so."""

    async def export(self, run: ShelvedRun, to: str) -> None:
        """Write a run's bundle, and its model in forms that others read, into a folder that is not there yet.

        Raises:
            RegistryRefused: it is there, or cannot be written.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What was done, as the journal says it. ``note``: what has still to be seen to, in words; empty if nothing.

    ``is_repeat``: it was the champion already, and was put in place again.
    """

    entry: Entry
    note: str = ""
    is_repeat: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry:
    """The registry of one site.

    ``audit``: gets a record of every act and of every refusal. ``keys``: those of its journals.
    """

    records: Records
    shelf: Shelf
    clock: Clock
    audit: AuditSink
    keys: JournalKeys = NO_KEYS

    async def do(self, wish: Wish, *, model_id: str, by: Person, call: Call, to: str | None = None) -> Done:
        """Do what somebody wants, if they may.

        Deploying what is the champion already puts it in place again, and gives the entry that made it the champion.

        Args:
            wish: what.
            model_id: of which model.
            by: who.
            call: through which channel.
            to: the folder of an export, and of nothing else.

        Raises:
            RegistryRefused: it is not done; that it was tried is written down.
            JournalBroken: nothing is done before somebody has seen to it.
            StoreUnavailable: nobody knows if it was done; it may be tried again.
        """
        try:
            done = await self._done(wish, model_id, by, to)
        except RegistryRefused as refusal:
            await self._write_down(refusal, wish, model_id, by, call)
            raise
        except JournalBroken:
            at = self.clock.now()
            self.audit.record(of_unwritten(wish.action, by, call, reason=BROKEN, at=at, model_id=model_id))
            raise
        at = self.clock.now()
        self.audit.record(of_repeat(done.entry, by, call, at=at) if done.is_repeat else of_entry(done.entry, call))
        return done

    def expect_reader(self, by: Person, call: Call, model_id: str | None = None) -> None:
        """Return if somebody may read how a model stands, or None, which models there are: who has any role may.

        Raises:
            RegistryRefused: they have none, or none for this model; that they tried is written down.
        """
        if not (by.roles if model_id is None else by.roles_for(model_id)):
            reason = Reason.NOT_YOUR_ROLE
            self.audit.record(of_unwritten("read", by, call, reason=reason, at=self.clock.now()))
            raise RegistryRefused(reason, f"to read takes a role; {by.name} has none here")

    async def open_by_itself(self, model_id: str, *, why: str, call: Call) -> Entry:
        """Write down that the app asks for a run, on a schedule or an alarm; it never does more."""
        deed = Deed(at=self.clock.now(), who="timer", role=APP, action=Action.OPENED, why=why)
        entry = await append(self.records, model_id, lambda _: deed, clock=self.clock, keys=self.keys)
        self.audit.record(of_entry(entry, call))
        return entry

    async def settle(self, model_id: str) -> None:
        """See to it that the champion's bundle is in place here, where it is one that this app serves.

        On several machines with folders of their own, each does it for itself.

        Raises:
            RegistryRefused: its bundle is not there any more, or may not be loaded.
        """
        while True:
            journal = await self._journal(model_id)
            standing = journal.standing
            champion = standing.runs.get(standing.champion or "")
            if champion is None or standing.head is None or champion.deploy_type is not DeployType.CLOUD:
                return
            run = await self._as_registered(champion, standing)
            _expect_signed(run)
            await self.shelf.prepare(run)
            await tell_head(self.records, model_id, standing.head, now=self.clock.now())
            await self.shelf.put_in_place(run, standing.head)
            again = await self._journal(model_id)
            # Of two who put something in place at once, the last one must have put the champion there.
            if again.standing.champion == champion.run_id:
                return

    async def _done(self, wish: Wish, model_id: str, by: Person, to: str | None) -> Done:
        if not MODEL_ID.match(model_id):
            raise RegistryRefused(Reason.UNKNOWN_RUN, "expected the id of a model, such as hematocrit")
        if wish.action is Action.VOUCHED:
            return await self._vouched(wish, model_id, by)
        journal = await self._journal(model_id)
        standing = journal.standing
        champion = standing.runs.get(standing.champion or "")
        is_again = (
            champion is not None and wish.run_id == champion.run_id and wish.action is GOES_LIVE[champion.deploy_type]
        )
        if not (is_again and role_for(by, wish.action, model_id) is not None):
            # Before anything is looked for on the shelf; the checklist is not known yet.
            expect_may(replace(wish, despite=True), by, standing)
        if wish.action is Action.ROLLED_BACK:
            return await self._rolled_back(wish, model_id, by)
        run = await self._needed(wish, model_id, standing)
        note = ""
        if run is not None and wish.action is Action.DEPLOYED:
            _expect_signed(run)
            if not is_again:
                _expect_run_signed(run)
            note = await self.shelf.prepare(run)
        if run is not None and wish.action is Action.EXPORTED:
            _expect_signed(run)
            _expect_run_signed(run)
            if to is None:
                raise RegistryRefused(Reason.NOT_USABLE, "expected a folder to export to")
            await self.shelf.export(run, to)
        if is_again:
            entry = next(each for each in reversed(journal.entries) if _made_champion(each, wish.run_id))
        else:
            at = self.clock.now()
            entry = await self._append(model_id, lambda now: deed_of(wish, by, now, run, at=at))
        if wish.action is Action.DEPLOYED:
            await self.settle(model_id)
        return Done(entry=entry, note=note, is_repeat=is_again)

    async def _rolled_back(self, wish: Wish, model_id: str, by: Person) -> Done:
        """Withdraw the champion, whatever becomes of what is to come back: that one may have got lost, or been changed.

        Where what is shown goes by the registry, the withdrawn bundle answers in silence until another is in place.
        """
        at = self.clock.now()
        entry = await self._append(model_id, lambda now: deed_of(wish, by, now, None, at=at))
        try:
            await self.settle(model_id)
        except RegistryRefused as error:
            return Done(entry=entry, note=f"what is to come back is not in place: {error}")
        return Done(entry=entry)

    async def _vouched(self, wish: Wish, model_id: str, by: Person) -> Done:
        """Stand up for entries that nobody signed: the one act that begins from a journal which lacks signatures."""
        unasked = replace(self.keys, trusted=())
        journal = await read_journal(self.records, model_id, now=self.clock.now())
        expect_may(wish, by, journal.standing)
        if self.keys.signing is None:
            raise RegistryRefused(Reason.NOT_SIGNED, "expected DEPLOYR_JOURNAL_KEY, which entries are signed with")
        if not journal.entries:
            raise RegistryRefused(Reason.UNKNOWN_RUN, f"expected a model that has a journal; {model_id} has none")
        at = self.clock.now()
        return Done(entry=await self._append(model_id, lambda now: deed_of(wish, by, now, None, at=at), keys=unasked))

    async def _journal(self, model_id: str) -> Journal:
        return await read_journal(self.records, model_id, now=self.clock.now(), keys=self.keys.trusted)

    async def _append(self, model_id: str, decide: Decide, *, keys: JournalKeys | None = None) -> Entry:
        return await append(self.records, model_id, decide, clock=self.clock, keys=keys or self.keys)

    async def _needed(self, wish: Wish, model_id: str, standing: Standing) -> ShelvedRun | None:
        """Give the run that has to be looked at on the shelf; None where none has."""
        match wish.action:
            case Action.REGISTERED | Action.COMPARED:
                return await self.shelf.run(model_id, wish.run_id)
            case Action.APPROVED | Action.DEPLOYED | Action.EXPORTED:
                return await self._as_registered(standing.runs[wish.run_id], standing)
        return None

    async def _as_registered(self, run: RunStanding, standing: Standing) -> ShelvedRun:
        shelved = await self.shelf.run(standing.model_id, run.run_id)
        if (shelved.run_sha256, shelved.run.bundle_sha256) != (run.run_sha256, run.bundle_sha256):
            raise RegistryRefused(
                Reason.NOT_AS_REGISTERED, f"{run.run_id}: expected the run.json that was registered; it was changed"
            )
        return shelved

    async def _write_down(self, refusal: RegistryRefused, wish: Wish, model_id: str, by: Person, call: Call) -> None:
        at, is_known = self.clock.now(), False
        try:
            is_known = bool((await self._journal(model_id)).entries)
            if is_known:
                entry = await self._append(model_id, lambda now: refused_deed(refusal, wish, by, now, at=at))
                self.audit.record(of_entry(entry, call))
                return
        except (StoreUnavailable, JournalBroken, SettingsInvalid):
            _log.warning("a refusal could not be written into the journal")
        known = model_id if is_known else ""
        self.audit.record(of_unwritten(wish.action, by, call, reason=refusal.reason, at=at, model_id=known))


def _expect_signed(run: ShelvedRun) -> None:
    if run.signed_by is None:
        raise RegistryRefused(Reason.NOT_SIGNED, f"{run.run.run_id}: {run.unsigned}")


def _expect_run_signed(run: ShelvedRun) -> None:
    if run.run_signed_by is None:
        raise RegistryRefused(Reason.NOT_SIGNED, f"{run.run.run_id}: {run.run_unsigned}")


def _made_champion(entry: Entry, run_id: str) -> bool:
    if entry.action is Action.ROLLED_BACK:
        return entry.replaces == run_id
    return entry.action in GOES_LIVE.values() and entry.run_id == run_id
