"""A schedule or an alarm opens a run, once, and only where a person has begun the model's life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deployr_core.monitoring.alert_rules import Severity
from deployr_core.monitoring.alerting import Notice, What
from deployr_core.registry.journal import Action
from deployr_core.registry.run import Because
from deployr_serve.core.retraining import because_of, due, waiting
from deployr_serve.core.schedule import parse_schedule
from tests.registry_parts import AT, deed, journal_of

DAY = timedelta(days=1)
MONTHLY = parse_schedule("0 0 3 1 * *", zone=UTC)
REGISTERED = deed(Action.REGISTERED, "hematocrit-aaaaaaaaaaaa")


def opened(at: datetime, why: str = "schedule: due 2015-02-01T03:00Z"):
    return deed(Action.OPENED, who="timer", role="app", at=at, why=why)


def alarm(at: datetime, *, rule: str = "drift", what: What = What.BEGUN) -> Notice:
    return Notice(
        notice_id="n1",
        what=what,
        key=f"{rule}/hematocrit",
        rule=rule,
        model="hematocrit",
        part="",
        severity=Severity.WARN,
        said="the mean score has moved",
        begun_at=at,
        at=at,
    )


# The run was registered on 2015-01-06; the next slot is 2015-02-01T03:00Z.
SLOT = datetime(2015, 2, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(("now", "is_due"), [(SLOT - DAY, False), (SLOT, True), (SLOT + 20 * DAY, True)])
def test_a_slot_that_has_come_since_the_last_run_opens_one(now, is_due):
    found = due(journal_of(REGISTERED), schedule=MONTHLY, notices=(), now=now)

    assert (found is not None) is is_due
    if found is not None:
        assert (found.because, found.said) == (Because.SCHEDULE, "schedule: due 2015-02-01T03:00Z")


def test_a_run_that_waits_to_be_trained_or_registered_keeps_others_from_being_opened():
    entries = journal_of(REGISTERED, opened(SLOT))

    assert due(entries, schedule=MONTHLY, notices=[alarm(SLOT + DAY)], now=SLOT + 60 * DAY) is None
    assert waiting(entries) == entries[1]


def test_once_it_is_registered_the_next_slot_counts():
    second = deed(Action.REGISTERED, "hematocrit-bbbbbbbbbbbb", at=SLOT + DAY)
    entries = journal_of(REGISTERED, opened(SLOT), second)

    assert waiting(entries) is None
    assert due(entries, schedule=MONTHLY, notices=(), now=SLOT + 27 * DAY) is None
    found = due(entries, schedule=MONTHLY, notices=(), now=SLOT + 28 * DAY)
    assert found is not None


def test_a_drift_alarm_since_the_last_run_opens_one_and_goes_before_the_schedule():
    found = due(journal_of(REGISTERED), schedule=MONTHLY, notices=[alarm(AT + DAY)], now=SLOT + DAY)

    assert found is not None
    assert (found.because, found.said) == (Because.DRIFT_ALARM, "drift alarm: drift/hematocrit, 2015-01-07")


@pytest.mark.parametrize(
    "notice",
    [alarm(AT - DAY), alarm(AT), alarm(AT + DAY, rule="latency"), alarm(AT + DAY, what=What.ENDED)],
    ids=["of before", "of the same instant", "of another rule", "that ended"],
)
def test_no_other_notice_opens_anything(notice):
    assert due(journal_of(REGISTERED), schedule=None, notices=[notice], now=SLOT) is None


def test_the_first_run_of_a_model_is_nobodys_but_a_persons():
    assert due((), schedule=MONTHLY, notices=[alarm(AT + DAY)], now=SLOT) is None


def test_why_a_run_was_opened_is_read_off_its_entry():
    whys = ["schedule: due 2015-02-01T03:00Z", "drift alarm: drift/hematocrit, 2015-01-07", "new hospital wing"]
    entries = journal_of(REGISTERED, *(opened(SLOT, why) for why in whys))

    assert [because_of(entry) for entry in entries[1:]] == [Because.SCHEDULE, Because.DRIFT_ALARM, Because.BY_HAND]
