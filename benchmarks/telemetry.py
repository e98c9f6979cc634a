"""What watching costs: nothing that can be told from noise while it is off, and how much when it is on."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from datetime import timedelta

from benchmarks.hospital import hospital
from benchmarks.measured import Measured
from benchmarks.patients import write_long_record
from benchmarks.recorded_emr import recorded
from benchmarks.staging import ENCOUNTER, NOW, PATIENT
from deployr_cli.demo.run import TASK
from deployr_core.packet import Subject
from deployr_serve.bootstrap import Application
from deployr_serve.core.infer import infer
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.watch import NOT_WATCHED, Step

_ROUNDS, _WARM_UP = 60, 5
_STARTS = 5
_STEPS = 8
"""Of one inference with one output: those of it that the core names, the wrapped fetch and the wrapped output."""
_MOST_OFF, _MOST_ON = 0.001, 1.2
_OFF = "import deployr_serve.bootstrap, deployr_serve.settings"
_ON = f"{_OFF}, deployr_serve.telemetry_bootstrap"


def watching() -> list[Measured]:
    """Measure processor time of one inference, 1,000 resources, an EMR in memory, SQLite; on and off in turn.

    On: spans and measurements made, checked against the allow-list, and sent to where nobody listens.
    """
    with hospital(write_long_record, emr_delay_ms=0) as measured, recorded(measured.processes.emr) as emr:
        base = {"DEPLOYR_CLOCK_FILE": "", "DEPLOYR_EMR_FHIR_BASE": f"{emr}/api/FHIR/R4"}
        off = measured.application(**base, DEPLOYR_STORE=f"sqlite:{measured.folder / 'off.sqlite'}")
        on = measured.application(
            **base,
            DEPLOYR_STORE=f"sqlite:{measured.folder / 'on.sqlite'}",
            DEPLOYR_TELEMETRY="otlp:http://127.0.0.1:9",
        )
        off_ms, on_ms, ratio = asyncio.run(_medians(off, on))
    share = _nothing_ms() / off_ms
    starts = statistics.median(_start_s(_ON) / _start_s(_OFF) for _ in range(_STARTS))
    return [
        Measured(
            name="telemetry off: its share of one inference's processor time",
            value=round(share, 6),
            unit="",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_OFF:g}",
            met=share <= _MOST_OFF,
        ),
        Measured(
            name="telemetry on, processor time of one inference, against off",
            value=round(on_ms, 3),
            unit="ms",
            baseline=round(off_ms, 3),
            ratio=round(ratio, 3),
            goal=f"ratio <= {_MOST_ON:g}",
            met=ratio <= _MOST_ON,
        ),
        Measured(
            name="importing the app with telemetry on, against off",
            value=round(starts, 3),
            unit="x",
            baseline=None,
            ratio=round(starts, 3),
            goal="",
            met=None,
        ),
    ]


async def _medians(off: Application, on: Application) -> tuple[float, float, float]:
    samples: dict[bool, list[float]] = {False: [], True: []}
    try:
        for number in range(_ROUNDS + _WARM_UP):
            if number == _WARM_UP:
                gc.freeze()
            # Neither is always the first.
            for is_on in (True, False) if number % 2 else (False, True):
                samples[is_on].append(await _processor_ms(on if is_on else off, number))
    finally:
        gc.unfreeze()
        await off.aclose()
        await on.aclose()
    mine, base = samples[True][_WARM_UP:], samples[False][_WARM_UP:]
    ratio = statistics.median(one / other for one, other in zip(mine, base, strict=True))
    return statistics.median(base), statistics.median(mine), ratio


async def _processor_ms(application: Application, number: int) -> float:
    request = InferenceRequest(
        channel="json",
        model_id=TASK,
        subject=Subject(patient_id=PATIENT, encounter_id=ENCOUNTER, order_id="bench-order-0"),
        # Another instant each time: one fetch serves all who ask about the same.
        event_time=NOW - timedelta(milliseconds=number),
        correlation_id="6f9619ff-8b86-4011-b42d-00c04fc964ff",
        idempotency_key=None,
    )
    gc.collect()
    started = time.process_time()
    await infer(request, application.services)
    return (time.process_time() - started) * 1000


def _nothing_ms(rounds: int = 20_000) -> float:
    """Give what the steps of one inference take while nobody watches."""
    started = time.process_time()
    for _ in range(rounds):
        for _ in range(_STEPS):
            with NOT_WATCHED.step(Step.SCORE, channel="json"):
                pass
    return (time.process_time() - started) * 1000 / rounds


def _start_s(code: str) -> float:
    told = f"import time; {code}; print(time.process_time())"
    came = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=120)  # noqa: S603 our own interpreter and code
    return float(came.stdout)
