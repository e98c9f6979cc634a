"""A host around a function_app.py that a test writes, driven in process or over loopback."""

import asyncio
import sys
import textwrap
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import pytest

from deployr_serve.local_host.keys import HostKeys
from deployr_serve.local_host.serve import build_host, serve

MASTER = {"x-functions-key": "master-key"}
FUNCTION = {"x-functions-key": "function-key"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list
    body: bytes

    def header(self, name):
        return [value for key, value in self.headers if key == name]


class InProcess:
    """Calls the ASGI app as a server would."""

    def __init__(self, built):
        self.built = built

    async def __call__(self, method, target, *, headers=None, body=b"", chunks=None):
        path, _, query = target.partition("?")
        parts = [body] if chunks is None else chunks
        messages = [
            {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
            for index, part in enumerate(parts)
        ]
        sent = []

        async def receive():
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"emr.test"), *_encoded(headers or {})],
            "server": ("127.0.0.1", 7071),
            "client": ("127.0.0.1", 50000),
        }
        await self.built.asgi(scope, receive, send)
        start = sent[0]
        body = b"".join(message.get("body", b"") for message in sent[1:])
        pairs = [(key.decode(), value.decode("latin-1")) for key, value in start["headers"]]
        return Reply(start["status"], pairs, body)


def _encoded(headers):
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]


@pytest.fixture
def app_file(tmp_path, monkeypatch):
    """Write a function_app.py; a later host imports it."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source, *, host_json='{"version": "2.0"}', **modules):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text("import azure.functions as func\n" + textwrap.dedent(text))
        (tmp_path / "function_app.py").write_text("import azure.functions as func\n" + textwrap.dedent(source))
        (tmp_path / "host.json").write_text(host_json)
        return tmp_path / "function_app.py"

    yield write
    sys.modules.pop("function_app", None)


@pytest.fixture
def build(app_file):
    """A host, not yet serving."""
    threads = []

    def build(source, *, host_json='{"version": "2.0"}', modules=None, **options):
        built = build_host(
            app_path=app_file(source, host_json=host_json, **(modules or {})),
            keys=HostKeys(master="master-key", function="function-key"),
            settings=options.pop("settings", {}),
            state_dir=options.pop("state_dir", None),
            clock=options.pop("clock", lambda: datetime(2026, 3, 1, 12, tzinfo=UTC)),
            **options,
        )
        threads.append(built.threads)
        return built

    yield build
    for pool in threads:
        pool.shutdown(wait=True, cancel_futures=True)


@pytest.fixture
def host(build):
    """A host that a test calls in process."""

    def make(source, **options):
        return InProcess(build(source, **options))

    return make


@pytest.fixture
def over_loopback():
    """Serve a host on a free port; gives its address and the event that stops it."""

    @asynccontextmanager
    async def serving(built, *, grace_s=10.0):
        lines, stop = asyncio.Queue(), asyncio.Event()
        task = asyncio.create_task(serve(built, port=0, announce=lines.put_nowait, grace_s=grace_s, stop=stop))
        ready = asyncio.create_task(lines.get())
        async with asyncio.timeout(20):
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            task.result()
        line = await ready
        assert line.startswith("Ready http://127.0.0.1:")
        async with aiohttp.ClientSession(line.removeprefix("Ready ")) as session:
            try:
                yield session, stop, task
            finally:
                stop.set()
                async with asyncio.timeout(20):
                    await task

    return serving
