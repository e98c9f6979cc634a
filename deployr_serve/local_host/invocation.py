"""One run of one function: on the loop or on a thread, within its time, and never louder than a log line."""

import asyncio
import contextvars
import functools
import logging
import os
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import azure.functions as func

from deployr_serve.local_host.loading import Function

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Returned:
    """The function came back.

    Attributes:
        value: what it returned, of whatever type.
    """

    value: object


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The function raised.

    Attributes:
        error_class: the exception's class; its message may hold a patient's values and is dropped.
    """

    error_class: str


@dataclass(frozen=True, kw_only=True)
class TimedOut:
    """The function was still running when ``functionTimeout`` was over."""


Outcome = Returned | Failed | TimedOut


class TraceContext:
    """The W3C trace that an invocation belongs to, under the worker's names.

    Source: W3C Trace Context, sections "traceparent Header" and "tracestate Header".
    """

    def __init__(self, *, trace_parent: str, trace_state: str) -> None:
        self.trace_parent = trace_parent
        self.trace_state = trace_state
        self.attributes: dict[str, str] = {}
        # The worker has had both spellings; apps use either.
        self.Traceparent = trace_parent
        self.Tracestate = trace_state


class RetryContext:
    """Says that this is the first attempt: this host does not retry."""

    retry_count = 0
    max_retry_count = 0
    exception = None


class InvocationContext(func.Context):
    """What a function gets as ``context``.

    Source: azure-functions-python-worker, ``bindings/context.py``.
    """

    def __init__(
        self, *, function_name: str, function_directory: Path, invocation_id: str, trace: TraceContext
    ) -> None:
        self._function_name = function_name
        self._function_directory = str(function_directory)
        self._invocation_id = invocation_id
        self._trace = trace
        self._thread_local = threading.local()

    @property
    def invocation_id(self) -> str:
        """Which run this is."""
        return self._invocation_id

    @property
    def thread_local_storage(self) -> Any:
        """Carries ``invocation_id`` on the thread of a synchronous function."""
        return self._thread_local

    @property
    def function_name(self) -> str:
        """Which function runs."""
        return self._function_name

    @property
    def function_directory(self) -> str:
        """The folder of the app."""
        return self._function_directory

    @property
    def trace_context(self) -> Any:
        """The trace that the caller began, or a new one."""
        return self._trace

    @property
    def retry_context(self) -> Any:
        """Always a first attempt."""
        return RetryContext()


class Invoker:
    """Runs functions; async ones on the loop that it is called on, others on ``threads``."""

    def __init__(self, *, folder: Path, threads: Executor, timeout: timedelta | None) -> None:
        """
        Args:
            folder: the app's, for ``context.function_directory``.
            threads: where synchronous functions run.
            timeout: the longest that a run may take; None is no limit.
        """
        self._folder = folder
        self._threads = threads
        self._timeout_s = timeout.total_seconds() if timeout else None

    async def run(self, function: Function, argument: object, *, headers: Mapping[str, str] | None = None) -> Outcome:
        """Call a function once, and log that it ran: name, invocation id, time, outcome; nothing else.

        A synchronous function that times out goes on on its thread, with nobody waiting; Python cannot stop
        it. (Azure restarts the worker.)

        Args:
            function: whose ``call`` is to run.
            argument: the value of its trigger's parameter.
            headers: of the request, lower-case names, for the trace.
        """
        invocation_id = str(uuid4())
        arguments = {function.parameter: argument}
        context = None
        if function.takes_context or not function.is_async:
            context = InvocationContext(
                function_name=function.name,
                function_directory=self._folder,
                invocation_id=invocation_id,
                trace=_trace(headers or {}),
            )
        if function.takes_context:
            arguments["context"] = context
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            outcome = await self._outcome(function, arguments, context)
        except asyncio.CancelledError:
            logger.warning("function=%s invocation=%s status=cancelled", function.name, invocation_id)
            raise
        _log(function.name, invocation_id, outcome, duration_ms=(loop.time() - began) * 1000)
        return outcome

    async def _outcome(
        self, function: Function, arguments: Mapping[str, object], context: InvocationContext | None
    ) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                if context is None or function.is_async:
                    value = await function.call(**arguments)
                else:
                    value = await self._on_thread(function, arguments, context)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the host is stopping, or the caller gave up
            return Failed(error_class="CancelledError")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the one boundary: any failure is an outcome
            if isinstance(error, TimeoutError) and limit.expired():
                return TimedOut()
            return Failed(error_class=type(error).__name__)
        return Returned(value=value)

    async def _on_thread(
        self, function: Function, arguments: Mapping[str, object], context: InvocationContext
    ) -> object:
        def call() -> object:
            context.thread_local_storage.invocation_id = context.invocation_id
            return function.call(**arguments)

        in_context = functools.partial(contextvars.copy_context().run, call)
        return await asyncio.get_running_loop().run_in_executor(self._threads, in_context)


class BackgroundRuns:
    """Runs that nobody waits for; a stopping host does."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, run: Coroutine[Any, Any, Any]) -> None:
        """Begin it on this loop."""
        task = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, *, grace_s: float) -> None:
        """Let those under way finish, for at most ``grace_s`` seconds; cancel the rest."""
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _trace(headers: Mapping[str, str]) -> TraceContext:
    given = headers.get("traceparent")
    new = f"00-{uuid4().hex}-{os.urandom(8).hex()}-00"
    return TraceContext(trace_parent=given or new, trace_state=headers.get("tracestate", ""))


def _log(name: str, invocation_id: str, outcome: Outcome, *, duration_ms: float) -> None:
    match outcome:
        case Returned():
            logger.info("function=%s invocation=%s status=returned duration_ms=%.1f", name, invocation_id, duration_ms)
        case Failed(error_class=error_class):
            logger.error(
                "function=%s invocation=%s status=failed error=%s duration_ms=%.1f",
                name,
                invocation_id,
                error_class,
                duration_ms,
            )
        case TimedOut():
            logger.error(
                "function=%s invocation=%s status=timed-out duration_ms=%.1f", name, invocation_id, duration_ms
            )
