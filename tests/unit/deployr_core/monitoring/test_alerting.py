"""Alerts begin once, go on, and end; whatever a rule finds in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.monitoring.alert_rules import AlertRules, Rules, Share
from deployr_core.monitoring.alerting import (
    Entry,
    Finding,
    Silenced,
    Verdict,
    What,
    advance,
    counted,
    key_of,
    share_of,
)

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
WATCHED = ("failures", "silence")
BEGIN, END = 10, 30


def rules(**changes):
    failures = msgspec.structs.replace(Rules().failures, begin_minutes=BEGIN, end_minutes=END)
    return AlertRules(rules=msgspec.structs.replace(Rules(), failures=failures), **changes)


def finding(verdict, *, rule="failures", model="hematocrit", part=""):
    return Finding(rule=rule, model=model, part=part, verdict=verdict, said=f"It is {verdict}.")


def play(steps, *, minutes=5, silences=(), in_force=None, start=NOW):
    """Give all notices of looks that find these verdicts, one after the other; None: no finding at all."""
    entries, notices = {}, []
    for place, verdict in enumerate(steps):
        found = () if verdict is None else (finding(verdict),)
        advanced = advance(
            entries,
            found,
            rules=in_force or rules(),
            watched=WATCHED,
            silences=silences,
            now=start + timedelta(minutes=minutes * place),
        )
        entries, notices = advanced.entries, [*notices, *advanced.notices]
    return notices


def told(notices):
    return [(each.what, int((each.at - NOW) / timedelta(minutes=1))) for each in notices if each.is_told]


FIRES, CLEAR, BETWEEN, UNKNOWN = Verdict.FIRING, Verdict.CLEAR, Verdict.BETWEEN, Verdict.UNKNOWN


def test_an_alert_begins_when_it_has_held_long_enough_and_ends_when_it_has_not():
    notices = play([FIRES] * 4 + [CLEAR] * 8)
    assert told(notices) == [(What.BEGUN, 10), (What.ENDED, 50)]
    assert {each.begun_at for each in notices} == {NOW + timedelta(minutes=10)}


def test_what_is_over_before_its_time_is_no_alert():
    assert play([FIRES, FIRES, CLEAR, CLEAR]) == []


def test_what_flaps_faster_than_it_ends_is_one_alert():
    assert told(play(([FIRES] * 3 + [CLEAR] * 3) * 10)) == [(What.BEGUN, 10)]


@pytest.mark.parametrize("verdict", [BETWEEN, UNKNOWN])
def test_what_is_neither_ends_nothing(verdict):
    assert told(play([FIRES] * 3 + [verdict] * 50)) == [(What.BEGUN, 10)]


def test_it_is_reminded_of_while_it_lasts_and_not_while_it_may_be_over():
    steps = [FIRES] * 3 + [FIRES] * 24 + [CLEAR] * 3 + [FIRES] * 24
    assert told(play(steps, in_force=rules(remind_hours=2.0))) == [
        (What.BEGUN, 10),
        (What.REMINDER, 130),
        (What.REMINDER, 250),
    ]


def test_each_model_and_part_has_an_alert_of_its_own():
    found = [finding(FIRES, part=part) for part in ("", "a")] + [finding(FIRES, model="other")]
    advanced = {}
    for minutes in (0, 10):
        now = NOW + timedelta(minutes=minutes)
        result = advance(advanced, found, rules=rules(), watched=WATCHED, silences=(), now=now)
        advanced = result.entries
    assert {each.key for each in result.notices} == {"failures/hematocrit", "failures/hematocrit/a", "failures/other"}


@pytest.mark.parametrize("also", [(), (CLEAR,)])
def test_what_cannot_be_told_as_a_whole_ends_the_alert_of_no_part_and_begins_none(also):
    begun = Entry(
        rule="failures",
        model="hematocrit",
        part="labs",
        severity="page",
        said="Gone.",
        firing_since=NOW,
        begun_at=NOW,
        told_at=NOW,
    )
    entries = {"failures/hematocrit/labs": begun}
    found = [finding(UNKNOWN), *(finding(verdict, part="other") for verdict in also), finding(CLEAR, model="b")]
    for hours in (1, 2):
        advanced = advance(
            entries, found, rules=rules(), watched=WATCHED, silences=(), now=NOW + timedelta(hours=hours)
        )
        assert advanced.notices == ()
        assert set(advanced.entries) == {"failures/hematocrit/labs"}
        assert advanced.entries["failures/hematocrit/labs"].begun_at == NOW
        entries = advanced.entries
    # Once it can be told again, what is found of the part itself counts.
    over = advance(
        entries,
        [finding(CLEAR, part="labs")],
        rules=AlertRules(rules=msgspec.structs.replace(Rules(), failures=Share(end_minutes=0))),
        watched=WATCHED,
        silences=(),
        now=NOW + timedelta(hours=3),
    )
    assert [(each.what, each.said) for each in over.notices] == [(What.ENDED, "It is clear.")]


def test_an_alert_whose_model_is_gone_is_over():
    notices = play([FIRES] * 3 + [None])
    assert told(notices)[-1] == (What.ENDED, 15)
    assert notices[-1].said == "It is not watched any more."


def test_a_look_at_other_rules_leaves_an_alert_as_it_is():
    entries = {"auroc/a": Entry(rule="auroc", model="a", part="", severity="warn", said="", firing_since=NOW)}
    advanced = advance(entries, (), rules=rules(), watched=WATCHED, silences=(), now=NOW)
    assert (advanced.entries, advanced.notices) == (entries, ())


def test_a_rule_that_is_switched_off_ends_its_alerts():
    on = play([FIRES] * 3)
    off = msgspec.structs.replace(Rules().failures, enabled=False)
    entry = Entry(
        rule="failures",
        model="hematocrit",
        part="",
        severity="page",
        said="",
        firing_since=NOW,
        begun_at=NOW,
        told_at=NOW,
    )
    quiet = AlertRules(rules=msgspec.structs.replace(Rules(), failures=off))
    result = advance(
        {on[0].key: entry}, (finding(FIRES),), rules=quiet, watched=WATCHED, silences=(), now=NOW + timedelta(hours=1)
    )
    assert [each.what for each in result.notices] == [What.ENDED]


def silenced(minutes, *, rule="failures", model="hematocrit", part=None):
    until = NOW + timedelta(minutes=minutes)
    return Silenced(rule=rule, model=model, part=part, until=until, by="ana", why="seen to", at=NOW)


def test_what_is_silenced_is_kept_and_not_told_and_told_once_the_silence_is_over():
    notices = play([FIRES] * 14, silences=(silenced(60),))
    assert [(each.what, each.is_told) for each in notices] == [(What.BEGUN, False), (What.BEGUN, True)]
    assert told(notices) == [(What.BEGUN, 60)]


def test_what_began_and_ended_in_silence_is_told_to_nobody():
    notices = play([FIRES] * 3 + [CLEAR] * 8, silences=(silenced(600),))
    assert [(each.what, each.is_told) for each in notices] == [(What.BEGUN, False), (What.ENDED, False)]


def test_an_acknowledged_alert_is_not_reminded_of_and_its_end_is_told():
    late = msgspec.structs.replace(silenced(10_000), at=NOW + timedelta(minutes=15))
    steps = [FIRES] * 200 + [CLEAR] * 8
    assert [what for what, _ in told(play(steps, silences=(late,), in_force=rules(remind_hours=2.0)))] == [
        What.BEGUN,
        What.ENDED,
    ]


@pytest.mark.parametrize(
    ("silence", "covers"),
    [
        (silenced(10), True),
        (silenced(10, rule=None, model=None), True),
        (silenced(10, rule="silence"), False),
        (silenced(10, model="other"), False),
        (silenced(10, part="a"), False),
        (silenced(0), False),
    ],
)
def test_a_silence_covers_what_it_names(silence, covers):
    entry = Entry(rule="failures", model="hematocrit", part="", severity="page", said="", firing_since=NOW)
    assert silence.covers(entry, now=NOW) == covers


@given(
    steps=st.lists(st.sampled_from([*Verdict, None]), max_size=120),
    minutes=st.integers(1, 90),
    remind=st.floats(0.5, 48.0),
    quiet=st.integers(0, 2000),
)
def test_whatever_is_found_an_alert_begins_goes_on_and_ends_in_this_order(steps, minutes, remind, quiet):
    notices = [
        each
        for each in play(steps, minutes=minutes, silences=(silenced(quiet),), in_force=rules(remind_hours=remind))
        if each.is_told
    ]
    for before, after in zip([None, *notices], notices, strict=False):
        stands = before is not None and before.what is not What.ENDED
        assert (after.what is What.BEGUN) != stands
        if after.what is What.REMINDER:
            assert after.at - before.at >= timedelta(hours=remind)
        if before is not None and before.what is What.ENDED:
            assert after.at - before.at >= timedelta(minutes=BEGIN)
    assert len({each.notice_id for each in notices}) == len(notices)


@given(st.lists(st.sampled_from(list(Verdict)), max_size=200))
def test_alerts_of_a_day_are_bounded_by_how_long_they_take_to_begin_and_end(steps):
    begun = [each for each in play(steps) if each.what is What.BEGUN]
    assert len(begun) <= 1 + 5 * len(steps) // (BEGIN + END)


def test_small_counts_are_not_told():
    assert [counted(each) for each in (0, 1, 4, 5, 1234)] == ["0", "fewer than 5", "fewer than 5", "5", "1,234"]
    assert share_of(3, 40) == "fewer than 5 of 40"
    assert share_of(2, 3) == "of fewer than 5"
    assert share_of(0, 40) == "0 of 40 (0.0 %)"
    assert share_of(10, 40) == "10 of 40 (25.0 %)"


def test_an_alert_is_called_by_what_it_is_about():
    assert key_of("store", "", "") == "store"
    assert key_of("spool", "", "disk") == "spool//disk"
    assert key_of("auroc", "m", "") == "auroc/m"
