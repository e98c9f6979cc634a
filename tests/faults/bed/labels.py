"""Runs one case of labelling: a score is made, time passes, the record changes, and labels are extracted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from deployr_core.packet import (
    Abstained,
    Censored,
    Decision,
    Failed,
    InferencePacket,
    Mode,
    Observed,
    Outcome,
    Received,
    Rejected,
    Scored,
)
from label_extractors.standing import standing_of
from tests.faults.bed.chart import REQUEST, chart_of
from tests.faults.bed.rows import Case, Expect, LabelCase, LabelStep, Step
from tests.faults.bed.runner import run_case
from tests.faults.bed.running import Bed, Run

_NOW = datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
_TIMERS = {"extract": "extract_labels", "review": "review_labels"}


async def run_label_case(case: LabelCase, bed: Bed) -> list[str]:
    """Run one case, and say in what it was not as it must be; nothing if all was well."""

    async def take(run: Run, _: Step) -> None:
        await _take(run, case)

    asked = Case(name=case.name, settings=case.settings, upstream=case.upstream, expect=Expect(answer="OK"))
    return await run_case(asked, bed, take=take)


async def _take(run: Run, case: LabelCase) -> None:
    app, upstream = run.apps[0], run.upstreams[0]
    if not case.empty:
        response = await app.infer(**REQUEST)
        run.expect(response.status_code == 200, f"expected a score, got {response.status_code}")
        await _store_beside(app, case)
    for step in case.steps:
        upstream.chart = chart_of(step.chart, run.values)
        app.set_clock(_NOW + timedelta(hours=step.after_h))
        own = app.store.replace_label
        app.store.replace_label = _beside_another(app.store, own, step.conflicts)
        run.bed.said()
        for _ in range(2):
            before = await _labels(app)
            await asyncio.gather(*(app.fire(_TIMERS[step.run]) for _ in range(step.at_once)))
            said = run.bed.said()
            if step.conflicts or step.said is not None:
                break
        else:
            run.expect(await _labels(app) == before, "a second run changed something")
        run.expect(step.said is None or step.said in said, f"expected {step.said} in the log, got {said}")
        if not case.empty:
            _check_label(run, step, await _labels(app))
        app.store.replace_label = own
    later = _NOW + timedelta(days=99)
    [standing] = [each async for each in standing_of(app.application.services, ["hematocrit"], now=later)]
    for name, count in case.standing.items():
        found = getattr(standing, name, standing.excluded.get(name, 0))
        run.expect(found == count, f"expected {count} {name}, got {found}")
    run.expect(standing.scored + sum(standing.excluded.values()) == len(await _packets(app)), "a packet is not counted")


async def _store_beside(app: Any, case: LabelCase) -> None:
    [packet] = await _packets(app)
    outcomes: dict[str, Outcome] = {
        "failed": Failed(reason="emr-timeout", retryable=True),
        "abstained": Abstained(reason="sparse"),
        "rejected": Rejected(reason="wrong-patient"),
        "received": Received(lease_until=_NOW),
        "silent": _silent(packet),
    }
    for number, name in enumerate(case.beside):
        other = msgspec.structs.replace(packet, packet_id=f"p{number:032}", outcome=outcomes[name])
        await app.store.create(other)


def _silent(packet: InferencePacket) -> Scored:
    assert isinstance(packet.outcome, Scored)
    decision = Decision(mode=Mode.SILENT, advise=False, why="silent", policy_sha256="0" * 64)
    return msgspec.structs.replace(packet.outcome, decision=decision)


async def _packets(app: Any) -> tuple[InferencePacket, ...]:
    found: tuple[InferencePacket, ...] = await app.store.packets(model_id="hematocrit", after=None, limit=100)
    return found


async def _labels(app: Any) -> list[Any]:
    return list(await app.store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=100))


def _beside_another(store: Any, own: Any, times: int) -> Any:
    """Give the store's own method, before which another extractor changes the label, so many times."""
    left = [times]

    async def replace_label(label: Any, *, etag: str) -> Any:
        if left[0]:
            left[0] -= 1
            held = await store.read_label(label.label_id)
            theirs = msgspec.structs.replace(held.label, history=(*held.label.history, held.label.outcome))
            await own(theirs, etag=held.etag)
        return await own(label, etag=etag)

    return replace_label


def _check_label(run: Run, step: LabelStep, labels: list[Any]) -> None:
    if not labels:
        run.expect(step.label == "not-yet", f"expected {step.label}, got no label")
        return
    for label in labels:
        found = (_word(label.outcome), tuple(_word(each) for each in label.history))
        run.expect(found == (step.label, step.history), f"expected {(step.label, step.history)}, got {found}")
        run.expect(label.label_id == f"{label.packet_id}.{label.rule}", "a label under another id than its packet's")
    run.expect(len({label.packet_id for label in labels}) == len(labels), "two labels of one packet")


def _word(outcome: Observed | Censored) -> str:
    if isinstance(outcome, Censored):
        return outcome.reason
    return {1.0: "abnormal", 0.0: "normal"}[float(outcome.value)]  # type: ignore[arg-type]
