"""The same promises as of queues in a file, on Azure Storage queues, which Azurite (an npm package) stands in for."""

from __future__ import annotations

import importlib.util
import socket
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from deployr_cli.up_azure import STORAGE_KEY
from deployr_serve.local_host.queue_file import QueueUnavailable
from deployr_serve.local_host.queue_storage import open_queues

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.storage") is None,
        reason="azure-storage-queue is not installed (deployr[azure])",
    ),
]


@pytest.fixture
def queues(azurite):
    return open_queues(azurite, clock=lambda: datetime.now(UTC))


@pytest.fixture
def name():
    return f"chunks-{uuid.uuid4().hex[:8]}"


HOUR = timedelta(hours=1)


def test_a_queue_that_is_not_there_is_made_by_the_first_message(queues, name):
    assert queues.take(name, hidden=HOUR) is None
    queues.put(name, b"icu.1")
    taken = queues.take(name, hidden=HOUR)
    assert (taken.body, taken.dequeue_count) == (b"icu.1", 1)
    assert queues.take(name, hidden=HOUR) is None


def test_what_is_given_back_is_there_again_and_counted(queues, name):
    queues.put(name, b"icu.1")
    taken = queues.take(name, hidden=HOUR)
    assert queues.hide(taken, timedelta(0)) is not None
    again = queues.take(name, hidden=HOUR)
    assert (again.dequeue_count, again.message_id) == (2, taken.message_id)


def test_only_who_took_it_last_can_delete_it(queues, name):
    queues.put(name, b"icu.1")
    slow = queues.take(name, hidden=HOUR)
    kept = queues.hide(slow, timedelta(0))
    quick = queues.take(name, hidden=HOUR)
    queues.delete(slow)
    assert queues.hide(kept, timedelta(0)) is None
    assert queues.hide(quick, timedelta(0)) is not None
    last = queues.take(name, hidden=HOUR)
    queues.delete(last)
    queues.delete(last)
    assert queues.take(name, hidden=HOUR) is None


def test_a_renewed_hold_has_the_receipt_to_delete_it_with(queues, name):
    queues.put(name, b"icu.1")
    kept = queues.hide(queues.take(name, hidden=HOUR), HOUR)
    queues.delete(kept)
    assert queues.hide(kept, timedelta(0)) is None


def test_bodies_travel_in_base64_as_the_functions_host_expects(queues, azurite, name):
    from azure.storage.queue import QueueClient

    queues.put(name, b"icu.1")
    with QueueClient.from_connection_string(azurite, name) as client:
        assert client.receive_message().content == "aWN1LjE="


def test_an_account_that_does_not_answer_is_said_without_its_key():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    queues = open_queues(
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={STORAGE_KEY};"
        f"QueueEndpoint=http://127.0.0.1:{port}/devstoreaccount1",
        clock=lambda: datetime.now(UTC),
    )
    with pytest.raises(QueueUnavailable) as refused:
        queues.take("chunks", hidden=HOUR)
    assert STORAGE_KEY not in str(refused.value)
