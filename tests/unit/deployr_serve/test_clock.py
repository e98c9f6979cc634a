from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deployr_serve.adapters.clock import ReplayClock, SystemClock
from deployr_serve.adapters.ids import new_correlation_id
from deployr_serve.triggers.correlation import correlation_id


async def test_the_machines_clock_is_aware_and_does_not_go_back():
    clock = SystemClock()
    first, started = clock.now(), clock.monotonic()
    await clock.sleep(0)
    assert first.tzinfo is UTC
    assert clock.now() >= first
    assert clock.monotonic() >= started


def test_a_replay_stands_at_the_instant_in_its_file_and_moves_with_it(tmp_path):
    file = tmp_path / "clock"
    file.write_text("2015-01-07T02:40:00+05:45\n")
    clock = ReplayClock(file)
    assert clock.now() == datetime(2015, 1, 6, 20, 55, tzinfo=UTC)
    assert clock.now().tzinfo is UTC
    file.write_text("2015-01-06T21:00:00Z")
    assert clock.now() == datetime(2015, 1, 6, 21, tzinfo=UTC)


def test_a_replay_without_a_file_or_an_instant_does_not_fall_back_on_the_machine(tmp_path):
    with pytest.raises(OSError):
        ReplayClock(tmp_path / "nowhere").now()
    (tmp_path / "clock").write_text("")
    with pytest.raises(ValueError):
        ReplayClock(tmp_path / "clock").now()


def test_correlation_ids_are_fresh_and_fit_into_a_header():
    made = {new_correlation_id() for _ in range(100)}
    assert len(made) == 100
    assert all(correlation_id(one, fresh=lambda: "another") == one for one in made)
