"""Writes a population of any size, block by block: memory holds one block a process, however many there are."""

import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import RESOURCES, write_fhir
from mock_emr.population.generate import block_count, generate_block
from mock_emr.population.omop import COMPRESSION, arrow_tables

_WHOLE: Final = frozenset({"concept", "care_site", "cdm_source"})
"""Tables that every block has alike, and that are written once."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """How much was written."""

    patients: int
    stays: int
    orders: int
    results: int


def write_population(config: PopulationConfig, folder: Path, *, processes: int = 1) -> Totals:
    """Write ``folder/omop`` and ``folder/fhir`` as `write_omop` and `write_fhir` do, replacing what is there.

    Equal configurations give equal bytes, with any number of processes: blocks are joined in their order, each a row
    group of a table and a member of a gzip file.

    Args:
        config: of the population.
        folder: gets both; while it is written it also holds ``.blocks``.
        processes: how many blocks are made at the same time, at least 1; each takes one core.

    Raises:
        OSError: the folder cannot be written.
    """
    scratch = folder / ".blocks"
    scratch.mkdir(parents=True, exist_ok=True)
    count = block_count(config)
    made = partial(_make_block, config, scratch)
    try:
        if processes == 1 or count == 1:
            totals = _joined(map(made, range(count)), scratch, folder)
        else:
            # Threads of libraries would not survive a fork.
            with ProcessPoolExecutor(min(processes, count), mp_context=get_context("spawn")) as pool:
                totals = _joined(pool.map(made, range(count)), scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Totals(
        patients=config.patients,
        stays=sum(one.stays for one in totals),
        orders=sum(one.orders for one in totals),
        results=sum(one.results for one in totals),
    )


def _make_block(config: PopulationConfig, scratch: Path, block: int) -> Totals:
    """Write one block's part of every file."""
    import pyarrow as pa

    population = generate_block(config, block)
    folder = scratch / str(block)
    write_fhir(population, folder)
    for name, table in arrow_tables(population).items():
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return Totals(
        patients=len(population.persons),
        stays=len(population.stays),
        orders=len(population.orders),
        results=len(population.results),
    )


def _joined(made: Iterable[Totals], scratch: Path, folder: Path) -> list[Totals]:
    """Join the blocks' parts as they come, and remove them."""
    import pyarrow.parquet as pq

    (folder / "omop").mkdir(exist_ok=True)
    (folder / "fhir").mkdir(exist_ok=True)
    totals: list[Totals] = []
    with ExitStack() as stack:
        written = {name: stack.enter_context((folder / "fhir" / f"{name}.ndjson.gz").open("wb")) for name in RESOURCES}
        writers: dict[str, Any] = {}
        for block, total in enumerate(made):
            part = scratch / str(block)
            for name, file in written.items():
                with (part / f"{name}.ndjson.gz").open("rb") as held:
                    shutil.copyfileobj(held, file, length=1 << 20)
            for name, table in _tables(part):
                if name not in writers:
                    path = folder / "omop" / f"{name}.parquet"
                    writers[name] = stack.enter_context(pq.ParquetWriter(path, table.schema, compression=COMPRESSION))
                elif name in _WHOLE:
                    continue
                writers[name].write_table(table)
            shutil.rmtree(part)
            totals.append(total)
    return totals


def _tables(part: Path) -> Iterator[tuple[str, Any]]:
    """Read the tables of one block."""
    import pyarrow as pa

    for path in sorted(part.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            yield path.stem, pa.ipc.open_file(source).read_all()
