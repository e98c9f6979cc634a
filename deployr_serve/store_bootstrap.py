"""Opens the store that the settings name."""

from __future__ import annotations

from typing import Protocol, assert_never

from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.adapters.store_owner import owned
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.ports import Clock, InferenceStore, Records
from deployr_serve.store_settings import InCosmos, InFile, InMemory, StoreSettings

_OF_DEADLINE = 0.18
"""Which share of a request's deadline one call of the account may take, repeats included. A little less than the
circuit in front waits, which so hears why there was no answer."""


class Store(InferenceStore, Records, Protocol):
    """Packets and shared records in one place."""

    async def init(self) -> tuple[str, ...]:
        """Make what is declared and missing; give a line for everything that was done. May raise StoreUnavailable."""

    async def differences(self) -> tuple[str, ...]:
        """Say what is there otherwise than declared, or damaged, a line each. May raise StoreUnavailable."""

    async def aclose(self) -> None:
        """Close files and connections."""


def open_store(settings: StoreSettings, *, clock: Clock, deadline_s: float, owner: str | None = None) -> Store:
    """Give the store; nothing is opened or connected to before it is used.

    Args:
        settings: where it is.
        clock: times repeats, and the life of records.
        deadline_s: the whole of a request, of which a call of the store gets a share.
        owner: the site that it must belong to; None asks no store whose it is.

    Raises:
        SettingsInvalid: the packages that it needs are not installed.
    """
    store = _opened(settings, clock=clock, deadline_s=deadline_s)
    return store if owner is None else owned(store, site=owner, clock=clock)


def _opened(settings: StoreSettings, *, clock: Clock, deadline_s: float) -> Store:
    match settings:
        case InMemory():
            return MemoryStore()
        case InFile(file=file):
            return SqliteStore(file)
        case InCosmos():
            # A third of a second of imports, that no other store needs.
            try:
                from deployr_serve.adapters.cosmos_store import open_cosmos
            except ImportError:
                expected = "expected the packages of deployr[azure] for a store in Azure Cosmos DB"
                raise SettingsInvalid(f"settings: DEPLOYR_STORE: {expected}") from None
            return open_cosmos(
                address=settings.address,
                database=settings.database,
                key=settings.key,
                identity=settings.identity,
                blobs=settings.blobs,
                clock=clock,
                within_s=_OF_DEADLINE * deadline_s,
            )
        case other:
            assert_never(other)
