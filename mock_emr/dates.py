"""FHIR dates as stretches of time: what `2015-01`, `2015-01-06T20:55Z` and the prefixes before them mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

BEGINNING = datetime.min.replace(tzinfo=UTC)
FOREVER = datetime.max.replace(tzinfo=UTC)

PREFIXES = ("eq", "ge", "gt", "le", "lt")

_DATE = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(\.(?P<fraction>\d+))?)?(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_SECOND = timedelta(seconds=1)


class DateError(ValueError):
    """The text is no FHIR date, dateTime or instant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A stretch of time in UTC that holds ``low`` and does not hold ``high``."""

    low: datetime
    high: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class DateTest:
    """One search value: a prefix of PREFIXES and the stretch that its date stands for."""

    prefix: str
    wanted: Interval


# The results of one panel share their instants, and each is read several times while a chart is loaded.
@lru_cache(maxsize=65_536)
def interval_of(text: str) -> Interval:
    """Give the stretch that a FHIR date of any precision stands for.

    A year is its whole year, a minute its sixty seconds, a second with a fraction the length of its last
    digit (a microsecond at least). Seconds may be left out, because Epic clients search with
    `geYYYY-MM-DDTHH:MMZ`. A value without an offset is taken as UTC: this EMR's local zone.

    Raises:
        DateError: the text is no such date.

    Source: FHIR R4 search.html#date and datatypes.html#dateTime; the minute form, wire-formats.md section 2 [seen].
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise DateError("expected a FHIR date, dateTime or instant")
    zone = match["zone"]
    try:
        if match["hour"] is None:
            return _of_date(int(match["year"]), match["month"], match["day"])
        low = datetime.fromisoformat(text) if zone else datetime.fromisoformat(text).replace(tzinfo=UTC)
        low = low.astimezone(UTC)
        return Interval(low=low, high=low + _precision(match["second"], match["fraction"]))
    except (ValueError, OverflowError) as error:
        raise DateError("expected a FHIR date that is on the calendar") from error


def instant_of(text: str) -> datetime:
    """Give the aware UTC instant that the text names.

    Raises:
        DateError: the text is a mere date, has no offset, or is no date at all.
    """
    interval = interval_of(text)
    match = _DATE.fullmatch(text)
    if match is None or match["zone"] is None:
        raise DateError("expected an instant with an offset, such as 2015-01-06T20:55:00Z")
    return interval.low


def wire_instant(instant: datetime) -> str:
    """Write an aware instant in UTC with `Z`; the fraction only where there is one."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def date_test_of(text: str) -> DateTest:
    """Read a search value such as `ge2015-01-06`; no prefix means eq.

    Raises:
        DateError: the prefix is not one of PREFIXES, or no date follows.
    """
    if text[:1].isalpha():
        prefix, date = text[:2], text[2:]
        if prefix not in PREFIXES:
            raise DateError(f"expected one of the prefixes {', '.join(PREFIXES)}")
        return DateTest(prefix=prefix, wanted=interval_of(date))
    return DateTest(prefix="eq", wanted=interval_of(text))


def passes(test: DateTest, held: Interval) -> bool:
    """Tell whether what a resource holds answers the search value.

    eq: the wanted stretch holds all of the held one. gt, lt: the held one reaches past the wanted one's end, or begins
    before its start. ge, le: either of the two.

    Source: FHIR R4 search.html#prefix.
    """
    wanted = test.wanted
    within = wanted.low <= held.low and held.high <= wanted.high
    match test.prefix:
        case "eq":
            return within
        case "gt":
            return held.high > wanted.high
        case "ge":
            return within or held.high > wanted.high
        case "lt":
            return held.low < wanted.low
        case "le":
            return within or held.low < wanted.low
        case unknown:
            raise DateError(f"expected one of the prefixes {', '.join(PREFIXES)}, not {unknown}")


def _of_date(year: int, month: str | None, day: str | None) -> Interval:
    low = datetime(year, int(month or 1), int(day or 1), tzinfo=UTC)
    if day is not None:
        return Interval(low=low, high=_or_forever(low, timedelta(days=1)))
    next_year, next_month = (year + 1, 1) if month in (None, "12") else (year, int(month or 1) + 1)
    if next_year > FOREVER.year:
        return Interval(low=low, high=FOREVER)
    return Interval(low=low, high=datetime(next_year, next_month, 1, tzinfo=UTC))


def _or_forever(low: datetime, length: timedelta) -> datetime:
    return low + length if low <= FOREVER - length else FOREVER


def _precision(second: str | None, fraction: str | None) -> timedelta:
    if second is None:
        return timedelta(minutes=1)
    if fraction is None:
        return _SECOND
    return timedelta(microseconds=10 ** max(6 - len(fraction), 0))
