"""When a batch is due: instants in UTC, on days of 23, 24 and 25 hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from deployr_serve.core.schedule import parse_schedule

CHICAGO = ZoneInfo("America/Chicago")
# In 2015 the clocks of Chicago went forward on 8 March and back on 1 November, both at 02:00.
FORWARD, BACK = datetime(2015, 3, 8, tzinfo=CHICAGO), datetime(2015, 11, 1, tzinfo=CHICAGO)


def slots_of_day(text, day, *, zone=CHICAGO):
    """Give the slots of a calendar day, as its first and last instants bound it, the earliest first."""
    end = (day + timedelta(days=1)).astimezone(UTC) - timedelta(microseconds=1)
    back = parse_schedule(text, zone=zone).back_from(end)
    return sorted(takewhile(lambda slot: slot >= day.astimezone(UTC), back))


def test_a_slot_at_the_very_instant_is_due_and_one_a_second_later_is_not():
    schedule = parse_schedule("0 30 6 * * *", zone=UTC)
    at = datetime(2015, 1, 6, 6, 30, tzinfo=UTC)
    assert next(schedule.back_from(at)) == at
    assert next(schedule.back_from(at - timedelta(seconds=1))) == at - timedelta(days=1)


def test_slots_are_given_back_in_time_without_end_or_gap():
    schedule = parse_schedule("15 */20 * * * *", zone=UTC)
    back = list(islice(schedule.back_from(datetime(2015, 1, 6, 0, 21, tzinfo=UTC)), 4))
    assert [f"{slot:%d %H:%M:%S}" for slot in back] == ["06 00:20:15", "06 00:00:15", "05 23:40:15", "05 23:20:15"]


def test_a_daily_slot_keeps_to_the_wall_clock_through_the_year():
    winter, summer = datetime(2015, 1, 7, tzinfo=CHICAGO), datetime(2015, 7, 7, tzinfo=CHICAGO)
    assert [f"{slot:%H:%M}" for slot in slots_of_day("0 0 6 * * *", winter)] == ["12:00"]
    assert [f"{slot:%H:%M}" for slot in slots_of_day("0 0 6 * * *", summer)] == ["11:00"]


def test_a_time_that_the_clocks_leave_out_comes_as_much_later_as_they_jump():
    # 02:30 does not exist: it comes at 03:30 daylight time, which is 08:30 UTC.
    assert slots_of_day("0 30 2 * * *", FORWARD) == [datetime(2015, 3, 8, 8, 30, tzinfo=UTC)]


def test_a_time_that_comes_twice_is_one_slot_the_first_time():
    # 01:30 daylight time is 06:30 UTC, 01:30 standard time is 07:30 UTC.
    assert slots_of_day("0 30 1 * * *", BACK) == [datetime(2015, 11, 1, 6, 30, tzinfo=UTC)]


@pytest.mark.parametrize(("day", "hours"), [(FORWARD, 23), (datetime(2015, 6, 1, tzinfo=CHICAGO), 24), (BACK, 25)])
def test_a_schedule_for_every_hour_has_each_hour_of_the_day_once(day, hours):
    slots = slots_of_day("0 0 * * * *", day)
    assert len(slots) == hours
    assert {after - before for before, after in pairwise(slots)} == {timedelta(hours=1)}


def test_day_and_day_of_week_must_both_match():
    # The last Friday the 13th before 2016 was in November 2015.
    schedule = parse_schedule("0 0 0 13 * fri", zone=UTC)
    assert next(schedule.back_from(datetime(2016, 1, 1, tzinfo=UTC))) == datetime(2015, 11, 13, tzinfo=UTC)


def test_a_leap_day_is_found_eight_years_back():
    schedule = parse_schedule("0 0 0 29 2 *", zone=UTC)
    assert next(schedule.back_from(datetime(1904, 2, 28, tzinfo=UTC))) == datetime(1896, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("0 5/20 0 * * *", {5, 25, 45}), ("0 1-3,7 0 * * *", {1, 2, 3, 7}), ("0 0-10/5 0 * * *", {0, 5, 10})],
)
def test_fields_are_read_as_the_host_reads_them(text, minutes):
    assert parse_schedule(text, zone=UTC).minutes == minutes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 0 6 * *",
        "* 0 6 * * *",
        "60 0 6 * * *",
        "0 60 6 * * *",
        "0 0 24 * * *",
        "0 0 6 * * 7",
        "0 0 6 * 13 *",
        "0 0 6 30 2 *",
        "0 0/0 6 * * *",
        "0 9-3 6 * * *",
        "0 0 6 * * someday",
        "01:00:00",
    ],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_schedule(text, zone=UTC)
