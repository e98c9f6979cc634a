"""The Functions of the serving side: HTTP routes and timers, each a few lines around a use case."""

from __future__ import annotations

import logging
import re

import azure.functions as func
import msgspec

from deployr_serve.bootstrap import Application
from deployr_serve.core.deliver import relay
from deployr_serve.core.errors import InsufficientScope, ServeError, StoreUnavailable
from deployr_serve.core.infer import infer
from deployr_serve.triggers.json_request import (
    HttpAnswer,
    parse_json_request,
    render_answer,
    render_error,
    render_unexpected,
)

_log = logging.getLogger(__name__)
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z", re.ASCII)


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
        correlation_id = _correlation_id(req, application)
        started = services.clock.monotonic()
        try:
            request = parse_json_request(
                req.get_body(),
                model_id=req.route_params.get("model", ""),
                content_type=req.headers.get("Content-Type"),
                correlation_id=correlation_id,
            )
            answer = render_answer(await infer(request, services))
        except ServeError as error:
            answer = render_error(error)
        except Exception as error:  # noqa: BLE001 the one boundary: a clinician's request never sees a traceback
            _log.error("infer failed: correlation_id=%s error=%s", correlation_id, type(error).__name__)
            answer = render_unexpected()
        duration_ms = (services.clock.monotonic() - started) * 1000
        _log.info("infer: correlation_id=%s status=%d ms=%.1f", correlation_id, answer.status, duration_ms)
        return _response(answer, correlation_id)

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
        except StoreUnavailable:
            store = "unavailable"
        for model, missing in application.missing_scopes().items():
            models = {**models, model: f"{InsufficientScope.reason}: {', '.join(missing)}"}
        usable = [model for model, reason in models.items() if reason is None]
        is_ready = store == "ok" and len(usable) == len(models) and bool(models)
        content = {
            "status": "ready" if is_ready else "not-ready",
            "store": store,
            # Said, and no reason to take this instance out: another one would not reach the EMR either.
            "emr": "not-answering" if application.open_circuits() else "ok",
            "models": {model: reason or "ok" for model, reason in models.items()},
        }
        return _json(content, status=200 if is_ready else 503)

    @blueprint.function_name("jwks")
    @blueprint.route(".well-known/jwks.json", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def jwks(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        # Short enough that a key that was rotated is known before the old one's last token ends.
        headers = {"Cache-Control": "public, max-age=300"}
        return func.HttpResponse(body=application.jwks(), mimetype="application/json", headers=headers)

    @blueprint.function_name("relay_deliveries")
    @blueprint.timer_trigger("timer", schedule=relay_schedule)
    async def relay_deliveries(timer: func.TimerRequest) -> None:  # noqa: ARG001 the host passes it
        states = await relay(
            store=services.store, models=services.models, outputs=services.outputs, clock=services.clock
        )
        _log.info("relay: %s", " ".join(f"{state}={count}" for state, count in sorted(states.items())) or "nothing")

    return blueprint


def _correlation_id(req: func.HttpRequest, application: Application) -> str:
    given = req.headers.get("X-Correlation-Id") or ""
    return given if _CORRELATION_ID.match(given) else application.new_correlation_id()


def _response(answer: HttpAnswer, correlation_id: str) -> func.HttpResponse:
    return func.HttpResponse(
        body=answer.body,
        status_code=answer.status,
        mimetype=answer.content_type,
        headers={**answer.headers, "X-Correlation-Id": correlation_id},
    )


def _json(content: object, *, status: int) -> func.HttpResponse:
    return func.HttpResponse(body=msgspec.json.encode(content), status_code=status, mimetype="application/json")
