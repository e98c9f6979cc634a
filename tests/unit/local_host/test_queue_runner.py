"""Queue triggers: a message is done with when its function returns, comes again when it fails, and not for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import azure.functions as func
import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.host_json import QueueLimits, parse_host_json
from deployr_serve.local_host.invocation import BackgroundRuns, Invoker
from deployr_serve.local_host.loading import QueueFunction
from deployr_serve.local_host.queue_file import QueueFile, QueueUnavailable
from deployr_serve.local_host.queue_runner import HIDDEN, QueueRunner, QueueRunners
from deployr_serve.local_host.queue_storage import open_queues
from deployr_serve.local_host.threads import DaemonThreads


class Now:
    def __init__(self):
        self.instant = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)

    def __call__(self):
        return self.instant


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def queues(tmp_path, now):
    return QueueFile(tmp_path / "queue.sqlite", clock=now)


@pytest.fixture
def runner_of(queues, tmp_path):
    """Give a function that makes the runner of a function; what failed comes again after 30 s, three times."""
    threads = DaemonThreads(limit=1)

    def make(call, *, queues=queues):
        function = QueueFunction(
            name="score_chunk",
            queue="chunks",
            connection="AzureWebJobsStorage",
            call=call,
            parameter="message",
            takes_context=False,
            is_async=True,
        )
        limits = QueueLimits(batch_size=1, max_dequeue_count=3, visibility_timeout=timedelta(seconds=30))
        invoker = Invoker(folder=tmp_path, threads=threads, timeout=None)
        return QueueRunner(function, queues=queues, invoker=invoker, limits=limits, poll_s=0.001)

    yield make
    threads.shutdown(wait=False)


async def test_a_message_that_is_done_with_is_gone(runner_of, queues, now):
    seen = []

    async def call(message: func.QueueMessage):
        seen.append((message.get_body(), message.dequeue_count))

    queues.put("chunks", b"icu.1")
    runner = runner_of(call)
    assert await runner.serve_one()
    now.instant += 2 * HIDDEN
    assert not await runner.serve_one()
    assert seen == [(b"icu.1", 1)]


async def test_a_message_that_failed_comes_again_after_a_while(runner_of, queues, now):
    counts = []

    async def call(message):
        counts.append(message.dequeue_count)
        if len(counts) < 2:
            raise RuntimeError("x")

    queues.put("chunks", b"icu.1")
    runner = runner_of(call)
    assert await runner.serve_one()
    now.instant += timedelta(seconds=29)
    assert not await runner.serve_one()
    now.instant += timedelta(seconds=1)
    assert await runner.serve_one()
    assert counts == [1, 2]


async def test_a_message_that_failed_too_often_is_put_aside(runner_of, queues, now, caplog):
    async def call(message):
        raise RuntimeError("x")

    queues.put("chunks", b"icu.1")
    runner = runner_of(call)
    for _ in range(3):
        assert await runner.serve_one()
        now.instant += timedelta(seconds=30)
    assert not await runner.serve_one()
    assert queues.take("chunks-poison", hidden=HIDDEN).body == b"icu.1"
    assert "chunks-poison" in caplog.text
    assert "icu.1" not in caplog.text


async def test_a_message_whose_takers_died_is_put_aside_without_another_try(runner_of, queues, now):
    async def call(message):
        raise AssertionError("tried")

    queues.put("chunks", b"icu.1")
    for _ in range(3):
        queues.take("chunks", hidden=HIDDEN)
        now.instant += HIDDEN
    assert await runner_of(call).serve_one()
    assert queues.take("chunks-poison", hidden=HIDDEN) is not None


async def test_a_stopping_host_finishes_what_is_under_way_and_takes_no_more(runner_of, queues):
    begun, ended = asyncio.Event(), []

    async def call(message):
        begun.set()
        await asyncio.sleep(0)
        ended.append(message.get_body())

    for body in (b"a", b"b"):
        queues.put("chunks", body)
    background = BackgroundRuns()
    runners = QueueRunners([runner_of(call)], batch_size=1, background=background)
    runners.start()
    await begun.wait()
    runners.stop()
    await background.drain(grace_s=5)
    assert ended == [b"a"]
    assert queues.take("chunks", hidden=HIDDEN).body == b"b"


async def test_a_queue_that_is_gone_for_a_while_stops_nobody(runner_of, queues, caplog):
    class Flaky:
        def __init__(self):
            self.failures = 2

        def take(self, queue, *, hidden):
            if self.failures:
                self.failures -= 1
                raise QueueUnavailable("gone")
            return queues.take(queue, hidden=hidden)

        def __getattr__(self, name):
            return getattr(queues, name)

    done = asyncio.Event()

    async def call(message):
        done.set()

    queues.put("chunks", b"a")
    background = BackgroundRuns()
    runners = QueueRunners([runner_of(call, queues=Flaky())], batch_size=1, background=background)
    runners.start()
    await asyncio.wait_for(done.wait(), 5)
    runners.stop()
    await background.drain(grace_s=5)
    assert caplog.text.count("queue unavailable") == 2


def test_host_json_says_how_messages_are_taken():
    text = (
        '{"version": "2.0", "extensions": {"queues": '
        '{"batchSize": 1, "maxDequeueCount": 7, "visibilityTimeout": "00:01:00", "newBatchThreshold": 0}}}'
    )
    limits = parse_host_json(text).queues
    assert limits == QueueLimits(batch_size=1, max_dequeue_count=7, visibility_timeout=timedelta(minutes=1))
    assert parse_host_json('{"version": "2.0"}').queues == QueueLimits()


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"batchSize": 33}', "batchSize"),
        ('{"batchSize": true}', "batchSize"),
        ('{"maxDequeueCount": 0}', "maxDequeueCount"),
        ('{"visibilityTimeout": 30}', "visibilityTimeout"),
        ('{"messageEncoding": "none"}', "messageEncoding"),
    ],
)
def test_host_json_is_refused_by_key(content, key):
    with pytest.raises(HostSetupError, match=f"extensions.queues.{key}: expected"):
        parse_host_json(f'{{"version": "2.0", "extensions": {{"queues": {content}}}}}')


def test_a_connection_that_is_none_is_refused_without_repeating_it(now):
    with pytest.raises(ValueError, match="expected") as refused:
        open_queues("AccountKey=canary", clock=now)
    assert "canary" not in str(refused.value)
