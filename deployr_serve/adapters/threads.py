"""Runs somebody else's code beside the event loop, and waits for it no longer than there is time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class DaemonThreads:
    """See `deployr_serve.core.ports.Threads`. A thread cannot be stopped, so that what hangs goes on in its own.

    The threads are daemons: one that hangs does not keep the process from ending, as a pool's would. No more than
    ``most`` run under one name: a model that hangs costs so many threads, and no request waits for it any more.
    """

    def __init__(self, *, most: int = 8) -> None:
        self._most = most
        self._running: Counter[str] = Counter()

    async def run(self, work: Callable[[], _T], *, name: str, within_s: float) -> _T:
        """Run the work; see `deployr_serve.core.ports.Threads`."""
        if self._running[name] >= self._most or within_s <= 0.0:
            raise TimeoutError("expected fewer that were asked before and have not answered")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()

        def settle(set_it: Callable[[], None]) -> None:
            self._running[name] -= 1
            if not done.done():
                set_it()

        def tell(set_it: Callable[[], None]) -> None:
            # The loop may have ended while the work was hanging.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, set_it)

        def job() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 whatever it is, it belongs to who waits
                told = error
                tell(lambda: done.set_exception(told))
            except BaseException as error:  # noqa: BLE001 an exit that somebody else's code asks for is not ours to take
                ended = RuntimeError(f"expected work that does not end Python, got {type(error).__name__}")
                tell(lambda: done.set_exception(ended))
            else:
                tell(lambda: done.set_result(result))

        self._running[name] += 1
        threading.Thread(target=job, name="model", daemon=True).start()
        async with asyncio.timeout(within_s):
            return await done
