"""The keys that sign our assertions: read, checked to be able to, and published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from deployr_serve.adapters.jwks import PublishedKey, thumbprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_LEAST_RSA_BITS = 2048
_PASSWORD = "DEPLOYR_EMR_KEY_PASSWORD"  # noqa: S105 a setting's name


class KeyUnusable(ValueError):
    """The key cannot sign for us; the message says what was expected, and repeats nothing of the key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientKey:
    """A private key, its id, and RS384 or ES384."""

    private: RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)
    key_id: str
    algorithm: str


class KeySource(Protocol):
    """Where the key comes from."""

    def current(self) -> ClientKey:
        """Give the key that signs now, at once."""

    async def reread(self) -> ClientKey:
        """Give the key that signs now, looked up again: the EMR did not take the one that was held."""

    def published(self) -> tuple[PublishedKey, ...]:
        """Give the public keys of our JWK Set: the one that signs, and those before it."""


class FixedKey:
    """One key for as long as the process runs, and the public keys of those before it."""

    def __init__(self, key: ClientKey, *, old: tuple[PublishedKey, ...] = ()) -> None:
        self._key = key
        self._old = old

    def current(self) -> ClientKey:
        """Give the key."""
        return self._key

    async def reread(self) -> ClientKey:
        """Give the key: there is no other."""
        return self._key

    def published(self) -> tuple[PublishedKey, ...]:
        """Give the key's public half, and the old ones."""
        return (published(self._key), *self._old)


def published(key: ClientKey) -> PublishedKey:
    """Give the public half of a key."""
    return PublishedKey(public=key.private.public_key(), key_id=key.key_id)


def read_client_key(pem: bytes, *, password: str | None, algorithm: str, key_id: str | None) -> ClientKey:
    """Read a private key and try it.

    Args:
        pem: PKCS#8, or the older forms that OpenSSL writes.
        password: None for a key that is not encrypted.
        algorithm: RS384 (RSA of at least 2048 bits) or ES384 (EC on P-384).
        key_id: None takes the key's RFC 7638 thumbprint.

    Raises:
        KeyUnusable: it is no private key, is too weak or of another kind, or its password is missing or wrong.
    """
    private = _loaded(pem, password)
    checked = _rsa(private) if algorithm == "RS384" else _on_p384(private)
    return ClientKey(private=checked, key_id=key_id or thumbprint(checked.public_key()), algorithm=algorithm)


def read_public_key(pem: bytes, *, key_id: str | None) -> PublishedKey:
    """Read a public key that is to stay in our JWK Set; ``key_id`` None takes its thumbprint.

    Raises:
        KeyUnusable: it is no public key, or none of ours.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("expected public keys in PEM") from None
    checked = _public(public)
    return PublishedKey(public=checked, key_id=key_id or thumbprint(checked))


def _loaded(pem: bytes, password: str | None) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None if password is None else password.encode())
    except TypeError:
        # What cryptography raises where a password is missing, or given to a key that is not encrypted.
        is_missing = password is None
        expected = f"{_PASSWORD}: the key is encrypted" if is_missing else f"no {_PASSWORD}: the key is not encrypted"
        raise KeyUnusable(f"expected {expected}") from None
    except UnsupportedAlgorithm:
        raise KeyUnusable("expected an RSA key, or an EC key on P-384") from None
    except ValueError:
        if password is not None and b"ENCRYPTED" in pem:
            raise KeyUnusable(f"expected {_PASSWORD} to be the password of this key") from None
        raise KeyUnusable("expected a private key in PEM") from None


def _rsa(private: object) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(private, RSAPrivateKey):
        raise KeyUnusable("expected an RSA key for RS384")
    if private.key_size < _LEAST_RSA_BITS:
        raise KeyUnusable(f"expected an RSA key of at least {_LEAST_RSA_BITS} bits")
    return private


def _on_p384(private: object) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey

    if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP384R1):
        raise KeyUnusable("expected an EC key on P-384 for ES384")
    return private


def _public(public: object) -> RSAPublicKey | EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(public, RSAPublicKey) and public.key_size >= _LEAST_RSA_BITS:
        return public
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP384R1):
        return public
    raise KeyUnusable(f"expected public keys, RSA of at least {_LEAST_RSA_BITS} bits or EC on P-384")
