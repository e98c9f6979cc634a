"""SMART Backend Services: the token that lets us in, and the assertion that it is given for."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deployr_serve.adapters.auth import ClientKey, NoCredentials, SmartBackend
from deployr_serve.adapters.http import Response
from deployr_serve.core.errors import EmrBadResponse, EmrRefused, EmrTimeout, EmrUnreachable

TOKEN_URL = "https://emr.example/oauth2/token"
SCOPE = "system/Patient.rs system/Observation.rs"


def pem_of(private):
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def keys():
    return {
        "RS384": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
    }


class FakeAuthority:
    """The EMR's discovery and token endpoint; gives ``t1``, ``t2`` and so on."""

    def __init__(self, *, token=None, discovery=None, status=200):
        self.requests = []
        self.token_requests = []
        self._token = token
        self._discovery = discovery
        self._status = status

    async def send(self, request):
        self.requests.append(request)
        for _ in range(3):
            await asyncio.sleep(0)
        if request.url.endswith("/.well-known/smart-configuration"):
            answer = {"token_endpoint": TOKEN_URL} if self._discovery is None else self._discovery
            status = 200
        else:
            self.token_requests.append(request)
            number = len(self.token_requests)
            answer = {"access_token": f"t{number}", "token_type": "bearer", "expires_in": 300}
            if self._token is not None:
                answer = self._token
            status = self._status
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Response):
            return answer
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Response(status=status, content_type="application/json", body=body)


@pytest.fixture
def backend_of(keys, clock, fhir_base):
    def make(authority, *, algorithm="RS384"):
        return SmartBackend(
            fhir_base=fhir_base,
            client_id="client-1",
            key=ClientKey(pem=pem_of(keys[algorithm]), key_id="key-1", algorithm=algorithm),
            scope=SCOPE,
            transport=authority,
            clock=clock,
        )

    return make


async def test_no_credentials_send_nothing_and_cannot_be_refused():
    credentials = NoCredentials()
    assert await credentials.headers() == {}
    credentials.refused({})
    assert await credentials.headers() == {}


# -- what is asked


async def test_the_token_endpoint_is_discovered_once_and_asked_with_a_signed_assertion(backend_of, fhir_base, clock):
    authority = FakeAuthority()
    backend = backend_of(authority)
    assert await backend.headers() == {"Authorization": "Bearer t1"}
    clock.pass_time(400)
    assert await backend.headers() == {"Authorization": "Bearer t2"}
    assert [(request.method, request.url) for request in authority.requests] == [
        ("GET", f"{fhir_base}/.well-known/smart-configuration"),
        ("POST", TOKEN_URL),
        ("POST", TOKEN_URL),
    ]
    form = dict(authority.token_requests[0].form)
    assert form.pop("client_assertion").count(".") == 2
    assert form == {
        "grant_type": "client_credentials",
        "scope": SCOPE,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
async def test_the_assertion_is_what_smart_asks_for(backend_of, keys, algorithm):
    authority = FakeAuthority()
    await backend_of(authority, algorithm=algorithm).headers()
    assertion = dict(authority.token_requests[0].form)["client_assertion"]
    assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "kid": "key-1", "typ": "JWT"}
    claims = jwt.decode(
        assertion,
        keys[algorithm].public_key(),
        algorithms=[algorithm],
        audience=TOKEN_URL,
        issuer="client-1",
        subject="client-1",
        options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"], "strict_aud": True},
    )
    assert set(claims) == {"iss", "sub", "aud", "exp", "iat", "jti"}
    assert 0 < claims["exp"] - datetime.now(UTC).timestamp() <= 300
    assert isinstance(claims["jti"], str)
    assert len(claims["jti"]) >= 32


async def test_every_assertion_has_a_jti_of_its_own(backend_of, clock):
    authority = FakeAuthority()
    backend = backend_of(authority)
    for _ in range(20):
        await backend.headers()
        clock.pass_time(400)
    assertions = [dict(request.form)["client_assertion"] for request in authority.token_requests]
    jtis = {jwt.decode(text, options={"verify_signature": False})["jti"] for text in assertions}
    assert len(jtis) == 20


# -- how long a token is held


@pytest.mark.parametrize(
    ("expires_in", "held_s"),
    [
        (300, 270),  # 30 s before its end
        (60, 30),
        (40, 20),  # half of its life, where 30 s would be more
        (2, 1),
        (3600, 3570),
        (1e12, 3570),  # no token is held longer than an hour
        (0, 30),  # as if it did not say: 60 s
        (-5, 30),
        (None, 30),
        (0.5, 0.25),
    ],
)
async def test_a_token_is_held_until_shortly_before_its_end(backend_of, clock, expires_in, held_s):
    authority = FakeAuthority(token={"access_token": "t", "token_type": "Bearer", "expires_in": expires_in})
    backend = backend_of(authority)
    await backend.headers()
    clock.pass_time(held_s * 0.999)
    await backend.headers()
    assert len(authority.token_requests) == 1
    clock.pass_time(held_s * 0.002)
    await backend.headers()
    assert len(authority.token_requests) == 2


