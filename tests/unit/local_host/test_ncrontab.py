"""Timer schedules; the days were looked up in a calendar: 1 January 2026 is a Thursday."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.ncrontab import (
    Crontab,
    Every,
    fires_within_a_minute_twice,
    next_occurrence,
    parse_schedule,
    parse_time_zone,
)

JAN_1 = datetime(2026, 1, 1, tzinfo=UTC)


def parsed(expression, **settings):
    return parse_schedule(expression, function="nightly", settings=settings)


def crontab(expression):
    schedule = parsed(expression)
    assert isinstance(schedule, Crontab)
    return schedule


def occurrences(expression, *, after=JAN_1, zone=UTC):
    schedule = parsed(expression)
    at = after
    while (at := next_occurrence(schedule, after=at, zone=zone)) is not None:
        yield at


def written(instants):
    return [instant.strftime("%a %Y-%m-%d %H:%M:%S") for instant in instants]


@pytest.mark.parametrize(
    ("expression", "first_three"),
    [
        ("* * * * * *", ["Thu 2026-01-01 00:00:01", "Thu 2026-01-01 00:00:02", "Thu 2026-01-01 00:00:03"]),
        ("0 */5 * * * *", ["Thu 2026-01-01 00:05:00", "Thu 2026-01-01 00:10:00", "Thu 2026-01-01 00:15:00"]),
        ("0 0 * * * *", ["Thu 2026-01-01 01:00:00", "Thu 2026-01-01 02:00:00", "Thu 2026-01-01 03:00:00"]),
        ("30 15 4 * * *", ["Thu 2026-01-01 04:15:30", "Fri 2026-01-02 04:15:30", "Sat 2026-01-03 04:15:30"]),
        ("0 30 9 * * 1-5", ["Thu 2026-01-01 09:30:00", "Fri 2026-01-02 09:30:00", "Mon 2026-01-05 09:30:00"]),
        ("0 0 0 * * 0", ["Sun 2026-01-04 00:00:00", "Sun 2026-01-11 00:00:00", "Sun 2026-01-18 00:00:00"]),
        ("0 0 0 * * 6", ["Sat 2026-01-03 00:00:00", "Sat 2026-01-10 00:00:00", "Sat 2026-01-17 00:00:00"]),
        ("0 0 0 * * Mon,WED", ["Mon 2026-01-05 00:00:00", "Wed 2026-01-07 00:00:00", "Mon 2026-01-12 00:00:00"]),
        ("0 0 0 1 JAN,jul *", ["Wed 2026-07-01 00:00:00", "Fri 2027-01-01 00:00:00", "Thu 2027-07-01 00:00:00"]),
        ("0 0 12 31 * *", ["Sat 2026-01-31 12:00:00", "Tue 2026-03-31 12:00:00", "Sun 2026-05-31 12:00:00"]),
        ("0 0 0 29 2 *", ["Tue 2028-02-29 00:00:00", "Sun 2032-02-29 00:00:00", "Fri 2036-02-29 00:00:00"]),
        ("0 5/20 8-10/2 * * *", ["Thu 2026-01-01 08:05:00", "Thu 2026-01-01 08:25:00", "Thu 2026-01-01 08:45:00"]),
        ("0 0 0 */10 * *", ["Sun 2026-01-11 00:00:00", "Wed 2026-01-21 00:00:00", "Sat 2026-01-31 00:00:00"]),
        ("15,45 59 23 31 12 *", ["Thu 2026-12-31 23:59:15", "Thu 2026-12-31 23:59:45", "Fri 2027-12-31 23:59:15"]),
    ],
)  # fmt: skip
def test_a_crontab_comes_when_the_calendar_says(expression, first_three):
    assert written(islice(occurrences(expression), 3)) == first_three


def test_day_and_weekday_must_both_match():
    assert written(islice(occurrences("0 0 0 13 * 5"), 3)) == [
        "Fri 2026-02-13 00:00:00",
        "Fri 2026-03-13 00:00:00",
        "Fri 2026-11-13 00:00:00",
    ]


def test_an_occurrence_is_strictly_after_the_instant_asked_about():
    at_the_slot = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
    just_before = at_the_slot - timedelta(microseconds=1)

    assert written(islice(occurrences("0 */5 * * * *", after=at_the_slot), 1)) == ["Thu 2026-01-01 00:10:00"]
    assert written(islice(occurrences("0 */5 * * * *", after=just_before), 1)) == ["Thu 2026-01-01 00:05:00"]


@pytest.mark.parametrize(
    ("expression", "same_as"),
    [
        ("*/5 * * * *", "0 */5 * * * *"),
        ("  0   0 0 * * *  ", "0 0 0 * * *"),
        ("0 0 0 * * FRI-MON", "0 0 0 * * 1-5"),
        ("0 50-10 * * * *", "0 10-50 * * * *"),
        ("0 0 0 * * sunday", "0 0 0 * * 0"),
        ("0 0 0 * ma *", "0 0 0 * 3 *"),
        ("0 50/5 * * * *", "0 50,55 * * * *"),
        ("0 0 20/1 * * *", "0 0 20,21,22,23 * * *"),
        ("00 00 08 * * *", "0 0 8 * * *"),
        ("0 1-3,2-4,9 * * * *", "0 1,2,3,4,9 * * * *"),
    ],
)
def test_two_ways_to_write_one_schedule(expression, same_as):
    assert crontab(expression) == crontab(same_as)


def test_a_time_span_counts_from_the_run_before():
    assert parsed("00:30:00") == Every(period=timedelta(minutes=30))
    assert written(islice(occurrences("1.06:00:00"), 2)) == [
        "Fri 2026-01-02 06:00:00",
        "Sat 2026-01-03 12:00:00",
    ]


def test_a_setting_between_percent_signs_is_the_schedule():
    assert parsed("%NIGHTLY%", NIGHTLY="0 0 3 * * *") == crontab("0 0 3 * * *")


def test_a_setting_that_is_missing_is_named():
    with pytest.raises(HostSetupError, match=r"function nightly: schedule '%NIGHTLY%'.*a setting named NIGHTLY"):
        parsed("%NIGHTLY%")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * * *",
        "0 60 * * * *",
        "0 0 24 * * *",
        "0 0 0 0 * *",
        "0 0 0 32 * *",
        "0 0 0 * 13 *",
        "0 0 0 * 0 *",
        "0 0 0 * * 8",
        "0 0 0 * * Funday",
        "0 0 0 MON * *",
        "0 */0 * * * *",
        "0 */ * * * *",
        "0 */-5 * * * *",
        "0 1,,2 * * * *",
        "0 ,1 * * * *",
        "0 1-2-3 * * * *",
        "0 -5 * * * *",
        "0 0 0 ? * MON",
        "0 0 0 L * *",
        "0 0 0 * * 5#2",
        "@daily",
        "00:00:00",
        "25:00:00",
        "00:60:00",
        "+00:05:00",
    ],
)
def test_what_is_no_schedule_is_refused_by_function_expression_and_expectation(expression):
    with pytest.raises(HostSetupError) as refused:
        parsed(expression)

    message = str(refused.value)
    assert message.startswith(f"function nightly: schedule {expression!r}: ")
    assert "expected six fields" in message


def test_seven_is_no_sunday_because_the_real_host_refuses_it():
    with pytest.raises(HostSetupError, match="7 is outside 0 to 6; write 0 for Sunday"):
        parsed("0 0 0 * * 7")


@pytest.mark.parametrize("expression", ["0 0 0 31 2 *", "0 0 0 30,31 FEB *", "0 0 0 31 4,6,9,11 *", "9999999.00:00:00"])
def test_a_day_that_no_calendar_has_never_comes(expression):
    assert list(occurrences(expression)) == []


@pytest.mark.parametrize(
    ("expression", "twice"),
    [
        ("*/30 * * * * *", True),
        ("0 * * * * *", False),
        ("00:00:59", True),
        ("00:01:00", False),
    ],
)
def test_which_timers_run_more_than_once_a_minute(expression, twice):
    assert fires_within_a_minute_twice(parsed(expression)) is twice


def test_a_crontab_is_read_in_the_zone_of_the_host():
    # Kathmandu is 5:45 ahead of UTC, all year.
    nine = occurrences("0 0 9 * * *", zone=ZoneInfo("Asia/Kathmandu"))

    assert next(nine) == datetime(2026, 1, 1, 3, 15, tzinfo=UTC)


def test_a_wall_clock_schedule_follows_daylight_saving():
    # Los Angeles goes from UTC-8 to UTC-7 on Sunday 8 March 2026.
    nine = occurrences("0 0 9 * * *", after=datetime(2026, 3, 7, tzinfo=UTC), zone=ZoneInfo("America/Los_Angeles"))

    assert [instant.astimezone(UTC).hour for instant in islice(nine, 3)] == [17, 16, 16]


def test_the_zone_is_utc_unless_the_setting_names_another():
    assert parse_time_zone({}) == ZoneInfo("UTC")
    assert parse_time_zone({"WEBSITE_TIME_ZONE": "Asia/Kathmandu"}) == ZoneInfo("Asia/Kathmandu")


@pytest.mark.parametrize("name", ["Pacific Standard Time", "../etc/passwd", "Mars/Olympus"])
def test_a_zone_that_the_database_lacks_is_refused(name):
    with pytest.raises(HostSetupError, match="WEBSITE_TIME_ZONE: expected an IANA zone"):
        parse_time_zone({"WEBSITE_TIME_ZONE": name})
