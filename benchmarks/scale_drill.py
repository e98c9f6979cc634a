"""Past one machine: one, two and four hosts over one store and one queue, some of them killed, and what it comes to.

Each number of hosts is measured in a house of its own: stand-ins for Cosmos DB and for Azure's queues, an EMR that
takes 50 ms for a call, and the hosts, all of them processes of this machine. Four things happen one after another:

1. calm: requests at a rate that one host bears, to the hosts in turn;
2. most: 32 requests are always under way, which is more than the machine bears: what comes of it is what it bears;
3. kills: every fourth request goes to two hosts at once; hosts are killed while they have requests, and started again;
4. a batch: a slot fires on all hosts, they work off its chunks, and chunks that still wait are put on the queue twice.

Then the packets, deliveries and the EMR's score columns are counted: each request and each patient of the slot must
have one packet and one score in the EMR.

On a machine with two cores more hosts cannot be faster, since the stand-ins share the cores. So what each kind of
process uses is measured apart: as long as a host's processor time for an inference stays the same however many there
are, hosts add up, until what they share is used up.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import aiohttp

from benchmarks.patients import asked, write_patients
from benchmarks.scale_batch import SLOT, Worked, declare_batch, work_off
from benchmarks.scale_counts import Counts, Wanted, count, is_settled
from benchmarks.scale_hosts import House, house
from benchmarks.scale_load import Phase, Sender, new_session
from benchmarks.scale_order import Order, of_one_order, write_like_it
from benchmarks.staging import NOW, write_model
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.settings import read_settings
from deployr_serve.store_bootstrap import Store, open_store

_DELAY_MS = 50
_PATIENTS = 40
_IN_FLIGHT = 32
_IDLE_S = 5.0
_TWICE_EVERY = 4
_KILLED_AFTER_S = (0.06, 0.09)
"""After a request was sent: it waits for the EMR's answers then, or for its write."""
_EVERY_S, _SETTLED_WITHIN_S = 0.5, 180.0
_PATIENT_S = 600.0
"""As the deadline of whoever counts: of a busy machine's store each call has a share of it."""
_AHEAD = timedelta(minutes=5)
"""Longer than a delivery is left to the request, or to whoever died over it: the relay may send it then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is sent. Rates in requests a second, counts of requests; ``patients`` of the slot, in chunks.

    ``deadline_s``: of the app; who dies with a request keeps it for twice that.
    """

    hosts: tuple[int, ...] = (1, 2, 4)
    of_each: int | None = None
    warm: int = 4
    calm: int = 80
    calm_rate: float = 10.0
    most: int = 200
    killed: int = 80
    killed_rate: float = 10.0
    patients: int = 96
    chunk_size: int = 4

    deadline_s: float = 8.0
    orders: int = 25
    """Of which it is measured what one costs, for one model and for several; 0 leaves it out."""


