"""The trial's weeks, played through: many orders at a time, each over one of three ways in, none ahead of its chart."""

from __future__ import annotations

import asyncio
import time
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import aiohttp

from deployr_cli.asking import cda_document, json_request, order_sign_context
from deployr_cli.demo.processes import Running
from deployr_cli.demo.replay import Driver
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell
from deployr_cli.trial.hospital import TrialOrder
from deployr_cli.trial.usage import resident_mb
from mock_emr.cds_client import CdsClient, Reply

AT_ONCE = 16
LONGEST_UNDER_WAY = timedelta(minutes=30)
"""How far the clocks move on at most while an order waits for its answer."""
LONGEST_AS_HOOK = timedelta(minutes=4)
"""The same over CDS Hooks, which believes an ``authoredOn`` that is up to 5 minutes from its own clock."""
LABELS_EVERY = timedelta(days=2)
"""A run groups what waits for a label in memory: with a week of it at the paper's size, a host grew by a fifth."""
_MEMORY_READINGS = 200
_NAMESPACE = uuid.UUID("0d3f6a2e-6a55-4f0c-8f5c-3f1f5f4b7f11")


class Way(StrEnum):
    """How an order is asked about."""

    BPA = "bpa"
    JSON = "json"
    CDS_HOOKS = "cds-hooks"


_TURNS = (*((Way.BPA, Way.JSON) * 9), Way.BPA, Way.CDS_HOOKS)
"""Half are asked about as an alert does that sends CDA, and most others as JSON. Few as CDS Hooks, which names no
order: where every result names the order that it answers, as here, no label is found for them."""


