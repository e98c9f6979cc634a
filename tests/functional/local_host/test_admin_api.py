"""Runs by hand and what the host says of itself."""

import asyncio
import json
import sys

import pytest

MASTER = {"x-functions-key": "master-key"}
WAIT = {**MASTER, "x-deployr-wait": "1"}

APP = """
    import asyncio
    app = func.FunctionApp()
    ran = []
    gate = asyncio.Event()
    gate.set()
    began = asyncio.Event()

    @app.timer_trigger(arg_name="timer", schedule="0 0 3 * * *")
    async def Nightly(timer: func.TimerRequest) -> None:
        began.set()
        await gate.wait()
        ran.append(timer.past_due)

    @app.timer_trigger(arg_name="timer", schedule="0 0 3 * * *")
    def failing(timer: func.TimerRequest) -> None:
        raise LookupError("Mrs Example")

    @app.route(route="models/{model}", methods=["POST"])
    def infer(req: func.HttpRequest) -> func.HttpResponse:
        ran.append(req.get_body().decode())
        return func.HttpResponse(status_code=503 if req.get_body() == b"fail" else 200)
"""


def app_module():
    return sys.modules["function_app"]


async def test_a_timer_is_fired_by_hand_and_the_answer_comes_at_once(host):
    call = host(APP)
    app_module().gate.clear()

    reply = await call("POST", "/admin/functions/Nightly", headers=MASTER, body=b'{"input": ""}')

    assert (reply.status, reply.body) == (202, b"")
    app_module().gate.set()
    await call.built.background.drain(grace_s=10)
    assert app_module().ran == [False]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"input": null}', b'{"input": "x"}'])
async def test_waiting_for_a_run_by_hand_tells_how_it_ended(host, body):
    call = host(APP)

    good = await call("POST", "/admin/functions/nightly", headers=WAIT, body=body)
    bad = await call("POST", "/admin/functions/failing", headers=WAIT, body=body)

    assert (good.status, json.loads(good.body)) == (200, {"status": "succeeded"})
    assert (bad.status, json.loads(bad.body)) == (200, {"status": "failed"})
    assert app_module().ran == [False]


async def test_a_timer_that_runs_is_not_started_again(host):
    call = host(APP)
    app_module().gate.clear()
    await call("POST", "/admin/functions/Nightly", headers=MASTER)
    await app_module().began.wait()

    waited = await call("POST", "/admin/functions/Nightly", headers=WAIT)
    not_waited = await call("POST", "/admin/functions/Nightly", headers=MASTER)

    assert (waited.status, json.loads(waited.body)) == (200, {"status": "already-running"})
    assert (not_waited.status, json.loads(not_waited.body)) == (409, {"status": "already-running"})
    app_module().gate.set()
    await call.built.background.drain(grace_s=10)
    assert app_module().ran == [False]


async def test_an_http_function_is_fired_with_the_input_as_its_body(host):
    call = host(APP)

    first = await call("POST", "/admin/functions/infer", headers=MASTER, body=b'{"input": "one"}')
    await call.built.background.drain(grace_s=10)
    second = await call("POST", "/admin/functions/infer", headers=WAIT, body=b'{"input": "two"}')
    third = await call("POST", "/admin/functions/infer", headers=WAIT, body=b'{"input": "fail"}')

    assert first.status == 202
    assert json.loads(second.body) == {"status": "succeeded"}
    assert json.loads(third.body) == {"status": "failed"}
    assert app_module().ran == ["one", "two", "fail"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"input": 1}', b"\xff"])
async def test_a_body_that_is_no_input_is_400_and_says_what_was_expected(host, body):
    reply = await host(APP)("POST", "/admin/functions/Nightly", headers=MASTER, body=body)

    assert reply.status == 400
    assert b'expected a JSON object {"input": "..."}' in reply.body


async def test_a_body_over_the_limit_is_413(host):
    reply = await host(APP, max_body_bytes=3)("POST", "/admin/functions/Nightly", headers=MASTER, body=b"1234")

    assert reply.status == 413


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/admin/functions/Nightly"),
        ("POST", "/admin/functions/unknown"),
        ("GET", "/admin/functions"),
        ("GET", "/admin/host/status"),
        ("GET", "/admin/anything"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"x-functions-key": "function-key"}, {"x-functions-key": ""}])
async def test_the_admin_api_needs_the_master_key(host, method, target, headers):
    reply = await host(APP)(method, target, headers=headers)

    assert (reply.status, reply.body) == (401, b"")
    assert app_module().ran == []


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "/admin/functions/unknown"), ("GET", "/admin/anything"), ("PUT", "/admin/x/y")]
)
async def test_what_the_admin_api_does_not_have_is_404(host, method, target):
    assert (await host(APP)(method, target, headers=MASTER)).status == 404


async def test_the_functions_are_listed_with_their_bindings(host):
    reply = await host(APP)("GET", "/admin/functions", headers=MASTER)

    listed = {each["name"]: each for each in json.loads(reply.body)}
    assert set(listed) == {"Nightly", "failing", "infer"}
    assert listed["infer"]["invoke_url_template"] == "http://emr.test/api/models/{model}"
    assert listed["infer"]["config"]["bindings"][0]["methods"] == ["POST"]
    assert listed["infer"]["config"]["bindings"][0]["authLevel"] == "function"
    assert listed["Nightly"]["config"]["bindings"][0]["schedule"] == "0 0 3 * * *"


async def test_the_host_says_that_it_runs(host):
    reply = await host(APP)("GET", "/admin/host/status", headers=MASTER)

    status = json.loads(reply.body)
    assert status["state"] == "Running"
    assert status["version"].startswith("4.")


async def test_a_catch_all_function_does_not_get_at_the_admin_api(host):
    call = host(
        """
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

        @app.route(route="{*rest}")
        def everything(req): return "mine"
        """,
        host_json='{"version": "2.0", "extensions": {"http": {"routePrefix": ""}}}',
    )

    assert (await call("GET", "/admin/functions")).status == 401
    assert (await call("GET", "/other")).body == b"mine"


async def test_runs_by_hand_at_once_are_one_run(host):
    call = host(APP)
    app_module().gate.clear()

    tasks = [asyncio.create_task(call("POST", "/admin/functions/Nightly", headers=WAIT)) for _ in range(5)]
    refused = 0
    async with asyncio.timeout(10):
        for next_done in asyncio.as_completed(tasks):
            told = json.loads((await next_done).body)["status"]
            refused += told == "already-running"
            if refused == 4:
                app_module().gate.set()

    assert refused == 4
    assert app_module().ran == [False]
