"""How many packets a second the stores take, and how long one takes: claimed, then stored with its delivery.

Beside SQLite, Azure Cosmos DB's stand-in: the real SDK over loopback to a small server in memory. It tells what our
side and the SDK cost, and nothing of the service.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from benchmarks.measured import Measured
from deployr_cli.up_azure import COSMOS_KEY, missing, running_azurite, running_cosmos
from deployr_core.packet import (
    Delivery,
    DeliveryState,
    InferencePacket,
    ModelRef,
    Received,
    Scored,
    StoredVector,
    Subject,
    Trigger,
)
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.store_bootstrap import Store, open_store
from deployr_serve.store_settings import InCosmos, InFile, StoreSettings

_NOW = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
_FEATURES = 400
"""How many features of a packet are not zero: about what a chart of some hundred results gives."""
_AT_ONCE = 32
_PACKETS = {"SQLite": 2_000, "Cosmos DB stand-in": 600}


def stored_packets() -> tuple[Measured, ...]:
    """Measure each store, one packet after the other for the time of one, and many at once for packets a second."""
    found: list[Measured] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deployr-store-")))
        places: dict[str, StoreSettings] = {"SQLite": InFile(file=folder / "store.sqlite")}
        if not (missing("azurite") or missing("@vercel/cosmosdb-server")):
            places["Cosmos DB stand-in"] = InCosmos(
                address=stack.enter_context(running_cosmos()),
                database="benchmark",
                key=COSMOS_KEY,
                blobs=stack.enter_context(running_azurite()),
                identity=None,
            )
        for name, place in places.items():
            found += asyncio.run(_measured(name, place, count=_PACKETS[name]))
    return tuple(found)


async def _measured(name: str, place: StoreSettings, *, count: int) -> tuple[Measured, ...]:
    store = open_store(place, clock=SystemClock(), deadline_s=60.0)
    try:
        await store.init()
        await _stored(store, "warm")
        took = [await _timed(functools.partial(_stored, store, f"one{number}")) for number in range(count // 4)]
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await _stored(store, f"many{number}")

        together_s = await _timed(lambda: asyncio.gather(*(worker() for _ in range(_AT_ONCE))))
    finally:
        await store.aclose()
    size = len(msgspec.json.encode(_packet("x", scored=True)))
    return (
        _figure(
            f"{name}: a packet of {size / 1000:.1f} kB claimed and stored, p50", statistics.median(took) * 1000, "ms"
        ),
        _figure(f"{name}: packets claimed and stored, {_AT_ONCE} at once", count / together_s, "1/s"),
    )


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _stored(store: Store, packet_id: str) -> None:
    created = await store.create(_packet(packet_id, scored=False))
    if created is None:
        raise RuntimeError("expected an empty store")
    delivery = Delivery(
        delivery_id=f"{packet_id}.score-column",
        packet_id=packet_id,
        output="score-column",
        state=DeliveryState.PENDING,
        created_at=_NOW,
        updated_at=_NOW,
    )
    await store.replace(_packet(packet_id, scored=True), etag=created.etag, deliveries=(delivery,))


def _packet(packet_id: str, *, scored: bool) -> InferencePacket:
    vector = StoredVector(
        spec_sha256="0" * 64,
        size=5_000,
        indices=tuple(range(0, _FEATURES * 12, 12)),
        values=tuple(1.0 + number % 7 for number in range(_FEATURES)),
    )
    outcome = (
        Scored(score=0.25, vector=vector, coverage={"labs": 300, "diagnoses": 40}, entity_id="1")
        if scored
        else Received(lease_until=_NOW + timedelta(seconds=16))
    )
    return InferencePacket(
        packet_id=packet_id,
        site="benchmark",
        environment="BENCH",
        model=ModelRef(model_id="hematocrit", version="1", bundle_sha256="0" * 64),
        trigger=Trigger(channel="json", correlation_id="c", request_sha256="0" * 64, received_at=_NOW, event_time=_NOW),
        subject=Subject(patient_id="p", encounter_id="e", order_id="o"),
        as_of=_NOW,
        outcome=outcome,
        started_at=_NOW,
        updated_at=_NOW,
    )


def _figure(name: str, value: float, unit: str) -> Measured:
    return Measured(name=name, value=round(value, 3), unit=unit, baseline=None, ratio=None, goal="", met=None)
