"""Featurizing 14,000 orders from up to 100 million lab rows: the set engine beside the same query written by hand.

Each run is a process of its own, so that its peak memory is its own; imports are not timed. The orders, the 200 tests
and the window of 365 days are the same for all. By hand means the plain DuckDB aggregation that a person would write
for this one table; pandas means the merge that people write first.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measured import Measured, against

ORDERS, PERSONS, TESTS, LOOKBACK_DAYS = 14_000, 20_000, 200, 365
_MILLION = 1_000_000
GROWTH_PLOT = Path(__file__).parent / "warehouse.svg"


def featurizing() -> list[Measured]:
    """Measure at 10 and at 100 million rows, and draw the growth from 1 million on."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        results, ours_at, hand_at = [], {}, {}
        for millions in (1, 10, 100):
            file = folder / f"labs-{millions}m.parquet"
            _run("make", file, rows=millions * _MILLION)
            rounds = 3 if millions < 100 else 2
            pairs = [(_run("ours", file), _run("hand", file)) for _ in range(rounds)]
            ours_at[millions] = statistics.median(pair[0]["seconds"] for pair in pairs)
            hand_at[millions] = statistics.median(pair[1]["seconds"] for pair in pairs)
            if len({run["values"] for pair in pairs for run in pair}) != 1:
                raise RuntimeError("expected the same number of features from both")
            if millions == 1:
                continue
            name = f"featurizing {ORDERS:,} orders from {millions} million lab rows"
            results.append(
                against(f"{name}, against SQL by hand", ours_at[millions], hand_at[millions], unit="s", at_most=1.3)
            )
            memory = max(pair[0]["megabytes"] for pair in pairs)
            hand_memory = max(pair[1]["megabytes"] for pair in pairs)
            results.append(
                Measured(
                    name=f"{name}, peak memory",
                    value=round(memory, 1),
                    unit="MB",
                    baseline=round(hand_memory, 1),
                    ratio=round(memory / hand_memory, 3),
                    goal="value <= 1500 MB",
                    met=memory <= 1500,
                )
            )
            if millions == 10:
                pandas = _run("pandas", file)
                results.append(
                    against(f"{name}, against pandas", ours_at[10], pandas["seconds"], unit="s", at_most=0.5)
                )
                results.append(
                    against(f"{name}, memory against pandas", memory, pandas["megabytes"], unit="MB", at_most=0.25)
                )
            file.unlink()
        _draw(ours_at, hand_at)
    return results


def _run(what: str, file: Path, *, rows: int = 0) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.warehouse_run", what, str(file), str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 our own module
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _draw(ours: dict[int, float], hand: dict[int, float]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(list(ours), list(ours.values()), marker="o", label="deployr")
    axes.plot(list(hand), list(hand.values()), marker="s", linestyle="--", label="SQL by hand")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="lab rows, millions",
        ylabel="seconds",
        title=f"Features of {ORDERS:,} orders",
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(GROWTH_PLOT)
    plt.close(figure)
