"""The inference use case: one request, from asked to evidence to answer.

The order of things is the point. The request claims its packet id, so that a repeat is recognised whoever gets it. The
facts are fetched, the vector computed, the score made. The packet is stored with its pending deliveries in one write.
Only then is anything sent to the EMR. Whatever fails in between leaves a stored packet that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.forgetting import derive_patient_hash
from deployr_core.packet import (
    Abstained,
    Failed,
    InferencePacket,
    ModelRef,
    Outcome,
    Received,
    Scored,
    Trigger,
)
from deployr_core.packet_ids import derive_clinician_hash, derive_packet_id
from deployr_serve.core.audit import Act, AuditSink, NotAudited, of_answer, of_refusal
from deployr_serve.core.claim import answered, claim
from deployr_serve.core.decide import SWITCHED_OFF, silenced, unapproved
from deployr_serve.core.deciding import decision_of
from deployr_serve.core.deliver import AT_ONCE_WITHIN_S, EXPIRES_AFTER, deliver
from deployr_serve.core.documents import DocumentSource
from deployr_serve.core.ending import UNCLAIMED, Ending, Prepare, end
from deployr_serve.core.errors import (
    UNEXPECTED,
    EventInFuture,
    ModelUnavailable,
    RecordChanged,
    ServeError,
    StoreUnavailable,
    TryLater,
)
from deployr_serve.core.explain import explained
from deployr_serve.core.facts_kept import FactsVault
from deployr_serve.core.followers import Followers, Together
from deployr_serve.core.late import is_too_late, late, taken_back
from deployr_serve.core.outcome import Found, Means, find_outcome
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import (
    Budget,
    Clock,
    FactSource,
    InferenceStore,
    Models,
    Output,
    Records,
    Stored,
    Threads,
)
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.switches import Switches
from deployr_serve.core.watch import NOT_WATCHED, Noted, Step, Watch, ending_of
from deployr_serve.core.who_pays import Coverages
from deployr_serve.core.without_store import Spooling, decided_without_store

_FOR_FETCHING, _BACKSTOP = 0.9, 0.05
"""Which share of the deadline reading the EMR may take, so that what came of it is still stored in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where this app runs, and its limits.

    ``deadline_s``: the whole of a request. ``clock_skew``: how far ahead of ours the EMR's clock may be.
    ``expires_after``: how long after it was made a score may still be sent.
    """

    name: str
    environment: str
    id_key: bytes = field(repr=False)
    deadline_s: float = 8.0
    clock_skew: timedelta = timedelta(minutes=5)
    expires_after: timedelta = EXPIRES_AFTER


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """All that the use cases reach the world through.

    ``vault``: None where the site keeps no facts. ``spooling``: None where nothing is kept while the store is down.
    ``shadows``: None where no champion has any. ``coverages``: tells who pays, to deployments that ask for it.
    """

    site: Site
    clock: Clock
    store: InferenceStore
    records: Records
    source: FactSource
    models: Models
    threads: Threads
    outputs: tuple[Output, ...]
    policies: Policies
    switches: Switches
    vault: FactsVault | None = None
    audit: AuditSink = field(default_factory=NotAudited)
    spooling: Spooling | None = None
    watch: Watch = NOT_WATCHED
    shadows: Followers | None = None
    coverages: Coverages | None = None
    documents: DocumentSource | None = None

    @property
    def labelled(self) -> Models:
        """Every model whose packets get labels: champions, and their shadows."""
        return self.models if self.shadows is None else Together(champions=self.models, shadows=self.shadows.models)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The terminal packet; ``replayed`` if it was answered before, and only repeated now.

    While the model is switched off, a repeat gets an abstention in place of what the stored packet says; while it is
    silent, the stored score without its advisory.
    """

    packet: InferencePacket
    replayed: bool


async def infer(request: InferenceRequest, services: Services, *, prepare: Prepare | None = None) -> Answer:
    """Answer one request, exactly once however often it is asked.

    A request that was rejected or scored keeps its answer. One that failed, or was not scored because the model was
    switched off, is tried again when it is asked again, and keeps a record of each earlier attempt. ``prepare`` may be
    given the packet while it is being stored.

    Raises:
        UnknownModel, EventInFuture, KeyReused: nothing was stored.
        InProgress: another call is answering it, and did not finish within the deadline.
        StoreUnavailable: the packet could not be stored; nothing was sent to the EMR.
    """
    with services.watch.step(Step.INFERENCE, channel=request.channel) as noted:
        return await _audited(request, services, noted, prepare)


