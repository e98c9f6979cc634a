"""Runs one case of a store that fails: a request is answered meanwhile, and again when the store is well.

The store is Azure Cosmos DB's stand-in behind the scripted server; the SDK and everything above it is the real one.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

from deployr_cli.up_azure import COSMOS_KEY
from deployr_serve.adapters.store_circuit import POLICY
from tests.emulators.scripted_cosmos import ScriptedCosmos
from tests.faults.bed.invariants import check_form
from tests.faults.bed.rows import Case, Expect, Step, StoreCase
from tests.faults.bed.runner import _SLACK_S, requests_of, run_case
from tests.faults.bed.running import Bed, Run

_AFTER = datetime(2015, 1, 6, 21, 1, tzinfo=UTC)
"""When the relay runs: past the minute that a delivery is left to the request which made it."""


async def run_store_case(case: StoreCase, bed: Bed) -> list[str]:
    """Run one case, and say in what it was not as it must be; nothing if all was well."""
    stand_ins = bed.stand_ins()
    laid_out = stand_ins.cosmos_of(database=stand_ins.database)
    try:
        await laid_out.init()
        script = ScriptedCosmos(stand_ins.address)
        async with script.listening() as address:
            settings = {
                "DEPLOYR_STORE": f"cosmos:{address}",
                "DEPLOYR_STORE_DATABASE": stand_ins.database,
                "DEPLOYR_STORE_KEY": COSMOS_KEY,
                "DEPLOYR_STORE_BLOBS": stand_ins.blobs,
                "DEPLOYR_SPOOL": f"sqlite:{bed.bundles_of({}).parent / 'spool.sqlite'}" if case.spool else "absent",
                **case.settings,
            }

            async def take(run: Run, _: Step) -> None:
                run.reachable |= {_place(address), _place(stand_ins.address)}
                await _take(run, case, script)

            asked = Case(name=case.name, settings=settings, at_once=case.at_once, expect=Expect(answer="OK"))
            problems = await run_case(asked, bed, take=take)
        keys = {each["packet_id"] for each in await laid_out._documents.query("SELECT c.packet_id FROM c", {})}
        if case.expect.partitions not in {None, len(keys)}:
            problems.append(f"expected {case.expect.partitions} partitions, got {len(keys)}")
        return problems
    finally:
        await laid_out.aclose()


async def _take(run: Run, case: StoreCase, script: ScriptedCosmos) -> None:
    """Ask while the store fails; then, with the store well again, run the relay and ask the same again."""
    app, upstream, expected = run.apps[0], run.upstreams[0], case.expect
    requests = requests_of(run, Step(expect=()))
    # The connection is open and the switches were read, as in a worker that has answered before.
    await app.application.services.switches.is_off("hematocrit")
    run.bed.said()
    script.fail(*case.faults)
    started = time.monotonic()
    responses = await asyncio.gather(*(app.infer(**request) for request in requests))
    took_s = time.monotonic() - started
    run.expect(took_s <= run.deadline_s + _SLACK_S, f"answered after {took_s:.1f} s")
    ready = (await app.get("health_ready")).get_body().decode()
    run.expect(f'"store":"{expected.why}"' in ready, f"expected health to show {expected.why}, got {ready}")
    said = run.bed.said()
    run.expect(expected.said is None or expected.said in said, f"expected {expected.said} in the log, got {said}")
    script.heal()
    for response in responses:
        run.answers.append(response)
        check_form(run, response)
        run.expect(response.status_code == expected.status, f"expected {expected.status}, got {response.status_code}")
    run.advanced_s += max(case.passes_s, POLICY.open_s)
    app.set_clock(_AFTER)
    for _ in range(2):
        await app.fire("relay_deliveries")
    packets = await app.store.packets(model_id="hematocrit", after=None, limit=1000)
    kinds = [str(packet.outcome.__struct_config__.tag) for packet in packets]
    run.expect(kinds == [expected.packet] * len(requests), f"expected {expected.packet} packets, got {kinds}")
    for request, first in zip(requests, responses, strict=True):
        again = await app.infer(**request)
        run.answers.append(again)
        run.expect(again.status_code == 200, f"expected the same to be answered afterwards, got {again.status_code}")
        same = first.status_code != 200 or again.get_body() == first.get_body()
        run.expect(same, "another answer to the same request")
    after = await app.store.packets(model_id="hematocrit", after=None, limit=1000)
    run.expect(len(after) == len(requests), f"expected {len(requests)} packets in the end, got {len(after)}")
    written = [call.target for call in upstream.calls if call.route == "score"]
    run.expect(len(written) == len(set(written)), "a score was written twice")
    # Of scores that were asked for at once, an older one that comes after a newer one is not written.
    least = min(expected.writes, 1) if case.at_once > 1 else expected.writes
    run.expect(least <= len(written) <= expected.writes, f"expected {expected.writes} writes, got {len(written)}")


def _place(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or 0
