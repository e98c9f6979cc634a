"""Bulkheads: clicks and batches share one server's connections, and a batch can never hold them all."""

from __future__ import annotations

import asyncio
from collections import deque

from deployr_serve.core.errors import EmrThrottled, EmrTimeout
from deployr_serve.core.ports import Clock, Lane

MOST_WAITING = 1000
"""Per lane: at 64 connections and 50 ms a call the last of them is served after 0.8 s, inside any click's deadline."""


class Lanes:
    """Slots for one server's connections.

    A click takes any free slot, a batch one of its own few; a slot that comes free goes to a waiting click first, and
    within a lane to whoever waits longest.
    """

    def __init__(
        self, *, connections: int, batch_connections: int, clock: Clock, most_waiting: int = MOST_WAITING
    ) -> None:
        self._connections = connections
        self._batch_connections = batch_connections
        self._most_waiting = most_waiting
        self._clock = clock
        self._held = dict.fromkeys(Lane, 0)
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}

    async def enter(self, lane: Lane, *, deadline: float) -> None:
        """Take a slot, waiting for one if need be; `leave` gives it back.

        Raises:
            EmrTimeout: none came free by ``deadline``.
            EmrThrottled: too many wait already, so that waiting would only make it worse.
        """
        # Whoever may go in, does so at once when a slot comes free: where there is room, nobody of this lane waits.
        if self._has_room(lane):
            self._held[lane] += 1
            return
        line = self._waiting[lane]
        if len(line) >= self._most_waiting:
            raise EmrThrottled("expected fewer requests to the EMR at a time: too many wait for a connection already")
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                await turn
        except BaseException as error:
            if turn in line:
                line.remove(turn)
            else:  # the slot was given at the very moment of giving up
                self.leave(lane)
            if isinstance(error, TimeoutError):
                raise EmrTimeout("expected a free connection to the EMR within the time limit") from None
            raise

    def leave(self, lane: Lane) -> None:
        """Give the slot back, to those who wait."""
        self._held[lane] -= 1
        for each in (Lane.CLICK, Lane.BATCH):
            line = self._waiting[each]
            while line and self._has_room(each):
                # One that is cancelled already still stands in line until its task runs: it passes the slot on then.
                turn = line.popleft()
                self._held[each] += 1
                if not turn.done():
                    turn.set_result(None)

    def _has_room(self, lane: Lane) -> bool:
        if sum(self._held.values()) >= self._connections:
            return False
        return lane is Lane.CLICK or self._held[Lane.BATCH] < self._batch_connections
