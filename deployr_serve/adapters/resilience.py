"""One way to the EMR that neither a slow server, nor a dead one, nor our own batch can block.

Every try waits for a slot of its lane, passes the circuit breaker, and gets its share of what is left of the deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from deployr_serve.adapters import breaker
from deployr_serve.adapters.breaker import BreakerPolicy, Circuit, Closed, HalfOpen, Outcome
from deployr_serve.adapters.http import Request, Response, Transport, origin
from deployr_serve.adapters.lanes import Lanes
from deployr_serve.adapters.retry import RetryPolicy, time_for_try, wait_before_repeat
from deployr_serve.core.errors import EmrTimeout, EmrUnreachable, TryLater
from deployr_serve.core.ports import Budget, Clock

_UNAVAILABLE_STATUSES = frozenset({502, 503, 504})
_TELLING_S = 1.0
"""A try that was given less than this and ran out of time tells nothing of the server."""


@dataclass(kw_only=True, slots=True)
class _Origin:
    """What is known of one server: its connections, and whether it reads and whether it writes."""

    lanes: Lanes
    circuits: dict[bool, Circuit] = field(default_factory=lambda: {False: Closed(), True: Closed()})
    """By `Request.writes`."""


class ResilientTransport:
    """Sends within the budget: repeats what heals, leaves a dead server alone, keeps connections for clicks.

    Repeats go by `RetryPolicy` and only for requests that say that they may be repeated; a refusal of our own, because
    the circuit is open or too many wait, is final.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        clock: Clock,
        timeout_s: float,
        connections: int = 64,
        batch_connections: int = 16,
        retries: RetryPolicy | None = None,
        circuits: BreakerPolicy | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Wrap a transport.

        Args:
            inner: what reaches the network.
            clock: budgets are measured and back-offs slept on it.
            timeout_s: of a call whose request has no budget, repeats included.
            connections: how many calls are with one server at a time.
            batch_connections: how many of them may be a batch's.
            retries: what is sent again; None is the default policy.
            circuits: when a server is left alone; None is the default policy.
            draw: gives a number from 0 to 1 by chance.
        """
        self._inner = inner
        self._clock = clock
        self._timeout_s = timeout_s
        self._connections = connections
        self._batch_connections = batch_connections
        self._retries = retries or RetryPolicy()
        self._circuits = circuits or BreakerPolicy()
        self._draw = draw
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        self._probes: set[asyncio.Task[Response | TryLater]] = set()

    async def send(self, request: Request) -> Response:
        """Give the last answer, whatever its status.

        Raises:
            EmrUnreachable, EmrTimeout, EmrThrottled, EmrBadResponse, EmrTooLarge: no whole answer came; ``requests``
                tells how often it was asked for.
        """
        server = self._server(request.url)
        deadline = self._clock.monotonic() + self._timeout_s
        budget = request.budget or Budget(deadline=deadline, correlation_id="")
        deadline = min(deadline, budget.deadline)
        repeats = self._retries.repeats if request.repeatable else 0
        requests = 0
        while True:
            try:
                came = await self._try(server, request, budget, deadline=deadline, last=requests >= repeats)
            except TryLater as refusal:
                refusal.requests = requests
                raise
            requests += 1
            wait = None
            if requests <= repeats:
                left_s = deadline - self._clock.monotonic()
                wait = wait_before_repeat(self._retries, came, tries=requests, left_s=left_s, draw=self._draw())
            if wait is not None:
                await self._clock.sleep(wait)
            elif isinstance(came, Response):
                return came if requests == 1 else replace(came, requests=requests)
            else:
                came.requests = requests
                raise came

    def open_circuits(self) -> tuple[str, ...]:
        """Name the servers, as ``host:port``, that are left alone at the moment, or are being tried again.

        One that is left alone with writes only stands there as ``host:port (writes)``.
        """
        return tuple(
            f"{host}:{port}" if not isinstance(server.circuits[False], Closed) else f"{host}:{port} (writes)"
            for (_, host, port), server in self._origins.items()
            if not all(isinstance(circuit, Closed) for circuit in server.circuits.values())
        )

    def _server(self, url: str) -> _Origin:
        key = origin(url)
        if key not in self._origins:
            lanes = Lanes(connections=self._connections, batch_connections=self._batch_connections, clock=self._clock)
            self._origins[key] = _Origin(lanes=lanes)
        return self._origins[key]

    async def _try(
        self, server: _Origin, request: Request, budget: Budget, *, deadline: float, last: bool
    ) -> Response | TryLater:
        """Send once, and give what came of it; what is raised instead is a refusal of ours, and nothing was sent."""
        _refuse_if_open(server.circuits[request.writes], self._clock.monotonic())
        await server.lanes.enter(budget.lane, deadline=deadline)
        try:
            _refuse_if_open(server.circuits[request.writes], self._clock.monotonic())
            now = self._clock.monotonic()
            if now >= deadline:
                raise EmrTimeout("expected time left to ask the EMR, but the request's budget is spent")
            time_s = time_for_try(deadline - now, last=last)
            circuits, side = server.circuits, request.writes
            circuits[side] = breaker.sent(circuits[side], now, self._circuits)
            probe = isinstance(circuits[side], HalfOpen)
            limited = replace(request, budget=replace(budget, deadline=now + time_s))
            sending = self._send_and_note(server, limited, time_s, probe=probe)
            return await (self._outliving_its_caller(sending) if probe else sending)
        finally:
            server.lanes.leave(budget.lane)

    async def _send_and_note(
        self, server: _Origin, request: Request, time_s: float, *, probe: bool
    ) -> Response | TryLater:
        circuits, side = server.circuits, request.writes
        came: Response | TryLater | None = None
        try:
            came = await self._inner.send(request)
        except TryLater as error:
            came = error
        finally:
            outcome, ended_at = _outcome_of(came, time_s), self._clock.monotonic()
            circuits[side] = breaker.ended(circuits[side], outcome, ended_at, self._circuits, probe=probe)
        return came

    async def _outliving_its_caller(self, sending: Coroutine[Any, Any, Response | TryLater]) -> Response | TryLater:
        """Wait for a probe. An inference sends several searches, the others are refused, and that would end it, too."""
        task = asyncio.create_task(sending)
        self._probes.add(task)
        task.add_done_callback(self._probe_ended)
        return await asyncio.shield(task)

    def _probe_ended(self, task: asyncio.Task[Response | TryLater]) -> None:
        self._probes.discard(task)
        if not task.cancelled():
            # Looked at even where nobody waits any more: asyncio complains of an error that nobody saw.
            task.exception()


def _refuse_if_open(circuit: Circuit, now: float) -> None:
    wait_s = breaker.wait_s(circuit, now)
    if wait_s > 0:
        error = EmrUnreachable("expected the EMR to be available; it was not lately, so its circuit is open")
        error.retry_after_s = wait_s
        raise error


def _outcome_of(came: Response | TryLater | None, time_s: float) -> Outcome:
    match came:
        case None:
            return Outcome.UNKNOWN
        case Response(status=status) if status in _UNAVAILABLE_STATUSES:
            return Outcome.UNAVAILABLE
        case EmrUnreachable():
            return Outcome.UNAVAILABLE
        case EmrTimeout():
            return Outcome.UNAVAILABLE if time_s >= _TELLING_S else Outcome.UNKNOWN
        case _:
            return Outcome.ANSWERED
