"""How `deployr doctor` reaches a server: what TLS agreed on, and what is wrong where it does not."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployr_cli.doctor.visit import shake_hands
from deployr_serve.core.errors import EmrUnreachable

NOW = datetime.now(UTC).replace(microsecond=0)


def certified(folder, *, ends):
    """Write a key and its own certificate for 127.0.0.1, which ends then."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "emr")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=9))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


async def shaken(file, *, trusted=True):
    """Give what shaking hands with a server of this certificate comes to."""
    spoken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    spoken.load_cert_chain(file)
    tls = ssl.create_default_context()
    if trusted:
        tls.load_verify_locations(cafile=file)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=spoken)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await shake_hands(f"https://127.0.0.1:{port}/fhir", tls=tls, timeout_s=5.0)


async def test_a_certificate_that_we_trust_tells_its_end(tmp_path):
    found = await shaken(certified(tmp_path, ends=NOW + timedelta(days=12)))

    assert (found.version, found.certificate_ends) == ("TLSv1.3", NOW + timedelta(days=12))


@pytest.mark.parametrize(
    ("days", "trusted", "word"), [(12, False, "self-signed"), (-1, True, "expired")], ids=["untrusted", "expired"]
)
async def test_a_certificate_that_we_do_not_trust_says_why(tmp_path, days, trusted, word):
    with pytest.raises(EmrUnreachable, match=word):
        await shaken(certified(tmp_path, ends=NOW + timedelta(days=days)), trusted=trusted)


async def test_a_server_that_speaks_no_tls_is_said_so():
    def answer(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(EmrUnreachable, match="TLS"):
            await shake_hands(url, tls=ssl.create_default_context(), timeout_s=5.0)


@pytest.mark.parametrize(("url", "word"), [("http://nowhere.invalid/", "DNS"), ("http://127.0.0.1:9/", "connection")])
async def test_where_there_is_no_server_it_is_said_why(url, word):
    with pytest.raises(EmrUnreachable, match=word):
        await shake_hands(url, tls=ssl.create_default_context(), timeout_s=5.0)


async def test_plain_http_has_no_handshake(server_of):
    async def answer(_, writer):
        writer.write(b"")

    server = await server_of(answer)
    assert await shake_hands(server.url, tls=ssl.create_default_context(), timeout_s=5.0) is None
