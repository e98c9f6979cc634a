"""Where time comes from: the machine, or for a replay of past days a file."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from deployr_core.instants import parse_instant

_LONGEST_INSTANT = 64
"""Bytes: what an instant is written with takes half of them."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Give the current instant, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let others work for that long."""
        await asyncio.sleep(seconds)


class ReplayClock(SystemClock):
    """A clock that stands at the instant written in a file; durations still pass as they do.

    A replay of past days (`deployr demo`) moves the mock EMR's clock and this file together. The production profile
    refuses it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read: tuple[bytes, datetime] | None = None

    def now(self) -> datetime:
        """Give the instant in the file, in UTC.

        Raises:
            OSError, ValueError: no file, or no instant in it.
        """
        # Every step of an order asks it: bare system calls take a quarter of what a text file does.
        handle = os.open(self._file, os.O_RDONLY)
        try:
            text = os.read(handle, _LONGEST_INSTANT)
        finally:
            os.close(handle)
        if self._read is None or self._read[0] != text:
            self._read = text, parse_instant(text.decode("ascii").strip())
        return self._read[1]
