"""What monitoring reads of a million packets: made up, merged as an extract would, and opened in fresh processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.measured import Measured
from deployr_core.packet import InferencePacket, Label, ModelRef, Observed, Scored, StoredVector, Subject, Trigger
from deployr_dash.extract import extract
from deployr_dash.merging import CHANGED_SCHEMA, VECTORS_SCHEMA, Changes, Merging
from deployr_dash.overview import write_overview
from deployr_dash.parts import Index
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.store_bootstrap import Store, open_store
from deployr_serve.store_settings import InFile

_PACKETS, _STEP, _MODELS, _DAYS = 1_000_000, 50_000, 12, 35
_FEATURES = 160
"""How many features of a packet are not zero in the silent trial."""
_STORED = 5_000
_BEGUN = datetime(2025, 3, 17, tzinfo=UTC)
_MOST_MB = 1500.0

_OPENING = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from deployr_dash.overview import overview
folder = Path(sys.argv[1])
packets = int(overview(folder).daily["packets"].sum())
first = time.perf_counter() - started
started = time.perf_counter()
overview(folder)
second = time.perf_counter() - started
from deployr_dash.loading import load_frame
started = time.perf_counter()
load_frame(folder, columns=("score", "label_value", "patient_code", "sex", "received_at", "model_id"))
loading = time.perf_counter() - started

peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([packets, first, second, loading, peak]))
"""


def dashboard_data() -> list[Measured]:
    """Open a million packets without the cache and with it, each in a fresh process; extract some from SQLite."""
    with tempfile.TemporaryDirectory(prefix="deployr-monitor-") as scratch:
        folder = Path(scratch) / "million"
        started = time.perf_counter()
        _merge_a_million(folder)
        merged_s = time.perf_counter() - started
        cold = _opened(folder)
        write_overview(folder)
        warm = _opened(folder)
        per_s, again_s = asyncio.run(_extracted(Path(scratch)))
    if cold[0] != _PACKETS or warm[0] != _PACKETS:
        raise RuntimeError("expected every packet in the overview")
    return [
        _at_most(
            "overview of a million packets, nothing counted before, from the start of Python's imports", cold[1], 3.0
        ),
        _at_most("the same from the cache", warm[1], 1.0),
        _at_most("the same again in the same process", warm[2], 1.0),
        _figure("six columns of a million packets, as pandas", warm[3], "s"),
        _at_most("peak memory of these, without the cache", cold[4], _MOST_MB, unit="MB"),
        _figure("a million packets merged into parts, in steps of 50,000", merged_s, "s"),
        _figure("packets extracted from SQLite", per_s, "1/s"),
        _figure("an extract where nothing has changed", again_s, "s"),
    ]


def _opened(folder: Path) -> list[float]:
    done = subprocess.run(  # noqa: S603 ourselves
        [sys.executable, "-c", _OPENING, str(folder)], check=True, capture_output=True, text=True, timeout=600
    )
    found: list[float] = json.loads(done.stdout)
    return found


def _merge_a_million(folder: Path) -> None:
    folder.mkdir()
    index, rng = Index(), np.random.default_rng(0)
    for first in range(0, _PACKETS, _STEP):
        changes = Changes()
        changes.packets.append(_packets(first, rng))
        changes.vectors.append(_vectors(changes.packets[0], rng))
        merging = Merging(folder, index)
        merging.take(changes)
        index = merging.done(cursor=str(first), now=_BEGUN)


