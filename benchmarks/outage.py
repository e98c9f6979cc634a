"""The outage drill: requests keep coming while the store is down, and then the EMR's write side.

Five phases of equal length: well, the store down, the EMR's writes down, and twice well again. The store is taken down
by locking its file from another process, as a backup that hangs would; the app has no handle for it. Afterwards every
request must have one packet and one score in the EMR, and none of them twice.

`python -m benchmarks.outage` runs it alone, for 5 minutes at 20 requests a second; `--seconds 60` is shorter.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.hospital import Hospital, hospital
from benchmarks.measured import Measured
from benchmarks.patients import asked, write_patients
from benchmarks.staging import NOW
from deployr_cli.demo.processes import store_file
from deployr_cli.demo.run import TASK

PHASES = ("well", "store down", "EMR writes down", "well again", "well again")
PLOT = Path(__file__).parent.parent / "docs" / "outage.svg"
_SECONDS, _RATE = 300.0, 20.0
_PATIENTS, _OF_EACH, _DELAY_MS = 100, 20, 20
_LONGEST_WAIT_S, _DRAINED_WITHIN_S = 30.0, 600.0
_EVERY_S = 0.5
_AHEAD = timedelta(minutes=6)
"""Longer than a delivery ever waits for its next try: moves a short drill's clock past that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One request: when it was due, in seconds from the start, how long its answer took, and what it said."""

    due_s: float
    latency_ms: float
    said: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What waits at an instant: packets in the spool, and deliveries that are not sent yet."""

    at_s: float
    spooled: int
    pending: int


@dataclass(kw_only=True, slots=True)
class Drill:
    """What came of a drill. ``drained_s``: from the end of the requests until nothing waited any more."""

    seconds: float
    rate: float
    answers: list[Answered] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    drained_s: float = 0.0
    packets: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    written: int = 0
    held: int = 0
    sent_again: int = 0
    """Writes that the EMR had carried out before, and recognised by their id: an answer had got lost on its way."""

    @property
    def lost(self) -> int:
        """How many requests have no packet in the end, and how many scores that are due never reached the EMR."""
        missing = max(len(self.answers) - sum(self.packets.values()), 0)
        return missing + max(self.packets["scored"] - self.written, 0)

    @property
    def twice(self) -> int:
        """How many packets or scores there are beyond one for each request."""
        asked_for = len(self.answers)
        return max(sum(self.packets.values()) - asked_for, 0) + max(self.held - asked_for, 0)

    def p95_ms(self, phase: int) -> float:
        """Give the 95th percentile of the answers to what was asked in that phase, counted from 0."""
        length = self.seconds / len(PHASES)
        took = [each.latency_ms for each in self.answers if phase * length <= each.due_s < (phase + 1) * length]
        return statistics.quantiles(took, n=20)[-1]


def outage_drill() -> list[Measured]:
    """Drill for 5 minutes, and draw what happened."""
    from benchmarks.outage_plot import draw

    drilled = drill(seconds=_SECONDS, rate=_RATE)
    draw(drilled, PLOT)
    calm = drilled.p95_ms(0)
    most = max(sample.spooled for sample in drilled.samples)
    return [
        Measured(
            name=f"outage drill, {len(drilled.answers):,} requests in {_SECONDS:g} s: lost",
            value=drilled.lost,
            unit="",
            baseline=None,
            ratio=None,
            goal="value = 0",
            met=not drilled.lost,
        ),
        Measured(
            name="stored or written twice",
            value=drilled.twice,
            unit="",
            baseline=None,
            ratio=None,
            goal="value = 0",
            met=not drilled.twice,
        ),
        *(
            Measured(
                name=f"95th percentile of answers, {PHASES[phase]}, against the calm minute before",
                value=round(drilled.p95_ms(phase), 1),
                unit="ms",
                baseline=round(calm, 1),
                ratio=round(drilled.p95_ms(phase) / calm, 3),
                goal="ratio <= 1.5",
                met=drilled.p95_ms(phase) <= 1.5 * calm,
            )
            for phase in (1, 2)
        ),
        Measured(
            name=f"until nothing waits any more, after the last request (at most {most:,} packets in the spool)",
            value=round(drilled.drained_s, 1),
            unit="s",
            baseline=None,
            ratio=None,
            goal="none",
            met=None,
        ),
    ]


def drill(*, seconds: float, rate: float, hurries: bool = False) -> Drill:
    """Run the drill.

    ``hurries``: for a short drill on a machine of any speed. Each outage lasts until its traces are seen, the requests
    of a phase wait until it has begun, and once the last is answered the app's clock is moved past all waits.
    """
    total = round(seconds * rate)
    orders = -(-total // _PATIENTS)
    charts = functools.partial(write_patients, patients=_PATIENTS, orders=orders, of_each=_OF_EACH)
    with tempfile.TemporaryDirectory() as scratch:
        spool = Path(scratch) / "spool.sqlite"
        settings = {"DEPLOYR_SPOOL": f"sqlite:{spool}", "DEPLOYR_RELAY_SCHEDULE": "*/5 * * * * *"}
        with hospital(charts, emr_delay_ms=_DELAY_MS, settings=settings) as measured:
            run = _Run(measured, spool, Drill(seconds=seconds, rate=rate), hurries=hurries)
            asyncio.run(run.all())
            return run.drilled


class _Run:
    def __init__(self, measured: Hospital, spool: Path, drilled: Drill, *, hurries: bool) -> None:
        self._measured = measured
        self._processes = measured.processes
        self._store = store_file(measured.folder)
        self._spool = spool
        self._hurries = hurries
        self.drilled = drilled
        self._started = 0.0
        self._ahead = timedelta()
        self._begun = [asyncio.Event() for _ in PHASES]

    async def all(self) -> None:
        """Send what is due, take things down and put them up again, and watch."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=_LONGEST_WAIT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await self._warm_up(session)
            self._started = time.perf_counter()
            watching = asyncio.create_task(self._watch())
            outages = asyncio.create_task(self._outages(session))
            await self._requests(session)
            await outages
            ended = time.perf_counter()
            while not self._is_drained() and time.perf_counter() - ended < _DRAINED_WITHIN_S:
                if self._hurries:
                    # Again and again: a try that finds the EMR's circuit still open puts its delivery off once more.
                    self._ahead += _AHEAD
                await asyncio.sleep(_EVERY_S)  # the host that drains, in another process
            self.drilled.drained_s = time.perf_counter() - ended
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._sample(time.perf_counter() - self._started)
            await self._count(session)

    async def _warm_up(self, session: aiohttp.ClientSession) -> None:
        """Have the host load and connect what it needs, without leaving a packet."""
        for _ in range(20):
            async with session.get(f"{self._processes.host}/api/health/ready") as response:
                await response.read()

    async def _requests(self, session: aiohttp.ClientSession) -> None:
        drilled = self.drilled
        sent = []
        for number in range(round(drilled.seconds * drilled.rate)):
            due = number / drilled.rate
            if self._hurries:
                await self._begun[int(due * len(PHASES) / drilled.seconds)].wait()
            await asyncio.sleep(max(0.0, self._started + due - time.perf_counter()))
            sent.append(asyncio.create_task(self._ask(session, number, due)))
        drilled.answers = list(await asyncio.gather(*sent))

    async def _ask(self, session: aiohttp.ClientSession, number: int, due: float) -> Answered:
        what = asked(number % _PATIENTS, number // _PATIENTS)
        body = {
            "patientId": what.patient_id,
            "encounterId": what.encounter_id,
            "orderId": what.order_id,
            "eventTime": NOW.isoformat(),
        }
        headers = {"x-functions-key": self._processes.function_key}
        url = f"{self._processes.host}/api/models/{TASK}/infer"
        try:
            async with session.post(url, json=body, headers=headers) as response:
                content = await response.json(content_type=None)
                said = content["status"] if response.status == 200 else _reason_in(content)
        except (aiohttp.ClientError, TimeoutError) as error:
            said = type(error).__name__
        took_ms = (time.perf_counter() - self._started - due) * 1000
        return Answered(due_s=due, latency_ms=took_ms, said=said)

    async def _outages(self, session: aiohttp.ClientSession) -> None:
        """Take the store down, then the EMR's writes, and put each up again."""
        self._begun[0].set()
        await self._until_phase(1)
        async with _locked(self._store):
            self._begun[1].set()
            await self._until_phase(2, seen=lambda: self._spooled() > 0)
        faults = f"{self._processes.emr}/admin/faults"
        async with session.put(faults, json=[{"route": "score", "status": 503}]) as response:
            response.raise_for_status()
        self._begun[2].set()
        await self._until_phase(3, seen=lambda: self._spooled() == 0 < self._pending())
        async with session.delete(faults) as response:
            response.raise_for_status()
        for begun in self._begun[3:]:
            begun.set()

    async def _until_phase(self, phase: int, *, seen: Callable[[], bool] = lambda: True) -> None:
        await self._until(self.drilled.seconds * phase / len(PHASES))
        ended = time.perf_counter() + _LONGEST_WAIT_S
        while self._hurries and not seen() and time.perf_counter() < ended:  # noqa: ASYNC110 it is the host that acts,
            await asyncio.sleep(_EVERY_S / 5)  # in another process

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._started + at_s - time.perf_counter()))

    async def _watch(self) -> None:
        """Move the app's clock along, and note what waits, twice a second."""
        while True:
            elapsed = time.perf_counter() - self._started
            moved = self._measured.folder / "now.next"
            moved.write_text((NOW + timedelta(seconds=elapsed) + self._ahead).isoformat(), encoding="ascii")
            moved.replace(self._measured.folder / "now")
            self._sample(elapsed)
            await asyncio.sleep(_EVERY_S)

    def _sample(self, at_s: float) -> None:
        self.drilled.samples.append(Sample(at_s=at_s, spooled=self._spooled(), pending=self._pending()))

    def _spooled(self) -> int:
        return sum(_grouped(self._spool, "SELECT 'waiting', count(*) FROM spooled").values())

    def _pending(self) -> int:
        return sum(_grouped(self._store, "SELECT state, count(*) FROM deliveries WHERE state = 'pending'").values())

    def _is_drained(self) -> bool:
        return self._spooled() == self._pending() == 0

    async def _count(self, session: aiohttp.ClientSession) -> None:
        drilled = self.drilled
        drilled.packets = _grouped(self._store, "SELECT kind, count(*) FROM packets GROUP BY kind")
        drilled.deliveries = _grouped(self._store, "SELECT state, count(*) FROM deliveries GROUP BY state")
        async with session.get(f"{self._processes.emr}/admin/journal/summary") as response:
            summary = await response.json()
        drilled.written, drilled.sent_again = summary["score_writes_new"], summary["score_writes_repeated"]
        async with session.get(f"{self._processes.emr}/admin/scores") as response:
            cells = (await response.json())["scores"]
        drilled.held = sum(len(cell["rows"]) for cell in cells)


