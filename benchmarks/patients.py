"""More patients, or longer records, out of the one that `benchmarks.staging` makes."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.staging import ENCOUNTER, NOW, PATIENT, write_patient

_RECORD = ("Observation", "Condition", "MedicationRequest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The ids that one request names."""

    patient_id: str
    encounter_id: str
    order_id: str


def asked(patient: int, order: int) -> Asked:
    """Name one order of one of the patients."""
    return Asked(
        patient_id=PATIENT.replace("bench-", f"bench{patient}-"),
        encounter_id=ENCOUNTER.replace("bench-", f"bench{patient}-"),
        order_id=f"bench{patient}-order-{order}",
    )


def write_patients(
    folder: Path, *, patients: int, orders: int, of_each: int | None = None, now: datetime = NOW
) -> None:
    """Write so many patients as NDJSON, alike but for their ids, with so many orders each.

    ``of_each``: how many results, how many diagnoses and how many medications each has; None leaves all 500. ``now``:
    the instant that their records end at.
    """
    folder.mkdir(parents=True)
    for kind, lines in _one_patient(orders, now).items():
        kept = lines[:of_each] if kind in _RECORD else lines
        with gzip.open(folder / f"{kind}.ndjson.gz", "wb", compresslevel=1) as file:
            for number in range(patients):
                renamed = (line.replace(b"bench-", b"bench%d-" % number) for line in kept)
                file.write(b"\n".join(renamed) + b"\n")


def write_long_record(folder: Path) -> None:
    """Write the one patient with every result, diagnosis and medication twice, under other ids: 1,000 resources."""
    folder.mkdir(parents=True)
    for kind, lines in _one_patient(1, NOW).items():
        if kind in _RECORD:
            prefix = {"Observation": b"bench-lab-", "Condition": b"bench-condition-"}.get(kind, b"bench-medication-")
            lines = [*lines, *(line.replace(prefix, prefix + b"again-") for line in lines)]
        with gzip.open(folder / f"{kind}.ndjson.gz", "wb", compresslevel=1) as file:
            file.write(b"\n".join(lines) + b"\n")


def _one_patient(orders: int, now: datetime) -> Mapping[str, list[bytes]]:
    with tempfile.TemporaryDirectory() as scratch:
        write_patient(Path(scratch) / "fhir", orders=orders, now=now)
        files = sorted((Path(scratch) / "fhir").glob("*.ndjson.gz"))
        return {file.name.partition(".")[0]: gzip.decompress(file.read_bytes()).splitlines() for file in files}
