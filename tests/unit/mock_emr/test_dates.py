from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mock_emr.dates import (
    FOREVER,
    DateError,
    Interval,
    date_test_of,
    instant_of,
    interval_of,
    passes,
    wire_instant,
)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2015", utc(2015, 1, 1), utc(2016, 1, 1)),
        ("2015-02", utc(2015, 2, 1), utc(2015, 3, 1)),
        ("2015-12", utc(2015, 12, 1), utc(2016, 1, 1)),
        ("2016-02-29", utc(2016, 2, 29), utc(2016, 3, 1)),
        ("2015-01-06T20:55Z", utc(2015, 1, 6, 20, 55), utc(2015, 1, 6, 20, 56)),
        ("2015-01-06T20:55:10Z", utc(2015, 1, 6, 20, 55, 10), utc(2015, 1, 6, 20, 55, 11)),
        ("2015-01-06T20:55:10.5Z", utc(2015, 1, 6, 20, 55, 10, 500_000), utc(2015, 1, 6, 20, 55, 10, 600_000)),
        ("2015-01-06T20:55:10", utc(2015, 1, 6, 20, 55, 10), utc(2015, 1, 6, 20, 55, 11)),
        ("2015-01-06T20:55:00-05:00", utc(2015, 1, 7, 1, 55), utc(2015, 1, 7, 1, 55, 1)),
        ("2015-01-06T20:55:00+05:45", utc(2015, 1, 6, 15, 10), utc(2015, 1, 6, 15, 10, 1)),
        ("9999", utc(9999, 1, 1), FOREVER),
        ("9999-12", utc(9999, 12, 1), FOREVER),
        ("9999-12-31", utc(9999, 12, 31), FOREVER),
    ],
)
def test_a_date_stands_for_all_of_its_precision(text: str, low: datetime, high: datetime) -> None:
    assert interval_of(text) == Interval(low=low, high=high)


def test_a_fraction_finer_than_a_microsecond_lasts_a_microsecond() -> None:
    interval = interval_of("2015-01-06T20:55:10.123456789Z")
    assert interval.high - interval.low == timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "today",
        "15-01-06",
        "2015-1-6",
        "2015-13",
        "2015-02-29",
        "2015-01-06 20:55:00Z",
        "2015-01-06T20Z",
        "2015-01-06T24:00:00Z",
        "2015-01-06T20:55:60Z",
        "2015-01-06T20:55:00 00:00",
        "2015-01-06Z",
        "0000",
        "0001-01-01T00:00:00+14:00",
        "２０１５",
        "2015\n",
    ],
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(DateError):
        interval_of(text)


@pytest.mark.parametrize("text", ["2015-01-06", "2015-01-06T20:55:00", "2015"])
def test_an_instant_needs_an_offset(text: str) -> None:
    with pytest.raises(DateError, match="offset"):
        instant_of(text)


def test_an_instant_is_written_in_utc_with_z() -> None:
    assert wire_instant(datetime(2015, 1, 6, 20, 55, tzinfo=timezone(timedelta(hours=-5)))) == "2015-01-07T01:55:00Z"


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        # Held below: the second from 20:55:10 to 20:55:11.
        ("2015-01-06T20:55:10Z", True),
        ("eq2015-01-06T20:55:10Z", True),
        ("eq2015-01-06T20:55Z", True),
        ("eq2015-01-06", True),
        ("eq2015-01-06T20:55:09Z", False),
        ("eq2015-01-06T20:55:10.0Z", False),
        ("ge2015-01-06T20:55:10Z", True),
        ("ge2015-01-06T20:55:11Z", False),
        ("ge2015-01-06", True),
        ("ge2015-01-07", False),
        ("gt2015-01-06T20:55:09Z", True),
        ("gt2015-01-06T20:55:10Z", False),
        ("gt2015-01-06", False),
        ("gt2015-01-05", True),
        ("le2015-01-06T20:55:10Z", True),
        ("le2015-01-06T20:55:09Z", False),
        ("le2015-01-06", True),
        ("le2015-01-05", False),
        ("lt2015-01-06T20:55:11Z", True),
        ("lt2015-01-06T20:55:10Z", False),
        ("lt2015-01-06", False),
        ("lt2015-01-07", True),
        ("ge2015-01-06T15:55:10-05:00", True),
        ("gt2015-01-06T15:55:10-05:00", False),
    ],
)
def test_a_prefix_compares_the_ends_of_both_stretches(value: str, answers: bool) -> None:
    assert passes(date_test_of(value), interval_of("2015-01-06T20:55:10Z")) is answers


def test_an_open_stretch_reaches_past_every_date() -> None:
    stay = Interval(low=utc(2015, 1, 6), high=FOREVER)
    assert passes(date_test_of("gt2100"), stay)
    assert passes(date_test_of("ge2100"), stay)
    assert not passes(date_test_of("eq2015"), stay)


@pytest.mark.parametrize("text", ["ap2015", "xx2015", "ge", "g2015", "GE2015"])
def test_an_unknown_prefix_is_refused(text: str) -> None:
    with pytest.raises(DateError):
        date_test_of(text)
