"""Audit records as FHIR AuditEvents, one a line, in a folder: a file for each day and machine."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from deployr_core.instants import parse_instant
from deployr_serve.core.audit import AuditRecord
from deployr_serve.core.ports import Clock
from deployr_serve.outputs.audit_event import render_audit_event

_log = logging.getLogger(__name__)
SYNC_EVERY_S = 1.0
"""How much a power cut may cost; a process that dies costs nothing, for the line is the operating system's by then."""
MOST_WAITING = 10_000
_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})\..+\.ndjson\Z")
_ID = re.compile(rb'"audit-id","valueString":"([0-9a-z]+)"')
_RECORDED = re.compile(rb'"recorded":"([^"]+)"')


class AuditFolder:
    """See `deployr_serve.core.audit.AuditSink`. Many processes of one machine may write at once.

    A record is one ``write`` to a file opened with ``O_APPEND``, so that lines never mix; it is made before the caller
    gets its answer, and forced to the disk behind it. Machines that share the folder each have files of their own:
    network file systems do not keep appends whole.

    While the folder cannot be written, records wait here, in order, and are written with the next one that can be.
    What there is no more room for goes to the log as a whole: nothing is dropped without a word.
    """

    def __init__(self, folder: Path, *, site: str, environment: str, clock: Clock) -> None:
        self._folder = folder
        self._site = site
        self._environment = environment
        self._clock = clock
        self._machine = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "machine"
        self._waiting: deque[bytes] = deque()
        self._open: tuple[str, int] | None = None
        self._torn = False
        self._synced_at = clock.monotonic()
        # One thread: a file is closed after the last sync of it.
        self._behind = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    @property
    def machine(self) -> str:
        """What this machine's files are called by."""
        return self._machine

    @property
    def waiting(self) -> int:
        """How many records could not be written yet."""
        return len(self._waiting)

    def record(self, record: AuditRecord) -> None:
        """Write the record, and whatever could not be written before it."""
        event = render_audit_event(record, site=self._site, environment=self._environment)
        self._waiting.append(msgspec.json.encode(event) + b"\n")
        self.write_waiting()

    def write_waiting(self) -> None:
        """Try again to write what waits."""
        was_down = len(self._waiting) > 1
        try:
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not was_down:
                _log.error("alert=audit-not-written waiting=%d error=%s", len(self._waiting), error.strerror)
            while len(self._waiting) > MOST_WAITING:
                _log.critical("alert=audit-overflow event=%s", self._waiting.popleft().decode().strip())
            return
        if was_down:
            _log.warning("audit is written again")
        if self._clock.monotonic() - self._synced_at >= SYNC_EVERY_S:
            self.sync()

    def sync(self) -> Future[None] | None:
        """Force to the disk what was written, in a thread of its own; give what tells when that is done."""
        self._synced_at = self._clock.monotonic()
        return None if self._open is None else self._behind.submit(os.fsync, self._open[1])

    def close(self) -> None:
        """Force everything to the disk and close the file; it is opened again when it is needed."""
        opened, self._open = self._open, None
        if opened is not None:
            self._behind.submit(os.fsync, opened[1])
            self._behind.submit(os.close, opened[1]).result()

    def days(self) -> Iterator[tuple[str, Path]]:
        """Give the files with their days, ``YYYY-MM-DD`` in UTC, the oldest first."""
        if self._folder.is_dir():
            for file in sorted(self._folder.iterdir()):
                named = _FILE.match(file.name)
                if named:
                    yield named[1], file

    def ids_since(self, since: datetime) -> set[str]:
        """Give the ids of all records written at or after that instant, by every machine."""
        found: set[str] = set()
        # A record is filed under the day on which it was written, at the earliest when it happened.
        for day, file in self.days():
            if day >= f"{since:%Y-%m-%d}":
                with file.open("rb") as lines:
                    lines.seek(_begin(file, since))
                    found.update(match[1].decode() for line in lines if (match := _ID.search(line)))
        return found

    def remove_before(self, until: datetime) -> int:
        """Delete the files of days that ended before that instant; give how many."""
        old = [file for day, file in self.days() if day < f"{until - timedelta(days=1):%Y-%m-%d}"]
        for file in old:
            file.unlink()
        return len(old)

    def _append(self, line: bytes) -> None:
        day = f"{self._clock.now():%Y-%m-%d}"
        if self._open is None or self._open[0] != day:
            self.close()
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._folder / f"{day}.{self._machine}.ndjson"
            self._open = day, os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        # What a full disk took of a line is ended before the next one: readers pass it over.
        whole = b"\n" + line if self._torn else line
        written = os.write(self._open[1], whole)
        self._torn = written != len(whole) and (self._torn or written > 0)
        if written != len(whole):
            raise OSError(0, "the disk took a part of a line")


def _begin(file: Path, since: datetime) -> int:
    """Give an offset before which nothing is as late as ``since``; lines lie in order of time but for some seconds."""
    low, high = 0, file.stat().st_size
    with file.open("rb") as lines:
        while high - low > 65_536:
            middle = (low + high) // 2
            lines.seek(middle)
            lines.readline()
            recorded = _RECORDED.search(lines.readline())
            if recorded is None:
                break
            if parse_instant(recorded[1].decode()) < since - timedelta(minutes=1):
                low = middle
            else:
                high = middle
        lines.seek(low)
        if low:
            lines.readline()
        return lines.tell()


def read_lines(file: Path, *, offset: int, limit: int) -> tuple[list[dict[str, object]], list[int]]:
    """Give up to ``limit`` events from a byte offset on, and for each the offset behind it; torn lines are passed over.

    A last line without its end is still being written, and left.
    """
    events: list[dict[str, object]] = []
    ends: list[int] = []
    with file.open("rb") as lines:
        lines.seek(offset)
        while len(events) < limit:
            line = lines.readline()
            if not line.endswith(b"\n"):
                break
            try:
                event = json.loads(line)
            except ValueError:
                continue
            events.append(event)
            ends.append(lines.tell())
    return events, ends
