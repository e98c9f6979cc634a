"""The Functions of the serving side: HTTP routes and timers, each a few lines around a use case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import azure.functions as func
import msgspec

from deployr_core.packet import DeliveryState
from deployr_serve.bootstrap import Application
from deployr_serve.core.audit import noting_refusals
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.deliver import relay
from deployr_serve.core.errors import InsufficientScope, ServeError, StoreUnavailable, TooManyRequests, UnknownModel
from deployr_serve.core.infer import Services, infer, infer_group
from deployr_serve.core.json_caller import JsonCaller
from deployr_serve.core.ports import Clock
from deployr_serve.core.spool import SpoolUnavailable, drain
from deployr_serve.core.watch import Level, Step
from deployr_serve.core.without_store import Spooling
from deployr_serve.triggers.correlation import correlation_id
from deployr_serve.triggers.json_request import (
    CHANNEL,
    HttpAnswer,
    parse_group_request,
    parse_json_request,
    render_answer,
    render_error,
    render_group,
    render_unexpected,
)

_log = logging.getLogger(__name__)


def serving_blueprint(application: Application, *, relay_schedule: str) -> func.Blueprint:
    """Give the routes to infer, of health and of our public keys, and the relay's timer.

    Each route is whole: host.json sets no prefix, because a prefix is the whole app's, and clients look for a key set
    at ``/.well-known/jwks.json``.
    """
    blueprint = func.Blueprint()
    services = application.services

    @blueprint.function_name("infer")
    @blueprint.route("api/models/{model}/infer", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
    async def infer_one(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_infer_one, req, application)

    @blueprint.function_name("infer_group")
    @blueprint.route("api/groups/{group}/infer", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
    async def infer_several(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_infer_group, req, application)

    @blueprint.function_name("health_live")
    @blueprint.route("api/health/live", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def live(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        return _json({"status": "live"}, status=200)

    @blueprint.function_name("health_ready")
    @blueprint.route("api/health/ready", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def ready(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        models = services.models.deployed()
        try:
            await services.store.check()
            store = "ok"
        except StoreUnavailable as error:
            store = error.why
        for model, missing in application.missing_scopes().items():
            models = {**models, model: f"{InsufficientScope.reason}: {', '.join(missing)}"}
        spool = await _spool_standing(services.spooling, services.clock)
        usable = [model for model, reason in models.items() if reason is None]
        keeps = store == "ok" and spool.get("status", "ok") == "ok"
        is_ready = keeps and len(usable) == len(models) and bool(models)
        content = {
            "status": "ready" if is_ready else "not-ready",
            "store": store,
            **({"spool": spool} if spool else {}),
            # Said, and no reason to take this instance out: another one would not reach the EMR either.
            "emr": "not-answering" if application.open_circuits() else "ok",
            **_audit(application),
            "models": {model: reason or "ok" for model, reason in models.items()},
            **_shadows(services),
        }
        return _json(content, status=200 if is_ready else 503)

    @blueprint.function_name("jwks")
    @blueprint.route(".well-known/jwks.json", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def jwks(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        # Short enough that a key that was rotated is known before the old one's last token ends.
        headers = {"Cache-Control": "public, max-age=300"}
        return func.HttpResponse(body=application.jwks(), mimetype="application/json", headers=headers)

    @blueprint.function_name("relay_deliveries")
    @blueprint.timer_trigger("timer", schedule=relay_schedule, run_on_startup=True)
    async def relay_deliveries(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        with services.watch.step(Step.RELAY):
            # What comes out of the spool is sent in the same run.
            if services.spooling is not None and not await _drained(services):
                return
            states = await relay(
                store=services.store,
                models=services.models,
                outputs=services.outputs,
                clock=services.clock,
                switches=services.switches,
                expires_after=services.site.expires_after,
            )
        services.watch.level(Level.DELIVERIES_PENDING, states[DeliveryState.PENDING])
        _log.info("relay: %s", " ".join(f"{state}={count}" for state, count in sorted(states.items())) or "nothing")

    return blueprint


def _shadows(services: Services) -> dict[str, Any]:
    """Give how the shadows stand, by run: said, and no reason to take this instance out. Empty where there are none."""
    shadows = {} if services.shadows is None else services.shadows.models.deployed()
    return {"shadows": {run: reason or "ok" for run, reason in shadows.items()}} if shadows else {}


async def _infer_one(
    req: func.HttpRequest, services: Services, correlation_id: str, caller: JsonCaller | None
) -> HttpAnswer:
    model = req.route_params.get("model", "")
    # Before anything else is looked at: no other answer may tell what is withheld from what does not exist.
    if not _is_for(caller, (model,), services, correlation_id):
        raise UnknownModel("expected the id of a model that is deployed here")
    request = parse_json_request(
        req.get_body(),
        model_id=model,
        content_type=req.headers.get("Content-Type"),
        correlation_id=correlation_id,
    )
    return render_answer(await infer(replace(request, caller=_name(caller)), services))


async def _infer_group(
    req: func.HttpRequest, services: Services, correlation_id: str, caller: JsonCaller | None
) -> HttpAnswer:
    models = services.policies.in_group(req.route_params.get("group", ""))
    if not _is_for(caller, models, services, correlation_id):
        models = ()
    requests = parse_group_request(
        req.get_body(), models=models, content_type=req.headers.get("Content-Type"), correlation_id=correlation_id
    )
    requests = tuple(replace(request, caller=_name(caller)) for request in requests)
    answers = dict(zip(models, await infer_group(requests, services), strict=True))
    for model, answer in answers.items():
        if isinstance(answer, Exception) and not isinstance(answer, ServeError):
            name = type(answer).__name__
            _log.error("infer failed: correlation_id=%s model=%s error=%s", correlation_id, model, name)
    return render_group(answers)


def _is_for(caller: JsonCaller | None, models: Sequence[str], services: Services, correlation_id: str) -> bool:
    """True if the caller may ask for all of these models, and they are deployed; false is all the same to it."""
    if caller is None:
        return True
    # What is not deployed is only a text that came in, and may be anything: it is not logged.
    deployed = [model for model in models if model in services.models.deployed()]
    withheld = [model for model in deployed if not caller.may_ask(model)]
    if withheld:
        told = ",".join(withheld)
        _log.warning("json caller not allowed: correlation_id=%s caller=%s model=%s", correlation_id, caller.name, told)
    return not withheld and len(deployed) == len(models)


async def _answered(
    work: Callable[[func.HttpRequest, Services, str, JsonCaller | None], Coroutine[Any, Any, HttpAnswer]],
    req: func.HttpRequest,
    application: Application,
) -> func.HttpResponse:
    clock, audit, watch = application.services.clock, application.services.audit, application.services.watch
    correlated = correlation_id(req.headers.get("X-Correlation-Id"), fresh=application.new_correlation_id)
    started = clock.monotonic()
    try:
        with (
            watch.joined(req.headers.get("traceparent")),
            noting_refusals(audit, clock=clock, channel=CHANNEL, correlation_id=correlated) as call,
        ):
            callers = application.json_callers
            caller = None if callers is None else await callers.let_in(req.headers, correlation_id=correlated)
            call.by = _name(caller)
            answer = await work(req, application.services, correlated, caller)
    except CallerRefused:
        answer = HttpAnswer(status=401, body=b"", content_type="text/plain", headers={"WWW-Authenticate": "Bearer"})
    except ServeError as error:
        answer = render_error(error)
        if isinstance(error, TooManyRequests):
            answer.headers["Retry-After"] = f"{error.retry_after_s or 1:.0f}"
    except Exception as error:  # noqa: BLE001 the one boundary: a clinician's request never sees a traceback
        _log.error("infer failed: correlation_id=%s error=%s", correlated, type(error).__name__)
        answer = render_unexpected()
    duration_ms = (clock.monotonic() - started) * 1000
    _log.info("infer: correlation_id=%s status=%d ms=%.1f", correlated, answer.status, duration_ms)
    return _response(answer, correlated)


async def _drained(services: Services) -> bool:
    """Bring what waits in the spool into the store; False where the store is down."""
    spooling = services.spooling
    if spooling is None:
        return True
    try:
        if services.watch.is_on:
            services.watch.level(Level.SPOOL_WAITING, (await spooling.spool.standing()).waiting)
        fates = await drain(
            spooling.spool,
            store=services.store,
            clock=services.clock,
            expires_after=services.site.expires_after,
        )
    except SpoolUnavailable as error:
        _log.error("alert=%s", error.reason)
        return True
    except StoreUnavailable:
        _log.warning("spool: the store is still down")
        return False
    if fates:
        _log.info("spool: %s", " ".join(f"{fate}={count}" for fate, count in sorted(fates.items())))
    return True


async def _spool_standing(spooling: Spooling | None, clock: Clock) -> dict[str, object]:
    """Give how the spool stands, as health shows it; empty where there is none.

    ``losing``: the last packet that was to wait there could not be kept; ``notKept`` counts them in this worker.
    """
    if spooling is None:
        return {}
    try:
        standing = await spooling.spool.standing()
    except SpoolUnavailable as error:
        return {"status": error.reason, "notKept": spooling.refused}
    oldest_s = 0.0 if standing.oldest_at is None else (clock.now() - standing.oldest_at).total_seconds()
    status = "losing" if spooling.is_losing else "ok"
    return {
        "status": status,
        "waiting": standing.waiting,
        "oldestSeconds": max(round(oldest_s), 0),
        "notKept": spooling.refused,
    }


def _audit(application: Application) -> dict[str, str]:
    """Say whether audit records are written; where not, they wait, and requests are answered all the same."""
    audit = application.audit
    return {} if audit is None else {"audit": "not-written" if audit.folder.waiting else "ok"}


def _name(caller: JsonCaller | None) -> str:
    return "" if caller is None else caller.name


def _response(answer: HttpAnswer, correlation_id: str) -> func.HttpResponse:
    return func.HttpResponse(
        body=answer.body,
        status_code=answer.status,
        mimetype=answer.content_type,
        headers={**answer.headers, "X-Correlation-Id": correlation_id},
    )


def _json(content: object, *, status: int) -> func.HttpResponse:
    return func.HttpResponse(body=msgspec.json.encode(content), status_code=status, mimetype="application/json")
