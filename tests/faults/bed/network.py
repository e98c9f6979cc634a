"""Watches where this process connects to, and which names it looks up."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp.connector


@dataclass
class Watched:
    """Every address that was connected to, and every name that was looked up."""

    connected: set[tuple[str, int]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


@contextmanager
def watched_network() -> Iterator[Watched]:
    """Watch, and answer the look-up of anything but an address of this machine with "no such name"."""
    seen = Watched()
    connect, look_up = asyncio.SelectorEventLoop.sock_connect, asyncio.SelectorEventLoop.getaddrinfo

    async def sock_connect(loop: Any, sock: socket.socket, address: Any) -> None:
        seen.connected.add((str(address[0]), int(address[1])))
        await connect(loop, sock, address)

    async def getaddrinfo(loop: Any, host: str, port: int, **how: Any) -> Any:
        if host == "127.0.0.1":
            return await look_up(loop, host, port, **how)
        seen.names.add(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with (
        patch.object(asyncio.SelectorEventLoop, "sock_connect", sock_connect),
        patch.object(asyncio.SelectorEventLoop, "getaddrinfo", getaddrinfo),
    ):
        yield seen


@contextmanager
def trusting(authority: Path) -> Iterator[None]:
    """Let this process trust one authority more, as a site's machine does; everything else stays checked."""
    make = ssl.create_default_context

    def make_trusting(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        context = make(*args, **kwargs)
        context.load_verify_locations(authority)
        return context

    checked = make_trusting()
    with (
        patch.object(ssl, "create_default_context", make_trusting),
        patch.object(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", checked),
    ):
        yield


@asynccontextmanager
async def foreign_host() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Listen where nobody may come, and give the origin with what arrived there all the same."""
    arrived: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read(4096))
        body = b'{"resourceType":"Bundle","type":"searchset","total":0,"access_token":"foreign","token_type":"bearer"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", arrived
