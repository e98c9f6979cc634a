"""Worklists from outside the EMR: a file that another job drops, and a query of the site's database.

Neither may take a part for the whole: a file that is still being written, or a query that broke off, is no worklist.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from deployr_serve.core.batch import CsvDrop, Listed, Roster, SqlReport, WorklistUnusable
from deployr_serve.core.ports import Budget, Clock

PATIENT, ENCOUNTER = "patientId", "encounterId"
_MOST_BYTES = 16 * 1024 * 1024
_MOST_ROWS = 50_000


class CsvWorklist:
    """A `Worklist` in a CSV file: UTF-8, with a header, each line ended; it has to be put there by renaming."""

    def __init__(self, declared: CsvDrop, *, clock: Clock) -> None:
        self._declared = declared
        self._clock = clock

    async def read(self, *, budget: Budget) -> Roster:  # noqa: ARG002 a local file needs no budget
        """See `Worklist`."""
        now = self._clock.now()
        return await asyncio.to_thread(self._read, now)

    def _read(self, now: datetime) -> Roster:
        file = Path(self._declared.file)
        try:
            before = file.stat()
            content = file.read_bytes() if before.st_size <= _MOST_BYTES else b""
            after = file.stat()
        except OSError:
            raise WorklistUnusable("worklist-missing", "expected the worklist's file") from None
        if (
            now - datetime.fromtimestamp(before.st_mtime, UTC)
        ).total_seconds() > 3600 * self._declared.at_most_hours_old:
            raise WorklistUnusable("worklist-stale", "expected a worklist's file of the last hours")
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
            raise WorklistUnusable("worklist-damaged", "expected a file that is not being written")
        return _rows(_table(content), self._declared)


def _table(content: bytes) -> list[list[str]]:
    damaged = WorklistUnusable(
        "worklist-damaged", f"expected CSV in UTF-8 with the columns {PATIENT} and {ENCOUNTER}, each line ended"
    )
    # A file that was cut off ends in the middle of a line.
    if not content.endswith(b"\n"):
        raise damaged
    try:
        header, *lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except (ValueError, csv.Error):
        raise damaged from None
    if any(len(line) != len(header) for line in lines):
        raise damaged
    return [header, *lines]


class SqlWorklist:
    """A `Worklist` that a query gives, through any DB-API 2.0 driver.

    Args:
        declared: the query.
        clock: that of budgets.
        connect: opens a connection, on the thread that it is used on.
    """

    def __init__(self, declared: SqlReport, *, clock: Clock, connect: Callable[[], Any]) -> None:
        self._declared = declared
        self._clock = clock
        self._connect = connect

    async def read(self, *, budget: Budget) -> Roster:
        """See `Worklist`."""
        try:
            async with asyncio.timeout(budget.deadline - self._clock.monotonic()):
                return await asyncio.to_thread(self._read)
        except TimeoutError:
            raise WorklistUnusable("worklist-unavailable", "expected rows of the query in time") from None

    def _read(self) -> Roster:
        try:
            with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(self._declared.query)
                header = [column[0] for column in cursor.description]
                lines = cursor.fetchmany(_MOST_ROWS)
        except Exception as error:  # noqa: BLE001 each driver has its own errors, and their messages may repeat values
            kind = type(error).__name__
            raise WorklistUnusable("worklist-unavailable", f"expected rows of the query, got {kind}") from None
        return _rows([header, *lines], self._declared)


def connect_by(text: str) -> Callable[[], Any]:
    """Give what opens the database: ``MODULE:DSN``, a DB-API 2.0 module and what its ``connect`` takes.

    Raises:
        ValueError: not of that form, or there is no such module.
    """
    module_name, _, dsn = text.partition(":")
    try:
        connect = getattr(importlib.import_module(module_name), "connect", None)
    except (ImportError, TypeError, ValueError):
        connect = None
    if not dsn or not callable(connect):
        raise ValueError("expected MODULE:DSN, such as sqlite3:/data/report.db, with a DB-API driver that is installed")
    return partial(connect, dsn)


def _rows(table: Sequence[Sequence[Any]], declared: CsvDrop | SqlReport) -> Roster:
    header, *lines = table
    names = [str(name).strip().lower() for name in header]
    if names.count(PATIENT.lower()) != 1 or names.count(ENCOUNTER.lower()) != 1:
        raise WorklistUnusable("worklist-damaged", f"expected the columns {PATIENT} and {ENCOUNTER}, each once")
    patient, encounter = names.index(PATIENT.lower()), names.index(ENCOUNTER.lower())
    rows = [
        Listed(
            patient=_typed(declared.patient_id_type, line[patient]),
            encounter=_typed(declared.encounter_id_type, line[encounter]),
        )
        for line in lines
    ]
    whole = tuple(row for row in rows if row.patient is not None)
    dropped = {"no-usable-ids": len(rows) - len(whole)} if len(whole) < len(rows) else {}
    return Roster(rows=whole, dropped=dropped)


def _typed(id_type: str, value: Any) -> tuple[str, str] | None:
    text = "" if value is None else str(value).strip()
    return (id_type, text) if text else None
