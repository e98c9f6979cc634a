"""The facts vault in a SQLite file of its own: the embedded default."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from deployr_serve.adapters.facts_sealing import opened, sealed
from deployr_serve.adapters.sqlite_file import SqliteFile
from deployr_serve.core.sealing_keys import SealingKeys

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS facts (
        packet_id TEXT NOT NULL, digest TEXT NOT NULL, expires_at TEXT NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (packet_id, digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS facts_by_expiry ON facts (expires_at)",
)


class SqliteFactsVault(SqliteFile):
    """See `deployr_serve.core.facts_kept.FactsVault` for what each method promises."""

    def __init__(self, file: Path, *, keys: SealingKeys, busy_timeout_s: float = 5.0) -> None:
        super().__init__(file, busy_timeout_s=busy_timeout_s)
        self._keys = keys

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # What is erased must not stay readable in the file's free pages: a key that leaks later would open it.
        connection.execute("PRAGMA secure_delete = ON")
        for statement in _TABLES:
            connection.execute(statement)

    async def keep(self, packet_id: str, digest: str, content: bytes, *, expires_at: datetime) -> None:
        # Sealed by the file's own thread: compressing a long chart would hold up the event loop.
        def work(db: sqlite3.Connection) -> None:
            record = sealed(content, self._keys, packet_id=packet_id, digest=digest)
            db.execute(
                "INSERT INTO facts VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (packet_id, digest, _text(expires_at), record),
            )

        await self._write(work)

    async def read(self, packet_id: str, digest: str, *, now: datetime) -> bytes | None:
        def work(db: sqlite3.Connection) -> bytes | None:
            row = db.execute(
                "SELECT record FROM facts WHERE packet_id = ? AND digest = ? AND expires_at > ?",
                (packet_id, digest, _text(now)),
            ).fetchone()
            return row[0] if row else None

        record = await self._read(work)
        return None if record is None else opened(record, self._keys, packet_id=packet_id, digest=digest)

    async def forget(self, packet_id: str) -> int:
        return await self._write(lambda db: db.execute("DELETE FROM facts WHERE packet_id = ?", (packet_id,)).rowcount)

    async def purge(self, *, now: datetime) -> int:
        return await self._write(
            lambda db: db.execute("DELETE FROM facts WHERE expires_at <= ?", (_text(now),)).rowcount
        )


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
