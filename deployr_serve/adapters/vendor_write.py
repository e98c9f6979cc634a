"""Writes over a vendor's web services: sent to one origin, and their answers told apart by what can be done."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from deployr_serve.adapters.auth import Credentials, send_authorized
from deployr_serve.adapters.epic_client import refusal
from deployr_serve.adapters.http import Request, Response, Transport, error_of_status, origin
from deployr_serve.core.errors import EmrBadResponse, EmrRefused, EmrUnreachable, TryLater
from deployr_serve.core.ports import Budget
from deployr_serve.outputs.vendor_target import VendorWrite

REFUSED = frozenset({400, 404, 405, 409, 410, 412, 415, 422})
"""Statuses of a write that will be refused again as it is."""
_NOT_SAVED = b"DATA_NOT_SAVED"
"""The one refusal that heals. Source: wire formats document, section 3, flowsheet [seen]; elsewhere too [assumed]."""


class VendorWriter:
    """Sends writes to one vendor base, such as ``https://host/Interconnect-X``; nothing here repeats one."""

    def __init__(self, *, base: str, transport: Transport, credentials: Credentials) -> None:
        self._base = base
        self._origin = origin(base)
        self._transport = transport
        self._credentials = credentials

    async def send(self, write: VendorWrite, *, budget: Budget | None) -> None:
        """Send one write; return if the EMR says that it took it.

        Raises:
            UnknownPatient, UnknownContext, EmrRefused: it did not, and will not.
            TryLater: it did not, or nobody knows; ``requests`` is 0 where nothing was sent.
        """
        query = f"?{urlencode(write.parameters)}" if write.parameters else ""
        url = f"{self._base}/{write.path}{query}"
        if origin(url) != self._origin:
            raise EmrRefused("expected a write to the EMR's own origin")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = Request(method=write.method, url=url, headers=headers, body=write.body, writes=True, budget=budget)
        _accept(await send_authorized(request, transport=self._transport, credentials=self._credentials))


def _accept(response: Response) -> None:
    is_refusal = response.status in REFUSED
    if not is_refusal and (error := error_of_status(response)):
        raise error
    if not is_refusal and not _is_error(response.body):
        return
    if _NOT_SAVED in response.body:
        raise EmrUnreachable("expected the EMR to save what it was sent; it says that it could not, for now")
    told = refusal(response)
    if told is not None and not isinstance(told, TryLater):
        raise told
    how = f"status {response.status}" if is_refusal else "an error in a successful answer"
    raise EmrRefused(f"expected the EMR to take the score, got {how}")


def _is_error(body: bytes) -> bool:
    if not body.strip():
        return False
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EmrBadResponse("expected an empty answer or JSON from the vendor's interface") from None
    if not isinstance(answer, dict):
        return False
    failed = answer.get("Success") is False or answer.get("Status") == 0
    return failed or any(answer.get(key) for key in ("ErrorMessage", "Errors", "Error", "ExceptionMessage"))
