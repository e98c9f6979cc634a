"""What several hosts over one store came to, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.scale_drill import Scaled
from benchmarks.scale_hosts import COSMOS, EMR, HOSTS, QUEUES, SENDER

PLOT = Path(__file__).parent.parent / "docs" / "scale-out.svg"
_COLOURS = {HOSTS: "#1f5fa8", COSMOS: "#c77d2e", QUEUES: "#8a6bb0", EMR: "#5b9a68", SENDER: "#9aa0a6"}
_RED, _GREY = "#c0392b", "#5f6368"


def draw(scaled: Sequence[Scaled], file: Path = PLOT) -> None:
    """Draw, by the number of hosts: who uses the processor, what comes of it, and answers while hosts are killed."""
    with plt.rc_context(
        {"font.size": 9, "svg.hashsalt": "scale-out", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, panels = plt.subplots(2, 2, figsize=(10, 7.5), constrained_layout=True)
        _shares(panels[0][0], scaled)
        _rates(panels[0][1], scaled)
        _batches(panels[1][0], scaled)
        _killed(panels[1][1], scaled)
        wanted = sum(each.counts.wanted for each in scaled)
        lost = sum(each.counts.lost for each in scaled)
        twice = sum(each.counts.twice + each.counts.written_twice for each in scaled)
        hosts = ", ".join(str(each.hosts) for each in scaled)
        figure.suptitle(
            f"{hosts} hosts over one store and one queue: {wanted:,} packets wanted, {lost} lost, {twice} twice"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        plt.close(figure)


def _shares(panel: Axes, scaled: Sequence[Scaled]) -> None:
    names = [str(each.hosts) for each in scaled]
    below = [0.0] * len(scaled)
    for kind, colour in _COLOURS.items():
        ms = [(each.most or each.calm).used_s[kind] / len((each.most or each.calm).answers) * 1000 for each in scaled]
        panel.bar(names, ms, bottom=below, color=colour, width=0.6, label=kind)
        below = [low + high for low, high in zip(below, ms, strict=True)]
    panel.set_title("Processor time of one inference", loc="left")
    panel.set_xlabel("hosts")
    panel.set_ylabel("ms")
    panel.set_ylim(top=1.45 * max(below))
    panel.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)


def _rates(panel: Axes, scaled: Sequence[Scaled]) -> None:
    names = [str(each.hosts) for each in scaled]
    phases = [each.most or each.calm for each in scaled]
    panel.bar(names, [phase.a_second for phase in phases], color=_GREY, alpha=0.45, width=0.6, label="on this machine")
    of_hosts = [len(phase.answers) / phase.used_s[HOSTS] for phase in phases]
    panel.plot(names, of_hosts, color=_COLOURS[HOSTS], marker="o", label="for a second of the hosts' processor time")
    panel.set_ylim(bottom=0, top=1.35 * max(*of_hosts, *(phase.a_second for phase in phases)))
    panel.set_title("Scores a second, 32 requests under way", loc="left")
    panel.set_xlabel("hosts")
    panel.legend(fontsize=8, frameon=False, loc="upper left")


def _batches(panel: Axes, scaled: Sequence[Scaled]) -> None:
    names = [str(each.hosts) for each in scaled]
    rates = [each.batch.patients / each.batch.seconds for each in scaled]
    of_hosts = [each.batch.patients / each.batch.used_s[HOSTS] for each in scaled]
    panel.bar(names, rates, color=_GREY, alpha=0.45, width=0.6, label="on this machine")
    panel.plot(names, of_hosts, color=_COLOURS[HOSTS], marker="o", label="for a second of the hosts' processor time")
    panel.set_ylim(bottom=0, top=1.35 * max(*rates, *of_hosts))
    panel.set_title(f"A slot of {scaled[0].batch.patients} patients: patients a second", loc="left")
    panel.set_xlabel("hosts")
    panel.legend(fontsize=8, frameon=False, loc="upper left")


def _killed(panel: Axes, scaled: Sequence[Scaled]) -> None:
    for each, marker, colour in zip(scaled, "os^", (_RED, _COLOURS[HOSTS], _COLOURS[EMR]), strict=False):
        answers = each.killed.answers
        panel.plot(
            [answer.due_s for answer in answers],
            [answer.latency_ms / 1000 for answer in answers],
            marker,
            color=colour,
            markersize=3.5,
            alpha=0.7,
            linestyle="none",
            label=f"{each.hosts} hosts, {each.kills} killed" if each.hosts > 1 else "1 host, killed",
        )
    panel.set_yscale("log")
    panel.set_title("Hosts killed and started again: until the score", loc="left")
    panel.set_xlabel("when it was due, s")
    panel.set_ylabel("s")
    panel.legend(fontsize=8, frameon=False)
