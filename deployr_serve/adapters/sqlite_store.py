"""The inference store in one SQLite file: the embedded default, durable, and shared by several processes."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from deployr_core.packet import Delivery, DeliveryState, Event, InferencePacket, Label, Scored
from deployr_serve.core.errors import RecordChanged, StoreUnavailable
from deployr_serve.core.ports import Record, Stored

_T = TypeVar("_T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS packets (
    packet_id TEXT PRIMARY KEY, etag INTEGER NOT NULL, model_id TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS packets_by_model ON packets (model_id, packet_id);
CREATE TABLE IF NOT EXISTS deliveries (
    delivery_id TEXT PRIMARY KEY, packet_id TEXT NOT NULL REFERENCES packets, state TEXT NOT NULL,
    created_at TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (state, created_at);
CREATE TABLE IF NOT EXISTS labels (
    label_id TEXT PRIMARY KEY, packet_id TEXT NOT NULL REFERENCES packets, rule TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labels_by_packet ON labels (packet_id, rule);
CREATE TABLE IF NOT EXISTS events (
    event_id TEXT PRIMARY KEY, packet_id TEXT NOT NULL, happened_at TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_by_packet ON events (packet_id, happened_at);
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, record_id TEXT NOT NULL, etag INTEGER NOT NULL, expires_at REAL, body BLOB NOT NULL,
    PRIMARY KEY (kind, record_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
"""
_encode = msgspec.json.encode
_packet = msgspec.json.Decoder(InferencePacket).decode
_delivery = msgspec.json.Decoder(Delivery).decode
_label = msgspec.json.Decoder(Label).decode
_event = msgspec.json.Decoder(Event).decode


