"""Who may call the JSON routes, from bytes to bytes: what each refusal says, and to whom."""

from __future__ import annotations

import json

import azure.functions as func
import pytest

from tests.json_callers import PASSWORD, basic, entra_token, write_callers

BODY = b'{"patientId": "p1", "encounterId": "e1", "orderId": "o1", "eventTime": "2015-01-06T20:55:00Z"}'
IN_GROUP = "schema_version: 1\nmodel: {model}\nmode: live\ngroups: [cbc]\n"
BOTH = {"name": "both", "models": ["hematocrit", "anemia"], "password": PASSWORD}
ONE = {"name": "one", "models": ["hematocrit"], "password": PASSWORD}


@pytest.fixture
async def emr(emr_of, chart_of):
    return await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))


@pytest.fixture
def closed(emr, app_of, tmp_path):
    """Give a function that makes an app which lets in only who is listed."""

    def make(**changes):
        deployments = tmp_path / "deployments"
        deployments.mkdir()
        for model in ("hematocrit", "anemia"):
            (deployments / f"{model}.yaml").write_text(IN_GROUP.format(model=model))
        callers = write_callers(tmp_path, **changes)
        return app_of(emr.url, DEPLOYR_JSON_CALLERS=callers, DEPLOYR_DEPLOYMENTS=str(deployments))

    return make


def by(name):
    return {"Authorization": f"Basic {basic(name)}"}


async def ask_group(app, group, **headers):
    request = func.HttpRequest(
        "POST",
        f"/api/groups/{group}/infer",
        headers={"Content-Type": "application/json", **headers},
        route_params={"group": group},
        body=BODY,
    )
    return await app.functions["infer_group"](request)


async def test_an_entra_token_gets_a_score(closed):
    answer = await closed().infer(headers={"Authorization": f"Bearer {entra_token()}"})
    assert (answer.status_code, json.loads(answer.get_body())["status"]) == (200, "scored")


async def test_without_proof_there_is_one_constant_answer_on_both_routes_and_nothing_is_fetched(closed, emr):
    app = closed()
    answers = [
        await app.infer(headers={"x-functions-key": "the right one"}),
        await app.infer(model="none-such"),
        await app.infer(b"<not JSON", headers={"Authorization": "Bearer a.b.c"}),
        await ask_group(app, "cbc"),
    ]
    assert {(it.status_code, it.get_body(), it.headers["WWW-Authenticate"]) for it in answers} == {(401, b"", "Bearer")}
    assert emr.addresses == []


async def test_a_model_that_is_withheld_looks_like_one_that_does_not_exist(closed, caplog):
    app = closed(callers=[ONE])
    for body in (BODY, b"<not JSON", BODY.replace(b"2015", b"2999")):
        withheld, absent = [await app.infer(body, model=name, headers=by("one")) for name in ("anemia", "none-such")]
        assert (withheld.status_code, withheld.get_body()) == (404, absent.get_body())
        assert {name for name, _ in withheld.headers.items()} == {name for name, _ in absent.headers.items()}
    # One audit line for each that was withheld, and nothing of the name that came in.
    told = [record.getMessage() for record in caplog.records if "not allowed" in record.getMessage()]
    assert [line.partition("caller=")[2] for line in told] == ["one model=anemia"] * 3
    assert "none-such" not in caplog.text


async def test_a_group_is_for_those_whom_all_its_models_are_for(closed):
    app = closed(callers=[ONE, BOTH])
    assert (await ask_group(app, "cbc", **by("both"))).status_code == 200
    withheld, absent = [await ask_group(app, name, **by("one")) for name in ("cbc", "none-such")]
    assert (withheld.status_code, withheld.get_body()) == (404, absent.get_body())


async def test_a_flood_is_told_when_to_come_again_and_health_is_not_counted(closed):
    app = closed(callers=[ONE], per_second=0.01)
    first, second = [await app.infer(headers=by("one")) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 429)
    # An empty bucket that fills by a hundredth of a request a second, a moment of which has passed.
    assert 90 <= int(second.headers["Retry-After"]) <= 100
    assert [(await app.get("health_ready")).status_code for _ in range(5)] == [200] * 5


async def test_where_nobody_is_listed_anybody_may_call_in_dev(emr, app_of):
    assert (await app_of(emr.url).infer()).status_code == 200
