"""The inference use case: one request, from asked to evidence to answer.

The order of things is the point. The request claims its packet id, so that a repeat is recognised whoever gets it. The
facts are fetched, the vector computed, the score made. The packet is stored with its pending deliveries in one write.
Only then is anything sent to the EMR. Whatever fails in between leaves a stored packet that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.coverage import shortfall
from deployr_core.packet import (
    Abstained,
    Delivery,
    DeliveryState,
    Failed,
    FetchRecord,
    InferencePacket,
    ModelRef,
    Outcome,
    Received,
    Rejected,
    Scored,
    StoredVector,
    Trigger,
    derive_delivery_id,
    derive_packet_id,
)
from deployr_core.scoring import ScoreInvalid
from deployr_core.vectorize import vectorize
from deployr_serve.core.claim import answered, claim
from deployr_serve.core.decide import SWITCHED_OFF, Why, outputs_of, silenced
from deployr_serve.core.deciding import decision_of
from deployr_serve.core.deliver import deliver
from deployr_serve.core.errors import (
    UNEXPECTED,
    Abstain,
    AskDifferently,
    EmrTimeout,
    EventInFuture,
    ModelError,
    ModelUnavailable,
    RecordChanged,
    ServeError,
    TryLater,
)
from deployr_serve.core.explain import explained
from deployr_serve.core.policy import Policies, Policy
from deployr_serve.core.ports import (
    Budget,
    Clock,
    FactSource,
    FetchedFacts,
    InferenceStore,
    Models,
    Output,
    Records,
)
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.switches import Switches

_FOR_FETCHING, _BACKSTOP = 0.9, 0.05
"""Which share of the deadline reading the EMR may take, so that what came of it is still stored in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where this app runs, and its limits.

    ``deadline_s``: the whole of a request. ``clock_skew``: how far ahead of ours the EMR's clock may be.
    """

    name: str
    environment: str
    id_key: bytes = field(repr=False)
    deadline_s: float = 8.0
    clock_skew: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """All that the use cases reach the world through."""

    site: Site
    clock: Clock
    store: InferenceStore
    records: Records
    source: FactSource
    models: Models
    outputs: tuple[Output, ...]
    policies: Policies
    switches: Switches


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The terminal packet; ``replayed`` if it was answered before, and only repeated now.

    While the model is switched off, a repeat gets an abstention in place of what the stored packet says; while it is
    silent, the stored score without its advisory.
    """

    packet: InferencePacket
    replayed: bool


async def infer(request: InferenceRequest, services: Services) -> Answer:
    """Answer one request, exactly once however often it is asked.

    A request that was rejected or scored keeps its answer. One that failed, or was not scored because the model was
    switched off, is tried again when it is asked again, and keeps a record of each earlier attempt.

    Raises:
        UnknownModel, EventInFuture, KeyReused: nothing was stored.
        InProgress: another call is answering it, and did not finish within the deadline.
        StoreUnavailable: the packet could not be stored; nothing was sent to the EMR.
    """
    answer = await _answer(request, services)
    if not answer.replayed or not isinstance(answer.packet.outcome, Scored):
        return answer
    outcome: Outcome = answer.packet.outcome
    match await services.switches.why_nothing_is_sent(request.model_id):
        case None:
            return answer
        case Why.SILENT:
            outcome = msgspec.structs.replace(outcome, decision=silenced(answer.packet.outcome.decision))
        case _:
            outcome = Abstained(reason=SWITCHED_OFF)
    return Answer(packet=msgspec.structs.replace(answer.packet, outcome=outcome), replayed=True)


async def infer_group(requests: Sequence[InferenceRequest], services: Services) -> tuple[Answer | Exception, ...]:
    """Answer several models' requests about one event at once, each as `infer` does, in their order.

    One that fails gives its own exception, and hides no other's answer. Those that need the same searches share one
    fetch.
    """
    answers = await asyncio.gather(*(infer(request, services) for request in requests), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Exception):
            raise answer
    return tuple(answer for answer in answers if not isinstance(answer, BaseException) or isinstance(answer, Exception))


