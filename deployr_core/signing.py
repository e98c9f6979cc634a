"""Who vouches for a bundle: an Ed25519 signature over the manifest's bytes, kept beside it in ``manifest.sig``.

The manifest holds the digest of every other file, so that signing it signs them all. Trust comes from the keys that a
site configures, never from anything in the bundle: the file names its key only so that the right one is tried. A run's
record and the entries of a journal are signed in the same way. Bytes in, bytes out; `cryptography` is imported when a
key is used, not before.

Source: RFC 8032 (pure Ed25519: the message itself is signed, so ``openssl pkeyutl -verify -rawin`` checks it too).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

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


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key that a site signs with. ``key_id``: that of its public half, which verifies."""

    key_id: str
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> TrustedKey:
        """Give its public half."""
        return TrustedKey(key_id=self.key_id, key=self.key.public_key())


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


def signing_key(private_key_pem: bytes) -> SigningKey:
    """Read a private key from PEM.

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
    return SigningKey(key_id=_key_id(key.public_key()), key=key)


def sign(content: bytes, key: SigningKey) -> Signature:
    """Sign bytes; the same bytes and key give the same signature."""
    return Signature(key_id=key.key_id, signature=key.key.sign(content))


def sign_manifest(manifest_json: bytes, private_key_pem: bytes) -> bytes:
    """Give the bytes of ``manifest.sig``, or of ``run.sig`` for those of a run's record.

    Raises:
        KeyUnusable: not a private Ed25519 key without a passphrase.
    """
    return msgspec.json.encode(sign(manifest_json, signing_key(private_key_pem)), order="sorted")


def parse_signature(content: bytes, *, name: str = SIGNATURE_FILE) -> Signature:
    """Read ``manifest.sig``; that it can be read says nothing about whether it is right.

    Raises:
        SignatureInvalid: not what such a file must hold.
    """
    try:
        return msgspec.json.decode(content, type=Signature)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SignatureInvalid(f"{name}: expected algorithm, key_id and signature: {error}") from None


def verify_manifest(
    manifest_json: bytes,
    signature_json: bytes | None,
    trusted_keys: Sequence[TrustedKey],
    *,
    name: str = SIGNATURE_FILE,
    of: str = "bundle",
) -> str:
    """Check that one of the trusted keys signed exactly these bytes, and give its id.

    Args:
        manifest_json: the bytes of ``manifest.json``, or of a run's record, not yet looked at.
        signature_json: the bytes of the file with the signature; None if there is no such file.
        trusted_keys: at least one.
        name: what that file is called.
        of: what is signed, in a word.

    Raises:
        SignatureInvalid: not signed, signed by another key, or other bytes were signed.
    """
    if signature_json is None:
        raise SignatureInvalid(f"{name}: expected a signature {_by(trusted_keys)}, but the {of} is not signed")
    signature = parse_signature(signature_json, name=name)
    try:
        return verify_signature(manifest_json, signature, trusted_keys, of=name.removesuffix(".sig"))
    except SignatureInvalid as error:
        raise SignatureInvalid(f"{name}: {error}") from None


def verify_signature(content: bytes, signature: Signature, trusted_keys: Sequence[TrustedKey], *, of: str) -> str:
    """Check that one of the trusted keys signed exactly these bytes, and give its id. ``of``: what they are, in a word.

    Raises:
        SignatureInvalid: signed by another key, or other bytes were signed.
    """
    from cryptography.exceptions import InvalidSignature

    for key in trusted_keys:
        if key.key_id == signature.key_id:
            try:
                key.key.verify(signature.signature, content)
            except InvalidSignature:
                raise SignatureInvalid(
                    f"expected the signature of this {of}, but it is of other bytes: "
                    f"the {of} or the signature was changed"
                ) from None
            return key.key_id
    raise SignatureInvalid(f"expected a signature {_by(trusted_keys)}, got one by {signature.key_id[:16]!r}")


def _by(trusted_keys: Sequence[TrustedKey]) -> str:
    return f"by a trusted key ({', '.join(key.key_id for key in trusted_keys)})"


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
