"""Instants on the time line: aware, in UTC, and honest about how precise their source was."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
_ZONE = r"[+-](?:0\d|1[0-4]):[0-5]\d"
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>0\d|1[0-4]):(?P<minutes>[0-5]\d)\Z", re.ASCII)
_FHIR_DATETIME = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d{2})(-(?P<day>\d{2})"
    rf"(T(?P<time>\d{{2}}:\d{{2}}(?P<seconds>:\d{{2}}(\.\d{{1,9}})?)?)(?P<zone>Z|{_ZONE})?)?)?)?\Z",
    re.ASCII,
)
_RFC3339 = re.compile(
    rf"\d{{4}}-\d{{2}}-\d{{2}}T\d{{2}}:\d{{2}}:\d{{2}}(\.\d{{1,9}})?(Z|{_ZONE})\Z",
    re.ASCII,
)


def utc(instant: datetime) -> datetime:
    """Give the same instant in UTC.

    Raises:
        ValueError: the instant is naive, so nobody can say when it was.
    """
    if instant.tzinfo is None:
        raise ValueError("expected an aware instant, got one without a time zone")
    return instant.astimezone(UTC)


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 instant with its offset, in UTC.

    Raises:
        ValueError: not of the form ``2015-01-06T20:55:00-05:00`` or ``…Z``, or no such day or time exists
            (30 February, second 60). The text itself is not repeated: it may come from a patient's record.

    Source: RFC 3339 section 5.6; FHIR R4 instant, http://hl7.org/fhir/R4/datatypes.html#instant.
    """
    if not _RFC3339.match(text):
        raise ValueError("expected an instant with its offset, such as 2015-01-06T20:55:00-05:00")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("expected an instant that exists: check the day of the month, hour and offset") from None


def parse_fhir_datetime(text: str, *, zone: tzinfo) -> tuple[datetime, datetime]:
    """Read a FHIR dateTime as the span it may stand for: its first instant and the first instant after it.

    ``2015-01`` spans all of January, ``T20:55`` a minute, ``T20:55:00`` a second. What happened is dated by the start
    of the span; what was known, by its end when only a day is given (see `known_instant`). The end of time,
    9999-12-31, which stands for "no end" in many records, spans what is left of the calendar.

    Args:
        text: a FHIR dateTime or instant of any precision.
        zone: the site's zone, for values that carry none.

    Raises:
        ValueError: not a FHIR dateTime.

    Source: FHIR R4 dateTime, http://hl7.org/fhir/R4/datatypes.html#dateTime.
    """
    match = _FHIR_DATETIME.match(text)
    if match is None:
        raise ValueError("expected a FHIR dateTime, such as 2015, 2015-01, 2015-01-06 or 2015-01-06T20:55:00Z")
    year, month, day = int(match["year"]), int(match["month"] or 1), int(match["day"] or 1)
    try:
        if match["time"]:
            start = datetime.fromisoformat(text)
            if start.tzinfo is None:
                start = start.replace(tzinfo=zone)
            # In UTC: a second on the wall lasts an hour on the night that the clocks go back.
            start = start.astimezone(UTC)
            end = start + timedelta(seconds=1 if match["seconds"] else 60)
        else:
            start = datetime(year, month, day, tzinfo=zone)
            if (match["year"], match["month"] or "12", match["day"] or "31") == ("9999", "12", "31"):
                end = _END_OF_TIME
            elif match["day"]:
                end = start + timedelta(days=1)
            elif match["month"]:
                end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=zone)
            else:
                end = datetime(year + 1, 1, 1, tzinfo=zone)
        return start.astimezone(UTC), end.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("expected a FHIR dateTime that exists on the calendar") from None


def known_instant(span: tuple[datetime, datetime]) -> datetime:
    """Say from when on a fact dated by this span was surely known: its start if it has a time of day, else its end.

    A record dated 6 January without a time may have been written at any moment of that day; treating it as
    known from midnight would let a model see the afternoon in the morning.
    """
    start, end = span
    return start if end - start <= timedelta(minutes=1) else end


def parse_zone(name: str) -> tzinfo:
    """Read a zone: ``UTC``, a fixed offset such as ``-05:00``, or an IANA name such as ``America/New_York``.

    Raises:
        ValueError: no such zone is known on this machine.
    """
    if name in {"UTC", "Z"}:
        return UTC
    match = _OFFSET.match(name)
    if match:
        size = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
        return timezone(size if match["sign"] == "+" else -size)
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected UTC, an offset such as -05:00 or an IANA zone, got {name[:40]!r}") from None