async def test_a_tokens_life_counts_from_when_it_was_asked_for(backend_of, clock):
    class Slow(FakeAuthority):
        async def send(self, request):
            clock.pass_time(20)
            return await super().send(request)

    authority = Slow()
    backend = backend_of(authority)
    await backend.headers()  # asked for 20 s in, answered 40 s in, good until 20 + 270
    clock.pass_time(249)
    await backend.headers()
    assert len(authority.token_requests) == 1
    clock.pass_time(1)
    await backend.headers()
    assert len(authority.token_requests) == 2


async def test_two_hundred_callers_at_once_fetch_one_token(backend_of):
    authority = FakeAuthority()
    backend = backend_of(authority)
    answers = await asyncio.gather(*(backend.headers() for _ in range(200)))
    assert answers == [{"Authorization": "Bearer t1"}] * 200
    assert len(authority.requests) == 2


async def test_after_a_refusal_a_new_token_is_fetched(backend_of):
    authority = FakeAuthority()
    backend = backend_of(authority)
    backend.refused(await backend.headers())
    assert await backend.headers() == {"Authorization": "Bearer t2"}


async def test_a_late_refusal_of_an_old_token_does_not_throw_the_new_one_away(backend_of):
    authority = FakeAuthority()
    backend = backend_of(authority)
    old = await backend.headers()
    for _ in range(6):  # as many searches as were under way with it
        backend.refused(old)
        assert await backend.headers() == {"Authorization": "Bearer t2"}
    assert len(authority.token_requests) == 2


async def test_a_caller_who_gives_up_does_not_keep_the_others_from_their_token(backend_of):
    authority = FakeAuthority()
    backend = backend_of(authority)
    first = asyncio.create_task(backend.headers())
    others = [asyncio.create_task(backend.headers()) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asyncio.gather(*others) == [{"Authorization": "Bearer t1"}] * 5


# -- what goes wrong


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://other.example/oauth2/token",
        "http://emr.example/oauth2/token",
        "https://emr.example:444/oauth2/token",
        "https://emr.example.other.example/oauth2/token",
    ],
)
async def test_a_token_endpoint_on_another_origin_is_refused_before_anything_is_sent_there(backend_of, endpoint):
    authority = FakeAuthority(discovery={"token_endpoint": endpoint})
    with pytest.raises(EmrRefused, match="own origin"):
        await backend_of(authority).headers()
    assert authority.token_requests == []


@pytest.mark.parametrize(
    "discovery",
    [
        b"<html></html>",
        b"",
        b'{"token_endp',
        {},
        {"token_endpoint": 7},
        {"token_endpoint": ""},
        {"token_endpoint": "/oauth2/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "https://emr.example@other.example/token"},
        {"token_endpoint": "https://[emr.example/token"},
    ],
)
async def test_a_discovery_without_a_token_endpoint_is_a_bad_response(backend_of, discovery):
    authority = FakeAuthority(discovery=discovery)
    with pytest.raises(EmrBadResponse):
        await backend_of(authority).headers()
    assert authority.token_requests == []


@pytest.mark.parametrize(("status", "error"), [(404, EmrBadResponse), (403, EmrRefused), (503, EmrUnreachable)])
async def test_a_discovery_that_fails_says_how(backend_of, status_of, status, error):
    with pytest.raises(error):
        await backend_of(FakeAuthority(discovery=status_of(status))).headers()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, EmrRefused),
        (401, EmrRefused),
        (403, EmrRefused),
        (404, EmrBadResponse),
        (302, EmrBadResponse),
        (429, EmrUnreachable),
        (500, EmrUnreachable),
    ],
)
async def test_a_token_that_is_not_granted_says_why(backend_of, status, error):
    with pytest.raises(error, match=str(status)):
        await backend_of(FakeAuthority(status=status)).headers()


@pytest.mark.parametrize(
    "token",
    [
        b"<html></html>",
        b"",
        b'{"access_token":"CANARY","token_t',
        {"token_type": "bearer"},
        {"access_token": "CANARY"},
        {"access_token": "", "token_type": "bearer"},
        {"access_token": "CANARY", "token_type": "mac"},
        {"access_token": 7, "token_type": "bearer"},
        {"access_token": "CANARY", "token_type": "bearer", "expires_in": "300"},
        b'{"access_token":"CANARY","token_type":"bearer","expires_in":NaN}',
        b'{"access_token":"CANARY","token_type":"bearer","expires_in":1e999}',
        ["CANARY"],
    ],
)
async def test_what_is_no_bearer_token_is_a_bad_response_that_repeats_nothing(backend_of, token):
    authority = FakeAuthority(token=token)
    backend = backend_of(authority)
    with pytest.raises(EmrBadResponse) as caught:
        await backend.headers()
    assert "CANARY" not in str(caught.value)
    with pytest.raises(EmrBadResponse):  # nothing of it was kept
        await backend.headers()
    assert len(authority.token_requests) == 2


async def test_a_failure_is_not_remembered(backend_of):
    class DownAtFirst(FakeAuthority):
        async def send(self, request):
            if not self.requests:
                self.requests.append(request)
                raise EmrTimeout("slow")
            return await super().send(request)

    backend = backend_of(DownAtFirst())
    with pytest.raises(EmrTimeout):
        await backend.headers()
    assert await backend.headers() == {"Authorization": "Bearer t1"}


def test_the_key_is_not_shown():
    assert "SECRET" not in repr(ClientKey(pem=b"SECRET", key_id="key-1", algorithm="RS384"))
