"""A ward list overnight: many patients, so many at a time, and memory that stays as it is."""

from __future__ import annotations

import asyncio
import functools
import os
import statistics
import time
from pathlib import Path

from benchmarks.hospital import Hospital, hospital
from benchmarks.measured import Measured, against
from benchmarks.patients import asked, write_patients
from benchmarks.staging import NOW
from deployr_cli.demo.run import TASK
from deployr_core.packet import Scored, Subject
from deployr_serve.core.infer import infer
from deployr_serve.core.ports import Lane
from deployr_serve.core.request import InferenceRequest

_PATIENTS, _CALLS, _AT_A_TIME = 1_000, 5, 64
_FOR_CLICKS = 16
_DELAY_MS = 200
_WARM_UP = 64
_MOST_GROWTH_MB = 10.0


def many_patients() -> list[Measured]:
    """Score 1,000 patients: five searches of 200 ms each, in the batch lane, 64 calls at a time.

    The ideal is the EMR's own time, 5,000 calls of 200 ms over 64: 15.6 s. Each patient has 30 resources; none names
    an order, so that the calls are patient, encounter, results, diagnoses and medications. Nothing is written back.
    """
    charts = functools.partial(write_patients, patients=_PATIENTS + _WARM_UP, orders=1, of_each=10)
    with hospital(charts, emr_delay_ms=_DELAY_MS) as measured:
        seconds, resident = asyncio.run(_score_all(measured))
    ideal = _PATIENTS * _CALLS / _AT_A_TIME * _DELAY_MS / 1000
    quarter = len(resident) // 4
    first, last = statistics.median(resident[:quarter]), statistics.median(resident[-quarter:])
    return [
        against(
            f"{_PATIENTS:,} patients, {_CALLS} calls of {_DELAY_MS} ms, {_AT_A_TIME} at a time, against the ideal",
            seconds,
            ideal,
            unit="s",
            at_most=1.3,
        ),
        Measured(
            name="memory gained from the first quarter of them to the last",
            value=round(last - first, 1),
            unit="MB",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_GROWTH_MB:g} MB",
            met=last - first <= _MOST_GROWTH_MB,
        ),
    ]


async def _score_all(measured: Hospital) -> tuple[float, list[float]]:
    """Give the seconds that it took, and the resident memory in MB after each patient."""
    application = measured.application(
        DEPLOYR_DEADLINE_S="60",
        DEPLOYR_EMR_BATCH_CONNECTIONS=str(_AT_A_TIME),
        DEPLOYR_EMR_CONNECTIONS=str(_AT_A_TIME + _FOR_CLICKS),
    )
    places = asyncio.Semaphore(_AT_A_TIME)
    resident: list[float] = []

    async def score(number: int) -> None:
        what = asked(number, 0)
        request = InferenceRequest(
            channel="batch",
            model_id=TASK,
            subject=Subject(patient_id=what.patient_id, encounter_id=what.encounter_id, order_id=None),
            event_time=NOW,
            idempotency_key=None,
            correlation_id=f"bench-{number}",
            lane=Lane.BATCH,
        )
        async with places:
            answer = await infer(request, application.services)
        if (outcome := type(answer.packet.outcome)) is not Scored:
            raise RuntimeError(f"expected a score, got {outcome.__name__}")
        resident.append(_resident_mb())

    try:
        await asyncio.gather(*(score(_PATIENTS + number) for number in range(_WARM_UP)))
        resident.clear()
        started = time.perf_counter()
        await asyncio.gather(*(score(number) for number in range(_PATIENTS)))
        return time.perf_counter() - started, resident
    finally:
        await application.aclose()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
