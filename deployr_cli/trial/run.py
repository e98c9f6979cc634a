"""The silent trial from end to end: a hospital, twelve models, its orders over HTTP, labels, and the paper's tables."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe

import aiohttp
import msgspec
from rich.console import Console

from deployr_cli.asking import ID_ROOTS
from deployr_cli.demo.monitoring import monitored
from deployr_cli.demo.processes import Running, running, store_file
from deployr_cli.demo.replay import Driver
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.trial.cohorts import cohort_figures
from deployr_cli.trial.figures import (
    ModelEvidence,
    TaskFigures,
    TrialFigures,
    estimated,
    evaluated,
    evidence_of,
)
from deployr_cli.trial.hospital import TrialHospital, trial_hospital
from deployr_cli.trial.models import GROUPS, train_models, write_deployments
from deployr_cli.trial.page import PAGE, REPORTS, write_page, write_reports
from deployr_cli.trial.replay import Replayed, TrialReplay
from deployr_cli.trial.tables import Found, show
from deployr_cli.trial.usage import ProcessorTime, growth, processor_time
from deployr_cli.workspaces import as_typed, fresh_workspace
from deployr_core.label_rules import horizon
from deployr_dev.evaluation.records import Evaluation
from deployr_dev.sources.extract import Extract
from deployr_dev.trained import TrainedBundle
from deployr_serve.adapters.sqlite_store import SqliteStore

_CALLER = "alerts"
_HOSTS = 2
_LABEL_BUDGET_S = 3600
_AFTER_RIPE = timedelta(hours=1)


@dataclass(kw_only=True, slots=True)
class _Watch:
    """How long each step took."""

    steps_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.steps_s[name] = time.perf_counter() - started


def run_silent_trial(
    *,
    orders: int,
    weeks: int,
    seed: int,
    workspace: Path,
    json_file: Path | None = None,
    console: Console | None = None,
) -> Found:
    """Run the trial, show its tables, write its page and its figures.

    Args:
        orders: how many orders are asked about.
        weeks: how long the trial is.
        seed: of population, draw of orders, split, forests and resampling: the same seed gives the same tables.
        workspace: where to work; an earlier trial's is removed.
        json_file: gets the figures.
        console: where to show things; None takes the standard output.

    Raises:
        CommandFailed, and other ValueErrors: it could not be run to its end.
    """
    console = console or Console()
    started, watch = time.perf_counter(), _Watch()
    workspace = fresh_workspace(workspace, of="trial")
    with watch.step("hospital"):
        hospital = trial_hospital(workspace / "hospital", orders=orders, weeks=weeks, seed=seed, console=console)
    with watch.step("training"):
        trained = train_models(hospital.omop, workspace / "bundles", before=hospital.before, seed=seed, console=console)
    write_deployments(workspace / "deployments")
    password = token_urlsafe(24)
    with running(
        workspace=workspace,
        fhir=hospital.fhir,
        bundles=workspace / "bundles",
        now=hospital.orders[0].event.signed_at,
        clock_file=workspace / "now",
        hosts=_HOSTS,
        settings={
            "DEPLOYR_DEPLOYMENTS": str(workspace / "deployments"),
            "DEPLOYR_BPA_ID_ROOTS": ID_ROOTS,
            "DEPLOYR_BPA_CALLERS": json.dumps({_CALLER: password}),
            "DEPLOYR_BPA_PER_SECOND": "1000",
            "DEPLOYR_LABEL_BUDGET_S": str(_LABEL_BUDGET_S),
        },
    ) as processes:
        ripe = max(horizon(each.manifest.task.rule) or timedelta() for each in trained.values()) + _AFTER_RIPE
        replayed, used = asyncio.run(
            _replay(processes, hospital, workspace, password=password, last_ripe=ripe, console=console)
        )
    watch.steps_s |= {"orders": replayed.asking_s, "labels": replayed.labelling_s}
    with watch.step("measuring"), Extract.open(hospital.omop) as extract:
        persons = _persons(hospital, extract)
        evidence = asyncio.run(_evidence(workspace, hospital, trained, persons, console=console))
        evaluations = _evaluations(trained, evidence, extract, seed=seed, console=console)
        people = extract.demographics(set(persons.values()))
    found = Found(
        figures=_figures(evidence, evaluations, replayed, used, orders=orders, seconds=time.perf_counter() - started),
        cohorts={
            group.name: (
                cohort_figures(hospital.past[group.name], persons=persons, people=people),
                cohort_figures(
                    [order.event for order in hospital.orders if order.group == group], persons=persons, people=people
                ),
            )
            for group in GROUPS
        },
        evaluations=evaluations,
        replayed=replayed,
        steps_s=watch.steps_s,
    )
    write_page(found, workspace / PAGE)
    write_reports(found, {task: each.manifest for task, each in trained.items()}, workspace / REPORTS)
    dashboard = monitored(workspace, console=console, reports=REPORTS)
    show(found, console=console)
    for complaint in found.figures.complaints:
        console.print(f"[bold red]✗[/bold red] {complaint}", highlight=False)
    console.print(f"Curves of every model: {as_typed(workspace)}/{PAGE}", highlight=False, soft_wrap=True)
    if dashboard is not None:
        console.print(f"Each model in a browser: {dashboard}", highlight=False, soft_wrap=True)
    if json_file is not None:
        json_file.write_text(json.dumps(msgspec.to_builtins(found.figures), indent=2) + "\n", encoding="utf-8")
    return found


async def _replay(
    processes: Running,
    hospital: TrialHospital,
    workspace: Path,
    *,
    password: str,
    last_ripe: timedelta,
    console: Console,
) -> tuple[Replayed, dict[str, ProcessorTime]]:
    """Ask about all orders; give what came of it, and what each process used for it."""
    before = _processor_times(processes)
    # A run of label extraction is waited for as one call.
    timeout = aiohttp.ClientTimeout(total=_LABEL_BUDGET_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        replay = TrialReplay(
            processes, Driver(processes, workspace / "now", session), session, caller=_CALLER, password=password
        )
        with bar(console, "Asking about each order as it is signed") as tell:
            replayed = await replay.play(hospital.orders, last_ripe=last_ripe, tell=tell)
    after = _processor_times(processes)
    return replayed, {name: after[name].since(times) for name, times in before.items() if name in after}


def _processor_times(processes: Running) -> dict[str, ProcessorTime]:
    pids = {"EMR": processes.emr_pid, **{f"host {n + 1}": pid for n, pid in enumerate(processes.host_pids)}}
    pids["replay itself"] = os.getpid()
    times = {name: processor_time(pid) for name, pid in pids.items()}
    return {name: used for name, used in times.items() if used is not None}


def _persons(hospital: TrialHospital, extract: Extract) -> dict[str, int]:
    """Give the extract's person id of each FHIR patient id that any order is of."""
    by_value = {value: person_id for person_id, value in extract.patient_source_values().items()}
    missing = "expected every patient's identifier as a person_source_value"
    try:
        return {patient: by_value[value] for patient, value in hospital.identifiers.items()}
    except KeyError:
        raise CommandFailed(f"{hospital.omop}: {missing}") from None


