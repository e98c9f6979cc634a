"""Featurizing 14,000 orders from up to 100 million lab rows: the set engine beside the same query written by hand.

Each run is a process of its own, so that its peak memory is its own; imports are not timed. Of each the fastest run
counts, the one that was disturbed least. The orders, the 200 tests and the window of 365 days are the same for all. By
hand means the plain DuckDB aggregation that a person would write for this one table; pandas means the merge that people
write first. All must give the same matrix.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
            rounds = 5 if millions < 100 else 3
            pairs = [(_run("ours", file), _run("hand", file)) for _ in range(rounds)]
            ours_at[millions] = min(pair[0]["seconds"] for pair in pairs)
            hand_at[millions] = min(pair[1]["seconds"] for pair in pairs)
            _expect_one_matrix(*(run for pair in pairs for run in pair))
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
                _expect_one_matrix(pairs[0][0], pandas)
                results.append(
                    against(f"{name}, against pandas", ours_at[10], pandas["seconds"], unit="s", at_most=0.5)
                )
                results.append(
                    against(f"{name}, memory against pandas", memory, pandas["megabytes"], unit="MB", at_most=0.25)
                )
            file.unlink()
        _draw(ours_at, hand_at)
    return results


def _expect_one_matrix(*runs: dict[str, Any]) -> None:
    if len({run["matrix"] for run in runs}) != 1:
        raise RuntimeError("expected the same matrix from all")


def _run(what: str, file: Path, *, rows: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.warehouse_run", what, str(file), str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 our own module
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _draw(ours: dict[int, float], hand: dict[int, float]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name, seconds, marker, above in (("deployr", ours, "o", True), ("SQL by hand", hand, "s", False)):
        axes.plot(list(seconds), list(seconds.values()), marker=marker, linestyle="-" if above else "--", label=name)
        for millions, value in seconds.items():
            offset = (-6, 8) if above else (6, -14)
            axes.annotate(
                f"{value:.2g} s",
                (millions, value),
                xytext=offset,
                textcoords="offset points",
                ha="right" if above else "left",
            )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(0.6, 170),
        ylim=(min(hand.values()) / 2, max(ours.values()) * 2),
        xlabel="lab rows, millions",
        ylabel="seconds, imports apart",
        title=f"Features of {ORDERS:,} orders: {TESTS} tests of 5 bins, {LOOKBACK_DAYS} days back",
    )
    axes.set_xticks(list(ours), [f"{millions:g}" for millions in ours])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(GROWTH_PLOT)
    plt.close(figure)
