"""Access tokens, each held under all that it depends on, fetched by one caller for everybody who waits."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from deployr_serve.adapters.scopes import Scopes
from deployr_serve.core.errors import EmrTimeout, ServeError, TryLater
from deployr_serve.core.ports import Budget, Clock

_T = TypeVar("_T")
_REST_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenKey:
    """All that a token depends on. Whoever differs in one of these never sees the other's token."""

    fhir_base: str
    client_id: str
    scope: str
    key_id: str
    token_endpoint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token and what it grants. On the monotonic clock: from ``refresh_at`` on the next one is fetched beside the
    requests, from ``good_until`` on this one is not used."""

    value: str = field(repr=False)
    granted: Scopes
    refresh_at: float
    good_until: float


class Flights:
    """Work that one does and many wait for. Whoever gives up leaves it to the others."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    def start(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, _T]]) -> asyncio.Task[_T]:
        """Begin the work, unless it is under way."""
        task = self._under_way.get(name)
        if task is None or task.done():
            task = asyncio.create_task(work())
            self._under_way[name] = task
            task.add_done_callback(partial(self._landed, name))
        return task

    async def join(
        self, name: Hashable, work: Callable[[], Coroutine[Any, Any, _T]], *, timeout_s: float | None = None
    ) -> _T:
        """Give what comes of the work, begun here or by somebody else; a failure is everybody's who waited.

        Raises:
            EmrTimeout: nothing came of it in time; it goes on.
            ServeError: as the work raises, to each a copy: each adds to it what went before in its own request.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self.start(name, work))
        except TimeoutError:
            raise EmrTimeout("expected a token within the request's time limit") from None
        except ServeError as error:
            raise copy.copy(error) from None

    def _landed(self, name: Hashable, task: asyncio.Task[Any]) -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]
        if not task.cancelled():
            task.exception()  # looked at here: in the background nobody else does


class TokenCache:
    """Holds tokens in this process's memory, and nowhere else."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[TokenKey, Token] = {}
        self._rests_until: dict[TokenKey, float] = {}
        self._flights = Flights()

    async def token(self, key: TokenKey, fetch: Callable[[], Awaitable[Token]], *, budget: Budget | None) -> Token:
        """Give the token that is held, or the one that ``fetch`` brings.

        Shortly before a token ends, the next one is fetched in the background and this one still given. When that
        fails it is not tried again for a while.

        Raises:
            ServeError: no token is held, and none could be had within the budget.
        """
        held, now = self._held.get(key), self._clock.monotonic()
        if held is None or now >= held.good_until:
            return await self._flights.join(
                key, partial(self._fetched, key, fetch), timeout_s=left_s(budget, clock=self._clock)
            )
        if now >= max(held.refresh_at, self._rests_until.get(key, 0.0)):
            self._flights.start(key, partial(self._fetched, key, fetch))
        return held

    def forget(self, value: str) -> None:
        """Drop this token, if it is still held."""
        self._held = {key: token for key, token in self._held.items() if token.value != value}

    async def _fetched(self, key: TokenKey, fetch: Callable[[], Awaitable[Token]]) -> Token:
        try:
            token = await fetch()
        except ServeError as error:
            asked_to_wait = error.retry_after_s if isinstance(error, TryLater) else None
            self._rests_until[key] = self._clock.monotonic() + max(_REST_S, asked_to_wait or 0.0)
            _log.warning("access token: error=%s", error.reason)
            raise
        now = self._clock.monotonic()
        self._held = {other: held for other, held in self._held.items() if now < held.good_until} | {key: token}
        self._rests_until.pop(key, None)
        return token


def left_s(budget: Budget | None, *, clock: Clock) -> float | None:
    """Give the seconds that are left of the budget, at least 0; None where there is no limit."""
    return None if budget is None else max(0.0, budget.deadline - clock.monotonic())
