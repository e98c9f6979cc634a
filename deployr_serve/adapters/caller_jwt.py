"""Proves who calls by a signed token: keys pinned here, or read from the one place that is configured; each token once.

Nothing that a token says is ever fetched. Refusals are told to the log by a code, and to the caller by nothing.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#trusting-cds-clients [seen]; RFC 7517; RFC 7518 section 3.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployr_serve.adapters.http import Request, Transport
from deployr_serve.core.caller import (
    ALGORITHMS,
    USED_TOKENS,
    Caller,
    CallerRefused,
    CdsClient,
    Unproven,
    bearer_token,
    check_claims,
    client_of,
    read_token,
)
from deployr_serve.core.errors import ServeError, StoreUnavailable
from deployr_serve.core.ports import Budget, Clock, Records
from deployr_serve.core.strict_json import NotOneObject, parse_object

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

_log = logging.getLogger(__name__)

FRESH_S, LONGEST_S, AGAIN_S = 300.0, 86_400.0, 30.0
"""A key set that was read is taken as it is for the first, kept where it cannot be read again for the second, and not
asked for more often than once in the third."""
_WITHIN_S = 2.0
_MOST_BYTES = 65_536
_MOST_KEYS = 64
_LEAST_RSA_BITS = 2048


class KeySetUnusable(ValueError):
    """Not a JWK Set, or one without a key that could verify a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerKey:
    """A public key: its id, ``RSA`` or its curve, and the one algorithm that it is for, where the set names one."""

    key_id: str
    kind: str
    algorithm: str | None
    public: AllowedPublicKeys = field(repr=False)


def read_key_set(body: bytes) -> tuple[CallerKey, ...]:
    """Read a JWK Set. Keys that are not for verifying what `caller.ALGORITHMS` sign are passed over.

    Raises:
        KeySetUnusable: no JWK Set, no key that can be used, or more than 64.

    Source: RFC 7517 section 5.
    """
    try:
        listed = parse_object(body).get("keys")
    except NotOneObject:
        listed = None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise KeySetUnusable(f"expected a JWK Set of at most {_MOST_KEYS} keys")
    keys = tuple(key for key in map(_key, listed) if key is not None)
    if not keys:
        raise KeySetUnusable("expected a key with a kid: RSA of 2048 bits or more, or EC on P-256 or P-384")
    return keys


