"""The rules of operation on hours that are made by hand: what fires, what does not, and what cannot be told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deployr_core.monitoring.alert_rules import Rules
from deployr_core.monitoring.alerting import Verdict
from deployr_core.monitoring.alerting_operations import (
    NIGHTLY,
    TIMER,
    Calls,
    HourCount,
    Queues,
    of_model,
    of_site,
    of_store,
    week_of,
)

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FIRES, CLEAR, BETWEEN, UNKNOWN = Verdict.FIRING, Verdict.CLEAR, Verdict.BETWEEN, Verdict.UNKNOWN


def clinic(until, *, asked=10, failed=0, abstained=0, slow=0, weeks=7):
    """Give hours of weekdays from 8:00 to 18:00 of the weeks before Monday, and of this one before ``until``."""
    hours = {}
    start = MONDAY - weeks * 7 * DAY
    while start < until:
        if start.weekday() < 5 and 8 <= start.hour < 18:
            hours[start] = HourCount(
                asked=asked, slots=6, answered=asked, failed=failed, abstained=abstained, waited=asked, slow=slow
            )
        start += HOUR
    return hours


def look(hours, now, *, last_at="last hour", rules=None, is_off=False):
    if last_at == "last hour":
        last_at = max(hours) + HOUR if hours else None
    calls = Calls(model="m", hours=hours, last_at=last_at, is_off=is_off)
    week = week_of(calls, zone=UTC, now=now)
    found = of_model(calls, rules or Rules(), rhythm=week, deadline_s=8.0, now=now)
    return {each.rule: each for each in found}


# -- the dead-man's switch


def test_a_quiet_weekend_that_is_usual_is_no_alert():
    for now in (MONDAY - DAY, MONDAY, MONDAY + timedelta(hours=8, minutes=30)):
        assert look(clinic(MONDAY), now)["silence"].verdict is CLEAR


def test_a_quiet_monday_that_is_not_is_one_within_the_morning():
    # ln(300 slots a week x 52.2 / 0.5) = 10.3 slots at 6 an hour: 1.7 hours.
    verdicts = {
        minutes: look(clinic(MONDAY), MONDAY + timedelta(hours=8, minutes=minutes))["silence"].verdict
        for minutes in (60, 100, 110, 120)
    }
    assert verdicts == {60: CLEAR, 100: CLEAR, 110: FIRES, 120: FIRES}


def test_a_silence_says_since_when_and_what_was_to_be_expected():
    said = look(clinic(MONDAY), MONDAY + timedelta(hours=12))["silence"].said
    assert said == (
        "No request for 2.8 days, since 2026-02-27 18:00 UTC; at these hours of the week requests in 24 stretches of"
        " five minutes were to be expected, and at most 10 may stay empty, until 2026-03-02 09:43 UTC at the latest."
    )


def test_a_declared_interval_is_held_to_without_a_history():
    silence = msgspec.structs.replace(Rules().silence, longest_hours=26.0)
    rules = msgspec.structs.replace(Rules(), silence=silence)
    found = {
        hours: look({}, MONDAY + hours * HOUR, last_at=MONDAY, rules=rules)["silence"].verdict for hours in (26, 27)
    }
    assert found == {26: CLEAR, 27: FIRES}


@pytest.mark.parametrize(
    ("hours", "last_at", "why"),
    [({}, None, "No request has ever come."), (clinic(MONDAY, weeks=1), "last hour", "Its week is not known")],
)
def test_a_week_that_is_not_known_gives_no_alert_and_says_so(hours, last_at, why):
    found = look(hours, MONDAY + 12 * HOUR, last_at=last_at)["silence"]
    assert found.verdict is UNKNOWN
    assert found.said.startswith(why)


def test_what_is_switched_off_may_be_silent():
    found = look(clinic(MONDAY), MONDAY + 12 * HOUR, is_off=True)
    assert (found["silence"].verdict, found["volume"].verdict) == (CLEAR, CLEAR)


# -- shares


def with_last_hour(now, **counts):
    return {**clinic(now), now.replace(minute=0): HourCount(**counts)}


NOON = MONDAY + timedelta(hours=12, minutes=50)


def test_a_burst_of_failures_fires():
    hours = with_last_hour(NOON, asked=40, slots=6, answered=40, failed=20)
    found = look(hours, NOON)["failures"]
    assert found.verdict is FIRES
    assert found.said == "In the last hour 20 of 50 (40.0 %); in the weeks before 0.0 %, and by chance up to 0.7 %."


def test_a_few_failures_do_not_fire_however_rare_they_were():
    hours = with_last_hour(NOON, asked=40, slots=6, answered=40, failed=1)
    assert look(hours, NOON)["failures"].verdict is not FIRES


def test_a_site_where_a_tenth_always_fails_is_not_told_of_it_each_day():
    always = {at: replace(each, failed=1) for at, each in clinic(NOON).items()}
    assert look(always, NOON)["failures"].verdict is CLEAR


def test_what_is_looked_at_for_three_days_is_no_part_of_what_it_is_held_against():
    # Four answers a day, at noon; for three days now all of them fail, before that none did.
    start = NOON.replace(minute=0)
    hours = {
        start - back * DAY: HourCount(asked=4, slots=1, answered=4, failed=4 if back < 4 else 0) for back in range(40)
    }
    found = look(hours, NOON)["failures"]
    assert found.verdict is FIRES
    assert found.said.startswith("In the last 72 hours 16 of 16")
    # Half a hit added to 28 days of four answers: 0.5 / 113.
    assert "in the weeks before 0.4 %" in found.said


def test_without_a_past_the_declared_share_is_what_counts():
    for failed, verdict in ((2, CLEAR), (20, FIRES)):
        hours = {NOON.replace(minute=0): HourCount(asked=40, slots=6, answered=40, failed=failed)}
        assert look(hours, NOON)["failures"].verdict is verdict


@pytest.mark.parametrize(("answered", "verdict"), [(4, UNKNOWN), (5, FIRES), (19, FIRES)])
def test_a_small_site_where_everything_fails_is_told_of_from_five_on(answered, verdict):
    for back in (0, 50):
        hours = {NOON.replace(minute=0) - back * HOUR: HourCount(asked=5, slots=5, answered=answered, failed=answered)}
        assert look(hours, NOON)["failures"].verdict is verdict


def test_a_small_site_where_one_of_five_fails_is_not():
    hours = {NOON.replace(minute=0): HourCount(asked=5, slots=5, answered=5, failed=1)}
    assert look(hours, NOON)["failures"].verdict is CLEAR


def test_a_quiet_site_is_looked_at_over_as_many_hours_as_it_takes():
    hours = {NOON.replace(minute=0) - back * HOUR: HourCount(asked=4, slots=1, answered=4) for back in range(24)}
    assert look(hours, NOON)["failures"].said.startswith("In the last 6 hours 0 of 28")


def test_a_small_lasting_rise_is_a_trend_and_no_burst():
    start = MONDAY - 14 * DAY
    hours = {
        at: replace(each, asked=40, answered=40, failed=int(at >= start))
        for at, each in clinic(MONDAY + 4 * DAY, asked=40).items()
    }
    found = look(hours, MONDAY + 4 * DAY)
    assert found["failure-trend"].verdict is FIRES
    assert found["failures"].verdict is not FIRES


def test_a_trend_needs_weeks():
    assert look(clinic(NOON, weeks=3), NOON)["failure-trend"].verdict is UNKNOWN


# -- latency and volume


@pytest.mark.parametrize(("slow", "verdict"), [(1, CLEAR), (2, CLEAR), (30, FIRES)])
def test_latency_fires_when_more_than_one_in_twenty_is_slow_by_more_than_chance(slow, verdict):
    hours = with_last_hour(NOON, asked=60, slots=6, answered=60, waited=60, slow=slow)
    found = look(hours, NOON)["latency"]
    assert found.verdict is verdict
    assert "took over 6.4 s" in found.said


@pytest.mark.parametrize(("asked", "verdict"), [(1, FIRES), (6, CLEAR), (10, CLEAR), (15, CLEAR), (40, FIRES)])
def test_a_day_of_far_more_or_fewer_requests_fires(asked, verdict):
    hours = clinic(MONDAY) | {
        MONDAY + hour * HOUR: HourCount(asked=asked, slots=6, answered=asked) for hour in range(8, 18)
    }
    assert look(hours, MONDAY + DAY)["volume"].verdict is verdict


# -- queues


def site(queues, now=NOON, evaluator=TIMER):
    return {each.key: each for each in of_site(queues, Rules(), evaluator=evaluator, now=now)}


def test_deliveries_given_up_fire_for_their_output_and_for_a_day():
    found = site(Queues(given_up={"flowsheet": [NOON - 23 * HOUR] * 7, "flag": [NOON - 25 * HOUR], "observation": []}))
    assert {key: each.verdict for key, each in found.items() if key.startswith("deliveries-given-up")} == {
        "deliveries-given-up//flowsheet": FIRES,
        "deliveries-given-up//flag": CLEAR,
        "deliveries-given-up//observation": CLEAR,
    }
    assert found["deliveries-given-up//flowsheet"].said == "7 given up in the last 24 hours."


@pytest.mark.parametrize(("minutes", "verdict"), [(30, CLEAR), (31, FIRES)])
def test_what_waits_too_long_fires(minutes, verdict):
    since = NOON - timedelta(minutes=minutes)
    assert site(Queues(oldest_pending={"flag": since}))["deliveries-waiting//flag"].verdict is verdict


def test_an_output_that_nothing_waits_for_is_clear():
    assert site(Queues(oldest_pending={"flag": None}))["deliveries-waiting//flag"].verdict is CLEAR


def test_the_spool_fires_when_it_loses_or_holds_for_too_long():
    assert "spool" not in site(Queues())
    assert site(Queues(has_spool=True))["spool"].verdict is CLEAR
    assert site(Queues(has_spool=True, spooled_at=NOON - HOUR))["spool"].verdict is FIRES
    assert site(Queues(has_spool=True, is_losing=True))["spool"].verdict is FIRES


def test_each_evaluator_is_missed_by_the_other_once_it_has_run():
    assert set(site(Queues())) == {"evaluator//timer"}
    late = Queues(last_runs={TIMER: NOON - 2 * HOUR, NIGHTLY: NOON - 51 * HOUR})
    assert {key: each.verdict for key, each in site(late).items()} == {
        "evaluator//timer": CLEAR,
        "evaluator//nightly": FIRES,
    }
    assert site(late, evaluator=NIGHTLY)["evaluator//timer"].verdict is FIRES


def test_the_store_fires_while_it_does_not_answer():
    assert [of_store(is_there=each).verdict for each in (True, False)] == [CLEAR, FIRES]