async def _answer(request: InferenceRequest, services: Services) -> Answer:
    site, clock = services.site, services.clock
    started = clock.monotonic()
    now = clock.now()

    def budget(share: float = 1.0) -> Budget:
        return Budget(
            deadline=started + share * site.deadline_s, correlation_id=request.correlation_id, lane=request.lane
        )

    if request.event_time > now + site.clock_skew:
        raise EventInFuture("expected an event that has happened, by the clock of this app")
    bundle = _bundle_or_reason(services.models, request.model_id)
    fresh = _received(request, bundle, site=site, now=now)
    is_off = await services.switches.is_off(request.model_id)
    until = started + site.deadline_s
    ours = await claim(fresh, store=services.store, clock=clock, until=until, is_off=is_off)
    if isinstance(ours, InferencePacket):
        return Answer(packet=ours, replayed=True)
    if isinstance(bundle, ModelUnavailable):
        outcome: Outcome = Failed(reason=bundle.reason, retryable=True)
        fetches: tuple[FetchRecord, ...] = ()
    elif is_off:
        outcome, fetches = Abstained(reason=SWITCHED_OFF), ()
    else:
        try:
            fetching = budget(_FOR_FETCHING)
            # Each call ends by itself in time, and tells what became of it; the second limit is for what does not.
            within_s = fetching.deadline + _BACKSTOP * site.deadline_s - clock.monotonic()
            outcome, fetches = await _outcome(request, bundle, services.source, budget=fetching, within_s=within_s)
            if services.policies.of(request.model_id).explain:
                outcome = explained(outcome, bundle)
            outcome = await _decided(outcome, request, services, packet_id=ours.packet.packet_id)
        except Exception:
            # For the trigger boundary to answer; the packet must not be left unfinished behind it.
            failed = Failed(reason=UNEXPECTED, retryable=False)
            unfinished = msgspec.structs.replace(ours.packet, outcome=failed, updated_at=clock.now())
            await services.store.replace(unfinished, etag=ours.etag)
            raise
    ended = clock.now()
    packet = msgspec.structs.replace(ours.packet, outcome=outcome, fetches=fetches, updated_at=ended)
    deliveries = _deliveries(packet, services.policies.of(request.model_id), services.outputs, now=ended)
    try:
        await services.store.replace(packet, etag=ours.etag, deliveries=deliveries)
    except RecordChanged:
        # Our lease ran out and another worker took over: its answer is the one that counts.
        theirs = await answered(packet.packet_id, store=services.store, clock=clock, until=until)
        return Answer(packet=theirs, replayed=True)
    if not isinstance(bundle, ModelUnavailable):
        for delivery in deliveries:
            await deliver(
                delivery,
                packet,
                bundle,
                store=services.store,
                outputs=services.outputs,
                clock=clock,
                budget=budget(),
            )
    return Answer(packet=packet, replayed=False)


def _bundle_or_reason(models: Models, model_id: str) -> Bundle | ModelUnavailable:
    try:
        return models.bundle(model_id)
    except ModelUnavailable as error:
        return error


def _received(
    request: InferenceRequest, bundle: Bundle | ModelUnavailable, *, site: Site, now: datetime
) -> InferencePacket:
    if isinstance(bundle, ModelUnavailable):
        model = ModelRef(model_id=request.model_id, version="", bundle_sha256="")
    else:
        model = ModelRef(model_id=request.model_id, version=bundle.manifest.version, bundle_sha256=bundle.digest)
    return InferencePacket(
        packet_id=derive_packet_id(
            site.id_key, environment=site.environment, model_id=request.model_id, request_key=request.key
        ),
        site=site.name,
        environment=site.environment,
        model=model,
        trigger=Trigger(
            channel=request.channel,
            correlation_id=request.correlation_id,
            request_sha256=request.digest,
            received_at=now,
            event_time=request.event_time,
        ),
        subject=request.subject,
        as_of=request.event_time,
        outcome=Received(lease_until=now + timedelta(seconds=2 * site.deadline_s)),
        started_at=now,
        updated_at=now,
    )


