"""The Functions of the CDA-XML channel: advisories, and how they were acknowledged.

An alert gets 200 and a well-formed document whatever happens, unless it has not proved who it is: whether a clinician
sees anything of another status is the EMR's build, and a document without advice is safe in all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import azure.functions as func

from deployr_core.packet import InferencePacket
from deployr_serve.bootstrap import Application
from deployr_serve.bpa_settings import BpaSettings
from deployr_serve.core.allowance import Allowance
from deployr_serve.core.audit import Act, noting_refusals, of_feedback
from deployr_serve.core.basic import CHALLENGE, basic_caller
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.errors import (
    UNEXPECTED,
    AskDifferently,
    ServeError,
    StoreUnavailable,
    TooManyRequests,
    UnknownModel,
)
from deployr_serve.core.events import shown
from deployr_serve.core.explain import reasons_of
from deployr_serve.core.in_time import InTime
from deployr_serve.core.infer import Answer, infer_group
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import Budget
from deployr_serve.core.request import InferenceRequest
from deployr_serve.triggers.bpa_acknowledgement import check_was_shown, parse_acknowledgement
from deployr_serve.triggers.bpa_answer import chosen, outcome_in_header, outcome_of_error
from deployr_serve.triggers.bpa_envelope import Wrapping, announced, fault, wrap
from deployr_serve.triggers.bpa_request import CHANNEL, media_type_of, open_document, read_document
from deployr_serve.triggers.correlation import correlation_id
from deployr_serve.triggers.json_request import HttpAnswer, render_error, render_unexpected

_log = logging.getLogger(__name__)
_BURST_S = 2
"""How many seconds' worth of its allowance a caller may use up at once."""


