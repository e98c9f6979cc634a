"""The bridge reads the instant that the mock EMR's clock keeps in a file, to the microsecond, while it runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deployr_serve.adapters.clock import ReplayClock
from mock_emr.clock import ClockFile, EmrClock


def test_the_bridge_is_never_behind_the_emr(tmp_path):
    real = [datetime(2026, 11, 21, 9, tzinfo=UTC)]
    file = tmp_path / "now"
    noon = datetime(2015, 1, 6, 12, tzinfo=UTC)
    emr = EmrClock(real_now=lambda: real[0], now=noon, tell=ClockFile(file).write)
    bridge = ReplayClock(file)
    emr.run(7)
    for _ in range(5):
        # Five times a tick and a bit; the file is read after the EMR was asked, as an answer is after its question.
        real[0] += timedelta(microseconds=100_001)
        assert emr.now() == bridge.now()
    assert bridge.now() == noon + 5 * 7 * timedelta(microseconds=100_001)
