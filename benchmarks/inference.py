"""One inference against an EMR that takes 50 ms for every call: how much is left beside waiting for it."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp

from benchmarks.hospital import Hospital, hospital, score_over_http
from benchmarks.measured import Measured, against, faster
from benchmarks.patients import Asked
from benchmarks.published import CALLS, make_calls, published_calls
from benchmarks.staging import ENCOUNTER, NOW, PATIENT, write_patient
from deployr_core.features import FeatureSpec
from deployr_serve.adapters.fhir_source import plan

_DELAY_MS = 50
_ROUNDS = 15
_WARM_UP = 3
_PUBLISHED_ROUNDS = 5

_Step = Callable[[int], Awaitable[None]]


def one_inference() -> list[Measured]:
    """Measure with a warm host, a patient of 500 resources, six searches, and every round another order.

    Once with the score written back and once reading and scoring alone, which is what the 35 published calls do. The
    longest chain of calls that depend on each other is one search, and then the write where there is one.
    """
    charts = functools.partial(write_patient, orders=_ROUNDS + _WARM_UP)
    with hospital(charts, emr_delay_ms=_DELAY_MS, writes_back=False) as reading:
        medians = asyncio.run(_medians(reading, writes=False))
        published = _published(reading)
    with hospital(charts, emr_delay_ms=_DELAY_MS) as writing:
        written = asyncio.run(_medians(writing, writes=True))
    return [
        against(
            "one score, EMR at 50 ms a call, against the longest chain",
            medians["infer"],
            medians["chain"],
            unit="ms",
            at_most=1.5,
        ),
        faster(f"the same against the published {CALLS} calls in sequence", medians["infer"], published, at_least=20.0),
        against(
            "one score, written back, against the longest chain",
            written["infer"],
            written["chain"],
            unit="ms",
            at_most=1.5,
        ),
    ]


def _published(measured: Hospital) -> float:
    """Give the median of the published way of working, in ms."""
    calls = published_calls(measured.spec)
    samples = []
    for _ in range(_PUBLISHED_ROUNDS):
        started = time.perf_counter()
        make_calls(measured.processes.emr, calls)
        samples.append((time.perf_counter() - started) * 1000)
    return statistics.median(samples)


async def _medians(measured: Hospital, *, writes: bool) -> dict[str, float]:
    """Give the median milliseconds of an inference, and of the longest chain of its calls, measured in turn."""
    processes = measured.processes
    async with aiohttp.ClientSession() as session:
        resource_type, form = _largest_search(measured.spec)

        async def infer(number: int) -> None:
            what = Asked(patient_id=PATIENT, encounter_id=ENCOUNTER, order_id=f"bench-order-{number}")
            await score_over_http(session, processes, what)

        async def chain(number: int) -> None:
            url = f"{processes.emr}/api/FHIR/R4/{resource_type}/_search"
            async with session.post(url, data=form) as response:
                response.raise_for_status()
                await response.read()
            if writes:
                path = "api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"
                url = f"{processes.emr}/{path}?modelId=bench&jobId=bench-{number}"
                async with session.post(url, json={}) as response:
                    await response.read()

        steps: tuple[tuple[str, _Step], ...] = (("infer", infer), ("chain", chain))
        for number in range(_WARM_UP):
            await infer(_ROUNDS + number)
        samples: dict[str, list[float]] = {name: [] for name, _ in steps}
        for number in range(_ROUNDS):
            for name, step in steps:
                samples[name].append(await _milliseconds(step, number))
        return {name: statistics.median(values) for name, values in samples.items()}


def _largest_search(spec: FeatureSpec) -> tuple[str, dict[str, str]]:
    """Give the search for results: 400 of the 500 resources."""
    search = plan(spec, patient_id=PATIENT, as_of=NOW)["labs"]
    return search.resource_type, {**dict(search.parameters), "_count": "1000"}


async def _milliseconds(step: _Step, number: int) -> float:
    started = time.perf_counter()
    await step(number)
    return (time.perf_counter() - started) * 1000
