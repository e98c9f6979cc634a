"""The demo from end to end. Its steps are the product's own; only the data and the passing of time are staged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
from rich.console import Console

from deployr_cli.demo.events import OrderSigned, orders_signed, patient_identifiers, start_of_replay
from deployr_cli.demo.figures import (
    DemoFigures,
    ParityFigures,
    Rerun,
    latency,
    prospective_auroc,
    unfinished,
)
from deployr_cli.demo.making import synthetic_hospital, trained_model
from deployr_cli.demo.monitoring import monitored
from deployr_cli.demo.processes import Running, running, store_file
from deployr_cli.demo.replay import Driver, Replayed
from deployr_cli.demo.table import show
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.workspaces import fresh_workspace
from deployr_core.bundle import Bundle
from deployr_core.label_rules import horizon, rule_name
from deployr_core.packet import Delivery, InferencePacket, Label, Scored
from deployr_core.packet_ids import derive_delivery_id
from deployr_core.vectorize import FeatureVector, vectorize
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.parity import ParityReport, compare_vectors
from deployr_dev.sources.extract import Extract
from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.sqlite_store import SqliteStore

TASK = "hematocrit"
PARITY_ORDERS = 200
_EVERYTHING = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Evidence:
    packets: tuple[InferencePacket, ...]
    deliveries: tuple[Delivery | None, ...]
    labels: tuple[Label, ...]
    score_rows: int


def run_demo(
    *, data: Path | None, json_file: Path | None, workspace: Path, seed: int, console: Console | None = None
) -> bool:
    """Run the demo, show its table, write its figures; True if every part of it worked.

    Raises:
        CommandFailed, ExtractInvalid, TrainingImpossible and other ValueErrors: it could not be run to its end.
    """
    console = console or Console()
    workspace = fresh_workspace(workspace, of="demo")
    if data is None:
        data = synthetic_hospital(workspace / "hospital", console=console)
    omop, fhir = data / "omop", data / "fhir"
    for folder in (omop, fhir):
        if not folder.is_dir():
            raise CommandFailed(f"{folder}: expected the folder {folder.name}/ in {data}")
    task = shipped_task(TASK)
    events = orders_signed(fhir, panels=task.panels)
    before = start_of_replay(events)
    bundle = trained_model(omop, workspace / "bundles" / TASK, task=task, before=before, seed=seed, console=console)
    replayed_events = tuple(event for event in events if event.signed_at >= before)
    clock_file = workspace / "now"
    with running(
        workspace=workspace,
        fhir=fhir,
        bundles=workspace / "bundles",
        now=replayed_events[0].signed_at,
        clock_file=clock_file,
    ) as processes:
        replayed, first, again = asyncio.run(
            _replay_twice(
                processes, replayed_events, bundle=bundle, workspace=workspace, clock_file=clock_file, console=console
            )
        )
    parity = _parity(omop, fhir, first, bundle=bundle, seed=seed, console=console)
    dashboard = monitored(workspace, console=console)
    figures = DemoFigures(
        inferences=len(replayed_events),
        failed=len(replayed_events) - sum(isinstance(packet.outcome, Scored) for packet in first.packets),
        unfinished=unfinished(first.packets, first.deliveries),
        labels_observed=sum(label.outcome.__struct_config__.tag == "observed" for label in first.labels),
        labels_censored=sum(label.outcome.__struct_config__.tag == "censored" for label in first.labels),
        score_rows=first.score_rows,
        auroc_retrospective=bundle.manifest.evaluation.figures["auroc"],
        auroc_prospective=prospective_auroc(first.packets, first.labels, seed=seed),
        latency_ms=latency(replayed.latencies_ms),
        parity=ParityFigures(
            orders=parity.orders,
            features_compared=parity.features_compared,
            features_equal=parity.features_equal,
        ),
        rerun=Rerun(
            new_packets=len(again.packets) - len(first.packets),
            new_labels=len(again.labels) - len(first.labels),
            new_writes=again.score_rows - first.score_rows,
        ),
    )
    show(
        figures,
        parity,
        bundle=bundle,
        before=before,
        until=events[-1].signed_at,
        workspace=workspace,
        dashboard=dashboard,
        console=console,
    )
    if json_file is not None:
        content = msgspec.to_builtins(figures)
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return not figures.complaints


async def _replay_twice(
    processes: Running,
    events: Sequence[OrderSigned],
    *,
    bundle: Bundle,
    workspace: Path,
    clock_file: Path,
    console: Console,
) -> tuple[Replayed, _Evidence, _Evidence]:
    store = SqliteStore(store_file(workspace))
    runs = []
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
            driver = Driver(processes, clock_file, session)
            for title in ("Replaying the orders that were signed", "Replaying them again"):
                with bar(console, title) as tell:
                    replayed = await driver.replay(events, model_id=bundle.manifest.model_id, tell=tell)
                with bar(console, "Letting time pass, extracting labels"):
                    window = horizon(bundle.manifest.task.rule) or timedelta()
                    ripe = events[-1].signed_at + window + timedelta(hours=1)
                    await driver.set_time(ripe)
                    await driver.fire("relay_deliveries")
                    await driver.fire("extract_labels")
                runs.append((replayed, await _evidence(store, driver, bundle)))
    finally:
        await store.aclose()
    (replayed, first), (_, again) = runs
    return replayed, first, again


async def _evidence(store: SqliteStore, driver: Driver, bundle: Bundle) -> _Evidence:
    model_id = bundle.manifest.model_id
    packets = await store.packets(model_id=model_id, after=None, limit=_EVERYTHING)
    deliveries = [
        await store.read_delivery(derive_delivery_id(packet.packet_id, ScoreColumn.name))
        for packet in packets
        if isinstance(packet.outcome, Scored)
    ]
    return _Evidence(
        packets=packets,
        deliveries=tuple(deliveries),
        labels=await store.labels(
            model_id=model_id, rule=rule_name(bundle.manifest.task.rule), after=None, limit=_EVERYTHING
        ),
        score_rows=await driver.score_rows(),
    )


def _parity(
    omop: Path, fhir: Path, evidence: _Evidence, *, bundle: Bundle, seed: int, console: Console
) -> ParityReport:
    """Compute the warehouse's vector for a sample of the packets, at their instant, and compare."""
    scored = [packet for packet in evidence.packets if isinstance(packet.outcome, Scored)]
    chosen = np.random.default_rng(seed).permutation(len(scored))[:PARITY_ORDERS]
    identifiers = patient_identifiers(fhir)
    by_identifier: dict[str, list[InferencePacket]] = {}
    for place in chosen:
        packet = scored[place]
        by_identifier.setdefault(identifiers[packet.subject.patient_id], []).append(packet)
    with Extract.open(omop) as extract, bar(console, "Comparing with the warehouse") as tell:
        persons = {
            person_id: by_identifier[value]
            for person_id, value in extract.patient_source_values().items()
            if value in by_identifier
        }
        vectors: dict[str, FeatureVector] = {}
        for facts in extract.patients(tuple(persons)):
            for packet in persons[int(facts.patient_id)]:
                vectors[packet.packet_id] = vectorize(facts, bundle.spec, packet.as_of)
            tell(len(vectors), len(chosen))
    if len(vectors) != len(chosen):
        raise CommandFailed(f"{omop}: expected every replayed patient's identifier as a person_source_value")
    pairs = (
        (packet.outcome.vector, vectors[packet.packet_id])
        for packet in scored
        if isinstance(packet.outcome, Scored) and packet.packet_id in vectors
    )
    return compare_vectors(pairs, bundle.spec)
