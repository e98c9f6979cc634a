"""The Functions of several sites in one app: each site's own ones under its name, and how they all are."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import azure.functions as func
import msgspec

from deployr_serve.bootstrap import Application, build
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.site_logs import on_behalf_of, tell_sites
from deployr_serve.settings import Settings
from deployr_serve.sites_settings import Sites

READY = "health_ready"
"""The function that says how a site is; see `deployr_serve.blueprint`."""
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_NOT_STARTED = "not-started"
_log = logging.getLogger(__name__)

_Asked = Callable[[func.HttpRequest], Awaitable[func.HttpResponse]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The sites that have started, by name; why others have not; and the functions of them all."""

    applications: Mapping[str, Application]
    refused: Mapping[str, str]
    app: func.FunctionApp


def open_sites(sites: Sites, functions_of: Callable[[Settings, Application], func.FunctionApp]) -> Opened:
    """Start every site by itself; one that cannot start keeps no other from it.

    A site's routes are below ``sites/NAME/``, its functions are called ``NAME_...``. Of a site that has not started
    every address answers 503.

    Args:
        sites: their settings.
        functions_of: gives the functions of a site as if it were alone.

    Raises:
        SettingsInvalid: none of them can start.
    """
    tell_sites()
    if sites.unread:
        # A container image brings some of a lone site's; a misspelt one would be missed.
        _log.warning("settings that no site reads: %s", ", ".join(sites.unread))
    applications: dict[str, Application] = {}
    refused, app = dict(sites.refused), func.FunctionApp()
    ready: dict[str, _Asked] = {}
    for name, settings in sites.settings.items():
        try:
            with on_behalf_of(name):
                application = build(settings)
                own = functions_of(settings, application).get_functions()
        except SettingsInvalid as error:
            refused[name] = str(error)
        except Exception as error:  # noqa: BLE001 whatever is wrong with one site, the others start
            refused[name] = type(error).__name__
        else:
            applications[name] = application
            app.register_functions(at_site(name, own))
            ask = next(each.get_user_function() for each in own if each.get_function_name() == READY)
            ready[name] = _on_behalf(name, ask)
    for name, why in sorted(refused.items()):
        _log.error("alert=site-not-started site=%s: %s", name, why)
        app.register_functions(_stand_in(name))
    if not applications:
        raise SettingsInvalid("; ".join(f"site {name}: {why}" for name, why in sorted(refused.items())))
    app.register_functions(_health(ready, refused))
    return Opened(applications=applications, refused=refused, app=app)


def at_site(site: str, own: Iterable[func.Function]) -> func.Blueprint:
    """Give a site's functions again, at their place: what a trigger says but for that stays as it is."""
    blueprint = func.Blueprint()
    for function in own:
        trigger = function.get_trigger()
        said: Mapping[str, Any] = {} if trigger is None else trigger.get_dict_repr()
        call = _on_behalf(site, function.get_user_function())
        match said.get("type"):
            case "httpTrigger":
                placed = blueprint.route(
                    f"sites/{site}/{said['route']}",
                    trigger_arg_name=said["name"],
                    methods=said.get("methods"),
                    auth_level=said["authLevel"],
                )
            case "timerTrigger":
                placed = blueprint.timer_trigger(
                    said["name"],
                    schedule=said["schedule"],
                    run_on_startup=said.get("runOnStartup"),
                    use_monitor=said.get("useMonitor"),
                )
            case "queueTrigger":
                placed = blueprint.queue_trigger(said["name"], said["queueName"], connection=said["connection"])
            case other:
                raise ValueError(f"expected functions of routes, timers and queues, got {other}")
        blueprint.function_name(f"{site}_{function.get_function_name()}")(placed(call))
    return blueprint


def _on_behalf(site: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    # Its parameters are read by the host, which looks through this.
    @functools.wraps(call)
    async def run(*arguments: Any, **named: Any) -> Any:
        with on_behalf_of(site):
            return await call(*arguments, **named)

    return run


def _stand_in(site: str) -> func.Blueprint:
    """Give the one function of a site that has not started, at all of its addresses."""
    blueprint = func.Blueprint()

    @blueprint.function_name(f"{site}_not_started")
    @blueprint.route(f"sites/{site}/{{*rest}}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
    async def not_started(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        return _json({"status": _NOT_STARTED}, status=503)

    return blueprint


def _health(ready: Mapping[str, _Asked], refused: Mapping[str, str]) -> func.Blueprint:
    """Give the routes of the whole app's health.

    It is ready as long as one site is: to take an instance out because of one hospital would stop the others.
    """
    blueprint = func.Blueprint()

    @blueprint.function_name("health_live")
    @blueprint.route("api/health/live", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def live(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        return _json({"status": "live"}, status=200)

    @blueprint.function_name(READY)
    @blueprint.route("api/health/ready", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def all_ready(req: func.HttpRequest) -> func.HttpResponse:
        # One that cannot even say how it is keeps the others' from nobody.
        answers = await asyncio.gather(*(ask(req) for ask in ready.values()), return_exceptions=True)
        states = dict.fromkeys(refused, _NOT_STARTED)
        for name, answer in zip(ready, answers, strict=True):
            is_ready = isinstance(answer, func.HttpResponse) and answer.status_code == 200
            states[name] = "ready" if is_ready else "not-ready"
        count = list(states.values()).count("ready")
        status = "ready" if count == len(states) else "partly-ready" if count else "not-ready"
        return _json({"status": status, "sites": dict(sorted(states.items()))}, status=200 if count else 503)

    return blueprint


def _json(content: object, *, status: int) -> func.HttpResponse:
    return func.HttpResponse(body=msgspec.json.encode(content), status_code=status, mimetype="application/json")
