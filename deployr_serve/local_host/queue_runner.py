"""Queue-triggered functions: each message to one of them, until it is done with or has failed too often."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta

from azure.functions.queue import QueueMessage

from deployr_serve.local_host.host_json import QueueLimits
from deployr_serve.local_host.invocation import BackgroundRuns, Invoker, Returned
from deployr_serve.local_host.loading import QueueFunction
from deployr_serve.local_host.queue_file import Message, Queues, QueueUnavailable
from deployr_serve.local_host.timers import Result

logger = logging.getLogger(__name__)

HIDDEN = timedelta(seconds=60)
"""How long a message is out of sight while a function has it; renewed as long as the function runs."""


class QueueRunner:
    """One queue function: takes messages as they come, ``limits.batch_size`` of them at a time."""

    def __init__(
        self, function: QueueFunction, *, queues: Queues, invoker: Invoker, limits: QueueLimits, poll_s: float = 0.5
    ) -> None:
        """
        Args:
            function: what to run.
            queues: where its messages are.
            invoker: runs it.
            limits: those of host.json.
            poll_s: how long to wait when the queue was empty.
        """
        self.function = function
        self._queues = queues
        self._invoker = invoker
        self._limits = limits
        self._poll_s = poll_s

    async def run_by_hand(self, text: str) -> Result:
        """Run the function with a message that was never in the queue."""
        argument = QueueMessage(id="by-hand", body=text.encode(), dequeue_count=1)
        outcome = await self._invoker.run(self.function, argument)
        return "succeeded" if isinstance(outcome, Returned) else "failed"

    async def serve(self, stopping: asyncio.Event) -> None:
        """Take messages until told to stop; the one under way is finished."""
        while not stopping.is_set():
            try:
                served = await self.serve_one()
            except QueueUnavailable as error:
                logger.warning("function=%s queue unavailable: %s", self.function.name, error)
                served = False
            if not served:
                try:
                    await asyncio.wait_for(stopping.wait(), self._poll_s)
                except TimeoutError:
                    continue

    async def serve_one(self) -> bool:
        """Run the function with the message that waits longest; False if none does.

        One that fails is there again after host.json's ``visibilityTimeout``, and is moved to the queue's ``-poison``
        queue once it has been taken ``maxDequeueCount`` times.

        Raises:
            QueueUnavailable: no message could be taken, or what became of one could not be said: it comes again.

        Source: Microsoft Learn, "Azure Queue storage trigger", section "Poison messages".
        """
        message = await asyncio.to_thread(self._queues.take, self.function.queue, hidden=HIDDEN)
        if message is None:
            return False
        if message.dequeue_count > self._limits.max_dequeue_count:
            # Whoever had it the last time died with it.
            await self._to_poison(message)
            return True
        hold = _Hold(message, queues=self._queues)
        renewing = asyncio.create_task(hold.renew())
        try:
            outcome = await self._invoker.run(self.function, _argument(message))
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        if isinstance(outcome, Returned):
            await asyncio.to_thread(self._queues.delete, hold.message)
        elif message.dequeue_count >= self._limits.max_dequeue_count:
            await self._to_poison(hold.message)
        else:
            await asyncio.to_thread(self._queues.hide, hold.message, self._limits.visibility_timeout)
        return True

    async def _to_poison(self, message: Message) -> None:
        logger.error("function=%s message moved to %s-poison", self.function.name, message.queue)
        await asyncio.to_thread(self._queues.put, f"{message.queue}-poison", message.body)
        await asyncio.to_thread(self._queues.delete, message)


class _Hold:
    """Keeps a message out of sight; ``message`` is it with its latest receipt."""

    def __init__(self, message: Message, *, queues: Queues) -> None:
        self.message = message
        self._queues = queues

    async def renew(self) -> None:
        """Renew the hold until cancelled, or until somebody else has the message."""
        while True:
            await asyncio.sleep(HIDDEN.total_seconds() / 3)
            try:
                kept = await asyncio.to_thread(self._queues.hide, self.message, HIDDEN)
            except QueueUnavailable:
                continue
            if kept is None:
                return
            self.message = kept


class QueueRunners:
    """All queue functions of an app."""

    def __init__(self, runners: Iterable[QueueRunner], *, batch_size: int, background: BackgroundRuns) -> None:
        self._runners = {runner.function.name.lower(): runner for runner in runners}
        self._batch_size = batch_size
        self._background = background
        self._stopping = asyncio.Event()

    def get(self, name: str) -> QueueRunner | None:
        """The queue function of that name, whatever its capitals."""
        return self._runners.get(name.lower())

    def start(self) -> None:
        """Begin to take messages."""
        for runner in self._runners.values():
            for _ in range(self._batch_size):
                self._background.start(runner.serve(self._stopping))

    def stop(self) -> None:
        """Take no more messages; what is under way goes on."""
        self._stopping.set()


def _argument(message: Message) -> QueueMessage:
    """Of the class that the real worker decodes from the host's trigger metadata."""
    return QueueMessage(
        id=message.message_id,
        body=message.body,
        dequeue_count=message.dequeue_count,
        insertion_time=message.inserted_at,
        time_next_visible=message.visible_at,
        pop_receipt=message.pop_receipt,
    )
