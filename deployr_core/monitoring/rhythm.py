"""A deployment's own week: how often somebody asks at which hour, and so how long a silence may last."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

HOUR = timedelta(hours=1)
WEEK_HOURS = 168
SLOTS = 12
"""Stretches of five minutes of an hour. What comes in one stretch counts once: a batch is one call for attention."""
_FEWEST_WEEKS = 2
_FEWEST_SLOTS = 30
_MOST_SQUARE = 16.0
"""What one day may add to the spread: one outage must not make the switch deaf for weeks."""
_YEAR_HOURS = 365.25 * 24
_PAST_GAP = 1.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Hour:
    """What came in one hour: how many packets, and in how many of its `SLOTS` any did."""

    packets: int
    slots: int


NOTHING = Hour(packets=0, slots=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rhythm:
    """What is expected in each hour of the week, Monday 0:00 first, in local time; shape (168,) each.

    ``spread``: variance of a day's count over its mean, of slots and of packets, at least 1. ``second_gap``: the second
    longest stretch of empty hours, in slots that were expected in it; the longest may have been an outage.
    """

    zone: tzinfo
    slots: tuple[float, ...]
    packets: tuple[float, ...]
    slot_spread: float
    packet_spread: float
    second_gap: float
    hours: int

    def slots_between(self, start: datetime, end: datetime) -> float:
        """Give how many slots with packets are expected from ``start`` to ``end``; of an hour's part, its part."""
        return _between(self.slots, self.zone, start, end)

    def packets_between(self, start: datetime, end: datetime) -> float:
        """Give how many packets are expected."""
        return _between(self.packets, self.zone, start, end)

    def longest(self, false_alarms_per_year: float) -> float:
        """Give how many expected slots may pass without a packet.

        If slots came independently, ``m`` expected ones would stay empty with a chance of exp(-m), and each slot with a
        packet begins a silence anew: a year of ``n`` of them has n exp(-m) false alarms. Solved for m, times the
        spread; and longer than a silence that this deployment has had twice.
        """
        yearly = sum(self.slots) / WEEK_HOURS * _YEAR_HOURS
        by_chance = self.slot_spread * math.log(max(yearly / false_alarms_per_year, math.e))
        return max(by_chance, _PAST_GAP * self.second_gap)

    def until(self, since: datetime, expected: float) -> datetime | None:
        """Give when so many slots will have been expected since then; None if not within five weeks."""
        instant, left = since, expected
        for _ in range(5 * WEEK_HOURS):
            end = hour_start(instant) + HOUR
            here = self.slots_between(instant, end)
            if here >= left:
                return instant + (end - instant) * (left / here)
            left, instant = left - here, end
        return None


def rhythm_of(hours: Mapping[datetime, Hour], *, zone: tzinfo, end: datetime) -> Rhythm | str:
    """Learn the week of a deployment, or say why it cannot be learnt yet.

    Args:
        hours: by the start of the hour, UTC; an hour that is not there had none. The first one begins the history.
        zone: the site's: people keep to their own clock, summer and winter.
        end: hours before this instant count, aware.
    """
    if not hours:
        return "nobody has asked yet"
    first, last = min(hours), hour_start(end)
    length = int((last - first) / HOUR)
    if length < _FEWEST_WEEKS * WEEK_HOURS:
        return f"{length // 24} days of {_FEWEST_WEEKS * 7} that it takes to learn the week"
    every = [_Then.of(first + place * HOUR, hours, zone) for place in range(length)]
    if sum(each.slots for each in every) < _FEWEST_SLOTS:
        return "too few requests to learn the week from; declare longest_hours"
    times, slots, packets = ([0] * WEEK_HOURS for _ in range(3))
    for each in every:
        times[each.place] += 1
        slots[each.place] += each.slots
        packets[each.place] += each.packets
    slot_rates = tuple(n / of if of else 0.0 for n, of in zip(slots, times, strict=True))
    packet_rates = tuple(n / of if of else 0.0 for n, of in zip(packets, times, strict=True))
    return Rhythm(
        zone=zone,
        slots=slot_rates,
        packets=packet_rates,
        slot_spread=_spread(((each, each.slots) for each in every), slot_rates),
        packet_spread=_spread(((each, each.packets) for each in every), packet_rates),
        second_gap=_second_gap(every, slot_rates),
        hours=length,
    )


def hour_start(instant: datetime) -> datetime:
    """Give the start of the instant's hour, in UTC."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_of_week(instant: datetime, zone: tzinfo) -> int:
    """Give the local hour of the week, from 0 on Monday at midnight."""
    local = instant.astimezone(zone)
    return local.weekday() * 24 + local.hour


def _between(rates: tuple[float, ...], zone: tzinfo, start: datetime, end: datetime) -> float:
    total, instant = 0.0, start
    while instant < end:
        until = min(hour_start(instant) + HOUR, end)
        total += rates[hour_of_week(instant, zone)] * ((until - instant) / HOUR)
        instant = until
    return total


class _Then(NamedTuple):
    """One hour of the history: when in the local week, on which local day, and what came."""

    place: int
    day: date
    packets: int
    slots: int

    @classmethod
    def of(cls, start: datetime, hours: Mapping[datetime, Hour], zone: tzinfo) -> _Then:
        local, came = start.astimezone(zone), hours.get(start, NOTHING)
        return cls(local.weekday() * 24 + local.hour, local.date(), came.packets, came.slots)


def _spread(counts: Iterable[tuple[_Then, int]], rates: tuple[float, ...]) -> float:
    """Give the variance of days' counts over their means: the mean of capped squares, at least 1."""
    came: dict[date, float] = {}
    expected: dict[date, float] = {}
    for then, count in counts:
        came[then.day] = came.get(then.day, 0.0) + count
        expected[then.day] = expected.get(then.day, 0.0) + rates[then.place]
    squares = [min((came[day] - mean) ** 2 / mean, _MOST_SQUARE) for day, mean in expected.items() if mean > 0]
    return max(1.0, sum(squares) / max(1, len(squares) - 7)) if squares else 1.0


def _second_gap(every: Iterable[_Then], rates: tuple[float, ...]) -> float:
    gaps, gap = [0.0, 0.0], 0.0
    for then in every:
        if then.slots:
            gaps.append(gap)
            gap = 0.0
        else:
            gap += rates[then.place]
    return sorted(gaps)[-2]
