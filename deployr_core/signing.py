"""Who vouches for a bundle: an Ed25519 signature over the manifest's bytes, kept beside it in ``manifest.sig``.

The manifest holds the digest of every other file, so that signing it signs them all. Trust comes from the keys that a
site configures, never from anything in the bundle: the file names its key only so that the right one is tried. Bytes
in, bytes out; `cryptography` is imported when a key is used, not before.

Source: RFC 8032 (pure Ed25519: the message itself is signed, so ``openssl pkeyutl -verify -rawin`` checks it too).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_FILE = "manifest.sig"


class KeyUnusable(ValueError):
    """The bytes are not an Ed25519 key of the kind that was asked for."""


class SignatureInvalid(ValueError):
    """The manifest is not signed by any of the trusted keys; the message says what was wrong."""


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signature as a file: the 64 bytes in base64, and which key made it."""

    algorithm: Literal["Ed25519"] = "Ed25519"
    key_id: str
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """A public key that a site trusts. ``key_id``: 16 hex digits of the SHA-256 of its 32 bytes."""

    key_id: str
    key: Ed25519PublicKey = field(repr=False)


def trusted_key(public_key_pem: bytes) -> TrustedKey:
    """Read a public key from PEM.

    Raises:
        KeyUnusable: not a public Ed25519 key; a private one is refused, for it should not be where verification is.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key_pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable("expected a public Ed25519 key in PEM (-----BEGIN PUBLIC KEY-----)")
    return TrustedKey(key_id=_key_id(key), key=key)


def sign_manifest(manifest_json: bytes, private_key_pem: bytes) -> bytes:
    """Give the bytes of ``manifest.sig``; the same manifest and key give the same bytes.

    Raises:
        KeyUnusable: not a private Ed25519 key without a passphrase.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable("expected a private Ed25519 key in PEM, without a passphrase (-----BEGIN PRIVATE KEY-----)")
    signature = Signature(key_id=_key_id(key.public_key()), signature=key.sign(manifest_json))
    return msgspec.json.encode(signature, order="sorted")


def parse_signature(content: bytes) -> Signature:
    """Read ``manifest.sig``; that it can be read says nothing about whether it is right.

    Raises:
        SignatureInvalid: not what such a file must hold.
    """
    try:
        return msgspec.json.decode(content, type=Signature)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SignatureInvalid(f"{SIGNATURE_FILE}: expected algorithm, key_id and signature: {error}") from None


def verify_manifest(manifest_json: bytes, signature_json: bytes | None, trusted_keys: Sequence[TrustedKey]) -> str:
    """Check that one of the trusted keys signed exactly these bytes, and give its id.

    Args:
        manifest_json: the bytes of ``manifest.json``, not yet looked at.
        signature_json: the bytes of ``manifest.sig``; None if there is no such file.
        trusted_keys: at least one.

    Raises:
        SignatureInvalid: not signed, signed by another key, or other bytes were signed.
    """
    from cryptography.exceptions import InvalidSignature

    expected = f"by a trusted key ({', '.join(key.key_id for key in trusted_keys)})"
    if signature_json is None:
        raise SignatureInvalid(f"{SIGNATURE_FILE}: expected a signature {expected}, but the bundle is not signed")
    signature = parse_signature(signature_json)
    for key in trusted_keys:
        if key.key_id == signature.key_id:
            try:
                key.key.verify(signature.signature, manifest_json)
            except InvalidSignature:
                raise SignatureInvalid(
                    f"{SIGNATURE_FILE}: expected the signature of this manifest, but it is of other bytes: "
                    "the manifest or the signature was changed"
                ) from None
            return key.key_id
    raise SignatureInvalid(f"{SIGNATURE_FILE}: expected a signature {expected}, got one by {signature.key_id[:16]!r}")


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