async def _outcome(
    request: InferenceRequest, bundle: Bundle, source: FactSource, *, budget: Budget, within_s: float
) -> tuple[Outcome, tuple[FetchRecord, ...]]:
    """Fetch, check the coverage and score; every failure becomes the outcome that the packet will hold."""
    fetches: tuple[FetchRecord, ...] = ()
    try:
        try:
            async with asyncio.timeout(within_s):
                fetched = await source.fetch(
                    request.subject, bundle.spec, as_of=request.event_time, budget=budget, handed=request.handed
                )
        except TimeoutError:
            raise EmrTimeout("expected the EMR's answers within the request's deadline") from None
        fetches = fetched.fetches
        outcome = scored_or_abstained(bundle, fetched, as_of=request.event_time)
    except AskDifferently as error:
        outcome, fetches = Rejected(reason=error.reason), error.fetches or fetches
    except Abstain as error:
        outcome, fetches = Abstained(reason=error.reason), error.fetches or fetches
    except ServeError as error:
        outcome = Failed(reason=error.reason, retryable=isinstance(error, TryLater))
        fetches = error.fetches or fetches
    return outcome, fetches


def scored_or_abstained(bundle: Bundle, fetched: FetchedFacts, *, as_of: datetime) -> Outcome:
    """Score what was fetched, if it is enough for the model.

    Raises:
        ModelError: the model failed.
    """
    encounter, outputs = fetched.encounter, bundle.manifest.task.outputs
    try:
        vector = vectorize(fetched.facts, bundle.spec, as_of)
        coverage = {**vector.coverage, **fetched.dropped}
        short = shortfall(
            bundle.manifest.requires,
            facts=fetched.facts,
            vector=vector,
            spec=bundle.spec,
            as_of=as_of,
            visit_classes=encounter.classes if encounter else (),
            oldest_answer_s=fetched.oldest_answer_s,
        )
        if short is not None:
            return Abstained(reason=short.value, coverage=coverage)
        answer = bundle.model.answer(vector)
    except (ScoreInvalid, ValueError) as error:
        raise ModelError("expected the outputs that the model promises") from error
    return Scored(
        score=answer[outputs.place],
        outputs=outputs.named(answer),
        value_unit=outputs.unit,
        vector=StoredVector.of(vector),
        coverage=coverage,
        entity_id=encounter.contact_serial_number if encounter else None,
    )


async def _decided(outcome: Outcome, request: InferenceRequest, services: Services, *, packet_id: str) -> Outcome:
    """Give a score with what is to be done with it; whatever else came of the request stays as it is."""
    if not isinstance(outcome, Scored):
        return outcome
    try:
        # Somebody may have turned the switch while the EMR was being read.
        if await services.switches.is_off(request.model_id):
            return Abstained(reason=SWITCHED_OFF, coverage=outcome.coverage)
        decision = await decision_of(
            request,
            services.policies.of(request.model_id),
            packet_id=packet_id,
            score=outcome.score,
            key=services.site.id_key,
            now=services.clock.now(),
            records=services.records,
            store=services.store,
        )
    except TryLater as error:
        return Failed(reason=error.reason, retryable=True)
    return msgspec.structs.replace(outcome, decision=decision)


def _deliveries(
    packet: InferencePacket, policy: Policy, outputs: tuple[Output, ...], *, now: datetime
) -> tuple[Delivery, ...]:
    if not isinstance(packet.outcome, Scored) or packet.outcome.decision is None:
        return ()
    names = outputs_of(policy, packet.outcome.decision, tuple(output.name for output in outputs))
    return tuple(
        Delivery(
            delivery_id=derive_delivery_id(packet.packet_id, name),
            packet_id=packet.packet_id,
            output=name,
            state=DeliveryState.PENDING,
            created_at=now,
            updated_at=now,
        )
        for name in names
    )
