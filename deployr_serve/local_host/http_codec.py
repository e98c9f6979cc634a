"""Between HTTP on the wire and what a function takes and returns."""

import http
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import azure.functions as func
from azure.functions.http import HttpRequest as WorkerHttpRequest

_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})
_BODILESS = frozenset({204, 205, 304})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer ready for the wire.

    Attributes:
        status: from 200 to 599.
        headers: names in lower case; a name may come more than once. Without Content-Length.
        body: empty where ``status`` allows none.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


class NotAnAnswer(TypeError):
    """A function returned something that HTTP cannot carry."""


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pairs as the worker sees headers and query: one value per name, repeated ones joined by a comma.

    Source: azure-functions-host, ``GrpcMessageConversionExtensions`` (``StringValues.ToString()``).
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def function_request(
    *,
    method: str,
    url: str,
    query: bytes,
    headers: Mapping[str, str],
    route_params: Mapping[str, str],
    body: bytes,
) -> func.HttpRequest:
    """The request as a function on the real worker gets it: of its very class, the body as bytes.

    Args:
        method: as sent.
        url: complete, with its query.
        query: the same query, not decoded.
        headers: names in lower case, one value each.
        route_params: by name; those that are optional and absent are left out.
        body: all of it.
    """
    params = joined(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    return WorkerHttpRequest(
        method=method,
        url=url,
        headers=headers,
        params=params,
        route_params=route_params,
        body_type="bytes",
        body=body,
    )


def answer_of(value: object) -> Answer:
    """What a function returned, as an answer.

    Raises:
        NotAnAnswer: it is neither a response nor text, or its status or a header cannot be sent. The message
            names the type only.

    Source: azure-functions-python-library, ``HttpResponseConverter.encode``; a text becomes 200 text/plain as
    ASP.NET Core's StringOutputFormatter sends it.
    """
    if isinstance(value, str):
        return Answer(status=200, headers=((b"content-type", b"text/plain; charset=utf-8"),), body=value.encode())
    if not isinstance(value, func.HttpResponse):
        raise NotAnAnswer(type(value).__name__)
    status = _status(value.status_code)
    headers = [_header(name, text) for name, text in value.headers.items() if name.lower() not in _HOP_BY_HOP]
    bodiless = status in _BODILESS
    if not bodiless and "content-type" not in value.headers:
        charset = f"; charset={value.charset}" if value.mimetype.startswith("text/") else ""
        headers.append(_header("content-type", value.mimetype + charset))
    return Answer(status=status, headers=tuple(headers), body=b"" if bodiless else value.get_body())


def _status(value: object) -> int:
    try:
        status = int(str(value.value if isinstance(value, http.HTTPStatus) else value))
    except ValueError as error:
        raise NotAnAnswer("status code") from error
    if not 200 <= status <= 599:
        raise NotAnAnswer("status code")
    return status


def _header(name: str, text: object) -> tuple[bytes, bytes]:
    try:
        encoded = name.lower().encode("ascii"), str(text).strip().encode("latin-1")
    except UnicodeEncodeError:
        raise NotAnAnswer("header") from None
    if not encoded[0] or any(byte < 0x21 or byte in b":\x7f" for byte in encoded[0]):
        raise NotAnAnswer("header")
    if any(byte in b"\r\n\0" for byte in encoded[1]):
        raise NotAnAnswer("header")
    return encoded