async def _audited(request: InferenceRequest, services: Services, noted: Noted, prepare: Prepare | None) -> Answer:
    about = {
        "by": request.caller,
        "user": request.context.get("provider", ""),
        "channel": request.channel,
        "correlation_id": request.correlation_id,
    }
    try:
        answer = await _told(request, services, prepare)
    except ServeError as error:
        # An id that is no model's is only a text that came in, and may be anything.
        model_id = request.model_id if request.model_id in services.models.deployed() else ""
        noted.note(model=model_id, correlation_id=request.correlation_id, outcome="refused")
        patient_hash = derive_patient_hash(services.site.id_key, request.subject.patient_id)
        now = services.clock.now()
        services.audit.record(
            of_refusal(error, act=Act.INFER, at=now, patient_hash=patient_hash, model_id=model_id, **about)
        )
        error.is_audited = True
        raise
    noted.note(correlation_id=request.correlation_id, **ending_of(answer.packet, replayed=answer.replayed))
    services.audit.record(of_answer(answer.packet, at=services.clock.now(), replayed=answer.replayed, **about))
    return answer


async def _told(request: InferenceRequest, services: Services, prepare: Prepare | None) -> Answer:
    """Give the answer as it may be told now: what is off, silent or not approved by now is not told of again."""
    answer = await _answer(request, services, prepare)
    if not answer.replayed or not isinstance(answer.packet.outcome, Scored):
        return answer
    outcome: Outcome = answer.packet.outcome
    match await services.switches.why_nothing_is_sent(request.model_id, answer.packet.model.bundle_sha256):
        case None:
            return answer
        case why if why == SWITCHED_OFF:
            outcome = Abstained(reason=SWITCHED_OFF)
        case why:
            outcome = msgspec.structs.replace(outcome, decision=silenced(answer.packet.outcome.decision, why))
    return Answer(packet=msgspec.structs.replace(answer.packet, outcome=outcome), replayed=True)


async def infer_group(
    requests: Sequence[InferenceRequest], services: Services, *, prepare: Prepare | None = None
) -> tuple[Answer | Exception, ...]:
    """Answer several models' requests about one event at once, each as `infer` does, in their order.

    One that fails gives its own exception, and hides no other's answer. Those that need the same searches share one
    fetch.
    """
    if len(requests) == 1:
        # Alone it needs no task of its own.
        try:
            return (await infer(requests[0], services, prepare=prepare),)
        except Exception as error:  # noqa: BLE001 given back, as those of several are
            return (error,)
    asked = (infer(request, services, prepare=prepare) for request in requests)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Exception):
            raise answer
    return tuple(answer for answer in answers if not isinstance(answer, BaseException) or isinstance(answer, Exception))


