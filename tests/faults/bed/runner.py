"""Runs one case from the outside, as a caller and an EMR see the app, and gives everything that was not as it must be.

After whatever a row expects, the same holds for all: one terminal packet for each request or none, one write for each
score, no connection to a host that is not configured, the deadline, an answer that is valid for its channel, nothing of
the patient in any place that is not made for it, and the same again when it is asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from deployr_core.instants import parse_instant
from deployr_core.packet import InferencePacket
from deployr_serve.adapters import key_vault
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core import infer
from tests.faults.bed.chart import NAMES, REQUEST
from tests.faults.bed.expected import not_as_expected
from tests.faults.bed.invariants import (
    check_form,
    check_network,
    check_published_keys,
    check_repeat,
    check_secrecy,
    check_tokens,
)
from tests.faults.bed.network import foreign_host, trusting, watched_network
from tests.faults.bed.rows import Case, Step, filled_in
from tests.faults.bed.running import Bed, Run, Vault, start
from tests.faults.bed.upstream import Call

_SLACK_S = 10.0
"""How much later than the deadline an answer may come here: the machine of the tests may be busy."""


async def run_case(case: Case, bed: Bed, *, take: Callable[[Run, Step], Awaitable[None]] | None = None) -> list[str]:
    """Run one case, and say in what it was not as it must be; nothing if all was well.

    ``take`` takes one step, over the channel that the case is for; None: over the JSON channel.
    """
    bed.said()
    async with AsyncExitStack() as stack:
        watched = stack.enter_context(watched_network())
        stack.enter_context(trusting(bed.authority.file))
        vault = Vault(bed.keyring.folder, case.vault)
        stack.enter_context(patch.object(key_vault, "secret_client", lambda _: vault))
        foreign, arrived = await stack.enter_async_context(foreign_host())
        values = {
            **NAMES,
            **bed.callers,
            **bed.keyring.thumbprints,
            "keys": str(bed.keyring.folder),
            "foreign": foreign,
        }
        values["foreign_host"] = urlsplit(foreign).netloc
        run = Run(case=case, bed=bed, values=values, vault=vault)
        if case.at_once > 1:
            # So many deliveries at once may take longer here than a request waits for its own, and nobody relays them.
            stack.enter_context(patch.object(infer, "AT_ONCE_WITHIN_S", run.deadline_s))
        allowed = await start(run, stack)
        clock = SystemClock.monotonic
        SystemClock.monotonic = lambda it: clock(it) + run.advanced_s  # type: ignore[method-assign]
        try:
            for step in case.asked:
                await (take or _take)(run, step)
            if run.apps:
                await check_published_keys(run)
        finally:
            SystemClock.monotonic = clock  # type: ignore[method-assign]
            for app in run.apps:
                await app.application.aclose()
        for upstream in run.upstreams:
            run.problems += upstream.own_faults
        run.expect(not arrived, f"{len(arrived)} connections to the foreign host")
        check_network(run, watched, allowed | run.reachable)
    check_secrecy(run, bed.said())
    return list(dict.fromkeys(run.problems))


async def _take(run: Run, step: Step) -> None:
    """Take one step: what changes before it, its requests, and the same requests again."""
    run.advanced_s += step.advance_s
    upstream = run.upstreams[-1 if run.case.own_upstream and step.app > 1 else 0]
    if step.registered is not None:
        upstream.registered = filled_in(step.registered, run.values)
    if step.revoke:
        upstream.revoke()
    if step.vault is not None:
        run.vault.held = step.vault
    if step.expected[0].answer == "START":
        run.expect(not run.apps, "started, though these settings cannot work")
        return
    if not run.apps:
        return
    app, requests = run.apps[step.app - 1], requests_of(run, step)
    # Where it is counted how often a caller asks, the repeat would count as well.
    once = step.request.get("once", False)
    before, packets_before = len(upstream.calls), len(await _packets_of(app))
    started = time.monotonic()
    responses = await asyncio.gather(*(app.infer(**request) for request in requests))
    took_s = time.monotonic() - started
    run.expect(took_s <= run.deadline_s + _SLACK_S, f"answered after {took_s:.1f} s")
    made = len(await _packets_of(app)) - packets_before
    named = len({response.headers.get("X-Packet-Id") for response in responses} - {None})
    run.expect(made == named, f"expected {named} packets, as the answers name them, got {made}")
    await _compare(run, step, app, responses, upstream.calls[before:])
    for request, response in zip(requests, responses, strict=True):
        run.answers.append(response)
        check_form(run, response)
        if not once:
            await check_repeat(run, app, upstream, request, response)
    check_tokens(run, upstream)


def requests_of(run: Run, step: Step) -> list[dict[str, Any]]:
    """Give the step's request, and as many like it as go out at once, each about an instant of its own."""
    request = filled_in({**REQUEST, **run.case.request, **step.request}, run.values)
    request.pop("once", None)
    asked_at = parse_instant(request["eventTime"])
    # Another instant is another question, which no answer to the first one can serve.
    others = (asked_at - timedelta(seconds=number) for number in range(1, run.case.at_once))
    return [request, *({**request, "eventTime": instant.isoformat()} for instant in others)]


async def _compare(run: Run, step: Step, app: Any, responses: Sequence[Any], calls: list[Call]) -> None:
    """Compare each answer with the alternative that it comes nearest to, and the writes with what all of them allow."""
    writes_due = 0
    for response in responses:
        packets = await _packets_of(app, response)
        tries = [(not_as_expected(it, response, packets, calls, run.bed.names), it) for it in step.expected]
        problems, nearest = min(tries, key=lambda tried: len(tried[0]))
        run.problems += problems
        writes_due += (nearest.answer == "OK") if nearest.writes is None else nearest.writes
    written = sum(call.route == "score" for call in calls)
    # Of scores that were asked for at once, an older one that comes after a newer one is not written.
    least = min(writes_due, 1) if run.case.at_once > 1 else writes_due
    run.expect(least <= written <= writes_due, f"expected {writes_due} writes, got {written}")
    shown = [expected.ready for expected in step.expected if expected.ready is not None]
    if shown:
        ready = (await app.get("health_ready")).get_body().decode()
        run.expect(any(each in ready for each in shown), f"expected health to show {' or '.join(shown)}, got {ready}")


async def _packets_of(app: Any, response: Any = None) -> list[InferencePacket]:
    """Give the packet that the answer names; all of the store for an answer that names none, or without one."""
    everything = await app.store.packets(model_id="hematocrit", after=None, limit=1000)
    named = response.headers.get("X-Packet-Id") if response is not None else None
    return [packet for packet in everything if named is None or packet.packet_id == named]
