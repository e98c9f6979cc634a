"""Timer schedules: NCRONTAB expressions and time spans, read as the real host reads them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.host_json import parse_timespan

_EXPECTED = (
    'six fields "{second} {minute} {hour} {day} {month} {day-of-week}" such as "0 */5 * * * *", '
    'five fields without the second, or a time span "hh:mm:ss"'
)


class Trigger(Protocol):
    """The part of an APScheduler trigger that this host uses."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None: ...


@dataclass(frozen=True, kw_only=True)
class Crontab:
    """The instants at which every field matches, in the host's time zone.

    Day and day-of-week must both match, unlike in Unix cron: ``0 0 0 13 * 5`` is Friday the 13th.

    Attributes:
        days_of_week: 0 is Sunday, 6 is Saturday.

    Source: NCrontab, ``CrontabSchedule.TryGetNextOccurrence``; Microsoft Learn, "Timer trigger for Azure
    Functions", section "NCRONTAB expressions".
    """

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]

    @property
    def never_fires(self) -> bool:
        """Whether no calendar has such a day: 31 February is a known way to switch a timer off."""
        return all(day > _LONGEST[month] for month in self.months for day in self.days)


@dataclass(frozen=True, kw_only=True)
class Every:
    """A fixed time from the start of one run to the start of the next."""

    period: timedelta

    def __post_init__(self) -> None:
        if self.period <= timedelta(0):
            raise ValueError("Every.period: expected a time above zero")


Schedule = Crontab | Every


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field(name="second", lowest=0, highest=59),
    _Field(name="minute", lowest=0, highest=59),
    _Field(name="hour", lowest=0, highest=23),
    _Field(name="day", lowest=1, highest=31),
    _Field(
        name="month",
        lowest=1,
        highest=12,
        names=(
            *("january", "february", "march", "april", "may", "june"),
            *("july", "august", "september", "october", "november", "december"),
        ),
    ),
    _Field(
        name="day-of-week",
        lowest=0,
        highest=6,
        names=("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"),
    ),
)
_LONGEST = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


def parse_schedule(expression: str, *, function: str, settings: Mapping[str, str]) -> Schedule:
    """Read a timer's schedule, after replacing a whole ``%SETTING%`` by that setting's value.

    Args:
        expression: an NCRONTAB expression of six or five fields, a time span, or ``%NAME%``.
        function: whose schedule it is, for the message.
        settings: the app's settings.

    Raises:
        HostSetupError: names the function, the expression and what was expected.

    Source: azure-webjobs-sdk-extensions, ``TimerSchedule.Create`` and ``CronSchedule.TryCreate``.
    """
    resolved = _resolved(expression, function=function, settings=settings)
    try:
        return _parsed(resolved)
    except ValueError as error:
        raise HostSetupError(f"function {function}: schedule {resolved!r}: {error}; expected {_EXPECTED}") from error


def parse_time_zone(settings: Mapping[str, str]) -> tzinfo:
    """The zone that schedules are read in: setting ``WEBSITE_TIME_ZONE``, an IANA name; without it UTC.

    Raises:
        HostSetupError: the name is not one of the zone database.

    Source: Microsoft Learn, "Timer trigger for Azure Functions", section "NCRONTAB time zones" (Linux).
    """
    name = settings.get("WEBSITE_TIME_ZONE", "").strip() or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise HostSetupError(
            f'WEBSITE_TIME_ZONE: expected an IANA zone such as "America/Los_Angeles", got {name!r}'
        ) from error


def trigger_for(schedule: Schedule, *, zone: tzinfo, start: datetime) -> Trigger:
    """The APScheduler trigger that fires on ``schedule``.

    APScheduler counts weekdays from Monday, NCRONTAB from Sunday: fields are handed over as expanded lists.

    Args:
        schedule: when to fire.
        zone: whose wall clock a :class:`Crontab` means.
        start: aware; an :class:`Every` first fires one period later.
    """
    if isinstance(schedule, Every):
        from apscheduler.triggers.interval import IntervalTrigger

        every: Trigger = IntervalTrigger(
            seconds=schedule.period.total_seconds(), start_date=start + schedule.period, timezone=zone
        )
        return every
    from apscheduler.triggers.cron import CronTrigger

    cron: Trigger = CronTrigger(
        year="*",
        month=_listed(schedule.months),
        day=_listed(schedule.days),
        day_of_week=_listed(frozenset((day + 6) % 7 for day in schedule.days_of_week)),
        hour=_listed(schedule.hours),
        minute=_listed(schedule.minutes),
        second=_listed(schedule.seconds),
        timezone=zone,
    )
    return cron


