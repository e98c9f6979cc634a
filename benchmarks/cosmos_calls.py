"""What a request costs the store: the calls that reach Cosmos DB, counted on the wire between the SDK and its stand-in.

The service charges by the call, its kind and its size. The stand-in tells no charge, so calls are counted here, and
what they would be charged is reckoned from the service's rules in `benchmarks.capacity`.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

_HOP_BY_HOP = frozenset({"host", "connection", "transfer-encoding", "content-length", "content-encoding"})
_LARGEST = 16 * 2**20


@dataclass(kw_only=True, slots=True)
class Calls:
    """Calls by what they do: ``create``, ``replace``, ``delete``, ``read``, ``query`` or ``batch`` and the container's
    name, such as ``create packets``; everything about the account, databases and containers is ``layout``.

    ``sent_bytes``: of the bodies sent, by the same names.
    """

    counted: Counter[str] = field(default_factory=Counter)
    sent_bytes: Counter[str] = field(default_factory=Counter)

    def note(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Count one call."""
        name = kind_of(method, path, headers)
        self.counted[name] += 1
        self.sent_bytes[name] += len(body)

    def forget(self) -> None:
        """Begin anew."""
        self.counted.clear()
        self.sent_bytes.clear()


def kind_of(method: str, path: str, headers: Mapping[str, str]) -> str:
    """Name what a call does.

    Args:
        method: of HTTP.
        path: ``/dbs/DATABASE/colls/CONTAINER/docs/ID``, and what is above that.
        headers: by their names in any case.

    Source: Microsoft Learn, "Azure Cosmos DB for NoSQL REST API": documents, query and transactional batch.
    """
    parts = path.strip("/").split("/")
    if len(parts) < 5 or parts[4] != "docs":
        return "layout"
    told = {name.lower(): value.lower() for name, value in headers.items()}
    if told.get("x-ms-documentdb-isquery") == "true" or told.get("content-type", "").startswith("application/query"):
        return f"query {parts[3]}"
    if told.get("x-ms-cosmos-is-batch-request") == "true":
        return f"batch {parts[3]}"
    done = {"POST": "create", "PUT": "replace", "GET": "read", "DELETE": "delete"}.get(method, method.lower())
    return f"{done} {parts[3]}"


@asynccontextmanager
async def counting(address: str, calls: Calls) -> AsyncIterator[str]:
    """Stand in front of the store at this address, and count into ``calls``; give where."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def passed_on(request: web.Request) -> web.Response:
            body = await request.read()
            calls.note(request.method, request.path, request.headers, body)
            # The account says where to find it by the name that it was asked by.
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
            headers["Host"] = request.headers["Host"]
            async with session.request(
                request.method, address + request.path_qs, data=body, headers=headers
            ) as response:
                kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=response.status, body=await response.read(), headers=kept)

        app = web.Application(client_max_size=_LARGEST)
        app.router.add_route("*", "/{rest:.*}", passed_on)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        try:
            await web.SockSite(runner, listening).start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await runner.cleanup()
