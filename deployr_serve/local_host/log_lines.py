"""The host's log lines, on standard error."""

import asyncio
import logging
from collections import deque

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class AfterAnswers(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes what is told on an event loop when the loop has sent what was ready: no caller waits for a log line.

    Warnings and worse are written at once, after all that was told before them. So is everything that is told
    elsewhere than on an event loop, and whatever still waits when the process ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[logging.LogRecord] = deque()
        self._is_writing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, now or soon; the message is put together now, from values that may change."""
        try:
            loop = asyncio.get_running_loop() if record.levelno < logging.WARNING else None
        except RuntimeError:
            loop = None
        if loop is not None:
            record.msg, record.args = record.getMessage(), None
            if not self._waiting:
                loop.call_soon(self.flush)
            self._waiting.append(record)
            return
        self._write_waiting()
        super().emit(record)

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            if not self._is_writing:
                self._write_waiting()
            super().flush()
        finally:
            self.release()

    def _write_waiting(self) -> None:
        # Each line that is written flushes, and comes by here again.
        self._is_writing = True
        try:
            while self._waiting:
                super().emit(self._waiting.popleft())
        finally:
            self._is_writing = False
