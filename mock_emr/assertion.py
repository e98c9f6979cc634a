"""Signed client assertions: whose they are, and whether they prove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt
import msgspec
from jwt.algorithms import AllowedPublicKeys

ALGORITHMS = ("RS384", "ES384")
LONGEST_LIFE_S = 300
LONGEST_ASSERTION = 16_384

_KEY_TYPES = {"RS384": "RSA", "ES384": "EC"}


class AssertionRefused(ValueError):
    """The assertion proves nothing; the message says why, for the operator of the client."""


class KeySetError(ValueError):
    """The JWKS cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A registered public key. ``algorithm`` is the JWK's `alg`, None where it names none."""

    kid: str
    key_type: str
    algorithm: str | None
    public: AllowedPublicKeys


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a good assertion says; ``expires_at`` is in seconds since 1970."""

    client_id: str
    jti: str
    expires_at: float


def keys_in(jwks: bytes) -> tuple[Key, ...]:
    """Read a JWK Set; keys of other types or uses than signing with ALGORITHMS are passed over.

    Raises:
        KeySetError: it is no JWK Set, a key lacks `kid`, or none can be used.

    Source: RFC 7517 section 5; SMART Backend Services, registering a client.
    """
    try:
        listed = msgspec.json.decode(jwks, type=dict[str, Any]).get("keys")
    except ValueError as error:
        raise KeySetError("expected a JWK Set as JSON") from error
    if not isinstance(listed, list) or not all(isinstance(key, dict) for key in listed):
        raise KeySetError("expected a JWK Set with a list of keys")
    usable = tuple(_key(jwk) for jwk in listed if _is_usable(jwk))
    if not usable:
        raise KeySetError("expected at least one key for signing: RSA, or EC on P-384")
    return usable


def check_assertion(assertion: str, *, clients: Mapping[str, tuple[Key, ...]], audience: str, now: datetime) -> Proof:
    """Give what the assertion proves. Whether its `jti` was used before is for the caller to ask, afterwards.

    Refused are: another algorithm than ALGORITHMS; an `iss` that is no client or not `sub`; a `kid` that fits
    not exactly one of the client's keys; a bad signature; an `aud` other than ``audience`` to the letter; an
    `exp` that is no number, not after ``now``, or more than LONGEST_LIFE_S after it; an `nbf` after ``now``;
    a `jti` that is no text.

    Args:
        assertion: the compact JWT.
        clients: each client's keys, by client id.
        audience: the URL of the token endpoint.
        now: the real instant, aware.

    Raises:
        AssertionRefused: any of the above.

    Source: https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html; RFC 7523 section 3.
    """
    if len(assertion) > LONGEST_ASSERTION:
        raise AssertionRefused("the assertion is too long")
    header, unproven = _unverified(assertion)
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise AssertionRefused(f"alg: expected one of {', '.join(ALGORITHMS)}")
    client_id = unproven.get("iss")
    if not isinstance(client_id, str) or client_id not in clients:
        raise AssertionRefused("iss: expected a registered client id")
    fitting = [key for key in clients[client_id] if key.kid == kid]
    if len(fitting) != 1:
        raise AssertionRefused("kid: expected to fit exactly one registered key")
    claims = _verified(assertion, fitting[0], algorithm)
    if claims.get("sub") != client_id:
        raise AssertionRefused("sub: expected the same as iss")
    if claims.get("aud") != audience:
        raise AssertionRefused("aud: expected the URL of the token endpoint")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise AssertionRefused("jti: expected a text that is not empty")
    return Proof(client_id=client_id, jti=jti, expires_at=_expiry(claims, now.timestamp()))


class UsedAssertions:
    """The assertions that were used and have not expired."""

    def __init__(self) -> None:
        self._expires_at: dict[tuple[str, str], float] = {}

    def use(self, proof: Proof, *, now: datetime) -> bool:
        """Use an assertion up; give whether it was still unused."""
        instant = now.timestamp()
        self._expires_at = {used: until for used, until in self._expires_at.items() if until > instant}
        used = (proof.client_id, proof.jti)
        if used in self._expires_at:
            return False
        self._expires_at[used] = proof.expires_at
        return True


def _expiry(claims: Mapping[str, Any], now: float) -> float:
    expires_at = claims.get("exp")
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise AssertionRefused("exp: expected a number of seconds")
    # Written so that NaN, which json.loads accepts, is refused.
    if not now < expires_at <= now + LONGEST_LIFE_S:
        raise AssertionRefused(f"exp: expected after now and at most {LONGEST_LIFE_S} s ahead")
    not_before = claims.get("nbf", now)
    if isinstance(not_before, bool) or not isinstance(not_before, int | float) or not not_before <= now:
        raise AssertionRefused("nbf: expected a number of seconds that is not ahead")
    return float(expires_at)


def _unverified(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        decoded = jwt.decode_complete(assertion, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise AssertionRefused("expected a signed JWT") from error
    return decoded["header"], decoded["payload"]


def _verified(assertion: str, key: Key, algorithm: str) -> dict[str, Any]:
    if key.key_type != _KEY_TYPES[algorithm] or key.algorithm not in (None, algorithm):
        raise AssertionRefused("alg: expected the algorithm of the registered key")
    # Claims are checked by us: PyJWT accepts an exp ten years ahead, a string for one, and an empty jti.
    unchecked = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
    try:
        return jwt.decode(
            assertion,
            key.public,
            algorithms=[algorithm],
            options={f"verify_{claim}": False for claim in unchecked},  # type: ignore[arg-type]
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise AssertionRefused("the signature does not fit the registered key") from error


def _is_usable(jwk: Mapping[str, Any]) -> bool:
    """Tell whether the key can sign with one of ALGORITHMS. Source: RFC 7518 sections 3.3 and 3.4."""
    return jwk.get("use") != "enc" and (
        jwk.get("kty") == "RSA" or (jwk.get("kty") == "EC" and jwk.get("crv") == "P-384")
    )


def _key(jwk: dict[str, Any]) -> Key:
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not kid:
        raise KeySetError("expected every key to have a kid")
    # Only the public half is kept, whatever was handed in.
    public = {name: value for name, value in jwk.items() if name in ("kty", "n", "e", "crv", "x", "y")}
    try:
        loaded = jwt.PyJWK(public, algorithm="RS384" if jwk["kty"] == "RSA" else "ES384").key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise KeySetError("expected the numbers of an RSA or EC public key") from error
    return Key(kid=kid, key_type=jwk["kty"], algorithm=jwk.get("alg"), public=loaded)