async def _evidence(
    workspace: Path,
    hospital: TrialHospital,
    trained: Mapping[str, TrainedBundle],
    persons: Mapping[str, int],
    *,
    console: Console,
) -> dict[str, ModelEvidence]:
    """Read the store, model by model."""
    store = SqliteStore(store_file(workspace))
    evidence = {}
    try:
        with bar(console, "Reading packets and labels") as tell:
            for group in GROUPS:
                orders = [order for order in hospital.orders if order.group == group]
                for task in group.tasks:
                    evidence[task] = await evidence_of(store, trained[task], orders, persons=persons)
                    tell(len(evidence), len(trained))
    finally:
        await store.aclose()
    return evidence


def _evaluations(
    trained: Mapping[str, TrainedBundle],
    evidence: Mapping[str, ModelEvidence],
    extract: Extract,
    *,
    seed: int,
    console: Console,
) -> dict[str, tuple[Evaluation | None, Evaluation | None]]:
    evaluations = {}
    with bar(console, "Measuring, 1,000 resamples of patients each") as tell:
        for task, model in trained.items():
            sides = (model.predictions, evidence[task].rows)
            retrospective, prospective = (evaluated(model, rows, extract, seed=seed) for rows in sides)
            evaluations[task] = (retrospective, prospective)
            tell(len(evaluations), len(trained))
    return evaluations


def _figures(
    evidence: Mapping[str, ModelEvidence],
    evaluations: Mapping[str, tuple[Evaluation | None, Evaluation | None]],
    replayed: Replayed,
    used: Mapping[str, ProcessorTime],
    *,
    orders: int,
    seconds: float,
) -> TrialFigures:
    return TrialFigures(
        tasks={
            task: TaskFigures(retrospective=estimated(retrospective), prospective=estimated(prospective))
            for task, (retrospective, prospective) in evaluations.items()
        },
        orders=orders,
        packets=sum(each.packets for each in evidence.values()),
        unfinished=sum(each.unfinished for each in evidence.values()),
        failed=sum(each.failed for each in evidence.values()),
        lost=sum(each.lost for each in evidence.values()),
        unlabelled=sum(each.unlabelled for each in evidence.values()),
        censored=dict(sum((each.censored for each in evidence.values()), Counter[str]())),
        seconds=round(seconds, 1),
        orders_per_second=round(orders / (replayed.asking_s + replayed.labelling_s), 2),
        processor_s=used,
        memory_mb=growth(replayed.memory_mb),
    )
