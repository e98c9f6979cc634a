from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from deployr_core.instants import known_instant, parse_fhir_datetime, parse_instant, parse_zone, utc

KATHMANDU = timezone(timedelta(hours=5, minutes=45))
NEW_YORK = ZoneInfo("America/New_York")


def z(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def test_utc_keeps_the_instant_and_changes_the_zone() -> None:
    instant = utc(datetime(2015, 1, 6, 23, 55, tzinfo=KATHMANDU))
    assert instant == z("2015-01-06 18:10:00")
    assert instant.tzinfo is UTC


def test_utc_refuses_a_naive_datetime() -> None:
    with pytest.raises(ValueError, match="aware"):
        utc(z("2015-01-06 20:55:00").replace(tzinfo=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-01-06T20:55:00Z", "2015-01-06 20:55:00"),
        ("2015-01-06T20:55:00-05:00", "2015-01-07 01:55:00"),
        ("2015-01-06T23:55:00+05:45", "2015-01-06 18:10:00"),
        ("2015-01-01T00:00:00+14:00", "2014-12-31 10:00:00"),
        ("2015-12-31T23:59:59-12:00", "2016-01-01 11:59:59"),
        ("2015-01-06T20:55:00-00:00", "2015-01-06 20:55:00"),
        ("2016-02-29T00:00:00Z", "2016-02-29 00:00:00"),
    ],
)
def test_an_instant_is_read_with_its_offset(text: str, expected: str) -> None:
    assert parse_instant(text) == z(expected)
    assert parse_instant(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("fraction", "microseconds"),
    [(".5", 500_000), (".000001", 1), (".123456", 123_456), (".123456999", 123_456), (".999999999", 999_999)],
)
def test_a_fraction_is_cut_to_microseconds_and_never_rounded_into_the_future(fraction: str, microseconds: int) -> None:
    expected = z("2015-01-06 20:55:00") + timedelta(microseconds=microseconds)
    assert parse_instant(f"2015-01-06T20:55:00{fraction}Z") == expected


IMPOSSIBLE_TIMES = [
    pytest.param("2015-02-30T12:00:00Z", id="30 February"),
    pytest.param("2015-02-29T12:00:00Z", id="29 February of a common year"),
    pytest.param("2016-12-31T23:59:60Z", id="leap second"),
    pytest.param("2015-01-06T24:00:00Z", id="24 o'clock"),
    pytest.param("2015-01-06T20:60:00Z", id="minute 60"),
    pytest.param("2015-13-06T20:55:00Z", id="month 13"),
    pytest.param("2015-00-06T20:55:00Z", id="month 0"),
    pytest.param("0000-01-06T20:55:00Z", id="year 0"),
    pytest.param("2015-01-06T20:55:00+24:00", id="offset of a day"),
    pytest.param("0001-01-01T00:00:00+05:45", id="before the calendar, in UTC"),
    pytest.param("9999-12-31T23:59:59-05:45", id="after the calendar, in UTC"),
]
MALFORMED_TIMES = [
    pytest.param("", id="empty"),
    pytest.param("2015-01-06 20:55:00Z", id="space for T"),
    pytest.param("2015-01-06T20:55:00Z\n", id="trailing newline"),
    pytest.param(" 2015-01-06T20:55:00Z", id="leading space"),
    pytest.param("20150106T205500Z", id="basic format"),
    pytest.param("2015-W02-2T20:55:00Z", id="week date"),
    pytest.param("2015-01-06T20:55:00+0545", id="offset without colon"),
    pytest.param("2015-01-06T20:55:00+05", id="offset without minutes"),
    pytest.param("2015-01-06T20:55:00.Z", id="point without a fraction"),
    pytest.param("2015-01-06T20:55:00.1234567890Z", id="ten digits of a fraction"),
    pytest.param("2015-01-06T20:55:00,5Z", id="comma"),
    pytest.param("٢٠١٥-01-06T20:55:00Z", id="digits of another script"),
]


@pytest.mark.parametrize("text", IMPOSSIBLE_TIMES + MALFORMED_TIMES)
def test_an_instant_that_does_not_exist_or_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an instant"):
        parse_instant(text)


@pytest.mark.parametrize("text", ["2015-01-06T20:55:00", "2015-01-06", "2015-01-06T20:55Z"])
def test_an_instant_needs_seconds_and_an_offset(text: str) -> None:
    with pytest.raises(ValueError, match="with its offset"):
        parse_instant(text)


def test_an_offset_of_99_minutes_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an instant"):
        parse_instant("2015-01-06T20:55:00+10:99")


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        pytest.param("2015", "2014-12-31 18:15:00", "2015-12-31 18:15:00", id="year"),
        pytest.param("2015-01", "2014-12-31 18:15:00", "2015-01-31 18:15:00", id="month"),
        pytest.param("2015-12", "2015-11-30 18:15:00", "2015-12-31 18:15:00", id="December"),
        pytest.param("2016-02", "2016-01-31 18:15:00", "2016-02-29 18:15:00", id="February of a leap year"),
        pytest.param("2015-01-06", "2015-01-05 18:15:00", "2015-01-06 18:15:00", id="day"),
        pytest.param("2015-12-31", "2015-12-30 18:15:00", "2015-12-31 18:15:00", id="last day of the year"),
        pytest.param("2015-01-06T23:55:00", "2015-01-06 18:10:00", "2015-01-06 18:10:01", id="local second"),
        pytest.param("2015-01-06T23:55:00Z", "2015-01-06 23:55:00", "2015-01-06 23:55:01", id="own offset wins: Z"),
        pytest.param("2015-01-06T23:55:00-05:00", "2015-01-07 04:55:00", "2015-01-07 04:55:01", id="own offset wins"),
    ],
)
def test_a_fhir_datetime_spans_what_its_precision_leaves_open(text: str, start: str, end: str) -> None:
    span = parse_fhir_datetime(text, zone=KATHMANDU)
    assert span == (z(start), z(end))
    assert all(instant.tzinfo is UTC for instant in span)


