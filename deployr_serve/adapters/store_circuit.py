"""A circuit in front of the store: one that does not answer is left alone, and those who ask are told at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from deployr_serve.adapters import breaker
from deployr_serve.adapters.at_once import within
from deployr_serve.adapters.breaker import BreakerPolicy, Circuit, Closed, HalfOpen, Open, Outcome
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.ports import Clock

POLICY = BreakerPolicy(in_a_row=3, share=0.5, least_calls=20, window_s=10.0)
PROBE_S, PROBE_WITHIN_S = 1.0, 4.0
"""How often a store that is left alone is asked whether it can be written to again, and how long it may take to say so:
nobody waits for that, and a first connection may be slow."""
_AT_ONCE = frozenset(
    {
        "create",
        "read",
        "replace",
        "read_delivery",
        "save_delivery",
        "append_event",
        "create_record",
        "read_record",
        "replace_record",
        "records",
        "check",
    }
)
"""What requests wait for, each about a record or a few. Reading through many may take longer."""
_S = TypeVar("_S")
_log = logging.getLogger(__name__)


def in_circuit(store: _S, *, clock: Clock, within_s: float) -> _S:
    """Give the store with a circuit in front of it.

    Args:
        store: every method of it but ``aclose`` is async, and may raise StoreUnavailable.
        clock: times the circuit.
        within_s: how long a request waits for one call; one that takes longer is StoreUnavailable, and may have done
            what was asked all the same.
    """
    return cast(_S, _StoreInCircuit(store, clock=clock, within_s=within_s))


class _StoreInCircuit:
    """Has the methods of the store behind it, whichever they are.

    Nobody's request tries a dead store out: a task of its own does, for as long as the circuit is open. Only where that
    task has not been heard of for so long that the circuit half-opens, such as in a worker that was frozen, one does.
    """

    def __init__(self, store: Any, *, clock: Clock, within_s: float) -> None:
        self._store = store
        self._clock = clock
        self._within_s = within_s
        self._circuit: Circuit = Closed()
        self._why = "unavailable"
        self._probing: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)
        within_s = self._within_s if name in _AT_ONCE else None

        async def call(*arguments: Any, **named: Any) -> Any:
            now = self._clock.monotonic()
            if breaker.wait_s(self._circuit, now) > 0:
                is_open = "expected the store to be available; it was not lately, so its circuit is open"
                raise StoreUnavailable(is_open, why=self._why)
            self._circuit = breaker.sent(self._circuit, now, POLICY)
            # Whatever else it says, it has answered.
            probe, outcome = isinstance(self._circuit, HalfOpen), Outcome.ANSWERED
            try:
                return await within(method(*arguments, **named), within_s)
            except TimeoutError:
                outcome = Outcome.UNAVAILABLE
                raise StoreUnavailable("expected the store to answer within its share of the deadline") from None
            except StoreUnavailable as error:
                outcome, self._why = Outcome.UNAVAILABLE, error.why
                raise
            except asyncio.CancelledError:
                outcome = Outcome.UNKNOWN
                raise
            finally:
                self._note(outcome, probe=probe)

        return call

    async def aclose(self) -> None:
        """Let go of the store."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._store.aclose()

    def _note(self, outcome: Outcome, *, probe: bool) -> None:
        self._circuit = breaker.ended(self._circuit, outcome, self._clock.monotonic(), POLICY, probe=probe)
        if isinstance(self._circuit, Open) and (self._probing is None or self._probing.done()):
            _log.error("alert=store-unavailable")
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while not isinstance(self._circuit, Closed):
            await self._clock.sleep(PROBE_S)
            try:
                async with asyncio.timeout(max(self._within_s, PROBE_WITHIN_S)):
                    await self._store.check()
            except (StoreUnavailable, TimeoutError):
                self._circuit = Open(until=self._clock.monotonic() + POLICY.open_s)
                continue
            self._circuit = Closed()
            _log.warning("store available again")
