"""The EMR's side of `deployr parity`: a sample of orders, each read as of the instant at which it was signed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TypeVar

import numpy as np

from deployr_cli.demo.events import OrderSigned, orders_signed, patient_identifiers
from deployr_cli.failures import CommandFailed
from deployr_cli.parity_charts import read_chart
from deployr_cli.progress import Tell
from deployr_core.bundle import Bundle
from deployr_core.codes import LOINC, Code
from deployr_core.facts import PatientFacts
from deployr_core.features import WindowedGroup
from deployr_core.instants import parse_fhir_datetime
from deployr_core.label_rules import Answer, LabComponent, LabelRule, horizon
from deployr_core.labels import Answered, label_of_results
from deployr_core.packet import Subject
from deployr_dev.parity_facts import Chart
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.adapters.fhir_search import FhirClient, Search
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import AiohttpTransport
from deployr_serve.core.errors import ServeError
from deployr_serve.core.outcome_source import OutcomeNeeds, OutcomeSource

_AT_ONCE = 4
"""How many orders are read from a server at the same time: it has other work to do."""

_TIMEOUT_S = 30.0
_FEWEST_PATIENTS = 20
"""On a server, how many patients a sample is spread over at least."""

_MINUTE = timedelta(minutes=1)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderRead:
    """One order as the EMR shows it. ``identifier`` joins its patient to the warehouse's ``person_source_value``.

    ``label``: 1.0 or 0.0 where the result that the order gave tells, else None.
    """

    order_id: str = field(repr=False)
    signed_at: datetime
    identifier: str = field(repr=False)
    facts: PatientFacts = field(repr=False)
    label: float | None = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Emr:
    """Where to search, in which zone to read dates without one, how to put the clock, how many orders at once."""

    client: FhirClient
    source: FhirSource
    outcomes: FhirOutcomes
    zone: tzinfo
    put_clock: Callable[[datetime], None]
    at_once: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OrdersRead:
    """What was read: the orders, and by the EMR's patient id the charts of their patients.

    ``signed``: when which orders were signed, by patient identifier: all that were looked at, sampled or not.
    ``unread``: of how many patients the EMR gave no chart, or one too long to be read.
    """

    orders: Sequence[OrderRead]
    charts: Mapping[str, Chart]
    signed: Mapping[str, Sequence[datetime]]
    unread: int


_Sampled = Sequence[tuple[OrderSigned, str]]


async def read_folder(
    folder: Path,
    bundle: Bundle,
    *,
    known: Collection[str],
    zone: tzinfo,
    sample: int,
    rng: np.random.Generator,
    tell: Tell,
) -> OrdersRead:
    """Read a sample of the orders in a folder of NDJSON, through a mock EMR on loopback whose clock is put to each.

    Args:
        folder: FHIR R4 NDJSON, plain or gzipped.
        bundle: whose panels and features are read.
        known: the identifiers of the patients to choose from.
        zone: for dates that carry none.
        sample: how many orders; fewer if there are no more.
        rng: where the sample comes from.
        tell: told how many were read, of how many.

    Raises:
        CommandFailed: no order of a known patient.
        LoadError, StoreError: the folder is no chart.
        ServeError: it was not answered as FHIR is.
    """
    from mock_emr.clock import EmrClock
    from mock_emr.emr import FHIR_ROOT
    from mock_emr.hosting import listening
    from mock_emr.serve import create_app, real_now

    events = orders_signed(folder, panels=bundle.manifest.task.panels)
    identifiers = patient_identifiers(folder)
    events = tuple(event for event in events if identifiers.get(event.patient_id) in known)
    if not events:
        raise CommandFailed(f"{folder}: expected orders of patients whose identifiers are in the warehouse, found none")
    chosen = [events[place] for place in sorted(rng.permutation(len(events))[:sample])]
    clock = EmrClock(real_now=real_now)
    async with (
        listening(lambda url: create_app(folder, clock=clock, open_access=True, base_url=url)) as url,
        # One at a time: they share the clock.
        _connected(url + FHIR_ROOT, zone=zone, put_clock=clock.put, at_once=1) as emr,
    ):
        looked_at = [(event, identifiers[event.patient_id]) for event in events]
        sampled = [(event, identifiers[event.patient_id]) for event in chosen]
        return await _read(emr, sampled, bundle, tell, looked_at=looked_at)


async def read_server(
    base: str,
    bundle: Bundle,
    *,
    known: Collection[str],
    zone: tzinfo,
    sample: int,
    rng: np.random.Generator,
    tell: Tell,
) -> OrdersRead:
    """Read a sample of orders from an open FHIR server as it is now; what was not known by then, no vector sees.

    A server tells the orders of a patient, but not those of everybody. So known patients are looked up in the order of
    chance, and a share of each one's orders is taken, until there are enough. The arguments are those of `read_folder`.

    Raises:
        CommandFailed: no order of a known patient.
        ServeError: the server did not answer, or not as FHIR does.
    """
    async with _connected(base.rstrip("/"), zone=zone, put_clock=lambda _: None, at_once=_AT_ONCE) as emr:
        identifiers = sorted(known)
        each = max(1, sample // _FEWEST_PATIENTS)
        found: list[tuple[OrderSigned, str]] = []
        looked_at: list[tuple[OrderSigned, str]] = []
        for place in rng.permutation(len(identifiers)):
            events = await _orders_of(emr, identifiers[place], panels=bundle.manifest.task.panels)
            looked_at += [(event, identifiers[place]) for event in events]
            chosen = sorted(rng.permutation(len(events))[:each])
            found += [(events[number], identifiers[place]) for number in chosen]
            if len(found) >= sample:
                break
        if not found:
            raise CommandFailed(
                f"{base}: expected orders of patients whose identifiers are in the warehouse, found none"
            )
        return await _read(emr, found[:sample], bundle, tell, looked_at=looked_at)


@asynccontextmanager
async def _connected(
    base: str, *, zone: tzinfo, put_clock: Callable[[datetime], None], at_once: int
) -> AsyncIterator[_Emr]:
    transport = AiohttpTransport(timeout_s=_TIMEOUT_S, clock=SystemClock())
    client = FhirClient(base=base, transport=transport, credentials=NoCredentials(), clock=SystemClock())
    source = FhirSource(client, clock=SystemClock(), zone=zone)
    outcomes = FhirOutcomes(client, clock=SystemClock(), zone=zone)
    try:
        yield _Emr(client=client, source=source, outcomes=outcomes, zone=zone, put_clock=put_clock, at_once=at_once)
    finally:
        await transport.aclose()


async def _orders_of(emr: _Emr, identifier: str, *, panels: Sequence[str]) -> list[OrderSigned]:
    """Give a patient's orders for these panels; none where the server does not know exactly one such patient."""
    by_identifier = Search(resource_type="Patient", parameters=(("identifier", identifier),))
    patients = (await emr.client.search(by_identifier)).resources
    if len(patients) != 1 or patients[0].id is None:
        return []
    patient_id = patients[0].id
    codes = ",".join(f"{LOINC}|{panel}" for panel in panels)
    of_patient = Search(resource_type="ServiceRequest", parameters=(("patient", patient_id), ("code", codes)))
    events = []
    for request in (await emr.client.search(of_patient)).resources:
        if isinstance(request, wire.ServiceRequest) and request.id and request.authored_on:
            start, end = parse_fhir_datetime(request.authored_on, zone=emr.zone)
            # An order of which only the day is known has no instant to compare at.
            if end - start <= _MINUTE:
                events.append(
                    OrderSigned(patient_id=patient_id, encounter_id=None, order_id=request.id, signed_at=start)
                )
    return sorted(events, key=lambda event: (event.signed_at, event.order_id))


