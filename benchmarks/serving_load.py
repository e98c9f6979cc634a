"""`python -m benchmarks.serving_load PLAN`: sends prepared requests, in a process of its own, and prints what came.

It speaks just enough HTTP/1.1 to cost next to nothing beside what it measures: kept-alive connections, answers of a
given length.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

_LONGEST_S = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent where. ``warming``: sent first, one by one, and not measured. ``marker``: stands in each answer."""

    host: str
    port: int
    at_once: int
    warming: tuple[bytes, ...]
    requests: tuple[bytes, ...]
    marker: bytes


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: ms of each request, and seconds from the first one's beginning to the last one's end."""

    latencies_ms: tuple[float, ...]
    elapsed_s: float
    last: bytes


class _Connection:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._plan.host, self._plan.port)

    async def ask(self, request: bytes) -> bytes:
        """Give the answer's body.

        Raises:
            RuntimeError: it is not a good one.
        """
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"
        )
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or self._plan.marker not in body:
            raise RuntimeError(f"expected a good answer, got {head[:40]!r} and {body[:300]!r}")
        return body

    def close(self) -> None:
        self._writer.close()


async def _send(plan: Plan) -> Came:
    connections = [_Connection(plan) for _ in range(plan.at_once)]
    for connection in connections:
        await connection.open()
    for number, request in enumerate(plan.warming):
        await connections[number % len(connections)].ask(request)
    waiting, latencies, bodies = iter(plan.requests), [], [b""]

    async def work(connection: _Connection, requests: Iterator[bytes]) -> None:
        for request in requests:
            began = time.perf_counter()
            bodies[0] = await connection.ask(request)
            latencies.append((time.perf_counter() - began) * 1000)

    started = time.perf_counter()
    async with asyncio.timeout(_LONGEST_S), asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(work(connection, waiting))
    elapsed = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return Came(latencies_ms=tuple(latencies), elapsed_s=elapsed, last=bodies[0])


if __name__ == "__main__":
    asked = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    sys.stdout.buffer.write(msgspec.msgpack.encode(asyncio.run(_send(asked))))
