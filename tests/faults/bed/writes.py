"""Runs one case of sending: a score is made, sent, and sent again by the relay, and the EMR is looked at afterwards."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from deployr_core.instants import parse_instant
from deployr_core.packet import Delivery, DeliveryState, InferencePacket, Scored
from deployr_serve.core.deliver import deliver
from deployr_serve.core.ports import Budget
from mock_emr.clock import EmrClock
from mock_emr.faults import Rule
from mock_emr.hosting import listening
from mock_emr.serve import create_app, real_now
from mock_emr.written import WriteSite
from tests.faults.bed.chart import CANARIES, NAMES, REQUEST, chart_of
from tests.faults.bed.network import foreign_host, watched_network
from tests.faults.bed.rows import WriteCase, WriteExpect, filled_in
from tests.faults.bed.running import Bed

_NOW = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
_SCORES: dict[str, Any] = {
    "nan": math.nan,
    "inf": math.inf,
    "-0.0": -0.0,
    "1.5": 1.5,
    "none": None,
    "numpy": np.float64(0.5),
}
_OUTPUTS = """
schema_version: 1
flowsheet: {rows: {hematocrit: "90001"}}
smart-data: {elements: {hematocrit: "DEPLOYR#001"}}
in-basket: {recipients: [{id: "P77"}], sender_id: "DEPLOYR"}
observation: {rows: {hematocrit: "90001"}}
"""
_IN_ADDRESSES = ("ADDFLOWSHEETVALUE", "GETPATIENTIDENTIFIERS")
"""The vendor takes identifiers in the addresses of these, and in no other place."""


async def run_write_case(case: WriteCase, bed: Bed) -> list[str]:
    """Run one case, and say in what it was not as it must be; nothing if all was well."""
    bed.said()
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        watched = stack.enter_context(watched_network())
        foreign, arrived = await stack.enter_async_context(foreign_host())
        emr, url, addresses = await _emr(case, stack, foreign, bed.bundles_of({}).parent)
        app = _app(case, bed, url)
        await _ask(case, app, emr)
        for step in range(case.relays):
            app.set_clock(_NOW + timedelta(minutes=2 * (step + 1)))
            await asyncio.gather(*(app.fire("relay_deliveries") for _ in range(case.relays_at_once)))
        packets = await _packets(app, case)
        deliveries = [await app.store.read_delivery(_delivery_id(case, packet)) for packet in packets]
        expect = msgspec.convert(filled_in(msgspec.to_builtins(case.expect), {"foreign": foreign}), WriteExpect)
        problems += _differences(expect, deliveries, _held(emr))
        problems += [f"{len(arrived)} connections to the foreign host"] if arrived else []
        own = urlsplit(url)
        strangers = watched.connected - {(own.hostname or "", own.port or 0)}
        problems += [f"connected to {len(strangers)} addresses that are not configured"] if strangers else []
        await app.application.aclose()
    shown = {
        "logs or standard output": bed.said(),
        "addresses": "\n".join(each for each in addresses if not any(path in each for path in _IN_ADDRESSES)),
        "deliveries": msgspec.json.encode(deliveries).decode(),
    }
    for place, text in shown.items():
        problems += [f"{name} in {place}" for name, canary in CANARIES.items() if canary.lower() in text.lower()]
    return problems


async def _emr(case: WriteCase, stack: AsyncExitStack, foreign: str, folder: Path) -> tuple[Any, str, list[str]]:
    chart = folder / "written-chart"
    chart.mkdir(exist_ok=True)
    (chart / "chart.ndjson").write_bytes(b"\n".join(map(msgspec.json.encode, chart_of({}, NAMES).values())))
    site = msgspec.convert(filled_in(case.site, {"foreign": foreign}), WriteSite)
    addresses: list[str] = []
    made: list[Any] = []

    def make(origin: str) -> Any:
        clock = EmrClock(real_now=real_now, now=_NOW)
        app = create_app(chart, clock=clock, open_access=True, base_url=origin, write_site=site)
        made.append(app.state.emr)

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            addresses.append(f"{scope.get('path')}?{scope.get('query_string', b'').decode()}")
            await app(scope, receive, send)

        return noting

    url = await stack.enter_async_context(listening(make))
    made[0].faults.put([msgspec.convert(rule, Rule) for rule in case.faults])
    return made[0], url, addresses


def _app(case: WriteCase, bed: Bed, url: str) -> Any:
    bundles = bed.bundles_of({})
    file = bundles.parent / "outputs.yaml"
    file.write_text(_OUTPUTS)
    settings = {
        "DEPLOYR_STORE": "memory",
        "DEPLOYR_BUNDLES": str(bundles),
        "DEPLOYR_OUTPUTS": case.output,
        "DEPLOYR_OUTPUTS_FILE": str(file),
        "DEPLOYR_EMR_USER_ID": "U1",
        **case.settings,
    }
    return bed.app_of(url, **settings)


async def _ask(case: WriteCase, app: Any, emr: Any) -> None:
    """Ask what the case asks; where it spoils a packet, its delivery is held up until it is spoilt."""
    spoils = case.score is not None or case.environment is not None or case.already > 0
    if spoils:
        emr.faults.put([Rule(route="metadata", status=503)])
    for instant in case.ask:
        response = await app.infer(**{**REQUEST, "eventTime": instant})
        assert response.status_code == 200, response.get_body()
    if spoils:
        emr.faults.put([msgspec.convert(rule, Rule) for rule in case.faults])
        await _send_spoilt(case, app, emr)
    if case.killed:
        for packet in await _packets(app, case):
            sent = await app.store.read_delivery(_delivery_id(case, packet))
            unsettled = msgspec.structs.replace(sent, state=DeliveryState.PENDING, attempts=0)
            await app.store.save_delivery(unsettled, was=sent)


async def _send_spoilt(case: WriteCase, app: Any, emr: Any) -> None:
    services = app.application.services
    [packet] = await _packets(app, case)
    delivery = await app.store.read_delivery(_delivery_id(case, packet))
    for _ in range(case.already):
        identifier = [{"system": "urn:deployr:delivery", "value": delivery.delivery_id}]
        subject = {"reference": f"Patient/{NAMES['patient']}"}
        emr.written.create({"resourceType": "Flag", "identifier": identifier, "subject": subject}, now=_NOW)
    if case.environment is not None:
        packet = msgspec.structs.replace(packet, environment=case.environment)
    if case.score is not None:
        assert isinstance(packet.outcome, Scored)
        # What no packet of ours can be made with, and what one may hold all the same.
        msgspec.structs.force_setattr(packet.outcome, "score", _SCORES[case.score])
    await deliver(
        delivery,
        packet,
        services.models.bundle("hematocrit"),
        store=services.store,
        outputs=services.outputs,
        clock=services.clock,
        budget=Budget(deadline=services.clock.monotonic() + 10, correlation_id="c-1"),
    )


async def _packets(app: Any, case: WriteCase) -> list[InferencePacket]:
    """Give the packets in the order in which they were asked for."""
    packets = await app.store.packets(model_id="hematocrit", after=None, limit=10)
    asked = [parse_instant(instant) for instant in case.ask]
    return sorted(packets, key=lambda packet: asked.index(packet.as_of))


def _delivery_id(case: WriteCase, packet: InferencePacket) -> str:
    return f"{packet.packet_id}.{case.output.partition('|')[0]}"


def _held(emr: Any) -> list[str]:
    """Give the values of every score that the EMR holds, of whatever kind, oldest first."""
    written = emr.written
    column = [row.score for cell in emr.scores.cells() for row in cell.rows]
    values = [one.value for one in (*written.flowsheet, *written.smart_data())]
    texts = [message.lines[0] for message in written.messages]
    resources = [str(one.get("period", {}).get("start") or one.get("effectiveDateTime")) for one in written.resources()]
    return [*column, *values, *texts, *resources]


def _differences(expected: WriteExpect, deliveries: list[Delivery], held: list[str]) -> list[str]:
    states = tuple(delivery.state.value for delivery in deliveries)
    attempts = tuple(delivery.attempts for delivery in deliveries)
    reason = deliveries[-1].last_error
    found = []
    if states != expected.states:
        found.append(f"expected deliveries {expected.states}, got {states} ({reason})")
    if expected.reason is not None and reason != expected.reason:
        found.append(f"expected the reason {expected.reason}, got {reason}")
    if expected.attempts is not None and attempts != expected.attempts:
        found.append(f"expected attempts {expected.attempts}, got {attempts}")
    if len(held) != expected.held:
        found.append(f"expected the EMR to hold {expected.held} scores, got {len(held)}")
    if expected.location is not None and not (deliveries[-1].location or "").startswith(expected.location):
        found.append("expected the address that the EMR gave to be kept as text")
    if expected.value is not None and held[-1:] != [expected.value]:
        found.append(f"expected the EMR to show {expected.value}")
    return found
