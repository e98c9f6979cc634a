"""A time on the wall becomes the instant that Python gives it, in every zone and on every night of a change."""

# ruff: noqa: DTZ001 — the fact tables hold UTC without saying so

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from deployr_core.instants import parse_zone
from deployr_dev.sources.zones import wall_to_utc


def in_utc(zone: str, walls: list[datetime]) -> list[datetime]:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE MACRO utc(wall) AS {wall_to_utc('wall', parse_zone(zone))}")
        rows = connection.execute("SELECT utc(wall) FROM (SELECT unnest(?::TIMESTAMP[]) AS wall)", [walls]).fetchall()
    return [row[0].replace(tzinfo=UTC) for row in rows]


def test_utc_costs_nothing():
    assert wall_to_utc("t", UTC) == "t"


def test_a_fixed_offset_is_one_subtraction():
    assert wall_to_utc("t", parse_zone("+05:45")) == "t - INTERVAL '20700' SECOND"  # 5 * 3600 + 45 * 60


def test_the_hour_that_a_clock_shows_twice_is_its_first():
    assert in_utc("America/New_York", [datetime(2015, 11, 1, 1, 30)]) == [datetime(2015, 11, 1, 5, 30, tzinfo=UTC)]


def test_an_hour_that_a_clock_skips_counts_from_before_the_skip():
    assert in_utc("America/New_York", [datetime(2015, 3, 8, 2, 30)]) == [datetime(2015, 3, 8, 7, 30, tzinfo=UTC)]


@pytest.mark.parametrize("name", ["America/New_York", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "-05:00"])
def test_every_quarter_of_an_hour_around_a_change_is_pythons(name: str):
    zone = parse_zone(name)
    days = [datetime(y, m, d) for y in (1977, 2015, 2039) for m in range(1, 13) for d in (1, 8, 15, 25, 29 - (m == 2))]
    walls = [day + timedelta(minutes=15 * quarter) for day in days for quarter in range(96)]

    assert in_utc(name, walls) == [wall.replace(tzinfo=zone).astimezone(UTC) for wall in walls]
