"""What waits while the store is down: finished packets with all that belongs to them, and how they get into the store.

Ids are derived from what was asked, and what stands in the store first wins. So what is taken out of the spool twice,
by two workers, or after somebody asked the same again, is stored once and sent once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from deployr_core.forgetting import is_forgotten
from deployr_core.packet import Delivery, DeliveryState, Event, Failed, InferencePacket, Received
from deployr_serve.core.errors import Expired, RecordChanged, StoreUnavailable
from deployr_serve.core.life import PacketState, attempt_of, moved, state_of, stepped
from deployr_serve.core.ports import Clock, InferenceStore, Stored

SCHEMA_VERSION = 1
RUNS_S = 20.0
"""For how long one run takes further entries out."""
_AT_A_TIME = 32
_HELD_FOR = timedelta(minutes=1)
_MOST_TRIES = 5


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """One finished packet, with the deliveries and events that would have been stored along with it."""

    schema_version: int = SCHEMA_VERSION
    packet: InferencePacket
    deliveries: tuple[Delivery, ...]
    events: tuple[Event, ...]
    spooled_at: datetime

    def __repr__(self) -> str:
        return "<Spooled>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """An entry of the spool. ``receipt`` is what the spool takes it out by."""

    entry: Spooled
    receipt: object


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How many entries wait, and since when the oldest does; None if none does."""

    waiting: int
    oldest_at: datetime | None


class SpoolUnavailable(Exception):
    """Nothing can be put there now, or taken from there. ``reason``: ``spool-unavailable`` or ``spool-full``."""

    def __init__(self, reason: str = "spool-unavailable") -> None:
        super().__init__("expected a spool that can be read and written")
        self.reason = reason


class Spool(Protocol):
    """Keeps entries durably, elsewhere than in the store. Every method may raise SpoolUnavailable."""

    async def put(self, entry: Spooled) -> None:
        """Keep an entry; once this returns it survives a power cut."""

    async def oldest(self, *, limit: int) -> tuple[Waiting, ...]:
        """Give the entries that wait longest. Where others are kept from them meanwhile, it is for a minute."""

    async def remove(self, waiting: Waiting) -> None:
        """Take an entry out for good; one that is gone already is no error."""

    async def standing(self) -> Standing:
        """Say how much waits."""


class Fate(StrEnum):
    """What becomes of an entry. ``put-off``: somebody is answering the same request right now."""

    CREATED = "created"
    FINISHED = "finished"
    TAKEN_OVER = "taken-over"
    THERE = "there"
    ANSWERED_OTHERWISE = "answered-otherwise"
    KEY_REUSED = "key-reused"
    FORGOTTEN = "forgotten"
    PUT_OFF = "put-off"


_STORES = frozenset({Fate.CREATED, Fate.FINISHED, Fate.TAKEN_OVER})


def fate_of(spooled: InferencePacket, held: InferencePacket | None, *, now: datetime) -> Fate:
    """Decide what becomes of a spooled packet, by what stands in the store under its id.

    ``created``: nothing does. ``finished``: this very attempt, begun there before the store went down. ``there``: this
    very attempt, ended. ``taken-over``: an attempt that failed, or whose worker has died, and stays on record.
    ``answered-otherwise``: somebody asked again meanwhile, and their answer stands.
    """
    if held is None:
        return Fate.CREATED
    if is_forgotten(held):
        return Fate.FORGOTTEN
    if held.trigger.request_sha256 != spooled.trigger.request_sha256:
        return Fate.KEY_REUSED
    is_same_attempt = (held.started_at, held.trigger) == (spooled.started_at, spooled.trigger)
    if isinstance(held.outcome, Received):
        if is_same_attempt:
            return Fate.FINISHED
        return Fate.PUT_OFF if held.outcome.lease_until > now else Fate.TAKEN_OVER
    if is_same_attempt:
        return Fate.THERE
    is_open = state_of(held) in {PacketState.FAILED, PacketState.SWITCHED_OFF}
    return Fate.TAKEN_OVER if is_open and not isinstance(spooled.outcome, Failed) else Fate.ANSWERED_OTHERWISE


def owed(entry: Spooled, *, now: datetime, expires_after: timedelta) -> tuple[Delivery, ...]:
    """Give the entry's deliveries as they are stored at ``now``: due at once, or expired where it took too long."""
    if now - entry.packet.updated_at > expires_after:
        changes: dict[str, object] = {"state": DeliveryState.EXPIRED, "last_error": Expired.reason}
    else:
        changes = {"due_at": None}
    return tuple(moved(None, msgspec.structs.replace(each, updated_at=now, **changes)) for each in entry.deliveries)


