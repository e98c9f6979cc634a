"""The facts vault in a blob container of its own.

The record is ``facts/PACKET/DIGEST``, and ``expiry/DAY/PACKET/DIGEST`` is an empty mark under the day on which it
expires: so that a purge lists what has expired and nothing else. The mark is written first. A record without one would
never be purged, a mark without a record costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deployr_serve.adapters.facts_sealing import opened, sealed
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.sealing_keys import SealingKeys

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.storage.blob.aio import ContainerClient

CONTAINER = "facts"
_EXPIRES = "expires"


class BlobFactsVault:
    """See `deployr_serve.core.facts_kept.FactsVault` for what each method promises. Purged up to a day late.

    Args:
        container: of the vault alone; it is made when something is first kept in it.
        keys: what records are sealed with.
        credential: what the container lets us in by, to be closed along with it.
    """

    def __init__(
        self, container: ContainerClient, *, keys: SealingKeys, credential: AsyncTokenCredential | None = None
    ) -> None:
        self._container = container
        self._keys = keys
        self._credential = credential

    async def keep(self, packet_id: str, digest: str, content: bytes, *, expires_at: datetime) -> None:
        record = await asyncio.to_thread(sealed, content, self._keys, packet_id=packet_id, digest=digest)
        expires_at = expires_at.astimezone(UTC)
        async with _reached():
            await self._put(f"expiry/{expires_at:%Y-%m-%d}/{packet_id}/{digest}", b"", {})
            await self._put(f"facts/{packet_id}/{digest}", record, {_EXPIRES: expires_at.isoformat()})

    async def read(self, packet_id: str, digest: str, *, now: datetime) -> bytes | None:
        from azure.core.exceptions import ResourceNotFoundError

        async with _reached():
            try:
                found = await self._container.download_blob(f"facts/{packet_id}/{digest}")
            except ResourceNotFoundError:
                return None
            expires_at = (found.properties.metadata or {}).get(_EXPIRES, "")
            if expires_at <= now.astimezone(UTC).isoformat():
                return None
            record = await found.readall()
        return await asyncio.to_thread(opened, record, self._keys, packet_id=packet_id, digest=digest)

    async def forget(self, packet_id: str) -> int:
        async with _reached():
            return sum([await self._erase(name) async for name in self._names(f"facts/{packet_id}/")])

    async def purge(self, *, now: datetime) -> int:
        today, erased = f"{now.astimezone(UTC):%Y-%m-%d}", 0
        async with _reached():
            async for mark in self._names("expiry/"):
                _, day, name = mark.split("/", 2)
                if day >= today:
                    # Names come in order, and so do days.
                    break
                erased += await self._erase(f"facts/{name}")
                await self._erase(mark)
        return erased

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._container.close()
        if self._credential is not None:
            await self._credential.close()

    async def _put(self, name: str, content: bytes, metadata: dict[str, str]) -> None:
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        for _ in range(2):
            try:
                await self._container.upload_blob(name, content, metadata=metadata)
            except ResourceExistsError:
                return
            except ResourceNotFoundError:
                with contextlib.suppress(ResourceExistsError):
                    await self._container.create_container()
            else:
                return
        raise StoreUnavailable("expected the container of the facts vault")

    async def _names(self, prefix: str) -> AsyncIterator[str]:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            async for name in self._container.list_blob_names(name_starts_with=prefix):
                yield name
        except ResourceNotFoundError:
            return

    async def _erase(self, name: str) -> int:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            await self._container.delete_blob(name)
        except ResourceNotFoundError:
            return 0
        return 1


@contextlib.asynccontextmanager
async def _reached() -> AsyncIterator[None]:
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise StoreUnavailable(f"expected the facts vault to answer, got {type(error).__name__}") from None
