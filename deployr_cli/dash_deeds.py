"""Sends what somebody decides on the dashboard to the app, under their own proof, and gives what the app says."""

from __future__ import annotations

import asyncio

import aiohttp

from deployr_dash.deeds import UNANSWERED, UNREACHED, Outcome, Wanted, body_of, outcome_of, route_of
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.http import AiohttpTransport, Request, Response
from deployr_serve.core.errors import ServeError

_LIMIT_S = 120.0
"""A bundle is tried out in a process of its own before it is deployed."""
_LARGEST = 1_000_000
_KEY_HEADER = "x-functions-key"


class AppDeeds:
    """See `deployr_dash.deeds.SendsDeeds`. Redirects are not followed, so that no proof goes elsewhere.

    Args:
        base: the app's address, such as ``https://deployr.hospital.example``.
        key: of its routes.
    """

    def __init__(self, base: str, *, key: str) -> None:
        self._base, self._key = base.rstrip("/"), key

    def send(self, wanted: Wanted, *, authorization: str) -> Outcome:
        """Send it once: what was not answered may have been done, and is not sent again."""
        request = Request(
            method="POST",
            url=f"{self._base}/{route_of(wanted)}",
            headers={
                "Authorization": authorization,
                "Content-Type": "application/json",
                **({_KEY_HEADER: self._key} if self._key else {}),
            },
            body=body_of(wanted),
            writes=True,
        )
        try:
            answer = asyncio.run(_answer(request))
        except ServeError as error:
            # Where not even a connection was made, nothing can have been done.
            return UNREACHED if isinstance(error.__cause__, aiohttp.ClientConnectorError) else UNANSWERED
        return outcome_of(answer.status, answer.body)


async def _answer(request: Request) -> Response:
    transport = AiohttpTransport(timeout_s=_LIMIT_S, clock=SystemClock(), connections=1, max_body_bytes=_LARGEST)
    try:
        return await transport.send(request)
    finally:
        await transport.aclose()
