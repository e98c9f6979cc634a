from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mock_emr.clock import ClockError, ClockFile, EmrClock, keep_moving

KATHMANDU = timezone(timedelta(hours=5, minutes=45))
REAL = datetime(2026, 11, 21, 9, 0, tzinfo=KATHMANDU)
NOON = datetime(2015, 1, 6, 12, tzinfo=UTC)


class Watch:
    """The real time, which the test turns."""

    def __init__(self) -> None:
        self.now = REAL

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def at_noon(watch: Watch, told: list[datetime] | None = None) -> EmrClock:
    return EmrClock(real_now=watch, now=NOON, tell=None if told is None else told.append)


def test_the_clock_follows_the_real_time_until_it_is_put() -> None:
    clock = EmrClock(real_now=lambda: REAL)
    assert clock.now() == REAL
    assert not clock.is_put()


def test_the_clock_stands_where_it_was_put_before_or_after() -> None:
    clock = EmrClock(real_now=lambda: REAL, now=datetime(2015, 1, 6, tzinfo=UTC))
    clock.put(datetime(2014, 1, 6, 5, 45, tzinfo=KATHMANDU))
    assert clock.now() == datetime(2014, 1, 6, tzinfo=UTC)
    assert clock.now().tzinfo is UTC
    assert clock.real_now() == REAL


def test_an_instant_without_an_offset_is_refused() -> None:
    naive = datetime(2015, 1, 6)  # noqa: DTZ001 -- what is tested
    with pytest.raises(ValueError, match="offset"):
        EmrClock(real_now=lambda: REAL, now=naive)
    with pytest.raises(ValueError, match="offset"):
        EmrClock(real_now=lambda: REAL).put(naive)


def test_a_clock_that_stands_does_not_see_the_real_time_pass(watch: Watch) -> None:
    clock = at_noon(watch)
    watch.turn(3600)
    assert (clock.now(), clock.pace()) == (NOON, None)


def test_a_running_clock_goes_so_many_times_as_fast_and_stands_when_paused(watch: Watch) -> None:
    clock = at_noon(watch)
    clock.run(60)
    watch.turn(2.5)
    assert clock.now() == NOON + timedelta(seconds=150)
    clock.pause()
    watch.turn(100)
    assert (clock.now(), clock.pace()) == (NOON + timedelta(seconds=150), None)


def test_a_step_goes_forth_and_back_and_a_running_clock_runs_on(watch: Watch) -> None:
    clock = at_noon(watch)
    clock.step(timedelta(hours=1))
    clock.step(timedelta(minutes=-90))
    assert clock.now() == NOON - timedelta(minutes=30)
    clock.run(10)
    clock.step(timedelta(minutes=30))
    watch.turn(6)
    assert clock.now() == NOON + timedelta(minutes=1)
    clock.put(NOON)
    watch.turn(6)
    assert clock.now() == NOON + timedelta(minutes=1)


def test_a_run_ends_where_it_is_to_end(watch: Watch) -> None:
    clock = at_noon(watch)
    clock.run(3600, until=NOON + timedelta(hours=1))
    watch.turn(0.5)
    assert clock.now() == NOON + timedelta(minutes=30)
    watch.turn(100)
    assert (clock.now(), clock.pace()) == (NOON + timedelta(hours=1), None)


def test_the_first_run_of_a_clock_that_follows_the_real_time_starts_from_there(watch: Watch) -> None:
    clock = EmrClock(real_now=watch)
    clock.run(2)
    watch.turn(10)
    assert clock.now() == REAL + timedelta(seconds=20)


def test_between_two_ticks_the_clock_stands_so_that_those_who_share_it_agree(watch: Watch) -> None:
    told: list[datetime] = []
    clock = at_noon(watch, told)
    clock.run(10)
    watch.turn(0.09)
    assert clock.now() == NOON
    watch.turn(0.01)
    assert clock.now() == NOON + timedelta(seconds=1)
    # The start, the start of the run, and the one move.
    assert told == [NOON, NOON, NOON + timedelta(seconds=1)]


def test_the_end_of_the_calendar_is_the_end_of_a_run(watch: Watch) -> None:
    clock = EmrClock(real_now=watch, now=datetime(9999, 12, 31, 23, tzinfo=UTC))
    clock.run(100_000)
    watch.turn(1e6)
    assert clock.now().year == 9999
    assert clock.pace() is None


@pytest.mark.parametrize("rate", [0, -1, 100_001, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused_and_changes_nothing(watch: Watch, rate: float) -> None:
    clock = at_noon(watch)
    with pytest.raises(ClockError, match="rate"):
        clock.run(rate)
    assert clock.pace() is None


def test_a_run_into_the_past_and_a_step_off_the_calendar_are_refused(watch: Watch) -> None:
    clock = at_noon(watch)
    with pytest.raises(ClockError, match="ahead"):
        clock.run(1, until=NOON)
    with pytest.raises(ClockError, match="9999"):
        clock.step(timedelta(days=3_000_000))
    assert clock.now() == NOON


async def test_the_file_follows_a_running_clock_that_nobody_asks(watch: Watch, tmp_path: Path) -> None:
    file = tmp_path / "now"
    clock = EmrClock(real_now=watch, now=NOON, tell=ClockFile(file).write)
    assert file.read_text() == "2015-01-06T12:00:00+00:00"
    clock.run(60)
    ticks: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        ticks.append(seconds)
        if len(ticks) == 11:
            raise Enough
        watch.turn(seconds)

    with pytest.raises(Enough):
        await keep_moving(clock, sleep=sleep)
    # Ten ticks of a tenth of a second, sixty times as fast.
    assert file.read_text() == "2015-01-06T12:01:00+00:00"


def test_the_file_is_put_in_place_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for hour in (1, 2):
        ClockFile(tmp_path / "now").write(NOON + timedelta(hours=hour))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("now", "2015-01-06T14:00:00+00:00")]
