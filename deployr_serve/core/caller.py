"""Who calls: what a CDS client's signed token must say before anything is done for it. Pure; keys are the adapter's.

Every refusal looks the same from outside; ``why`` is for our own security log, and holds nothing of the token.

Source: CDS Hooks 2.0, https://cds-hooks.hl7.org/2.0/#trusting-cds-clients [seen]; RFC 7515, RFC 7519; a vendor's
variant with ``nbf``, ``sub`` and a life of 900 s, wire formats document, section 1 [secondary].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from deployr_serve.core.strict_json import NotOneObject, parse_object

ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {"RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "ES256": "P-256", "ES384": "P-384"}
)
"""Which signatures are taken, with the key that each needs. Never ``none``, and nothing with a shared secret."""
USED_TOKENS = "jti"
"""The kind of the records that tell which tokens were used."""
MAX_TOKEN = 16_384
"""Characters; tokens of this kind have some hundreds."""
LEEWAY_S = 60
LONGEST_LIFE_S = 900
_LONGEST_JTI = 200
_LONGEST_KID = 200
_DEFAULT_PORTS = {"http": 80, "https": 443}


class CallerRefused(Exception):
    """The caller has not proved who it is. ``why`` is a code for the security log."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsClient:
    """A CDS client that is let in: who it says it is, where its keys are, and whose calls those may be.

    ``issuer`` and ``tenant`` are compared to the letter; a None tenant must not be claimed. ``jwks_url`` is where the
    keys are read, and the only ``jku`` that a token may name; ``jwks_file`` pins them here instead.
    """

    issuer: str
    tenant: str | None = None
    jwks_url: str | None = None
    jwks_file: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unproven:
    """A token taken apart, with nothing in it believed yet."""

    algorithm: str
    key_id: str
    claims: Mapping[str, Any] = field(repr=False)
    jku: str | None = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who calls, proved; and how to recognise the same token again until it has run out."""

    client: CdsClient
    used_id: str
    expires_at: datetime


def bearer_token(authorization: str | None) -> str:
    """Give the token of an ``Authorization`` header.

    Raises:
        CallerRefused: none, another scheme, longer than `MAX_TOKEN`, or not ASCII.
    """
    if not authorization:
        raise CallerRefused("no-token")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise CallerRefused("no-token")
    if len(token) > MAX_TOKEN:
        raise CallerRefused("too-long")
    if not token.isascii():
        raise CallerRefused("not-a-token")
    return token


def read_token(token: str) -> Unproven:
    """Take a token apart.

    Raises:
        CallerRefused: not three base64url parts of strict JSON, another algorithm than `ALGORITHMS`, no ``kid``, or a
            critical header that nobody here understands.
    """
    try:
        first, second, third = token.split(".")
        header = parse_object(_decoded(first))
        claims = parse_object(_decoded(second))
        signature = _decoded(third)
    except (ValueError, NotOneObject):
        raise CallerRefused("not-a-token") from None
    algorithm, key_id, jku = header.get("alg"), header.get("kid"), header.get("jku")
    if "crit" in header:
        raise CallerRefused("crit")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise CallerRefused("algorithm")
    if not isinstance(key_id, str) or not 1 <= len(key_id) <= _LONGEST_KID:
        raise CallerRefused("kid")
    if not isinstance(jku, str | None):
        raise CallerRefused("jku")
    return Unproven(
        algorithm=algorithm,
        key_id=key_id,
        claims=claims,
        jku=jku,
        signed=f"{first}.{second}".encode("ascii"),
        signature=signature,
    )


def client_of(token: Unproven, clients: Collection[CdsClient]) -> CdsClient:
    """Give the one client that the token says it is of, by issuer and tenant to the letter.

    Raises:
        CallerRefused: no such client, or another ``jku`` than the one that is configured for it.
    """
    issuer, tenant = token.claims.get("iss"), token.claims.get("tenant")
    fitting = [client for client in clients if client.issuer == issuer and client.tenant == tenant]
    if len(fitting) != 1:
        raise CallerRefused("issuer")
    [client] = fitting
    if token.jku is not None and not _is_same_place(token.jku, client.jwks_url):
        raise CallerRefused("jku")
    return client


def check_claims(token: Unproven, client: CdsClient, *, audiences: Collection[str], now: datetime) -> Caller:
    """Give the caller; to be asked only once the signature has been verified.

    ``exp``, ``iat`` and ``jti`` must be there and ``nbf`` may be. Clocks may differ by `LEEWAY_S`. At ``exp`` plus the
    leeway itself the token has expired.

    Args:
        token: verified.
        client: whose it is.
        audiences: the URLs that were called; ``aud`` must name one of them to the letter.
        now: the real instant, aware.

    Raises:
        CallerRefused: any of it is missing, of another type, or does not hold.
    """
    claims = token.claims
    expires = check_times(claims, now=now, longest_life_s=LONGEST_LIFE_S)
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(each, str) and each in audiences for each in named):
        raise CallerRefused("audience")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= _LONGEST_JTI:
        raise CallerRefused("jti")
    used = "".join(f"{len(part)}:{part}" for part in (client.issuer, client.tenant or "", jti))
    return Caller(
        client=client,
        used_id=hashlib.sha256(used.encode("utf-8", "surrogatepass")).hexdigest(),
        expires_at=datetime.fromtimestamp(expires, UTC) + timedelta(seconds=LEEWAY_S),
    )


def check_times(claims: Mapping[str, Any], *, now: datetime, longest_life_s: int) -> int:
    """Give ``exp``, in seconds since 1970, of claims that hold now; see `check_claims` for the rules.

    Raises:
        CallerRefused: they do not, or are not whole numbers.
    """
    instant = now.timestamp()
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    not_before = _seconds(claims, "nbf") if "nbf" in claims else issued
    if instant >= expires + LEEWAY_S:
        raise CallerRefused("expired")
    if max(issued, not_before) > instant + LEEWAY_S:
        raise CallerRefused("not-yet")
    if not 0 < expires - issued <= longest_life_s:
        raise CallerRefused("life")
    return expires


def _decoded(part: str) -> bytes:
    if part != part.rstrip("="):
        raise ValueError("expected base64url without padding")
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("expected base64url") from error


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    # A bool is an int to Python. What lies beyond 2100 is no instant that anybody means.
    if type(value) is not int or not 0 <= value <= 4_102_444_800:
        raise CallerRefused(name)
    return value


def _is_same_place(named: str, configured: str | None) -> bool:
    """True if both are the same URL: scheme, host in any case, port, and the rest to the letter."""
    return configured is not None and _place(named) is not None and _place(named) == _place(configured)


def _place(url: str) -> tuple[str, str, int, str] | None:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    # The path is compared as it was written, not as urlsplit leaves it: it drops tabs and line ends.
    written = url.partition("://")[2]
    return None if "@" in parts.netloc or not host else (parts.scheme, host, port, written[len(parts.netloc) :])