def begun(spooled: InferencePacket, held: InferencePacket | None, *, now: datetime) -> InferencePacket:
    """Give the packet as it was received, with what ``held`` tells of earlier attempts: what is stored at first."""
    earlier = spooled.earlier_attempts
    if held is not None:
        earlier = (*held.earlier_attempts, attempt_of(held))
    received = Received(lease_until=now + _HELD_FOR)
    return msgspec.structs.replace(
        spooled, outcome=received, fetches=(), updated_at=spooled.started_at, earlier_attempts=earlier
    )


async def drain(
    spool: Spool, *, store: InferenceStore, clock: Clock, expires_after: timedelta, within_s: float = RUNS_S
) -> Counter[Fate]:
    """Bring what waits into the store, the oldest first, until nothing does or the time is over.

    Each entry is taken out after it is stored, so that a crash in between repeats it, which changes nothing.

    Raises:
        StoreUnavailable, SpoolUnavailable: what was not reached waits on.
    """
    fates: Counter[Fate] = Counter()
    until = clock.monotonic() + within_s
    while True:
        batch = await spool.oldest(limit=_AT_A_TIME)
        # Attempts of one request go one after another; requests have nothing to do with each other.
        requests: dict[str, list[Waiting]] = {}
        for waiting in sorted(batch, key=lambda each: each.entry.spooled_at):
            requests.setdefault(waiting.entry.packet.packet_id, []).append(waiting)
        came = await asyncio.gather(
            *(_drain_request(each, spool, store, clock, expires_after) for each in requests.values()),
            return_exceptions=True,
        )
        put_off = 0
        for each in came:
            if isinstance(each, BaseException):
                raise each
            fates.update(each)
            put_off += each[Fate.PUT_OFF]
        if len(batch) < _AT_A_TIME or put_off or clock.monotonic() >= until:
            return fates


async def _drain_request(
    attempts: Iterable[Waiting], spool: Spool, store: InferenceStore, clock: Clock, expires_after: timedelta
) -> Counter[Fate]:
    fates: Counter[Fate] = Counter()
    for waiting in attempts:
        fate = await _drain_one(waiting.entry, store, clock, expires_after)
        if fate is not Fate.PUT_OFF:
            await spool.remove(waiting)
        fates[fate] += 1
    return fates


async def _drain_one(entry: Spooled, store: InferenceStore, clock: Clock, expires_after: timedelta) -> Fate:
    for _ in range(_MOST_TRIES):
        now = clock.now()
        held = await store.read(entry.packet.packet_id)
        fate = fate_of(entry.packet, None if held is None else held.packet, now=now)
        try:
            if held is not None and fate is Fate.THERE and held.packet.outcome == entry.packet.outcome:
                await _add_to(held, entry, store, now=now, expires_after=expires_after)
            if fate not in _STORES:
                return fate
            ours = await _begin(entry.packet, held, fate, store, now=now)
            if ours is None:
                continue
            earlier = ours.packet.earlier_attempts
            ended = stepped(ours.packet, msgspec.structs.replace(entry.packet, earlier_attempts=earlier))
            deliveries = owed(entry, now=now, expires_after=expires_after)
            await store.replace(ended, etag=ours.etag, deliveries=deliveries, events=entry.events)
        except RecordChanged:
            continue
        return fate
    raise StoreUnavailable("expected to store a packet of the spool, but others keep changing it")


async def _add_to(
    held: Stored, entry: Spooled, store: InferenceStore, *, now: datetime, expires_after: timedelta
) -> None:
    """Add what a stored packet may lack of the entry; what is there stays as it is."""
    if entry.deliveries or entry.events:
        deliveries = owed(entry, now=now, expires_after=expires_after)
        await store.replace(held.packet, etag=held.etag, deliveries=deliveries, events=entry.events)


async def _begin(
    spooled: InferencePacket, held: Stored | None, fate: Fate, store: InferenceStore, *, now: datetime
) -> Stored | None:
    """Give the packet as it stands in the store before it ends; None if somebody else came first."""
    if held is None:
        return await store.create(stepped(None, begun(spooled, None, now=now)))
    if fate is Fate.FINISHED:
        return held
    return await store.replace(stepped(held.packet, begun(spooled, held.packet, now=now)), etag=held.etag)
