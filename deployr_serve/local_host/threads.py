"""The threads that synchronous functions run on."""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from deployr_serve.local_host.errors import HostSetupError

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(Executor):
    """A pool whose threads do not hold the process back when it ends.

    ``ThreadPoolExecutor`` joins its threads at exit, so one function stuck in a call without a timeout would
    keep a host that was told to stop. Threads start as they are needed, and at most ``limit`` of them.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], None]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run ``fn`` on one of the threads, as soon as one is free."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits, SystemExit too
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is shut down")
            self._work.put((future, run))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                name = f"function-{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work and let free threads end.

        Args:
            wait: join the threads.
            cancel_futures: cancel what has not started.
        """
        with self._lock:
            self._closed = True
            while cancel_futures and not self._work.empty():
                if work := self._work.get_nowait():
                    work[0].cancel()
            for _ in self._threads:
                self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except Empty:
                self._idle.release()
                work = self._work.get()
            if work is None:
                return
            work[1]()


def thread_limit(settings: Mapping[str, str]) -> int:
    """How many synchronous functions may run at once.

    Raises:
        HostSetupError: the setting is not a number from 1 to 32.

    Source: Microsoft Learn, "App settings reference for Azure Functions", PYTHON_THREADPOOL_THREAD_COUNT;
    its default is that of Python's ThreadPoolExecutor.
    """
    text = settings.get("PYTHON_THREADPOOL_THREAD_COUNT")
    if text is None:
        return min(32, (os.cpu_count() or 1) + 4)
    if not text.isdecimal() or not 1 <= int(text) <= 32:
        raise HostSetupError(f"PYTHON_THREADPOOL_THREAD_COUNT: expected a whole number from 1 to 32, got {text!r}")
    return int(text)
