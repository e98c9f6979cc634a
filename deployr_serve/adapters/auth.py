"""Credentials for the EMR: what lets a request in, and the one place that decides where it may be sent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Protocol

from deployr_serve.adapters.http import Request, Response, Transport, origin
from deployr_serve.adapters.scopes import Scopes
from deployr_serve.core.errors import EmrRefused
from deployr_serve.core.ports import Budget

Origin = tuple[str, str, int]
"""Scheme, host and port, as `http.origin` gives them."""

# Outside of these, two parsers may see two hosts in one URL: tabs and line ends are left out by some, a backslash is a
# slash to some, and other scripts' letters become others on the way to a name server.
_PLAIN_URL = re.compile(r"[!#-\[\]-~]+", re.ASCII)


class Credentials(Protocol):
    """Gives the headers that let a request in."""

    @property
    def origins(self) -> frozenset[Origin] | None:
        """Where the headers may be sent; None where there are none to give."""

    async def headers(self, *, budget: Budget | None = None) -> dict[str, str]:
        """Give the headers, fetching a token if none is held that still lives.

        Raises:
            EmrRefused, InsufficientScope: the EMR does not let us in.
            EmrUnreachable, EmrTimeout, EmrThrottled, EmrBadResponse: no token could be had.
        """

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Forget what was given as these headers: the EMR did not take it. Tell whether others may be had."""

    async def granted(self, *, budget: Budget | None = None) -> Scopes | None:
        """Give what the EMR granted, or None where nobody says; raises as `headers` does."""


async def send_authorized(request: Request, *, transport: Transport, credentials: Credentials) -> Response:
    """Send with credentials. A token may be withdrawn before its time: after a 401, once more with a new one.

    Raises:
        EmrRefused: the URL is not on an origin that these credentials are for; nothing was sent.
        ServeError: as `Credentials.headers` and the transport raise.
    """
    if not may_receive(request.url, credentials.origins):
        raise EmrRefused("expected a request to the EMR's own origin: our credentials go nowhere else")
    headers = await credentials.headers(budget=request.budget)
    response = await transport.send(dataclasses.replace(request, headers={**request.headers, **headers}))
    if response.status == 401 and credentials.refused(headers):
        headers = await credentials.headers(budget=request.budget)
        response = await transport.send(dataclasses.replace(request, headers={**request.headers, **headers}))
    return response


def may_receive(url: str, origins: frozenset[Origin] | None) -> bool:
    """Tell whether credentials for these origins may be sent to this URL: compared whole, never by prefix."""
    if origins is None:
        return True
    try:
        return _PLAIN_URL.fullmatch(url) is not None and origin(url) in origins
    except ValueError:
        return False


class NoCredentials:
    """For a server that asks for none; the production profile refuses it."""

    origins = None

    async def headers(self, *, budget: Budget | None = None) -> dict[str, str]:  # noqa: ARG002 the port's
        """Give no headers."""
        return {}

    def refused(self, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 the port's
        """Hold nothing, forget nothing."""
        return False

    async def granted(self, *, budget: Budget | None = None) -> Scopes | None:  # noqa: ARG002 the port's
        """Nobody says."""
        return None
