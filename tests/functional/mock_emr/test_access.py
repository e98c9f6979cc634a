from __future__ import annotations

from typing import Any

import pytest

ROOT = "/api/FHIR/R4"
SCORE = "/api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"


async def test_a_signed_assertion_buys_a_token_that_opens_reads_and_writes(closed_emr: Any) -> None:
    reply = await closed_emr.token(scope="system/Observation.rs")
    answer = reply.json()
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("bearer", 300, "system/Observation.rs")
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 200
    assert (await closed_emr.call("POST", SCORE, headers=bearer)).status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{ROOT}/Patient/p1"),
        ("GET", f"{ROOT}/Observation?patient=p1"),
        ("POST", f"{ROOT}/Observation/_search"),
        ("GET", f"{ROOT}/anything/at/all"),
        ("POST", SCORE),
    ],
)
async def test_without_a_token_every_fhir_and_vendor_call_is_401(closed_emr: Any, method: str, path: str) -> None:
    reply = await closed_emr.call(method, path)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="mock-emr"'
    unknown = await closed_emr.call(method, path, headers={"Authorization": "Bearer unknown"})
    assert unknown.status == 401
    assert 'error="invalid_token"' in unknown.headers["www-authenticate"]


async def test_a_token_ends_on_the_real_clock_wherever_the_emrs_is_put(closed_emr: Any) -> None:
    bearer = {"Authorization": f"Bearer {(await closed_emr.token()).json()['access_token']}"}
    await closed_emr.call("PUT", "/admin/clock", json={"now": "2030-01-01T00:00:00Z"})
    closed_emr.seconds[0] = 299.9
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 200
    closed_emr.seconds[0] = 300.0
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 401


async def test_an_assertion_buys_one_token(closed_emr: Any) -> None:
    assert (await closed_emr.token()).status == 200
    second = await closed_emr.token()
    assert second.status == 400
    assert second.json()["error"] == "invalid_client"
    assert (await closed_emr.token(client_assertion=closed_emr.assertion(jti="2"))).status == 200


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"client_assertion_type": "jwt"}, "invalid_client"),
        ({"client_assertion": None}, "invalid_client"),
        ({"client_assertion": "a.b.c"}, "invalid_client"),
        ({"scope": "patient/*.read"}, "invalid_scope"),
        ({"scope": "system/Observation."}, "invalid_scope"),
    ],
)
async def test_a_bad_token_request_gets_an_oauth_error(closed_emr: Any, form: dict[str, Any], error: str) -> None:
    reply = await closed_emr.token(**form)
    assert (reply.status, reply.json()["error"]) == (400, error)


async def test_a_token_request_that_is_no_form_gets_an_oauth_error(closed_emr: Any) -> None:
    reply = await closed_emr.call("POST", "/oauth2/token", json={"grant_type": "client_credentials"})
    assert (reply.status, reply.json()["error"]) == (400, "invalid_request")


async def test_an_assertion_for_another_token_endpoint_is_refused(closed_emr: Any) -> None:
    other = closed_emr.assertion(aud="http://127.0.0.1:1/oauth2/token")
    reply = await closed_emr.token(client_assertion=other)
    assert (reply.status, reply.json()["error"]) == (400, "invalid_client")
