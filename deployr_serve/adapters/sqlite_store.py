"""The inference store in one SQLite file: the embedded default, durable, and shared by several processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from deployr_core.packet import Delivery, DeliveryState, Event, InferencePacket
from deployr_serve.adapters.sqlite_labels import SqliteLabels
from deployr_serve.adapters.sqlite_layout import SqliteLayout
from deployr_serve.adapters.sqlite_patients import CHANGE_PACKET, UNLESS_FORGOTTEN, SqlitePatients, packet_columns
from deployr_serve.adapters.sqlite_records import SqliteRecords
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import Changed, Stored

_encode = msgspec.json.encode
_packet = msgspec.json.Decoder(InferencePacket).decode
_delivery = msgspec.json.Decoder(Delivery).decode
_event = msgspec.json.Decoder(Event).decode

_ADD_EVENT = (
    "INSERT INTO events (event_id, packet_id, happened_at, body, kind)"
    f" SELECT ?, ?, ?, ?, ? {UNLESS_FORGOTTEN} ON CONFLICT DO NOTHING"
)
_END_PACKET = (
    "UPDATE packets SET etag = etag + 1, kind = ?, body = ?"
    " WHERE packet_id = ? AND etag = ? AND started_at = ? AND patient_hash = ?"
)
"""Where a packet stays what it is found by, as most do, no index is written anew."""


class SqliteStore(SqliteRecords, SqlitePatients, SqliteLabels, SqliteLayout):
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

    async def create(self, packet: InferencePacket) -> Stored | None:
        def work(db: sqlite3.Connection) -> Stored | None:
            inserted = db.execute(
                "INSERT INTO packets (packet_id, etag, model_id, kind, body, started_at, patient_hash)"
                " VALUES (?, 1, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (packet.packet_id, packet.model.model_id, *packet_columns(packet)),
            ).rowcount
            return Stored(packet=packet, etag="1") if inserted else None

        return await self._write(work, durable=packet.is_terminal)

    async def read(self, packet_id: str) -> Stored | None:
        def work(db: sqlite3.Connection) -> Stored | None:
            row = db.execute("SELECT body, etag FROM packets WHERE packet_id = ?", (packet_id,)).fetchone()
            return Stored(packet=_packet(row[0]), etag=str(row[1])) if row else None

        return await self._read(work)

    async def replace(
        self,
        packet: InferencePacket,
        *,
        etag: str,
        deliveries: tuple[Delivery, ...] = (),
        events: tuple[Event, ...] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Stored:
        def work(db: sqlite3.Connection) -> Stored:
            kind, body, *found_by = packet_columns(packet)
            changed = (
                db.execute(_END_PACKET, (kind, body, packet.packet_id, int(etag), *found_by)).rowcount
                or db.execute(
                    f"{CHANGE_PACKET} AND etag = ?", (kind, body, *found_by, packet.packet_id, int(etag))
                ).rowcount
            )
            if not changed:
                raise RecordChanged("expected the packet with the tag that was read")
            db.executemany(
                "INSERT INTO deliveries (delivery_id, packet_id, state, created_at, body, due_at)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (d.delivery_id, d.packet_id, d.state, d.created_at.isoformat(), _encode(d), _due(d))
                    for d in deliveries
                ],
            )
            db.executemany(_ADD_EVENT, [_event_row(event) for event in events])
            return Stored(packet=packet, etag=str(int(etag) + 1))

        return await self._write(work, durable=packet.is_terminal, meanwhile=meanwhile)

    async def read_delivery(self, delivery_id: str) -> Delivery | None:
        def work(db: sqlite3.Connection) -> Delivery | None:
            row = db.execute("SELECT body FROM deliveries WHERE delivery_id = ?", (delivery_id,)).fetchone()
            return _delivery(row[0]) if row else None

        return await self._read(work)

    async def save_delivery(self, delivery: Delivery, *, was: Delivery) -> None:
        def work(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE deliveries SET state = ?, body = ?, due_at = ? WHERE delivery_id = ? AND body = ?",
                (delivery.state, _encode(delivery), _due(delivery), was.delivery_id, _encode(was)),
            ).rowcount
            if not changed:
                raise RecordChanged("expected the delivery as it was read")

        await self._write(work)

    async def pending_deliveries(self, *, due_before: datetime, limit: int) -> tuple[Delivery, ...]:
        def work(db: sqlite3.Connection) -> tuple[Delivery, ...]:
            rows = db.execute(
                "SELECT body FROM deliveries WHERE state = ? AND due_at < ? ORDER BY due_at, delivery_id LIMIT ?",
                (DeliveryState.PENDING, due_before.isoformat(), limit),
            )
            return tuple(_delivery(body) for (body,) in rows)

        return await self._read(work)

    async def deliveries(self, *, state: DeliveryState, after: str | None, limit: int) -> tuple[Delivery, ...]:
        def work(db: sqlite3.Connection) -> tuple[Delivery, ...]:
            rows = db.execute(
                "SELECT body FROM deliveries WHERE state = ? AND delivery_id > ? ORDER BY delivery_id LIMIT ?",
                (state, after or "", limit),
            )
            return tuple(_delivery(body) for (body,) in rows)

        return await self._read(work)

    async def packets(
        self,
        *,
        model_id: str,
        after: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[InferencePacket, ...]:
        first, past = (each and each.astimezone(UTC).isoformat() for each in (since, until))

        def work(db: sqlite3.Connection) -> tuple[InferencePacket, ...]:
            rows = db.execute(
                "SELECT body FROM packets WHERE model_id = ? AND packet_id > ?"
                " AND started_at >= ? AND (? IS NULL OR started_at < ?) ORDER BY packet_id LIMIT ?",
                (model_id, after or "", first or "", past, past, limit),
            )
            return tuple(_packet(body) for (body,) in rows)

        return await self._read(work)

    async def changed(self, *, after: str | None, limit: int) -> Changed:
        def work(db: sqlite3.Connection) -> Changed:
            rows = db.execute(
                "SELECT number, body FROM changes JOIN packets USING (packet_id) WHERE number > ?"
                " ORDER BY number LIMIT ?",
                (int(after or 0), limit),
            ).fetchall()
            return Changed(
                packets=tuple(_packet(body) for _, body in rows),
                cursor=str(rows[-1][0]) if rows else after or "0",
                is_all=len(rows) < limit,
            )

        return await self._read(work)

    async def append_event(self, event: Event) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            return bool(db.execute(_ADD_EVENT, _event_row(event)).rowcount)

        return await self._write(work)

    async def events(self, packet_id: str) -> tuple[Event, ...]:
        def work(db: sqlite3.Connection) -> tuple[Event, ...]:
            rows = db.execute(
                "SELECT body FROM events WHERE packet_id = ? ORDER BY happened_at, event_id", (packet_id,)
            )
            return tuple(_event(body) for (body,) in rows)

        return await self._read(work)

    async def check(self) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE packets SET etag = etag WHERE packet_id = ''")

        await self._write(work)


def _event_row(event: Event) -> tuple[str, str, str, bytes, str, str]:
    return event.event_id, event.packet_id, event.at.isoformat(), _encode(event), event.kind, event.packet_id


def _due(delivery: Delivery) -> str:
    return (delivery.due_at or delivery.created_at).isoformat()
