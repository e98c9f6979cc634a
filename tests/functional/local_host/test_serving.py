"""A host that listens: over loopback in this process, and as a process of its own."""

import asyncio
import json
import os
import signal
import socket
import sys
import textwrap

import aiohttp
import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.serve import serve

MASTER = {"x-functions-key": "master-key"}

APP = """
    import asyncio
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
    gate, began, finished = asyncio.Event(), asyncio.Event(), []
    loops = set()

    @app.route(route="echo/{name}")
    async def echo(req):
        loops.add(asyncio.get_running_loop())
        return func.HttpResponse(req.get_body(), headers={"X-Name": req.route_params["name"]})

    @app.route(route="slow")
    async def slow(req):
        began.set()
        await gate.wait()
        return "finished"
"""

TIMER = """
    @app.timer_trigger(arg_name="timer", schedule="* * * * * *", run_on_startup={startup})
    async def ticking(timer: func.TimerRequest) -> None:
        loops.add(asyncio.get_running_loop())
        finished.append(timer.past_due)
        began.set()
"""


def app_module():
    return sys.modules["function_app"]


async def test_requests_are_answered_over_http(build, over_loopback):
    async with over_loopback(build(APP)) as (session, _, _):
        async with session.post("/api/echo/a%20b", data=b"\x00\xff" * 50_000) as reply:
            assert reply.status == 200
            assert reply.headers["X-Name"] == "a b"
            assert "server" not in reply.headers
            assert await reply.read() == b"\x00\xff" * 50_000
        async with session.head("/api/echo/x") as reply:
            assert reply.status == 200
        async with session.get("/api/nothing") as reply:
            assert reply.status == 404


async def test_timers_come_on_schedule_on_the_loop_of_the_requests(build, over_loopback):
    built = build(APP + TIMER.format(startup=False))
    async with over_loopback(built) as (session, _, _):
        async with asyncio.timeout(20):
            await app_module().began.wait()
        async with session.get("/api/echo/x") as reply:
            assert reply.status == 200

    assert app_module().finished
    assert app_module().loops == {asyncio.get_running_loop()}


async def test_run_on_startup_runs_once_the_host_listens(build, over_loopback):
    built = build(APP + TIMER.format(startup=True).replace("* * * * * *", "0 0 0 31 2 *"))
    async with over_loopback(built):
        async with asyncio.timeout(20):
            await app_module().began.wait()

    assert app_module().finished == [False]


async def test_a_stopping_host_finishes_the_request_that_it_has(build, over_loopback):
    async with over_loopback(build(APP)) as (session, stop, task):
        request = asyncio.create_task(session.get("/api/slow"))
        await app_module().began.wait()
        stop.set()
        app_module().gate.set()
        async with asyncio.timeout(20):
            reply = await request
            assert (reply.status, await reply.text()) == (200, "finished")
            await task
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/api/echo/x")


async def test_a_stopping_host_gives_up_a_request_after_its_grace(build, over_loopback, caplog):
    async with over_loopback(build(APP), grace_s=0.0) as (session, stop, task):
        request = asyncio.create_task(session.get("/api/slow"))
        await app_module().began.wait()
        stop.set()
        async with asyncio.timeout(20):
            await task
            reply = await request
            assert reply.status == 503

    assert "function=slow" in caplog.text
    assert "status=cancelled" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_port_that_is_taken_is_an_error_that_names_it(build):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostSetupError, match=f"port {port}: expected to listen there"):
            await serve(build(APP), port=port, announce=print)


async def test_an_app_without_timers_does_not_import_apscheduler(tmp_path):
    (tmp_path / "function_app.py").write_text("import azure.functions as func\napp = func.FunctionApp()\n")
    program = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from deployr_serve.local_host.keys import HostKeys
        from deployr_serve.local_host.serve import run_host
        run_host(
            app_path=Path({str(tmp_path)!r}), port=0, settings={{}}, state_dir=None,
            keys=HostKeys(master="m", function="f"),
            announce=lambda line: os.kill(os.getpid(), signal.SIGTERM),
        )
        sys.exit("apscheduler" in sys.modules)
    """)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def started(*arguments, **environment):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deployr_serve.local_host",
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_serves_until_a_signal_and_ends_well(app_file, tmp_path, number):
    path = app_file("""
        import os, sys
        app = func.FunctionApp()

        @app.route(route="setting")
        async def setting(req): return os.environ["FROM_FILE"] + os.environ["FROM_BOTH"]

        @app.timer_trigger(arg_name="timer", schedule="%NIGHTLY%")
        async def nightly(timer: func.TimerRequest) -> None: ...
    """)
    values = {"FROM_FILE": "file ", "FROM_BOTH": "file", "NIGHTLY": "0 0 3 * * *"}
    (tmp_path / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    keys = {"DEPLOYR_HOST_MASTER_KEY": "master-key", "DEPLOYR_HOST_FUNCTION_KEY": "function-key"}
    process = await started("--app", str(path), "--port", "0", FROM_BOTH="environment", **keys)
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession(line.removeprefix("Ready ")) as session:
            async with session.get("/api/setting?code=function-key&mrn=E123456") as reply:
                assert await reply.text() == "file environment"
            wait = {**MASTER, "x-deployr-wait": "1"}
            async with session.post("/admin/functions/nightly", headers=wait) as reply:
                assert await reply.json() == {"status": "succeeded"}
        process.send_signal(number)
        rest, log = await process.communicate()

    assert process.returncode == 0
    assert rest == b""
    assert b"function=setting" in log
    assert b"E123456" not in log
    assert b"function-key" not in log
    assert (tmp_path / ".deployr" / "timers" / "nightly.status.json").is_file()


async def test_an_asgi_app_is_served(app_file):
    # In a process of its own: the library leaves a coroutine behind when such an app goes away.
    path = app_file("""
        async def asgi(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                return
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": "http.response.body", "body": scope["path"].encode()})

        app = func.AsgiFunctionApp(app=asgi, http_auth_level=func.AuthLevel.ANONYMOUS)
    """)
    process = await started("--app", str(path), "--port", "0")
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode().strip()
        async with (
            aiohttp.ClientSession(line.removeprefix("Ready ")) as session,
            session.get("/api/any/path") as reply,
        ):
            assert (reply.status, await reply.text()) == (201, "/api/any/path")
        process.send_signal(signal.SIGTERM)
        await process.communicate()


async def test_a_function_that_never_ends_does_not_hold_the_process_back(app_file):
    path = app_file("""
        import threading
        app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

        @app.route(route="stuck")
        def stuck(req):
            print("began", flush=True)
            threading.Event().wait()
    """)
    process = await started("--app", str(path), "--port", "0", "--grace", "0")
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession(line.removeprefix("Ready ")) as session:
            request = asyncio.create_task(session.get("/api/stuck"))
            assert await process.stdout.readline() == b"began\n"
            process.send_signal(signal.SIGTERM)
            assert (await request).status == 503
            assert await process.wait() == 0
        await process.communicate()


async def test_a_process_that_cannot_start_says_why(app_file):
    path = app_file("""
        app = func.FunctionApp()

        @app.timer_trigger(arg_name="timer", schedule="every night")
        def nightly(timer): ...
    """)
    process = await started("--app", str(path), "--port", "0")
    async with asyncio.timeout(60):
        out, log = await process.communicate()

    assert process.returncode == 2
    assert out == b""
    assert b"error: function nightly: schedule 'every night'" in log
