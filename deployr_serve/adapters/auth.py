"""Credentials for the EMR: SMART Backend Services, or none for an open test server.

Source: SMART App Launch 2.2, Backend Services, https://hl7.org/fhir/smart-app-launch/backend-services.html [seen].
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import msgspec

from deployr_serve.adapters.http import Request, Response, Transport, error_of_status, origin
from deployr_serve.core.errors import EmrBadResponse, EmrRefused
from deployr_serve.core.ports import Clock

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFETIME_S = 240
_REFRESH_BEFORE_S = 30.0
_DEFAULT_LIFETIME_S, _LONGEST_LIFETIME_S = 60.0, 3600.0


class Credentials(Protocol):
    """Gives the headers that let a request in."""

    async def headers(self) -> dict[str, str]:
        """Give the headers, fetching a token if none is held that still lives."""

    def refused(self, headers: Mapping[str, str]) -> None:
        """Forget what was given as these headers, if it is still held: the EMR did not take it."""


async def send_authorized(request: Request, *, transport: Transport, credentials: Credentials) -> Response:
    """Send with credentials. A token may be withdrawn before its time: after a 401, once more with a new one."""
    for attempt in (1, 2):
        headers = await credentials.headers()
        response = await transport.send(dataclasses.replace(request, headers={**request.headers, **headers}))
        if response.status != 401 or attempt == 2:
            break
        credentials.refused(headers)
    return response


class NoCredentials:
    """For a server that asks for none; the production profile refuses it."""

    async def headers(self) -> dict[str, str]:
        """Give no headers."""
        return {}

    def refused(self, headers: Mapping[str, str]) -> None:
        """Hold nothing, forget nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientKey:
    """The key that signs our assertions: PEM, its id, and RS384 or ES384."""

    pem: bytes = field(repr=False)
    key_id: str
    algorithm: str


class _Discovery(msgspec.Struct):
    token_endpoint: str


class _Token(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float | None = None


class SmartBackend:
    """A token from the EMR's token endpoint, held until shortly before it ends, fetched by one caller at a time."""

    def __init__(
        self, *, fhir_base: str, client_id: str, key: ClientKey, scope: str, transport: Transport, clock: Clock
    ) -> None:
        self._fhir_base = fhir_base
        self._client_id = client_id
        self._key = key
        self._scope = scope
        self._transport = transport
        self._clock = clock
        self._token_endpoint: str | None = None
        self._token: str | None = None
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        """Give the bearer header.

        Raises:
            EmrRefused: the EMR does not accept our assertion.
            EmrUnreachable, EmrTimeout, EmrBadResponse: no token could be had.
        """
        async with self._lock:
            if self._token is None or self._clock.monotonic() >= self._good_until:
                await self._fetch()
            return {"Authorization": f"Bearer {self._token}"}

    def refused(self, headers: Mapping[str, str]) -> None:
        """Forget the token, unless another caller whom the EMR refused as well has fetched a new one already."""
        if headers.get("Authorization") == f"Bearer {self._token}":
            self._token = None

    async def _fetch(self) -> None:
        if self._token_endpoint is None:
            self._token_endpoint = await self._discover()
        form = (
            ("grant_type", "client_credentials"),
            ("scope", self._scope),
            ("client_assertion_type", _ASSERTION_TYPE),
            ("client_assertion", self._assertion(self._token_endpoint)),
        )
        asked_at = self._clock.monotonic()
        response = await self._transport.send(
            Request(method="POST", url=self._token_endpoint, headers={"Accept": "application/json"}, form=form)
        )
        if response.status == 400:
            raise EmrRefused("expected the token endpoint to accept our signed assertion, got status 400")
        if error := error_of_status(response.status):
            raise error
        try:
            token = msgspec.json.decode(response.body, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise EmrBadResponse("expected a token answer in JSON from the token endpoint") from None
        if token.token_type.lower() != "bearer" or not token.access_token:
            raise EmrBadResponse("expected a bearer token from the token endpoint")
        lifetime = token.expires_in if token.expires_in and token.expires_in > 0 else _DEFAULT_LIFETIME_S
        lifetime = min(lifetime, _LONGEST_LIFETIME_S)
        self._token = token.access_token
        self._good_until = asked_at + max(lifetime - _REFRESH_BEFORE_S, lifetime / 2)

    async def _discover(self) -> str:
        url = f"{self._fhir_base}/.well-known/smart-configuration"
        response = await self._transport.send(Request(method="GET", url=url, headers={"Accept": "application/json"}))
        if error := error_of_status(response.status):
            raise error
        try:
            endpoint = msgspec.json.decode(response.body, type=_Discovery).token_endpoint
            same_origin = origin(endpoint) == origin(self._fhir_base)
        except (msgspec.DecodeError, ValueError):
            raise EmrBadResponse("expected SMART discovery with a token_endpoint") from None
        if not same_origin:
            raise EmrRefused("expected a token endpoint on the EMR's own origin")
        return endpoint

    def _assertion(self, audience: str) -> str:
        import jwt

        # The assertion's life is measured by the machine's clock, never by a replay's: the EMR checks it now.
        from deployr_serve.adapters.clock import SystemClock

        now = SystemClock().now()
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=_ASSERTION_LIFETIME_S)).timestamp()),
            "jti": str(uuid.uuid4()),
        }
        headers = {"kid": self._key.key_id, "typ": "JWT"}
        return jwt.encode(claims, self._key.pem, algorithm=self._key.algorithm, headers=headers)
