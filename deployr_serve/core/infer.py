"""The inference use case: one request, from asked to evidence to answer.

The order of things is the point. The request claims its packet id, so that a repeat is recognised whoever gets it. The
facts are fetched, the vector computed, the score made. The packet is stored with its pending deliveries in one write.
Only then is anything sent to the EMR. Whatever fails in between leaves a stored packet that says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.coverage import shortfall
from deployr_core.packet import (
    Abstained,
    Attempt,
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
from deployr_serve.core.deliver import deliver
from deployr_serve.core.errors import (
    UNEXPECTED,
    Abstain,
    AskDifferently,
    EmrTimeout,
    EventInFuture,
    InProgress,
    KeyReused,
    ModelError,
    ModelUnavailable,
    RecordChanged,
    ServeError,
    TryLater,
)
from deployr_serve.core.ports import Budget, Clock, FactSource, FetchedFacts, InferenceStore, Models, Output, Stored
from deployr_serve.core.request import InferenceRequest

POLL_S = 0.02
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
    source: FactSource
    models: Models
    outputs: tuple[Output, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The terminal packet; ``replayed`` if it was answered before, and only repeated now."""

    packet: InferencePacket
    replayed: bool


async def infer(request: InferenceRequest, services: Services) -> Answer:
    """Answer one request, exactly once however often it is asked.

    A request that was rejected or scored keeps its answer. One that failed is tried again when it is asked again,
    and keeps a record of each earlier attempt.

    Raises:
        UnknownModel, EventInFuture, KeyReused: nothing was stored.
        InProgress: another call is answering it, and did not finish within the deadline.
        StoreUnavailable: the packet could not be stored; nothing was sent to the EMR.
    """
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
    claim = await _claim(fresh, services, until=started + site.deadline_s)
    if isinstance(claim, Answer):
        return claim
    if isinstance(bundle, ModelUnavailable):
        outcome: Outcome = Failed(reason=bundle.reason, retryable=True)
        fetches: tuple[FetchRecord, ...] = ()
    else:
        try:
            fetching = budget(_FOR_FETCHING)
            # Each call ends by itself in time, and tells what became of it; the second limit is for what does not.
            within_s = fetching.deadline + _BACKSTOP * site.deadline_s - clock.monotonic()
            outcome, fetches = await _outcome(request, bundle, services.source, budget=fetching, within_s=within_s)
        except Exception:
            # For the trigger boundary to answer; the packet must not be left unfinished behind it.
            failed = Failed(reason=UNEXPECTED, retryable=False)
            unfinished = msgspec.structs.replace(claim.packet, outcome=failed, updated_at=clock.now())
            await services.store.replace(unfinished, etag=claim.etag)
            raise
    ended = clock.now()
    packet = msgspec.structs.replace(claim.packet, outcome=outcome, fetches=fetches, updated_at=ended)
    deliveries = _deliveries(packet, services.outputs, now=ended)
    try:
        await services.store.replace(packet, etag=claim.etag, deliveries=deliveries)
    except RecordChanged:
        # Our lease ran out and another worker took over: its answer is the one that counts.
        return await _wait(packet.packet_id, services, until=started + site.deadline_s)
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


async def _claim(fresh: InferencePacket, services: Services, *, until: float) -> Stored | Answer:
    """Make the packet ours to answer, or give the answer that there already is."""
    created = await services.store.create(fresh)
    if created is not None:
        return created
    waited = False
    while True:
        held = await services.store.read(fresh.packet_id)
        if held is None:
            raise InProgress("expected the packet that holds this id; it was there a moment ago")
        if held.packet.trigger.request_sha256 != fresh.trigger.request_sha256:
            raise KeyReused("expected an idempotency key that was not used for another request")
        retried = _retry(held.packet, fresh)
        # Who waited for an attempt takes its answer: many who ask at once must not try a struggling EMR one by one.
        if retried is not None and not (waited and held.packet.is_terminal):
            try:
                return await services.store.replace(retried, etag=held.etag)
            except RecordChanged:
                continue
        if held.packet.is_terminal:
            return Answer(packet=held.packet, replayed=True)
        await _pause(services.clock, until=until)
        waited = True


def _retry(held: InferencePacket, fresh: InferencePacket) -> InferencePacket | None:
    """Give the packet to take over with; None if what is stored stands, or is being answered by somebody alive.

    A failure is tried again whenever it is asked again: whoever asks has reason to, and the evidence of the first
    attempt is kept.
    """
    match held.outcome:
        case Failed(reason=reason):
            pass
        case Received(lease_until=lease) if lease < fresh.started_at:
            reason = "lease-expired"
        case _:
            return None
    attempt = Attempt(started_at=held.started_at, ended_at=held.updated_at, reason=reason)
    return msgspec.structs.replace(fresh, earlier_attempts=(*held.earlier_attempts, attempt))


async def _wait(packet_id: str, services: Services, *, until: float) -> Answer:
    while True:
        held = await services.store.read(packet_id)
        if held is not None and held.packet.is_terminal:
            return Answer(packet=held.packet, replayed=True)
        await _pause(services.clock, until=until)


async def _pause(clock: Clock, *, until: float) -> None:
    if clock.monotonic() >= until:
        raise InProgress("expected the same request, asked elsewhere, to be answered within the deadline")
    await clock.sleep(POLL_S)


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
        outcome = _scored_or_abstained(bundle, fetched, as_of=request.event_time)
    except AskDifferently as error:
        outcome, fetches = Rejected(reason=error.reason), error.fetches or fetches
    except Abstain as error:
        outcome, fetches = Abstained(reason=error.reason), error.fetches or fetches
    except ServeError as error:
        outcome = Failed(reason=error.reason, retryable=isinstance(error, TryLater))
        fetches = error.fetches or fetches
    return outcome, fetches


def _scored_or_abstained(bundle: Bundle, fetched: FetchedFacts, *, as_of: datetime) -> Outcome:
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


def _deliveries(packet: InferencePacket, outputs: tuple[Output, ...], *, now: datetime) -> tuple[Delivery, ...]:
    if not isinstance(packet.outcome, Scored):
        return ()
    return tuple(
        Delivery(
            delivery_id=derive_delivery_id(packet.packet_id, output.name),
            packet_id=packet.packet_id,
            output=output.name,
            state=DeliveryState.PENDING,
            created_at=now,
            updated_at=now,
        )
        for output in outputs
    )
