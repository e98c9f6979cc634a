"""The client assertion, as a SMART server takes it: read by joserfc, which shares no JOSE code with what signs it."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from deployr_serve.adapters.auth_smart import SmartBackend, SmartClient
from deployr_serve.adapters.client_keys import FixedKey, read_client_key
from deployr_serve.adapters.http import Response, origin
from deployr_serve.adapters.jwks import key_set
from deployr_serve.adapters.token_cache import TokenCache

CLIENT_ID = "deployr-client"
FHIR_BASE = "https://emr.example/api/FHIR/R4"
TOKEN_URL = "https://emr.example/oauth2/token"
ALGORITHMS = ("RS384", "ES384")
LONGEST_LIFE_S = 300


class AssertionRefused(Exception):
    """The server would answer invalid_client."""


class SmartServer:
    """Discovery and a token endpoint that holds the client's JWK Set, and checks what SMART says it must.

    Source: SMART App Launch 2.2, client-confidential-asymmetric.html, "Signature Verification" [seen].
    """

    def __init__(self, jwks, *, clock):
        self._keys = KeySet.import_key_set(json.loads(jwks))
        self._clock = clock
        self.assertions = []
        self.used = set()

    async def send(self, request):
        if request.url != TOKEN_URL:
            return self._answer({"token_endpoint": TOKEN_URL})
        form = dict(request.form)
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        self.check(form["client_assertion"])
        self.assertions.append(form["client_assertion"])
        return self._answer({"access_token": f"t{len(self.used)}", "token_type": "bearer", "expires_in": 300})

    def check(self, assertion):
        header = jws.extract_compact(assertion.encode()).headers()
        fitting = [key for key in self._keys.keys if key.kid == header["kid"]]
        if header["typ"] != "JWT" or header["alg"] not in ALGORITHMS or len(fitting) != 1:
            raise AssertionRefused("header")
        try:
            claims = jwt.decode(assertion, fitting[0], algorithms=[header["alg"]]).claims
        except JoseError as error:
            raise AssertionRefused("signature") from error
        now = self._clock.now().timestamp()
        if claims["iss"] != CLIENT_ID or claims["sub"] != CLIENT_ID or claims["aud"] != TOKEN_URL:
            raise AssertionRefused("iss, sub, aud")
        if not now < claims["exp"] <= now + LONGEST_LIFE_S:
            raise AssertionRefused("exp")
        if not claims["jti"] or claims["jti"] in self.used:
            raise AssertionRefused("jti")
        self.used.add(claims["jti"])

    @staticmethod
    def _answer(content):
        return Response(status=200, content_type="application/json", body=json.dumps(content).encode())


def source_for(algorithm):
    if algorithm == "RS384":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ec.generate_private_key(ec.SECP384R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return FixedKey(read_client_key(pem, password=None, algorithm=algorithm, key_id=None))


def backend_for(source, server, *, clock):
    client = SmartClient(
        fhir_base=FHIR_BASE,
        client_id=CLIENT_ID,
        origins=frozenset({origin(FHIR_BASE)}),
        scope="system/Patient.rs",
    )
    return SmartBackend(
        client, keys=source, cache=TokenCache(clock=clock), transport=server, clock=clock, draw=lambda: 0.5
    )


async def buy(backend, *, tokens):
    for _ in range(tokens):
        backend.refused(await backend.headers())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_another_library_verifies_the_assertion_by_the_keys_that_we_publish(algorithm, clock):
    source = source_for(algorithm)
    others = [key for other in ALGORITHMS for key in source_for(other).published()]
    server = SmartServer(key_set([*others, *source.published()]), clock=clock)

    await buy(backend_for(source, server, clock=clock), tokens=3)

    assert len(server.used) == 3
    assert {jws.extract_compact(sent.encode()).headers()["alg"] for sent in server.assertions} == {algorithm}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_other_library_refuses_another_key_a_changed_assertion_and_one_that_is_old(algorithm, clock):
    source = source_for(algorithm)
    server = SmartServer(key_set(source.published()), clock=clock)
    await buy(backend_for(source, server, clock=clock), tokens=1)
    (assertion,) = server.assertions
    head, claims, signature = assertion.split(".")
    stranger = SmartServer(key_set(source_for(algorithm).published()), clock=clock)
    changed = f"{head}.{claims}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"

    with pytest.raises(AssertionRefused, match="header"):
        stranger.check(assertion)
    with pytest.raises(AssertionRefused, match="signature"):
        server.check(changed)
    with pytest.raises(AssertionRefused, match="jti"):
        server.check(assertion)
    clock.pass_time(LONGEST_LIFE_S)
    with pytest.raises(AssertionRefused, match="exp"):
        server.check(assertion)


@pytest.mark.proof
async def test_ten_thousand_assertions_verify_and_have_as_many_jti(clock):
    source = source_for("ES384")
    server = SmartServer(key_set(source.published()), clock=clock)

    await buy(backend_for(source, server, clock=clock), tokens=10_000)

    assert len(server.used) == 10_000