def _packets(first: int, rng: np.random.Generator) -> pa.Table:
    """Make up packets of all models, over five weeks; of 100, 96 have a score and 90 a label."""
    numbers = np.arange(first, first + _STEP)
    received = np.datetime64(_BEGUN.replace(tzinfo=None), "us") + (numbers / _PACKETS * _DAYS * 86_400e6).astype(
        "timedelta64[us]"
    )
    instants = pa.array(received, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    drawn, scores = rng.random(_STEP), rng.beta(2, 5, _STEP)
    is_scored, is_labelled, latency = drawn < 0.96, drawn < 0.90, rng.lognormal(6, 0.6, _STEP)
    models = [f"model-{number:02d}" for number in range(_MODELS)]
    given = {
        "packet_id": [f"p{number:032x}" for number in numbers],
        "model_id": [models[number % _MODELS] for number in numbers],
        "version": ["0123456789ab"] * _STEP,
        "received_at": instants,
        "started_at": instants,
        "as_of": instants,
        "latency_ms": latency,
        "kind": np.where(is_scored, "scored", "failed"),
        "reason": pa.array(np.where(is_scored, "", "emr-timeout"), mask=is_scored),
        "score": pa.array(scores, mask=~is_scored),
        "mode": pa.array(["silent"] * _STEP, mask=~is_scored),
        "advised": pa.array(np.zeros(_STEP, dtype=bool), mask=~is_scored),
        "patient_code": rng.integers(0, 40_000, _STEP),
        "emr_calls": np.full(_STEP, 6),
        "sex": pa.array(np.where(rng.random(_STEP) < 0.5, "female", "male"), mask=~is_scored),
        "label_kind": pa.array(["observed"] * _STEP, mask=~is_labelled),
        "label_value": pa.array((rng.random(_STEP) < scores).astype(float), mask=~is_labelled),
        "month": np.datetime_as_string(received, unit="M"),
        **{f"deliveries_{state}": np.zeros(_STEP, dtype=np.int32) for state in ("pending", "sent", "dead")},
    }
    columns = [
        pa.array(given[field.name]).cast(field.type) if field.name in given else pa.nulls(_STEP, field.type)
        for field in CHANGED_SCHEMA
    ]
    return pa.table(columns, schema=CHANGED_SCHEMA)


def _vectors(packets: pa.Table, rng: np.random.Generator) -> pa.Table:
    scored = packets.filter(pc.equal(packets["kind"].cast(pa.string()), "scored"))
    count = scored.num_rows
    starts = np.arange(count + 1, dtype=np.int32) * _FEATURES
    columns = np.sort(rng.integers(0, 5_000, (count, _FEATURES), dtype=np.int32), axis=1).ravel()
    values = rng.integers(1, 8, count * _FEATURES).astype(np.float32)
    return pa.table(
        [
            scored["packet_id"],
            scored["received_at"],
            pa.ListArray.from_arrays(starts, columns),
            pa.ListArray.from_arrays(starts, values),
        ],
        schema=VECTORS_SCHEMA,
    )


async def _extracted(folder: Path) -> tuple[float, float]:
    """Give how many packets a second are extracted, and how long it takes to find that nothing has changed."""
    store = open_store(InFile(file=folder / "store.sqlite"), clock=SystemClock(), deadline_s=60.0)
    try:
        for first in range(0, _STORED, 500):
            await asyncio.gather(*(_stored(store, number) for number in range(first, first + 500)))
        took = []
        for _ in range(2):
            started = time.perf_counter()
            await extract(store, folder / "extract", bundles=_NoBundles(), now=_BEGUN)
            took.append(time.perf_counter() - started)
    finally:
        await store.aclose()
    return _STORED / took[0], took[1]


class _NoBundles:
    def files(self, digest: str) -> None:  # noqa: ARG002 none is here
        return None


async def _stored(store: Store, number: int) -> None:
    packet = _packet(number)
    await store.create(packet)
    observed = Observed(value=float(number % 2), at=_BEGUN, known_at=_BEGUN, source_id="l")
    label = Label(
        label_id=f"{packet.packet_id}.lab-component",
        packet_id=packet.packet_id,
        rule="lab-component",
        outcome=observed,
        attached_at=_BEGUN,
    )
    await store.attach_label(label)


def _packet(number: int) -> InferencePacket:
    asked = _BEGUN + timedelta(minutes=number)
    vector = StoredVector(
        spec_sha256="0" * 64,
        size=5_000,
        indices=tuple(range(0, _FEATURES * 30, 30)),
        values=tuple(1.0 + each % 7 for each in range(_FEATURES)),
    )
    return InferencePacket(
        packet_id=f"p{number:032x}",
        site="benchmark",
        environment="BENCH",
        model=ModelRef(model_id=f"model-{number % _MODELS:02d}", version="1", bundle_sha256="0" * 64),
        trigger=Trigger(
            channel="json", correlation_id="c", request_sha256="0" * 64, received_at=asked, event_time=asked
        ),
        subject=Subject(patient_id="p", encounter_id="e", order_id="o"),
        patient_hash=f"{number % 500:032x}",
        as_of=asked,
        outcome=Scored(score=0.25, vector=vector, coverage={"labs": 300}, entity_id="1"),
        started_at=asked,
        updated_at=asked + timedelta(milliseconds=400),
    )


def _at_most(name: str, value: float, most: float, *, unit: str = "s") -> Measured:
    return msgspec.structs.replace(_figure(name, value, unit), goal=f"value <= {most:g} {unit}", met=value <= most)


def _figure(name: str, value: float, unit: str) -> Measured:
    return Measured(name=name, value=round(value, 3), unit=unit, baseline=None, ratio=None, goal="", met=None)
