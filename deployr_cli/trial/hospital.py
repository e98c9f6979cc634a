"""The hospital that a trial happens in: large enough for its orders, and what the EMR shows of whom from when on."""

from __future__ import annotations

import gzip
import math
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from deployr_cli.demo.events import OrderSigned, orders_signed, patient_identifiers
from deployr_cli.demo.making import synthetic_hospital
from deployr_cli.failures import CommandFailed
from deployr_cli.progress import bar
from deployr_cli.trial.models import GROUPS, Group
from mock_emr.dates import BEGINNING
from mock_emr.population.config import PopulationConfig
from mock_emr.population.profiles import PROFILES, at_week
from mock_emr.visibility import Links, showing_of

PAST_WEEKS = 6
"""How long before the trial the hospital begins: what the models are trained on."""
_FEWEST_PATIENTS = 400
_SPARE = 1.15
_MOST_TRIES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOrder:
    """An order that is asked about.

    ``chart_stands_until``: from then on the EMR shows something else of this patient; None: it never does.
    """

    event: OrderSigned
    group: Group
    chart_stands_until: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialHospital:
    """Where the trial happens.

    ``fhir``: what the EMR holds, of the trial's patients only. ``before``: where the past ends. ``orders``: those of
    the trial, as they were signed. ``past``: the orders before, by group. ``identifiers``: of each patient.
    """

    omop: Path
    fhir: Path
    before: datetime
    orders: tuple[TrialOrder, ...]
    past: Mapping[str, tuple[OrderSigned, ...]] = field(repr=False)
    identifiers: Mapping[str, str] = field(repr=False)


def trial_hospital(folder: Path, *, orders: int, weeks: int, seed: int, console: Console) -> TrialHospital:
    """Make a hospital with so many orders in its last weeks, drawn evenly from all there are.

    Args:
        folder: gets the hospital.
        orders: how many are asked about.
        weeks: how long the trial is.
        seed: of the population and of the draw.
        console: where progress is shown.

    Raises:
        CommandFailed: it came out too small.
    """
    patients, coming = _FEWEST_PATIENTS, list[tuple[Group, OrderSigned]]()
    for _ in range(_MOST_TRIES):
        config = _config(patients, weeks=weeks, seed=seed)
        before = config.start + timedelta(weeks=PAST_WEEKS)
        synthetic_hospital(folder, console=console, config=config)
        found = _orders(folder / "fhir")
        coming = [(group, event) for group, event in found if event.signed_at >= before]
        if len(coming) >= orders:
            break
        patients = math.ceil(_SPARE * patients * orders / max(len(coming), 1))
    else:
        raise CommandFailed(
            f"expected {orders:,} orders in the last {weeks} weeks, and the hospital came out with {len(coming):,}; "
            "choose another --seed, or fewer --orders"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(coming))[:orders])
    asked = [coming[place] for place in chosen]
    identifiers = patient_identifiers(folder / "fhir")
    with bar(console, "Keeping the charts of the trial's patients"):
        changes = _charts_of(folder / "fhir", {event.patient_id for _, event in asked}, folder / "charts")
    shutil.rmtree(folder / "fhir")
    past: dict[str, list[OrderSigned]] = {group.name: [] for group in GROUPS}
    for group, event in found:
        if event.signed_at < before:
            past[group.name].append(event)
    return TrialHospital(
        omop=folder / "omop",
        fhir=folder / "charts",
        before=before,
        orders=tuple(
            TrialOrder(
                event=event,
                group=group,
                chart_stands_until=next_after(changes.get(event.patient_id, ()), event.signed_at),
            )
            for group, event in asked
        ),
        past={name: tuple(events) for name, events in past.items()},
        identifiers=identifiers,
    )


def _config(patients: int, *, weeks: int, seed: int) -> PopulationConfig:
    """Give a hospital whose record over FHIR is not quite its warehouse's, and which changes when the trial begins."""
    hospital = replace(PROFILES["shifted"], seed=seed, patients=patients, weeks=PAST_WEEKS + weeks)
    return at_week(hospital, PAST_WEEKS)


def next_after(instants: Sequence[datetime], instant: datetime) -> datetime | None:
    """Give the first of ascending instants that is later than another one; None if none is."""
    place = bisect_right(instants, instant)
    return instants[place] if place < len(instants) else None


def _orders(fhir: Path) -> list[tuple[Group, OrderSigned]]:
    """Give the orders of all groups, as they were signed."""
    found = [(group, event) for group in GROUPS for event in orders_signed(fhir, panels=group.panels)]
    return sorted(found, key=lambda each: (each[1].signed_at, each[1].order_id))


def _charts_of(fhir: Path, patients: set[str], into: Path) -> dict[str, list[datetime]]:
    """Copy what is about some patients, or about nobody; give when each of their charts changes, ascending.

    That an order is signed is no change: an order is read only where it is asked about.
    """
    into.mkdir(parents=True)
    changes: dict[str, set[datetime]] = {}
    no_links = Links(first_order={}, last_result={})
    for file in sorted(fhir.glob("*.ndjson.gz")):
        with (into / file.name.removesuffix(".gz")).open("wb") as kept:
            for line, resource in _resources(file):
                patient = _patient_of(resource)
                if patient is not None and patient not in patients:
                    continue
                kept.write(line)
                if patient is not None and resource["resourceType"] != "ServiceRequest":
                    showing = showing_of(resource, links=no_links)
                    changes.setdefault(patient, set()).update((showing.shown_from, showing.settled_from))
    return {patient: sorted(instants - {BEGINNING}) for patient, instants in changes.items()}


def _resources(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with gzip.open(file, "rb") as lines:
        for line in lines:
            yield line, msgspec.json.decode(line)


def _patient_of(resource: Mapping[str, Any]) -> str | None:
    if resource["resourceType"] == "Patient":
        return str(resource["id"])
    subject = resource.get("subject") or resource.get("patient")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    kind, _, patient = str(reference).rpartition("/")
    return patient if kind == "Patient" else None