@dataclass(kw_only=True, slots=True)
class _Held:
    """The keys of one place, and when they were read and last asked for, on the clock's line."""

    keys: tuple[CallerKey, ...] = ()
    read_at: float | None = None
    asked_at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeySets:
    """The keys of the configured clients.

    Args:
        clients: files are read here; URLs on first use.
        transport: what reaches the network; it follows no redirect.
        clock: the machine's.

    Raises:
        KeySetUnusable, OSError: a file is no key set, or cannot be read.
    """

    def __init__(self, clients: Collection[CdsClient], *, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._pinned = {
            client.jwks_file: read_key_set(Path(client.jwks_file).read_bytes())
            for client in clients
            if client.jwks_file
        }
        self._held = {client.jwks_url: _Held() for client in clients if client.jwks_url}

    async def keys_of(self, client: CdsClient, *, key_id: str) -> tuple[CallerKey, ...]:
        """Give the keys of a client with this id; several, or none, prove nothing.

        A set that is not fresh, or lacks the id, is read again. Where that fails the last good one is kept for a day.
        """
        if client.jwks_url is None:
            return _fitting(self._pinned.get(client.jwks_file or "", ()), key_id)
        held = self._held[client.jwks_url]
        if self._age_s(held) >= FRESH_S or not _fitting(held.keys, key_id):
            # All who come meanwhile wait for the one that asks.
            async with held.lock:
                if self._may_ask(held):
                    await self._read_again(client.jwks_url, held)
        return _fitting(held.keys, key_id) if self._age_s(held) < LONGEST_S else ()

    async def check_signature(self, token: Unproven, client: CdsClient) -> None:
        """Return if the token is signed by the one key of the client that it names.

        Raises:
            CallerRefused: it is not.
        """
        keys = await self.keys_of(client, key_id=token.key_id)
        if len(keys) != 1:
            raise CallerRefused("kid" if not keys else "kid-twice")
        if not _is_signed_by(token, keys[0]):
            raise CallerRefused("signature")

    def _age_s(self, held: _Held) -> float:
        return float("inf") if held.read_at is None else self._clock.monotonic() - held.read_at

    def _may_ask(self, held: _Held) -> bool:
        return held.asked_at is None or self._clock.monotonic() - held.asked_at >= AGAIN_S

    async def _read_again(self, url: str, held: _Held) -> None:
        now = held.asked_at = self._clock.monotonic()
        budget = Budget(deadline=now + _WITHIN_S, correlation_id="")
        request = Request(method="GET", url=url, headers={"Accept": "application/json"}, repeatable=True, budget=budget)
        try:
            response = await self._transport.send(request)
            if response.status != 200 or len(response.body) > _MOST_BYTES:
                raise KeySetUnusable("expected a JWK Set")
            held.keys, held.read_at = read_key_set(response.body), now
        except (ServeError, KeySetUnusable) as error:
            _log.warning("callers' keys could not be read: error=%s", type(error).__name__)


class CdsCallers:
    """Lets in who proves to be a configured client, with a token that was never used before, by any worker.

    Args:
        clients: who may call; empty refuses all.
        keys: theirs.
        records: the store that all workers share; where it does not answer nobody is let in.
        clock: the machine's, never a replay's: tokens are of the present.
    """

    def __init__(self, clients: tuple[CdsClient, ...], *, keys: KeySets, records: Records, clock: Clock) -> None:
        self._clients = clients
        self._keys = keys
        self._records = records
        self._clock = clock

    async def verify(self, authorization: str | None, *, audiences: Collection[str]) -> Caller:
        """Give the caller, and use the token up.

        Args:
            authorization: the header as it came.
            audiences: the URLs that the call is for, of which the token must name one.

        Raises:
            CallerRefused: it did not prove to be one; ``why`` is for the log.
        """
        token = read_token(bearer_token(authorization))
        client = client_of(token, self._clients)
        await self._keys.check_signature(token, client)
        now = self._clock.now()
        caller = check_claims(token, client, audiences=audiences, now=now)
        try:
            unused = await self._records.create_record(
                USED_TOKENS, caller.used_id, b"", now=now, expires_at=caller.expires_at
            )
        except StoreUnavailable:
            raise CallerRefused("store-unavailable") from None
        if unused is None:
            raise CallerRefused("used-before")
        return caller


def _fitting(keys: tuple[CallerKey, ...], key_id: str) -> tuple[CallerKey, ...]:
    return tuple(key for key in keys if key.key_id == key_id)


def _is_signed_by(token: Unproven, key: CallerKey) -> bool:
    import jwt

    if key.kind != ALGORITHMS[token.algorithm] or key.algorithm not in (None, token.algorithm):
        return False
    try:
        return bool(jwt.get_algorithm_by_name(token.algorithm).verify(token.signed, key.public, token.signature))
    except (jwt.PyJWTError, ValueError, TypeError):
        return False


def _key(jwk: Any) -> CallerKey | None:
    """Read one key; None for one that is of no use here, which a set may hold as well."""
    import jwt

    if not isinstance(jwk, Mapping) or jwk.get("use") not in (None, "sig"):
        return None
    kind = {"RSA": "RSA", "EC": jwk.get("crv")}.get(str(jwk.get("kty")))
    fitting = [name for name, needed in ALGORITHMS.items() if needed == kind]
    key_id, algorithm = jwk.get("kid"), jwk.get("alg")
    if not fitting or not isinstance(key_id, str) or not key_id or algorithm not in (None, *fitting):
        return None
    # Only the public half is taken, whatever stands there.
    public = {name: value for name, value in jwk.items() if name in ("kty", "n", "e", "crv", "x", "y")}
    try:
        loaded: Any = jwt.PyJWK(public, algorithm=fitting[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if kind == "RSA" and loaded.key_size < _LEAST_RSA_BITS:
        return None
    return CallerKey(key_id=key_id, kind=str(kind), algorithm=algorithm, public=loaded)
