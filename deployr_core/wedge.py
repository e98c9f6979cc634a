"""Stepped wedges: clusters change over from control to advised one after another, at fixed instants, and never back.

The arm follows from the cluster and the instant alone, so every machine finds the same one without asking any other.

Source: M. A. Hussey, J. P. Hughes (2007), Contemp. Clin. Trials 28:182-191, doi:10.1016/j.cct.2006.05.007.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime
from itertools import chain, pairwise

import msgspec


class SteppedWedge(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="stepped-wedge"
):
    """Which clusters there are, and when some of them change over.

    ``clusters``: as the channel tells the trial's unit, to the letter. ``steps``: the instants, with their offset; from
    its own on, a step counts. ``sequence``: for each step the clusters that change over with it; None draws the order
    under the site's secret, as many at each step as can be. ``drawn_by_chance``: the sequence fell by chance elsewhere,
    such as at a public draw, so that an arm's probability is that of any order; else it is 1, for nobody drew it.

    Raises:
        ValueError: a list that is no stepped wedge; the message says what was expected.
    """

    clusters: tuple[str, ...]
    steps: tuple[datetime, ...]
    sequence: tuple[tuple[str, ...], ...] | None = None
    drawn_by_chance: bool = False

    def __post_init__(self) -> None:
        if len(set(self.clusters)) != len(self.clusters) or not all(each.strip() for each in self.clusters):
            raise ValueError("expected each of clusters once, and none of them empty")
        if len(self.steps) < 2 or len(self.clusters) < len(self.steps):
            raise ValueError("expected at least two steps, and a cluster for each of them")
        if any(step.tzinfo is None for step in self.steps):
            raise ValueError("expected steps with their offset, such as 2026-01-05T07:00:00-05:00")
        if any(later <= earlier for earlier, later in pairwise(self.steps)):
            raise ValueError("expected steps from the earliest to the latest, each once")
        if self.sequence is None:
            if self.drawn_by_chance:
                raise ValueError("expected drawn_by_chance only with a sequence: without one the order is drawn here")
            return
        if len(self.sequence) != len(self.steps) or not all(self.sequence):
            raise ValueError("expected a sequence with at least one cluster for each of the steps")
        if sorted(chain.from_iterable(self.sequence)) != sorted(self.clusters):
            raise ValueError("expected a sequence that names each of clusters once, and no other")

    def period(self, at: datetime) -> int:
        """Give how many steps have been taken at an instant; 0 before the first, and from its own on each counts."""
        return bisect_right(self.steps, at)

    def changes(self, draw: Callable[[str], str]) -> dict[str, int]:
        """Give by cluster the step, from 1, that it changes over with.

        Args:
            draw: gives what stands for chance of a cluster; not asked where there is a sequence.
        """
        if self.sequence is not None:
            return {cluster: step for step, group in enumerate(self.sequence, start=1) for cluster in group}
        # Sorting by independent draws is a fair shuffle, whatever order the file lists clusters in.
        order = sorted(self.clusters, key=draw)
        return {cluster: 1 + place * len(self.steps) // len(order) for place, cluster in enumerate(order)}


class WedgePlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where in a stepped wedge a packet stands: in how many steps, and in which of the listed clusters, from 1."""

    cluster: int
    period: int
