"""One SQLite file that several processes share: its connections, its thread and its transactions."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from deployr_serve.adapters.one_thread import OneThread
from deployr_serve.adapters.sqlite_schema import migrate
from deployr_serve.core.errors import StoreUnavailable

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What somebody waits for. ``writes``: in a transaction; ``durable``: that survives a power cut.

    ``meanwhile``: what they do on their loop while it is committed.
    """

    work: Callable[[sqlite3.Connection], Any]
    answer: asyncio.Future[Any]
    writes: bool
    durable: bool
    meanwhile: Callable[[], None] | None = None

    def settle(self, result: object, error: BaseException | None) -> None:
        """Have the loop of whoever waits tell them; a loop that has closed meanwhile has nobody who waits."""
        with suppress(RuntimeError):
            self.answer.get_loop().call_soon_threadsafe(self._tell, result, error)

    def is_committed_now(self) -> None:
        """Have the loop of whoever waits do meanwhile what they have to."""
        if self.meanwhile is not None:
            with suppress(RuntimeError):
                self.answer.get_loop().call_soon_threadsafe(self.meanwhile)

    def _tell(self, result: object, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)


class SqliteFile:
    """Opens the file when it is first used. One thread waits for the disk and for other writers; no event loop does.

    Whatever is asked while the thread is busy is done together: the reads first, then the writes in one transaction,
    each of which succeeds or fails by itself, and none of which is answered before the transaction is committed. So
    many who ask at once wait for one flush of the disk.

    A write is durable: the write-ahead log is flushed before it is answered (``synchronous=FULL``), and it survives a
    power cut. One that is not (``NORMAL``) has been handed to the operating system when it is answered: it survives
    the death of this process, and all other processes see it. That is enough for what only holds something back until
    a durable write comes: no effect follows from it alone. And it never gets lost where such an effect remains: both
    go into the one log, a flush is of the whole log, and a log is read after a power cut only as far as it is whole;
    so a durable write makes all that was committed before it durable too, whichever process committed it.

    What need not be durable is written at once, on the event loop, by a connection of its own, unless somebody else is
    writing: a tenth of a millisecond, where the way to the thread and back takes two. It neither waits, nor flushes,
    nor moves the log into the file; whatever goes wrong with it is left to the thread, which waits or says so.

    Source: https://www.sqlite.org/pragma.html#pragma_synchronous; https://www.sqlite.org/walformat.html section 4.
    """

    def __init__(self, file: Path, *, busy_timeout_s: float = 5.0) -> None:
        self._file = file
        self._busy_timeout_s = busy_timeout_s
        self._thread = OneThread("sqlite")
        self._asked: deque[_Asked] = deque()
        self._is_called = False
        self._connection: sqlite3.Connection | None = None
        self._flushes = False
        self._quick: sqlite3.Connection | None = None
        self._quick_on = 0

    async def aclose(self) -> None:
        """Close the file; the store opens it again when it is used again."""
        opened, self._quick, self._connection = (self._quick, self._connection), None, None
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            try:
                for connection in opened:
                    if connection is not None:
                        connection.close()
            finally:
                loop.call_soon_threadsafe(closed.set)

        self._thread.do(close)
        await closed.wait()

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._run(work, writes=False, durable=False)

    async def _write(
        self,
        work: Callable[[sqlite3.Connection], _T],
        *,
        durable: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> _T:
        if not durable and (done := self._written_at_once(work)):
            return done[0]
        return await self._run(work, writes=True, durable=durable, meanwhile=meanwhile)

    async def _run(
        self,
        work: Callable[[sqlite3.Connection], _T],
        *,
        writes: bool,
        durable: bool,
        meanwhile: Callable[[], None] | None = None,
    ) -> _T:
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(work=work, answer=answer, writes=writes, durable=durable, meanwhile=meanwhile))
        if not self._is_called:
            self._is_called = True
            self._thread.do(self._do_all)
        try:
            return await answer
        except sqlite3.Error as error:
            raise StoreUnavailable("expected a store that can be read and written") from error
        except msgspec.MsgspecError:
            # Its message may repeat a part of the record.
            raise StoreUnavailable("expected stored records that can be read") from None

    def _written_at_once(self, work: Callable[[sqlite3.Connection], _T]) -> tuple[_T] | None:
        """Write without flushing, here and now; None, and nothing is written, where that cannot be."""
        if self._connection is None:
            return None
        try:
            if self._quick is None:
                self._quick, self._quick_on = self._connect_quick(), threading.get_ident()
            if self._quick_on != threading.get_ident():
                # Another loop's: a transaction is of one connection, and so of one thread.
                return None
            db = self._quick
            try:
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        except sqlite3.Error:
            return None
        return (result,)

    def _do_all(self) -> None:
        """Do what is asked by now."""
        # First of all: what is asked after this line calls again, what was asked before it is done now.
        self._is_called = False
        asked = []
        while self._asked:
            each = self._asked.popleft()
            if not each.answer.cancelled():
                asked.append(each)
        if not asked:
            return
        try:
            if self._connection is None:
                self._connection = self._connect()
        except BaseException as error:  # noqa: BLE001 handed to all who wait
            for each in asked:
                each.settle(None, error)
            return
        for each in asked:
            if not each.writes:
                each.settle(*_tried(each.work, self._connection))
        if writes := [each for each in asked if each.writes]:
            self._commit(writes, self._connection)

    def _commit(self, asked: list[_Asked], db: sqlite3.Connection) -> None:
        done: list[tuple[Any, BaseException | None]]
        try:
            self._set_flushing(any(each.durable for each in asked), db)
            # IMMEDIATE takes the write lock at once: a read that turns into a write cannot be refused half-way.
            db.execute("BEGIN IMMEDIATE")
            # Alone the transaction is its own: what it raises ends it, and a savepoint would be two statements more.
            done = [(asked[0].work(db), None)] if len(asked) == 1 else [_by_itself(each.work, db) for each in asked]
            for each in asked:
                each.is_committed_now()
            db.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 handed to all who wait
            done = [(None, error)] * len(asked)
        # A full disk can refuse the COMMIT and leave the transaction open; some errors have ended it already. Before
        # anybody is told: a process that is stopped just after must not hold the file against all others.
        if db.in_transaction:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        for each, (result, failure) in zip(asked, done, strict=True):
            each.settle(result, failure)

    def _set_flushing(self, flushes: bool, db: sqlite3.Connection) -> None:
        if flushes is not self._flushes:
            db.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'NORMAL'}")
            self._flushes = flushes

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            self._flushes = True
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_quick(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables that are missing."""
        migrate(connection)

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        # For this one statement SQLite does not wait when another process is making the same new file: seen with six
        # processes that start together, of which most got "database is locked" at once.
        until = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
                time.sleep(0.005)
            else:
                return


def _tried(work: Callable[[sqlite3.Connection], _T], db: sqlite3.Connection) -> tuple[_T | None, BaseException | None]:
    try:
        return work(db), None
    except BaseException as error:  # noqa: BLE001 handed to whoever waits
        return None, error


def _by_itself(
    work: Callable[[sqlite3.Connection], _T], db: sqlite3.Connection
) -> tuple[_T | None, BaseException | None]:
    """Do one of a transaction's writes, all of it or nothing.

    Raises:
        sqlite3.Error: the error has ended the whole transaction, as a full disk may.
    """
    db.execute("SAVEPOINT one")
    result, failure = _tried(work, db)
    if failure is not None:
        if not db.in_transaction:
            raise failure
        db.execute("ROLLBACK TO one")
    db.execute("RELEASE one")
    return result, failure
