"""The one connection of this process to Azure Cosmos DB, and how a call on it is carried to an end that is known.

The SDK repeats some calls by itself, and a write whose answer was lost may have been done. So each write says how to
tell that it was: by what it wrote, read back. A conflict is looked at the same way, since it may be one with our own
first try.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError
from azure.cosmos.aio import ContainerProxy, CosmosClient

from deployr_serve.adapters import cosmos_layout
from deployr_serve.adapters.cosmos_errors import Verdict, unavailable, verdict
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.ports import Clock

_T = TypeVar("_T")

_MOST_TRIES = 8
_FIRST_PAUSE_S = 0.02
_AT_LEAST_BETWEEN_OPENINGS_S = 30.0
_CONFLICTS = frozenset({Verdict.TAKEN, Verdict.CHANGED, Verdict.ABSENT})
_log = logging.getLogger(__name__)


class Conflict(Exception):
    """Nothing was done, because of what is there or is not: ``TAKEN``, ``CHANGED`` or ``ABSENT``."""

    def __init__(self, found: Verdict) -> None:
        super().__init__(found.name)
        self.found = found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    client: CosmosClient
    identity: AsyncTokenCredential | None

    async def close(self) -> None:
        with suppress(AzureError):
            await self.client.close()
        if self.identity is not None:
            await self.identity.close()


class CosmosLink:
    """Opens the client when it is first used, on the loop that runs then, and again after it was refused.

    ``database``: which one. ``within_s``: how long one call may take, repeats included. ``key``: None lets ``identity``
    in, by `our_identity`.
    """

    def __init__(
        self, *, address: str, database: str, key: str | None, identity: str | None, clock: Clock, within_s: float
    ) -> None:
        self.database = database
        self.within_s = within_s
        self._address = address
        self._key = key
        self._identity = identity
        self._clock = clock
        self._opening: asyncio.Task[_Opened] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened_at: float | None = None
        self._is_laid_out = False

    async def client(self) -> CosmosClient:
        """Give the client; it may raise AzureError, and StoreUnavailable where there is no such account."""
        loop = asyncio.get_running_loop()
        if self._opening is None or self._loop is not loop:
            self._loop, self._opened_at = loop, self._clock.monotonic()
            self._opening = loop.create_task(self._open())
        opening = self._opening
        try:
            # Who has no time left to wait for it leaves it to the next one.
            return (await asyncio.shield(opening)).client
        except AzureError as error:
            if self._opening is opening:
                self._opening = None
            if verdict(error) in _CONFLICTS:
                # It is the account that is not there, or something else in its place: no document was asked for yet.
                raise self._ended(Verdict.DOWN, error) from None
            raise

    async def container(self, name: str) -> ContainerProxy:
        """Give a container that is there; it may raise AzureError.

        Raises:
            StoreUnavailable: the database was not laid out: without its containers everything would pass for absent.
        """
        client = await self.client()
        if not self._is_laid_out:
            database = client.get_database_client(self.database)
            try:
                for declared in cosmos_layout.CONTAINERS:
                    await database.get_container_client(declared.name).read()
            except AzureError as error:
                if verdict(error) is not Verdict.ABSENT:
                    raise
                expected = "expected the containers that `deployr store init` makes"
                raise StoreUnavailable(expected, why="not-initialised") from None
            self._is_laid_out = True
        return client.get_database_client(self.database).get_container_client(name)

    async def call(
        self,
        attempt: Callable[[], Awaitable[_T]],
        *,
        landed: Callable[[], Awaitable[_T | None]] | None = None,
        within_s: float | None = None,
    ) -> _T:
        """Give what ``attempt`` gives, which is made again where that is harmless.

        Args:
            attempt: makes the call.
            landed: for a write: tells what it would have given if it was done before, else None.
            within_s: how long it may take; None: what a call of a request may.

        Raises:
            Conflict: it was not done, nor was it before.
            StoreUnavailable: it was not done in time. A write may have been.
        """
        until = self._clock.monotonic() + (within_s or self.within_s)
        said: Verdict | None = None
        for number in range(_MOST_TRIES):
            pause_s = _FIRST_PAUSE_S * 2**number
            try:
                async with asyncio.timeout(until - self._clock.monotonic()):
                    if landed is not None and (said is Verdict.UNKNOWN or said in _CONFLICTS):
                        done = await landed()
                        if done is not None:
                            return done
                    if said in _CONFLICTS:
                        raise Conflict(said)
                    return await attempt()
            except TimeoutError:
                raise self._ended(Verdict.UNKNOWN, None) from None
            except AzureError as error:
                said = verdict(error)
                if said is Verdict.THROTTLED:
                    pause_s = _asked_to_wait_s(error, pause_s)
                failure = error
            if said in _CONFLICTS:
                if landed is None:
                    raise Conflict(said)
                continue
            may_heal = said in {Verdict.UNKNOWN, Verdict.AGAIN, Verdict.THROTTLED}
            if not may_heal or self._clock.monotonic() + pause_s >= until:
                break
            await self._clock.sleep(pause_s)
        raise self._ended(said or Verdict.UNKNOWN, failure)

    async def aclose(self) -> None:
        """Let go of the connections; they are opened again when they are needed again."""
        opening, self._opening = self._opening, None
        if opening is not None and self._loop is asyncio.get_running_loop():
            with suppress(AzureError, asyncio.CancelledError):
                await (await opening).close()

    async def _open(self) -> _Opened:
        # At INFO the SDK logs the headers of every request, the partition key among them.
        logging.getLogger("azure").setLevel(logging.WARNING)
        identity = None if self._key is not None else our_identity(self._identity)
        credential: Any = identity or self._key
        client = CosmosClient(
            self._address,
            credential,
            consistency_level="Session",
            connection_timeout=self.within_s / 2,
            read_timeout=self.within_s / 3,
            # All of it is done above, where the time that is left is known. Zero would pass for "not given".
            retry_throttle_total=-1,
            retry_connect=1,
            retry_read=0,
            retry_status=0,
            enable_compact_utf8_item_writes=True,
        )
        opened = _Opened(client=client, identity=identity)
        try:
            await client.__aenter__()
        except BaseException:
            await opened.close()
            raise
        return opened

    def _ended(self, said: Verdict, error: Exception | None) -> StoreUnavailable:
        status, substatus = getattr(error, "status_code", None), getattr(error, "sub_status", None)
        kind = type(error).__name__ if error is not None else "timeout"
        ended = unavailable(said)
        _log.error("alert=store-%s error=%s status=%s substatus=%s", ended.why, kind, status, substatus)
        if said is Verdict.REFUSED:
            self._forget()
        return ended

    def _forget(self) -> None:
        """Have the client opened anew: its token may be one of an identity that was replaced."""
        age_s = self._clock.monotonic() - (self._opened_at or 0.0)
        if self._opening is None or age_s < _AT_LEAST_BETWEEN_OPENINGS_S:
            return
        opening, self._opening = self._opening, None
        if opening.done() and not opening.cancelled() and opening.exception() is None:
            closing = asyncio.get_running_loop().create_task(opening.result().close())
            _CLOSING.add(closing)
            closing.add_done_callback(_CLOSING.discard)


_CLOSING: set[asyncio.Task[None]] = set()
"""Held, so that they are not collected before they are done."""


def our_identity(client_id: str | None) -> AsyncTokenCredential:
    """Give what this app runs under: a managed identity in Azure, on a developer's machine whoever is logged in.

    Args:
        client_id: of a user-assigned identity; None lets the environment say.
    """
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

    return DefaultAzureCredential() if client_id is None else ManagedIdentityCredential(client_id=client_id)


def _asked_to_wait_s(error: AzureError, otherwise: float) -> float:
    headers: Mapping[str, str] = getattr(error, "headers", None) or {}
    asked: Sequence[str] = [value for name, value in headers.items() if name.lower() == "x-ms-retry-after-ms"]
    try:
        return float(asked[0]) / 1000 if asked and 0 <= float(asked[0]) < 3_600_000 else otherwise
    except ValueError:
        return otherwise
