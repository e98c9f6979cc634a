"""The inference store and the shared records in Azure Cosmos DB; see docs/store.md for its layout and its cost."""

from __future__ import annotations

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError
from azure.storage.blob.aio import ContainerClient

from deployr_serve.adapters import cosmos_layout
from deployr_serve.adapters.blob_bodies import BlobBodies, blob_container
from deployr_serve.adapters.cosmos_container import CosmosContainer
from deployr_serve.adapters.cosmos_deliveries import CosmosDeliveries
from deployr_serve.adapters.cosmos_errors import unavailable, verdict
from deployr_serve.adapters.cosmos_labels import CosmosLabels
from deployr_serve.adapters.cosmos_link import CosmosLink, our_identity
from deployr_serve.adapters.cosmos_packets import CosmosPackets
from deployr_serve.adapters.cosmos_records import CosmosRecords
from deployr_serve.core.ports import Clock

_SCAN_S = 30.0
"""How long a query of all packets may take: of the relay, the label extractors, a replay or an export."""


class CosmosStore(CosmosPackets, CosmosDeliveries, CosmosLabels, CosmosRecords):
    """See `deployr_serve.core.ports` for what each method promises. One for a process; it opens when it is used."""

    def __init__(self, link: CosmosLink, blobs: BlobBodies, *, clock: Clock) -> None:
        packets = CosmosContainer(link, cosmos_layout.PACKETS, key="packet_id", scan_s=_SCAN_S)
        # Few enough for one physical partition, and requests wait for those of a kind.
        records = CosmosContainer(link, cosmos_layout.RECORDS, key="id", scan_s=link.within_s)
        CosmosPackets.__init__(self, packets, blobs)
        CosmosRecords.__init__(self, records, clock=clock)
        self._link = link

    async def init(self) -> tuple[str, ...]:
        """Lay out the database and the blob container; give a line for everything that was done.

        Raises:
            StoreUnavailable: it was refused.
        """
        try:
            done = await cosmos_layout.init(await self._link.client(), self._link.database)
            made = await self._blobs.init()
        except AzureError as error:
            raise unavailable(verdict(error)) from error
        return (*done, "blobs: the container is there now") if made else done

    async def differences(self) -> tuple[str, ...]:
        """Say what is there otherwise than declared, a line each; none where all is well.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        try:
            found = await cosmos_layout.check(await self._link.client(), self._link.database)
            is_there = await self._blobs.is_there()
        except AzureError as error:
            raise unavailable(verdict(error)) from error
        return found if is_there else (*found, "blobs: the container is not there")

    async def aclose(self) -> None:
        """Let go of the connections; they are opened again when they are needed again."""
        await self._link.aclose()
        await self._blobs.aclose()


def open_cosmos(
    *, address: str, database: str, key: str | None, identity: str | None, blobs: str, clock: Clock, within_s: float
) -> CosmosStore:
    """Give the store; nothing is connected to before it is used.

    Args:
        address: of the account.
        database: its name.
        key: of the account; None lets our identity in.
        identity: the client id of a user-assigned identity, else None.
        blobs: a storage connection string, or the blob address of a storage account.
        clock: times repeats, and the life of records.
        within_s: how long one call may take, repeats included.
    """
    link = CosmosLink(address=address, database=database, key=key, identity=identity, clock=clock, within_s=within_s)
    credentials: list[AsyncTokenCredential] = []

    def connect() -> ContainerClient:
        credentials.extend([] if ";" in blobs else [our_identity(identity)])
        return blob_container(blobs, credential=credentials[-1] if credentials else None, within_s=within_s)

    async def let_go() -> None:
        while credentials:
            await credentials.pop().close()

    return CosmosStore(link, BlobBodies(connect, let_go=let_go), clock=clock)
