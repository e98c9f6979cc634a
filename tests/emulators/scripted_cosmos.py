"""A small server between the real SDK and the Cosmos DB stand-in, that does what no stand-in does: it fails.

It refuses before anything is written, or lets the write happen and then loses the answer. Faults are data, so that a
row of the fault table can hold them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
import msgspec
from aiohttp import web

Operation = Literal["create", "replace", "upsert", "delete", "read", "query", "batch", "container", "account", "other"]
WRITES: tuple[Operation, ...] = ("create", "replace", "upsert", "delete", "batch")
_NOT_PASSED_ON = {"content-length", "transfer-encoding", "connection", "content-encoding", "keep-alive"}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with the calls that it is about.

    ``on``: these operations, in YAML ``operations``; empty: every one on documents. ``container``: in this one only.
    ``after``: so many of them go well first; ``times``: so many go wrong, None all that follow. ``status``: what is
    answered, with ``substatus``, ``message`` and ``headers``. ``commits``: the call is carried out before; only its
    answer is wrong. ``wire``: whole; drop: the connection is closed without an answer; hang: nothing comes.
    ``delay_s``: how long the answer, a good one where there is no status, takes longer.
    """

    on: tuple[Operation, ...] = msgspec.field(default=(), name="operations")
    container: str | None = None
    after: int = 0
    times: int | None = 1
    status: int | None = None
    substatus: int | None = None
    message: str = "as scripted"
    headers: Mapping[str, str] = {}
    commits: bool = False
    wire: Literal["whole", "drop", "hang"] = "whole"
    delay_s: float = 0.0


class ScriptedCosmos:
    """Passes on what the SDK asks, but for the faults.

    ``calls`` are the operations, in order, as they came; ``queries`` the texts of those that were queries.

    Args:
        upstream: the address of the stand-in. `fail` adds faults at any time, `heal` takes all of them away.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._faults: list[tuple[Fault, list[int]]] = []
        self._released = asyncio.Event()
        self.calls: list[Operation] = []
        self.queries: list[str] = []

    def fail(self, *faults: Fault) -> None:
        """Let these things go wrong from now on; of several that fit a call, the first that is due."""
        self._faults += [(fault, [0]) for fault in faults]

    def heal(self) -> None:
        """Let everything go well from now on; what hangs goes on hanging."""
        self._faults.clear()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen on a free port of this machine; give the address."""
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            try:
                yield f"http://{host}:{port}"
            finally:
                self._released.set()
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        operation, container = _operation(request), _container(request)
        self.calls.append(operation)
        fault = self._due(operation, container)
        body = await request.read()
        if operation == "query":
            self.queries.append(msgspec.json.decode(body)["query"])
        if fault is None or fault.commits or (fault.status is None and fault.wire == "whole"):
            passed_on = await self._passed_on(request, body)
        if fault is None:
            return passed_on
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.wire == "drop":
            assert request.transport is not None
            request.transport.abort()
        if fault.wire == "hang":
            await self._released.wait()
        if fault.wire != "whole":
            return web.Response(status=500)
        if fault.status is None:
            return passed_on
        substatus = {} if fault.substatus is None else {"x-ms-substatus": str(fault.substatus)}
        content = {"code": str(fault.status), "message": fault.message}
        return web.json_response(content, status=fault.status, headers={**substatus, **fault.headers})

    def _due(self, operation: Operation, container: str | None) -> Fault | None:
        due = None
        for fault, counted in self._faults:
            about = operation in (fault.on or (*WRITES, "read", "query"))
            if not about or (fault.container or container) != container:
                continue
            counted[0] += 1
            ordinal = counted[0] - fault.after
            if due is None and ordinal >= 1 and (fault.times is None or ordinal <= fault.times):
                due = fault
        return due

    async def _passed_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
        url = self._upstream + request.raw_path
        async with self._session.request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
            return web.Response(status=answer.status, body=content, headers=kept)


def _operation(request: web.Request) -> Operation:
    match request.path.strip("/").split("/"):
        case [""]:
            return "account"
        case ["dbs", _, "colls", _]:
            return "container"
        case ["dbs", _, "colls", _, "docs"] if request.method == "POST":
            if request.headers.get("x-ms-cosmos-is-batch-request", "").lower() == "true":
                return "batch"
            if request.headers.get("x-ms-documentdb-isquery", "").lower() == "true":
                return "query"
            return "upsert" if request.headers.get("x-ms-documentdb-is-upsert", "").lower() == "true" else "create"
        case ["dbs", _, "colls", _, "docs", _]:
            by_method: dict[str, Operation] = {"GET": "read", "PUT": "replace", "DELETE": "delete"}
            return by_method.get(request.method, "other")
    return "other"


def _container(request: web.Request) -> str | None:
    parts = request.path.strip("/").split("/")
    return parts[3] if len(parts) > 3 else None