def bpa_blueprint(application: Application, bpa: BpaSettings) -> func.Blueprint:
    """Give the two routes."""
    blueprint = func.Blueprint()
    routes = _Routes(application, bpa)

    # The platform's keys are not for these: an alert proves itself by HTTP Basic.
    @blueprint.function_name("bpa")
    @blueprint.route("api/bpa/{model_or_group}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
    async def advise(req: func.HttpRequest) -> func.HttpResponse:
        return await routes.advise(req)

    @blueprint.function_name("bpa_acknowledgements")
    @blueprint.route("api/bpa/acknowledgements", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
    async def acknowledge(req: func.HttpRequest) -> func.HttpResponse:
        return await routes.acknowledge(req)

    return blueprint


@dataclass(kw_only=True, slots=True)
class _Call:
    """One call under way. ``wrapping``: what the document came in, as far as is known by now.

    ``is_of_one``: one model is asked, not a group. ``prepared``: a packet, and the answer that shows its advisory.
    """

    req: func.HttpRequest
    correlation_id: str
    deadline: float
    wrapping: Wrapping
    caller: str = ""
    is_of_one: bool = False
    prepared: tuple[InferencePacket | None, bytes] = None, b""


class _Routes:
    def __init__(self, application: Application, bpa: BpaSettings) -> None:
        self._application = application
        self._services = application.services
        self._bpa = bpa
        self._allowance = Allowance(per_s=bpa.per_s, burst=max(1, int(_BURST_S * bpa.per_s)))
        self._in_time: InTime[HttpAnswer] = InTime()

    async def advise(self, req: func.HttpRequest) -> func.HttpResponse:
        """Answer an alert."""
        clock, deadline_s = self._services.clock, self._services.site.deadline_s
        started = clock.monotonic()
        call = _Call(
            req=req,
            correlation_id=correlation_id(
                req.headers.get("X-Correlation-Id"), fresh=self._application.new_correlation_id
            ),
            deadline=started + deadline_s,
            wrapping=announced(
                content_type=media_type_of(req.headers.get("Content-Type"))[0],
                soap_action=req.headers.get("SOAPAction"),
            ),
        )
        try:
            with noting_refusals(
                self._services.audit, clock=clock, channel=CHANNEL, correlation_id=call.correlation_id
            ) as noted:
                call.caller = noted.by = self._let_in(req)
                answer = await self._in_time.wait(self._advised(call), within_s=deadline_s)
        except CallerRefused as refusal:
            answer = _refused(refusal, call.correlation_id)
        except ServeError as error:
            answer = self._none(call, outcome_of_error(error))
            if self._bpa.strict and isinstance(error, AskDifferently):
                answer = _strict(error, call.wrapping, answer)
            if isinstance(error, TooManyRequests):
                answer.headers["Retry-After"] = f"{error.retry_after_s or 1:.0f}"
        except Exception as error:  # noqa: BLE001 the one boundary: a clinician's request never sees a traceback
            _log.error("bpa failed: correlation_id=%s error=%s", call.correlation_id, type(error).__name__)
            answer = self._none(call, f"failed;code={UNEXPECTED}")
        duration_ms = (clock.monotonic() - started) * 1000
        outcome = answer.headers.get("X-Bridge-Outcome", "refused")
        _log.info("bpa: correlation_id=%s outcome=%s ms=%.1f", call.correlation_id, outcome, duration_ms)
        return _response(answer, call.correlation_id)

    async def acknowledge(self, req: func.HttpRequest) -> func.HttpResponse:
        """Store how an advisory was answered; a repeat changes nothing."""
        correlated = correlation_id(req.headers.get("X-Correlation-Id"), fresh=self._application.new_correlation_id)
        clock, audit = self._services.clock, self._services.audit
        try:
            with noting_refusals(
                audit, clock=clock, channel=CHANNEL, correlation_id=correlated, act=Act.FEEDBACK
            ) as noted:
                noted.by = self._let_in(req)
                event = parse_acknowledgement(
                    req.get_body(), content_type=req.headers.get("Content-Type"), now=clock.now()
                )
                stored = await self._services.store.read(event.packet_id)
                events = await self._services.store.events(event.packet_id)
                packet = check_was_shown(None if stored is None else stored.packet, events)
                await self._services.store.append_event(event)
                audit.record(of_feedback(packet, event.kind, at=clock.now(), call=noted, channel=CHANNEL))
            answer = HttpAnswer(status=204, body=b"", content_type="application/json", headers={})
        except CallerRefused as refusal:
            answer = _refused(refusal, correlated)
        except ServeError as error:
            answer = render_error(error)
        except Exception as error:  # noqa: BLE001 the one boundary
            _log.error("bpa acknowledgement failed: correlation_id=%s error=%s", correlated, type(error).__name__)
            answer = render_unexpected()
        return _response(answer, correlated)

    def _let_in(self, req: func.HttpRequest) -> str:
        """Give the caller's name, if it has not used up its allowance; where no callers are set, anybody is let in."""
        caller = ""
        if self._bpa.callers:
            caller = basic_caller(req.headers.get("Authorization"), self._bpa.callers)
        self._allowance.take(caller, now=self._services.clock.monotonic())
        return caller

    async def _advised(self, call: _Call) -> HttpAnswer:
        req, services = call.req, self._services
        root, call.wrapping = open_document(
            req.get_body(),
            content_type=req.headers.get("Content-Type"),
            content_encoding=req.headers.get("Content-Encoding"),
        )
        document = read_document(root, call.wrapping, self._bpa.reader)
        models = self._models(req.route_params.get("model_or_group", ""))
        budget = Budget(deadline=call.deadline, correlation_id=call.correlation_id)
        subject = await self._application.vendor.subjects.subject(document.named, budget=budget)
        call.is_of_one = len(models) == 1
        requests = [
            InferenceRequest(
                channel=CHANNEL,
                model_id=model,
                subject=subject,
                event_time=document.event_time,
                idempotency_key=None,
                correlation_id=call.correlation_id,
                caller=call.caller,
                context=document.context,
                # Of a group's advisories one is shown, and which one is known when all are there.
                answer_shows=call.is_of_one,
            )
            for model in models
        ]
        # Who is meant has taken a part of the time.
        left_s = max(call.deadline - services.clock.monotonic(), 0.001)
        within = replace(services, site=replace(services.site, deadline_s=left_s))
        answers = await infer_group(requests, within, prepare=partial(self._prepare, call) if call.is_of_one else None)
        given = [answer for answer in answers if isinstance(answer, Answer)]
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if not given:
            raise failures[0]
        for failure in failures:
            _log.error("bpa of a group failed: correlation_id=%s error=%s", call.correlation_id, type(failure).__name__)
        return await self._rendered(call, given)

    def _models(self, name: str) -> Sequence[str]:
        """Give the models that answer by this name: one, or a group's."""
        models = (name,) if name in self._services.models.deployed() else self._services.policies.in_group(name)
        if not models:
            raise UnknownModel("expected the id of a model or of a group that is deployed here")
        return models

    async def _rendered(self, call: _Call, answers: Sequence[Answer]) -> HttpAnswer:
        policies, packets = self._services.policies, [answer.packet for answer in answers]
        headers = {"X-Packet-Id": ", ".join(packet.packet_id for packet in packets)}
        if all(answer.replayed for answer in answers):
            headers["X-Bridge-Replay"] = "1"
        best = chosen([(packet, policies.of(packet.model.model_id)) for packet in packets])
        if best is None:
            return self._none(call, outcome_in_header(packets), headers)
        packet, policy = best
        prepared_of, body = call.prepared
        if prepared_of is not packet:
            body = self._advice(packet, policy, call)
        if answers[0].replayed or not call.is_of_one:
            # Else it was noted with the packet.
            await self._note_shown(packet, call.correlation_id)
        headers["X-Bridge-Outcome"] = outcome_in_header(packets)
        return HttpAnswer(status=200, body=body, content_type=call.wrapping.media_type, headers=headers)

    def _prepare(self, call: _Call, packet: InferencePacket) -> None:
        policy = self._services.policies.of(packet.model.model_id)
        if chosen([(packet, policy)]) is not None:
            call.prepared = packet, self._advice(packet, policy, call)

    def _advice(self, packet: InferencePacket, policy: Policy, call: _Call) -> bytes:
        because = reasons_of(packet, self._services.models)
        return wrap(self._bpa.answers.advice(packet, policy, because=because), call.wrapping)

    async def _note_shown(self, packet: InferencePacket, correlated: str) -> None:
        for event in shown([packet]):
            try:
                await self._services.store.append_event(event)
            except StoreUnavailable:
                # The packet says that it was to be shown; the advice itself is not held back for this.
                spooling = self._services.spooling
                if spooling is None or not await spooling.keep(packet, deliveries=(), events=(event,)):
                    _log.error("bpa advice not noted as shown: correlation_id=%s", correlated)

    def _none(self, call: _Call, outcome: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        return HttpAnswer(
            status=200,
            body=wrap(self._bpa.answers.none, call.wrapping),
            content_type=call.wrapping.media_type,
            headers={**(headers or {}), "X-Bridge-Outcome": outcome},
        )


def _strict(error: ServeError, wrapping: Wrapping, none: HttpAnswer) -> HttpAnswer:
    """Say what is wrong with the request, to those who build and test the other side."""
    if wrapping.soap is not None:
        return replace(none, status=400, body=fault(str(error), wrapping))
    told = render_error(error)
    return replace(told, status=400, headers={**told.headers, **none.headers})


def _refused(refusal: CallerRefused, correlated: str) -> HttpAnswer:
    _log.warning("bpa caller refused: correlation_id=%s why=%s", correlated, refusal.why)
    return HttpAnswer(status=401, body=b"", content_type="text/plain", headers={"WWW-Authenticate": CHALLENGE})


def _response(answer: HttpAnswer, correlated: str) -> func.HttpResponse:
    return func.HttpResponse(
        body=answer.body,
        status_code=answer.status,
        mimetype=answer.content_type,
        headers={**answer.headers, "X-Correlation-Id": correlated},
    )
