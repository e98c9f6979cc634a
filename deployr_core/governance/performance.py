"""How a model did, in the few figures that papers and checklists hold: on held-out rows, or in service here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deployr_core.bootstrap import Figure, Interval
from deployr_core.bundle import Estimate
from deployr_core.registry.comparison import Shown

NAMES: Mapping[str, str] = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier_score": "Brier score",
    "calibration_in_the_large": "calibration in the large (observed less predicted)",
    "calibration_slope": "calibration slope",
}
"""The figures that papers hold, in their order, by what they are called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupPerformance:
    """Some people. ``rows``, ``patients``: None where they would tell of a small group.

    ``auroc``: or why there is none. ``gap``: its AUROC less everybody's, or why there is none.
    """

    grouping: str
    name: str
    rows: int | None
    patients: int | None
    auroc: Shown
    gap: Shown

    @property
    def called(self) -> str:
        """Give the group with its property: ``sex female``."""
        return f"{self.grouping} {self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """``rows`` with an outcome that is known, ``positives`` of them with it. ``figures``: by the keys of `NAMES`."""

    rows: int
    patients: int
    positives: int
    figures: Mapping[str, Shown]
    groups: tuple[GroupPerformance, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What a run's bundle answered here, by one extract.

    ``days``: from the first to the last request, both included. ``requests``: all that it was asked. ``answered``: the
    share that got a score. ``ripe``: scored ones whose outcome is due. ``labelled``: the share of these that is
    decided, observed or censored for a known reason. ``observed``: the share of these that was observed.
    ``latency_ms``: the 95th percentile of answers that somebody waited for. ``performance``: of ripe observed outcomes
    of packets in silent mode, which nobody acted on, or why there is none.
    """

    days: int
    requests: int
    answered: Shown
    ripe: int
    labelled: Shown
    observed: Shown
    latency_ms: Shown
    performance: Performance | str


def shown(figure: Figure) -> Shown:
    """Give a measured figure as papers hold it."""
    if isinstance(figure, Interval):
        return Estimate(value=figure.value, low=figure.low, high=figure.high)
    return figure.why


def in_words(figure: Shown, *, digits: int = 3) -> str:
    """Write a figure: ``0.812 (0.771 to 0.850)``."""
    if isinstance(figure, str):
        return f"not measurable: {figure}"
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def validity_lines(performance: Performance) -> tuple[str, ...]:
    """Write the figures of everybody, with what they rest on first."""
    counts = (
        f"{performance.rows:,} rows of {performance.patients:,} patients, {performance.positives:,} with the outcome;"
        " 95 % intervals by resampling patients"
    )
    return (counts, *(f"{NAMES[key]} {in_words(performance.figures[key])}" for key in _in_order(performance.figures)))


def fairness_lines(performance: Performance) -> tuple[str, ...]:
    """Write each group's AUROC, and how far it is from everybody's."""
    return tuple(
        f"{group.called}: AUROC {in_words(group.auroc)}"
        + ("" if isinstance(group.gap, str) else f"; less everybody's {in_words(group.gap)}")
        for group in performance.groups
    )


def group_lines(groups: Sequence[GroupPerformance]) -> tuple[str, ...]:
    """Write how many people each group holds; of small ones, and what would give them away, nothing is said."""
    return tuple(
        f"{group.called}: "
        + (
            "not told, lest it tell of too few"
            if group.patients is None
            else f"{group.patients:,} patients, {group.rows:,} rows"
        )
        for group in groups
    )


def _in_order(figures: Mapping[str, Shown]) -> Iterator[str]:
    return (key for key in NAMES if key in figures)
