"""Reading a folder of FHIR NDJSON into a store."""

from __future__ import annotations

import gc
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mock_emr.store import Loaded, Store

# Source: FHIR R4 datatypes.html#id. The source of a resource may be laxer than that, but an id must fit into a URL.
_ID = re.compile(r"[A-Za-z0-9\-._]+", re.ASCII)
_TYPE = re.compile(r"[A-Z][A-Za-z]*", re.ASCII)


class LoadError(ValueError):
    """The folder, a file or a line is not what it should be; the message says where."""


def load_folder(folder: Path) -> Store:
    """Load every `*.ndjson` and `*.ndjson.gz` of a folder, one FHIR R4 resource a line.

    Files are read in order of their names. Empty lines are passed over; any resource type is accepted.

    Raises:
        LoadError: no such folder, no such file in it, or a line that is no resource: file and line number are named.
        StoreError: the resources do not make one chart.

    Source: the layout of a FHIR Bulk Data export, https://hl7.org/fhir/uv/bulkdata/export.html.
    """
    if not folder.is_dir():
        raise LoadError(f"{folder}: expected a folder of *.ndjson or *.ndjson.gz files")
    paths = sorted(path for path in folder.iterdir() if path.name.endswith((".ndjson", ".ndjson.gz")))
    if not paths:
        raise LoadError(f"{folder}: holds no *.ndjson or *.ndjson.gz file")
    with _no_collections():
        return Store(item for path in paths for item in _read(path))


def resource_in(line: bytes, *, source: str) -> Loaded:
    """Read one line as a resource with a type and an id.

    Raises:
        LoadError: it is not JSON, not an object, or lacks either; the message begins with ``source``.
    """
    try:
        held = msgspec.json.decode(line)
    except ValueError as error:
        raise LoadError(f"{source}: expected one JSON object") from error
    if not isinstance(held, dict):
        raise LoadError(f"{source}: expected one JSON object")
    for name, shape in (("resourceType", _TYPE), ("id", _ID)):
        if not isinstance(held.get(name), str) or not shape.fullmatch(held[name]):
            raise LoadError(f"{source}: expected a FHIR resource with {name}")
    return Loaded(resource=held, raw=line, source=source)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Hold garbage collection off: nothing that a chart is made of is garbage, and looking took half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(path: Path) -> Iterator[Loaded]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for line in lines:
                number += 1
                text = line.strip()
                if text:
                    yield resource_in(text, source=f"{path}: line {number}")
    except (OSError, EOFError, zlib.error) as error:
        raise LoadError(f"{path}: cannot be read after line {number}: {error}") from error
