"""`deployr parity`: the same orders from the warehouse and over FHIR, and what differs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.parity_emr import OrderRead, OrdersRead, read_folder, read_server
from deployr_cli.parity_table import show_parity
from deployr_cli.progress import Tell, bar
from deployr_core.facts import PatientFacts
from deployr_dev.parity import PairedOrder, ParityReport, parity_report
from deployr_dev.parity_kinds import Cause
from deployr_dev.parity_periods import case_mix
from deployr_dev.sources.mapping import SourceMapping
from deployr_serve.adapters.bundle_files import read_bundle
from deployr_serve.core.errors import ServeError


class Warehouse(Protocol):
    """What is needed of an open extract."""

    mapping: SourceMapping

    def patient_source_values(self) -> dict[int, str]:
        """Give each person's identifier outside the warehouse, by person id."""

    def patients(self, person_ids: Collection[int] | None = None) -> Iterator[PatientFacts]:
        """Give the facts person by person."""


def run_parity(
    bundle: Path,
    source: str,
    fhir: str,
    sample: int,
    json_file: Path | None,
    seed: int,
    *,
    reference_until: date | None = None,
    console: Console | None = None,
) -> ParityReport:
    """Compare a sample of orders from both sides, print what was found, write it as JSON; give the report.

    Orders of the bundle's panels are sampled on the FHIR side. Each is read as of the instant at which it was signed:
    from a folder of NDJSON through a mock EMR, whose clock stands at that instant; from a server as it is now, less
    what was not known by then. Its patient is joined by identifier to the warehouse.

    Args:
        bundle: the bundle's folder.
        source: the warehouse: an extract's folder, or a database's URL, ``NAME:`` of a shipped mapping before it.
        fhir: the base URL of an open FHIR R4 server, or a folder of NDJSON.
        sample: how many orders; fewer if there are no more.
        json_file: where to write the report; None writes none.
        seed: of the sample.
        reference_until: the first day, in the mapping's zone, of a later period that is compared with what was before.
        console: where to print; None prints on standard output.

    Raises:
        CommandFailed: no such bundle, folder, order or patient, or the EMR did not answer.
        ExtractInvalid, MappingInvalid, BundleInvalid: as their readers say.
    """
    console = console or Console()
    if sample < 1:
        raise CommandFailed(f"--sample: expected at least 1 order, got {sample}")
    loaded = read_bundle(bundle)
    is_server = fhir.startswith(("http://", "https://"))
    if not is_server and not Path(fhir).is_dir():
        raise CommandFailed(f"{fhir}: expected a FHIR base URL, http(s)://…, or a folder of NDJSON files")
    rng = np.random.default_rng(seed)
    with _opened(source, console) as warehouse:
        zone = warehouse.mapping.zone
        persons = _persons(warehouse, source)
        with bar(console, "Reading the orders over FHIR") as tell:
            if is_server:
                reading = read_server(fhir, loaded, known=persons, zone=zone, sample=sample, rng=rng, tell=tell)
            else:
                reading = read_folder(Path(fhir), loaded, known=persons, zone=zone, sample=sample, rng=rng, tell=tell)
            try:
                read = asyncio.run(reading)
            except ServeError as error:
                raise CommandFailed(f"{fhir}: the EMR did not give what was asked: {error}") from error
        with bar(console, "Reading the warehouse") as tell:
            pairs = _paired(read.orders, warehouse, persons, tell)
        periods: tuple[Cause, ...] = ()
        if reference_until is not None:
            with bar(console, "Comparing the two periods") as tell:
                start = datetime.combine(reference_until, time(), zone)
                periods = case_mix(_all_orders(read, warehouse, persons, tell), loaded.spec, reference_until=start)
    with bar(console, "Comparing"):
        # A decision at the prevalence flags about as many as there are; a fixed 0.5 would never flag a rare outcome.
        threshold = loaded.manifest.evaluation.label_means[loaded.manifest.task.outputs.headline]
        report = parity_report(
            pairs,
            loaded.spec,
            score=loaded.model.score,
            threshold=threshold,
            charts=read.charts,
            warehouse_zone=zone,
            periods=periods,
        )
    show_parity(report, manifest=loaded.manifest, console=console)
    if read.unread:
        console.print(
            f"Of {read.unread} patients the EMR did not give the whole chart: causes are told without it.",
            highlight=False,
        )
    if json_file is not None:
        json_file.write_bytes(report.to_json())
    return report


def _persons(warehouse: Warehouse, source: str) -> dict[str, int]:
    """Give each person by the identifier that joins it to its FHIR patient."""
    values = warehouse.patient_source_values()
    persons = {value: person_id for person_id, value in values.items()}
    if len(persons) != len(values):
        raise CommandFailed(f"{source}: expected each person_source_value once, to join it to its FHIR patient")
    return persons


def _paired(
    orders: Sequence[OrderRead], warehouse: Warehouse, persons: dict[str, int], tell: Tell
) -> list[PairedOrder]:
    """Put the warehouse's facts of the same patient beside each order's."""
    by_person: dict[int, list[OrderRead]] = defaultdict(list)
    for order in orders:
        by_person[persons[order.identifier]].append(order)
    pairs = []
    for facts in warehouse.patients(tuple(by_person)):
        pairs += [
            PairedOrder(as_of=order.signed_at, emr=order.facts, warehouse=facts, label=order.label)
            for order in by_person[int(facts.patient_id)]
        ]
        tell(len(pairs), len(orders))
    return pairs


def _all_orders(
    read: OrdersRead, warehouse: Warehouse, persons: dict[str, int], tell: Tell
) -> Iterator[tuple[PatientFacts, datetime]]:
    """Give the warehouse's facts with each order that was looked at, patient by patient."""
    signed = {persons[identifier]: instants for identifier, instants in read.signed.items()}
    # Of the warehouse: an interface that changes the EMR's numbers must not pass for other patients.
    for number, facts in enumerate(warehouse.patients(tuple(signed)), start=1):
        for signed_at in signed[int(facts.patient_id)]:
            yield facts, signed_at
        tell(number, len(signed))


def _opened(source: str, console: Console) -> AbstractContextManager[Warehouse]:
    from deployr_dev.sources.extract import open_source

    return open_source(source, steps=partial(bar, console))
