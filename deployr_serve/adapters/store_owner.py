"""A store that belongs to one site: the first one to use it writes its name in it, and no other is let in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.ports import Clock

KIND, RECORD_ID = "site", "owner"
_BEFORE = frozenset({"init", "differences"})
"""What is done to a store before there is anything in it that could be somebody's."""
_S = TypeVar("_S")


def owned(store: _S, *, site: str, clock: Clock) -> _S:
    """Give the store, for this site alone.

    Sites have stores of their own, and settings that name another's are refused when the app starts; this is for what
    the app cannot see: two deployments, or a command line, that were given one store.

    Args:
        store: every method of it but ``aclose`` is async, and may raise StoreUnavailable.
        site: its name, as it stands in packets.
        clock: for the record that says whose it is.
    """
    return cast(_S, _OwnedStore(store, site=site, clock=clock))


class _OwnedStore:
    """Has the methods of the store behind it, whichever they are; asks once whose it is."""

    def __init__(self, store: Any, *, site: str, clock: Clock) -> None:
        self._store = store
        self._site = site
        self._clock = clock
        self._is_ours = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            if not self._is_ours and name not in _BEFORE:
                await self._claim()
            return await method(*arguments, **named)

        return call

    async def aclose(self) -> None:
        """Let go of the store."""
        await self._store.aclose()

    async def _claim(self) -> None:
        now = self._clock.now()
        held = await self._store.read_record(KIND, RECORD_ID, now=now)
        if held is None:
            await self._expect_no_packet_of_another()
            held = await self._store.create_record(KIND, RECORD_ID, self._site.encode(), now=now)
            # None: somebody else was first.
            held = held or await self._store.read_record(KIND, RECORD_ID, now=now)
        if held is None or held.content != self._site.encode():
            raise _of_another()
        self._is_ours = True

    async def _expect_no_packet_of_another(self) -> None:
        """Look into a store that was filled before stores had owners, by a packet of each model."""
        for model_id in await self._store.model_ids():
            for packet in await self._store.packets(model_id=model_id, after=None, limit=1):
                if packet.site != self._site:
                    raise _of_another()


def _of_another() -> StoreUnavailable:
    return StoreUnavailable("expected a store of this site's own, and this one is another site's", why="another-site")
