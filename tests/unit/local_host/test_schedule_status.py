from datetime import UTC, datetime, timedelta

import pytest

from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.schedule_status import (
    FileStatusStore,
    ScheduleStatus,
    status_after_run,
    status_at_start,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hourly(after):
    """Every full hour."""
    return after.replace(minute=0, second=0, microsecond=0) + HOUR


def status(*, last, following, updated=NOON):
    return ScheduleStatus(last=last, next=following, last_updated=updated)


def test_a_timer_without_status_begins_with_the_next_slot():
    assert status_at_start(None, now=NOON, next_occurrence=hourly) == status(last=None, following=NOON + HOUR)


def test_a_stored_status_is_kept_so_that_a_missed_slot_shows():
    stored = status(last=NOON - 3 * HOUR, following=NOON - 2 * HOUR)

    assert status_at_start(stored, now=NOON, next_occurrence=hourly) == stored


def test_a_timer_that_never_ran_can_miss_a_slot_too():
    stored = status(last=None, following=NOON - HOUR, updated=NOON - 2 * HOUR)

    assert status_at_start(stored, now=NOON, next_occurrence=hourly) == stored


def test_a_changed_schedule_counts_from_now_and_is_not_past_due():
    stored = status(last=NOON - 3 * HOUR, following=NOON - timedelta(minutes=30))

    assert status_at_start(stored, now=NOON, next_occurrence=hourly) == status(
        last=None, following=NOON + HOUR, updated=NOON
    )


def test_a_changed_schedule_whose_slot_is_still_to_come_keeps_what_it_was_derived_from():
    last = NOON + timedelta(minutes=10)
    stored = status(last=last, following=NOON + timedelta(minutes=17))

    at_start = status_at_start(stored, now=NOON + timedelta(minutes=15), next_occurrence=hourly)

    assert at_start == status(last=None, following=NOON + HOUR, updated=last)


def test_a_run_moves_the_status_on_from_when_it_started():
    started = NOON + timedelta(seconds=2)

    after = status_after_run(
        status(last=None, following=NOON), started=started, on_schedule=True, next_occurrence=hourly
    )

    assert after == status(last=started, following=NOON + HOUR, updated=started)


def test_a_run_that_a_clock_let_start_early_does_not_come_again():
    early = NOON - timedelta(milliseconds=30)

    after = status_after_run(status(last=None, following=NOON), started=early, on_schedule=True, next_occurrence=hourly)

    assert after == status(last=NOON, following=NOON + HOUR, updated=NOON)


def test_a_run_at_start_does_not_use_up_the_next_slot():
    started = NOON - timedelta(minutes=10)

    after = status_after_run(
        status(last=None, following=NOON), started=started, on_schedule=False, next_occurrence=hourly
    )

    assert after == status(last=started, following=NOON, updated=started)


def test_a_status_reads_as_the_real_host_writes_it():
    assert status(last=None, following=NOON).to_json() == {
        "Last": "0001-01-01T00:00:00",
        "Next": "2026-03-01T12:00:00+00:00",
        "LastUpdated": "2026-03-01T12:00:00+00:00",
    }


@pytest.mark.parametrize("kept", [status(last=NOON, following=NOON + HOUR), status(last=None, following=None)])
def test_a_status_outlives_its_store(tmp_path, kept):
    FileStatusStore(tmp_path / "a" / "b").write("nightly", kept)

    assert FileStatusStore(tmp_path / "a" / "b").read("nightly") == kept
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["nightly.status.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"Last": 1, "Next": 2, "LastUpdated": 3}',
        '{"Last": "2026-03-01", "Next": "2026-03-01", "LastUpdated": "2026-03-01"}',
    ],
)
def test_a_damaged_status_is_as_none_and_is_logged(tmp_path, caplog, text):
    store = FileStatusStore(tmp_path)
    (tmp_path / "nightly.status.json").write_text(text)

    assert store.read("nightly") is None
    assert "function=nightly schedule status cannot be read" in caplog.text


def test_a_function_without_status_has_none(tmp_path):
    assert FileStatusStore(tmp_path).read("nightly") is None


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(HostSetupError, match=r"state folder .*file"):
        FileStatusStore(tmp_path / "file" / "timers")
