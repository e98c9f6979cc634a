"""How many stored packets a second are scored again, and that all of them are the same to the bit."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.measured import Measured
from benchmarks.staging import write_model
from deployr_cli.demo.run import TASK
from deployr_cli.replay import Period, run_replay
from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket, Mode, ModelRef, Scored, StoredVector, Subject, Trigger
from deployr_serve.adapters.bundle_files import read_bundle
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.decide import decide
from deployr_serve.core.explain import explained_score, vector_of
from deployr_serve.core.policy import Band, Policy

_PACKETS = 10_000
_TREES = 100
_SINCE = datetime(2026, 3, 1, tzinfo=UTC)
_POLICY = Policy(
    schema_version=1,
    model=TASK,
    mode=Mode.LIVE,
    threshold=0.3,
    bands=(Band(name="low", at_least=0.0), Band(name="high", at_least=0.3)),
)


def replaying() -> list[Measured]:
    """Replay 10,000 packets of a month out of a SQLite store: each is read, scored, taken apart and compared.

    The model has 100 trees, and a packet some 60 features that are not 0.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, trees=_TREES)
        bundle = read_bundle(folder / "bundles" / TASK)
        asyncio.run(_store(folder / "store.sqlite", bundle))
        environ = {
            "DEPLOYR_BUNDLES": str(folder / "bundles"),
            "DEPLOYR_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4",
        }
        found = folder / "found.json"
        code = run_replay(
            None,
            packet_id=None,
            period=Period(since=_SINCE),
            from_facts=False,
            json_file=found,
            console=Console(file=StringIO()),
            environ=environ,
        )
        told = json.loads(found.read_bytes())
    same = told["models"][TASK].get("same", 0)
    return [
        Measured(
            name="replay: packets that are the same to the bit, of 10,000",
            value=same,
            unit="packets",
            baseline=None,
            ratio=None,
            goal=f"value = {_PACKETS:,}",
            met=same == _PACKETS and code == 0,
        ),
        Measured(
            name="replay: packets scored again, explained and compared",
            value=round(told["packets"] / told["seconds"]),
            unit="/s",
            baseline=None,
            ratio=None,
            goal="",
            met=None,
        ),
    ]


async def _store(file: Path, bundle: Bundle) -> None:
    store = SqliteStore(file)
    random = np.random.default_rng(0)
    for first in range(0, _PACKETS, 500):
        numbers = range(first, min(first + 500, _PACKETS))
        await asyncio.gather(*(store.create(_packet(number, bundle, random)) for number in numbers))
    await store.aclose()


def _packet(number: int, bundle: Bundle, random: np.random.Generator) -> InferencePacket:
    size = bundle.manifest.n_features
    indices = np.flatnonzero(random.random(size) < min(1.0, 60 / size))
    vector = StoredVector(
        spec_sha256=bundle.manifest.spec_sha256,
        size=size,
        indices=tuple(indices.tolist()),
        values=tuple(np.round(random.gamma(2.0, 10.0, indices.size), 2).tolist()),
    )
    outputs = bundle.manifest.task.outputs
    answer = bundle.model.answer(vector_of(vector))
    scored = Scored(
        score=answer[outputs.place],
        outputs=outputs.named(answer),
        vector=vector,
        coverage={"labs.results": int(indices.size)},
        entity_id=None,
        decision=decide(_POLICY, score=answer[outputs.place]),
    )
    asked_at = _SINCE + timedelta(minutes=4 * number)
    return InferencePacket(
        packet_id=f"p{number:032x}",
        site="bench",
        environment="BENCH",
        model=ModelRef(model_id=TASK, version=bundle.manifest.version, bundle_sha256=bundle.digest),
        trigger=Trigger(
            channel="json", correlation_id="c", request_sha256="0" * 64, received_at=asked_at, event_time=asked_at
        ),
        subject=Subject(patient_id=f"patient-{number}"),
        as_of=asked_at,
        outcome=explained_score(scored, bundle),
        started_at=asked_at,
        updated_at=asked_at,
    )
