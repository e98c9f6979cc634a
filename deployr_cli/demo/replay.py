"""The replay: time moves from order to order, and each one that is signed asks the bridge for a score."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from deployr_cli.asking import json_request
from deployr_cli.demo.events import OrderSigned
from deployr_cli.demo.processes import Running
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import Tell


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What came back: HTTP statuses, the packet id of each answered order, and each call's milliseconds."""

    statuses: Counter[int]
    packet_of_order: dict[str, str]
    latencies_ms: tuple[float, ...]


class Driver:
    """Plays the EMR's part towards the bridge, and moves the time of both."""

    def __init__(self, running: Running, clock_file: Path, session: aiohttp.ClientSession) -> None:
        self._running = running
        self._clock_file = clock_file
        self._session = session

    async def set_time(self, now: datetime) -> None:
        """Move the EMR's clock and the bridge's to the same instant."""
        async with self._session.put(f"{self._running.emr}/admin/clock", json={"now": now.isoformat()}) as response:
            response.raise_for_status()
        beside = self._clock_file.with_suffix(".new")
        beside.write_text(now.isoformat(), encoding="ascii")
        beside.replace(self._clock_file)

    async def replay(self, events: Sequence[OrderSigned], *, model_id: str, tell: Tell) -> Replayed:
        """Sign each order at its time, one after the other."""
        statuses: Counter[int] = Counter()
        packet_of_order: dict[str, str] = {}
        latencies = []
        url = f"{self._running.host}/api/models/{model_id}/infer"
        headers = {"x-functions-key": self._running.function_key}
        for number, event in enumerate(events, start=1):
            await self.set_time(event.signed_at)
            started = time.perf_counter()
            async with self._session.post(url, json=json_request(event), headers=headers) as response:
                await response.read()
                latencies.append((time.perf_counter() - started) * 1000)
                statuses[response.status] += 1
                if "X-Packet-Id" in response.headers:
                    packet_of_order[event.order_id] = response.headers["X-Packet-Id"]
            tell(number, len(events))
        return Replayed(statuses=statuses, packet_of_order=packet_of_order, latencies_ms=tuple(latencies))

    async def fire(self, timer: str) -> None:
        """Run a timer function now, and wait for its end.

        Raises:
            CommandFailed: it failed.
        """
        url = f"{self._running.host}/admin/functions/{timer}"
        headers = {"x-functions-key": self._running.master_key, "x-deployr-wait": "1"}
        async with self._session.post(url, json={"input": ""}, headers=headers) as response:
            answer = await response.json() if response.status == 200 else {}
            if answer.get("status") != "succeeded":
                raise CommandFailed(
                    f"{timer} did not succeed (status {response.status}); see host.log in the workspace"
                )

    async def score_rows(self) -> int:
        """Count the rows of the EMR's score column."""
        async with self._session.get(f"{self._running.emr}/admin/scores") as response:
            response.raise_for_status()
            return sum(len(cell["rows"]) for cell in (await response.json())["scores"])
