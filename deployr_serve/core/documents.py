"""A patient's documents, for the models that take any: read beside the facts, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from deployr_core.bundle import Bundle
from deployr_core.document_columns import Came, DocumentRow, DocumentShortfall
from deployr_core.documents import Documents, names_of
from deployr_core.layout import layout_of
from deployr_core.packet import Abstained, FetchRecord, Outcome, Scored
from deployr_serve.core.errors import ModelUnavailable, ServeError
from deployr_serve.core.ports import Budget, FactSource, FetchedFacts
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.watch import Step, Watch


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedDocuments:
    """What the EMR gave of documents, how that went, and how many were no candidates, by reason.

    ``oldest_answer_s``: how old the oldest answer that says which documents there are was when it came.
    """

    came: Came = field(repr=False)
    fetches: tuple[FetchRecord, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    oldest_answer_s: float = 0.0


class DocumentSource(Protocol):
    """Reads a patient's documents."""

    async def fetch(
        self, patient_id: str, documents: Documents, *, as_of: datetime, budget: Budget | None, token: str | None
    ) -> FetchedDocuments:
        """Fetch what is declared and was known strictly before ``as_of``, each checked to be about this patient.

        Args:
            patient_id: whose.
            documents: the declaration.
            as_of: windows look back from here.
            budget: what may be used; None leaves it to the transport's own limits.
            token: what a caller lends to read with; None uses our own credentials.

        Raises:
            WrongPatient: one is about somebody else.
            Abstain: the record is withheld.
            TryLater, FixSetup: nobody can tell what there is; never taken for "no document".
        """


async def fetch_all(
    request: InferenceRequest,
    bundle: Bundle,
    *,
    source: FactSource,
    documents: DocumentSource | None,
    budget: Budget,
    watch: Watch,
) -> FetchedFacts:
    """Fetch the facts that a model needs, and at the same time its documents, where it takes any.

    Raises:
        ServeError: see `FactSource` and `DocumentSource`; the first failure ends the other fetch.
        ModelUnavailable: it takes documents, and there is no way to them here.
    """
    asked = source.fetch(request.subject, bundle.spec, as_of=request.event_time, budget=budget, handed=request.handed)
    if bundle.documents is None:
        return await asked
    if documents is None:
        asked.close()
        raise ModelUnavailable("expected a source of documents, which the model takes")
    token = None if request.handed is None else request.handed.token
    reading = _read(request, bundle.documents, documents, budget=budget, token=token, watch=watch)
    try:
        async with asyncio.TaskGroup() as group:
            facts, came = group.create_task(asked), group.create_task(reading)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    fetched, read = facts.result(), came.result()
    both = {**fetched.dropped, **read.dropped}
    return replace(
        fetched,
        documents=read.came,
        fetches=(*fetched.fetches, *read.fetches),
        dropped={name: fetched.dropped.get(name, 0) + read.dropped.get(name, 0) for name in both},
        oldest_answer_s=max(fetched.oldest_answer_s, read.oldest_answer_s),
    )


async def _read(
    request: InferenceRequest,
    documents: Documents,
    source: DocumentSource,
    *,
    budget: Budget,
    token: str | None,
    watch: Watch,
) -> FetchedDocuments:
    with watch.step(Step.FETCH):
        try:
            read = await source.fetch(
                request.subject.patient_id, documents, as_of=request.event_time, budget=budget, token=token
            )
        except ServeError as error:
            watch.fetched(error.fetches)
            raise
        watch.fetched(read.fetches)
        return read


def stored_row(was: Outcome, bundle: Bundle) -> DocumentRow | None:
    """Give what a packet says of the documents that it was scored by; None where its model takes none.

    The documents themselves are not kept, so that a vector can be computed anew from kept facts and this.
    """
    if bundle.documents is None:
        return None
    first = len(layout_of(bundle.spec).names)
    names = {group.name for group in bundle.documents.groups}
    stored = zip(was.vector.indices, was.vector.values, strict=True) if isinstance(was, Scored) else ()
    told = was.coverage if isinstance(was, Scored | Abstained) else {}
    ends_here = isinstance(was, Abstained) and was.reason in frozenset(DocumentShortfall)
    return DocumentRow(
        values={place - first: value for place, value in stored if place >= first},
        width=sum(len(names_of(group)) for group in bundle.documents.groups),
        coverage={name: count for name, count in told.items() if name.partition(".")[0] in names},
        shortfall=DocumentShortfall(was.reason) if isinstance(was, Abstained) and ends_here else None,
    )
