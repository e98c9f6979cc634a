"""SMART Backend Services: discovery checked, an assertion signed, a token bought, held and renewed.

Source: SMART App Launch 2.2, https://hl7.org/fhir/smart-app-launch/backend-services.html [seen].
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import msgspec

from deployr_serve.adapters.auth import Origin, may_receive
from deployr_serve.adapters.client_assertion import ASSERTION_TYPE, signed_assertion
from deployr_serve.adapters.client_keys import ClientKey, KeySource
from deployr_serve.adapters.http import Request, Response, Transport, error_of_status, origin
from deployr_serve.adapters.lent_token import is_bearer_token
from deployr_serve.adapters.retry import RetryPolicy, wait_before_repeat
from deployr_serve.adapters.scopes import Scopes, parse_scopes, requested_scope, scope_version
from deployr_serve.adapters.token_cache import Flights, Token, TokenCache, TokenKey, left_s
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrUnreachable,
    InsufficientScope,
    ServeError,
    TryLater,
)
from deployr_serve.core.ports import Budget, Clock

_DEFAULT_LIFETIME_S, _LONGEST_LIFETIME_S = 60.0, 3600.0
_REFRESH_BEFORE_S, _UNUSED_BEFORE_S = 60.0, 15.0
_UNLIMITED_S = 30.0
_RETRIES = RetryPolicy(errors={EmrUnreachable: 2, EmrBadResponse: 1})
_OAUTH_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
"""Source: RFC 6749 section 5.2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmartClient:
    """Who we are to one EMR, and what we ask of it.

    ``origins``: where its tokens may be sent. ``token_origins``: where its token endpoint may be beside the FHIR base's
    own origin. ``scope``: None asks for what is ``needed``, in the version that the EMR's discovery names.
    """

    fhir_base: str
    client_id: str
    origins: frozenset[Origin]
    token_origins: frozenset[Origin] = frozenset()
    scope: str | None = None
    needed: Scopes = field(default_factory=frozenset)


class _Discovery(msgspec.Struct):
    token_endpoint: str
    token_endpoint_auth_methods_supported: list[str] | None = None
    token_endpoint_auth_signing_alg_values_supported: list[str] | None = None
    scopes_supported: list[str] | None = None
    capabilities: list[str] | None = None


