"""Whole numbers that stand for patients, clinicians and units of randomization in one extract, kept apart from it.

The file joins the extract with the hashes in the store: nobody but its owner may read it, and no page does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

CODES_FILE = "codes.sqlite"
PATIENT, UNIT, CLINICIAN = "patient", "unit", "clinician"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS codes (code INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, hash TEXT NOT NULL,"
    " UNIQUE (kind, hash))"
)


class ExtractBusy(ValueError):
    """Another process is extracting into the same folder."""


class Codes:
    """The numbers of one extract. What is given out is kept once `keep` returns; none is ever given out twice."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def code_of(self, kind: str, hashed: str) -> int:
        """Give the number of a patient, clinician or unit, a new one where it has none."""
        found = self._db.execute("SELECT code FROM codes WHERE kind = ? AND hash = ?", (kind, hashed)).fetchone()
        if found is not None:
            return int(found[0])
        return int(self._db.execute("INSERT INTO codes (kind, hash) VALUES (?, ?)", (kind, hashed)).lastrowid or 0)

    def keep(self) -> None:
        """Make what was given out durable."""
        self._db.commit()

    @property
    def drops(self) -> int:
        """What `forget_all_but` was last told."""
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def forget_all_but(self, used: Iterable[int], *, drops: int) -> None:
        """Take out the numbers that no row has any more, so that nobody is found by them.

        Args:
            used: the numbers in all rows.
            drops: how often rows were dropped by then; kept, so that what is interrupted is made up for.
        """
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("CREATE TEMP TABLE used (code INTEGER PRIMARY KEY)")
        self._db.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((code,) for code in used))
        self._db.execute("DELETE FROM codes WHERE code NOT IN (SELECT code FROM used)")
        self._db.execute(f"PRAGMA user_version = {drops:d}")
        self._db.commit()
        self._db.execute("DROP TABLE used")


@contextmanager
def codes_of(folder: Path) -> Iterator[Codes]:
    """Open the numbers of the extract in that folder, for this process alone; folder and all made where not there.

    Raises:
        ExtractBusy: another process has them open.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / CODES_FILE
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(file, timeout=0.0)) as db:
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise ExtractBusy(f"{folder}: expected no other extract into this folder at the same time") from None
        db.execute(_TABLE)
        db.commit()
        yield Codes(db)