async def _answer(request: InferenceRequest, services: Services, prepare: Prepare | None) -> Answer:
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
    until = started + site.deadline_s
    with services.watch.step(Step.CLAIM):
        ours, is_off = await _claimed(fresh, request, services, until=until)
    if isinstance(ours, InferencePacket):
        return Answer(packet=ours, replayed=True)
    policy = services.policies.of(request.model_id)
    ending = Ending(
        store=services.store,
        spooling=services.spooling,
        policy=policy,
        outputs=services.outputs,
        deadline_s=site.deadline_s,
        prepare=prepare,
        is_known_on=services.switches.is_known_to_be_shown(request.model_id, fresh.model.bundle_sha256),
    )
    if isinstance(bundle, ModelUnavailable):
        found = Found(outcome=Failed(reason=bundle.reason, retryable=True))
    elif is_off:
        found = Found(outcome=Abstained(reason=SWITCHED_OFF))
    else:
        try:
            fetching = budget(_FOR_FETCHING)
            # Each call ends by itself in time, and tells what became of it; the second limit is for what does not.
            within_s = fetching.deadline + _BACKSTOP * site.deadline_s - clock.monotonic()
            packet_id = ours.packet.packet_id
            means = Means(
                source=services.source,
                threads=services.threads,
                clock=clock,
                vault=services.vault,
                keep_days=policy.keep_facts_days,
                coverages=services.coverages if policy.read_insurance else None,
                documents=services.documents,
                watch=services.watch,
            )
            found = await find_outcome(request, bundle, means, packet_id=packet_id, budget=fetching, within_s=within_s)
            outcome = explained(found.outcome, bundle) if policy.explain else found.outcome
            outcome = await _decided(outcome, request, services, about=ours.packet)
            found = replace(found, outcome=outcome)
        except Exception:
            # For the trigger boundary to answer; the packet must not be left unfinished behind it.
            failed = Failed(reason=UNEXPECTED, retryable=False)
            unfinished = msgspec.structs.replace(ours.packet, outcome=failed, updated_at=clock.now())
            await end(unfinished, ours, request, ending)
            raise
    ended = clock.now()
    packet = msgspec.structs.replace(
        ours.packet,
        outcome=found.outcome,
        fetches=found.fetches,
        facts_sha256=found.facts_sha256,
        patient_groups=found.patient_groups,
        updated_at=ended,
    )
    if is_too_late(request, packet, clock=clock, until=until, of_s=site.deadline_s):
        packet = late(packet, now=ended)
    try:
        with services.watch.step(Step.STORE):
            packet, deliveries = await end(packet, ours, request, ending)
    except RecordChanged:
        # Our lease ran out and another worker took over: its answer is the one that counts.
        theirs = await answered(packet.packet_id, store=services.store, clock=clock, until=until)
        return Answer(packet=theirs, replayed=True)
    if is_too_late(request, packet, clock=clock, until=until, of_s=site.deadline_s):
        packet = await taken_back(packet, deliveries, store=services.store, clock=clock)
        return Answer(packet=packet, replayed=False)
    if not isinstance(bundle, ModelUnavailable):
        whole = budget()
        at_once = replace(whole, deadline=min(whole.deadline, clock.monotonic() + AT_ONCE_WITHIN_S))
        send = partial(deliver, store=services.store, outputs=services.outputs, clock=clock, budget=at_once)
        await asyncio.gather(*(send(delivery, packet, bundle) for delivery in deliveries))
        if services.shadows is not None and found.fetched is not None:
            await services.shadows.follow(request, packet, found.fetched, champion=bundle)
    return Answer(packet=packet, replayed=False)


async def _claimed(
    fresh: InferencePacket, request: InferenceRequest, services: Services, *, until: float
) -> tuple[Stored | InferencePacket, bool]:
    """Give what `claim` gives, and whether the model is switched off; without a store, what is known of both."""
    try:
        is_off = await services.switches.is_off(request.model_id)
        return await claim(fresh, store=services.store, clock=services.clock, until=until, is_off=is_off), is_off
    except StoreUnavailable:
        if services.spooling is None or not services.spooling.takes(request):
            raise
        return Stored(packet=fresh, etag=UNCLAIMED), bool(services.switches.was_off(request.model_id))


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
    clinician = request.context.get("provider")
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
            caller=request.caller,
        ),
        subject=request.subject,
        patient_hash=derive_patient_hash(site.id_key, request.subject.patient_id),
        as_of=request.event_time,
        outcome=Received(lease_until=now + timedelta(seconds=2 * site.deadline_s)),
        started_at=now,
        updated_at=now,
        shadow_of=request.shadow_of,
        clinician_hash=derive_clinician_hash(site.id_key, clinician) if clinician else None,
    )


async def _decided(
    outcome: Outcome, request: InferenceRequest, services: Services, *, about: InferencePacket
) -> Outcome:
    """Give a score with what is to be done with it; whatever else came of the request stays as it is."""
    if not isinstance(outcome, Scored):
        return outcome
    digest = about.model.bundle_sha256
    try:
        # Somebody may have turned the switch while the EMR was being read.
        if await services.switches.is_off(request.model_id):
            return Abstained(reason=SWITCHED_OFF, coverage=outcome.coverage)
        if not await services.switches.is_approved(request.model_id, digest):
            decision = unapproved(services.policies.of(request.model_id), score=outcome.score)
            return msgspec.structs.replace(outcome, decision=decision)
        decision = await decision_of(
            request,
            services.policies.of(request.model_id),
            packet_id=about.packet_id,
            score=outcome.score,
            key=services.site.id_key,
            now=services.clock.now(),
            records=services.records,
            store=services.store,
        )
    except TryLater as error:
        spooling = services.spooling
        if not isinstance(error, StoreUnavailable) or spooling is None or not spooling.takes(request):
            return Failed(reason=error.reason, retryable=True)
        is_known_on = services.switches.is_known_to_be_shown(request.model_id, digest)
        decision = decided_without_store(
            services.policies.of(request.model_id),
            score=outcome.score,
            may_show=spooling.may_show(request, is_known_on=is_known_on),
        )
    return msgspec.structs.replace(outcome, decision=decision)
