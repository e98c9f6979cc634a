"""One thread that does one thing after the other."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

_Work = Callable[[], None]
_log = logging.getLogger(__name__)


class OneThread:
    """Does what it is given, in that order, on a thread that begins with the first of it and ends with this object.

    To hand something over takes half as long as with an executor of one thread, which makes a future, takes locks and
    looks for threads each time. The thread is a daemon: what hangs on a disk does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._given: SimpleQueue[_Work | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, work: _Work) -> None:
        """Have it done. It answers for itself: what it raises is only logged, by its class."""
        if self._thread is None:
            with self._starting:
                self._start()
        self._given.put(work)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=_serve, args=(self._given,), name=self._name, daemon=True)
            self._thread.start()
            weakref.finalize(self, self._given.put, None)


def _serve(given: SimpleQueue[_Work | None]) -> None:
    while (work := given.get()) is not None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 what comes after it is somebody else's
            _log.error("thread=%s error=%s", threading.current_thread().name, type(error).__name__)
        # Else whoever gave it would live on in this variable until something else is given.
        del work
