from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from mock_emr.assertion import (
    AssertionRefused,
    Key,
    KeySetError,
    Proof,
    UsedAssertions,
    check_assertion,
    keys_in,
)
from mock_emr.tokens import AccessTokens

AUDIENCE = "http://127.0.0.1:8000/oauth2/token"
NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
SECONDS = NOW.timestamp()

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP384R1())
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(key: Any, kid: str, **members: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **members}


def key_set(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


CLIENTS: dict[str, tuple[Key, ...]] = {
    "bridge": keys_in(key_set(jwk(RSA_KEY, "r"), jwk(EC_KEY, "e"), jwk(OTHER_RSA_KEY, "pinned", alg="RS256"))),
    "other": keys_in(key_set(jwk(OTHER_RSA_KEY, "o"))),
    "careless": keys_in(key_set(jwk(RSA_KEY, "same"), jwk(OTHER_RSA_KEY, "same"))),
}
GOOD: dict[str, Any] = {"iss": "bridge", "sub": "bridge", "aud": AUDIENCE, "exp": SECONDS + 300, "jti": "1"}


def signed(
    claims: Mapping[str, Any] = GOOD,
    *,
    key: Any = RSA_KEY,
    algorithm: str = "RS384",
    kid: str | None = "r",
    **header: Any,
) -> str:
    return jwt.encode(
        dict(claims), key, algorithm=algorithm, headers={**({} if kid is None else {"kid": kid}), **header}
    )


def check(assertion: str) -> Proof:
    return check_assertion(assertion, clients=CLIENTS, audience=AUDIENCE, now=NOW)


def test_an_assertion_signed_with_either_algorithm_proves_its_client() -> None:
    proof = Proof(client_id="bridge", jti="1", expires_at=SECONDS + 300)
    assert check(signed()) == proof
    assert check(signed(key=EC_KEY, algorithm="ES384", kid="e")) == proof


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "nobody"},
        {"iss": "other", "sub": "other"},
        {"iss": None},
        {"iss": ["bridge"]},
        {"sub": "other"},
        {"sub": None},
        {"aud": AUDIENCE + "/"},
        {"aud": "http://localhost:8000/oauth2/token"},
        {"aud": [AUDIENCE]},
        {"aud": None},
        {"exp": None},
        {"exp": str(int(SECONDS) + 60)},
        {"exp": True},
        {"exp": SECONDS},
        {"exp": SECONDS - 1},
        {"exp": SECONDS + 300.001},
        {"exp": SECONDS + 10 * 365 * 86_400},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": SECONDS + 1},
        {"nbf": "now"},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
    ],
)
def test_a_claim_that_is_not_as_it_must_be_is_refused(claims: dict[str, Any]) -> None:
    # Signed by hand: PyJWT refuses to write some of these itself.
    sent = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    token = jwt.api_jws.encode(json.dumps(sent).encode(), RSA_KEY, algorithm="RS384", headers={"kid": "r"})
    with pytest.raises(AssertionRefused):
        check(token)


@pytest.mark.parametrize("exp", [SECONDS + 0.001, SECONDS + 1, SECONDS + 300])
def test_an_expiry_from_now_to_300_seconds_ahead_is_good(exp: float) -> None:
    assert check(signed({**GOOD, "exp": exp})).expires_at == exp


def test_an_nbf_that_has_come_is_good() -> None:
    assert check(signed({**GOOD, "nbf": SECONDS})).jti == "1"


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "RS512"])
def test_an_algorithm_that_is_not_listed_is_refused(algorithm: str) -> None:
    with pytest.raises(AssertionRefused, match="alg"):
        check(signed(algorithm=algorithm))


def test_an_unsigned_assertion_is_refused() -> None:
    with pytest.raises(AssertionRefused):
        check(jwt.encode(GOOD, None, algorithm="none", headers={"kid": "r"}))


def test_an_assertion_sealed_with_the_public_key_is_refused() -> None:
    # PyJWT refuses to take a PEM or DER key for a secret; the JWK's own text is as public.
    public = jwk(RSA_KEY, "r")["n"].encode()
    with pytest.raises(AssertionRefused, match="alg"):
        check(signed(key=public, algorithm="HS384"))


