"""Queues in an Azure Storage account, or in Azurite, which stands in for one on this machine."""

import base64
import binascii
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deployr_serve.local_host.queue_file import Message, QueueFile, Queues, QueueUnavailable
from deployr_serve.storage_limits import storage_limits

_FILE = "sqlite:"
_LIMITS = storage_limits(connecting_s=5, reading_s=10)
_AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey="
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
)
"""What ``UseDevelopmentStorage=true`` stands for. Source: Microsoft Learn, "Use the Azurite emulator", a public key."""


def open_queues(connection: str, *, clock: Callable[[], datetime]) -> Queues:
    """Open what a queue trigger's connection setting names; nothing is connected to yet.

    Args:
        connection: ``sqlite:`` and a file, a connection string of a storage account, or the ``https://`` address of its
            queues, for which the app's own identity is used.
        clock: the machine's; used for a file only.

    Raises:
        ValueError: it is none of these, or the packages for Azure Storage are not installed.
    """
    if connection.startswith(_FILE):
        return QueueFile(Path(connection[len(_FILE) :]), clock=clock)
    try:
        from azure.storage.queue import QueueServiceClient
    except ImportError:
        raise ValueError("expected the packages of deployr[azure] for an Azure Storage connection") from None
    if connection.startswith("https://"):
        from azure.identity import DefaultAzureCredential

        return StorageQueues(QueueServiceClient(connection, credential=DefaultAzureCredential(), **_LIMITS))
    if connection.replace(" ", "").rstrip(";").lower() == "usedevelopmentstorage=true":
        connection = _AZURITE
    try:
        return StorageQueues(QueueServiceClient.from_connection_string(connection, **_LIMITS))
    except ValueError:
        # Its message may repeat the account's key.
        raise ValueError("expected sqlite: and a file, or an Azure Storage connection") from None


class StorageQueues:
    """See `Queues`. Bodies travel in Base64, as the Functions host expects them unless host.json says otherwise.

    Source: Microsoft Learn, "Azure Queue storage trigger", section "Encoding".
    """

    def __init__(self, service: Any) -> None:
        self._service = service

    def put(self, queue: str, body: bytes) -> None:
        """See `Queues`; -1: a message waits as long as it takes."""
        text = base64.b64encode(body).decode()
        with _reached(), self._service.get_queue_client(queue) as client:
            try:
                client.send_message(text, time_to_live=-1)
            except Exception as error:
                if getattr(error, "error_code", None) != "QueueNotFound":
                    raise
                client.create_queue()
                client.send_message(text, time_to_live=-1)

    def take(self, queue: str, *, hidden: timedelta) -> Message | None:
        """See `Queues`."""
        with _reached(), self._service.get_queue_client(queue) as client:
            try:
                found = client.receive_message(visibility_timeout=int(hidden.total_seconds()))
            except Exception as error:
                if getattr(error, "error_code", None) == "QueueNotFound":
                    return None
                raise
            return None if found is None else _message(queue, found)

    def hide(self, message: Message, hidden: timedelta) -> Message | None:
        """See `Queues`."""
        with _reached(), self._service.get_queue_client(message.queue) as client:
            try:
                changed = client.update_message(
                    message.message_id, message.pop_receipt, visibility_timeout=int(hidden.total_seconds())
                )
            except Exception as error:
                if _is_taken(error):
                    return None
                raise
            return Message(
                message_id=message.message_id,
                queue=message.queue,
                body=message.body,
                inserted_at=message.inserted_at,
                visible_at=changed.next_visible_on,
                dequeue_count=message.dequeue_count,
                pop_receipt=changed.pop_receipt,
            )

    def delete(self, message: Message) -> None:
        """See `Queues`."""
        with _reached(), self._service.get_queue_client(message.queue) as client:
            try:
                client.delete_message(message.message_id, message.pop_receipt)
            except Exception as error:
                if not _is_taken(error):
                    raise


def _message(queue: str, found: Any) -> Message:
    try:
        body = base64.b64decode(found.content, validate=True)
    except (ValueError, binascii.Error):
        body = str(found.content).encode()
    return Message(
        message_id=found.id,
        queue=queue,
        body=body,
        inserted_at=found.inserted_on or datetime.fromtimestamp(0, UTC),
        visible_at=found.next_visible_on or datetime.fromtimestamp(0, UTC),
        dequeue_count=int(found.dequeue_count or 1),
        pop_receipt=found.pop_receipt,
    )


def _is_taken(error: Exception) -> bool:
    return getattr(error, "error_code", None) in {"MessageNotFound", "PopReceiptMismatch"}


@contextmanager
def _reached() -> Iterator[None]:
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise QueueUnavailable(f"expected a storage account that answers, got {type(error).__name__}") from None
