"""TLS to the EMR: whose certificate is taken, and which versions are spoken."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployr_serve.adapters.http import AiohttpTransport, Request
from deployr_serve.bootstrap import build
from deployr_serve.core.errors import EmrUnreachable, SettingsInvalid
from deployr_serve.settings import read_settings

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Authority:
    """A hospital's own certificate authority."""

    def __init__(self, folder, name="Hospital CA"):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._signed(self._name, self._key, is_authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, *, host="127.0.0.1", ends=NOW + DAY):
        """Give the context of a server with a certificate for this host."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "emr")])
        certificate = self._signed(subject, key, host=host, ends=ends)
        file = self._folder / f"server-{certificate.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(self, subject, key, *, is_authority=False, host=None, ends=NOW + DAY):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 3 * DAY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if host is not None:
            try:
                name = x509.IPAddress(ipaddress.ip_address(host))
            except ValueError:
                name = x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
async def port_of():
    """Give a function that starts a loopback server with this TLS context and gives its port."""
    servers = []

    async def answer(_):
        return web.Response(text="secret")

    async def start(context):
        app = web.Application()
        app.router.add_get("/", answer)
        servers.append(TestServer(app, scheme="https", host="127.0.0.1"))
        await servers[-1].start_server(ssl=context)
        return servers[-1].port

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def answer_over(port_of, clock):
    """Give a function that asks a server with this context over a transport that trusts this file."""
    transports = []

    async def ask(context, ca_file):
        url = f"https://127.0.0.1:{await port_of(context)}/"
        transports.append(AiohttpTransport(timeout_s=5, clock=clock, ca_file=ca_file))
        return await transports[-1].send(Request(method="GET", url=url))

    yield ask
    for transport in transports:
        await transport.aclose()


async def test_a_hospitals_own_authority_is_trusted_when_it_is_configured(authority, answer_over):
    response = await answer_over(authority.server_context(), authority.file)
    assert (response.status, response.body) == (200, b"secret")


async def test_an_authority_that_nobody_configured_is_not_trusted(authority, answer_over):
    with pytest.raises(EmrUnreachable, match="certificate"):
        await answer_over(authority.server_context(), None)


async def test_another_authority_is_not_trusted(authority, answer_over, tmp_path):
    other = Authority(tmp_path, "Other CA")
    with pytest.raises(EmrUnreachable, match="certificate"):
        await answer_over(other.server_context(), authority.file)


async def test_a_certificate_for_another_host_is_not_taken(authority, answer_over):
    with pytest.raises(EmrUnreachable, match="certificate"):
        await answer_over(authority.server_context(host="other.example"), authority.file)


async def test_a_certificate_that_has_ended_is_not_taken(authority, answer_over):
    with pytest.raises(EmrUnreachable, match="certificate"):
        await answer_over(authority.server_context(ends=NOW - DAY), authority.file)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(authority, answer_over, version):
    context = authority.server_context()
    context.minimum_version = context.maximum_version = version
    assert (await answer_over(context, authority.file)).status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_1_1_is_not_spoken(authority, answer_over, port_of):
    def outdated(context):
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    server_context = outdated(authority.server_context())
    client_context = outdated(ssl.create_default_context(cafile=authority.file))
    port = await port_of(server_context)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context)  # whoever allows it, gets in
    writer.close()
    with pytest.raises(EmrUnreachable):
        await answer_over(server_context, authority.file)


def test_a_file_without_certificates_is_refused_before_anything_is_sent(tmp_path, clock):
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        AiohttpTransport(timeout_s=5, clock=clock, ca_file=empty)
    settings = {
        "DEPLOYR_BUNDLES": str(tmp_path),
        "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir",
        "DEPLOYR_EMR_CA_FILE": str(empty),
    }
    with pytest.raises(SettingsInvalid, match="DEPLOYR_EMR_CA_FILE: expected certificates"):
        build(read_settings(settings))
