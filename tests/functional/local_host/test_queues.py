"""A served app takes messages from its queue, whoever put them there, and lists its queue functions."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.queue_file import QueueFile

MASTER = {"x-functions-key": "master-key"}
APP = """
    import asyncio

    app = func.FunctionApp()
    app.seen = asyncio.Queue()

    @app.queue_trigger(arg_name="message", queue_name="chunks", connection="Storage")
    async def drain(message: func.QueueMessage) -> None:
        app.seen.put_nowait((message.get_body(), message.dequeue_count))
"""


async def test_a_message_of_another_process_reaches_its_function(build, over_loopback, tmp_path):
    file = tmp_path / "queue.sqlite"
    built = build(APP, settings={"Storage": f"sqlite:{file}"}, clock=lambda: datetime.now(UTC))
    elsewhere = QueueFile(file, clock=lambda: datetime.now(UTC))
    async with over_loopback(built) as (session, _, _):
        elsewhere.put("chunks", b"icu.1")
        async with asyncio.timeout(20):
            assert await sys.modules["function_app"].app.seen.get() == (b"icu.1", 1)
        async with session.get("/admin/functions", headers=MASTER) as listed:
            [function] = await listed.json()
        async with session.post(
            "/admin/functions/drain", headers={**MASTER, "x-deployr-wait": "1"}, data=json.dumps({"input": "by hand"})
        ) as run:
            assert await run.json() == {"status": "succeeded"}
    assert function["config"]["bindings"] == [
        {"type": "queueTrigger", "direction": "in", "name": "message", "queueName": "chunks", "connection": "Storage"}
    ]
    assert elsewhere.take("chunks", hidden=timedelta(hours=1)) is None


def test_a_queue_without_its_connection_is_refused_by_the_settings_name(build):
    with pytest.raises(HostSetupError, match="function drain: setting Storage: expected sqlite: and a file"):
        build(APP)
