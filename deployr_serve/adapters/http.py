"""HTTP to the EMR: one method, one deadline, one origin, and a limit on everything that comes back."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import aiohttp

from deployr_serve.adapters.tls import tls_context
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrThrottled,
    EmrTimeout,
    EmrTooLarge,
    EmrUnreachable,
    ServeError,
    TryLater,
)
from deployr_serve.core.ports import Budget, Clock

MAX_BODY_BYTES = 32 * 1024 * 1024
_LONGEST_RETRY_AFTER_S = 3600.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_READ_HEADERS = (
    "age",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "x-correlation-id",
    "x-request-id",
    "x-security-context",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request. ``form`` is sent as application/x-www-form-urlencoded, so that no identifier stands in a URL.

    ``repeatable``: it only reads, so that it may be sent again when no answer came. ``writes``: it changes something
    there, by services that may be down while those that read are not. ``budget``: what it may use, and the correlation
    id it is sent with; None leaves it to the transport's own limit. ``most_bytes``: of the answer, where that is less
    than the transport's own limit.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)
    repeatable: bool = False
    writes: bool = False
    budget: Budget | None = None
    most_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What came back: decoded (ungzipped) bytes, at most `MAX_BODY_BYTES`.

    ``requests``: how many were sent for it, repeats included.
    """

    status: int
    content_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By lower-case name: those that somebody here reads, and no others."""
    requests: int = 1


class Transport(Protocol):
    """The one seam between the adapters and the network."""

    async def send(self, request: Request) -> Response:
        """Send and read the whole answer, whatever its status.

        Raises:
            EmrUnreachable, EmrTimeout, EmrThrottled, EmrBadResponse, EmrTooLarge: no whole answer came.
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

    The deadline is the total of connecting, sending and reading, so a server that drips bytes cannot stretch it. TLS is
    1.2 or later, and certificates are always verified: against the machine's authorities and those in ``ca_file``.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        clock: Clock,
        connections: int = 64,
        ca_file: Path | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Open nothing yet.

        Args:
            timeout_s: the longest that any call takes; a request's budget may leave it less.
            clock: what the budgets' deadlines are measured on.
            connections: the most that are open at a time, to each origin.
            ca_file: certificates (PEM) of a hospital's own authority.
            max_body_bytes: of one answer, once it is unpacked.

        Raises:
            OSError, ssl.SSLError: the file cannot be read, or holds no certificates.
        """
        self._timeout_s = timeout_s
        self._clock = clock
        self._connections = connections
        # aiohttp's own context verifies and asks for TLS 1.2 as well; made once, at its import.
        self._tls = True if ca_file is None else tls_context(ca_file)
        self._max_body_bytes = max_body_bytes
        self._open: AsyncGenerator[aiohttp.ClientSession] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Response:
        left_s = self._timeout_s
        headers = dict(request.headers)
        if request.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if request.budget is not None:
            left_s = min(left_s, request.budget.deadline - self._clock.monotonic())
            headers.update(_correlation_headers(request.budget))
        if left_s <= 0:
            raise EmrTimeout("expected time left to ask the EMR, but the request's budget is spent")
        try:
            return await self._sent(request, headers, left_s)
        except TryLater as error:
            error.requests = 1
            raise

    async def aclose(self) -> None:
        """Close the connections; they are opened again when they are needed again."""
        opened, self._open, self._session = self._open, None, None
        if opened is not None:
            await opened.aclose()

    async def _sent(self, request: Request, headers: Mapping[str, str], left_s: float) -> Response:
        try:
            async with (
                asyncio.timeout(left_s),
                (await self._opened()).request(
                    request.method,
                    request.url,
                    headers=headers,
                    data=request.body if request.form is None else urlencode(request.form).encode("ascii"),
                    allow_redirects=False,
                ) as response,
            ):
                limit = self._max_body_bytes
                limit = limit if request.most_bytes is None else min(limit, request.most_bytes)
                body = await _read_limited(response, limit)
                return Response(
                    status=response.status,
                    content_type=response.content_type,
                    body=body,
                    headers={name: response.headers[name] for name in _READ_HEADERS if name in response.headers},
                )
        except TimeoutError:
            raise EmrTimeout("expected an answer from the EMR within its time limit") from None
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError):
            # Not chained: these repeat the URL and bytes of the answer.
            raise EmrBadResponse("expected a whole answer from the EMR, got a part of one, or no HTTP") from None
        except aiohttp.ClientSSLError as error:
            raise EmrUnreachable("expected TLS 1.2 or later, with a certificate for the EMR that we trust") from error
        except aiohttp.ClientError as error:
            raise EmrUnreachable("expected the EMR to take the connection") from error

    async def _opened(self) -> aiohttp.ClientSession:
        # Made on first use: it belongs to the event loop that runs the requests. The worker has no hook to close it
        # by, but a loop that is shut down closes its async generators, and so closes the session with this one.
        if self._session is None:
            self._open = _session(self._connections, self._tls)
            self._session = await anext(self._open)
        return self._session


async def _session(connections: int, tls: ssl.SSLContext | bool) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=connections, ttl_dns_cache=60, ssl=tls),
        # Only codings whose unpacking stops at a chunk: not whatever the installed packages happen to add.
        headers={"Accept-Encoding": "gzip, deflate"},
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield session


def _correlation_headers(budget: Budget) -> dict[str, str]:
    """Give the headers that the EMR's logs can be matched by; none for an id that could break out of its line."""
    if not _CORRELATION_ID.fullmatch(budget.correlation_id):
        return {}
    return {"X-Correlation-Id": budget.correlation_id, "X-Request-Id": budget.correlation_id}


async def _read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    too_large = f"expected an answer of at most {limit} bytes"
    if (response.content_length or 0) > limit:
        raise EmrTooLarge(too_large)
    chunks = []
    size = 0
    # Chunks come unpacked, and a few 100 kB each at the most, so that a bomb is not held any longer than this.
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise EmrTooLarge(too_large)
        chunks.append(chunk)
    return b"".join(chunks)


def error_of_status(response: Response) -> ServeError | None:
    """Class an answer by what can be done about its status; None for success.

    404, 410 and 422 are the caller's to interpret, so they come out as a bad response here. So does a redirect: it is
    never followed, because it may lead anywhere.
    """
    status = response.status
    error: ServeError
    if 200 <= status < 300:
        return None
    if status in {401, 403}:
        error = EmrRefused(f"expected the EMR to accept our credentials and scopes, got status {status}")
    elif status == 429:
        error = EmrThrottled("expected the EMR to take this request, got status 429: it asks for fewer")
        error.retry_after_s = retry_after_s(response.headers)
    elif status in {408, 425} or status >= 500:
        error = EmrUnreachable(f"expected the EMR to be available, got status {status}")
        error.retry_after_s = retry_after_s(response.headers)
    else:
        error = EmrBadResponse(f"expected success from the EMR, got status {status}")
    error.requests = response.requests
    return error


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Give the seconds for which the server asks to be left alone, at most an hour.

    A date is taken relative to the answer's own ``Date``, so that it does not matter what time our clock has. None if
    it asks for nothing, or for what cannot be meant: the past, more than an hour, or no time at all.

    Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    try:
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            until, answered = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
            seconds = (until - answered).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LONGEST_RETRY_AFTER_S else None
