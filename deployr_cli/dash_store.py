"""A site's store as the dashboard reads it: opened for one look and closed again, never written to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deployr_dash.away import StoreAway
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.settings import Settings
from deployr_serve.store_bootstrap import Store, open_store
from deployr_serve.store_settings import InFile, InMemory

_T = TypeVar("_T")


def in_store(site: Settings, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """Read something of a site's store.

    Raises:
        StoreAway: it is one process's own, is not there, or does not answer.
    """
    match site.store:
        case InMemory():
            raise StoreAway("DEPLOYR_STORE is memory, which is one process's own.")
        case InFile(file=file) if not file.is_file():
            # SQLite would make an empty one.
            raise StoreAway("DEPLOYR_STORE names a file that is not there.")

    async def read() -> _T:
        store = open_store(site.store, clock=SystemClock(), deadline_s=site.deadline_s, owner=site.site_apart)
        try:
            return await work(store)
        finally:
            await store.aclose()

    try:
        return asyncio.run(read())
    except StoreUnavailable:
        raise StoreAway("Look at DEPLOYR_STORE and at whether it runs.") from None
