"""The Functions that are for people: the API's description, and a form for each model that a site offers one of."""

from __future__ import annotations

import logging

import azure.functions as func

from deployr_core.packet import Abstained, Outcome, Scored
from deployr_core.reasons import reasons
from deployr_serve.bootstrap import Application
from deployr_serve.core.audit import Act, noting_refusals, of_form
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import ServeError, UnknownModel
from deployr_serve.core.explain import explained
from deployr_serve.core.form import NoForm, form_of, typed
from deployr_serve.core.infer import Services
from deployr_serve.core.json_caller import JsonCaller
from deployr_serve.core.outcome import scored_in_time
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import FetchedFacts
from deployr_serve.triggers.correlation import correlation_id
from deployr_serve.triggers.form_page import Told, parse_form, render_form, render_refusal
from deployr_serve.triggers.json_request import HttpAnswer
from deployr_serve.triggers.openapi import render_openapi
from deployr_serve.triggers.operation_outcome import ANSWER_OF_ERROR, UNEXPECTED

_log = logging.getLogger(__name__)


def pages_blueprint(application: Application) -> func.Blueprint:
    """Give the routes of the API's description and of the forms.

    A form takes the same key as the JSON routes, as ``code`` in its address, and the same callers: a browser asks a
    person for a name and password. It stores nothing, and logs that it was asked, and no more.
    """
    blueprint, services = func.Blueprint(), application.services
    document = render_openapi()

    @blueprint.function_name("openapi")
    @blueprint.route("api/openapi.json", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def openapi(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 the host passes it
        return func.HttpResponse(body=document, mimetype="application/json", headers={"Cache-Control": "max-age=300"})

    @blueprint.function_name("form")
    @blueprint.route("api/models/{model}/form", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION)
    async def form(req: func.HttpRequest) -> func.HttpResponse:
        correlated = correlation_id(req.headers.get("X-Correlation-Id"), fresh=application.new_correlation_id)
        try:
            with noting_refusals(
                services.audit, clock=services.clock, channel="form", correlation_id=correlated, act=Act.FORM
            ) as noted:
                callers = application.json_callers
                caller = None if callers is None else await callers.let_in(req.headers, correlation_id=correlated)
                noted.by = "" if caller is None else caller.name
                answer = await _form(req, services, caller)
            if req.method == "POST":
                model = req.route_params.get("model", "")
                services.audit.record(of_form(model, at=services.clock.now(), call=noted, status=answer.status))
        except CallerRefused:
            answer = render_refusal("Say who you are.", status=401)
            answer.headers["WWW-Authenticate"] = 'Basic realm="deployr"'
        except ServeError as error:
            known = ANSWER_OF_ERROR[type(error)]
            answer = render_refusal(known.text, status=known.status)
        except Exception as error:  # noqa: BLE001 the one boundary: what was typed must not reach a traceback
            _log.error("form failed: error=%s", type(error).__name__)
            answer = render_refusal(UNEXPECTED.text, status=UNEXPECTED.status)
        _log.info("form: method=%s status=%d", req.method, answer.status)
        return func.HttpResponse(
            body=answer.body,
            status_code=answer.status,
            mimetype=answer.content_type,
            charset="utf-8",
            headers=answer.headers,
        )

    return blueprint


async def _form(req: func.HttpRequest, services: Services, caller: JsonCaller | None) -> HttpAnswer:
    model_id = req.route_params.get("model", "")
    policy = services.policies.of(model_id)
    if not policy.form or not (caller is None or caller.may_ask(model_id)):
        # Said before the model is looked for: whether there is one is not for everybody.
        raise UnknownModel("expected a model whose deployment file offers a form")
    bundle = services.models.bundle(model_id)
    if await services.switches.why_nothing_is_sent(model_id, bundle.digest) is not None:
        return render_refusal("This model is switched off here.", status=503)
    try:
        asked = form_of(bundle)
    except NoForm as error:
        return render_refusal(f"This model cannot be asked by hand: {error}.", status=422)
    if req.method != "POST":
        return render_form(asked, model_id=model_id)
    given = parse_form(req.get_body(), content_type=req.headers.get("Content-Type"))
    now = services.clock.now()
    read = typed(asked, given, as_of=now)
    if read.facts is None:
        return render_form(asked, model_id=model_id, status=422, given=given, problems=read.problems)
    as_if_fetched = FetchedFacts(facts=read.facts, encounter=None, fetches=(), dropped={})
    within_s = services.site.deadline_s
    outcome = await scored_in_time(bundle, as_if_fetched, services.threads, as_of=now, within_s=within_s)
    outcome = explained(outcome, bundle)
    said = [each.text for each in reasons(outcome, bundle.spec)] if isinstance(outcome, Scored) else []
    told = Told(score=_score(outcome, policy), reasons=said, why_none=_why_none(outcome))
    return render_form(asked, model_id=model_id, given=given, told=told)


def _score(outcome: Outcome, policy: Policy) -> str | None:
    if not isinstance(outcome, Scored):
        return None
    said = policy.in_words("{score}", outcome.score)
    return said if outcome.value_unit is None else f"{said} {outcome.value_unit}"


def _why_none(outcome: Outcome) -> str:
    return f"The model abstains: {outcome.reason}." if isinstance(outcome, Abstained) else ""
