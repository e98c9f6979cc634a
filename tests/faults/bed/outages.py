"""Runs one case of an outage: requests come while the store is down; then it is back, and what waited is brought in."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deployr_serve.adapters.store_circuit import POLICY
from deployr_serve.core.errors import StoreUnavailable
from tests.faults.bed import alerts
from tests.faults.bed.chart import REQUEST
from tests.faults.bed.invariants import check_form
from tests.faults.bed.rows import Case, Expect, OutageCase, Step
from tests.faults.bed.runner import _SLACK_S, requests_of, run_case
from tests.faults.bed.running import Bed, Run

_NOW = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)


class _Down:
    """Stands in for a store that is down but for some of its methods."""

    def __init__(self, store: Any, case: OutageCase) -> None:
        self._store = store
        self._case = case

    def __getattr__(self, name: str) -> Any:
        if name in self._case.works or name == "aclose":
            return getattr(self._store, name)

        async def down(*_: Any, **__: Any) -> None:
            if self._case.hangs:
                await asyncio.Event().wait()
            raise StoreUnavailable("expected a store that can be read and written")

        return down


async def run_outage_case(case: OutageCase, bed: Bed) -> list[str]:
    """Run one case, and say in what it was not as it must be; nothing if all was well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = folder / ("no-such-folder/spool.sqlite" if case.spool == "down" else "spool.sqlite")
        settings = {
            "DEPLOYR_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "DEPLOYR_SPOOL": "absent" if case.spool == "none" else f"sqlite:{place}",
            "DEPLOYR_SHOW_WITHOUT_STORED_PACKET": case.shows or "absent",
            **case.settings,
        }
        asked = Case(name=case.name, settings=settings, at_once=case.at_once, expect=Expect(answer="OK"))
        outage = _Outage(case, place)
        if case.over == "B":
            bed = replace(bed, app_of=alerts._Alert(folder, bed, asked).app_of)
        return await run_case(asked, bed, take=outage.take)


class _Outage:
    def __init__(self, case: OutageCase, spool: Path) -> None:
        self._case = case
        self._spool = spool

    async def take(self, run: Run, _: Step) -> None:
        """Ask while the store is down; then, with the store back, let the relay run and ask the same again."""
        app, case, expected = run.apps[0], self._case, self._case.expect
        if case.spool == "full":
            app.application.spool._most_bytes = 1
        # The switches have been read, as they are in a worker that has answered before.
        await app.application.services.switches.is_off("hematocrit")
        run.bed.said()
        circuit = app.application.store
        store, circuit._store = circuit._store, _Down(circuit._store, case)
        started = time.monotonic()
        answers = await self._ask(run)
        took_s = time.monotonic() - started
        run.expect(took_s <= run.deadline_s + _SLACK_S, f"answered after {took_s:.1f} s")
        ready = await app.get("health_ready")
        run.expect(ready.status_code == 503, "expected readiness to be red")
        for shown in expected.ready:
            run.expect(shown in ready.get_body().decode(), f"expected health to show {shown}, got {ready.get_body()}")
        said = run.bed.said()
        run.expect(expected.said is None or expected.said in said, f"expected {expected.said} in the log, got {said}")
        run.expect(self._waiting() == expected.waiting, f"expected {expected.waiting} to wait, got {self._waiting()}")
        for answer in answers:
            run.answers.append(answer)
            self._check_answer(run, answer)
        self._copy()
        circuit._store = store
        run.advanced_s += POLICY.open_s
        app.set_clock(_NOW + timedelta(hours=case.passes_h))
        for _ in range(case.relays):
            await app.fire("relay_deliveries")
        await self._check_afterwards(run)
        if expected.packet == "scored":
            # Asked again, each is answered from the store, and nothing is written again.
            for again in await self._ask(run):
                run.answers.append(again)
                run.expect(again.status_code == 200, f"expected an answer afterwards, got {again.status_code}")
                run.expect(again.headers.get("X-Bridge-Replay") == "1", "expected the stored answer")
            await self._check_afterwards(run)

    async def _ask(self, run: Run) -> list[Any]:
        if self._case.over == "B":
            return [await alerts._send(run, {})]
        requests = requests_of(run, Step(expect=(), request=REQUEST))
        return list(await asyncio.gather(*(run.apps[0].infer(**request) for request in requests)))

    def _check_answer(self, run: Run, answer: Any) -> None:
        expected = self._case.expect
        run.expect(answer.status_code == expected.status, f"expected {expected.status}, got {answer.status_code}")
        if self._case.over == "J":
            check_form(run, answer)
            if expected.status == 503:
                run.expect("Retry-After" in answer.headers, "expected Retry-After")
                run.expect(b"store-unavailable" in answer.get_body(), "expected the reason store-unavailable")
            return
        outcome = answer.headers.get("X-Bridge-Outcome")
        run.expect(outcome == expected.outcome, f"expected {expected.outcome}, got {outcome}")
        advises = b"<Outcome>advise</Outcome>" in answer.get_body()
        run.expect(advises == expected.advises, f"expected advice {expected.advises}, got {advises}")

    async def _check_afterwards(self, run: Run) -> None:
        store, expected, requests = run.apps[0].store, self._case.expect, self._case.at_once
        packets = await store.packets(model_id="hematocrit", after=None, limit=1000)
        kinds = Counter(str(packet.outcome.__struct_config__.tag) for packet in packets)
        due = Counter() if expected.packet == "none" else Counter({expected.packet: requests})
        run.expect(kinds == due, f"expected packets {dict(due)}, got {dict(kinds)}")
        deliveries = [await store.read_delivery(f"{packet.packet_id}.score-column") for packet in packets]
        states = {str(each.state) if each else None for each in deliveries}
        run.expect(not packets or states == {expected.state}, f"expected deliveries {expected.state}, got {states}")
        events = [event for packet in packets for event in await store.events(packet.packet_id)]
        run.expect(len(events) == expected.shown, f"expected {expected.shown} noted as shown, got {len(events)}")
        written = [call.target for call in run.upstreams[0].calls if call.route == "score"]
        run.expect(len(written) == len(set(written)), "a score was written twice")
        run.expect(len(written) == expected.writes, f"expected {expected.writes} writes, got {len(written)}")
        left = self._waiting() if expected.packet == "scored" else 0
        run.expect(left == 0, f"expected an empty spool in the end, got {left}")

    def _waiting(self) -> int:
        if not self._spool.exists() or self._case.spool == "full":
            return 0
        with closing(sqlite3.connect(self._spool)) as db:
            return int(db.execute("SELECT count(*) FROM spooled").fetchone()[0])

    def _copy(self) -> None:
        if self._case.copies == 1:
            return
        with closing(sqlite3.connect(self._spool)) as db:
            for _ in range(self._case.copies - 1):
                db.execute(
                    "INSERT INTO spooled (spooled_at, body) SELECT spooled_at, body FROM spooled WHERE place = 1"
                )
            db.commit()
