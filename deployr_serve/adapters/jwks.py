"""Our public keys as the EMR fetches them: JSON Web Keys, their thumbprints, and the set of them.

Only public keys come in here, so that no private member can go out.

Source: RFC 7517; RFC 7518 section 6; RFC 7638 [seen].
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_P384_BYTES = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedKey:
    """A public key under the id that assertions name it by."""

    public: RSAPublicKey | EllipticCurvePublicKey
    key_id: str


def key_set(keys: Iterable[PublishedKey]) -> bytes:
    """Give the JWK Set as JSON; of keys with one id the first, for SMART lets no id fit twice."""
    by_id: dict[str, dict[str, str]] = {}
    for key in keys:
        numbers = _numbers(key.public)
        algorithm = "RS384" if numbers["kty"] == "RSA" else "ES384"
        by_id.setdefault(key.key_id, {**numbers, "use": "sig", "alg": algorithm, "kid": key.key_id})
    return json.dumps({"keys": list(by_id.values())}).encode()


def thumbprint(public: RSAPublicKey | EllipticCurvePublicKey) -> str:
    """Give the key's RFC 7638 thumbprint: SHA-256 of its required members, base64url without padding."""
    text = json.dumps(_numbers(public), separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(text.encode()).digest())


def _numbers(public: RSAPublicKey | EllipticCurvePublicKey) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(public, RSAPublicKey):
        rsa = public.public_numbers()
        return {"kty": "RSA", "n": _unsigned(rsa.n), "e": _unsigned(rsa.e)}
    ec = public.public_numbers()
    x, y = (_base64url(number.to_bytes(_P384_BYTES, "big")) for number in (ec.x, ec.y))
    return {"kty": "EC", "crv": "P-384", "x": x, "y": y}


def _unsigned(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode("ascii").rstrip("=")
