"""The spool in a SQLite file of its own on this machine's disk, for the processes of one machine."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from deployr_serve.adapters.sqlite_file import SqliteFile
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.spool import Spooled, SpoolUnavailable, Standing, Waiting

MOST_BYTES = 1024 * 1024 * 1024
"""How large the file may grow: about 100,000 packets of 10 kB."""
_BUSY_TIMEOUT_S = 1.0
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS spooled (place INTEGER PRIMARY KEY AUTOINCREMENT, spooled_at TEXT NOT NULL,"
    " body BLOB NOT NULL)"
)
_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Spooled).decode


class SqliteSpool(SqliteFile):
    """See `deployr_serve.core.spool.Spool`. Nobody is kept from an entry while somebody brings it into the store."""

    def __init__(self, file: Path, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(file, busy_timeout_s=_BUSY_TIMEOUT_S)
        self._most_bytes = most_bytes

    async def put(self, entry: Spooled) -> None:
        """See `Spool`."""
        row = (entry.spooled_at.isoformat(), _encode(entry))
        await self._write(lambda db: db.execute("INSERT INTO spooled (spooled_at, body) VALUES (?, ?)", row))

    async def oldest(self, *, limit: int) -> tuple[Waiting, ...]:
        """See `Spool`. What cannot be read stays where it is, and an operator is told."""

        def work(db: sqlite3.Connection) -> tuple[Waiting, ...]:
            found: list[Waiting] = []
            for place, body in db.execute("SELECT place, body FROM spooled ORDER BY place"):
                try:
                    found.append(Waiting(entry=_decode(body), receipt=place))
                except msgspec.MsgspecError:
                    _log.error("alert=spool-entry-unreadable place=%d", place)
                if len(found) >= limit:
                    break
            return tuple(found)

        return await self._read(work)

    async def remove(self, waiting: Waiting) -> None:
        """See `Spool`."""
        await self._write(lambda db: db.execute("DELETE FROM spooled WHERE place = ?", (waiting.receipt,)))

    async def standing(self) -> Standing:
        """See `Spool`."""

        def work(db: sqlite3.Connection) -> Standing:
            waiting, oldest = db.execute("SELECT count(*), min(spooled_at) FROM spooled").fetchone()
            return Standing(waiting=waiting, oldest_at=datetime.fromisoformat(oldest) if oldest else None)

        return await self._read(work)

    async def _run(
        self,
        work: Callable[[sqlite3.Connection], _T],
        *,
        writes: bool,
        durable: bool,
        meanwhile: Callable[[], None] | None = None,
    ) -> _T:
        try:
            return await super()._run(work, writes=writes, durable=durable, meanwhile=meanwhile)
        except StoreUnavailable as error:
            is_full = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            raise SpoolUnavailable("spool-full" if is_full else "spool-unavailable") from error
        except OSError as error:
            raise SpoolUnavailable from error

    def _connect(self) -> sqlite3.Connection:
        # What waits is about patients: nobody else on this machine is to read it.
        self._file.touch(mode=0o600, exist_ok=True)
        return super()._connect()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count = {max(self._most_bytes // page_bytes, 1)}")
        connection.execute(_SCHEMA)