class _TokenAnswer(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float | None = None
    scope: str | None = None


class _ErrorAnswer(msgspec.Struct):
    error: str


class SmartBackend:
    """Bearer tokens from the EMR's token endpoint.

    ``cache`` may be shared among clients: tokens are held under all that they depend on. ``draw`` gives chance from 0
    to 1, for the jitter of repeats; ``clock`` is the machine's, never a replay's: the EMR checks assertions now.
    """

    def __init__(
        self,
        client: SmartClient,
        *,
        keys: KeySource,
        cache: TokenCache,
        transport: Transport,
        clock: Clock,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.origins: frozenset[Origin] | None = client.origins
        self.last_granted: Scopes | None = None
        """What came with the last token; None before the first. Readiness looks here and asks nobody."""
        self._client = client
        self._keys = keys
        self._cache = cache
        self._transport = transport
        self._clock = clock
        self._draw = draw
        self._token_origins = client.token_origins | {origin(client.fhir_base)}
        self._discovery: _Discovery | None = None
        self._flights = Flights()

    async def headers(self, *, budget: Budget | None = None) -> dict[str, str]:
        """Give the bearer header; see `auth.Credentials`."""
        return {"Authorization": f"Bearer {(await self._token(budget)).value}"}

    async def granted(self, *, budget: Budget | None = None) -> Scopes | None:
        """Give what came with the token; what was asked for, where the EMR does not say. Source: RFC 6749, 5.1."""
        return (await self._token(budget)).granted

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Forget the token, unless another caller whom the EMR refused as well has fetched a new one already."""
        self._cache.forget(headers.get("Authorization", "").removeprefix("Bearer "))
        return True

    async def _token(self, budget: Budget | None) -> Token:
        discovery = self._discovery
        if discovery is None:
            timeout_s = left_s(budget, clock=self._clock)
            discovery = await self._flights.join("discovery", partial(self._discover, budget), timeout_s=timeout_s)
        key, scope = self._keys.current(), self._scope(discovery)
        token_key = TokenKey(
            fhir_base=self._client.fhir_base,
            client_id=self._client.client_id,
            scope=scope,
            key_id=key.key_id,
            token_endpoint=discovery.token_endpoint,
        )
        fetch = partial(self._fetch, key, endpoint=discovery.token_endpoint, scope=scope, budget=budget)
        return await self._cache.token(token_key, fetch, budget=budget)

    def _scope(self, discovery: _Discovery) -> str:
        if self._client.scope is not None:
            return self._client.scope
        version = scope_version(capabilities=discovery.capabilities or (), supported=discovery.scopes_supported or ())
        return requested_scope(self._client.needed, version=version)

    async def _fetch(self, key: ClientKey, *, endpoint: str, scope: str, budget: Budget | None) -> Token:
        buy = partial(self._buy, endpoint=endpoint, scope=scope, budget=budget)
        try:
            token = await buy(key)
        except InsufficientScope:
            self.last_granted = frozenset()
            raise
        except EmrBadResponse:
            self._discovery = None  # the endpoint may have moved
            raise
        except EmrRefused:
            self._discovery = None
            newer = await self._keys.reread()
            if newer.key_id == key.key_id:
                raise
            token = await buy(newer)
        self.last_granted = token.granted
        return token

    async def _buy(self, key: ClientKey, *, endpoint: str, scope: str, budget: Budget | None) -> Token:
        asked_at = self._clock.monotonic()
        response = await self._answer(key, endpoint=endpoint, scope=scope, budget=budget)
        if error := _error_of(response):
            raise error
        return _token_in(response, scope=scope, asked_at=asked_at)

    async def _answer(self, key: ClientKey, *, endpoint: str, scope: str, budget: Budget | None) -> Response:
        """Ask, and again where it may heal. Not `Request.repeatable`: each try needs an assertion of its own, because
        an endpoint that lost its answer has used up the ``jti``, and would refuse the same one as a replay."""
        deadline = budget.deadline if budget is not None else self._clock.monotonic() + _UNLIMITED_S
        for tries in count(1):
            assertion = signed_assertion(
                key,
                client_id=self._client.client_id,
                audience=endpoint,
                now=self._clock.now(),
                jti=str(uuid.uuid4()),
            )
            form = (
                ("grant_type", "client_credentials"),
                ("scope", scope),
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", assertion),
            )
            request = Request(method="POST", url=endpoint, headers=_ACCEPT, form=form, budget=budget)
            came: Response | TryLater
            try:
                came = await self._transport.send(request)
            except TryLater as error:
                if not error.requests:  # a refusal of our own, such as an open circuit: it was not asked at all
                    raise
                came = error
            left = deadline - self._clock.monotonic()
            wait_s = wait_before_repeat(_RETRIES, came, tries=tries, left_s=left, draw=self._draw())
            if wait_s is None:
                break
            await self._clock.sleep(wait_s)
        if isinstance(came, TryLater):
            raise came
        return came

    async def _discover(self, budget: Budget | None) -> _Discovery:
        url = f"{self._client.fhir_base}/.well-known/smart-configuration"
        request = Request(method="GET", url=url, headers=_ACCEPT, repeatable=True, budget=budget)
        response = await self._transport.send(request)
        if error := error_of_status(response):
            raise error
        try:
            discovery = msgspec.json.decode(response.body, type=_Discovery)
            origin(discovery.token_endpoint)
        except (msgspec.DecodeError, ValueError):
            raise EmrBadResponse("expected SMART discovery with a token_endpoint") from None
        if not may_receive(discovery.token_endpoint, self._token_origins):
            raise EmrRefused("expected a token endpoint on the EMR's own origin or in DEPLOYR_EMR_TOKEN_ORIGINS")
        methods = discovery.token_endpoint_auth_methods_supported
        if methods is not None and "private_key_jwt" not in methods:
            raise EmrRefused("expected a token endpoint that takes private_key_jwt: discovery names other methods")
        algorithms = discovery.token_endpoint_auth_signing_alg_values_supported
        if algorithms is not None and self._keys.current().algorithm not in algorithms:
            raise EmrRefused("expected a token endpoint that takes DEPLOYR_EMR_KEY_ALGORITHM: discovery names others")
        self._discovery = discovery
        return discovery


_ACCEPT = {"Accept": "application/json"}


def _error_of(response: Response) -> ServeError | None:
    if response.status not in {400, 401}:
        return error_of_status(response)
    try:
        stated = msgspec.json.decode(response.body, type=_ErrorAnswer).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        stated = ""
    if stated == "invalid_scope":
        return InsufficientScope("expected the EMR to grant the scopes asked for, got invalid_scope")
    named = f" and {stated}" if stated in _OAUTH_ERRORS else ""
    return EmrRefused(
        f"expected the token endpoint to accept our signed assertion, got status {response.status}{named}"
    )


def _token_in(response: Response, *, scope: str, asked_at: float) -> Token:
    try:
        answer = msgspec.json.decode(response.body, type=_TokenAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EmrBadResponse("expected a token answer in JSON from the token endpoint") from None
    if answer.token_type.lower() != "bearer" or not is_bearer_token(answer.access_token):
        raise EmrBadResponse("expected a bearer token from the token endpoint")
    lifetime_s = _DEFAULT_LIFETIME_S if answer.expires_in is None else answer.expires_in
    if lifetime_s <= 0:
        raise EmrBadResponse("expected a token that still lives: expires_in of more than 0 seconds")
    lifetime_s = min(lifetime_s, _LONGEST_LIFETIME_S)
    return Token(
        value=answer.access_token,
        granted=parse_scopes(scope if answer.scope is None else answer.scope),
        refresh_at=asked_at + max(lifetime_s - _REFRESH_BEFORE_S, lifetime_s / 2),
        good_until=asked_at + max(lifetime_s - _UNUSED_BEFORE_S, lifetime_s * 3 / 4),
    )
