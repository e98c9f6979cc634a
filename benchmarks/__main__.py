"""`make bench`: runs every benchmark, or those that are named, prints the table, writes benchmarks/results.json.

The figures of some alone are printed and not written.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.batch import many_patients
from benchmarks.bootstrapping import bootstrapping
from benchmarks.bpa import alerts
from benchmarks.cpu import reading
from benchmarks.dashboard_data import dashboard_data
from benchmarks.drift_alarms import drift_alarms
from benchmarks.explaining import explaining
from benchmarks.inference import one_inference
from benchmarks.labels import label_extraction
from benchmarks.load import sustained_load
from benchmarks.measured import Measured
from benchmarks.outage import outage_drill
from benchmarks.population import synthetic_hospital
from benchmarks.replay import replaying
from benchmarks.scale_out import several_hosts
from benchmarks.serving import serving
from benchmarks.startup import fresh_process
from benchmarks.store import stored_packets
from benchmarks.telemetry import watching
from benchmarks.training import training_share
from benchmarks.trial import silent_trial
from benchmarks.vectorizing import vectorizing
from benchmarks.warehouse import featurizing

RESULTS = Path(__file__).parent / "results.json"
BENCHMARKS = (
    one_inference,
    reading,
    alerts,
    serving,
    sustained_load,
    outage_drill,
    many_patients,
    stored_packets,
    several_hosts,
    replaying,
    label_extraction,
    fresh_process,
    watching,
    vectorizing,
    explaining,
    featurizing,
    bootstrapping,
    dashboard_data,
    drift_alarms,
    training_share,
    synthetic_hospital,
    silent_trial,
)


def main() -> int:
    """Measure; give 0 whether or not a goal was met: a miss is a figure, not an error."""
    by_name = {benchmark.__name__: benchmark for benchmark in BENCHMARKS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(by_name)}; all if none is named")
    names = parser.parse_args().names
    if strange := [name for name in names if name not in by_name]:
        parser.error(f"expected names of {', '.join(by_name)}; got {', '.join(strange)}")
    console = Console()
    results: list[Measured] = []
    for benchmark in [by_name[name] for name in names] or BENCHMARKS:
        console.print(f"{benchmark.__name__.replace('_', ' ')} ...")
        results += benchmark()
    table = Table(title="Benchmarks")
    for heading in ("what", "value", "baseline", "ratio", "goal", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for result in results:
        table.add_row(
            result.name,
            f"{result.value:,.4g} {result.unit}",
            "" if result.baseline is None else f"{result.baseline:,.4g} {result.unit}",
            "" if result.ratio is None else f"{result.ratio:.2f}",
            result.goal,
            "" if result.met is None else "met" if result.met else "MISSED",
        )
    console.print(table)
    if not names:
        RESULTS.write_text(json.dumps(msgspec.to_builtins(results), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
