"""The inference store in memory: for tests, and for trying things out. Nothing survives the process."""

from __future__ import annotations

from datetime import datetime

from deployr_core.packet import Delivery, DeliveryState, Event, InferencePacket, Label, Scored
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import Record, Stored


class MemoryStore:
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

    def __init__(self) -> None:
        self._packets: dict[str, Stored] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._labels: dict[str, Label] = {}
        self._events: dict[str, Event] = {}
        self._records: dict[tuple[str, str], tuple[Record, datetime | None]] = {}

    async def create(self, packet: InferencePacket) -> Stored | None:
        if packet.packet_id in self._packets:
            return None
        self._packets[packet.packet_id] = Stored(packet=packet, etag="1")
        return self._packets[packet.packet_id]

    async def read(self, packet_id: str) -> Stored | None:
        return self._packets.get(packet_id)

    async def replace(self, packet: InferencePacket, *, etag: str, deliveries: tuple[Delivery, ...] = ()) -> Stored:
        held = self._packets.get(packet.packet_id)
        if held is None or held.etag != etag:
            raise RecordChanged("expected the packet with the tag that was read")
        stored = Stored(packet=packet, etag=str(int(etag) + 1))
        self._packets[packet.packet_id] = stored
        for delivery in deliveries:
            self._deliveries.setdefault(delivery.delivery_id, delivery)
        return stored

    async def read_delivery(self, delivery_id: str) -> Delivery | None:
        return self._deliveries.get(delivery_id)

    async def save_delivery(self, delivery: Delivery, *, was: Delivery) -> None:
        if self._deliveries.get(was.delivery_id) != was:
            raise RecordChanged("expected the delivery as it was read")
        self._deliveries[delivery.delivery_id] = delivery

    async def pending_deliveries(self, *, created_before: datetime, limit: int) -> tuple[Delivery, ...]:
        pending = (
            delivery
            for delivery in self._deliveries.values()
            if delivery.state is DeliveryState.PENDING and delivery.created_at < created_before
        )
        return tuple(sorted(pending, key=lambda delivery: (delivery.created_at, delivery.delivery_id))[:limit])

    async def unlabelled(
        self, *, model_id: str, rule: str, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        labelled = {label.packet_id for label in self._labels.values() if label.rule == rule}
        everything = await self.packets(model_id=model_id, after=after, limit=len(self._packets))
        found = (p for p in everything if isinstance(p.outcome, Scored) and p.packet_id not in labelled)
        return tuple(packet for packet, _ in zip(found, range(limit), strict=False))

    async def attach_label(self, label: Label) -> bool:
        return self._labels.setdefault(label.label_id, label) is label

    async def labels(self, *, model_id: str, rule: str) -> tuple[Label, ...]:
        return tuple(
            label
            for _, label in sorted(self._labels.items())
            if label.rule == rule and self._packets[label.packet_id].packet.model.model_id == model_id
        )

    async def packets(self, *, model_id: str, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        chosen = sorted(
            packet_id
            for packet_id, stored in self._packets.items()
            if stored.packet.model.model_id == model_id and packet_id > (after or "")
        )
        return tuple(self._packets[packet_id].packet for packet_id in chosen[:limit])

    async def append_event(self, event: Event) -> bool:
        is_new = event.event_id not in self._events
        self._events.setdefault(event.event_id, event)
        return is_new

    async def events(self, packet_id: str) -> tuple[Event, ...]:
        found = [event for event in self._events.values() if event.packet_id == packet_id]
        return tuple(sorted(found, key=lambda event: (event.at, event.event_id)))

    async def create_record(
        self, kind: str, record_id: str, content: bytes, *, now: datetime, expires_at: datetime | None = None
    ) -> Record | None:
        if await self.read_record(kind, record_id, now=now) is not None:
            return None
        record = Record(content=content, etag="1")
        self._records[kind, record_id] = (record, expires_at)
        return record

    async def read_record(self, kind: str, record_id: str, *, now: datetime) -> Record | None:
        record, expires_at = self._records.get((kind, record_id), (None, None))
        return None if expires_at is not None and expires_at <= now else record

    async def replace_record(
        self, kind: str, record_id: str, content: bytes, *, etag: str, expires_at: datetime | None = None
    ) -> Record:
        held, _ = self._records.get((kind, record_id), (None, None))
        if held is None or held.etag != etag:
            raise RecordChanged("expected the record with the tag that was read")
        record = Record(content=content, etag=str(int(etag) + 1))
        self._records[kind, record_id] = (record, expires_at)
        return record

    async def records(self, kind: str, *, now: datetime) -> dict[str, Record]:
        return {
            record_id: record
            for (held, record_id), (record, expires_at) in sorted(self._records.items())
            if held == kind and (expires_at is None or expires_at > now)
        }

    async def check(self) -> None:
        return None
