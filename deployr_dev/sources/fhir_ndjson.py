"""A Bulk FHIR export as the tables of the flat source: read line by line, written as Parquet batch by batch.

Source: FHIR Bulk Data Access IG 2.0.0, https://hl7.org/fhir/uv/bulkdata/; NDJSON, one resource a line.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from deployr_dev.sources import fhir_wire as wire
from deployr_dev.sources.detect import NDJSON
from deployr_dev.sources.fact_tables import FACT_TABLES
from deployr_dev.sources.fhir_rows import Context, Row, fact_rows, person_rows
from deployr_dev.sources.tables import ExtractInvalid

_BATCH = 20_000
_TYPES = {resource.__name__: resource for resource in wire.RESOURCES}


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    resource_type: str


_head = msgspec.json.Decoder(_Head)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(kind) for name, kind in _TYPES.items()}


def write_tables(folder: Path, target: Path, *, zone: tzinfo) -> Mapping[str, int]:
    """Write the facts of an export as one Parquet file per fact table.

    ``person_id`` is the patient's place among the Patient ids in order, from 1; ``source_value`` the patient's one
    identifier, or the Patient's id where there are none or several. A patient merged into another is left out.

    Args:
        folder: holds ``*.ndjson`` or ``*.ndjson.gz``, resources of any types, several types in a file too.
        target: a folder that does not exist yet.
        zone: of times that carry no offset.

    Returns:
        How many resources were no facts, by table and reason.

    Raises:
        ExtractInvalid: no such files, no Patient, a file cut off, a line that is no FHIR resource, an id there twice.
    """
    files = sorted(path for path in folder.iterdir() if path.name.endswith(NDJSON)) if folder.is_dir() else []
    if not files:
        raise ExtractInvalid(f"{folder}: expected a Bulk FHIR export, a folder of .ndjson or .ndjson.gz files")
    types = {path: _types_in(path) for path in files}
    left_out: Counter[str] = Counter()
    patients = _patients([path for path in files if "Patient" in types[path]], left_out)
    if not patients:
        raise ExtractInvalid(f"{folder}: expected Patient resources in the .ndjson files, got none")
    persons = {patient_id: number for number, patient_id in enumerate(sorted(patients), start=1)}
    medications = {
        resource.id: resource.code
        for path in files
        if "Medication" in types[path]
        for resource in _resources(path)
        if isinstance(resource, wire.Medication) and resource.id is not None
    }
    context = Context(persons=persons, zone=zone, left_out=left_out, medications=medications)
    target.mkdir()
    with _TableFiles(target) as out:
        for patient_id, person_id in persons.items():
            out.add(person_rows(patients[patient_id], person_id, context))
        del patients
        for path in files:
            if not types[path] <= {"Patient", "Medication"}:
                for resource in _resources(path):
                    if not isinstance(resource, (wire.Patient, wire.Medication)):
                        out.add(fact_rows(resource, context))
    return {reason: count for reason, count in sorted(left_out.items()) if count}


def _patients(files: Iterable[Path], left_out: Counter[str]) -> dict[str, wire.Patient]:
    patients: dict[str, wire.Patient] = {}
    for path in files:
        for patient in _resources(path):
            if not isinstance(patient, wire.Patient):
                continue
            if patient.id is None:
                raise ExtractInvalid(f"{path}: expected an id on every Patient")
            if patient.id in patients:
                raise ExtractInvalid(f"{path}: expected each Patient once, got one twice; export once into one folder")
            if any(link.get("type") == "replaced-by" for link in patient.link):
                left_out["persons.merged_into_another"] += 1
                continue
            patients[patient.id] = patient
    return patients


def _types_in(path: Path) -> set[str]:
    """Give the resource types of a file's first and, if it is of that type's name, all lines."""
    name = path.name.split(".")[0]
    if name in _TYPES:
        return {name}
    return {_head.decode(line).resource_type for _, line in _lines(path)}


def _resources(path: Path) -> Iterator[wire.Resource]:
    for number, line in _lines(path):
        try:
            decoder = _decoders.get(_head.decode(line).resource_type)
            resource: wire.Resource | None = None if decoder is None else decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # The decoder's message may quote the line, so it is neither repeated nor chained.
            raise ExtractInvalid(
                f"{path}: expected a FHIR R4 resource in JSON in line {number}; was the export cut off?"
            ) from None
        if resource is not None:
            yield resource


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            stream: IO[bytes] = file
            for number, line in enumerate(stream, start=1):
                if not line.isspace():
                    yield number, line
    except (OSError, EOFError, zlib.error):
        raise ExtractInvalid(f"{path}: cannot be read: cut off or damaged; export or copy it again") from None


class _TableFiles:
    """One Parquet file per fact table, written as rows come; a context manager."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        kinds = {
            "BIGINT": pa.int64(),
            "INTEGER": pa.int32(),
            "VARCHAR": pa.string(),
            "DOUBLE": pa.float64(),
            "BOOLEAN": pa.bool_(),
            # Instants, so that the flat source reads neither a zone nor whole days into them.
            "TIMESTAMP": pa.timestamp("us", tz="UTC"),
        }
        self._schemas = {
            table: pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
            for table, columns in FACT_TABLES.items()
        }
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._waiting: dict[str, list[Row]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            for table in self._schemas:
                self._flush(table)
        for writer in self._writers.values():
            writer.close()

    def add(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Take rows; they are written when there are enough of them."""
        for table, row in rows:
            waiting = self._waiting[table]
            waiting.append(row)
            if len(waiting) >= _BATCH:
                self._flush(table)

    def _flush(self, table: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if table not in self._writers:
            self._writers[table] = pq.ParquetWriter(self._folder / f"{table}.parquet", self._schemas[table])
        self._writers[table].write_table(pa.Table.from_pylist(self._waiting[table], schema=self._schemas[table]))
        self._waiting[table] = []
