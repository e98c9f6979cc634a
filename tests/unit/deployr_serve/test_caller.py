from __future__ import annotations

import asyncio
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deployr_serve.adapters.caller_jwt import CdsCallers, KeySets, KeySetUnusable, read_key_set
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.caller import CallerRefused, CdsClient, bearer_token, read_token
from deployr_serve.core.errors import StoreUnavailable

URL = "https://cds.example/cds-services/hematocrit-order-sign"
JWKS_URL = "https://emr.example/jwks.json"
PINNED = CdsClient(issuer="https://emr.example", jwks_url=JWKS_URL)


@pytest.fixture(scope="module")
def signing():
    return {"ES384": ec.generate_private_key(ec.SECP384R1()), "RS256": rsa.generate_private_key(65537, 2048)}


@pytest.fixture
def jwks_of():
    """Give a function that makes a key set of private keys by key id."""

    def make(**keys):
        listed = []
        for key_id, key in keys.items():
            algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES384"
            public = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
            listed.append({**public, "kid": key_id})
        return json.dumps({"keys": listed}).encode()

    return make


@pytest.fixture
def token_of(signing, clock):
    """Give a function that makes an ``Authorization`` header; a claim given as None is left out."""

    def make(*, algorithm="ES384", headers=None, **claims):
        now = int(clock.now().timestamp())
        said = {"iss": PINNED.issuer, "aud": URL, "iat": now, "exp": now + 300, "jti": "j1", **claims}
        said = {name: value for name, value in said.items() if value is not None}
        signed = jwt.encode(
            said, signing[algorithm], algorithm=algorithm, headers={"kid": algorithm.lower(), **(headers or {})}
        )
        return f"Bearer {signed}"

    return make


@pytest.fixture
def callers_of(transport_of, clock, jwks_of, signing):
    """Give a function that makes callers whose keys come from a scripted place."""

    def make(*answers, records=None, client=PINNED):
        given = answers or (jwks_of(es384=signing["ES384"], rs256=signing["RS256"]),)
        transport = transport_of(*given)
        keys = KeySets((client,), transport=transport, clock=clock)
        made = CdsCallers((client,), keys=keys, records=records or MemoryStore(), clock=clock)
        return made, transport

    return make


async def refusal(callers, header):
    with pytest.raises(CallerRefused) as refused:
        await callers.verify(header, audiences=[URL])
    return refused.value.why


@pytest.mark.parametrize("algorithm", ["ES384", "RS256"])
async def test_a_signed_token_of_a_configured_client_is_let_in(callers_of, token_of, algorithm):
    callers, _ = callers_of()
    caller = await callers.verify(token_of(algorithm=algorithm), audiences=[URL])
    assert caller.client == PINNED


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://other.example"}, "issuer"),
        ({"tenant": "north"}, "issuer"),
        ({"aud": f"{URL}/"}, "audience"),
        ({"aud": [f"{URL}2", 7]}, "audience"),
        ({"aud": None}, "audience"),
        ({"jti": None}, "jti"),
        ({"jti": "j" * 201}, "jti"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"nbf": "soon"}, "nbf"),
    ],
)
async def test_each_claim_is_checked(callers_of, token_of, claims, why):
    callers, _ = callers_of()
    assert await refusal(callers, token_of(**claims)) == why


async def test_a_token_expires_at_its_leeway_and_lives_900_s_at_most(callers_of, token_of, clock):
    callers, _ = callers_of()
    now = int(clock.now().timestamp())
    await callers.verify(token_of(iat=now - 100, exp=now - 59, jti="a"), audiences=[URL])
    assert await refusal(callers, token_of(iat=now - 100, exp=now - 60)) == "expired"
    await callers.verify(token_of(iat=now, exp=now + 900, jti="b"), audiences=[URL])
    assert await refusal(callers, token_of(iat=now, exp=now + 901)) == "life"
    assert await refusal(callers, token_of(iat=now + 61, exp=now + 300)) == "not-yet"


