"""SMART Backend Services: what a token is bought with, what it grants, and what goes wrong."""

from __future__ import annotations

import jwt
import pytest

from deployr_serve.adapters.http import origin
from deployr_serve.adapters.scopes import parse_scopes
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrThrottled,
    EmrUnreachable,
    InsufficientScope,
)
from tests.unit.deployr_serve.authority import SCOPE, TOKEN_URL, FakeAuthority, failed

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
async def test_the_assertion_is_what_smart_asks_for(backend_of, keys, algorithm, clock):
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
        options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"], "strict_aud": True, "verify_exp": False},
    )
    assert set(claims) == {"iss", "sub", "aud", "exp", "iat", "jti"}
    assert claims["iat"] == int(clock.now().timestamp())
    assert claims["exp"] - claims["iat"] == 240
    assert isinstance(claims["jti"], str)
    assert len(claims["jti"]) >= 32


async def test_what_is_asked_for_is_worded_as_discovery_says_unless_the_site_words_it(backend_of):
    old = FakeAuthority(discovery={"token_endpoint": TOKEN_URL, "capabilities": ["permission-v1"]})
    await backend_of(old).headers()
    assert dict(old.token_requests[0].form)["scope"] == "system/Observation.read system/Patient.read"
    told = FakeAuthority()
    await backend_of(told, scope="system/*.rs").headers()
    assert dict(told.token_requests[0].form)["scope"] == "system/*.rs"


async def test_calls_for_a_token_are_within_the_budget_of_who_needs_it(backend_of, budget_of):
    authority = FakeAuthority()
    budget = budget_of(8)
    await backend_of(authority).headers(budget=budget)
    assert [request.budget for request in authority.requests] == [budget, budget]
    assert [request.repeatable for request in authority.requests] == [True, False]


# -- scopes


async def test_what_is_granted_comes_with_the_token(backend_of):
    backend = backend_of(FakeAuthority(token={"scope": "system/Patient.rs"}))
    assert backend.last_granted is None
    assert await backend.granted() == parse_scopes("system/Patient.rs")
    assert backend.last_granted == parse_scopes("system/Patient.rs")


@pytest.mark.parametrize("unsaid", [None, "left out"])
async def test_where_the_answer_does_not_say_what_was_asked_for_is_granted(backend_of, unsaid):
    assert await backend_of(FakeAuthority(token={"scope": unsaid})).granted() == parse_scopes(SCOPE)


async def test_an_empty_scope_grants_nothing(backend_of):
    assert await backend_of(FakeAuthority(token={"scope": ""})).granted() == frozenset()


async def test_scopes_that_are_not_to_be_had_are_insufficient(backend_of, status_of):
    answer = status_of(400, b'{"error":"invalid_scope","error_description":"CANARY"}')
    backend = backend_of(FakeAuthority(token=answer))
    with pytest.raises(InsufficientScope) as caught:
        await backend.headers()
    assert "CANARY" not in str(caught.value)
    assert backend.last_granted == frozenset()


# -- waiting and asking again


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "waited_s"),
    [
        # The answer's own wait, and half of 0.1 s of jitter.
        ({"retry-after": "2"}, 2.05),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:03 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 3.05),
        ({"retry-after": "-1"}, 0.05),
        ({"retry-after": "abc"}, 0.05),
        ({}, 0.05),
    ],
)
async def test_an_endpoint_that_asks_to_wait_is_asked_again_afterwards(
    backend_of, budget_of, clock, status, headers, waited_s
):
    authority = FakeAuthority(statuses=[status], headers=headers)
    started = clock.monotonic()
    assert await backend_of(authority).headers(budget=budget_of(8)) == {"Authorization": "Bearer t2"}
    assert clock.monotonic() - started == pytest.approx(waited_s)


async def test_each_try_has_an_assertion_of_its_own(backend_of, budget_of):
    authority = FakeAuthority(statuses=[503, failed(EmrUnreachable("lost"))])
    await backend_of(authority).headers(budget=budget_of(8))
    assertions = [dict(request.form)["client_assertion"] for request in authority.token_requests]
    jtis = {jwt.decode(text, options={"verify_signature": False})["jti"] for text in assertions}
    assert len(jtis) == len(assertions) == 3


async def test_a_wait_past_the_deadline_is_not_begun(backend_of, budget_of, clock):
    authority = FakeAuthority(statuses=[429, 429], headers={"retry-after": "9"})
    started = clock.monotonic()
    with pytest.raises(EmrThrottled) as caught:
        await backend_of(authority).headers(budget=budget_of(8))
    assert caught.value.retry_after_s == 9
    assert (clock.monotonic() - started, len(authority.token_requests)) == (0, 1)


