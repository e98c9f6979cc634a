"""What belongs to one packet or one patient in a SQLite store: found, counted and erased."""

from __future__ import annotations

import sqlite3

import msgspec

from deployr_core.forgetting import FORGOTTEN, is_forgotten
from deployr_core.packet import Delivery, Event, InferencePacket, Label
from deployr_serve.adapters.sqlite_file import SqliteFile
from deployr_serve.core.ports import Belongings

CHANGE_PACKET = (
    "UPDATE packets SET etag = etag + 1, kind = ?, body = ?, started_at = ?, patient_hash = ? WHERE packet_id = ?"
)
"""Takes what `packet_columns` gives, and the id."""
UNLESS_FORGOTTEN = f"WHERE NOT EXISTS (SELECT 1 FROM packets WHERE packet_id = ? AND kind = '{FORGOTTEN}')"  # noqa: S608 a word of ours
"""Keeps what was on its way when a packet was erased from being stored after it."""

_encode = msgspec.json.encode
_packet = msgspec.json.Decoder(InferencePacket).decode
_delivery = msgspec.json.Decoder(Delivery).decode
_label = msgspec.json.Decoder(Label).decode
_event = msgspec.json.Decoder(Event).decode


def packet_columns(packet: InferencePacket) -> tuple[str, bytes, str, str]:
    """Give what a packet's row holds beside its id and its model: kind, body, when it started, and the patient."""
    kind = FORGOTTEN if is_forgotten(packet) else str(packet.outcome.__struct_config__.tag)
    return kind, _encode(packet), packet.started_at.isoformat(), packet.patient_hash


class SqlitePatients(SqliteFile):
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

    async def model_ids(self) -> tuple[str, ...]:
        def work(db: sqlite3.Connection) -> tuple[str, ...]:
            # From one model to the next, without reading all that lies in between.
            rows = db.execute(
                "WITH RECURSIVE ids(id) AS (SELECT min(model_id) FROM packets UNION ALL"
                " SELECT (SELECT min(model_id) FROM packets WHERE model_id > id) FROM ids WHERE id IS NOT NULL)"
                " SELECT id FROM ids WHERE id IS NOT NULL"
            )
            return tuple(model_id for (model_id,) in rows)

        return await self._read(work)

    async def packets_of(self, patient_hash: str, *, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        def work(db: sqlite3.Connection) -> tuple[InferencePacket, ...]:
            rows = db.execute(
                "SELECT body FROM packets WHERE patient_hash = ? AND packet_id > ? AND kind != ?"
                " ORDER BY packet_id LIMIT ?",
                (patient_hash, after or "", FORGOTTEN, limit),
            )
            return tuple(_packet(body) for (body,) in rows)

        return await self._read(work)

    async def belongings(self, packet_id: str) -> Belongings:
        def work(db: sqlite3.Connection) -> Belongings:
            def bodies(table: str, order: str) -> list[bytes]:
                found = db.execute(f"SELECT body FROM {table} WHERE packet_id = ? ORDER BY {order}", (packet_id,))  # noqa: S608 names of ours
                return [body for (body,) in found]

            return Belongings(
                deliveries=tuple(map(_delivery, bodies("deliveries", "delivery_id"))),
                labels=tuple(map(_label, bodies("labels", "label_id"))),
                events=tuple(map(_event, bodies("events", "happened_at, event_id"))),
            )

        return await self._read(work)

    async def erase(self, packet_id: str, *, leaving: InferencePacket | None) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            # What is deleted would lie in the file's free pages until something else needs them.
            db.execute("PRAGMA secure_delete = ON")
            for table in ("deliveries", "labels", "events"):
                db.execute(f"DELETE FROM {table} WHERE packet_id = ?", (packet_id,))  # noqa: S608 names of ours
            if leaving is None:
                return bool(db.execute("DELETE FROM packets WHERE packet_id = ?", (packet_id,)).rowcount)
            return bool(db.execute(CHANGE_PACKET, (*packet_columns(leaving), packet_id)).rowcount)

        return await self._write(work)
