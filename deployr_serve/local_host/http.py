"""The HTTP side: from a request to a function and back."""

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl, quote

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from deployr_serve.local_host.http_codec import Answer, NotAnAnswer, answer_of, function_request, joined
from deployr_serve.local_host.invocation import Invoker, Outcome, Returned
from deployr_serve.local_host.keys import HostKeys, opens
from deployr_serve.local_host.routes import Matched, NotThere, Route, WrongMethod, resolve

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 100 * 1024 * 1024
"""Azure's own limit. Source: Microsoft Learn, "Azure Functions HTTP trigger", section "Limits"."""

LANDING_PAGE = (
    b"This Azure Functions app is up and running on deployr's local host.\n"
    b"GET /admin/functions with the master key in x-functions-key lists what it serves.\n"
)

_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)


class BodyTooLarge(Exception):
    """A request's body is over the limit."""


class FunctionsEndpoint:
    """An ASGI app that answers with the functions of the app, and on ``/`` with a landing page.

    It never raises what a function raised: a server would print it, and it may hold a patient's values.
    """

    def __init__(self, *, routes: Iterable[Route], keys: HostKeys, invoker: Invoker, max_body_bytes: int) -> None:
        self._routes = tuple(routes)
        self._keys = keys
        self._invoker = invoker
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except BodyTooLarge:
            answer = Answer(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # The stopping host ran out of patience. Uvicorn would print what it is given, with what led to it.
            answer = Answer(status=HTTPStatus.SERVICE_UNAVAILABLE)
        await send_answer(answer, method=request.method, send=send)

    async def _answer(self, request: Request) -> Answer:
        raw_path = raw_path_of(request)
        match resolve(self._routes, method=request.method, raw_path=raw_path):
            case NotThere():
                if raw_path == b"/" and request.method in {"GET", "HEAD"}:
                    return Answer(status=HTTPStatus.OK, headers=_TEXT, body=LANDING_PAGE)
                return Answer(status=HTTPStatus.NOT_FOUND)
            case WrongMethod(allow=allow):
                methods = ", ".join(sorted({*allow, "OPTIONS"})).encode()
                asked = request.method == "OPTIONS"
                status = HTTPStatus.NO_CONTENT if asked else HTTPStatus.METHOD_NOT_ALLOWED
                return Answer(status=status, headers=((b"allow", methods),))
            case Matched(function=function, route_params=route_params):
                if not opens(function.auth_level, offered=offered_key(request), keys=self._keys):
                    return Answer(status=HTTPStatus.UNAUTHORIZED)
                headers = joined(request.headers.items())
                argument = function_request(
                    method=request.method,
                    url=url_of(request, raw_path=raw_path),
                    query=request.scope["query_string"],
                    headers=headers,
                    route_params=route_params,
                    body=await read_body(request, limit=self._max_body_bytes),
                )
                outcome = await self._invoker.run(function, argument, headers=headers)
                return answer_to(outcome, function_name=function.name)


def answer_to(outcome: Outcome, *, function_name: str) -> Answer:
    """What the caller gets for a run: the function's answer, or 500 with nothing in it."""
    if isinstance(outcome, Returned):
        try:
            return answer_of(outcome.value)
        except NotAnAnswer:
            logger.error(  # noqa: TRY400 - no traceback: it shows values
                "function=%s returned what cannot be sent: %s", function_name, type(outcome.value).__name__
            )
    return Answer(status=HTTPStatus.INTERNAL_SERVER_ERROR)


def offered_key(request: Request) -> str | None:
    """The key that came with a request: in ``x-functions-key``, else as ``code`` in the query.

    Source: azure-functions-host, ``AuthenticationLevelHandler.GetAuthorizationKeyInfoAsync``.
    """
    in_header = request.headers.get("x-functions-key")
    if in_header is not None:
        return in_header
    query: bytes = request.scope["query_string"]
    return next((value for name, value in parse_qsl(query.decode("latin-1")) if name == "code"), None)


async def read_body(request: Request, *, limit: int) -> bytes:
    """All of a request's body.

    Raises:
        BodyTooLarge: it is, or says that it is, over ``limit`` bytes.
        ClientDisconnect: the caller went away.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise BodyTooLarge
    chunks, size = [], 0
    async for chunk in request.stream():
        if chunk:
            chunks.append(chunk)
            size += len(chunk)
        if size > limit:
            raise BodyTooLarge
    return b"".join(chunks)


def raw_path_of(request: Request) -> bytes:
    """The path as it was sent, percent-encoded, without the query."""
    raw: bytes | None = request.scope.get("raw_path")
    return (raw or quote(request.scope["path"]).encode()).partition(b"?")[0]


def url_of(request: Request, *, raw_path: bytes) -> str:
    """The complete URL of a request as its caller wrote it."""
    host = request.headers.get("host")
    if host is None:
        name, port = request.scope.get("server") or ("localhost", None)
        host = f"{name}:{port}" if port else name
    query: bytes = request.scope["query_string"]
    path_and_query = raw_path + b"?" + query if query else raw_path
    return f"{request.scope['scheme']}://{host}{path_and_query.decode('latin-1')}"


async def send_answer(answer: Answer, *, method: str, send: Send) -> None:
    """Put an answer on the wire; the answer to HEAD has its length but not its body."""
    headers = list(answer.headers)
    if answer.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
