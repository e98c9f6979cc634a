"""Calls of a vendor's web services that read: sent to one origin, counted, and checked against the body's contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from deployr_core.packet import FetchRecord
from deployr_serve.adapters.auth import Credentials, send_authorized
from deployr_serve.adapters.http import Request, Response, Transport, error_of_status
from deployr_serve.core.errors import (
    AmbiguousPatient,
    EmrBadResponse,
    EmrRefused,
    ServeError,
    UnknownContext,
    UnknownPatient,
)
from deployr_serve.core.ports import Budget, Clock

_T = TypeVar("_T")

_REFUSALS: Mapping[str, type[ServeError]] = {
    "EPT_ID_RETRIEVAL_ERROR": UnknownPatient,
    "EPT_DAT_RETRIEVAL_ERROR": UnknownPatient,
    "INVALID-PATIENT": UnknownPatient,
    "NO-ENTITY-FOUND": UnknownPatient,
    "MULTIPLE-PATIENTS-FOUND": AmbiguousPatient,
    "CONTACT_IS_INVALID": UnknownContext,
    "INVALID-ID-TYPE": EmrRefused,
}
"""What the codes in a refusal mean for whoever asked.

Source: `*_RETRIEVAL_ERROR`, `INVALID-PATIENT`, `NO-ENTITY-FOUND` and `CONTACT_IS_INVALID` from recorded errors of the
vendor's write services, wire formats document, section 3 [seen]; that reads use them too, and the others [assumed].
"""
_CODE = re.compile(r"command: ([A-Z][A-Z0-9_-]{2,60})", re.ASCII)


class Meter:
    """Counts what one read sends, for its record in the packet."""

    def __init__(self, *, resource: str, name: str, clock: Clock) -> None:
        self._resource = resource
        self._name = name
        self._clock = clock
        self._started_at = clock.now()
        self._started = clock.monotonic()
        self.calls = 0
        self.requests = 0

    def record(self, resources: int, *, error: str | None = None) -> FetchRecord:
        """Give the record: ``pages`` are calls that were answered, ``requests`` those with every repeat."""
        return FetchRecord(
            resource=self._resource,
            resources=resources,
            pages=self.calls,
            milliseconds=round((self._clock.monotonic() - self._started) * 1000, 3),
            name=self._name,
            via="epic",
            started_at=self._started_at,
            requests=self.requests,
            error=error,
        )


@contextmanager
def metered(*, resource: str, name: str, clock: Clock) -> Iterator[Meter]:
    """Give a meter; an error that passes by is given its record."""
    meter = Meter(resource=resource, name=name, clock=clock)
    try:
        yield meter
    except ServeError as error:
        error.fetches = (*error.fetches, meter.record(0, error=error.reason))
        raise


class VendorClient:
    """Reads from one vendor base, such as ``https://host/Interconnect-X``.

    ``get`` puts its parameters into the URL, a patient's identifier among them: the vendor offers some reads in no
    other way. Nothing here writes a URL down.

    Source: requests and answers, wire formats document, section 2 [seen]; that a failed call may answer 200 with
    ``ErrorMessage`` or ``Status`` 0 [assumed].
    """

    def __init__(self, *, base: str, transport: Transport, credentials: Credentials, clock: Clock) -> None:
        self.clock = clock
        self._base = base
        self._transport = transport
        self._credentials = credentials

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str],
        *,
        answer: type[_T],
        meter: Meter,
        budget: Budget | None,
        refusals: Mapping[str, type[ServeError]] | None = None,
    ) -> _T:
        """Read by query; see `post`."""
        url = f"{self._base}/{path}?{urlencode(parameters)}"
        request = Request(method="GET", url=url, headers={"Accept": "application/json"}, repeatable=True, budget=budget)
        return await self._send(request, answer=answer, meter=meter, refusals=refusals or {})

    async def post(
        self, path: str, body: Mapping[str, Any], *, answer: type[_T], meter: Meter, budget: Budget | None
    ) -> _T:
        """Read by JSON body, and give the answer as this type. It only reads, so it may be sent again.

        Raises:
            UnknownPatient, AmbiguousPatient, UnknownContext: the vendor says so.
            EmrRefused: it does not let us, or not with these types of identifiers.
            EmrBadResponse: an error in a successful answer, not JSON, or a member that is missing.
            TryLater: as the transport raises.
        """
        headers = {"Accept": "application/json", "Content-Type": "application/json; charset=utf-8"}
        request = Request(
            method="POST",
            url=f"{self._base}/{path}",
            headers=headers,
            body=msgspec.json.encode(body),
            repeatable=True,
            budget=budget,
        )
        return await self._send(request, answer=answer, meter=meter, refusals={})

    async def _send(
        self, request: Request, *, answer: type[_T], meter: Meter, refusals: Mapping[str, type[ServeError]]
    ) -> _T:
        try:
            response = await send_authorized(request, transport=self._transport, credentials=self._credentials)
        except ServeError as error:
            meter.requests += error.requests
            raise
        meter.calls += 1
        meter.requests += response.requests
        refused = refusal(response, refusals) if response.status in {400, 404, 422} else error_of_status(response)
        if refused:
            raise refused
        return _decoded(response.body, answer)


class _Contract(msgspec.Struct, frozen=True, rename="pascal"):
    """What an answer may say beside, or instead of, what was asked for."""

    status: Any = None
    error_message: Any = None
    exception_message: Any = None
    success: Any = None
    errors: Any = None
    error: Any = None

    def is_failure(self) -> bool:
        told = self.error_message or self.exception_message or self.errors or self.error
        # Written as a text by some services; False == 0, and means the same.
        return bool(told) or self.success is False or self.status == 0 or self.status == "0"


def refusal(response: Response, refusals: Mapping[str, type[ServeError]] = MappingProxyType({})) -> ServeError | None:
    """Give the error that the vendor's own code stands for, or else the status; ``refusals`` go before ours."""
    try:
        message = msgspec.json.decode(response.body, type=_Contract).exception_message
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = None
    found = _CODE.search(message) if isinstance(message, str) else None
    kind = {**_REFUSALS, **refusals}.get(found[1]) if found else None
    if found is None or kind is None:
        return error_of_status(response)
    return kind(f"expected the vendor's interface to answer, it says {found[1]}")


def _decoded(body: bytes, answer: type[_T]) -> _T:
    try:
        if msgspec.json.decode(body, type=_Contract).is_failure():
            raise EmrBadResponse("expected what was asked for, got an error in a successful answer")
        return msgspec.json.decode(body, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not chained: the message may repeat what is in the body.
        raise EmrBadResponse(f"expected {answer.__name__} from the vendor's interface, in JSON") from None
