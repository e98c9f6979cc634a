"""Requests that arrive by a schedule, whatever became of those before: what the app keeps up with, and its limit."""

from __future__ import annotations

import asyncio
import functools
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import aiohttp

from benchmarks.hospital import Hospital, hospital, score_over_http
from benchmarks.measured import Measured
from benchmarks.patients import Asked, asked, write_patients

_DELAY_MS = 50
_PATIENTS, _ORDERS = 40, 400
_RATE, _SECONDS = 20, 60.0
_STEP_SECONDS = 8.0
_RATES = range(30, 201, 10)
_UNLOADED = 60
_MOST_TIMES_UNLOADED = 3.0
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What came of one rate. Latencies run from when a request was due, so that none that waited looks fast.

    ``processor_s``: what the host, the EMR and this process used of the two cores, in seconds of processor time per
    second.
    """

    rate: float
    latencies_ms: tuple[float, ...]
    failures: int
    processor_s: dict[str, float]

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.latencies_ms, n=20)[-1] if len(self.latencies_ms) > 1 else float("inf")

    def is_within(self, unloaded_ms: float) -> bool:
        """Tell whether none failed and the 95th percentile is at most three times that."""
        return not self.failures and self.p95_ms <= _MOST_TIMES_UNLOADED * unloaded_ms


def sustained_load() -> list[Measured]:
    """Measure 20 requests a second for a minute with the EMR at 50 ms, then more, until it is too much.

    Forty patients of 500 resources take turns, every request another order; scores are written back. Host, EMR and
    requests share the machine's cores. Too much is a failure, or a 95th percentile of over three times the median of
    single requests.
    """
    charts = functools.partial(write_patients, patients=_PATIENTS, orders=_ORDERS)
    with hospital(charts, emr_delay_ms=_DELAY_MS) as measured:
        unloaded, sustained, limit, beyond = asyncio.run(_measure(measured))
    ratio = sustained.p95_ms / unloaded
    used = ", ".join(f"{name} {share:.2f}" for name, share in limit.processor_s.items())
    return [
        Measured(
            name=f"95th percentile at {_RATE} requests a second for {_SECONDS:g} s, against the median unloaded",
            value=round(sustained.p95_ms, 1),
            unit="ms",
            baseline=round(unloaded, 1),
            ratio=round(ratio, 3),
            goal=f"ratio <= {_MOST_TIMES_UNLOADED:g}, no failures",
            met=sustained.is_within(unloaded),
        ),
        Measured(
            name=f"failures among these {len(sustained.latencies_ms) + sustained.failures:,}",
            value=sustained.failures,
            unit="",
            baseline=None,
            ratio=None,
            goal="value = 0",
            met=not sustained.failures,
        ),
        Measured(
            name=(
                f"highest rate within that (cores used there: {used}; "
                f"at {beyond.rate:g} /s: {beyond.p95_ms:.0f} ms, {beyond.failures} failed)"
            ),
            value=limit.rate,
            unit="/s",
            baseline=None,
            ratio=None,
            goal="none",
            met=None,
        ),
    ]


async def _measure(measured: Hospital) -> tuple[float, Load, Load, Load]:
    """Give the unloaded median in ms, the sustained load, the highest that was borne, and the one after it."""
    requests = (asked(number % _PATIENTS, number // _PATIENTS) for number in count())
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=_LONGEST_WAIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        samples = []
        for _ in range(_UNLOADED):
            started = time.perf_counter()
            await score_over_http(session, measured.processes, next(requests))
            samples.append((time.perf_counter() - started) * 1000)
        unloaded = statistics.median(samples[_UNLOADED // 6 :])
        sustained = limit = await _load(session, measured, requests, rate=_RATE, seconds=_SECONDS)
        beyond = sustained
        for rate in _RATES:
            # Twice, so that what else the machine does for a moment is not taken for the app's limit.
            tries = [await _load(session, measured, requests, rate=rate, seconds=_STEP_SECONDS)]
            if not tries[0].is_within(unloaded):
                tries.append(await _load(session, measured, requests, rate=rate, seconds=_STEP_SECONDS))
            if not tries[-1].is_within(unloaded):
                beyond = tries[-1]
                break
            limit = tries[-1]
        return unloaded, sustained, limit, beyond


async def _load(
    session: aiohttp.ClientSession, measured: Hospital, requests: Iterator[Asked], *, rate: float, seconds: float
) -> Load:
    """Send ``rate`` requests a second, each when it is due, and wait for all."""
    pids = {"host": measured.processes.host_pid, "EMR": measured.processes.emr_pid, "requests": os.getpid()}
    before = {name: processor_s(pid) for name, pid in pids.items()}
    started = time.perf_counter()

    async def send(due: float, what: Asked) -> float | None:
        try:
            await score_over_http(session, measured.processes, what)
        except (RuntimeError, aiohttp.ClientError, TimeoutError):
            return None
        return (time.perf_counter() - due) * 1000

    sent = []
    for number in range(round(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.create_task(send(due, next(requests))))
    latencies = await asyncio.gather(*sent)
    elapsed = time.perf_counter() - started
    answered = tuple(latency for latency in latencies if latency is not None)
    return Load(
        rate=rate,
        latencies_ms=answered,
        failures=len(latencies) - len(answered),
        processor_s={name: (processor_s(pid) - before[name]) / elapsed for name, pid in pids.items()},
    )


def processor_s(pid: int) -> float:
    """Give the seconds of processor time that the process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
