"""Requests sent in turn to several hosts, each when it is due, and again to the next host until there is an answer."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from benchmarks.patients import Asked, asked
from benchmarks.scale_hosts import House
from benchmarks.staging import NOW
from deployr_cli.demo.run import TASK

_GIVEN_UP_AFTER_S, _PAUSE_S, _LONGEST_ANSWER_S = 90.0, 0.25, 15.0
SCORED = "scored"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One request: when it was due, in seconds from the phase's start, how long until its score, what was said first.

    ``packets``: the ids that it was answered with; one, if the hosts that were asked agree. ``is_scored``: it got one.
    """

    due_s: float
    latency_ms: float
    refusals: tuple[str, ...]
    packets: frozenset[str]
    is_scored: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What came of one phase. ``used_s``: processor time by kind of process, in seconds, over all of it."""

    seconds: float
    """From the first request until the last answer."""
    answers: tuple[Answered, ...] = field(repr=False)
    used_s: Mapping[str, float]

    @property
    def a_second(self) -> float:
        """How many scores came a second."""
        return len(self.answers) / self.seconds

    def percentile_ms(self, percent: int) -> float:
        """Give a percentile of the time until the score, from 1 to 99."""
        return statistics.quantiles([each.latency_ms for each in self.answers], n=100)[percent - 1]

    @property
    def refusals(self) -> Counter[str]:
        """What requests were told, or met with, before they were sent to another host."""
        return Counter(said for each in self.answers for said in each.refusals)


class Sender:
    """Sends each request to the next host in turn. Every request is about another order."""

    def __init__(self, house: House, session: aiohttp.ClientSession, *, patients: int) -> None:
        self._house = house
        self._session = session
        self._patients = patients
        self.asked: list[Asked] = []

    async def at_rate(
        self, *, rate: float, count: int, twice_every: int = 0, kills: Mapping[int, float] | None = None
    ) -> Phase:
        """Send ``count`` requests, ``rate`` a second, each when it is due, and wait until each has its score.

        ``twice_every``: every how-manieth is sent to two hosts at once; 0 for none. ``kills``: by the request's place
        in this phase, how many seconds after it was sent the host that got it is killed.
        """
        killing: list[asyncio.Task[None]] = []

        async def send(started: float) -> list[Answered]:
            tasks = []
            for place in range(count):
                due = started + place / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                is_twice = twice_every > 0 and place % twice_every == 0
                if kills and place in kills:
                    killing.append(asyncio.create_task(self._kill(len(self.asked), after_s=kills[place])))
                tasks.append(asyncio.create_task(self._next(due, started, is_twice=is_twice)))
            return list(await asyncio.gather(*tasks))

        phase = await self._phase(send)
        await asyncio.gather(*killing)
        return phase

    async def at_once(self, *, in_flight: int, count: int) -> Phase:
        """Send ``count`` requests, so many at a time, each as soon as one before it has its score."""

        async def send(started: float) -> list[Answered]:
            left = iter(range(count))

            async def worker() -> list[Answered]:
                return [await self._next(time.perf_counter(), started) for _ in left]

            came = await asyncio.gather(*(worker() for _ in range(in_flight)))
            return [each for answers in came for each in answers]

        return await self._phase(send)

    async def _phase(self, send: Callable[[float], Awaitable[list[Answered]]]) -> Phase:
        before, started = self._house.used_s(), time.perf_counter()
        answers = await send(started)
        seconds, used = time.perf_counter() - started, self._house.used_s()
        return Phase(
            seconds=seconds,
            answers=tuple(answers),
            used_s={name: round(used[name] - before[name], 3) for name in used},
        )

    async def _next(self, due: float, started: float, *, is_twice: bool = False) -> Answered:
        first = len(self.asked)
        order, patient = divmod(first, self._patients)
        what = asked(patient, order)
        self.asked.append(what)
        places = (first, first + 1) if is_twice else (first,)
        came = await asyncio.gather(*(self._until_scored(what, place, due) for place in places))
        return Answered(
            due_s=due - started,
            latency_ms=(time.perf_counter() - due) * 1000,
            refusals=tuple(said for _, refusals in came for said in refusals),
            packets=frozenset(packet for packet, _ in came if packet is not None),
            is_scored=all(packet is not None for packet, _ in came),
        )

    async def _kill(self, number: int, *, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._house.kill(number % len(self._house.hosts))

    async def _until_scored(self, what: Asked, place: int, due: float) -> tuple[str | None, Sequence[str]]:
        """Ask one host after the other; give the packet's id, None if it took too long, and what was said before."""
        refusals: list[str] = []
        for number in _turns(place):
            packet, said = await self._ask(what, self._house.hosts[number % len(self._house.hosts)])
            if packet is not None:
                return packet, refusals
            refusals.append(said)
            if time.perf_counter() - due > _GIVEN_UP_AFTER_S:
                break
            await asyncio.sleep(_PAUSE_S)
        return None, refusals

    async def _ask(self, what: Asked, host: str) -> tuple[str | None, str]:
        body = {
            "patientId": what.patient_id,
            "encounterId": what.encounter_id,
            "orderId": what.order_id,
            "eventTime": NOW.isoformat(),
        }
        headers = {"x-functions-key": self._house.processes.function_key}
        url = f"{host}/api/models/{TASK}/infer"
        try:
            async with self._session.post(url, json=body, headers=headers) as response:
                told = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            return None, type(error).__name__
        if not isinstance(told, dict) or told.get("status") != SCORED:
            return None, f"status {response.status}"
        return str(told["packetId"]), SCORED


def new_session() -> aiohttp.ClientSession:
    """Give a session without a limit on connections: a request waits for nobody else's answer."""
    timeout = aiohttp.ClientTimeout(total=_LONGEST_ANSWER_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def _turns(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1