QUICK = Sizes(
    hosts=(2,),
    of_each=20,
    warm=2,
    calm=10,
    most=0,
    killed=40,
    killed_rate=8.0,
    patients=12,
    chunk_size=3,
    deadline_s=5.0,
    orders=0,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """What came of one number of hosts. What was left out is None or empty.

    ``idle_s``: seconds of processor time for each second in which nobody asks, by kind of process. ``memory_mb``: of
    the host that holds most. ``emr_calls``: for an inference of the calm phase. ``orders``: measured with one host.
    """

    hosts: int
    calm: Phase
    idle_s: Mapping[str, float]
    most: Phase | None
    killed: Phase
    kills: int
    batch: Worked
    counts: Counts
    memory_mb: float
    emr_calls: float
    orders: tuple[Order, ...]


def scaled_out(sizes: Sizes) -> tuple[Scaled, ...]:
    """Measure each number of hosts.

    Raises:
        CommandFailed: the stand-ins' packages are missing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, trees=100)
        if sizes.orders:
            write_like_it(folder / "bundles")
        per_patient = -(-(sizes.warm * max(sizes.hosts) + sizes.calm + sizes.most + sizes.killed) // _PATIENTS)
        write_patients(folder / "fhir", patients=_PATIENTS + sizes.patients, orders=per_patient, of_each=sizes.of_each)
        settings = declare_batch(folder, first=_PATIENTS, patients=sizes.patients, chunk_size=sizes.chunk_size)
        settings |= {"DEPLOYR_RELAY_SCHEDULE": "*/5 * * * * *", "DEPLOYR_DEADLINE_S": str(sizes.deadline_s)}
        return tuple(_scaled(folder, hosts, sizes, settings) for hosts in sizes.hosts)


def _scaled(folder: Path, hosts: int, sizes: Sizes, settings: Mapping[str, str]) -> Scaled:
    with house(folder, hosts=hosts, emr_delay_ms=_DELAY_MS, settings=settings) as built:
        return asyncio.run(_measured(built, sizes, bundles=folder / "bundles"))


async def _measured(built: House, sizes: Sizes, *, bundles: Path) -> Scaled:
    hosts = len(built.hosts)
    # One that is alone is killed once: nobody else can answer meanwhile.
    kills = {sizes.killed * (place + 1) // 4: after_s for place, after_s in enumerate(_KILLED_AFTER_S[:hosts])}
    async with new_session() as session, _store(built) as store, _Ticking(built.folder / "now") as clock:
        sender = Sender(built, session, patients=_PATIENTS)
        await sender.at_rate(rate=4.0 * hosts, count=sizes.warm * hosts)
        before = await _emr_calls(built, session)
        calm = await sender.at_rate(rate=sizes.calm_rate, count=sizes.calm)
        calls = await _emr_calls(built, session) - before
        before_idle = built.used_s()
        await asyncio.sleep(_IDLE_S)
        idle_s = {name: (used - before_idle[name]) / _IDLE_S for name, used in built.used_s().items()}
        most = await sender.at_once(in_flight=_IN_FLIGHT, count=sizes.most) if sizes.most else None
        killed = await sender.at_rate(rate=sizes.killed_rate, count=sizes.killed, twice_every=_TWICE_EVERY, kills=kills)
        await built.until_all_answer(session)
        async with asyncio.timeout(_SETTLED_WITHIN_S):
            while not await is_settled(store):
                # Again and again: what a relay tried in vain it puts off once more.
                clock.jump(_AHEAD)
                await asyncio.sleep(_EVERY_S)
        clock.jump_to(SLOT)
        batch = await work_off(built, session, store)
        wanted: list[Wanted] = [(each.patient_id, each.order_id) for each in sender.asked]
        wanted += [(asked(_PATIENTS + number, 0).patient_id, None) for number in range(sizes.patients)]
        return Scaled(
            hosts=hosts,
            calm=calm,
            idle_s=idle_s,
            most=most,
            killed=killed,
            kills=len(kills),
            batch=batch,
            counts=await count(built, session, store, wanted=wanted),
            memory_mb=built.memory_mb(),
            emr_calls=calls / sizes.calm,
            orders=await of_one_order(built, bundles, orders=sizes.orders) if sizes.orders and hosts == 1 else (),
        )


@asynccontextmanager
async def _store(built: House) -> AsyncIterator[Store]:
    """Open the hosts' store beside them."""
    settings = {"DEPLOYR_BUNDLES": ".", "DEPLOYR_EMR_FHIR_BASE": built.processes.emr, **built.azure}
    store = open_store(read_settings(settings).store, clock=SystemClock(), deadline_s=_PATIENT_S)
    try:
        yield store
    finally:
        await store.aclose()


async def _emr_calls(built: House, session: aiohttp.ClientSession) -> int:
    async with session.get(f"{built.processes.emr}/admin/journal/summary") as response:
        return int((await response.json())["calls"])


class _Ticking:
    """Lets the app's clock, which is a file, go on from `NOW` as time does, and jump ahead."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ahead = timedelta()
        self._started = time.perf_counter()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def jump(self, ahead: timedelta) -> None:
        """Put the clock this much further ahead."""
        self._ahead += ahead
        self._write()

    def jump_to(self, instant: datetime) -> None:
        """Put the clock ahead to an instant."""
        self.jump(instant - self._now())

    async def _tick(self) -> None:
        while True:
            self._write()
            await asyncio.sleep(_EVERY_S)

    def _now(self) -> datetime:
        return NOW + self._ahead + timedelta(seconds=time.perf_counter() - self._started)

    def _write(self) -> None:
        moved = self._file.with_suffix(".next")
        moved.write_text(self._now().isoformat(), encoding="ascii")
        moved.replace(self._file)