class SqliteStore:
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises.

    Write-ahead log with ``synchronous=FULL``: what was stored survives a power cut. All work is done by one thread, so
    the event loop never waits for the disk; each method is one transaction.
    """

    def __init__(self, file: Path, *, busy_timeout_s: float = 5.0) -> None:
        self._file = file
        self._busy_timeout_s = busy_timeout_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None

    async def aclose(self) -> None:
        """Close the file; the store opens it again when it is used again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)

    async def create(self, packet: InferencePacket) -> Stored | None:
        def work(db: sqlite3.Connection) -> Stored | None:
            inserted = db.execute(
                "INSERT INTO packets VALUES (?, 1, ?, ?, ?) ON CONFLICT DO NOTHING",
                (packet.packet_id, packet.model.model_id, _kind(packet), _encode(packet)),
            ).rowcount
            return Stored(packet=packet, etag="1") if inserted else None

        return await self._write(work)

    async def read(self, packet_id: str) -> Stored | None:
        def work(db: sqlite3.Connection) -> Stored | None:
            row = db.execute("SELECT body, etag FROM packets WHERE packet_id = ?", (packet_id,)).fetchone()
            return Stored(packet=_packet(row[0]), etag=str(row[1])) if row else None

        return await self._read(work)

    async def replace(self, packet: InferencePacket, *, etag: str, deliveries: tuple[Delivery, ...] = ()) -> Stored:
        def work(db: sqlite3.Connection) -> Stored:
            changed = db.execute(
                "UPDATE packets SET etag = etag + 1, kind = ?, body = ? WHERE packet_id = ? AND etag = ?",
                (_kind(packet), _encode(packet), packet.packet_id, int(etag)),
            ).rowcount
            if not changed:
                raise RecordChanged("expected the packet with the tag that was read")
            db.executemany(
                "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(d.delivery_id, d.packet_id, d.state, d.created_at.isoformat(), _encode(d)) for d in deliveries],
            )
            return Stored(packet=packet, etag=str(int(etag) + 1))

        return await self._write(work)

    async def read_delivery(self, delivery_id: str) -> Delivery | None:
        def work(db: sqlite3.Connection) -> Delivery | None:
            row = db.execute("SELECT body FROM deliveries WHERE delivery_id = ?", (delivery_id,)).fetchone()
            return _delivery(row[0]) if row else None

        return await self._read(work)

    async def save_delivery(self, delivery: Delivery, *, was: Delivery) -> None:
        def work(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE deliveries SET state = ?, body = ? WHERE delivery_id = ? AND body = ?",
                (delivery.state, _encode(delivery), was.delivery_id, _encode(was)),
            ).rowcount
            if not changed:
                raise RecordChanged("expected the delivery as it was read")

        await self._write(work)

    async def pending_deliveries(self, *, created_before: datetime, limit: int) -> tuple[Delivery, ...]:
        def work(db: sqlite3.Connection) -> tuple[Delivery, ...]:
            rows = db.execute(
                "SELECT body FROM deliveries WHERE state = ? AND created_at < ?"
                " ORDER BY created_at, delivery_id LIMIT ?",
                (DeliveryState.PENDING, created_before.isoformat(), limit),
            )
            return tuple(_delivery(body) for (body,) in rows)

        return await self._read(work)

    async def unlabelled(
        self, *, model_id: str, rule: str, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        def work(db: sqlite3.Connection) -> tuple[InferencePacket, ...]:
            rows = db.execute(
                "SELECT body FROM packets AS p WHERE model_id = ? AND packet_id > ? AND kind = ? AND NOT EXISTS"
                " (SELECT 1 FROM labels AS l WHERE l.packet_id = p.packet_id AND l.rule = ?)"
                " ORDER BY packet_id LIMIT ?",
                (model_id, after or "", Scored.__struct_config__.tag, rule, limit),
            )
            return tuple(_packet(body) for (body,) in rows)

        return await self._read(work)

    async def attach_label(self, label: Label) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            return bool(
                db.execute(
                    "INSERT INTO labels VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (label.label_id, label.packet_id, label.rule, _encode(label)),
                ).rowcount
            )

        return await self._write(work)

    async def labels(self, *, model_id: str, rule: str) -> tuple[Label, ...]:
        def work(db: sqlite3.Connection) -> tuple[Label, ...]:
            rows = db.execute(
                "SELECT l.body FROM labels AS l JOIN packets AS p USING (packet_id)"
                " WHERE p.model_id = ? AND l.rule = ? ORDER BY l.label_id",
                (model_id, rule),
            )
            return tuple(_label(body) for (body,) in rows)

        return await self._read(work)

    async def packets(self, *, model_id: str, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        def work(db: sqlite3.Connection) -> tuple[InferencePacket, ...]:
            rows = db.execute(
                "SELECT body FROM packets WHERE model_id = ? AND packet_id > ? ORDER BY packet_id LIMIT ?",
                (model_id, after or "", limit),
            )
            return tuple(_packet(body) for (body,) in rows)

        return await self._read(work)

    async def append_event(self, event: Event) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            row = (event.event_id, event.packet_id, event.at.isoformat(), _encode(event))
            return bool(db.execute("INSERT INTO events VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount)

        return await self._write(work)

    async def events(self, packet_id: str) -> tuple[Event, ...]:
        def work(db: sqlite3.Connection) -> tuple[Event, ...]:
            rows = db.execute(
                "SELECT body FROM events WHERE packet_id = ? ORDER BY happened_at, event_id", (packet_id,)
            )
            return tuple(_event(body) for (body,) in rows)

        return await self._read(work)

    async def create_record(
        self, kind: str, record_id: str, content: bytes, *, now: datetime, expires_at: datetime | None = None
    ) -> Record | None:
        def work(db: sqlite3.Connection) -> Record | None:
            # What has expired is as good as none, and nobody else takes it out.
            db.execute("DELETE FROM records WHERE expires_at <= ?", (now.timestamp(),))
            inserted = db.execute(
                "INSERT INTO records VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (kind, record_id, expires_at.timestamp() if expires_at else None, content),
            ).rowcount
            return Record(content=content, etag="1") if inserted else None

        return await self._write(work)

    async def read_record(self, kind: str, record_id: str, *, now: datetime) -> Record | None:
        def work(db: sqlite3.Connection) -> Record | None:
            row = db.execute(
                "SELECT body, etag FROM records WHERE kind = ? AND record_id = ?"
                " AND (expires_at IS NULL OR expires_at > ?)",
                (kind, record_id, now.timestamp()),
            ).fetchone()
            return Record(content=row[0], etag=str(row[1])) if row else None

        return await self._read(work)

    async def replace_record(
        self, kind: str, record_id: str, content: bytes, *, etag: str, expires_at: datetime | None = None
    ) -> Record:
        def work(db: sqlite3.Connection) -> Record:
            changed = db.execute(
                "UPDATE records SET etag = etag + 1, expires_at = ?, body = ?"
                " WHERE kind = ? AND record_id = ? AND etag = ?",
                (expires_at.timestamp() if expires_at else None, content, kind, record_id, int(etag)),
            ).rowcount
            if not changed:
                raise RecordChanged("expected the record with the tag that was read")
            return Record(content=content, etag=str(int(etag) + 1))

        return await self._write(work)

    async def records(self, kind: str, *, now: datetime) -> dict[str, Record]:
        def work(db: sqlite3.Connection) -> dict[str, Record]:
            rows = db.execute(
                "SELECT record_id, body, etag FROM records WHERE kind = ? AND (expires_at IS NULL OR expires_at > ?)"
                " ORDER BY record_id",
                (kind, now.timestamp()),
            )
            return {record_id: Record(content=body, etag=str(tag)) for record_id, body, tag in rows}

        return await self._read(work)

    async def check(self) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE packets SET etag = etag WHERE packet_id = ''")

        await self._write(work)

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._run(work)

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def transaction(db: sqlite3.Connection) -> _T:
            # IMMEDIATE takes the write lock at once: a read that turns into a write cannot be refused half-way.
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                # A full disk can refuse the COMMIT and leave the transaction open; some errors have ended it already.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return await self._run(transaction)

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def job() -> _T:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return work(self._connection)
            except sqlite3.Error as error:
                raise StoreUnavailable("expected a store that can be read and written") from error
            except msgspec.MsgspecError:
                # Its message may repeat a part of the record.
                raise StoreUnavailable("expected stored records that can be read") from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            with closing(connection.cursor()) as cursor:
                self._write_ahead(cursor)
                cursor.execute("PRAGMA synchronous = FULL")
                cursor.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _write_ahead(self, cursor: sqlite3.Cursor) -> None:
        # For this one statement SQLite does not wait when another process is making the same new file: seen with six
        # processes that start together, of which most got "database is locked" at once.
        until = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
                time.sleep(0.005)
            else:
                return


def _kind(packet: InferencePacket) -> str:
    return str(packet.outcome.__struct_config__.tag)
