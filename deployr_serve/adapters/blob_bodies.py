"""Bodies that are too large for a document, as blobs: each under its packet's id and its own digest."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.storage_limits import storage_limits

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.storage.blob.aio import ContainerClient

CONTAINER = "packets"
_BLOCK = 2**19


def blob_container(
    where: str, *, credential: AsyncTokenCredential | None, within_s: float, container: str = CONTAINER
) -> ContainerClient:
    """Give the client of a container; nothing is connected to before it is used.

    Args:
        where: a storage connection string, or the blob address of a storage account.
        credential: our identity, for an address.
        within_s: the longest that one call may take.
        container: its name.
    """
    from azure.storage.blob.aio import ContainerClient

    limits = storage_limits(connecting_s=within_s, reading_s=within_s)
    # aiohttp warns of bodies of a megabyte and more: they hold up everybody else while they are sent.
    limits |= {"max_single_put_size": _BLOCK, "max_block_size": _BLOCK}
    if ";" in where:
        return ContainerClient.from_connection_string(where, container, **limits)
    return ContainerClient(where, container, credential=credential, **limits)


class BlobBodies:
    """Bodies by packet and digest. A body is there before the document that names it, and is never changed.

    Every method may raise azure.core.exceptions.AzureError.

    Args:
        connect: gives the client of the container, when it is first needed.
        let_go: closes what else ``connect`` opened.
    """

    def __init__(
        self, connect: Callable[[], ContainerClient], *, let_go: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._connect = connect
        self._let_go = let_go
        self._held: tuple[asyncio.AbstractEventLoop, ContainerClient] | None = None

    async def init(self) -> bool:
        """Make the container; False if it is there already."""
        from azure.core.exceptions import ResourceExistsError

        try:
            await self._container().create_container()
        except ResourceExistsError:
            return False
        return True

    async def is_there(self) -> bool:
        """Say whether the container is."""
        return bool(await self._container().exists())

    async def put(self, packet_id: str, body: bytes) -> str:
        """Store a body, and give its SHA-256 in hex; one that is there already is the same."""
        from azure.core.exceptions import ResourceExistsError

        digest = hashlib.sha256(body).hexdigest()
        with suppress(ResourceExistsError):
            await self._container().upload_blob(f"{packet_id}/{digest}", io.BytesIO(body), length=len(body))
        return digest

    async def get(self, packet_id: str, digest: str) -> bytes:
        """Give the body.

        Raises:
            StoreUnavailable: it is not what was stored.
        """
        body: bytes = await (await self._container().download_blob(f"{packet_id}/{digest}")).readall()
        if hashlib.sha256(body).hexdigest() != digest:
            raise StoreUnavailable("expected a stored body with the digest that its document names")
        return body

    async def erase(self, packet_id: str) -> None:
        """Take out every body of the packet."""
        names = [name async for name in self._container().list_blob_names(name_starts_with=f"{packet_id}/")]
        for name in names:
            await self._container().delete_blob(name)

    async def aclose(self) -> None:
        """Let go of the connections; they are opened again when they are needed again."""
        held, self._held = self._held, None
        if held is not None and held[0] is asyncio.get_running_loop():
            await held[1].close()
            if self._let_go is not None:
                await self._let_go()

    def _container(self) -> ContainerClient:
        loop = asyncio.get_running_loop()
        if self._held is None or self._held[0] is not loop:
            self._held = (loop, self._connect())
        return self._held[1]
