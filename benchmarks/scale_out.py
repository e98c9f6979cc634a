"""Past one machine: measures one, two and four hosts over one store, keeps the figures and draws them.

`make bench` runs it among the others; alone, in three minutes, it is `python -m benchmarks.scale_out`. It writes
benchmarks/scale_out.json, docs/scale-out.svg, docs/capacity.svg and the tables of docs/capacity.md.
"""

from __future__ import annotations

import os
import sys

from benchmarks.capacity_page import write_page
from benchmarks.measured import Measured
from benchmarks.scale_drill import Sizes, scaled_out
from benchmarks.scale_plot import draw
from benchmarks.scale_results import Kept, a_host_second, kept, write_kept
from deployr_cli.up_azure import missing


def several_hosts() -> list[Measured]:
    """Measure one, two and four hosts, keep what came of it for the capacity plan, and draw it."""
    if missing():
        return []
    cores, load_before = os.cpu_count() or 1, os.getloadavg()[0]
    scaled = scaled_out(Sizes())
    measured = kept(scaled, cores=cores, load_before=load_before)
    write_kept(measured)
    draw(scaled)
    write_page(measured)
    return figures(measured)


def figures(measured: Kept) -> list[Measured]:
    """Give the figures of a measurement: what was lost and done twice first."""
    wanted = sum(each.wanted for each in measured.houses)
    kills = sum(each.kills for each in measured.houses)
    found = [
        _figure(
            f"{', '.join(str(each.hosts) for each in measured.houses)} hosts over one store, {kills} of them killed, "
            f"{wanted:,} packets wanted: lost",
            sum(each.lost for each in measured.houses),
            goal=0,
        ),
        _figure("stored or written twice", sum(each.twice for each in measured.houses), goal=0),
    ]
    for each in measured.houses:
        if each.most is not None:
            found.append(_figure(f"{each.hosts} hosts: scores a second", each.most.a_second, "/s"))
            found.append(_figure("the same for a second of the hosts' processor time", a_host_second(each.most), "/s"))
        found.append(_figure(f"{each.hosts} hosts: patients of a slot a second", each.batch.a_second, "/s"))
    return found


def _figure(name: str, value: float, unit: str = "", *, goal: float | None = None) -> Measured:
    return Measured(
        name=name,
        value=round(value, 1),
        unit=unit,
        baseline=None,
        ratio=None,
        goal="none" if goal is None else f"value = {goal:g}",
        met=None if goal is None else value == goal,
    )


def main() -> int:
    """Measure alone, and print what came of it; 1 if anything was lost or done twice."""
    found = several_hosts()
    for each in found:
        print(f"{each.name}: {each.value:,g} {each.unit}".rstrip())
    return int(any(each.met is False for each in found))


if __name__ == "__main__":
    sys.exit(main())
