"""One slot's worklist, worked off by several hosts from one queue."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp

from benchmarks.patients import asked
from benchmarks.scale_hosts import House
from benchmarks.staging import NOW
from deployr_cli.demo.run import TASK
from deployr_serve.batch_bootstrap import QUEUE
from deployr_serve.core.batch_runs import Run, all_runs
from deployr_serve.core.ports import Records

SLOT = NOW + timedelta(hours=9)
"""When the batch is due; until the app's clock is moved there it is not."""
_NAME = "ward"
_LOOKED_AT_EVERY_S, _LONGEST_RUN_S = 0.25, 180.0
_MOST_PEEKED = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Worked:
    """What came of a slot. ``put_twice``: how many chunks were put on the queue again while they waited there."""

    patients: int
    chunks: int
    seconds: float
    put_twice: int
    state: str
    totals: Mapping[str, int]
    used_s: Mapping[str, float]


def declare_batch(folder: Path, *, first: int, patients: int, chunk_size: int) -> dict[str, str]:
    """Write a batch of so many patients, from ``first`` on, and its worklist; give the app's settings for it."""
    worklist = folder / "worklist.csv"
    rows = (asked(number, 0) for number in range(first, first + patients))
    lines = ("patientId,encounterId", *(f"{row.patient_id},{row.encounter_id}" for row in rows))
    worklist.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.utime(worklist, (NOW.timestamp(), NOW.timestamp()))
    batches = folder / "batches"
    batches.mkdir()
    declared = {
        "schema_version": 1,
        "name": _NAME,
        "models": f"[{TASK}]",
        "schedule": f'"0 0 {SLOT.hour} * * *"',
        "zone": "UTC",
        "chunk_size": chunk_size,
        "worklist": f"{{from: csv, file: {worklist}}}",
    }
    text = "".join(f"{key}: {value}\n" for key, value in declared.items())
    (batches / f"{_NAME}.yaml").write_text(text, encoding="utf-8")
    return {"DEPLOYR_BATCHES": str(batches)}


async def work_off(house: House, session: aiohttp.ClientSession, records: Records) -> Worked:
    """Fire the slot on every host at once, and wait until its run has ended; the app's clock stands at `SLOT` by now.

    Raises:
        TimeoutError: it did not end.
    """
    before, started = house.used_s(), time.perf_counter()
    await asyncio.gather(*(_fire(house, session, host) for host in house.hosts))
    put_twice = await asyncio.to_thread(_put_again, house.azure["AzureWebJobsStorage"])
    async with asyncio.timeout(_LONGEST_RUN_S):
        while (run := await _run(records)) is None or run.is_open:  # noqa: ASYNC110 the hosts end it
            await asyncio.sleep(_LOOKED_AT_EVERY_S)
    seconds, used = time.perf_counter() - started, house.used_s()
    return Worked(
        patients=run.patients,
        chunks=run.chunks,
        seconds=seconds,
        put_twice=put_twice,
        state=str(run.state),
        totals=run.totals,
        used_s={name: round(used[name] - before[name], 3) for name in used},
    )


async def _run(records: Records) -> Run | None:
    runs = await all_runs(records, now=SLOT)
    return next((run for run in runs if run.slot == SLOT), None)


async def _fire(house: House, session: aiohttp.ClientSession, host: str) -> None:
    headers = {"x-functions-key": house.processes.master_key, "x-deployr-wait": "1"}
    async with session.post(f"{host}/admin/functions/batch_{_NAME}", json={"input": ""}, headers=headers) as response:
        # Where the store had no time for it, another host began it, or the host's own timer does within a minute.
        await response.read()


def _put_again(connection: str) -> int:
    """Put what waits on the queue there once more, as a queue may that promises a message at least once."""
    from azure.storage.queue import QueueServiceClient

    with QueueServiceClient.from_connection_string(connection).get_queue_client(QUEUE) as queue:
        waiting = queue.peek_messages(max_messages=_MOST_PEEKED)
        for message in waiting:
            queue.send_message(message.content, time_to_live=-1)
    return len(waiting)