@pytest.mark.parametrize("kid", [None, "unknown", "o", "e"])
def test_a_kid_that_fits_no_key_of_the_client_and_algorithm_is_refused(kid: str | None) -> None:
    with pytest.raises(AssertionRefused):
        check(signed(kid=kid))


def test_a_kid_that_fits_two_keys_is_refused() -> None:
    with pytest.raises(AssertionRefused, match="exactly one"):
        check(signed({**GOOD, "iss": "careless", "sub": "careless"}, kid="same"))


def test_a_key_registered_for_another_algorithm_is_refused() -> None:
    with pytest.raises(AssertionRefused, match="alg"):
        check(signed(key=OTHER_RSA_KEY, kid="pinned"))


def test_another_clients_key_is_refused() -> None:
    with pytest.raises(AssertionRefused, match="signature"):
        check(signed(key=OTHER_RSA_KEY))


def test_a_changed_claim_breaks_the_signature() -> None:
    head, _, signature = signed().split(".")
    forged = signed({**GOOD, "jti": "2"}).split(".")[1]
    with pytest.raises(AssertionRefused, match="signature"):
        check(f"{head}.{forged}.{signature}")


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "a.b.c.d", "é.é.é", "." * 100, "x" * 20_000])
def test_what_is_no_jwt_is_refused(text: str) -> None:
    with pytest.raises(AssertionRefused):
        check(text)


def test_an_extension_that_must_be_understood_is_refused() -> None:
    with pytest.raises(AssertionRefused):
        check(signed(crit=["x"], x=1))


@pytest.mark.parametrize(
    "jwks",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":["a"]}',
        key_set({"kty": "oct", "k": "AA", "kid": "a"}),
        key_set(jwk(RSA_KEY, "")),
        key_set({"kty": "RSA", "kid": "a"}),
        key_set({"kty": "RSA", "kid": "a", "n": 7, "e": "AQAB"}),
        key_set({"kty": "EC", "crv": "P-384", "kid": "a", "x": "AA", "y": "AA"}),
        key_set(jwk(RSA_KEY, "a", use="enc")),
        key_set(jwk(ec.generate_private_key(ec.SECP256R1()), "a")),
    ],
)
def test_a_key_set_that_cannot_be_used_is_refused(jwks: bytes) -> None:
    with pytest.raises(KeySetError):
        keys_in(jwks)


def test_keys_that_cannot_sign_are_passed_over() -> None:
    p256 = jwk(ec.generate_private_key(ec.SECP256R1()), "p256")
    assert [key.kid for key in keys_in(key_set(p256, jwk(EC_KEY, "e"), jwk(RSA_KEY, "a", use="enc")))] == ["e"]


def test_an_assertion_is_good_once_until_it_expires() -> None:
    used = UsedAssertions()
    proof = Proof(client_id="bridge", jti="1", expires_at=SECONDS + 60)
    assert used.use(proof, now=NOW)
    assert not used.use(proof, now=NOW + timedelta(seconds=59))
    assert used.use(Proof(client_id="other", jti="1", expires_at=SECONDS + 60), now=NOW)


def test_a_token_is_good_for_its_lifetime_and_no_longer() -> None:
    seconds = [100.0]
    tokens = AccessTokens(lifetime_s=300, token_bytes=bytes, monotonic=lambda: seconds[0])
    header = f"Bearer {tokens.grant('bridge', 'system/*.rs').token}"
    seconds[0] = 399.9
    assert tokens.grant_of(header).client_id == "bridge"
    assert tokens.grant_of(header.replace("Bearer", "bearer")).client_id == "bridge"
    seconds[0] = 400.0
    assert tokens.grant_of(header) is None


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer unknown", "Basic AAAA"])
def test_without_a_token_nobody_is_behind_a_call(header: str | None) -> None:
    tokens = AccessTokens(lifetime_s=300, token_bytes=bytes, monotonic=lambda: 0.0)
    tokens.grant("bridge", "")
    assert tokens.grant_of(header) is None
