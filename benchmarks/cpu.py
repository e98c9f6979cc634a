"""How much processor time the reading of one record takes, beside the way over fhirclient's objects."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from benchmarks.hospital import Hospital, hospital
from benchmarks.measured import Measured
from benchmarks.patients import write_long_record
from benchmarks.recorded_emr import recorded
from benchmarks.staging import ENCOUNTER, NOW, PATIENT
from deployr_core.packet import Subject
from deployr_core.vectorize import vectorize
from deployr_serve.adapters.fhir_source import plan

_SUBJECT = Subject(patient_id=PATIENT, encounter_id=ENCOUNTER, order_id="bench-order-0")
_MOST_MS = 10.0
_ROUNDS, _WARM_UP = 60, 5


def reading() -> list[Measured]:
    """Measure processor time, not the clock: the EMR is another process, and answers from memory.

    Ours is six searches with every guard, and the vector. The baseline makes the same searches with fhirclient, and
    counts the codes that were known by then; it checks nothing.
    """
    with hospital(write_long_record, emr_delay_ms=0) as measured, recorded(measured.processes.emr) as emr:
        ours, baseline, ratio = asyncio.run(_medians(measured, emr))
    return [
        Measured(
            name="processor time of fetch and vectorize, 1,000 resources",
            value=round(ours, 3),
            unit="ms",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_MS:g} ms",
            met=ours <= _MOST_MS,
        ),
        Measured(
            name="the same through fhirclient objects",
            value=round(ours, 3),
            unit="ms",
            baseline=round(baseline, 3),
            ratio=round(ratio, 3),
            goal="10x less",
            met=ratio <= 0.1,
        ),
    ]


async def _medians(measured: Hospital, emr: str) -> tuple[float, float, float]:
    """Give the median processor milliseconds of ours and of the baseline, measured in turn, and the median ratio.

    The ratio is of one and the next: a machine that others share may be half as fast a second later.
    """
    from fhirclient.server import FHIRServer  # type: ignore[import-untyped]

    # By the machine's clock, as a hospital runs it: a replay's is a file, which is read at each look.
    application = measured.application(DEPLOYR_CLOCK_FILE="", DEPLOYR_EMR_FHIR_BASE=f"{emr}/api/FHIR/R4")
    queries, server = _queries(measured), FHIRServer(None, f"{emr}/api/FHIR/R4/")
    source = application.services.source

    async def read(number: int) -> None:
        # Each time as of another instant: one fetch serves all who ask about the same.
        as_of = NOW - timedelta(milliseconds=number)
        fetched = await source.fetch(_SUBJECT, measured.spec, as_of=as_of)
        vectorize(fetched.facts, measured.spec, as_of)

    async def parse(_: int) -> None:
        _count_with_fhirclient(server, queries)

    samples: dict[str, list[float]] = {"read": [], "parse": []}
    try:
        for number in range(_ROUNDS + _WARM_UP):
            if number == _WARM_UP:
                # Walking all that is loaded would leave the processor's caches cold before each step.
                gc.freeze()
            samples["read"].append(await _processor_ms(read, number))
            samples["parse"].append(await _processor_ms(parse, number))
    finally:
        gc.unfreeze()
        await application.aclose()
    ours, baseline = samples["read"][_WARM_UP:], samples["parse"][_WARM_UP:]
    ratio = statistics.median(one / other for one, other in zip(ours, baseline, strict=True))
    return statistics.median(ours), statistics.median(baseline), ratio


async def _processor_ms(step: Callable[[int], Awaitable[None]], number: int) -> float:
    # So that neither pays for the garbage of the other.
    gc.collect()
    started = time.process_time()
    await step(number)
    return (time.process_time() - started) * 1000


def _queries(measured: Hospital) -> list[str]:
    """Give the six searches as paths with queries, as fhirclient sends them."""
    reads = (("Patient", PATIENT), ("Encounter", ENCOUNTER), ("ServiceRequest", "bench-order-0"))
    searches: list[tuple[str, Sequence[tuple[str, str]]]] = [(kind, (("_id", identity),)) for kind, identity in reads]
    planned = plan(measured.spec, patient_id=PATIENT, as_of=NOW).values()
    searches += [(search.resource_type, search.parameters) for search in planned]
    return [f"{kind}?{urlencode([*parameters, ('_count', '1000')])}" for kind, parameters in searches]


def _count_with_fhirclient(server: Any, queries: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Fetch one after the other, and count the codes before `NOW`, as a reader of fhirclient's objects would."""
    from fhirclient.models.bundle import Bundle  # type: ignore[import-untyped]

    counted: Counter[tuple[str, ...]] = Counter()
    for query in queries:
        for entry in Bundle.read_from(query, server).entry or ():
            resource = entry.resource
            match resource.resource_type:
                case "Observation" if _instant(resource.issued) < NOW:
                    value = resource.valueQuantity.value
                    counted.update((coding.code, str(value // 10)) for coding in resource.code.coding)
                case "Condition" if _instant(resource.recordedDate) < NOW:
                    counted.update((coding.code,) for coding in resource.code.coding)
                case "MedicationRequest" if _instant(resource.authoredOn) < NOW:
                    counted.update((coding.code,) for coding in resource.medicationCodeableConcept.coding)
    return counted


def _instant(date: Any) -> datetime:
    instant: datetime = date.datetime
    return instant
