"""The silent trial, end to end over HTTP: orders a second, where processor time goes, and memory that stays as it is.

``python -m benchmarks.trial 40000`` does it at the paper's size, ``make bench`` a short one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.measured import Measured
from deployr_cli.trial.run import run_silent_trial

_SHORT = 600
_ORDERS_A_SECOND = 25.0
_MOST_MINUTES = 30.0
_MOST_GROWTH = 1.10


def silent_trial(orders: int = _SHORT, *, console: Console | None = None) -> list[Measured]:
    """Run a trial of so many orders.

    A short trial says how fast orders are answered and labelled; how its whole time would grow with the orders it does
    not say, because training and measuring do not grow with them.

    Raises:
        RuntimeError: a packet is lost, unfinished or without a score.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = run_silent_trial(
            orders=orders, weeks=5, seed=0, workspace=Path(folder) / "trial", console=console or Console(quiet=True)
        )
    figures = found.figures
    if figures.complaints:
        raise RuntimeError("; ".join(figures.complaints))
    is_whole = orders >= 40_000
    name = f"silent trial of {orders:,} orders, {figures.packets:,} packets"
    measured = [
        _measured(f"{name}: orders a second", figures.orders_per_second, "1/s", at_least=_ORDERS_A_SECOND),
        _measured(f"{name}: the whole of it", figures.seconds / 60, "min", at_most=_MOST_MINUTES if is_whole else None),
    ]
    measured += (_measured(f"{name}: {step}, by the clock", seconds, "s") for step, seconds in found.steps_s.items())
    for process, used in figures.processor_s.items():
        if process.startswith("host"):
            measured.append(_measured(f"{name}: processor time of the bridge, {process}", used.first_thread_s, "s"))
            measured.append(_measured(f"{name}: of its store and other threads, {process}", used.others_s, "s"))
        else:
            measured.append(_measured(f"{name}: processor time, {process}", used.first_thread_s + used.others_s, "s"))
    measured += (
        _measured(f"{name}: memory late over early, {process}", held.last_mb / held.first_mb, "x", at_most=_MOST_GROWTH)
        for process, held in figures.memory_mb.items()
    )
    return measured


def _measured(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Measured:
    met = None
    if at_least is not None:
        met = value >= at_least
    elif at_most is not None:
        met = value <= at_most
    goal = f"value >= {at_least:g}" if at_least is not None else f"value <= {at_most:g}" if at_most is not None else ""
    return Measured(name=name, value=round(value, 2), unit=unit, baseline=None, ratio=None, goal=goal, met=met)


if __name__ == "__main__":
    shown = Console()
    for result in silent_trial(int(sys.argv[1]) if len(sys.argv) > 1 else _SHORT, console=shown):
        verdict = "" if result.met is None else "met" if result.met else "MISSED"
        shown.print(f"{result.name}: {result.value:g} {result.unit}  {result.goal} {verdict}", highlight=False)
