"""What the processes of a trial use: processor time of the one thread that decides and of the others, and memory.

Source: proc(5), ``/proc/PID/task/TID/stat`` fields 14 and 15, ``/proc/PID/statm`` field 2.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessorTime:
    """Seconds since the process began: of its first thread, which runs the event loop, and of all others."""

    first_thread_s: float
    others_s: float

    def since(self, earlier: ProcessorTime) -> ProcessorTime:
        """Give what came after an earlier reading."""
        return ProcessorTime(
            first_thread_s=self.first_thread_s - earlier.first_thread_s, others_s=self.others_s - earlier.others_s
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Resident memory in MB: the median over the first and the last quarter of the readings."""

    first_mb: float
    last_mb: float


def processor_time(pid: int, *, proc: Path = PROC) -> ProcessorTime | None:
    """Read a process's processor time; None where the system does not say."""
    first = others = 0.0
    try:
        for task in (proc / str(pid) / "task").iterdir():
            # The name in parentheses may hold blanks and parentheses.
            fields = (task / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if task.name == str(pid):
                first += seconds
            else:
                others += seconds
    except OSError:
        return None
    return ProcessorTime(first_thread_s=first, others_s=others)


def resident_mb(pid: int, *, proc: Path = PROC) -> float | None:
    """Read how much memory a process holds; None where the system does not say."""
    try:
        pages = int((proc / str(pid) / "statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(readings: Mapping[str, Sequence[float]]) -> dict[str, Growth]:
    """Give each process's memory early and late; nothing of one with fewer than four readings."""
    return {
        name: Growth(
            first_mb=statistics.median(values[: len(values) // 4]),
            last_mb=statistics.median(values[-(len(values) // 4) :]),
        )
        for name, values in readings.items()
        if len(values) >= 4
    }
