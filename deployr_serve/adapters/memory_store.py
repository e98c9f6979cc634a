"""The inference store in memory: for tests, and for trying things out. Nothing survives the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import islice

from deployr_core.forgetting import is_forgotten
from deployr_core.packet import Delivery, DeliveryState, Event, EventKind, InferencePacket, Label, Scored
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import Belongings, Changed, Record, Stored, StoredLabel


class MemoryStore:
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

    def __init__(self) -> None:
        self._packets: dict[str, Stored] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._labels: dict[str, Label] = {}
        self._label_etags: dict[str, str] = {}
        self._events: dict[str, Event] = {}
        self._records: dict[tuple[str, str], tuple[Record, datetime | None]] = {}
        self._changes: dict[str, int] = {}
        self._last_change = 0

    async def create(self, packet: InferencePacket) -> Stored | None:
        if packet.packet_id in self._packets:
            return None
        self._packets[packet.packet_id] = Stored(packet=packet, etag="1")
        self._has_changed(packet.packet_id)
        return self._packets[packet.packet_id]

    async def read(self, packet_id: str) -> Stored | None:
        return self._packets.get(packet_id)

    async def replace(
        self,
        packet: InferencePacket,
        *,
        etag: str,
        deliveries: tuple[Delivery, ...] = (),
        events: tuple[Event, ...] = (),
        meanwhile: Callable[[], None] | None = None,  # noqa: ARG002 nothing is waited for
    ) -> Stored:
        held = self._packets.get(packet.packet_id)
        if held is None or held.etag != etag:
            raise RecordChanged("expected the packet with the tag that was read")
        stored = Stored(packet=packet, etag=str(int(etag) + 1))
        self._packets[packet.packet_id] = stored
        self._has_changed(packet.packet_id)
        for delivery in deliveries:
            self._deliveries.setdefault(delivery.delivery_id, delivery)
        for event in events:
            self._events.setdefault(event.event_id, event)
        return stored

    async def read_delivery(self, delivery_id: str) -> Delivery | None:
        return self._deliveries.get(delivery_id)

    async def save_delivery(self, delivery: Delivery, *, was: Delivery) -> None:
        if self._deliveries.get(was.delivery_id) != was:
            raise RecordChanged("expected the delivery as it was read")
        self._deliveries[delivery.delivery_id] = delivery
        self._has_changed(delivery.packet_id)

    async def pending_deliveries(self, *, due_before: datetime, limit: int) -> tuple[Delivery, ...]:
        due = sorted(
            (delivery.due_at or delivery.created_at, delivery.delivery_id)
            for delivery in self._deliveries.values()
            if delivery.state is DeliveryState.PENDING and (delivery.due_at or delivery.created_at) < due_before
        )
        return tuple(self._deliveries[delivery_id] for _, delivery_id in due[:limit])

    async def deliveries(self, *, state: DeliveryState, after: str | None, limit: int) -> tuple[Delivery, ...]:
        found = sorted(it for it, each in self._deliveries.items() if each.state is state and it > (after or ""))
        return tuple(self._deliveries[delivery_id] for delivery_id in found[:limit])

    async def unlabelled(
        self, *, model_id: str, rule: str, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        labelled = {label.packet_id for label in self._labels.values() if label.rule == rule}
        everything = await self.packets(model_id=model_id, after=after, limit=len(self._packets))
        found = (p for p in everything if isinstance(p.outcome, Scored) and p.packet_id not in labelled)
        return tuple(packet for packet, _ in zip(found, range(limit), strict=False))

    async def attach_label(self, label: Label) -> bool:
        if self._is_forgotten(label.packet_id):
            return False
        if self._labels.setdefault(label.label_id, label) is not label:
            return False
        self._has_changed(label.packet_id)
        return True

    async def read_label(self, label_id: str) -> StoredLabel | None:
        label = self._labels.get(label_id)
        return None if label is None else StoredLabel(label=label, etag=self._label_etags.get(label_id, "1"))

    async def replace_label(self, label: Label, *, etag: str) -> StoredLabel:
        held = await self.read_label(label.label_id)
        if held is None or held.etag != etag:
            raise RecordChanged("expected the label with the tag that was read")
        changed = StoredLabel(label=label, etag=str(int(etag) + 1))
        self._labels[label.label_id], self._label_etags[label.label_id] = label, changed.etag
        self._has_changed(label.packet_id)
        return changed

    async def labels(self, *, model_id: str, rule: str, after: str | None, limit: int) -> tuple[Label, ...]:
        found = (
            label
            for label_id, label in sorted(self._labels.items())
            if label.rule == rule and label_id > (after or "") and self._is_of(label, model_id)
        )
        return tuple(islice(found, limit))

    async def labelled(
        self, *, model_id: str, rule: str, since: datetime, until: datetime, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        found = sorted(
            label.packet_id
            for label in self._labels.values()
            if label.rule == rule and since <= label.attached_at < until and self._is_of(label, model_id)
        )
        return tuple(self._packets[each].packet for each in found if each > (after or ""))[:limit]

    async def shown(self, *, since: datetime, after: str | None, limit: int) -> tuple[Event, ...]:
        found = (
            event
            for event_id, event in sorted(self._events.items())
            if event.kind is EventKind.SHOWN and event.at >= since and event_id > (after or "")
        )
        return tuple(islice(found, limit))

    def _is_of(self, label: Label, model_id: str) -> bool:
        return self._packets[label.packet_id].packet.model.model_id == model_id

    async def packets(
        self,
        *,
        model_id: str,
        after: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[InferencePacket, ...]:
        chosen = sorted(
            packet_id
            for packet_id, stored in self._packets.items()
            if stored.packet.model.model_id == model_id
            and packet_id > (after or "")
            and (since is None or stored.packet.started_at >= since)
            and (until is None or stored.packet.started_at < until)
        )
        return tuple(self._packets[packet_id].packet for packet_id in chosen[:limit])

    async def changed(self, *, after: str | None, limit: int) -> Changed:
        since = int(after or 0)
        found = sorted(
            (number, packet_id)
            for packet_id, number in self._changes.items()
            if number > since and packet_id in self._packets
        )[:limit]
        return Changed(
            packets=tuple(self._packets[packet_id].packet for _, packet_id in found),
            cursor=str(found[-1][0] if found else since),
            is_all=len(found) < limit,
        )

    def _has_changed(self, packet_id: str) -> None:
        self._last_change += 1
        self._changes[packet_id] = self._last_change

    async def append_event(self, event: Event) -> bool:
        if self._is_forgotten(event.packet_id) or event.event_id in self._events:
            return False
        self._events[event.event_id] = event
        self._has_changed(event.packet_id)
        return True

    async def events(self, packet_id: str) -> tuple[Event, ...]:
        found = [event for event in self._events.values() if event.packet_id == packet_id]
        return tuple(sorted(found, key=lambda event: (event.at, event.event_id)))

    async def model_ids(self) -> tuple[str, ...]:
        return tuple(sorted({stored.packet.model.model_id for stored in self._packets.values()}))

    async def packets_of(self, patient_hash: str, *, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        found = (
            stored.packet
            for packet_id, stored in sorted(self._packets.items())
            if packet_id > (after or "")
            and stored.packet.patient_hash == patient_hash
            and not is_forgotten(stored.packet)
        )
        return tuple(islice(found, limit))

    async def belongings(self, packet_id: str) -> Belongings:
        return Belongings(
            deliveries=tuple(each for _, each in sorted(self._deliveries.items()) if each.packet_id == packet_id),
            labels=tuple(each for _, each in sorted(self._labels.items()) if each.packet_id == packet_id),
            events=await self.events(packet_id),
        )

    async def erase(self, packet_id: str, *, leaving: InferencePacket | None) -> bool:
        for belonging in (self._deliveries, self._labels, self._events):
            for each_id in [each_id for each_id, each in belonging.items() if each.packet_id == packet_id]:
                del belonging[each_id]
        held = self._packets.pop(packet_id, None)
        self._changes.pop(packet_id, None)
        if held is not None and leaving is not None:
            self._packets[packet_id] = Stored(packet=leaving, etag=str(int(held.etag) + 1))
            self._has_changed(packet_id)
        return held is not None

    def _is_forgotten(self, packet_id: str) -> bool:
        held = self._packets.get(packet_id)
        return held is not None and is_forgotten(held.packet)

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

    async def init(self) -> tuple[str, ...]:
        return ()

    async def differences(self) -> tuple[str, ...]:
        return ()

    async def check(self) -> None:
        return None

    async def aclose(self) -> None:
        return None
