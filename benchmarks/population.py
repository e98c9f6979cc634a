"""How long a synthetic hospital takes to make, and how much memory: 20,000 patients with five years."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measured import Measured
from mock_emr.population.profiles import HOSPITAL
from mock_emr.population.writing import write_population

PROCESSES = 2
_MOST_SECONDS, _MOST_GB = 180.0, 4.0
_KIB_A_GB = 1e9 / 1024


def synthetic_hospital() -> list[Measured]:
    """Measure `write_population` of the ``hospital`` profile in a process of its own, with two that make blocks.

    Memory is the largest of the writing process and, twice, of the largest of those that it started: more than what
    was ever used at one instant, never less.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    apart = multiprocessing.get_context("spawn").Process(target=_measure, args=(there,))
    apart.start()
    there.close()
    seconds, gigabytes, results = here.recv()
    apart.join()
    return [
        Measured(
            name=f"synthetic hospital, {HOSPITAL.patients:,} patients, five years, {results / 1e6:.1f} M results",
            value=round(seconds, 1),
            unit="s",
            baseline=None,
            ratio=None,
            goal=f"value <= {_MOST_SECONDS:g} s",
            met=seconds <= _MOST_SECONDS,
        ),
        Measured(
            name="synthetic hospital, peak memory of all its processes",
            value=round(gigabytes, 2),
            unit="GB",
            baseline=None,
            ratio=None,
            goal=f"value < {_MOST_GB:g} GB",
            met=gigabytes < _MOST_GB,
        ),
    ]


def _measure(answer: Connection) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        totals = write_population(HOSPITAL, Path(scratch), processes=PROCESSES)
        seconds = time.perf_counter() - started
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    answer.send((seconds, (own + PROCESSES * largest) / _KIB_A_GB, totals.results))