async def test_an_endpoint_that_stays_down_is_asked_three_times(backend_of, budget_of):
    authority = FakeAuthority(statuses=[503] * 9)
    with pytest.raises(EmrUnreachable):
        await backend_of(authority).headers(budget=budget_of(8))
    assert len(authority.token_requests) == 3


async def test_a_refusal_of_our_own_is_not_asked_again(backend_of, budget_of):
    authority = FakeAuthority(statuses=[failed(EmrUnreachable("circuit open"), requests=0)] * 9)
    with pytest.raises(EmrUnreachable):
        await backend_of(authority).headers(budget=budget_of(8))
    assert len(authority.token_requests) == 1


# -- what goes wrong


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://other.example/oauth2/token",
        "http://emr.example/oauth2/token",
        "https://emr.example:444/oauth2/token",
        "https://emr.example.other.example/oauth2/token",
        "https://emr.example\\.other.example/oauth2/token",
    ],
)
async def test_a_token_endpoint_on_another_origin_is_refused_before_anything_is_sent_there(backend_of, endpoint):
    authority = FakeAuthority(discovery={"token_endpoint": endpoint})
    with pytest.raises(EmrRefused, match="own origin"):
        await backend_of(authority).headers()
    assert authority.token_requests == []


async def test_a_token_endpoint_elsewhere_is_used_where_the_site_names_its_origin(backend_of):
    authority = FakeAuthority(discovery={"token_endpoint": "https://login.example/token"})
    elsewhere = frozenset({origin("https://login.example")})
    await backend_of(authority, token_origins=elsewhere).headers()
    assert [request.url for request in authority.token_requests] == ["https://login.example/token"]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, "private_key_jwt"),
        ({"token_endpoint_auth_methods_supported": []}, "private_key_jwt"),
        ({"token_endpoint_auth_signing_alg_values_supported": ["ES384"]}, "DEPLOYR_EMR_KEY_ALGORITHM"),
    ],
)
async def test_an_endpoint_that_says_that_it_will_not_take_us_is_not_asked(backend_of, stated, expected):
    authority = FakeAuthority(discovery={"token_endpoint": TOKEN_URL, **stated})
    with pytest.raises(EmrRefused, match=expected):
        await backend_of(authority).headers()
    assert authority.token_requests == []


@pytest.mark.parametrize(
    "discovery",
    [
        b"<html></html>",
        b"",
        b'{"token_endp',
        {"issuer": "x"},
        {"token_endpoint": 7},
        {"token_endpoint": ""},
        {"token_endpoint": "/oauth2/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "https://emr.example@other.example/token"},
        {"token_endpoint": "https://[emr.example/token"},
        {"token_endpoint": TOKEN_URL, "token_endpoint_auth_methods_supported": "private_key_jwt"},
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
        (429, EmrThrottled),
        (500, EmrUnreachable),
    ],
)
async def test_a_token_that_is_not_granted_says_why(backend_of, status, error):
    with pytest.raises(error, match=str(status)):
        await backend_of(FakeAuthority(statuses=[status] * 9)).headers()


async def test_the_oauth_error_is_named_if_it_is_one_and_nothing_else_is_repeated(backend_of, status_of):
    for body, named in ((b'{"error":"invalid_client"}', True), (b'{"error":"CANARY"}', False), (b"CANARY", False)):
        with pytest.raises(EmrRefused) as caught:
            await backend_of(FakeAuthority(token=status_of(400, body))).headers()
        assert ("invalid_client" in str(caught.value)) is named
        assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "token",
    [
        b"<html></html>",
        b"",
        b'{"access_token":"CANARY","token_t',
        {"access_token": "left out"},
        {"access_token": "CANARY", "token_type": "left out"},
        {"access_token": ""},
        {"access_token": "CANARY", "token_type": "mac"},
        {"access_token": "CANARY\r\nX-Injected: 1"},
        {"access_token": "CANARY of two words"},
        {"access_token": 7},
        {"access_token": "CANARY", "expires_in": "300"},
        {"access_token": "CANARY", "expires_in": 0},
        {"access_token": "CANARY", "expires_in": -5},
        {"access_token": "CANARY", "expires_in": True},
        b'{"access_token":"CANARY","token_type":"bearer","expires_in":NaN}',
        b'{"access_token":"CANARY","token_type":"bearer","expires_in":1e999}',
        b'["CANARY"]',
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


async def test_an_endpoint_that_has_moved_is_found_at_the_next_request(backend_of, clock):
    class Moving(FakeAuthority):
        async def send(self, request):
            if len(self.token_requests) == 1:
                self._discovery = {"token_endpoint": TOKEN_URL + "/new"}
            return await super().send(request)

    authority = Moving(statuses=[404])
    backend = backend_of(authority)
    with pytest.raises(EmrBadResponse):
        await backend.headers()
    await backend.headers()
    assert [request.url for request in authority.token_requests] == [TOKEN_URL, TOKEN_URL + "/new"]
