"""What one order costs that one model or several are asked about: processor time, and calls of the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.cosmos_calls import Calls, counting
from benchmarks.patients import asked
from benchmarks.scale_hosts import House
from benchmarks.staging import NOW
from deployr_cli.demo.run import TASK
from deployr_core.bundle import MANIFEST_FILE, parse_manifest
from deployr_core.packet import Scored, Subject
from deployr_serve.bootstrap import Application, build
from deployr_serve.core.infer import infer_group
from deployr_serve.core.request import InferenceRequest
from deployr_serve.settings import read_settings

MODELS = 4
"""About as many as the paper asked about an order: 176,400 packets of 40,000."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """``processor_ms`` in this process, without the host around it; ``calls`` by kind and ``sent_bytes`` of each call
    on average, all for one order."""

    models: int
    processor_ms: float
    calls: Mapping[str, float]
    sent_bytes: Mapping[str, float]


def write_like_it(bundles: Path) -> None:
    """Write more models beside the trained one, of the same files under other names."""
    trained = bundles / TASK
    for name in _names()[1:]:
        folder = bundles / name
        folder.mkdir()
        for file in trained.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        manifest = parse_manifest((trained / MANIFEST_FILE).read_bytes())
        (folder / MANIFEST_FILE).write_bytes(msgspec.structs.replace(manifest, model_id=name).to_json())


async def of_one_order(house: House, bundles: Path, *, orders: int) -> tuple[Order, ...]:
    """Measure so many orders of one model, then of several; each order is about another patient.

    They are measured twice: for the time as they are, and with somebody between the app and the store who counts.
    """
    made = []
    store = house.azure["DEPLOYR_STORE"]
    for models in (1, MODELS):
        used_s = await _asked(house, bundles, store, models, orders=orders)
        calls = Calls()
        async with counting(store.removeprefix("cosmos:"), calls) as address:
            await _asked(house, bundles, f"cosmos:{address}", models, orders=orders, calls=calls)
        made.append(
            Order(
                models=models,
                processor_ms=used_s * 1000 / orders,
                calls={name: round(count / orders, 2) for name, count in sorted(calls.counted.items())},
                sent_bytes={name: round(sent / calls.counted[name]) for name, sent in sorted(calls.sent_bytes.items())},
            )
        )
    return tuple(made)


async def _asked(
    house: House, bundles: Path, store: str, models: int, *, orders: int, calls: Calls | None = None
) -> float:
    """Ask about so many orders, one after the other, once the app is warm; give the seconds of processor time.

    ``calls``: emptied once it is warm.
    """
    settings = {
        **house.azure,
        "DEPLOYR_STORE": store,
        "DEPLOYR_BUNDLES": str(bundles),
        "DEPLOYR_EMR_FHIR_BASE": f"{house.processes.emr}/api/FHIR/R4",
        "DEPLOYR_EMR_VENDOR_BASE": house.processes.emr,
        "DEPLOYR_CLOCK_FILE": str(house.folder / "now"),
        # Packets go by it: what was asked before, or is asked of the hosts, is another request.
        "DEPLOYR_ID_KEY": f"of orders of {models} alone, {'counted' if calls else 'timed'}",
    }
    application = build(read_settings(settings))
    try:
        await _ask(application, models, 0)
        if calls is not None:
            calls.forget()
        used = time.process_time()
        for number in range(1, orders + 1):
            await _ask(application, models, number)
        return time.process_time() - used
    finally:
        await application.aclose()


async def _ask(application: Application, models: int, number: int) -> None:
    what = asked(number, 0)
    requests = [
        InferenceRequest(
            channel="json",
            model_id=model_id,
            subject=Subject(patient_id=what.patient_id, encounter_id=what.encounter_id, order_id=what.order_id),
            event_time=NOW,
            idempotency_key=None,
            correlation_id=f"bench-{number}",
        )
        for model_id in _names()[:models]
    ]
    for answer in await infer_group(requests, application.services):
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer.packet.outcome, Scored):
            raise TypeError(f"expected a score, got {type(answer.packet.outcome).__name__}")


def _names() -> tuple[str, ...]:
    return TASK, *(f"{TASK}-{number}" for number in range(2, MODELS + 1))
