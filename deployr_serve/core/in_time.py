"""An answer by the deadline, whatever becomes of the work behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from deployr_serve.core.errors import InProgress

_T = TypeVar("_T")


class InTime(Generic[_T]):
    """Waits for work until a deadline; what takes longer goes on, and ends by limits of its own."""

    def __init__(self) -> None:
        # Held so that what outlives its answer is not lost to the garbage collector.
        self._unanswered: set[asyncio.Task[_T]] = set()

    async def wait(self, work: Coroutine[Any, Any, _T], *, within_s: float) -> _T:
        """Give what the work gives.

        Raises:
            InProgress: it was not done within the time.
        """
        task = asyncio.ensure_future(work)
        self._unanswered.add(task)
        task.add_done_callback(self._done)
        finished, _ = await asyncio.wait({task}, timeout=within_s)
        if not finished:
            raise InProgress("expected an answer within the deadline")
        return task.result()

    def _done(self, task: asyncio.Task[_T]) -> None:
        self._unanswered.discard(task)
        if not task.cancelled():
            # Looked at even where nobody waits any more: asyncio complains of an error that nobody saw.
            task.exception()
