"""A proxy that says who is signed in, in a header of each request and WebSocket, as a site's own does.

A browser's debugger could add the header itself, but some versions of Chromium leave it out of WebSockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

_OF_THE_CONNECTION = frozenset(
    {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}
)


@dataclass(kw_only=True)
class NamingProxy:
    """Where it answers, and whom it names; None names nobody."""

    address: str = ""
    named: str | None = None


@asynccontextmanager
async def naming_proxy(behind: str) -> AsyncIterator[NamingProxy]:
    """Run one before the address, which ends with a slash, until the block ends."""
    proxy = NamingProxy()
    async with aiohttp.ClientSession(auto_decompress=True) as session:

        def headers_of(request: web.Request) -> dict[str, str]:
            kept = {
                name: value
                for name, value in request.headers.items()
                if name.lower() not in _OF_THE_CONNECTION and not name.lower().startswith("sec-websocket")
            }
            return kept if proxy.named is None else {**kept, "X-Forwarded-User": proxy.named}

        async def answer(request: web.Request) -> web.StreamResponse:
            address = behind + request.path_qs.removeprefix("/")
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await passed_on(request, address)
            async with session.request(
                request.method, address, headers=headers_of(request), data=await request.read(), allow_redirects=False
            ) as came:
                kept = {name: value for name, value in came.headers.items() if name.lower() not in _OF_THE_CONNECTION}
                return web.Response(status=came.status, headers=kept, body=await came.read())

        async def passed_on(request: web.Request, address: str) -> web.StreamResponse:
            offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if each]
            async with session.ws_connect(address, headers=headers_of(request), protocols=offered) as theirs:
                ours = web.WebSocketResponse(protocols=[theirs.protocol] if theirs.protocol else ())
                await ours.prepare(request)

                async def pass_on(
                    one: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
                    other: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
                ) -> None:
                    async for message in one:
                        if message.type is aiohttp.WSMsgType.BINARY:
                            await other.send_bytes(message.data)
                        elif message.type is aiohttp.WSMsgType.TEXT:
                            await other.send_str(message.data)
                    await other.close()

                await asyncio.gather(pass_on(ours, theirs), pass_on(theirs, ours), return_exceptions=True)
                return ours

        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            [[_, port]] = runner.addresses
            proxy.address = f"http://127.0.0.1:{port}/"
            yield proxy
        finally:
            await runner.cleanup()
