"""Keys and certificates, made when the tests run: nothing secret lies in the repository."""

from __future__ import annotations

import ssl
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from json import dumps
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from mock_emr.assertion import Key, keys_in

_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
_OPEN = serialization.NoEncryption()


@dataclass(frozen=True, kw_only=True)
class Keyring:
    """The client's key files in ``folder``, and what the EMR registers of them, by key id.

    Each key is registered under its own name and under its thumbprint, which ``thumbprints`` gives as
    ``thumbprint_<name>``.
    """

    folder: Path
    registered: Mapping[str, Key]
    thumbprints: Mapping[str, str]


def make_keyring(folder: Path) -> Keyring:
    """Write ``ec1``, ``ec2``, ``rsa1`` and some keys that must be refused, as ``<name>.pem``."""
    good: dict[str, Any] = {
        "ec1": ec.generate_private_key(ec.SECP384R1()),
        "ec2": ec.generate_private_key(ec.SECP384R1()),
        "rsa1": rsa.generate_private_key(65537, 2048),
    }
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 the fault under test
    other_curve = ec.generate_private_key(ec.SECP256R1())
    for name, key in {**good, "rsa-1024": weak, "ec-p256": other_curve}.items():
        (folder / f"{name}.pem").write_bytes(key.private_bytes(_PEM, _PKCS8, _OPEN))
    locked = serialization.BestAvailableEncryption(b"a password that nobody gives")
    (folder / "locked.pem").write_bytes(good["ec1"].private_bytes(_PEM, _PKCS8, locked))
    (folder / "no-key.pem").write_text("-----BEGIN PRIVATE KEY-----\nnot one\n-----END PRIVATE KEY-----\n")
    (folder / "a-folder.pem").mkdir()
    listed, thumbprints = [], {}
    for name, key in good.items():
        algorithm = RSAAlgorithm if name.startswith("rsa") else ECAlgorithm
        jwk = algorithm.to_jwk(key.public_key(), as_dict=True)
        thumbprints[f"thumbprint_{name}"] = _thumbprint(jwk)
        listed += [{**jwk, "kid": name}, {**jwk, "kid": _thumbprint(jwk)}]
        (folder / f"{name}-public.pem").write_bytes(
            key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    registered = {key.kid: key for key in keys_in(dumps({"keys": listed}).encode())}
    return Keyring(folder=folder, registered=registered, thumbprints=thumbprints)


def _thumbprint(jwk: Mapping[str, str]) -> str:
    """Give the key's thumbprint. Source: RFC 7638."""
    members = {name: jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in jwk}
    digest = sha256(dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority of the tests' own; ``file`` is what has to be trusted."""

    folder: Path
    file: Path

    def server(self, network: str) -> ssl.SSLContext:
        """Give the server's side of a ``network`` of a row: tls, or one with something wrong about it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{network}.pem")
        if network == "tls-1.1":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
                context.set_ciphers("ALL:@SECLEVEL=0")
        return context


def make_authority(folder: Path) -> Authority:
    """Write an authority's certificate, and for each network the certificate and key of its server."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    day = timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "authority.pem"
    file.write_bytes(root.public_bytes(_PEM))
    for network, host, ends, signer in (
        ("tls", "127.0.0.1", now + day, key),
        ("tls-1.1", "127.0.0.1", now + day, key),
        ("tls-expired", "127.0.0.1", now - day, key),
        ("tls-other-host", "127.0.0.9", now + day, key),
        ("tls-self-signed", "127.0.0.1", now + day, None),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emr of the tests")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if signer is None else name)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * day)
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(signer or own, hashes.SHA256())
        )
        (folder / f"{network}.pem").write_bytes(own.private_bytes(_PEM, _PKCS8, _OPEN) + certificate.public_bytes(_PEM))
    return Authority(folder=folder, file=file)
