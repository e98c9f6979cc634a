"""What is kept for how long, and taking out what is older; and taking out all about one patient, on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from deployr_core.forgetting import forgotten, is_forgotten
from deployr_core.packet import PACKET_SCHEMA_VERSION, InferencePacket, Received, Scored
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.facts_kept import FactsVault
from deployr_serve.core.ports import Belongings, Clock, InferenceStore

_PAGE = 200
_AT_ONCE = 50
Tell = Callable[[int, int], None]
"""Is called with how many were done, of how many as far as is known."""


class Kept(StrEnum):
    """Kinds of what is kept.

    ``scored``: packets with a score, and all that belongs to them. ``unscored``: abstained, failed and rejected ones,
    and what is left of forgotten ones. ``audit``: the files of audit records.
    """

    SCORED = "scored"
    UNSCORED = "unscored"
    AUDIT = "audit"


def kind_of(packet: InferencePacket) -> Kept | None:
    """Give what the packet is kept as; None for one that is being worked on, or was left by a worker that died."""
    match packet.outcome:
        case Received():
            return None
        case Scored():
            return Kept.SCORED
        case _:
            return Kept.UNSCORED


async def purge(
    store: InferenceStore,
    days: Mapping[Kept, int],
    *,
    vault: FactsVault | None,
    now: datetime,
    dry_run: bool,
    tell: Tell | None = None,
) -> Counter[Kept]:
    """Take out packets that have been kept for long enough, with all that belongs to them; give how many by kind.

    A packet's age is counted from when it was asked for; at exactly so many days it is kept. Nothing stays in its
    place: nobody asks again what was asked years ago. What is interrupted goes on when it is run again.

    Args:
        store: where they are.
        days: by kind; what is not there is kept for good.
        vault: of the facts that are kept for packets; None where none are.
        now: what ages are counted to.
        dry_run: only count.
        tell: is told of progress.
    """
    counts: Counter[Kept] = Counter()
    limits = {kind: now - timedelta(days=number) for kind, number in days.items() if kind is not Kept.AUDIT}
    if not limits:
        return counts
    looked_at = 0
    for model_id in await store.model_ids():
        after: str | None = None
        while page := await store.packets(model_id=model_id, after=after, limit=_PAGE, until=max(limits.values())):
            after = page[-1].packet_id
            for packet in page:
                looked_at += 1
                kind = kind_of(packet)
                if kind is not None and kind in limits and packet.started_at < limits[kind]:
                    counts[kind] += 1
                    if not dry_run:
                        await _forget_facts(vault, packet)
                        await store.erase(packet.packet_id, leaving=None)
            if tell is not None:
                tell(looked_at, looked_at)
    return counts


async def with_belongings(
    store: InferenceStore, packets: Sequence[InferencePacket]
) -> AsyncIterator[tuple[InferencePacket, Belongings]]:
    """Give each packet with what belongs to it, in their order; some are read at once, whatever the store is."""
    for first in range(0, len(packets), _AT_ONCE):
        some = packets[first : first + _AT_ONCE]
        for packet, belongings in zip(
            some, await asyncio.gather(*(store.belongings(each.packet_id) for each in some)), strict=True
        ):
            yield packet, belongings


async def packets_about(store: InferenceStore, patient_hash: str) -> tuple[InferencePacket, ...]:
    """Give all packets about one patient."""
    found: list[InferencePacket] = []
    after: str | None = None
    while page := await store.packets_of(patient_hash, after=after, limit=_PAGE):
        found += page
        after = page[-1].packet_id
    return tuple(found)


async def count_about(store: InferenceStore, patient_hash: str) -> Counter[str]:
    """Count what there is about one patient: packets, deliveries, labels and events."""
    counts: Counter[str] = Counter()
    async for _, belongings in with_belongings(store, await packets_about(store, patient_hash)):
        counts.update(_counted(belongings))
    return counts


async def forget(store: InferenceStore, patient_hash: str, *, vault: FactsVault | None, clock: Clock) -> Counter[str]:
    """Erase all about one patient, and leave of each packet what keeps it from being made again; give the counts.

    A packet that is asked for while this goes on is found by the next round; rounds go on until there is none.
    """
    counts: Counter[str] = Counter()
    while packets := await packets_about(store, patient_hash):
        for packet in packets:
            belongings = _counted(await store.belongings(packet.packet_id))
            # Before the packet: what is interrupted must still be found by it.
            counts["facts"] += await _forget_facts(vault, packet)
            if await store.erase(packet.packet_id, leaving=forgotten(packet, at=clock.now())):
                counts.update(belongings)
    return counts


async def migrate(
    store: InferenceStore,
    hash_of: Callable[[str], str],
    *,
    dry_run: bool,
    tell: Tell | None = None,
) -> int:
    """Bring packets of schema version 1 to what is written today; give how many there were.

    Run again it goes on where it was interrupted; a packet that a worker changes meanwhile is taken in the next round.

    Args:
        store: where they are.
        hash_of: gives a patient's hash.
        dry_run: only count.
        tell: is told of progress.
    """
    count = 0
    after: str | None = None
    while page := await store.packets_of("", after=after, limit=_PAGE):
        after = page[-1].packet_id
        count += len(page)
        if not dry_run:
            for packet in page:
                await _migrated(store, packet.packet_id, hash_of)
        if tell is not None:
            tell(count, count)
    return count


async def _migrated(store: InferenceStore, packet_id: str, hash_of: Callable[[str], str]) -> None:
    while True:
        held = await store.read(packet_id)
        if held is None or held.packet.patient_hash or is_forgotten(held.packet):
            return
        packet = msgspec.structs.replace(
            held.packet,
            schema_version=PACKET_SCHEMA_VERSION,
            patient_hash=hash_of(held.packet.subject.patient_id),
        )
        try:
            await store.replace(packet, etag=held.etag)
        except RecordChanged:
            continue
        return


async def _forget_facts(vault: FactsVault | None, packet: InferencePacket) -> int:
    return 0 if vault is None else await vault.forget(packet.packet_id)


def _counted(belongings: Belongings) -> dict[str, int]:
    return {
        "packets": 1,
        "deliveries": len(belongings.deliveries),
        "labels": len(belongings.labels),
        "events": len(belongings.events),
    }
