"""The Functions of CDS Hooks: discovery, the services, and feedback.

They answer other methods themselves: Azure's own routing would say 404, where 405 with ``Allow`` is what a client
can use. Preflight requests of browsers are the platform's: its CORS settings answer them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import azure.functions as func

from deployr_serve.bootstrap import Application
from deployr_serve.cds_bootstrap import CdsAccess
from deployr_serve.core.audit import Call, noting_refusals, of_feedback
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import UNEXPECTED, AskDifferently, ServeError, StoreUnavailable, UnknownModel
from deployr_serve.core.events import shown
from deployr_serve.core.explain import reasons_of
from deployr_serve.core.hook_instances import first_seen
from deployr_serve.core.in_time import InTime
from deployr_serve.core.infer import Answer, infer_group
from deployr_serve.triggers.cds_cards import Cards, advised, render_cards, render_hook_error, render_wrong_method
from deployr_serve.triggers.cds_feedback import event_of, is_card_of, parse_feedback
from deployr_serve.triggers.cds_request import CHANNEL, parse_hook_call, requests_of
from deployr_serve.triggers.cds_services import CdsService, render_discovery
from deployr_serve.triggers.correlation import correlation_id
from deployr_serve.triggers.json_request import HttpAnswer, render_unexpected

_log = logging.getLogger(__name__)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_DISCOVERY = "cds-services"
_JSON = "application/json"


def cds_blueprint(application: Application, cds: CdsAccess) -> func.Blueprint:
    """Give the three routes, at the root: CDS clients find them by their names."""
    blueprint = func.Blueprint()
    routes = _Routes(application, cds)

    # The platform's keys are not for these: a CDS client proves itself by a signed token of its own.
    @blueprint.function_name("cds_discovery")
    @blueprint.route(_DISCOVERY, methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
    async def discovery(req: func.HttpRequest) -> func.HttpResponse:
        return await routes.answer(req, "GET", routes.discover)

    @blueprint.function_name("cds_service")
    @blueprint.route(f"{_DISCOVERY}/{{id}}", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
    async def service(req: func.HttpRequest) -> func.HttpResponse:
        return await routes.answer(req, "POST", routes.call)

    @blueprint.function_name("cds_feedback")
    @blueprint.route(f"{_DISCOVERY}/{{id}}/feedback", methods=_METHODS, auth_level=func.AuthLevel.ANONYMOUS)
    async def feedback(req: func.HttpRequest) -> func.HttpResponse:
        return await routes.answer(req, "POST", routes.feed_back)

    return blueprint


class _Routes:
    def __init__(self, application: Application, cds: CdsAccess) -> None:
        self._application = application
        self._services = application.services
        self._cds = cds
        self._in_time: InTime[HttpAnswer] = InTime()

    async def answer(
        self,
        req: func.HttpRequest,
        method: str,
        use_case: Callable[[func.HttpRequest, Call], Coroutine[Any, Any, HttpAnswer]],
    ) -> func.HttpResponse:
        """Answer, whatever happens, and at the deadline at the latest."""
        correlated = correlation_id(req.headers.get("X-Correlation-Id"), fresh=self._application.new_correlation_id)
        started = self._services.clock.monotonic()
        try:
            if req.method == method:
                within_s, clock = self._services.site.deadline_s, self._services.clock
                with (
                    self._services.watch.joined(req.headers.get("traceparent")),
                    noting_refusals(
                        self._services.audit, clock=clock, channel=CHANNEL, correlation_id=correlated
                    ) as call,
                ):
                    answer = await self._in_time.wait(use_case(req, call), within_s=within_s)
            else:
                answer = render_wrong_method(method)
        except CallerRefused as refusal:
            level = logging.ERROR if refusal.why == "store-unavailable" else logging.WARNING
            _log.log(level, "cds caller refused: correlation_id=%s why=%s", correlated, refusal.why)
            answer = HttpAnswer(status=401, body=b"", content_type="text/plain", headers={"WWW-Authenticate": "Bearer"})
        except ServeError as error:
            answer = render_hook_error(error)
        except Exception as error:  # noqa: BLE001 the one boundary: a clinician's request never sees a traceback
            _log.error("cds failed: correlation_id=%s error=%s", correlated, type(error).__name__)
            answer = render_unexpected()
        duration_ms = (self._services.clock.monotonic() - started) * 1000
        _log.info("cds: correlation_id=%s status=%d ms=%.1f", correlated, answer.status, duration_ms)
        return func.HttpResponse(
            body=answer.body,
            status_code=answer.status,
            mimetype=answer.content_type,
            headers={**answer.headers, "X-Correlation-Id": correlated},
        )

    async def discover(self, req: func.HttpRequest, noted: Call) -> HttpAnswer:
        """Say which services there are."""
        await self._let_in(req, noted, paths=(_DISCOVERY,))
        return _ok(render_discovery(self._cds.services.values()))

    async def call(self, req: func.HttpRequest, noted: Call) -> HttpAnswer:
        """Answer a service with cards."""
        started = self._services.clock.monotonic()
        service_id = req.route_params.get("id", "")
        await self._let_in(req, noted, paths=(f"{_DISCOVERY}/{service_id}",))
        call = parse_hook_call(
            req.get_body(),
            content_type=req.headers.get("Content-Type"),
            service=self._service(service_id),
            fhir_base=self._cds.fhir_base,
        )
        services = self._services
        event_time = await first_seen(
            services.records,
            hook_instance=call.hook_instance,
            patient_id=call.subject.patient_id,
            key=services.site.id_key,
            now=call.event_time(now=services.clock.now(), clock_skew=services.site.clock_skew),
            machine_now=self._cds.machine.now(),
        )
        # Proving who calls has taken a part of the time.
        left_s = max(started + services.site.deadline_s - services.clock.monotonic(), 0.001)
        cards = Cards(call, services.policies, because=partial(reasons_of, models=services.models))
        came = await infer_group(
            requests_of(call, event_time=event_time, correlation_id=noted.correlation_id, caller=noted.by),
            replace(services, site=replace(services.site, deadline_s=left_s)),
            prepare=cards.prepare,
        )
        answers = _answers_in(came, noted.correlation_id)
        answer = render_cards(answers, services.policies, cards=cards)
        if answer.status == 200:
            # What is answered for the first time was noted with its packet.
            again = [each for each in answers if each.replayed]
            for event in shown(advised(again, services.policies)):
                try:
                    await services.store.append_event(event)
                except StoreUnavailable:
                    # The packet says that it was to be shown; the advice itself is not held back for this.
                    _log.error("cds card not noted as shown: correlation_id=%s", noted.correlation_id)
        return answer

    async def feed_back(self, req: func.HttpRequest, noted: Call) -> HttpAnswer:
        """Store what became of cards, all or nothing; a repeat changes nothing."""
        service_id = req.route_params.get("id", "")
        path = f"{_DISCOVERY}/{service_id}"
        # Clients differ in which of the two they take for the endpoint that is called.
        await self._let_in(req, noted, paths=(path, f"{path}/feedback"))
        service = self._service(service_id)
        outcomes = parse_feedback(
            req.get_body(), content_type=req.headers.get("Content-Type"), now=self._cds.machine.now()
        )
        packets = []
        for outcome in outcomes:
            stored = await self._services.store.read(outcome.packet_id)
            if stored is None or not is_card_of(stored.packet, service):
                raise UnknownModel("expected the uuid of a card that this service gave")
            packets.append(stored.packet)
        for packet, outcome in zip(packets, outcomes, strict=True):
            event = event_of(outcome)
            await self._services.store.append_event(event)
            now = self._services.clock.now()
            self._services.audit.record(of_feedback(packet, event.kind, at=now, call=noted, channel=CHANNEL))
        return HttpAnswer(status=200, body=b"", content_type=_JSON, headers={})

    async def _let_in(self, req: func.HttpRequest, noted: Call, *, paths: Collection[str]) -> None:
        if self._cds.callers is not None:
            audiences = [f"{self._cds.public_base}/{path}" for path in paths]
            caller = await self._cds.callers.verify(req.headers.get("Authorization"), audiences=audiences)
            noted.by = caller.client.issuer

    def _service(self, service_id: str) -> CdsService:
        service = self._cds.services.get(service_id)
        if service is None:
            raise UnknownModel("expected the id of a service that discovery lists")
        return service


def _ok(body: bytes) -> HttpAnswer:
    return HttpAnswer(status=200, body=body, content_type=_JSON, headers={})


def _answers_in(came: Sequence[Answer | Exception], correlated: str) -> list[Answer]:
    """Give what was answered, where anything was, and nothing was wrong with the question.

    Raises:
        Exception: the first of those that came instead.
    """
    answers = [each for each in came if isinstance(each, Answer)]
    for error in came:
        if isinstance(error, Answer):
            continue
        if isinstance(error, AskDifferently) or not answers:
            raise error
        reason = error.reason if isinstance(error, ServeError) else UNEXPECTED
        _log.error("cds model failed: correlation_id=%s reason=%s", correlated, reason)
    return answers
