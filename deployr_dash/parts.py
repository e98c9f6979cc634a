"""The folder of an extract: Parquet files, each of one model and month, and the one file that says which of them count.

A file is written aside and renamed when it is whole; it counts from when the index names it, and is never changed. So
whoever reads sees one state, and a run that was killed leaves nothing behind but files that the next one removes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

INDEX_FILE = "extract.json"
PACKETS, FEATURES, MODELS = "packets", "features", "models"
LAYOUT = 3
"""Of the folder and its tables. One of another layout is extracted anew: everything is still in the store.

2: packets have ``unit`` and ``stratum``. 3: and ``clinician_code``, ``language``, ``insurance``, a wedge's place and
``answered_by``.
"""
_ROWS_AT_ONCE = 100_000
_TRIES = 5
_T = TypeVar("_T")


class ExtractMissing(ValueError):
    """There is no extract in the folder that could be read."""


class ExtractUnusable(ExtractMissing):
    """There is one, which another version of deployr wrote, or of which files are missing.

    ``generation``: how far the names of its files have come.
    """

    generation = 0


UNREADABLE = (ExtractMissing, OSError, pa.ArrowException)
"""What reading an extract may raise: there is none, it cannot be reached, or a file of it is damaged."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file, of packets that were asked for first in one month, in UTC.

    ``file`` is relative to the folder; ``version`` is empty in parts of packets, which hold all versions. ``first`` and
    ``last`` bound ``received_at``, both included.
    """

    file: str
    model_id: str
    month: str
    rows: int
    first: datetime
    last: datetime
    version: str = ""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Which files count. ``cursor``: how far the store was read; None where not at all.

    ``extracted_at``: when a run was last through. ``drops``: how often rows went without others in their place.
    """

    layout: int = LAYOUT
    generation: int = 0
    cursor: str | None = None
    next_row: int = 0
    extracted_at: datetime | None = None
    drops: int = 0
    packets: tuple[Part, ...] = ()
    features: tuple[Part, ...] = ()

    @property
    def files(self) -> set[str]:
        """The files that count."""
        return {part.file for part in (*self.packets, *self.features)}


def read_index(folder: Path) -> Index:
    """Give what the folder holds.

    Raises:
        ExtractMissing: nothing.
        ExtractUnusable: what another version of deployr wrote.
    """
    try:
        found = msgspec.json.decode((folder / INDEX_FILE).read_bytes(), type=Index)
    except (FileNotFoundError, NotADirectoryError):
        raise ExtractMissing(f"{folder}: expected an extract; deployr monitor extract makes one") from None
    except msgspec.MsgspecError:
        raise ExtractUnusable(f"{folder / INDEX_FILE}: expected an extract's index; extract anew") from None
    if found.layout != LAYOUT:
        error = ExtractUnusable(
            f"{folder}: expected an extract of this version of deployr, got one of layout {found.layout}; make it anew"
            " with deployr monitor extract --anew"
        )
        error.generation = found.generation
        raise error
    return found


def on_current_parts(folder: Path, work: Callable[[Index], _T]) -> _T:
    """Do something with the parts that count; again if a run has replaced them meanwhile.

    Raises:
        ExtractMissing: there are none.
        ExtractUnusable: they are gone, or replaced faster than they can be read.
    """
    for _ in range(_TRIES):
        try:
            return work(read_index(folder))
        except FileNotFoundError:
            continue
    raise ExtractUnusable(f"{folder}: expected the files that {INDEX_FILE} names; extract anew")


def write_index(folder: Path, index: Index) -> None:
    """Make this what counts, then remove all files that do not."""
    with aside(folder / INDEX_FILE) as part:
        part.write_bytes(msgspec.json.encode(index))
    sweep(folder, index)


def sweep(folder: Path, index: Index) -> None:
    """Remove what does not count: of an earlier state, or left by a run that was killed."""
    for kind in (PACKETS, FEATURES):
        for file in (folder / kind).glob("*"):
            if f"{kind}/{file.name}" not in index.files:
                file.unlink(missing_ok=True)


@contextmanager
def aside(file: Path) -> Iterator[Path]:
    """Give where to write what is to become that file, on disk and at once, when the block ends well."""
    part = file.with_name(f".{file.name}.part")
    try:
        yield part
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


class PartWriter:
    """Writes one part; tables come in any size and go out in large row groups. Without a row there is no file."""

    def __init__(self, folder: Path, file: str, schema: pa.Schema) -> None:
        self._folder = folder
        self._file = file
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._rows = 0

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Write in the block; the file is there when it ends well."""
        (self._folder / self._file).parent.mkdir(mode=0o700, exist_ok=True)
        with aside(self._folder / self._file) as part:
            self._writer = pq.ParquetWriter(part, self._schema, compression="zstd")
            with self._writer:
                yield self
                self._flush()

    def add(self, table: pa.Table) -> None:
        """Add rows; columns that the schema has not are left out."""
        if not table.num_rows:
            return
        bounds = pc.min_max(table["received_at"]).as_py()
        self._first = bounds["min"] if self._first is None else min(self._first, bounds["min"])
        self._last = bounds["max"] if self._last is None else max(self._last, bounds["max"])
        self._waiting.append(table.select(self._schema.names))
        self._rows += table.num_rows
        if sum(each.num_rows for each in self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def part(self, *, model_id: str, month: str, version: str = "") -> Part | None:
        """Describe what was written; None if that was nothing."""
        if self._first is None or self._last is None:
            return None
        return Part(
            file=self._file,
            model_id=model_id,
            month=month,
            version=version,
            rows=self._rows,
            first=self._first,
            last=self._last,
        )

    def _flush(self) -> None:
        if self._waiting and self._writer is not None:
            together = pa.concat_tables(self._waiting).unify_dictionaries().combine_chunks()
            self._writer.write_table(together, row_group_size=_ROWS_AT_ONCE)
            self._waiting = []


def tables_in(folder: Path, part: Part) -> Iterator[pa.Table]:
    """Give a part's rows, a row group at a time."""
    with pq.ParquetFile(folder / part.file) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)
