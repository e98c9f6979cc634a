"""Which orders the demo replays: read from the FHIR side, since that is what the bridge will be asked about."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from deployr_cli.failures import CommandFailed
from deployr_core.instants import parse_instant

REPLAYED = timedelta(days=7)
FEWEST_REPLAYED = 250


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderSigned:
    """The event of one order: what the EMR would call the bridge about."""

    patient_id: str = field(repr=False)
    encounter_id: str | None = field(repr=False)
    order_id: str = field(repr=False)
    signed_at: datetime


def orders_signed(fhir: Path, *, panels: Sequence[str]) -> tuple[OrderSigned, ...]:
    """Give all orders for these panels (LOINC), in the order in which they were signed.

    Raises:
        CommandFailed: there is none.
    """
    events = []
    for request in _resources(fhir, "ServiceRequest"):
        if not any(coding.get("code") in panels for coding in request.get("code", {}).get("coding", ())):
            continue
        encounter = request.get("encounter", {}).get("reference")
        events.append(
            OrderSigned(
                patient_id=request["subject"]["reference"].removeprefix("Patient/"),
                encounter_id=encounter.removeprefix("Encounter/") if encounter else None,
                order_id=request["id"],
                signed_at=parse_instant(request["authoredOn"]),
            )
        )
    if not events:
        raise CommandFailed(f"{fhir}: expected ServiceRequests for the task's panels ({', '.join(panels)})")
    return tuple(sorted(events, key=lambda event: (event.signed_at, event.order_id)))


def start_of_replay(events: Sequence[OrderSigned]) -> datetime:
    """Give the instant that parts the past, for training, from the time that is replayed.

    The last week; or, where that holds few orders, as far back as the last 30 % of all orders reach.
    """
    week = events[-1].signed_at - REPLAYED
    if sum(event.signed_at >= week for event in events) >= min(FEWEST_REPLAYED, len(events) // 3):
        return week
    return events[len(events) * 7 // 10].signed_at


def patient_identifiers(fhir: Path) -> dict[str, str]:
    """Give the identifier value of each FHIR patient id: what joins it to OMOP's person_source_value.

    Raises:
        CommandFailed: a patient without exactly one identifier, or two patients with the same.
    """
    identifiers = {}
    for patient in _resources(fhir, "Patient"):
        values = {identifier.get("value") for identifier in patient.get("identifier", ())}
        if len(values) != 1:
            raise CommandFailed(f"{fhir}: expected one identifier per Patient, to join it to its OMOP person")
        identifiers[patient["id"]] = values.pop()
    if len(set(identifiers.values())) != len(identifiers):
        raise CommandFailed(f"{fhir}: expected each Patient identifier once")
    return identifiers


def _resources(fhir: Path, kind: str) -> Iterator[dict[str, Any]]:
    files = sorted((*fhir.glob(f"{kind}*.ndjson"), *fhir.glob(f"{kind}*.ndjson.gz")))
    if not files:
        raise CommandFailed(f"{fhir}: expected {kind}.ndjson or {kind}.ndjson.gz")
    for file in files:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield msgspec.json.decode(line)
                except msgspec.DecodeError as error:
                    raise CommandFailed(f"{file}, line {number}: expected a FHIR resource in JSON") from error
