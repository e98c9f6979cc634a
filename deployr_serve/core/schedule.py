"""When a batch is due: an NCRONTAB expression in a zone, as the UTC instants that it names. Pure.

The host's own timers cannot be relied on for this: WEBSITE_TIME_ZONE does nothing on Azure's Linux Consumption and Flex
plans, and ``past_due`` is wrong after some restarts. So the app's timer only asks, each minute, which slot is due.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

_EXPECTED = (
    'expected six fields "{second} {minute} {hour} {day} {month} {day-of-week}" such as "0 30 6 * * *", the second one '
    "number"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ITEM = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?"
)
_EVERY_HOUR = frozenset(range(24))
_LONGEST_GAP_DAYS = 9 * 366
"""Between two 29ths of February there can be eight years, and a day of the week may have to match too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The instants at which every field matches, on the clocks of ``zone``; day and day-of-week must both match.

    On the day that clocks go forward, a time that is left out comes as much later as they jump. On the day that they go
    back, a time that comes twice counts once, the first time; only a schedule for every hour has both of them.

    Source: NCrontab expressions, Microsoft Learn, "Timer trigger for Azure Functions".
    """

    second: int
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]
    zone: tzinfo

    def back_from(self, instant: datetime) -> Iterator[datetime]:
        """Give the slots at or before an instant, in UTC, the latest first."""
        # Tomorrow too: east of Greenwich it has begun already.
        day = instant.astimezone(self.zone).date() + timedelta(days=1)
        for _ in range(_LONGEST_GAP_DAYS):
            if day.day in self.days and day.month in self.months and day.isoweekday() % 7 in self.days_of_week:
                yield from (slot for slot in sorted(self._of_day(day), reverse=True) if slot <= instant)
            day -= timedelta(days=1)

    def _of_day(self, day: date) -> set[datetime]:
        folds = (0, 1) if self.hours == _EVERY_HOUR else (0,)
        return {
            datetime.combine(day, time(hour, minute, self.second, fold=fold), self.zone).astimezone(UTC)
            for hour in self.hours
            for minute in self.minutes
            for fold in folds
        }


def parse_schedule(text: str, *, zone: tzinfo) -> Schedule:
    """Read an NCRONTAB expression.

    Raises:
        ValueError: not of six fields, a field that cannot be read, or days that no calendar has.
    """
    fields = text.lower().split()
    if len(fields) != 6 or not re.fullmatch(r"[0-9]{1,2}", fields[0]) or int(fields[0]) > 59:
        raise ValueError(_EXPECTED)
    minutes, hours = _field(fields[1], 0, 59), _field(fields[2], 0, 23)
    days, months = _field(fields[3], 1, 31), _field(fields[4], 1, 12, _MONTHS)
    schedule = Schedule(
        second=int(fields[0]),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        days_of_week=_field(fields[5], 0, 6, _DAYS),
        zone=zone,
    )
    if next(schedule.back_from(datetime(2100, 1, 1, tzinfo=UTC)), None) is None:
        raise ValueError("expected days that some calendar has")
    return schedule


def _field(text: str, lowest: int, highest: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    values: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(_EXPECTED)
        step = int(match["step"] or 1)
        first = _value(match["first"], lowest, names) if match["first"] else lowest
        # A stepped single value runs to the field's end, as NCrontab has it: 5/10 in minutes is 5, 15 ... 55.
        last = highest if match["first"] is None or (match["step"] and not match["last"]) else first
        if match["last"]:
            last = _value(match["last"], lowest, names)
        if not (lowest <= first <= last <= highest and step):
            raise ValueError(_EXPECTED)
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _value(text: str, lowest: int, names: tuple[str, ...]) -> int:
    if text.isdigit():
        return int(text)
    if text not in names:
        raise ValueError(_EXPECTED)
    return names.index(text) + lowest
