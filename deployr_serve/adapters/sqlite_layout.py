"""Makes a SQLite store, and says what is wrong with one: damage, and parts of what is not there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from deployr_serve.adapters.sqlite_file import SqliteFile

_MOST_TOLD = 10
_UNREADABLE = "SELECT count(*) FROM packets WHERE NOT json_valid(CAST(body AS TEXT))"
_AMISS = {
    "deliveries of packets that are not there": (
        "SELECT count(*) FROM deliveries WHERE packet_id NOT IN (SELECT packet_id FROM packets)"
    ),
    "labels of packets that are not there": (
        "SELECT count(*) FROM labels WHERE packet_id NOT IN (SELECT packet_id FROM packets)"
    ),
    "events of packets that are not there": (
        "SELECT count(*) FROM events WHERE packet_id NOT IN (SELECT packet_id FROM packets)"
    ),
    "packets whose row says something else than their content": (
        "SELECT count(*) FROM packets WHERE json_extract(CAST(body AS TEXT), '$.packet_id') IS NOT packet_id"
        " OR json_extract(CAST(body AS TEXT), '$.model.model_id') IS NOT model_id"
        " OR kind NOT IN (json_extract(CAST(body AS TEXT), '$.outcome.kind'), 'forgotten')"
    ),
}
"""What no write of ours leaves behind, with the statement that counts it."""


class SqliteLayout(SqliteFile):
    """See `deployr_serve.store_bootstrap.Store` for what each method promises."""

    async def init(self) -> tuple[str, ...]:
        before = _version(self._file) if self._file.exists() else None
        after = await self._read(_user_version)
        if before == after:
            return ()
        done = "is there now" if before is None else f"has the tables of schema version {after} now, not {before}"
        return (f"{self._file}: {done}",)

    async def differences(self) -> tuple[str, ...]:
        def work(db: sqlite3.Connection) -> tuple[str, ...]:
            found = [line for (line,) in db.execute(f"PRAGMA integrity_check({_MOST_TOLD})") if line != "ok"]
            if found:
                return tuple(f"integrity: {line}" for line in found)
            unreadable = int(db.execute(_UNREADABLE).fetchone()[0])
            if unreadable:
                return (f"{unreadable} packets that cannot be read",)
            counts = {what: int(db.execute(count).fetchone()[0]) for what, count in _AMISS.items()}
            return tuple(f"{count} {what}" for what, count in counts.items() if count)

        return await self._read(work)


def _version(file: Path) -> int:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return _user_version(db)


def _user_version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
