from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mock_emr.clock import EmrClock

KATHMANDU = timezone(timedelta(hours=5, minutes=45))
REAL = datetime(2026, 11, 21, 9, 0, tzinfo=KATHMANDU)


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
