from __future__ import annotations

import base64
from typing import Any

import pytest

ROOT = "/api/FHIR/R4"
SCORE = "/api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"
IDENTIFIERS = "/api/epic/2010/Common/Patient/GETPATIENTIDENTIFIERS/Patient/Identifiers?PatientID=p1&PatientIDType=FHIR"


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


async def test_a_client_gets_the_scopes_it_was_registered_with_and_is_held_to_them(closed_emr: Any) -> None:
    rules = {"enforced": True, "allowed": {"bridge": "system/Patient.rs system/Observation.s?category=laboratory"}}
    assert (await closed_emr.call("PUT", "/admin/scopes", json=rules)).json() == rules
    answer = (await closed_emr.token(scope="system/*.rs")).json()
    assert answer["scope"] == "system/Patient.rs system/Observation.s?category=laboratory"
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}
    form = {"patient": "p1", "category": "laboratory"}
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 200
    allowed = await closed_emr.call("POST", f"{ROOT}/Observation/_search", headers=bearer, data=form)
    assert allowed.status == 200
    for method, path, data in (
        ("GET", f"{ROOT}/Condition?patient=p1", None),
        ("POST", f"{ROOT}/Observation/_search", {"patient": "p1"}),
        ("GET", f"{ROOT}/Observation/lab1", None),
    ):
        refused = await closed_emr.call(method, path, headers=bearer, data=data)
        assert refused.status == 403
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        assert refused.json()["issue"][0]["code"] == "forbidden"


async def test_nothing_left_of_the_scopes_asked_for_is_an_oauth_error(closed_emr: Any) -> None:
    await closed_emr.call("PUT", "/admin/scopes", json={"allowed": {"bridge": "system/Patient.rs"}})
    reply = await closed_emr.token(scope="system/Condition.rs")
    assert (reply.status, reply.json()["error"]) == (400, "invalid_scope")


async def test_scopes_are_not_enforced_until_somebody_asks_for_it(closed_emr: Any) -> None:
    bearer = {"Authorization": f"Bearer {(await closed_emr.token(scope='system/Condition.rs')).json()['access_token']}"}
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 200
    await closed_emr.call("PUT", "/admin/scopes", json={"enforced": True})
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 403
    assert (await closed_emr.call("DELETE", "/admin/scopes")).json() == {"enforced": False, "allowed": {}}
    assert (await closed_emr.get(f"{ROOT}/Patient/p1", headers=bearer)).status == 200
    assert (await closed_emr.call("PUT", "/admin/scopes", json={"x": 1})).status == 400


async def test_a_user_of_the_emr_calls_by_basic_with_the_clients_id(closed_emr: Any) -> None:
    def headers(pair: str = "EMP$bridge:a:secret", **more: str) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}", "Epic-Client-ID": "c-1", **more}

    for path in (f"{ROOT}/Patient/p1", IDENTIFIERS):
        assert (await closed_emr.get(path, headers=headers())).status == 200
        assert (await closed_emr.get(path, headers=headers("emp$bridge:a:secret"))).status == 200
        for wrong in ("EMP$bridge:guess", "EMP$bridge:", "EMP$nobody:a:secret", "bridge:a:secret", ""):
            assert (await closed_emr.get(path, headers=headers(wrong))).status == 401
        assert (await closed_emr.get(path, headers=headers(**{"Epic-Client-ID": ""}))).status == 401
        assert (await closed_emr.get(path, headers=headers(Authorization="Basic ??=="))).status == 401
