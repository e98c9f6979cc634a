"""Resources that were found, each checked to be about the one patient that was asked about, and read into facts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from deployr_serve.adapters import fhir_facts as read
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_search import Found, Search
from deployr_serve.core.errors import AskDifferently, EmrBadResponse, WrongPatient

T = TypeVar("T")
R = TypeVar(
    "R",
    wire.Encounter,
    wire.ServiceRequest,
    wire.Observation,
    wire.Condition,
    wire.MedicationRequest,
    wire.Procedure,
    wire.Whole,
)
_P = TypeVar("_P", wire.Patient, wire.Encounter, wire.ServiceRequest)


def by_id(resource_type: str, resource_id: str) -> Search:
    """Search for the one resource of that id."""
    return Search(resource_type=resource_type, parameters=(("_id", resource_id),))


async def all_at_once(*jobs: Coroutine[Any, Any, None]) -> None:
    """Do all at once; when one fails the others are cancelled, and its own error is what comes out."""
    if len(jobs) == 1:
        # Alone it needs no task of its own.
        return await jobs[0]
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def exactly_one(found: Found, kind: type[_P], asked_for: str, *, missing: type[AskDifferently]) -> _P:
    """Give the one resource that was asked for by its id.

    Raises:
        AskDifferently: as ``missing`` says, there is none, or several.
        WrongPatient: there is another one.
    """
    if len(found.resources) != 1:
        how_many = "none" if not found.resources else "several"
        raise missing(f"expected the EMR to know exactly one of what the request names, it knows {how_many}")
    only = found.resources[0]
    if not isinstance(only, kind) or only.id != asked_for:
        raise WrongPatient("expected the very resource that was asked for")
    return only


def read_about(
    found: Found | None,
    kind: type[R],
    reader: Callable[[R], T | None],
    *,
    patient_id: str,
    fhir_base: str,
    dropped: Counter[str],
) -> tuple[T, ...]:
    """Read each resource that is about this patient into a fact, where it can be one.

    One that does not say whom it is about is left out, and counted.

    Raises:
        WrongPatient: one is about somebody else.
        EmrBadResponse: a date is none.
    """
    # What nearly all of them say; cheaper to compare than to read.
    usual = wire.Reference(reference=f"Patient/{patient_id}")
    facts = []
    with dates_expected():
        for resource in found.resources if found else ():
            if isinstance(resource, kind) and (
                resource.subject == usual or _is_about(resource, patient_id, fhir_base, dropped)
            ):
                fact = reader(resource)
                if fact is not None:
                    facts.append(fact)
    return tuple(facts)


def _is_about(resource: wire.AboutPatient | wire.Whole, patient_id: str, fhir_base: str, dropped: Counter[str]) -> bool:
    subject = read.subject_of(resource, fhir_base=fhir_base)
    if subject is None:
        dropped["any.no_subject"] += 1
        return False
    if subject != patient_id:
        raise WrongPatient("expected only what is about the patient that was asked for")
    return True


@contextmanager
def dates_expected() -> Iterator[None]:
    """A date that is none makes the whole answer unusable, since it may hide the newest result."""
    try:
        yield
    except ValueError:
        raise EmrBadResponse("expected dates as FHIR writes them") from None
