"""What is in a store, in counts: by model, and what somebody should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deployr_core.forgetting import FORGOTTEN, is_forgotten
from deployr_core.packet import DeliveryState, InferencePacket, Mode, Received, Scored
from deployr_serve.core.ports import Belongings, InferenceStore
from deployr_serve.core.retention import with_belongings

_PAGE = 500
STALE_AFTER = timedelta(hours=1)
"""A delivery that has waited longer is waited for by somebody."""


@dataclass(kw_only=True, slots=True)
class StoreCounts:
    """Counts of packets by model and kind, and of what belongs to them.

    ``unfinished``: begun by a worker that has died, and not taken over since. ``to_migrate``: of schema version 1.
    ``live_without_delivery``: scored in live mode with no delivery: right where the model has no way out.
    """

    packets: dict[str, Counter[str]] = field(default_factory=dict)
    deliveries: Counter[str] = field(default_factory=Counter)
    labels: int = 0
    events: int = 0
    unfinished: int = 0
    to_migrate: int = 0
    live_without_delivery: int = 0
    foreign_parts: int = 0
    oldest_pending: datetime | None = None

    def problems(self, *, now: datetime) -> tuple[str, ...]:
        """Say what should be looked at, a line each, and what to do."""
        found = []
        if self.foreign_parts:
            found.append(f"{self.foreign_parts} deliveries, labels or events whose id is of another packet")
        if self.oldest_pending is not None and now - self.oldest_pending > STALE_AFTER:
            found.append(
                f"deliveries wait since {self.oldest_pending:%Y-%m-%dT%H:%M:%SZ}: is the relay's timer running, and the"
                " EMR reached?"
            )
        if self.unfinished:
            found.append(f"{self.unfinished} packets were begun and never ended; asked again, they are scored")
        if self.to_migrate:
            found.append(
                f"{self.to_migrate} packets of schema version 1, that no patient is found by: run deployr store migrate"
            )
        return tuple(found)


async def count_store(
    store: InferenceStore, *, now: datetime, tell: Callable[[int], None] | None = None
) -> StoreCounts:
    """Read everything once, page by page.

    Args:
        store: what is counted.
        now: what leases and waiting are measured by.
        tell: is told how many packets were read.
    """
    counts, read = StoreCounts(), 0
    for model_id in await store.model_ids():
        kinds = counts.packets.setdefault(model_id, Counter())
        after: str | None = None
        while page := await store.packets(model_id=model_id, after=after, limit=_PAGE):
            after = page[-1].packet_id
            async for packet, belongings in with_belongings(store, page):
                _count(packet, belongings, kinds, counts, now=now)
            read += len(page)
            if tell is not None:
                tell(read)
    return counts


def _count(
    packet: InferencePacket, belongings: Belongings, kinds: Counter[str], counts: StoreCounts, *, now: datetime
) -> None:
    kinds[FORGOTTEN if is_forgotten(packet) else str(packet.outcome.__struct_config__.tag)] += 1
    counts.unfinished += isinstance(packet.outcome, Received) and packet.outcome.lease_until < now
    counts.to_migrate += not packet.patient_hash and not is_forgotten(packet)
    counts.labels += len(belongings.labels)
    counts.events += len(belongings.events)
    for delivery in belongings.deliveries:
        counts.deliveries[delivery.state.value] += 1
        if delivery.state is DeliveryState.PENDING:
            oldest = counts.oldest_pending
            counts.oldest_pending = delivery.created_at if oldest is None else min(oldest, delivery.created_at)
    ids = (
        *(each.delivery_id for each in belongings.deliveries),
        *(each.label_id for each in belongings.labels),
        *(each.event_id for each in belongings.events),
    )
    counts.foreign_parts += sum(not each.startswith(f"{packet.packet_id}.") for each in ids)
    outcome = packet.outcome
    if isinstance(outcome, Scored) and outcome.decision is not None and outcome.decision.mode is Mode.LIVE:
        counts.live_without_delivery += not belongings.deliveries