async def _read(emr: _Emr, orders: _Sampled, bundle: Bundle, tell: Tell, *, looked_at: _Sampled) -> OrdersRead:
    """Read each order's facts at its instant, then, when all labels are ripe, what came of them, and the charts."""
    gate = asyncio.Semaphore(emr.at_once)
    done = 0

    async def at_its_instant(event: OrderSigned) -> PatientFacts:
        nonlocal done
        async with gate:
            emr.put_clock(event.signed_at)
            subject = Subject(patient_id=event.patient_id)
            fetched = await emr.source.fetch(subject, bundle.spec, as_of=event.signed_at)
            done += 1
            tell(done, len(orders))
            return fetched.facts

    facts = await _all(at_its_instant(event) for event, _ in orders)
    rule = bundle.manifest.task.rule
    emr.put_clock(max(event.signed_at for event, _ in orders) + (horizon(rule) or timedelta()) + _MINUTE)
    by_patient: dict[str, list[OrderSigned]] = defaultdict(list)
    for event, _ in orders:
        by_patient[event.patient_id].append(event)

    async def labels_of(events: Sequence[OrderSigned]) -> dict[str, float | None]:
        async with gate:
            return await _labels(emr.outcomes, events, rule)

    labels: dict[str, float | None] = {}
    for found in await _all(labels_of(events) for events in by_patient.values()):
        labels.update(found)
    longest = timedelta(
        days=max((group.lookback_days for group in bundle.spec.groups if isinstance(group, WindowedGroup)), default=0)
    )
    charts: dict[str, Chart] = {}

    async def chart_of(patient_id: str, events: Sequence[OrderSigned]) -> None:
        since = min(event.signed_at for event in events) - longest
        async with gate:
            # Causes are told from what can be read; the comparison itself needs none of it.
            with contextlib.suppress(ServeError):
                charts[patient_id] = await read_chart(emr.client, patient_id, bundle.spec, since=since, zone=emr.zone)

    await _all(chart_of(patient_id, events) for patient_id, events in by_patient.items())
    read = [
        OrderRead(
            order_id=event.order_id,
            signed_at=event.signed_at,
            identifier=identifier,
            facts=seen,
            label=labels[event.order_id],
        )
        for (event, identifier), seen in zip(orders, facts, strict=True)
    ]
    signed: dict[str, list[datetime]] = defaultdict(list)
    for event, identifier in looked_at:
        signed[identifier].append(event.signed_at)
    return OrdersRead(orders=read, charts=charts, signed=signed, unread=len(by_patient) - len(charts))


async def _labels(source: OutcomeSource, events: Sequence[OrderSigned], rule: LabelRule) -> dict[str, float | None]:
    """Give what each of one patient's orders came to, as the labels in service are decided; a label of 0 or 1 only."""
    if not isinstance(rule, LabComponent) or rule.answer is not Answer.ABNORMAL:
        return dict.fromkeys(event.order_id for event in events)
    needs = OutcomeNeeds(
        codes=tuple(Code(LOINC, component) for component in rule.components),
        # A specimen may be older than the order that it answers: an added test.
        since=min(event.signed_at for event in events) - timedelta(hours=rule.window_hours),
    )
    outcomes = await source.outcomes(events[0].patient_id, needs)
    labels: dict[str, float | None] = {}
    for event in events:
        found = label_of_results(rule, outcomes.labs, as_of=event.signed_at, order_id=event.order_id)
        value = found.value if isinstance(found, Answered) else None
        labels[event.order_id] = value if isinstance(value, float) else None
    return labels


async def _all(work: Iterable[Coroutine[None, None, _T]]) -> list[_T]:
    """Do everything; the first failure ends the rest, and is what comes out."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
