"""Listening on loopback: a free port first, then the app that knows its own address, then the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"


class Host(uvicorn.Server):
    """A server that says when it listens, and leaves the process's signals alone."""

    def __init__(self, app: ASGIApp, *, on_ready: Callable[[], None]) -> None:
        """Serve ``app``, and call ``on_ready`` once when connections are answered."""
        # No access log: it would print queries, and those name patients.
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", ws="none", lifespan="off", timeout_graceful_shutdown=5
        )
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the loop."""
        yield

    def stop(self) -> None:
        """Finish the calls underway, then end."""
        self.should_exit = True


def bound_socket(port: int = 0) -> socket.socket:
    """Give a socket bound to loopback; port 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    # asyncio turns Nagle's algorithm off only where the socket names its protocol; with it on, every answer on a
    # connection that is kept open waited 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
    except OSError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket) -> str:
    """Give the origin that a bound socket will answer at, without a slash at its end."""
    return f"http://{LOOPBACK}:{sock.getsockname()[1]}"


@contextlib.asynccontextmanager
async def listening(make_app: Callable[[str], ASGIApp], *, port: int = 0) -> AsyncIterator[str]:
    """Run an app in this process and loop, for as long as the context lasts; gives its origin.

    Args:
        make_app: makes the app, given its origin.
        port: the port, or 0 for a free one.
    """
    with contextlib.closing(bound_socket(port)) as sock:
        ready = asyncio.Event()
        host = Host(make_app(url_of(sock)), on_ready=ready.set)
        running = asyncio.create_task(host.serve(sockets=[sock]))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if running.done():
                running.result()
            yield url_of(sock)
        finally:
            host.stop()
            await running
