"""The stand-ins for Azure as fixtures; where Node or their packages are missing, the tests skip and say what is."""

from __future__ import annotations

import itertools

import pytest

from deployr_cli.up_azure import COSMOS_KEY, missing, running_azurite, running_cosmos


def _or_skip(package):
    reason = missing(package)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cosmos_address():
    """Give the address of a Cosmos DB stand-in; `deployr_cli.up_azure.COSMOS_KEY` opens it."""
    _or_skip("@vercel/cosmosdb-server")
    with running_cosmos() as address:
        yield address


@pytest.fixture(scope="session")
def azurite():
    """Give the connection string of a storage account's stand-in."""
    _or_skip("azurite")
    with running_azurite() as connection:
        yield connection


_numbers = itertools.count(1)


@pytest.fixture
def new_database():
    """Give a function that names a database that no other test of this session uses."""
    return lambda: f"deployr{next(_numbers)}"


@pytest.fixture
def cosmos_of(cosmos_address, azurite, new_database, clock):
    """Give a function that opens a store in a database of its own, whose clock stands at `now`; nothing is in it yet.

    It must be closed by who opened it. ``address``: of a server in front of the stand-in, if there is one.
    """

    from deployr_serve.adapters.cosmos_store import open_cosmos

    def make(address=cosmos_address, **changes):
        how = {"database": new_database(), "key": COSMOS_KEY, "identity": None, "blobs": azurite, "within_s": 10.0}
        return open_cosmos(address=address, **{**how, "clock": clock, **changes})

    return make


@pytest.fixture(params=["memory", "sqlite", "cosmos"])
async def each_store(request, tmp_path):
    """Give a store of each kind in turn, empty, and close it at the end."""
    from deployr_serve.adapters.memory_store import MemoryStore
    from deployr_serve.adapters.sqlite_store import SqliteStore

    match request.param:
        case "memory":
            made = MemoryStore()
        case "sqlite":
            made = SqliteStore(tmp_path / "store.sqlite")
        case _:
            made = request.getfixturevalue("cosmos_of")()
            await made.init()
    yield made
    await made.aclose()