async def test_a_jku_is_the_configured_place_or_nothing(callers_of, token_of):
    callers, transport = callers_of()
    await callers.verify(token_of(headers={"jku": "https://EMR.example:443/jwks.json"}), audiences=[URL])
    for jku in ("https://emr.example.evil.net/jwks.json", "https://emr.example@evil.net/jwks.json", f"{JWKS_URL}?x=1"):
        assert await refusal(callers, token_of(headers={"jku": jku})) == "jku"
    assert {request.url for request in transport.requests} == {JWKS_URL}


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "bearer  "])
def test_only_a_bearer_token_is_one(header):
    with pytest.raises(CallerRefused):
        read_token(bearer_token(header))


async def test_a_store_that_is_down_lets_nobody_in(callers_of, token_of):
    class Down(MemoryStore):
        async def create_record(self, *_, **__):
            raise StoreUnavailable("expected a store that can be read and written")

    callers, _ = callers_of(records=Down())
    assert await refusal(callers, token_of()) == "store-unavailable"


async def test_of_twenty_that_use_a_token_at_once_on_two_stores_over_one_file_one_is_let_in(
    callers_of, token_of, tmp_path
):
    stores = [SqliteStore(tmp_path / "store.sqlite") for _ in range(2)]
    instances = [callers_of(records=store)[0] for store in stores]
    header = token_of()
    came = await asyncio.gather(
        *(instances[number % 2].verify(header, audiences=[URL]) for number in range(20)), return_exceptions=True
    )
    for store in stores:
        await store.aclose()
    refused = [each.why for each in came if isinstance(each, CallerRefused)]
    assert refused == ["used-before"] * 19


async def test_keys_are_read_once_by_all_who_come_at_once(callers_of, token_of):
    callers, transport = callers_of()
    await asyncio.gather(*(callers.verify(token_of(jti=f"j{n}"), audiences=[URL]) for n in range(10)))
    assert len(transport.requests) == 1


async def test_a_key_id_that_is_not_there_reads_the_set_again_at_most_every_30_s(
    callers_of, token_of, jwks_of, signing, clock
):
    callers, transport = callers_of(jwks_of(old=signing["ES384"]), jwks_of(es384=signing["ES384"]))
    assert await refusal(callers, token_of()) == "kid"
    clock.pass_time(29)
    assert await refusal(callers, token_of()) == "kid"
    clock.pass_time(1)
    await callers.verify(token_of(), audiences=[URL])
    assert len(transport.requests) == 2


@pytest.mark.parametrize(
    "later",
    [
        Response(status=500, content_type="text/html", body=b""),
        Response(status=302, content_type="text/html", body=b"", headers={"location": "https://evil.net"}),
        b"<html>",
        b"x" * 70_000,
    ],
)
async def test_the_last_good_set_is_kept_for_a_day(callers_of, token_of, jwks_of, signing, clock, later):
    callers, _ = callers_of(jwks_of(es384=signing["ES384"]), later)
    await callers.verify(token_of(jti="a"), audiences=[URL])
    clock.pass_time(86_399)
    await callers.verify(token_of(jti="b"), audiences=[URL])
    clock.pass_time(1)
    assert await refusal(callers, token_of(jti="c")) == "kid"


async def test_a_key_id_that_fits_two_keys_proves_nothing(callers_of, token_of, jwks_of, signing):
    one = json.loads(jwks_of(es384=signing["ES384"]))["keys"]
    callers, _ = callers_of(json.dumps({"keys": one + one}).encode())
    assert await refusal(callers, token_of()) == "kid-twice"


def test_a_set_without_a_key_that_verifies_is_refused(jwks_of):
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 the fault under test
    for body in (b"{}", b"[]", b'{"keys":[{"kty":"oct","k":"AAAA","kid":"a"}]}', jwks_of(weak=weak)):
        with pytest.raises(KeySetUnusable):
            read_key_set(body)
