"""The EMR's discovery and token endpoint, scripted, and a client of it."""

from __future__ import annotations

import asyncio
import json

from deployr_serve.adapters.http import Response
from deployr_serve.adapters.scopes import parse_scopes

TOKEN_URL = "https://emr.example/oauth2/token"
NEEDED = parse_scopes("system/Patient.s system/Observation.s?category=laboratory")
SCOPE = "system/Observation.rs system/Patient.rs"


class FakeAuthority:
    """The EMR's discovery and token endpoint; gives ``t1``, ``t2`` and so on.

    ``token``: what is changed in each token answer, or what comes in place of it. ``statuses`` come first, in turn.
    """

    def __init__(self, *, token=None, discovery=None, statuses=(), headers=None):
        self.requests = []
        self.token_requests = []
        self._token = {} if token is None else token
        self._discovery = {"token_endpoint": TOKEN_URL} if discovery is None else discovery
        self._statuses = list(statuses)
        self._headers = headers or {}
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, request):
        self.requests.append(request)
        for _ in range(3):
            await asyncio.sleep(0)
        if request.url.endswith("/.well-known/smart-configuration"):
            return self._answer(self._discovery)
        self.token_requests.append(request)
        number = len(self.token_requests)
        await self.open.wait()
        status = self._statuses.pop(0) if self._statuses else 200
        if status != 200:
            return self._answer({} if isinstance(status, int) else status, status=status)
        answer = {"access_token": f"t{number}", "token_type": "bearer", "expires_in": 300, "scope": SCOPE}
        changed = {**answer, **self._token} if isinstance(self._token, dict) else self._token
        return self._answer(changed)

    def _answer(self, answer, *, status=200):
        if isinstance(status, BaseException):
            raise status
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, dict):
            answer = {name: value for name, value in answer.items() if value != "left out"}
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Response(status=status, content_type="application/json", body=body, headers=self._headers)


def failed(error, *, requests=1):
    error.requests = requests
    return error


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)
