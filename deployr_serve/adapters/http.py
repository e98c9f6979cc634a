"""HTTP to the EMR: one method, one deadline, one origin, and a limit on everything that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp

from deployr_serve.core.errors import EmrBadResponse, EmrRefused, EmrTimeout, EmrUnreachable, ServeError

MAX_BODY_BYTES = 32 * 1024 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request. ``form`` is sent as application/x-www-form-urlencoded, so that no identifier stands in a URL."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What came back: decoded (ungzipped) bytes, at most `MAX_BODY_BYTES`."""

    status: int
    content_type: str
    body: bytes = field(repr=False)


class Transport(Protocol):
    """The one seam between the adapters and the network."""

    async def send(self, request: Request) -> Response:
        """Send and read the whole answer, whatever its status.

        Raises:
            EmrUnreachable, EmrTimeout, EmrBadResponse: no whole answer came.
        """


def origin(url: str) -> tuple[str, str, int]:
    """Give scheme, host and port: what decides whether a credential may be sent along.

    Raises:
        ValueError: not an http(s) URL with a host, or one that carries a user name.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("expected an http or https URL with a host and without a user name")
    return parts.scheme, parts.hostname.lower(), parts.port or _DEFAULT_PORTS[parts.scheme]


class AiohttpTransport:
    """Connections are kept open and shared; redirects are not followed; proxies of the environment are not used.

    The deadline is the total of connecting, sending and reading, so a server that drips bytes cannot stretch it.
    """

    def __init__(self, *, timeout_s: float, max_connections: int = 64) -> None:
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._open: AsyncGenerator[aiohttp.ClientSession] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Response:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                (await self._opened()).request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.body if request.form is None else aiohttp.FormData(request.form),
                    allow_redirects=False,
                ) as response,
            ):
                body = await _read_limited(response)
                return Response(status=response.status, content_type=response.content_type, body=body)
        except TimeoutError:
            raise EmrTimeout("expected an answer from the EMR within its time limit") from None
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError):
            # Not chained: these repeat the URL and bytes of the answer.
            raise EmrBadResponse("expected a whole answer from the EMR, got a part of one, or no HTTP") from None
        except aiohttp.ClientError as error:
            raise EmrUnreachable("expected the EMR to take the connection") from error

    async def aclose(self) -> None:
        """Close the connections; they are opened again when they are needed again."""
        opened, self._open, self._session = self._open, None, None
        if opened is not None:
            await opened.aclose()

    async def _opened(self) -> aiohttp.ClientSession:
        # Made on first use: it belongs to the event loop that runs the requests. The worker has no hook to close it
        # by, but a loop that is shut down closes its async generators, and so closes the session with this one.
        if self._session is None:
            self._open = _session(self._max_connections)
            self._session = await anext(self._open)
        return self._session


async def _session(max_connections: int) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield session


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise EmrBadResponse("expected an answer of at most 32 MiB")
        chunks.append(chunk)
    return b"".join(chunks)


def error_of_status(status: int) -> ServeError | None:
    """Class an HTTP status by what can be done about it; None for success.

    404, 410 and 422 are the caller's to interpret, so they come out as a bad response here.
    """
    if 200 <= status < 300:
        return None
    if status in {401, 403}:
        return EmrRefused(f"expected the EMR to accept our credentials and scopes, got status {status}")
    if status in {408, 425, 429} or status >= 500:
        return EmrUnreachable(f"expected the EMR to be available, got status {status}")
    return EmrBadResponse(f"expected success from the EMR, got status {status}")
