import asyncio
import contextvars
import threading
from datetime import timedelta

import azure.functions as func
import pytest

from deployr_serve.local_host.invocation import BackgroundRuns, Failed, Invoker, Returned, TimedOut
from deployr_serve.local_host.threads import DaemonThreads

SECRET = "Mrs Example, born 1950"


@pytest.fixture
def invoker(tmp_path):
    threads = DaemonThreads(limit=2)
    yield Invoker(folder=tmp_path, threads=threads, timeout=timedelta(minutes=1))
    threads.shutdown(wait=True)


async def test_an_async_function_runs_on_the_loop(invoker, http_function):
    async def call(req):
        return req, threading.current_thread(), asyncio.get_running_loop()

    outcome = await invoker.run(http_function(call=call), "argument")

    assert outcome == Returned(value=("argument", threading.main_thread(), asyncio.get_running_loop()))


async def test_a_sync_function_runs_on_a_thread_with_the_callers_context(invoker, http_function):
    variable = contextvars.ContextVar("variable")
    variable.set("set by the caller")

    def call(req):
        return req, threading.current_thread() is threading.main_thread(), variable.get()

    outcome = await invoker.run(http_function(call=call), "argument")

    assert outcome == Returned(value=("argument", False, "set by the caller"))


async def test_two_sync_functions_run_at_once(invoker, http_function):
    both = threading.Barrier(2)
    function = http_function(call=lambda req: (req, both.wait(10))[1])

    outcomes = await asyncio.gather(invoker.run(function, None), invoker.run(function, None))

    assert sorted(outcome.value for outcome in outcomes) == [0, 1]


async def test_a_failure_is_an_outcome_that_says_its_class_only(invoker, http_function, caplog):
    async def call(req):
        raise LookupError(SECRET)

    outcome = await invoker.run(http_function(call=call), None)

    assert outcome == Failed(error_class="LookupError")
    assert "function=infer" in caplog.text
    assert "error=LookupError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, TimeoutError])
async def test_a_function_cannot_stop_the_host(invoker, http_function, error):
    async def call(req):
        raise error

    assert await invoker.run(http_function(call=call), None) == Failed(error_class=error.__name__)


async def test_a_function_that_takes_too_long_times_out(tmp_path, http_function):
    cancelled = asyncio.Event()

    async def call(req):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    invoker = Invoker(folder=tmp_path, threads=DaemonThreads(limit=1), timeout=timedelta(microseconds=1))

    assert await invoker.run(http_function(call=call), None) == TimedOut()
    assert cancelled.is_set()


async def test_a_sync_function_that_takes_too_long_is_left_behind(tmp_path, http_function):
    release = threading.Event()
    threads = DaemonThreads(limit=1)
    invoker = Invoker(folder=tmp_path, threads=threads, timeout=timedelta(microseconds=1))

    assert await invoker.run(http_function(call=lambda req: (req, release.wait(10))), None) == TimedOut()
    release.set()
    threads.shutdown(wait=True)


async def test_the_context_says_which_run_of_which_function_it_is(invoker, http_function, tmp_path):
    async def call(req, context):
        return context

    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    function = http_function(call=call, takes_context=True)
    first = (await invoker.run(function, None, headers=headers)).value
    second = (await invoker.run(function, None)).value

    assert isinstance(first, func.Context)
    assert first.function_name == "infer"
    assert first.function_directory == str(tmp_path)
    assert first.invocation_id != second.invocation_id
    assert first.trace_context.trace_parent == headers["traceparent"]
    assert first.trace_context.trace_state == "a=b"
    assert second.trace_context.trace_parent.startswith("00-")
    assert first.retry_context.retry_count == 0


async def test_a_sync_function_finds_its_invocation_id_on_its_thread(invoker, http_function):
    def call(req, context):
        return context.thread_local_storage.invocation_id == context.invocation_id

    assert await invoker.run(http_function(call=call, takes_context=True), None) == Returned(value=True)


async def test_a_run_is_logged_without_what_it_took_or_returned(invoker, http_function, caplog):
    async def call(req):
        return SECRET

    with caplog.at_level("DEBUG"):
        await invoker.run(http_function(call=call), SECRET)

    assert "status=returned" in caplog.text
    assert SECRET not in caplog.text


async def test_a_stopping_host_waits_for_runs_within_its_grace():
    background, release, finished = BackgroundRuns(), asyncio.Event(), []

    async def run():
        await release.wait()
        finished.append(True)

    background.start(run())
    asyncio.get_running_loop().call_soon(release.set)
    await background.drain(grace_s=10)

    assert finished == [True]


async def test_a_stopping_host_cancels_runs_after_its_grace():
    background, cancelled = BackgroundRuns(), []

    async def run():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    background.start(run())
    await background.drain(grace_s=0.001)

    assert cancelled == [True]
