"""Queues in one SQLite file: what Azure Storage queues are to a Functions app, for several processes on one machine."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

_SCHEMA = """
CREATE TABLE IF NOT EXISTS queue_messages (
    message_id TEXT PRIMARY KEY, queue TEXT NOT NULL, body BLOB NOT NULL, inserted_at REAL NOT NULL,
    visible_at REAL NOT NULL, dequeue_count INTEGER NOT NULL, pop_receipt TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS queue_messages_by_turn ON queue_messages (queue, visible_at, inserted_at);
"""
_BUSY_TIMEOUT_S = 10.0


class QueueUnavailable(Exception):
    """The queue cannot be reached; a message that was being put may or may not be there."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message that was taken and is hidden from others meanwhile.

    Attributes:
        pop_receipt: changes whenever somebody takes it; only who took it last can delete it.
        dequeue_count: how often it was taken, this time included.
    """

    message_id: str
    queue: str
    body: bytes = field(repr=False)
    inserted_at: datetime
    visible_at: datetime
    dequeue_count: int
    pop_receipt: str


class Queues(Protocol):
    """Queues by name; calls block, and raise QueueUnavailable where the queues cannot be reached."""

    def put(self, queue: str, body: bytes) -> None:
        """Add a message; a queue that does not exist is made."""

    def take(self, queue: str, *, hidden: timedelta) -> Message | None:
        """Take the message that waits longest, and hide it from others; None if none is visible."""

    def hide(self, message: Message, hidden: timedelta) -> Message | None:
        """Hide it from now on for that long, at once visible at 0; None if somebody else has taken it since."""

    def delete(self, message: Message) -> None:
        """Take it out, unless somebody else has taken it since."""


class QueueFile:
    """See `Queues`. Times are in whole microseconds of the clock that is given; several processes must share one."""

    def __init__(self, file: Path, *, clock: Callable[[], datetime]) -> None:
        self._file = file
        self._clock = clock

    def put(self, queue: str, body: bytes) -> None:
        """See `Queues`."""
        now = self._clock().timestamp()
        with self._transaction() as db:
            row = (uuid4().hex, queue, body, now, now, 0, "")
            db.execute("INSERT INTO queue_messages VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def take(self, queue: str, *, hidden: timedelta) -> Message | None:
        """See `Queues`."""
        now = self._clock()
        with self._transaction() as db:
            row = db.execute(
                "SELECT message_id, body, inserted_at, dequeue_count FROM queue_messages"
                " WHERE queue = ? AND visible_at <= ? ORDER BY visible_at, inserted_at LIMIT 1",
                (queue, now.timestamp()),
            ).fetchone()
            if row is None:
                return None
            message_id, body, inserted_at, dequeue_count = row
            message = Message(
                message_id=message_id,
                queue=queue,
                body=bytes(body),
                inserted_at=datetime.fromtimestamp(inserted_at, UTC),
                visible_at=now + hidden,
                dequeue_count=dequeue_count + 1,
                pop_receipt=uuid4().hex,
            )
            db.execute(
                "UPDATE queue_messages SET visible_at = ?, dequeue_count = ?, pop_receipt = ? WHERE message_id = ?",
                (message.visible_at.timestamp(), message.dequeue_count, message.pop_receipt, message_id),
            )
            return message

    def hide(self, message: Message, hidden: timedelta) -> Message | None:
        """See `Queues`."""
        visible_at = self._clock() + hidden
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE queue_messages SET visible_at = ? WHERE message_id = ? AND pop_receipt = ?",
                (visible_at.timestamp(), message.message_id, message.pop_receipt),
            ).rowcount
        return replace(message, visible_at=visible_at) if changed else None

    def delete(self, message: Message) -> None:
        """See `Queues`."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM queue_messages WHERE message_id = ? AND pop_receipt = ?",
                (message.message_id, message.pop_receipt),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Opened anew each time, because nobody would close it; IMMEDIATE, so that no two take the same message."""
        try:
            with closing(sqlite3.connect(self._file, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.executescript(_SCHEMA)
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise QueueUnavailable("expected a queue file that can be read and written") from error
