from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mock_emr.faults import NO_FAULT, FaultError, Faults, Rule, rules_in, spoiled
from mock_emr.journal import Call, Journal, Tally, Write

NOW = datetime(2015, 1, 6, 12, tzinfo=UTC)


def call(route: str = "/r", *, status: int = 200, write: Write | None = None) -> Call:
    return Call(at=NOW, emr_now=NOW, method="GET", route=route, status=status, duration_ms=1, size_bytes=2, write=write)


def score(*, is_new: bool) -> Write:
    return Write(kind="score", model_id="m", job_id="j", is_new=is_new)


def test_calls_are_numbered_from_one_and_read_on_from_any_of_them() -> None:
    journal = Journal()
    assert journal.since(0, limit=9) == ()
    for _ in range(5):
        journal.note(call())
    assert [entry.sequence for entry in journal.since(0, limit=9)] == [1, 2, 3, 4, 5]
    assert [entry.sequence for entry in journal.since(2, limit=2)] == [3, 4]
    assert journal.since(5, limit=9) == ()
    assert journal.last_sequence() == 5


def test_old_calls_are_dropped_but_still_counted() -> None:
    journal = Journal(limit=2)
    for status in (200, 200, 500):
        journal.note(call(status=status))
    assert [entry.sequence for entry in journal.since(0, limit=9)] == [2, 3]
    assert [entry.sequence for entry in journal.since(2, limit=9)] == [3]
    assert journal.summary().tallies == (
        Tally(method="GET", route="/r", resource_type=None, status=200, count=2),
        Tally(method="GET", route="/r", resource_type=None, status=500, count=1),
    )
    assert journal.summary().calls == 3


def test_writes_that_added_a_row_are_counted_apart_from_repeats() -> None:
    journal = Journal()
    for is_new in (True, False, False):
        journal.note(call(write=score(is_new=is_new)))
    assert (journal.summary().score_writes_new, journal.summary().score_writes_repeated) == (1, 2)


def test_the_most_calls_at_once_are_remembered_also_when_one_breaks_off() -> None:
    journal = Journal()
    with journal.underway(), journal.underway():
        pass
    with pytest.raises(RuntimeError), journal.underway():
        raise RuntimeError
    with journal.underway():
        assert journal.summary().peak_concurrent == 2


def test_the_first_rule_that_fits_is_played_as_often_as_it_says() -> None:
    faults = Faults()
    faults.put([Rule(route="Observation", status=503, times=2), Rule(route="*", delay_ms=5)])
    assert [faults.take("Observation", now=NOW).status for _ in range(3)] == [503, 503, None]
    assert faults.take("Condition", now=NOW) == Rule(route="*", delay_ms=5)
    faults.put([])
    assert faults.take("Observation", now=NOW) is NO_FAULT


def test_a_rule_for_another_route_is_left_alone() -> None:
    faults = Faults()
    faults.put([Rule(route="score", status=503, times=1)])
    assert faults.take("Observation", now=NOW) is NO_FAULT
    assert faults.rules() == (Rule(route="score", status=503, times=1),)


@pytest.mark.parametrize(
    ("rule", "stands"),
    [
        (Rule(route="*"), False),
        (Rule(route="*", delay_ms=10), False),
        (Rule(route="*", status=200), False),
        (Rule(route="*", status=400), True),
        (Rule(route="*", body="html"), True),
        (Rule(route="*", body="truncated"), False),
        (Rule(route="*", body="empty"), False),
        (Rule(route="*", body="foreign-subject"), False),
        (Rule(route="*", status=503, body="empty"), True),
    ],
)
def test_a_failing_status_or_a_page_of_html_stands_for_the_call(rule: Rule, stands: bool) -> None:
    assert rule.stands_for_the_call() is stands


def test_a_body_is_halved_emptied_or_left() -> None:
    assert spoiled(b"abcdef", Rule(route="*", body="truncated")) == b"abc"
    assert spoiled(b"abcdef", Rule(route="*", body="empty")) == b""
    assert spoiled(b"abcdef", Rule(route="*", body="foreign-subject")) == b"abcdef"
    assert spoiled(b"abcdef", NO_FAULT) == b"abcdef"


def test_rules_are_read_from_json() -> None:
    body = b'[{"route":"Observation","status":503,"times":2},{"route":"*","delay_ms":5,"body":null}]'
    assert rules_in(body) == (Rule(route="Observation", status=503, times=2), Rule(route="*", delay_ms=5))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'[{"route":""}]',
        b'[{"route":"*","status":99}]',
        b'[{"route":"*","status":"503"}]',
        b'[{"route":"*","delay_ms":-1}]',
        b'[{"route":"*","times":0}]',
        b'[{"route":"*","body":"xml"}]',
        b'[{"route":"*","colour":"red"}]',
        b'[{"status":503}]',
    ],
)
def test_rules_that_cannot_be_read_are_refused(body: bytes) -> None:
    with pytest.raises(FaultError):
        rules_in(body)