def next_occurrence(schedule: Schedule, *, after: datetime, zone: tzinfo) -> datetime | None:
    """The first instant of ``schedule`` strictly after ``after``; None where there never is one.

    Source: NCrontab, ``CrontabSchedule.GetNextOccurrence`` ("does not return the value of baseTime itself").
    """
    if isinstance(schedule, Crontab) and schedule.never_fires:
        # CronTrigger would look through every year up to 9999.
        return None
    try:
        return trigger_for(schedule, zone=zone, start=after).get_next_fire_time(after, after)
    except OverflowError:  # after the year 9999
        return None


def fires_within_a_minute_twice(schedule: Schedule) -> bool:
    """Whether runs can be closer than a minute; the real host keeps no status for such a timer.

    Source: azure-webjobs-sdk-extensions, ``TimerSchedule.Create`` (it sets ``UseMonitor`` to false).
    """
    if isinstance(schedule, Every):
        return schedule.period < timedelta(minutes=1)
    return len(schedule.seconds) > 1


def _resolved(expression: str, *, function: str, settings: Mapping[str, str]) -> str:
    matched = re.fullmatch(r"\s*%([^%]+)%\s*", expression)
    if matched is None:
        return expression
    name = matched[1]
    if name not in settings:
        raise HostSetupError(
            f"function {function}: schedule {expression!r}: expected a setting named {name}, and there is none"
        )
    return settings[name]


def _parsed(expression: str) -> Schedule:
    tokens = expression.split()
    if len(tokens) == 1:
        period = parse_timespan(tokens[0])
        if not period:
            raise ValueError("not a time span above zero")
        return Every(period=period)
    if len(tokens) == 5:
        tokens = ["0", *tokens]
    if len(tokens) != 6:
        raise ValueError(f"{len(tokens)} fields")
    values = [_values(token, field) for token, field in zip(tokens, _FIELDS, strict=True)]
    seconds, minutes, hours, days, months, days_of_week = values
    return Crontab(seconds=seconds, minutes=minutes, hours=hours, days=days, months=months, days_of_week=days_of_week)


def _values(token: str, field: _Field) -> frozenset[int]:
    return frozenset(value for item in token.split(",") for value in _item(item, field))


def _item(item: str, field: _Field) -> range:
    """One element of a list: ``*``, a value or a range, each with an optional ``/step``.

    A range that is written backwards is turned round (``FRI-MON`` is Monday to Friday), and a stepped single
    value runs to the field's end (``5/10`` in minutes is 5, 15 ... 55).

    Source: NCrontab, ``CrontabFieldImpl.InternalParse`` and ``CrontabField.Accumulate``.
    """
    span, slash, step_text = item.partition("/")
    step = _step(step_text, field) if slash else 1
    if span == "*":
        return range(field.lowest, field.highest + 1, step)
    first_text, dash, last_text = span.partition("-")
    first = _value(first_text, field)
    last = _value(last_text, field) if dash else field.highest if slash else first
    return range(min(first, last), max(first, last) + 1, step)


def _step(text: str, field: _Field) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) == 0:
        raise ValueError(f"{field.name}: {text!r} is not a step of 1 or more")
    return int(text)


def _value(text: str, field: _Field) -> int:
    if re.fullmatch(r"[0-9]{1,3}", text):
        value = int(text)
        if field.lowest <= value <= field.highest:
            return value
        hint = "; write 0 for Sunday, the real host refuses 7" if field.name == "day-of-week" else ""
        raise ValueError(f"{field.name}: {value} is outside {field.lowest} to {field.highest}{hint}")
    if text.isalpha():
        # The real host takes any beginning of a name, and the first name that fits.
        for index, name in enumerate(field.names):
            if name.startswith(text.lower()):
                return index + field.lowest
    raise ValueError(f"{field.name}: {text!r} is not a value")


def _listed(values: frozenset[int]) -> str:
    return ",".join(str(value) for value in sorted(values))
