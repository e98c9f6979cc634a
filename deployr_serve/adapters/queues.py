"""Where chunks wait: the queue that the host takes them from, a file on this machine or Azure Storage."""

from __future__ import annotations

import asyncio

from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.local_host.queue_file import Queues, QueueUnavailable


class HostQueue:
    """A `deployr_serve.core.batch.Queue` that the host's queue trigger serves."""

    def __init__(self, queues: Queues, *, name: str) -> None:
        self._queues = queues
        self._name = name

    async def put(self, message: str) -> None:
        """See `Queue`."""
        try:
            await asyncio.to_thread(self._queues.put, self._name, message.encode())
        except QueueUnavailable:
            raise StoreUnavailable("expected a queue that takes chunks") from None
