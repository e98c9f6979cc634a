"""Times on a wall clock to UTC, as an SQL expression that every warehouse's dialect has: comparisons and arithmetic.

Databases disagree about zones: which of them they know, and which of the two instants it is that a clock shows twice on
the night it goes back. So the changes of a zone's offset are looked up here, once, and written into the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo

_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_DAY, _SECOND = timedelta(days=1), timedelta(seconds=1)

_Change = tuple[datetime, timedelta]


def wall_to_utc(wall: str, zone: tzinfo) -> str:
    """Give the SQL of the instant in UTC at which a clock in that zone shows ``wall``.

    The hour that a clock shows twice is taken as its first, an hour that it skips as if it had not been set forward
    yet: what Python does with ``fold=0``, so that the FHIR side reads the same instant. Before 1900 and after 2100 the
    zone's offset is that of the nearest of those years.

    Args:
        wall: the SQL of a TIMESTAMP; it is repeated in the answer, so it should be a column or a parameter.
        zone: the clock's.
    """
    first, changes = _changes(zone)
    return _branch(wall, first, changes)


def _changes(zone: tzinfo) -> tuple[timedelta, list[_Change]]:
    """Give the offset in 1900, and each later one with the time on the wall from which it counts."""
    day, offset = _FIRST, _offset(zone, _FIRST)
    first = offset
    changes: list[_Change] = []
    if offset == _offset(zone, _LAST) and zone.utcoffset(None) is not None:
        return first, changes
    while day < _LAST:
        following = day + _DAY
        after = _offset(zone, following)
        if after != offset:
            instant = _when(zone, day, following, after)
            changes.append(((instant + max(offset, after)).replace(tzinfo=None), after))
            offset = after
        day = following
    return first, changes


def _when(zone: tzinfo, early: datetime, late: datetime, after: timedelta) -> datetime:
    """Find the second from which the offset is ``after``, between two instants of which only the later has it."""
    while late - early > _SECOND:
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if _offset(zone, middle) == after:
            late = middle
        else:
            early = middle
    return late


def _offset(zone: tzinfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _branch(wall: str, before: timedelta, changes: Sequence[_Change]) -> str:
    """Halve the changes until one offset is left, so that a time costs ten comparisons and not four hundred."""
    if not changes:
        seconds = int(before.total_seconds())
        return f"{wall} - INTERVAL '{seconds}' SECOND" if seconds else wall
    middle = len(changes) // 2
    since, offset = changes[middle]
    early = _branch(wall, before, changes[:middle])
    late = _branch(wall, offset, changes[middle + 1 :])
    return f"CASE WHEN {wall} < TIMESTAMP '{since:%Y-%m-%d %H:%M:%S}' THEN {early} ELSE {late} END"
