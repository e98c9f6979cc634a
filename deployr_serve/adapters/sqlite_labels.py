"""The labels of a SQLite store, and what they are made of: packets without one, and advisories that were shown."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import msgspec

from deployr_core.packet import Event, EventKind, InferencePacket, Label, Scored
from deployr_serve.adapters.sqlite_file import SqliteFile
from deployr_serve.adapters.sqlite_patients import UNLESS_FORGOTTEN
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import StoredLabel

_encode = msgspec.json.encode
_packet = msgspec.json.Decoder(InferencePacket).decode
_label = msgspec.json.Decoder(Label).decode
_event = msgspec.json.Decoder(Event).decode


class SqliteLabels(SqliteFile):
    """See `deployr_serve.core.ports.InferenceStore` for what each method promises."""

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
                    "INSERT INTO labels (label_id, packet_id, rule, body, attached_at)"
                    f" SELECT ?, ?, ?, ?, ? {UNLESS_FORGOTTEN} ON CONFLICT DO NOTHING",
                    (label.label_id, label.packet_id, label.rule, *_columns(label), label.packet_id),
                ).rowcount
            )

        return await self._write(work)

    async def read_label(self, label_id: str) -> StoredLabel | None:
        def work(db: sqlite3.Connection) -> StoredLabel | None:
            row = db.execute("SELECT body, etag FROM labels WHERE label_id = ?", (label_id,)).fetchone()
            return StoredLabel(label=_label(row[0]), etag=str(row[1])) if row else None

        return await self._read(work)

    async def replace_label(self, label: Label, *, etag: str) -> StoredLabel:
        def work(db: sqlite3.Connection) -> StoredLabel:
            changed = db.execute(
                "UPDATE labels SET etag = etag + 1, body = ?, attached_at = ? WHERE label_id = ? AND etag = ?",
                (*_columns(label), label.label_id, int(etag)),
            ).rowcount
            if not changed:
                raise RecordChanged("expected the label with the tag that was read")
            return StoredLabel(label=label, etag=str(int(etag) + 1))

        return await self._write(work)

    async def labels(self, *, model_id: str, rule: str, after: str | None, limit: int) -> tuple[Label, ...]:
        def work(db: sqlite3.Connection) -> tuple[Label, ...]:
            rows = db.execute(
                "SELECT l.body FROM labels AS l JOIN packets AS p USING (packet_id)"
                " WHERE p.model_id = ? AND l.rule = ? AND l.label_id > ? ORDER BY l.label_id LIMIT ?",
                (model_id, rule, after or "", limit),
            )
            return tuple(_label(body) for (body,) in rows)

        return await self._read(work)

    async def labelled(
        self, *, model_id: str, rule: str, since: datetime, until: datetime, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        def work(db: sqlite3.Connection) -> tuple[InferencePacket, ...]:
            rows = db.execute(
                "SELECT p.body FROM labels AS l JOIN packets AS p USING (packet_id)"
                " WHERE l.rule = ? AND l.packet_id > ? AND l.attached_at >= ? AND l.attached_at < ? AND p.model_id = ?"
                " ORDER BY l.packet_id LIMIT ?",
                (rule, after or "", _instant(since), _instant(until), model_id, limit),
            )
            return tuple(_packet(body) for (body,) in rows)

        return await self._read(work)

    async def shown(self, *, since: datetime, after: str | None, limit: int) -> tuple[Event, ...]:
        def work(db: sqlite3.Connection) -> tuple[Event, ...]:
            rows = db.execute(
                "SELECT body FROM events WHERE kind = ? AND event_id > ? AND happened_at >= ?"
                " ORDER BY event_id LIMIT ?",
                (EventKind.SHOWN, after or "", _instant(since), limit),
            )
            return tuple(_event(body) for (body,) in rows)

        return await self._read(work)


def _columns(label: Label) -> tuple[bytes, str]:
    return _encode(label), _instant(label.attached_at)


def _instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