def test_a_fraction_of_a_second_dates_the_start_of_the_span() -> None:
    start, _ = parse_fhir_datetime("2015-01-06T20:55:00.250Z", zone=KATHMANDU)
    assert start == z("2015-01-06 20:55:00") + timedelta(milliseconds=250)


def test_a_minute_without_seconds_starts_with_its_first_second() -> None:
    start, _ = parse_fhir_datetime("2015-01-06T23:55", zone=KATHMANDU)
    assert start == z("2015-01-06 18:10:00")


@pytest.mark.parametrize(
    ("day", "hours"), [("2015-03-08", 23), ("2015-11-01", 25), ("2015-01-06", 24)], ids=["spring", "autumn", "winter"]
)
def test_a_day_is_as_long_as_the_sites_clocks_make_it(day: str, hours: int) -> None:
    start, end = parse_fhir_datetime(day, zone=NEW_YORK)
    assert end - start == timedelta(hours=hours)


def test_the_last_second_before_the_clocks_go_back_spans_one_second() -> None:
    start, end = parse_fhir_datetime("2015-11-01T01:59:59", zone=NEW_YORK)
    assert end - start == timedelta(seconds=1)
    assert known_instant((start, end)) == z("2015-11-01 05:59:59")


@pytest.mark.parametrize("text", [*IMPOSSIBLE_TIMES, *MALFORMED_TIMES])
def test_a_fhir_datetime_that_does_not_exist_or_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a FHIR dateTime"):
        parse_fhir_datetime(text, zone=UTC)


@pytest.mark.parametrize(
    "text", ["2015-02-30", "2015-13", "0000", "15-01-06", "2015-1-6", "2015-01-06T", "2015-01-06Z"]
)
def test_a_fhir_date_that_does_not_exist_or_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a FHIR dateTime"):
        parse_fhir_datetime(text, zone=UTC)


def test_a_fraction_of_a_minute_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a FHIR dateTime"):
        parse_fhir_datetime("2015-01-06T20:55.5Z", zone=UTC)


@pytest.mark.parametrize("text", ["2015-02-30", "Jane Doe, MRN 4711", "2015-01-06T20:55:61Z"])
def test_a_refusal_does_not_repeat_what_came_in(text: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        parse_fhir_datetime(text, zone=UTC)
    assert text not in str(refused.value)
    with pytest.raises(ValueError, match="expected") as refused:
        parse_instant(text)
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-01-06T20:55:00Z", "2015-01-06 20:55:00"),
        ("2015-01-06", "2015-01-06 18:15:00"),
        ("2015-01", "2015-01-31 18:15:00"),
        ("2015", "2015-12-31 18:15:00"),
    ],
)
def test_what_has_a_time_is_known_at_it_and_what_has_only_a_date_at_its_end(text: str, expected: str) -> None:
    assert known_instant(parse_fhir_datetime(text, zone=KATHMANDU)) == z(expected)


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("UTC", timedelta(0)),
        ("Z", timedelta(0)),
        ("+05:45", timedelta(hours=5, minutes=45)),
        ("-05:00", timedelta(hours=-5)),
        ("-03:30", timedelta(hours=-3, minutes=-30)),
        ("America/New_York", timedelta(hours=-5)),
    ],
)
def test_a_zone_is_read_by_offset_or_name(name: str, offset: timedelta) -> None:
    assert datetime(2015, 1, 6, tzinfo=parse_zone(name)).utcoffset() == offset


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "America", "../etc/passwd", "+24:00", "0545", "EST5\x00"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected UTC|offset must be"):
        parse_zone(name)


@pytest.mark.parametrize("name", ["+05:75", "+٠٥:٤٥"])
def test_an_offset_is_two_ascii_digits_and_under_60_minutes(name: str) -> None:
    with pytest.raises(ValueError, match="expected UTC"):
        parse_zone(name)


def test_a_zone_name_of_300_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="expected UTC"):
        parse_zone("x" * 300)
