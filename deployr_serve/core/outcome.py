"""What comes of one request: fetched, kept where that is wished, checked for coverage, and scored."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from deployr_core.bundle import Bundle
from deployr_core.coverage import shortfall
from deployr_core.document_columns import DocumentRow, document_row, with_documents
from deployr_core.packet import Abstained, Failed, FetchRecord, Outcome, Rejected, Scored, StoredVector
from deployr_core.patient_groups import PatientGroups, Payer
from deployr_core.scoring import ModelAway, ScoreInvalid
from deployr_core.vectorize import vectorize
from deployr_serve.core.documents import DocumentSource, fetch_all
from deployr_serve.core.errors import (
    Abstain,
    AskDifferently,
    EmrTimeout,
    ModelError,
    PredictorUnavailable,
    ServeError,
    TryLater,
)
from deployr_serve.core.facts_kept import FactsVault, keep_facts, noted_as_not_kept
from deployr_serve.core.ports import Budget, Clock, FactSource, FetchedFacts, Threads
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.watch import NOT_WATCHED, Step, Watch
from deployr_serve.core.who_pays import Coverages, handed_over, who_pays


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What came of it, for the packet. ``facts_sha256``: of the facts that were kept; None if none were.

    ``fetched``: what it was reached from, for those who follow; None where nothing could be read.
    """

    outcome: Outcome
    fetches: tuple[FetchRecord, ...] = ()
    facts_sha256: str | None = None
    fetched: FetchedFacts | None = field(default=None, repr=False)
    patient_groups: PatientGroups | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What an outcome is reached with. ``keep_days``: for how long facts are kept; None keeps none.

    ``coverages``: tells who pays; None where the deployment does not ask.
    """

    source: FactSource
    threads: Threads
    clock: Clock
    vault: FactsVault | None
    keep_days: int | None
    coverages: Coverages | None = None
    documents: DocumentSource | None = None
    watch: Watch = NOT_WATCHED


async def find_outcome(
    request: InferenceRequest, bundle: Bundle, means: Means, *, packet_id: str, budget: Budget, within_s: float
) -> Found:
    """Fetch, check the coverage and score; every failure becomes the outcome that the packet will hold.

    Args:
        request: what is asked.
        bundle: of the model that is asked.
        means: see there.
        packet_id: what kept facts are named by.
        budget: what fetching may use.
        within_s: how long all of it may take from now.
    """
    payer, asking = handed_over(request.context), means.coverages
    if payer is not None or asking is None:
        return _with_groups(await _found(request, bundle, means, packet_id, budget, within_s), payer)
    found, (payer, asked) = await asyncio.gather(
        _found(request, bundle, means, packet_id, budget, within_s),
        who_pays(asking, request.subject.patient_id, as_of=request.event_time, budget=budget, within_s=within_s),
    )
    means.watch.fetched(asked)
    return replace(_with_groups(found, payer), fetches=(*found.fetches, *asked))


def _with_groups(found: Found, payer: Payer | None) -> Found:
    said = None if found.fetched is None else found.fetched.patient_groups
    language = None if said is None else said.language
    if language is None and payer is None:
        return found
    return replace(found, patient_groups=PatientGroups(language=language, insurance=payer))


async def _found(
    request: InferenceRequest, bundle: Bundle, means: Means, packet_id: str, budget: Budget, within_s: float
) -> Found:
    until = means.clock.monotonic() + within_s
    fetches: tuple[FetchRecord, ...] = ()
    fetched: FetchedFacts | None = None
    digest, not_kept = None, False
    try:
        try:
            async with asyncio.timeout(within_s):
                fetched = await fetch_all(
                    request,
                    bundle,
                    source=means.source,
                    documents=means.documents,
                    budget=budget,
                    watch=means.watch,
                )
        except TimeoutError:
            raise EmrTimeout("expected the EMR's answers within the request's deadline") from None
        fetches = fetched.fetches
        if means.vault is not None and means.keep_days is not None:
            digest = await keep_facts(
                fetched,
                means.vault,
                packet_id=packet_id,
                days=means.keep_days,
                now=means.clock.now(),
                within_s=(until - means.clock.monotonic()) / 2,
            )
            not_kept = digest is None
        outcome = await scored_in_time(
            bundle,
            fetched,
            means.threads,
            as_of=request.event_time,
            within_s=until - means.clock.monotonic(),
            watch=means.watch,
        )
    except AskDifferently as error:
        outcome, fetches = Rejected(reason=error.reason), error.fetches or fetches
    except Abstain as error:
        outcome, fetches = Abstained(reason=error.reason), error.fetches or fetches
    except ServeError as error:
        outcome = Failed(reason=error.reason, retryable=isinstance(error, TryLater))
        fetches = error.fetches or fetches
    outcome = noted_as_not_kept(outcome) if not_kept else outcome
    if fetched is not None and fetched.documents is not None:
        # Who follows may wait for long, and reads its own.
        fetched = replace(fetched, documents=None)
    return Found(outcome=outcome, fetches=fetches, facts_sha256=digest, fetched=fetched)


def scored_or_abstained(
    bundle: Bundle,
    fetched: FetchedFacts,
    *,
    as_of: datetime,
    watch: Watch = NOT_WATCHED,
    row: DocumentRow | None = None,
) -> Outcome:
    """Score what was fetched, if it is enough for the model; ``row``: the documents' columns, where they are known.

    Raises:
        ModelError: the model failed.
        PredictorUnavailable: it answers elsewhere, and did not.
    """
    encounter, outputs = fetched.encounter, bundle.manifest.task.outputs
    try:
        with watch.step(Step.VECTORIZE):
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
        if bundle.documents is not None:
            row = row or document_row(bundle.documents, fetched.documents or {})
            vector, coverage = with_documents(vector, row), {**coverage, **row.coverage}
            if row.shortfall is not None:
                return Abstained(reason=row.shortfall.value, coverage=coverage)
        with watch.step(Step.SCORE):
            reply = bundle.model.reply(vector)
    except (ScoreInvalid, ValueError) as error:
        raise ModelError("expected the outputs that the model promises") from error
    except ModelAway as error:
        raise PredictorUnavailable(str(error)) from error
    return Scored(
        score=reply.outputs[outputs.place],
        outputs=outputs.named(reply.outputs),
        value_unit=outputs.unit,
        vector=StoredVector.of(vector),
        coverage=coverage,
        entity_id=encounter.contact_serial_number if encounter else None,
        answered_by=reply.answered_by,
        documents=() if row is None else row.seen,
    )


async def scored_in_time(
    bundle: Bundle,
    fetched: FetchedFacts,
    threads: Threads,
    *,
    as_of: datetime,
    within_s: float,
    watch: Watch = NOT_WATCHED,
) -> Outcome:
    """Score as `scored_or_abstained` does; a model whose code is somebody else's, or elsewhere, holds up nobody.

    Raises:
        ModelError: the model failed, or did not answer within the time.
        PredictorUnavailable: it answers elsewhere, and did not, or not within the time.
    """
    work = partial(scored_or_abstained, bundle, fetched, as_of=as_of, watch=watch)
    if not bundle.manifest.model.takes_time and bundle.documents is None:
        # Trees and sums of our own take a fraction of a millisecond: less than handing them to a thread.
        return work()
    try:
        # A thread begins without context: what is watched there would belong to no inference.
        return await threads.run(partial(copy_context().run, work), name=bundle.digest, within_s=within_s)
    except ServeError:
        raise
    except TimeoutError:
        if bundle.manifest.model.is_elsewhere:
            raise PredictorUnavailable("expected the predictor's answer within the request's deadline") from None
        raise ModelError("expected the model to answer within the request's deadline") from None
    except Exception as error:  # noqa: BLE001 whatever somebody else's code raises is the model's failure
        # Its message may repeat a value.
        raise ModelError(f"expected an answer of the model, got {type(error).__name__}") from None
