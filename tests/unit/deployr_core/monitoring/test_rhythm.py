"""A deployment's own week, and how long it may be silent."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from deployr_core.monitoring.rhythm import HOUR, Hour, Rhythm, hour_of_week, rhythm_of

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def weekdays(weeks, *, slots=6, packets=10, hours=range(8, 18), start=MONDAY):
    """Give whole weeks in which it is asked on weekdays at these hours, UTC."""
    return {
        start + timedelta(days=day, hours=hour): Hour(packets=packets, slots=slots)
        for day in range(7 * weeks)
        if day % 7 < 5
        for hour in hours
    }


def learnt(hours, *, zone=UTC, weeks=4):
    rhythm = rhythm_of(hours, zone=zone, end=MONDAY + timedelta(weeks=weeks))
    assert isinstance(rhythm, Rhythm)
    return rhythm


def test_a_week_that_is_always_the_same_is_learnt_as_it_is():
    rhythm = learnt(weekdays(4))
    monday_at_nine = MONDAY + timedelta(weeks=4, hours=9)
    assert rhythm.slots_between(monday_at_nine, monday_at_nine + HOUR) == pytest.approx(6.0)
    assert rhythm.packets_between(MONDAY, MONDAY + timedelta(weeks=1)) == pytest.approx(500.0)
    assert (rhythm.slot_spread, rhythm.packet_spread) == (1.0, 1.0)


def test_nothing_is_expected_at_a_weekend_that_is_always_quiet():
    friday_evening = MONDAY + timedelta(days=4, hours=18)
    rhythm = learnt(weekdays(4))
    assert rhythm.slots_between(friday_evening, friday_evening + timedelta(hours=62)) == 0.0


def test_parts_of_hours_count_as_parts():
    start = MONDAY + timedelta(hours=8, minutes=30)
    assert learnt(weekdays(4)).slots_between(start, start + HOUR) == pytest.approx(6.0)
    assert learnt(weekdays(4)).slots_between(start, start + HOUR / 4) == pytest.approx(1.5)


def test_the_longest_silence_follows_from_the_false_alarms_that_one_is_willing_to_have():
    # 300 slots a week are 15,653 a year: exp(-m) of them end in a false alarm, half a one a year.
    yearly = 300 / 168 * 365.25 * 24
    assert learnt(weekdays(4)).longest(0.5) == pytest.approx(math.log(yearly / 0.5))


def test_a_silence_that_happened_twice_is_no_alarm_the_next_time():
    hours = weekdays(6)
    for day in (8, 15):  # two Tuesdays without anybody
        for hour in range(8, 18):
            del hours[MONDAY + timedelta(days=day, hours=hour)]
    rhythm = learnt(hours, weeks=6)
    tuesday = MONDAY + timedelta(weeks=6, days=1)
    assert rhythm.longest(0.5) >= 1.25 * rhythm.slots_between(tuesday, tuesday + timedelta(days=1)) - 1e-9


def test_one_outage_does_not_make_the_switch_deaf():
    hours = weekdays(8)
    before = learnt(weekdays(8), weeks=8).longest(0.5)
    for hour in range(8, 18):
        del hours[MONDAY + timedelta(days=22, hours=hour)]
    assert learnt(hours, weeks=8).longest(0.5) < 1.5 * before


def test_the_week_is_the_sites_own_in_summer_and_winter():
    zone = ZoneInfo("America/New_York")
    # Clocks go forward on 2026-03-08: 9:00 local is 14:00 UTC before, 13:00 after.
    first = datetime(2026, 2, 2, tzinfo=zone)
    hours = {
        (first + timedelta(days=day)).replace(hour=9).astimezone(UTC): Hour(packets=5, slots=5)
        for day in range(56)
        if day % 7 < 5
    }
    rhythm = rhythm_of(hours, zone=zone, end=datetime(2026, 3, 30, tzinfo=zone))
    assert isinstance(rhythm, Rhythm)
    busy = [place for place, rate in enumerate(rhythm.slots) if rate]
    assert busy == [24 * day + 9 for day in range(5)]


@pytest.mark.parametrize(
    ("hours", "why"),
    [
        ({}, "nobody has asked yet"),
        (weekdays(1), "6 days of 14"),
        ({MONDAY: Hour(packets=100, slots=12)}, "too few requests"),
    ],
)
def test_a_week_that_is_not_known_says_why(hours, why):
    weeks = 1 if "days" in why else 4
    found = rhythm_of(hours, zone=UTC, end=MONDAY + timedelta(weeks=weeks))
    assert isinstance(found, str)
    assert why in found


def test_hours_of_the_week_begin_on_monday():
    assert hour_of_week(MONDAY, UTC) == 0
    assert hour_of_week(MONDAY + timedelta(days=6, hours=23), UTC) == 167


def test_the_instant_by_which_somebody_should_have_asked_is_over_the_quiet_weekend():
    friday = MONDAY + timedelta(weeks=4, days=4, hours=17)
    # An hour of Friday gives 6; the other 6 come within the first hour of Monday.
    assert learnt(weekdays(4)).until(friday, 12.0) == MONDAY + timedelta(weeks=5, hours=9)
