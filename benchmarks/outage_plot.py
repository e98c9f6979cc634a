"""What happened in an outage drill, over time, as a picture."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.outage import PHASES, Drill

_BANDS = {1: "#f4c7c3", 2: "#fde2b3"}
_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#5f6368"


def draw(drilled: Drill, file: Path) -> None:
    """Draw arrivals by answer, the time to answer, the spool and what is pending, with the outages shaded."""
    with plt.rc_context(
        {"font.size": 9, "svg.hashsalt": "outage", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, panels = plt.subplots(4, 1, figsize=(9, 9), sharex=True, constrained_layout=True)
        _arrivals(panels[0], drilled)
        _latencies(panels[1], drilled)
        times = [sample.at_s for sample in drilled.samples]
        for panel, depths, title, colour in (
            (panels[2], [sample.spooled for sample in drilled.samples], "packets in the spool", _RED),
            (panels[3], [sample.pending for sample in drilled.samples], "deliveries pending", _GREY),
        ):
            panel.fill_between(times, depths, color=colour, alpha=0.25, linewidth=0)
            panel.plot(times, depths, color=colour, linewidth=1.2)
            panel.set_ylabel(title)
            panel.set_ylim(bottom=0)
        length = drilled.seconds / len(PHASES)
        for number, panel in enumerate(panels):
            for phase, colour in _BANDS.items():
                panel.axvspan(phase * length, (phase + 1) * length, color=colour, alpha=0.6, linewidth=0, zorder=0)
                if number == 0:
                    middle = (phase + 0.5) * length
                    panel.text(middle, 1.02, PHASES[phase], transform=panel.get_xaxis_transform(), ha="center")
            panel.axvline(drilled.seconds, color=_GREY, linewidth=0.8, linestyle=":")
            panel.grid(axis="y", linewidth=0.4, alpha=0.5)
        panels[3].set_xlabel("seconds; the dotted line is the last request")
        panels[3].set_xlim(0, max(times))
        outcome = f"{drilled.lost} lost, {drilled.twice} stored or written twice"
        figure.suptitle(f"Outage drill: {len(drilled.answers):,} requests, {outcome}")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        plt.close(figure)


def _arrivals(panel: Axes, drilled: Drill) -> None:
    seconds = range(int(drilled.seconds))
    of_all = Counter(int(each.due_s) for each in drilled.answers)
    scored = Counter(int(each.due_s) for each in drilled.answers if each.said == "scored")
    panel.bar(
        seconds,
        [of_all[at] for at in seconds],
        width=1.0,
        align="edge",
        color=_RED,
        alpha=0.6,
        label="told to ask again later",
    )
    panel.bar(
        seconds, [scored[at] for at in seconds], width=1.0, align="edge", color=_BLUE, label="answered with a score"
    )
    panel.set_ylabel("requests a second")
    panel.legend(loc="lower right", framealpha=0.9)


def _latencies(panel: Axes, drilled: Drill) -> None:
    by_second: dict[int, list[float]] = {}
    for each in drilled.answers:
        by_second.setdefault(int(each.due_s), []).append(each.latency_ms)
    seconds = sorted(at for at, took in by_second.items() if len(took) > 1)
    at_most = [max(by_second[at]) for at in seconds]
    half = [statistics.median(by_second[at]) for at in seconds]
    panel.plot(seconds, at_most, color=_RED, linewidth=0.9, label="slowest in the second")
    panel.plot(seconds, half, color=_BLUE, linewidth=1.2, label="median")
    panel.set_yscale("log")
    panel.set_ylabel("answer, ms")
    panel.legend(loc="upper right", framealpha=0.9)
