"""The admin API: what the host serves, how it is, and runs by hand."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deployr_serve.local_host.http import BodyTooLarge, answer_to, offered_key, read_body
from deployr_serve.local_host.http_codec import function_request
from deployr_serve.local_host.invocation import BackgroundRuns, Invoker, Returned
from deployr_serve.local_host.keys import AuthLevel, HostKeys, opens
from deployr_serve.local_host.loading import Function, HttpFunction, LoadedApp, QueueFunction
from deployr_serve.local_host.queue_runner import QueueRunner, QueueRunners
from deployr_serve.local_host.timers import Result, TimerRunner, Timers

WAIT_HEADER = "x-deployr-wait"
"""Our extension: with the value ``1`` a run by hand is answered after it ended. Azure ignores it."""

Endpoint = Callable[[Request], Awaitable[Response]]


class _BadInput(ValueError):
    """The body of a run by hand is not ``{"input": "..."}``."""


@dataclass(frozen=True, kw_only=True)
class AdminApi:
    """The endpoints below ``/admin``, all behind the master key.

    Source: Microsoft Learn, "Manually run a non HTTP-triggered function"; azure-functions-host,
    ``FunctionsController`` and ``HostController``.
    """

    app: LoadedApp
    route_prefix: str
    keys: HostKeys
    invoker: Invoker
    timers: Timers
    queues: QueueRunners
    background: BackgroundRuns
    max_body_bytes: int

    def routes(self) -> list[Route]:
        """The routes to mount before those of the functions."""
        return [
            Route("/admin/host/status", self._behind_master_key(self._status), methods=["GET"]),
            Route("/admin/functions", self._behind_master_key(self._list), methods=["GET"]),
            Route("/admin/functions/{name}", self._behind_master_key(self._run), methods=["POST"]),
            Route("/admin/{rest:path}", self._behind_master_key(_not_found), methods=_ALL_METHODS),
        ]

    def _behind_master_key(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            if not opens(AuthLevel.ADMIN, offered=offered_key(request), keys=self.keys):
                return Response(status_code=HTTPStatus.UNAUTHORIZED)
            return await endpoint(request)

        return guarded

    async def _status(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        return JSONResponse({"id": "deployr-local-host", "state": "Running", "version": "4.0.0-deployr"})

    async def _list(self, request: Request) -> Response:
        base = f"{request.url.scheme}://{request.url.netloc}"
        return JSONResponse(
            [description(each, base=base, route_prefix=self.route_prefix) for each in self.app.functions]
        )

    async def _run(self, request: Request) -> Response:
        name = request.path_params["name"].lower()
        function = next((each for each in self.app.functions if each.name.lower() == name), None)
        if function is None:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        try:
            text = parse_input(await read_body(request, limit=self.max_body_bytes))
        except _BadInput as error:
            return PlainTextResponse(str(error), status_code=HTTPStatus.BAD_REQUEST)
        except BodyTooLarge:
            return Response(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        waits = request.headers.get(WAIT_HEADER) == "1"
        if isinstance(function, HttpFunction):
            return await self._run_http(function, text, waits=waits)
        if (taker := self.queues.get(function.name)) is not None:
            return await self._run_queued(taker, text, waits=waits)
        runner = self.timers.get(function.name)
        if runner is None:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        return await self._run_timer(runner, waits=waits)

    async def _run_timer(self, runner: TimerRunner, *, waits: bool) -> Response:
        if waits:
            return _result(await runner.run_by_hand())
        if runner.is_running:
            return JSONResponse({"status": "already-running"}, status_code=HTTPStatus.CONFLICT)
        self.background.start(runner.run_by_hand())
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def _run_queued(self, taker: QueueRunner, text: str, *, waits: bool) -> Response:
        if waits:
            return _result(await taker.run_by_hand(text))
        self.background.start(taker.run_by_hand(text))
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def _run_http(self, function: HttpFunction, text: str, *, waits: bool) -> Response:
        argument = function_request(
            method="POST",
            url=f"http://localhost/{'/'.join(part for part in (self.route_prefix, function.route) if part)}",
            query=b"",
            headers={"content-type": "application/json"},
            route_params={},
            body=text.encode(),
        )
        if not waits:
            self.background.start(self.invoker.run(function, argument))
            return Response(status_code=HTTPStatus.ACCEPTED)
        outcome = await self.invoker.run(function, argument)
        answered = answer_to(outcome, function_name=function.name).status < HTTPStatus.INTERNAL_SERVER_ERROR
        return _result("succeeded" if isinstance(outcome, Returned) and answered else "failed")


def parse_input(body: bytes) -> str:
    """The ``input`` of a run by hand; empty where the body is empty or does not name it.

    Raises:
        ValueError: the body is not a JSON object, or its ``input`` is not a text.
    """
    if not body.strip():
        return ""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("input", ""), str | None):
        raise _BadInput('expected a JSON object {"input": "..."} whose input is a text')
    return content.get("input") or ""


def description(function: Function, *, base: str, route_prefix: str) -> dict[str, object]:
    """One function as ``GET /admin/functions`` shows it.

    Args:
        function: whichever.
        base: scheme and authority of this host.
        route_prefix: without outer slashes.
    """
    binding: dict[str, object]
    if isinstance(function, QueueFunction):
        binding = {
            "type": "queueTrigger",
            "direction": "in",
            "name": function.parameter,
            "queueName": function.queue,
            "connection": function.connection,
        }
        return _described(function, [binding])
    if isinstance(function, HttpFunction):
        path = "/".join(part for part in (route_prefix, function.route) if part)
        binding = {
            "type": "httpTrigger",
            "direction": "in",
            "name": function.parameter,
            "authLevel": function.auth_level.value,
            "route": function.route,
            **({"methods": sorted(function.methods)} if function.methods else {}),
        }
        return _described(function, [binding], url=f"{base}/{path}")
    binding = {
        "type": "timerTrigger",
        "direction": "in",
        "name": function.parameter,
        "schedule": function.schedule,
        "runOnStartup": function.run_on_startup,
        "useMonitor": function.use_monitor,
    }
    return _described(function, [binding])


def _described(function: Function, bindings: list[dict[str, object]], *, url: str | None = None) -> dict[str, object]:
    return {
        "name": function.name,
        "invoke_url_template": url,
        "config": {"bindings": bindings},
        "isDisabled": False,
        "language": "python",
    }


async def _not_found(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    return Response(status_code=HTTPStatus.NOT_FOUND)


def _result(status: Result) -> Response:
    return JSONResponse({"status": status})


_ALL_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
