"""The site's store, opened for one command, and the site's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deployr_cli.failures import CommandFailed
from deployr_serve.adapters.clock import ReplayClock, SystemClock
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.ports import Clock
from deployr_serve.settings import Settings
from deployr_serve.store_bootstrap import Store, open_store
from deployr_serve.store_settings import InFile, InMemory

_T = TypeVar("_T")


def clock_of(settings: Settings) -> Clock:
    """Give the clock that the site's app goes by: where a replay moved it, it stands there."""
    return ReplayClock(settings.clock_file) if settings.clock_file else SystemClock()


def with_store(settings: Settings, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """Do something with the store that the settings name, and close it.

    Raises:
        CommandFailed: it is none that several processes share, it is not there, or it does not answer.
    """
    match settings.store:
        case InMemory():
            raise CommandFailed(
                "DEPLOYR_STORE: expected a store that several processes share; memory is one process's own"
            )
        case InFile(file=file) if not file.is_file():
            # SQLite would make an empty one, and a switch in it would stop nothing.
            raise CommandFailed(f"DEPLOYR_STORE: {file}: no such file; is this where the app runs?")

    async def run() -> _T:
        store = open_store(
            settings.store, clock=SystemClock(), deadline_s=settings.deadline_s, owner=settings.site_apart
        )
        try:
            return await work(store)
        except StoreUnavailable as error:
            raise CommandFailed(f"DEPLOYR_STORE: {error}") from error
        finally:
            await store.aclose()

    return asyncio.run(run())
