"""Small shared records in a SQLite file."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from deployr_serve.adapters.sqlite_file import SqliteFile
from deployr_serve.core.caller import USED_TOKENS
from deployr_serve.core.deciding import ADVISED, ASSIGNMENT, STRATUM
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.guarded_output import SENT
from deployr_serve.core.hook_instances import HOOK_INSTANCE
from deployr_serve.core.ports import Record

_GUARDS = frozenset({USED_TOKENS, HOOK_INSTANCE, ASSIGNMENT, STRATUM, ADVISED, SENT})
"""Kinds of records that are made on the way to a packet or a delivery, and mean nothing without it: see `SqliteFile`
for why they need not be durable by themselves. After a power cut it is as if what had not come as far as a packet had
never been asked, and what had not come as far as a sent delivery is sent again, oldest first, whoever held the place.
"""


class SqliteRecords(SqliteFile):
    """See `deployr_serve.core.ports.Records` for what each method promises."""

    async def create_record(
        self, kind: str, record_id: str, content: bytes, *, now: datetime, expires_at: datetime | None = None
    ) -> Record | None:
        def work(db: sqlite3.Connection) -> Record | None:
            # What has expired is as good as none, and nobody else takes it out. Of its kind only: another kind may
            # live by another clock, where a past day is replayed. The plus keeps SQLite from going through all that
            # live of the kind, by the primary key, where the index tells the few that have expired.
            db.execute("DELETE FROM records WHERE expires_at <= ? AND +kind = ?", (now.timestamp(), kind))
            inserted = db.execute(
                "INSERT INTO records VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (kind, record_id, expires_at.timestamp() if expires_at else None, content),
            ).rowcount
            return Record(content=content, etag="1") if inserted else None

        return await self._write(work, durable=kind not in _GUARDS)

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

        return await self._write(work, durable=kind not in _GUARDS)

    async def records(self, kind: str, *, now: datetime) -> dict[str, Record]:
        def work(db: sqlite3.Connection) -> dict[str, Record]:
            rows = db.execute(
                "SELECT record_id, body, etag FROM records WHERE kind = ? AND (expires_at IS NULL OR expires_at > ?)"
                " ORDER BY record_id",
                (kind, now.timestamp()),
            )
            return {record_id: Record(content=body, etag=str(tag)) for record_id, body, tag in rows}

        return await self._read(work)
