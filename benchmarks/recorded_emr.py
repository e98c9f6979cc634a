"""An EMR that answers at once: each answer is fetched from another EMR the first time, and sent again from memory.

So that what is measured beside it is the reader's processor time alone: an EMR that renders its answers meanwhile may
share the processor's core with the reader, and slow it down.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

_Asked = tuple[bytes, bytes]
_HOP = {"connection", "content-encoding", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


@contextmanager
def recorded(origin: str) -> Iterator[str]:
    """Start it as a process of its own, in front of the EMR at ``origin``; give its own origin."""
    command = [sys.executable, "-m", "benchmarks.recorded_emr", origin]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 our own module
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise RuntimeError("expected the recorded EMR to say its port")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


class _RecordedEmr:
    def __init__(self, origin: str, session: aiohttp.ClientSession) -> None:
        self._origin = origin
        self._session = session
        self._answers: dict[_Asked, bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head[:-4].split(b"\r\n")
                headers = {
                    name.strip().lower(): value.strip() for name, _, value in (it.partition(b":") for it in lines)
                }
                body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
                asked = first, body
                if asked not in self._answers:
                    self._answers[asked] = await self._fetch(first, headers, body)
                writer.write(self._answers[asked])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The reader has gone.
            pass
        finally:
            writer.close()

    async def _fetch(self, first: bytes, headers: dict[bytes, bytes], body: bytes) -> bytes:
        method, path, _ = first.decode().split(" ")
        passed = {name.decode(): value.decode() for name, value in headers.items() if name.decode() not in _HOP}
        async with self._session.request(method, self._origin + path, data=body, headers=passed) as response:
            content = await response.read()
            kept = [f"{name}: {value}" for name, value in response.headers.items() if name.lower() not in _HOP]
            lines = [f"HTTP/1.1 {response.status} {response.reason}", *kept, f"Content-Length: {len(content)}"]
            return "\r\n".join([*lines, "", ""]).encode() + content


async def _main(origin: str) -> None:
    async with aiohttp.ClientSession() as session:
        server = await asyncio.start_server(_RecordedEmr(origin, session).serve, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
