"""What the facts of both sides add up to: how late they were known, and what only one side ever shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from deployr_core.features import ResultGroup
from deployr_dev.parity_facts import GroupFacts, Side

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneSided:
    """A declared code, or a unit of a declared test, that only ``side`` ever shows, in ``facts`` facts."""

    group: str
    what: str
    name: str
    side: Side
    facts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lateness:
    """When the facts that both sides have were known: minutes by which the EMR is behind the warehouse.

    ``emr_later`` and ``warehouse_later``: how many of ``joined``. The median and the largest lag, in size, are of those
    that were not known at the same instant; below 0 where the warehouse is behind.
    """

    group: str
    joined: int
    emr_later: int
    warehouse_later: int
    median_minutes: float
    largest_minutes: float


def lateness_of(facts: GroupFacts) -> Lateness | None:
    """Measure how late each side knew what both have; None where they have nothing in common."""
    lags = [(emr.known_at - warehouse.known_at) / MINUTE for emr, warehouse in facts.matched]
    if not lags:
        return None
    apart = [lag for lag in lags if lag]
    return Lateness(
        group=facts.group.name,
        joined=len(lags),
        emr_later=sum(lag > 0 for lag in lags),
        warehouse_later=sum(lag < 0 for lag in lags),
        median_minutes=median(apart) if apart else 0.0,
        largest_minutes=max(apart, key=abs) if apart else 0.0,
    )


def one_sided(facts: GroupFacts) -> Iterator[OneSided]:
    """Name the codes and units that orders could see at one side only, those with the most facts first."""
    shown = {side: [row for row in facts.declared(side) if row.seen] for side in Side}
    names: list[tuple[str, dict[Side, Counter[str]]]] = [
        ("code", {side: Counter(row.feature or "" for row in shown[side]) for side in Side})
    ]
    if isinstance(facts.group, ResultGroup):
        units = {side: Counter(f"{row.feature}: {row.unit or 'no unit'}" for row in shown[side]) for side in Side}
        names.append(("unit", units))
    for what, counted in names:
        for side in Side:
            for name, count in sorted(counted[side].items(), key=lambda item: (-item[1], item[0])):
                if name not in counted[side.other]:
                    yield OneSided(group=facts.group.name, what=what, name=name, side=side, facts=count)
