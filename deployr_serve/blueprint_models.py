"""The registry's routes: how models stand, and what may be done with their runs by those whom it knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import azure.functions as func

from deployr_core.bundle import MODEL_ID
from deployr_core.registry.journal import Action, JournalBroken
from deployr_core.registry.roles import Person, Reason, RegistryRefused
from deployr_serve.bootstrap import Application
from deployr_serve.core.audit import Act, noting_refusals
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import ServeError, TooManyRequests
from deployr_serve.core.registry_deeds import Call
from deployr_serve.core.registry_journal import heads, read_journal, verdict
from deployr_serve.registry_bootstrap import RegistryAccess
from deployr_serve.triggers import registry_json
from deployr_serve.triggers.correlation import correlation_id
from deployr_serve.triggers.json_request import HttpAnswer

_log = logging.getLogger(__name__)

_Work = Callable[[func.HttpRequest, RegistryAccess, Person, Call], Awaitable[HttpAnswer]]
_MODEL = "api/registry/models/{model}"
_KEY = func.AuthLevel.FUNCTION


def models_blueprint(application: Application, access: RegistryAccess) -> func.Blueprint:
    """Give the routes under ``/api/registry``. Each asks for the app's key, and for a proof of who asks."""
    blueprint = func.Blueprint()

    @blueprint.function_name("registry_models")
    @blueprint.route("api/registry/models", methods=["GET"], auth_level=_KEY)
    async def list_models(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_models, req, application, access)

    @blueprint.function_name("registry_model")
    @blueprint.route(_MODEL, methods=["GET"], auth_level=_KEY)
    async def show_model(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_one_model, req, application, access)

    @blueprint.function_name("registry_verify")
    @blueprint.route(f"{_MODEL}/verify", methods=["GET"], auth_level=_KEY)
    async def verify_model(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_verdict, req, application, access)

    @blueprint.function_name("registry_run")
    @blueprint.route(f"{_MODEL}/runs/{{run}}", methods=["GET"], auth_level=_KEY)
    async def show_run(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_one_run, req, application, access)

    @blueprint.function_name("registry_act")
    @blueprint.route(f"{_MODEL}/runs/{{run}}/{{act}}", methods=["POST"], auth_level=_KEY)
    async def act_on_run(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_act, req, application, access)

    @blueprint.function_name("registry_rollback")
    @blueprint.route(f"{_MODEL}/rollback", methods=["POST"], auth_level=_KEY)
    async def roll_back(req: func.HttpRequest) -> func.HttpResponse:
        return await _answered(_roll_back, req, application, access)

    return blueprint


async def _models(_: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> HttpAnswer:
    registry = access.registry
    registry.expect_reader(person, call)
    now = registry.clock.now()
    known = [each for each in sorted(await heads(registry.records, now=now)) if person.roles_for(each)]
    keys = registry.keys.trusted
    journals = [await read_journal(registry.records, model_id, now=now, keys=keys) for model_id in known]
    return registry_json.answer({"models": [registry_json.standing_told(each.standing) for each in journals]})


async def _one_model(req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> HttpAnswer:
    registry, model_id = access.registry, _model_to_read(req, access, person, call)
    journal = await read_journal(registry.records, model_id, now=registry.clock.now(), keys=registry.keys.trusted)
    if not journal.entries:
        raise RegistryRefused(Reason.UNKNOWN_RUN, "expected a model that has a journal")
    return registry_json.answer(registry_json.journal_told(journal))


async def _verdict(req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> HttpAnswer:
    registry, model_id = access.registry, _model_to_read(req, access, person, call)
    told = await asyncio.to_thread(access.told_heads, model_id)
    keys = registry.keys.trusted
    found = await verdict(registry.records, model_id, now=registry.clock.now(), told=told, keys=keys)
    return registry_json.answer(registry_json.verdict_told(found))


async def _one_run(req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> HttpAnswer:
    model_id = _model_to_read(req, access, person, call)
    run = await access.registry.shelf.run(model_id, req.route_params.get("run", ""))
    return registry_json.answer(registry_json.run_told(run))


async def _act(req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> HttpAnswer:
    action = registry_json.ACTS.get(req.route_params.get("act", ""))
    if action is None:
        raise RegistryRefused(Reason.UNKNOWN_RUN, f"expected one of {', '.join(registry_json.ACTS)}")
    return await _done(req, access, person, call, action)


async def _roll_back(req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> HttpAnswer:
    return await _done(req, access, person, call, Action.ROLLED_BACK)


async def _done(
    req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call, action: Action
) -> HttpAnswer:
    wish = registry_json.parse_act(
        req.get_body(),
        content_type=req.headers.get("Content-Type"),
        action=action,
        run_id=req.route_params.get("run", ""),
    )
    done = await access.registry.do(wish, model_id=_model(req), by=person, call=call)
    return registry_json.answer(registry_json.done_told(done.entry, done.note))


def _model_to_read(req: func.HttpRequest, access: RegistryAccess, person: Person, call: Call) -> str:
    """Give the model that somebody asks about, once they are known to be a reader of it.

    Its id becomes part of a path and of a record's kind, and so must be one.

    Raises:
        RegistryRefused: they may not read, or it is no model's id.
    """
    model_id = _model(req)
    access.registry.expect_reader(person, call, model_id)
    if not MODEL_ID.match(model_id):
        raise RegistryRefused(Reason.UNKNOWN_RUN, "expected the id of a model, such as hematocrit")
    return model_id


def _model(req: func.HttpRequest) -> str:
    return str(req.route_params.get("model", ""))


async def _answered(
    work: _Work, req: func.HttpRequest, application: Application, access: RegistryAccess
) -> func.HttpResponse:
    registry = access.registry
    correlated = correlation_id(req.headers.get("X-Correlation-Id"), fresh=application.new_correlation_id)
    channel = registry_json.CHANNEL
    try:
        # What is refused past the door is written down where it is decided.
        with noting_refusals(
            registry.audit, clock=registry.clock, channel=channel, correlation_id=correlated, act=Act.REGISTRY
        ):
            person = await access.people.let_in(req.headers, correlation_id=correlated)
        answer = await work(req, access, person, Call(channel=channel, correlation_id=correlated))
    except CallerRefused:
        answer = HttpAnswer(status=401, body=b"", content_type="text/plain", headers={"WWW-Authenticate": "Bearer"})
    except RegistryRefused as error:
        answer = registry_json.refusal(error)
    except JournalBroken as error:
        _log.error("alert=journal-broken correlation_id=%s: %s", correlated, error)
        answer = registry_json.broken(error)
    except ServeError as error:
        answer = registry_json.failure(error)
        if isinstance(error, TooManyRequests):
            answer.headers["Retry-After"] = f"{error.retry_after_s or 1:.0f}"
    except Exception as error:  # noqa: BLE001 the one boundary of these routes
        _log.error("registry failed: correlation_id=%s error=%s", correlated, type(error).__name__)
        answer = registry_json.failure(None)
    _log.info("registry: correlation_id=%s status=%d", correlated, answer.status)
    return func.HttpResponse(
        body=answer.body,
        status_code=answer.status,
        mimetype=answer.content_type,
        headers={**answer.headers, "X-Correlation-Id": correlated},
    )