def way_of(number: int) -> Way:
    """Give the way of the order with this number, from 0."""
    return _TURNS[number % len(_TURNS)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What came of it.

    ``answers``: by way, and by what it was answered with. ``asking_s``, ``labelling_s``: seconds; both together are the
    replay from its first order to its last label. ``memory_mb``: readings by process.
    """

    answers: Counter[tuple[Way, str]]
    asking_s: float
    labelling_s: float
    memory_mb: Mapping[str, Sequence[float]] = field(repr=False)


class TrialReplay:
    """Plays the EMR's part: signs the orders, moves the clocks, and lets labels be extracted as time passes.

    Args:
        running: the processes.
        driver: moves both clocks, fires timers.
        session: for the calls.
        password: of the caller of the BPA channel.
        caller: its name.
    """

    def __init__(
        self, running: Running, driver: Driver, session: aiohttp.ClientSession, *, caller: str, password: str
    ) -> None:
        self._running = running
        self._driver = driver
        self._session = session
        self._basic = "Basic " + b64encode(f"{caller}:{password}".encode()).decode("ascii")
        self._answers: Counter[tuple[Way, str]] = Counter()
        self._labelling_s = 0.0

    async def play(self, orders: Sequence[TrialOrder], *, last_ripe: timedelta, tell: Tell) -> Replayed:
        """Ask about every order at its time; then let the last labels become ripe.

        Args:
            orders: as they were signed.
            last_ripe: how long after the last order no label can come any more.
            tell: told how many orders were answered.

        Raises:
            CommandFailed: a process has ended, or a call got no answer at all.
        """
        memory: dict[str, list[float]] = {"EMR": [], **{f"host {n + 1}": [] for n in range(len(self._running.hosts))}}
        every = max(len(orders) // _MEMORY_READINGS, 1)
        started = time.perf_counter()
        under_way: dict[asyncio.Task[None], datetime] = {}
        next_labels = orders[0].event.signed_at + LABELS_EVERY
        now: datetime | None = None
        try:
            for number, order in enumerate(orders):
                signed_at = order.event.signed_at
                while signed_at >= next_labels:
                    await _settled(under_way)
                    await self._extract_labels(next_labels)
                    now, next_labels = next_labels, next_labels + LABELS_EVERY
                while not may_go_on(under_way.values(), at=signed_at):
                    await _one_answered(under_way)
                if now is None or signed_at > now:
                    await self._driver.set_time(signed_at)
                    now = signed_at
                under_way[asyncio.create_task(self._ask(number, order))] = holds_until(order, way_of(number))
                tell(number + 1 - len(under_way), len(orders))
                if number % every == 0:
                    self._read_memory(memory)
            await _settled(under_way)
            tell(len(orders), len(orders))
            await self._extract_labels(orders[-1].event.signed_at + last_ripe)
        finally:
            for task in under_way:
                task.cancel()
        whole = time.perf_counter() - started
        return Replayed(
            answers=self._answers,
            asking_s=whole - self._labelling_s,
            labelling_s=self._labelling_s,
            memory_mb=memory,
        )

    async def _extract_labels(self, now: datetime) -> None:
        started = time.perf_counter()
        await self._driver.set_time(now)
        await self._driver.fire("extract_labels")
        self._labelling_s += time.perf_counter() - started

    async def _ask(self, number: int, order: TrialOrder) -> None:
        way = way_of(number)
        host = self._running.hosts[number % len(self._running.hosts)]
        asked = {Way.BPA: self._as_bpa, Way.JSON: self._as_json, Way.CDS_HOOKS: self._as_hook}[way]
        try:
            self._answers[way, await asked(host, order)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            ended = self._running.ended()
            why = f"the {ended} has ended by itself" if ended else f"a call got no answer ({type(error).__name__})"
            log = f"{ended or 'host'}.log"
            raise CommandFailed(f"{why}; see {log} in the workspace, and run the trial again") from error

    async def _as_bpa(self, host: str, order: TrialOrder) -> str:
        headers = {"Authorization": self._basic, "Content-Type": "application/xml"}
        body = cda_document(order.event).encode()
        url = f"{host}/api/bpa/{order.group.name}"
        async with self._session.post(url, data=body, headers=headers) as response:
            await response.read()
            return f"{response.status} {response.headers.get('X-Bridge-Outcome', '')}".strip()

    async def _as_json(self, host: str, order: TrialOrder) -> str:
        headers = {"x-functions-key": self._running.function_key}
        url = f"{host}/api/groups/{order.group.name}/infer"
        async with self._session.post(url, json=json_request(order.event), headers=headers) as response:
            await response.read()
            return str(response.status)

    async def _as_hook(self, host: str, order: TrialOrder) -> str:
        client = CdsClient(host, fhir_base=f"{self._running.emr}/api/FHIR/R4", send=self._send, now=_no_token)
        reply = await client.fire(
            {"hook": "order-sign", "id": f"{order.group.name}-order-sign"},
            order_sign_context(order.event, panel=order.group.panels[0]),
            hook_instance=str(uuid.uuid5(_NAMESPACE, order.event.order_id)),
        )
        return str(reply.status)

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        async with self._session.request(method, url, headers=headers, data=body) as response:
            return Reply(status=response.status, headers={}, body=await response.read())

    def _read_memory(self, memory: Mapping[str, list[float]]) -> None:
        for readings, pid in zip(memory.values(), (self._running.emr_pid, *self._running.host_pids), strict=True):
            if (held := resident_mb(pid)) is not None:
                readings.append(held)


def holds_until(order: TrialOrder, way: Way) -> datetime:
    """Give the instant that the clocks must not reach before the order is answered."""
    latest = order.event.signed_at + (LONGEST_AS_HOOK if way is Way.CDS_HOOKS else LONGEST_UNDER_WAY)
    return latest if order.chart_stands_until is None else min(latest, order.chart_stands_until)


def may_go_on(held: Collection[datetime], *, at: datetime) -> bool:
    """Say if the clocks may move to an instant and another order be asked about, with these under way."""
    return len(held) < AT_ONCE and all(at < limit for limit in held)


async def _one_answered(under_way: dict[asyncio.Task[None], datetime]) -> None:
    """Wait for one at least, and take those that are answered off the list."""
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        del under_way[task]
        task.result()


async def _settled(under_way: dict[asyncio.Task[None], datetime]) -> None:
    while under_way:
        await _one_answered(under_way)


def _no_token() -> datetime:
    raise CommandFailed("expected no signed token in a trial whose hooks anybody may call")
