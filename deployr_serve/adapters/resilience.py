"""One way to the EMR that neither a slow server, nor a dead one, nor our own batch can block.

Every try waits for a slot of its lane, passes the circuit breaker, and gets its share of what is left of the deadline.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

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
    """What is known of one server."""

    lanes: Lanes
    circuit: Circuit = field(default_factory=Closed)


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
        """Name the servers, as ``host:port``, that are left alone at the moment, or are being tried again."""
        return tuple(
            f"{host}:{port}"
            for (_, host, port), server in self._origins.items()
            if not isinstance(server.circuit, Closed)
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
        self._refuse_if_open(server)
        await server.lanes.enter(budget.lane, deadline=deadline)
        try:
            self._refuse_if_open(server)
            now = self._clock.monotonic()
            if now >= deadline:
                raise EmrTimeout("expected time left to ask the EMR, but the request's budget is spent")
            time_s = time_for_try(deadline - now, last=last)
            server.circuit = breaker.sent(server.circuit, now, self._circuits)
            probe = isinstance(server.circuit, HalfOpen)
            came: Response | TryLater | None = None
            try:
                came = await self._inner.send(replace(request, budget=replace(budget, deadline=now + time_s)))
            except TryLater as error:
                came = error
            finally:
                outcome, ended_at = _outcome_of(came, time_s), self._clock.monotonic()
                server.circuit = breaker.ended(server.circuit, outcome, ended_at, self._circuits, probe=probe)
            return came
        finally:
            server.lanes.leave(budget.lane)

    def _refuse_if_open(self, server: _Origin) -> None:
        wait_s = breaker.wait_s(server.circuit, self._clock.monotonic())
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
