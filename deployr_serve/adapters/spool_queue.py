"""The spool in an Azure Storage queue, for many workers: what is too large for a message is in a blob beside it."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from azure.core.exceptions import AzureError, ResourceExistsError

from deployr_serve.adapters.blob_bodies import BlobBodies, blob_container
from deployr_serve.adapters.ids import new_entry_id
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.spool import Spooled, SpoolUnavailable, Standing, Waiting
from deployr_serve.storage_limits import storage_limits

if TYPE_CHECKING:
    from azure.storage.queue.aio import QueueClient

NAME = "deployr-spool"
"""Of the queue, and of the container for what is too large for it."""
MOST_IN_MESSAGE = 60 * 1024
"""In bytes. Source: Microsoft Learn, "Scalability and performance targets for Queue Storage": 64 KiB."""
_HIDDEN_S = 60
_MOST_AT_A_TIME = 32
"""The most that the service gives in one call."""
_WITHIN_S = 2.0
_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Spooled).decode


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message holds: the entry, compressed, or the blob that holds it, which is nobody else's."""

    body: bytes = b""
    blob: str = ""
    blob_sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Receipt:
    message: Any
    blob: str


class QueueSpool:
    """See `deployr_serve.core.spool.Spool`. An entry that somebody took is hidden from others for a minute."""

    def __init__(self, queue: QueueClient, blobs: BlobBodies, *, credential: Any = None) -> None:
        self._queue = queue
        self._blobs = blobs
        self._credential = credential

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._queue.close()
        await self._blobs.aclose()
        if self._credential is not None:
            await self._credential.close()

    async def put(self, entry: Spooled) -> None:
        """See `Spool`. The blob is there before the message that names it."""
        body = zlib.compress(_encode(entry))
        text = _encode(_Envelope(body=body)).decode()
        async with _reached():
            if len(text) > MOST_IN_MESSAGE:
                blob = new_entry_id()
                digest = await _made(self._blobs.init, lambda: self._blobs.put(blob, body))
                text = _encode(_Envelope(blob=blob, blob_sha256=digest)).decode()
            # -1: it waits as long as it takes.
            await _made(self._queue.create_queue, lambda: self._queue.send_message(text, time_to_live=-1))

    async def oldest(self, *, limit: int) -> tuple[Waiting, ...]:
        """See `Spool`. What cannot be read stays where it is, and an operator is told."""
        async with _reached():
            messages = self._queue.receive_messages(
                messages_per_page=min(limit, _MOST_AT_A_TIME), visibility_timeout=_HIDDEN_S, max_messages=limit
            )
            try:
                found = [await self._waiting(message) async for message in messages]
            except Exception as error:
                if not _is_not_made(error):
                    raise
                return ()
        return tuple(waiting for waiting in found if waiting is not None)

    async def _waiting(self, message: Any) -> Waiting | None:
        try:
            envelope = msgspec.json.decode(message.content, type=_Envelope)
            body = envelope.body or await self._blobs.get(envelope.blob, envelope.blob_sha256)
            entry = _decode(zlib.decompress(body))
        except (msgspec.MsgspecError, zlib.error, StoreUnavailable):
            _log.error("alert=spool-entry-unreadable message=%s", message.id)
            return None
        return Waiting(entry=entry, receipt=_Receipt(message=message, blob=envelope.blob))

    async def remove(self, waiting: Waiting) -> None:
        """See `Spool`. The message goes first: a blob that nothing names costs little."""
        receipt = waiting.receipt
        if not isinstance(receipt, _Receipt):
            raise TypeError("expected an entry of this spool")
        async with _reached():
            try:
                await self._queue.delete_message(receipt.message)
            except Exception as error:
                if getattr(error, "error_code", None) not in {"MessageNotFound", "PopReceiptMismatch"}:
                    raise
            if receipt.blob:
                await self._blobs.erase(receipt.blob)

    async def standing(self) -> Standing:
        """See `Spool`. The service counts about, and what is hidden as well."""
        async with _reached():
            try:
                properties = await self._queue.get_queue_properties()
                first = await self._queue.peek_messages(max_messages=1)
            except Exception as error:
                if not _is_not_made(error):
                    raise
                return Standing(waiting=0, oldest_at=None)
        waiting = int(properties.approximate_message_count or 0)
        return Standing(waiting=waiting, oldest_at=first[0].inserted_on if first else None)


def open_queue_spool(where: str) -> QueueSpool:
    """Open the spool of a storage account; nothing is connected to before it is used.

    Args:
        where: a connection string, or the ``https://`` address of the account's queues, where the app's own identity is
            let in.
    """
    from azure.storage.queue.aio import QueueClient

    limits = storage_limits(connecting_s=_WITHIN_S, reading_s=_WITHIN_S)
    if where.startswith("https://"):
        from azure.identity.aio import DefaultAzureCredential

        credential = DefaultAzureCredential()
        queue = QueueClient(where, NAME, credential=credential, **limits)
        address = where.replace(".queue.", ".blob.", 1)
        blobs = BlobBodies(lambda: blob_container(address, credential=credential, within_s=_WITHIN_S, container=NAME))
        return QueueSpool(queue, blobs, credential=credential)
    queue = QueueClient.from_connection_string(where, NAME, **limits)
    blobs = BlobBodies(lambda: blob_container(where, credential=None, within_s=_WITHIN_S, container=NAME))
    return QueueSpool(queue, blobs)


async def _made(make: Callable[[], Awaitable[Any]], work: Callable[[], Awaitable[_T]]) -> _T:
    """Do it, and once more where the queue or the container had to be made first."""
    try:
        return await work()
    except Exception as error:
        if not _is_not_made(error):
            raise
    with contextlib.suppress(ResourceExistsError):
        await make()
    return await work()


def _is_not_made(error: Exception) -> bool:
    return getattr(error, "error_code", None) in {"QueueNotFound", "ContainerNotFound"}


@asynccontextmanager
async def _reached() -> AsyncIterator[None]:
    try:
        yield
    except AzureError as error:
        raise SpoolUnavailable from error
