"""Where the evidence is kept while workers die: one SQLite file, or a Cosmos DB that fails as it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from deployr_cli.up_azure import COSMOS_KEY
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.cosmos_store import CosmosStore
from deployr_serve.store_bootstrap import open_store
from deployr_serve.store_settings import InCosmos
from tests.emulators.scripted_cosmos import Fault, ScriptedCosmos


class Keeper(Protocol):
    """A store, or a new one for each schedule."""

    def make(self, folder: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Make an empty store; give the settings that workers reach it by, and those that never fail."""

    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Let these things go wrong from now on, and nothing else."""


class FileKeeper:
    """A SQLite file in the schedule's folder."""

    def make(self, folder: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """See `Keeper`."""
        settings = {"DEPLOYR_STORE": f"sqlite:{folder / 'store.sqlite'}"}
        return settings, settings

    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """See `Keeper`: a file does not fail."""


class CosmosKeeper:
    """A database for each schedule, behind a server that fails for the workers and not for who looks on."""

    def __init__(self, *, address: str, scripted: str, script: ScriptedCosmos, blobs: str) -> None:
        self._address = address
        self._scripted = scripted
        self._script = script
        self._blobs = blobs
        self._databases = 0

    def make(self, folder: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """See `Keeper`."""
        self._databases += 1
        database = f"{folder.parent.name}-{self._databases}"
        common = {
            "DEPLOYR_STORE_DATABASE": database,
            "DEPLOYR_STORE_KEY": COSMOS_KEY,
            "DEPLOYR_STORE_BLOBS": self._blobs,
        }
        asyncio.run(self._init(database))
        direct = {**common, "DEPLOYR_STORE": f"cosmos:{self._address}"}
        return {**common, "DEPLOYR_STORE": f"cosmos:{self._scripted}"}, direct

    async def _init(self, database: str) -> None:
        where = InCosmos(address=self._address, database=database, key=COSMOS_KEY, blobs=self._blobs, identity=None)
        store = open_store(where, clock=SystemClock(), deadline_s=30.0)
        assert isinstance(store, CosmosStore)
        try:
            await store.init()
        finally:
            await store.aclose()

    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """See `Keeper`."""
        self._script.heal()
        self._script.fail(*(Fault(**fault) for fault in faults))


@contextmanager
def scripted(address: str, *, blobs: str) -> Iterator[CosmosKeeper]:
    """Put a server that can fail in front of a Cosmos DB; it lives in a thread, and outlives every worker."""
    script, loop, ready, over = ScriptedCosmos(address), asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    listens_at = []

    async def serve() -> None:
        async with script.listening() as at:
            listens_at.append(at)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield CosmosKeeper(address=address, scripted=listens_at[0], script=script, blobs=blobs)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
