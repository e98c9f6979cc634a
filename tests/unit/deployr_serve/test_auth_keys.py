"""The keys that sign for us: which are taken, how they are published, and how one from a vault is rotated."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from deployr_serve.adapters.client_assertion import signed_assertion
from deployr_serve.adapters.client_keys import ClientKey, FixedKey, KeyUnusable, read_client_key, read_public_key
from deployr_serve.adapters.jwks import key_set, thumbprint
from deployr_serve.adapters.key_vault import REREAD_S, Secret, VaultKey, VaultUnavailable, read_secret

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def pem_of(private, password=None):
    encryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_pem_of(private):
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def ec_key():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture(scope="module")
def ec_key_2():
    return ec.generate_private_key(ec.SECP384R1())


def read(pem, *, password=None, algorithm="RS384", key_id=None):
    return read_client_key(pem, password=password, algorithm=algorithm, key_id=key_id)


# -- reading


def test_a_key_is_read_with_and_without_a_password(rsa_key, ec_key):
    assert read(pem_of(rsa_key)).private.private_numbers() == rsa_key.private_numbers()
    locked = read(pem_of(ec_key, "CANARY"), password="CANARY", algorithm="ES384", key_id="key-1")
    assert (locked.key_id, locked.algorithm) == ("key-1", "ES384")
    assert "CANARY" not in repr(locked)
    assert "private" not in repr(locked)


def test_the_older_forms_of_pem_are_read_too(rsa_key, ec_key):
    for private, algorithm in ((rsa_key, "RS384"), (ec_key, "ES384")):
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        assert read(pem, algorithm=algorithm).algorithm == algorithm


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("nothing", "a private key in PEM"),
        ("text", "a private key in PEM"),
        ("half", "a private key in PEM"),
        ("public", "a private key in PEM"),
        ("rsa for ES384", "an EC key on P-384 for ES384"),
        ("ec for RS384", "an RSA key for RS384"),
        ("p-256", "an EC key on P-384 for ES384"),
        ("ed25519", "an RSA key for RS384"),
        ("1024 bits", "at least 2048 bits"),
        ("no password", "DEPLOYR_EMR_KEY_PASSWORD"),
        ("wrong password", "DEPLOYR_EMR_KEY_PASSWORD"),
        ("needless password", "no DEPLOYR_EMR_KEY_PASSWORD"),
    ],
)
def test_a_key_that_cannot_sign_is_refused_and_nothing_of_it_is_repeated(case, expected, rsa_key, ec_key):
    pem, options = {
        "nothing": (b"", {}),
        "text": (b"CANARY", {}),
        "half": (pem_of(rsa_key)[:200], {}),
        "public": (public_pem_of(rsa_key), {}),
        "rsa for ES384": (pem_of(rsa_key), {"algorithm": "ES384"}),
        "ec for RS384": (pem_of(ec_key), {}),
        "p-256": (pem_of(ec.generate_private_key(ec.SECP256R1())), {"algorithm": "ES384"}),
        "ed25519": (pem_of(ed25519.Ed25519PrivateKey.generate()), {}),
        "1024 bits": (pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)), {}),  # noqa: S505 weak
        "no password": (pem_of(rsa_key, "x"), {}),
        "wrong password": (pem_of(rsa_key, "x"), {"password": "CANARY"}),
        "needless password": (pem_of(rsa_key), {"password": "CANARY"}),
    }[case]
    with pytest.raises(KeyUnusable, match=expected) as caught:
        read(pem, **options)
    assert "CANARY" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


def test_an_old_key_is_published_from_its_public_half_only(rsa_key, ec_key):
    assert read_public_key(public_pem_of(ec_key), key_id="key-7").key_id == "key-7"
    assert read_public_key(public_pem_of(ec_key), key_id=None).key_id == thumbprint(ec_key.public_key())
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 weak on purpose
    for pem in (pem_of(rsa_key), b"", public_pem_of(small), public_pem_of(ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(KeyUnusable, match="expected public keys"):
            read_public_key(pem, key_id=None)


# -- publishing


def test_the_key_set_holds_public_members_only(rsa_key, ec_key):
    key = read(pem_of(rsa_key), key_id="key-2")
    old = read_public_key(public_pem_of(ec_key), key_id="key-1")
    published = json.loads(key_set(FixedKey(key, old=(old,)).published()))
    assert [set(jwk) for jwk in published["keys"]] == [
        {"kty", "n", "e", "kid", "use", "alg"},
        {"kty", "crv", "x", "y", "kid", "use", "alg"},
    ]
    assert [(jwk["kid"], jwk["alg"], jwk["use"]) for jwk in published["keys"]] == [
        ("key-2", "RS384", "sig"),
        ("key-1", "ES384", "sig"),
    ]
    assert not PRIVATE_MEMBERS & {member for jwk in published["keys"] for member in jwk}


def test_the_key_set_verifies_what_the_key_signs(rsa_key, ec_key, now):
    import jwt

    for private, algorithm in ((rsa_key, "RS384"), (ec_key, "ES384")):
        key = read(pem_of(private), algorithm=algorithm)
        assertion = signed_assertion(key, client_id="c", audience="https://emr.example/token", now=now, jti="j")
        published = jwt.PyJWKSet.from_json(key_set(FixedKey(key).published()).decode())
        options = {"verify_exp": False, "verify_iat": False}
        claims = jwt.decode(
            assertion,
            published[jwt.get_unverified_header(assertion)["kid"]].key,
            algorithms=[algorithm],
            audience="https://emr.example/token",
            options=options,
        )
        assert (claims["iss"], claims["sub"], claims["jti"]) == ("c", "c", "j")
        # The same key, instant and jti give the same claims: the randomness is the caller's.
        assert claims["exp"] - claims["iat"] == 240


def test_one_key_id_stands_in_the_set_once(ec_key, ec_key_2):
    keys = [read_public_key(public_pem_of(private), key_id="same") for private in (ec_key, ec_key_2)]
    [jwk] = json.loads(key_set(keys))["keys"]
    [first] = json.loads(key_set(keys[:1]))["keys"]
    assert jwk == first


def test_the_thumbprint_is_that_of_rfc_7638():
    # RFC 7638 section 3.1: this modulus has this thumbprint.
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu"
        "6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8a"
        "wapJzKnqDKgw"
    )
    number = int.from_bytes(base64.urlsafe_b64decode(modulus + "=="), "big")
    public = rsa.RSAPublicNumbers(65537, number).public_key()
    assert thumbprint(public) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_coordinate_that_begins_with_zeros_keeps_its_48_bytes():
    # RFC 7518 section 6.2.1.2; one private number of 256 or so gives such a coordinate.
    found = next(
        public
        for public in (ec.derive_private_key(number, ec.SECP384R1()).public_key() for number in range(1, 5000))
        if public.public_numbers().x < 2**376
    )
    [jwk] = json.loads(key_set([read_public_key(_pem(found), key_id="z")]))["keys"]
    assert (len(jwk["x"]), len(jwk["y"])) == (64, 64)  # 48 bytes in base64url


def _pem(public):
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


# -- a vault


class FakeVault:
    """Gives the secret that it holds; raises it, where it is an exception."""

    def __init__(self, secret, expires_on=None):
        self.secret = secret
        self.expires_on = expires_on
        self.reads = 0
        self.read_in = set()

    def __call__(self):
        self.reads += 1
        self.read_in.add(threading.current_thread())
        if isinstance(self.secret, BaseException):
            raise self.secret
        return Secret(value=self.secret.decode(), expires_on=self.expires_on)


def vault_key(vault, clock):
    return VaultKey(vault, parse=lambda text: read(text.encode(), algorithm="ES384"), clock=clock)


async def background(key):
    """Let a read that is under way in a thread come to its end."""
    await asyncio.gather(*key._flights._under_way.values())


def ids(key):
    return [jwk["kid"] for jwk in json.loads(key_set(key.published()))["keys"]]


async def test_a_rotated_secret_is_picked_up_without_a_restart_and_the_old_key_stays_published(
    clock, ec_key, ec_key_2, caplog
):
    vault = FakeVault(pem_of(ec_key))
    key = vault_key(vault, clock)
    old, new = thumbprint(ec_key.public_key()), thumbprint(ec_key_2.public_key())
    vault.secret = pem_of(ec_key_2)
    clock.pass_time(REREAD_S - 1)
    assert key.current().key_id == old
    assert vault.reads == 1
    clock.pass_time(1)
    assert key.current().key_id == old  # nobody waits for the vault
    await background(key)
    assert key.current().key_id == new
    assert ids(key) == [new, old]
    assert vault.reads == 2
    assert "BEGIN" not in caplog.text


async def test_a_secret_that_expires_is_read_again_then_and_no_more_often_afterwards(clock, ec_key):
    vault = FakeVault(pem_of(ec_key), expires_on=clock.now() + timedelta(seconds=60))
    key = vault_key(vault, clock)
    clock.pass_time(59)
    key.current()
    assert vault.reads == 1
    clock.pass_time(1)
    for _ in range(5):
        key.current()
        await background(key)
    assert vault.reads == 2


@pytest.mark.parametrize("trouble", [VaultUnavailable("down"), b"no key", b""], ids=str)
async def test_a_vault_that_is_down_or_holds_no_key_leaves_the_held_one_going(clock, ec_key, caplog, trouble):
    vault = FakeVault(pem_of(ec_key))
    key = vault_key(vault, clock)
    vault.secret = trouble
    clock.pass_time(REREAD_S)
    for _ in range(3):
        assert key.current().key_id == thumbprint(ec_key.public_key())
        await background(key)
    assert vault.reads == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_refused_key_is_looked_up_at_once_but_not_on_every_refusal(clock, ec_key, ec_key_2):
    vault = FakeVault(pem_of(ec_key))
    key = vault_key(vault, clock)
    clock.pass_time(30)
    vault.secret = pem_of(ec_key_2)
    assert (await key.reread()).key_id == thumbprint(ec_key_2.public_key())
    for _ in range(5):
        await key.reread()
    assert vault.reads == 2


async def test_the_vault_is_read_beside_the_event_loop(clock, ec_key):
    vault = FakeVault(pem_of(ec_key))
    key = vault_key(vault, clock)
    vault.read_in.clear()
    clock.pass_time(30)
    await key.reread()
    assert threading.current_thread() not in vault.read_in


@pytest.mark.parametrize("secret", [VaultUnavailable("down"), b"no key"], ids=str)
def test_there_is_no_starting_without_a_key(clock, secret):
    with pytest.raises((VaultUnavailable, KeyUnusable)):
        vault_key(FakeVault(secret), clock)


class FakeSecretClient:
    """Azure's `SecretClient`, as far as it is used."""

    def __init__(self, *, fails_with=None, expires_on=None):
        self.asked = []
        self._fails_with = fails_with
        self._expires_on = expires_on

    def get_secret(self, name, version=None, **options):
        from azure.keyvault.secrets import KeyVaultSecret, SecretProperties

        self.asked.append((name, version))
        if self._fails_with is not None:
            raise self._fails_with
        properties = SecretProperties(expires_on=self._expires_on)
        return KeyVaultSecret(properties, "CANARY")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://v.vault.azure.net/secrets/emr-key", ("emr-key", None)),
        ("https://v.vault.azure.net/secrets/emr-key/", ("emr-key", None)),
        ("https://v.vault.azure.net/secrets/emr-key/0a1b", ("emr-key", "0a1b")),
    ],
)
def test_a_secret_is_read_by_the_name_and_version_of_its_url(url, asked):
    pytest.importorskip("azure.keyvault.secrets")
    client = FakeSecretClient()
    secret = read_secret(url, client)
    assert (client.asked, secret.value, secret.expires_on) == ([asked], "CANARY", None)
    assert "CANARY" not in repr(secret)


def test_azures_errors_come_out_without_what_they_say():
    exceptions = pytest.importorskip("azure.core.exceptions")
    for error in (exceptions.ServiceRequestError("CANARY"), exceptions.ClientAuthenticationError("CANARY")):
        with pytest.raises(VaultUnavailable) as caught:
            read_secret("https://v.vault.azure.net/secrets/k", FakeSecretClient(fails_with=error))
        assert "CANARY" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_the_key_is_not_shown(rsa_key):
    key = ClientKey(private=rsa_key, key_id="key-1", algorithm="RS384")
    assert repr(key) == "ClientKey(key_id='key-1', algorithm='RS384')"