def _reason_in(outcome: Mapping[str, Any]) -> str:
    """Give the reason code of an OperationOutcome."""
    [issue] = outcome["issue"]
    return str(issue["details"]["coding"][0]["code"])


def _grouped(file: Path, sql: str) -> Counter[str]:
    """Count in a file of the host's; reading disturbs nobody."""
    if not file.exists():
        return Counter()
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5.0)) as db:
        try:
            return Counter({str(name): count for name, count in db.execute(sql)})
        except sqlite3.OperationalError:
            # Its tables are being made.
            return Counter()


@asynccontextmanager
async def _locked(file: Path) -> AsyncIterator[None]:
    """Keep everybody else from writing to the store, from the moment that the lock is had."""
    with closing(sqlite3.connect(file, timeout=30.0, isolation_level=None, check_same_thread=False)) as db:
        await asyncio.to_thread(db.execute, "BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            db.execute("ROLLBACK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill alone and print what came of it; 1 if anything was lost or done twice."""
    from benchmarks.outage_plot import draw

    parser = argparse.ArgumentParser(description="The outage drill.")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of requests; a fifth of it is one phase")
    parser.add_argument("--rate", type=float, default=_RATE, help="requests a second")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where to draw it")
    given = parser.parse_args(arguments)
    drilled = drill(seconds=given.seconds, rate=given.rate)
    draw(drilled, given.plot)
    said = Counter(each.said for each in drilled.answers)
    most = max(sample.spooled for sample in drilled.samples), max(sample.pending for sample in drilled.samples)
    print(f"{len(drilled.answers)} requests: {dict(said)}")
    print(f"packets {dict(drilled.packets)}, deliveries {dict(drilled.deliveries)}")
    print(f"scores in the EMR {drilled.held}; sent again and recognised {drilled.sent_again}")
    print(f"lost {drilled.lost}, twice {drilled.twice}")
    print("p95 in ms: " + ", ".join(f"{name} {drilled.p95_ms(number):.0f}" for number, name in enumerate(PHASES)))
    print(f"at most {most[0]} in the spool, {most[1]} deliveries pending")
    print(f"drained {drilled.drained_s:.0f} s after the last request")
    return int(bool(drilled.lost or drilled.twice))


if __name__ == "__main__":
    sys.exit(main())
