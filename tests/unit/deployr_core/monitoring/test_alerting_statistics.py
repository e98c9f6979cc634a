"""The nightly rules on figures made by hand: what fires, what lies between, and what cannot be told."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from deployr_core.bootstrap import Interval, NotMeasured
from deployr_core.monitoring.alert_rules import Auroc, Burden, LabelsOverdue, Rules
from deployr_core.monitoring.alerting import Verdict
from deployr_core.monitoring.alerting_statistics import NAMES, Figures, Overdue, of_figures
from deployr_core.monitoring.designs import sample_ratio
from deployr_core.monitoring.drift import Drift
from deployr_core.monitoring.drift_alarm import DriftAlarm, DriftLook

FIRES, CLEAR, BETWEEN, UNKNOWN = Verdict.FIRING, Verdict.CLEAR, Verdict.BETWEEN, Verdict.UNKNOWN
WHY = NotMeasured(why="nothing was shown")


def around(value, reach=0.01):
    return Interval(value=value, low=value - reach, high=value + reach, resamples=500)


def present(name, before, now, q=0.001):
    return Drift(
        name=name,
        psi=0.1,
        psi_by_chance=0.0,
        js=0.0,
        wasserstein=0.0,
        share_before=before,
        share_now=now,
        score_shift=0.0,
        p=q,
        q=q,
    )


def alarm(*, raised=True, shift=0.03):
    look = DriftLook(until=datetime(2026, 3, 2, tzinfo=UTC), kinds=(), score_shift=shift)
    return DriftAlarm(raised=raised, kinds=(), why="Features moved.", moved=(), score_shift=shift, look=look)


def verdict(rule, part="", *, rules=None, **changes):
    figures = {
        "model": "m",
        "scored": 1000,
        "positives": 200,
        "negatives": 800,
        "auroc": around(0.8),
        "stated": around(0.81),
        "calibration": around(0.0),
        "overdue": Overdue(overdue=0, ripe=1000),
        "coverage": (),
        "drift": alarm(raised=False),
        "sample_ratio": None,
        "shown": 0,
        "overridden": WHY,
        "burden": WHY,
        "burden_before": None,
        **changes,
    }
    found = {(each.rule, each.part): each for each in of_figures(Figures(**figures), rules or Rules())}
    return found[rule, part].verdict


def with_rule(name, rule):
    return msgspec.structs.replace(Rules(), **{name: rule})


@pytest.mark.parametrize(
    ("value", "expected"),
    # Held out .80 to .82. At .785 the interval ends at .795, under .80; at .795 the intervals meet.
    [(0.785, FIRES), (0.795, BETWEEN), (0.81, CLEAR), (0.9, CLEAR)],
)
def test_auroc_fires_when_its_interval_is_wholly_below_that_of_held_out_rows(value, expected):
    assert verdict("auroc", auroc=around(value)) is expected


def test_auroc_is_held_to_a_bar_where_one_is_declared():
    rules = with_rule("auroc", Auroc(bar=0.7))
    assert verdict("auroc", auroc=around(0.68), stated=None, rules=rules) is FIRES
    assert verdict("auroc", auroc=around(0.71), stated=around(0.9), rules=rules) is CLEAR


@pytest.mark.parametrize(
    "changes", [{"positives": 49}, {"negatives": 49}, {"auroc": NotMeasured(why="x")}, {"stated": None}]
)
def test_auroc_says_when_it_cannot_be_told(changes):
    assert verdict("auroc", **changes) is UNKNOWN


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, CLEAR), (0.03, CLEAR), (0.035, BETWEEN), (0.045, FIRES), (-0.045, FIRES)]
)
def test_calibration_fires_when_its_interval_is_wholly_beyond_what_is_let_pass(value, expected):
    assert verdict("calibration", calibration=around(value)) is expected


@pytest.mark.parametrize(
    ("now", "q", "expected"),
    [(0.80, 0.001, FIRES), (0.80, 0.2, BETWEEN), (0.88, 0.001, CLEAR), (0.86, 0.001, BETWEEN), (1.0, 0.001, CLEAR)],
)
def test_coverage_fires_for_a_group_that_fewer_packets_have(now, q, expected):
    assert verdict("coverage", "labs", coverage=(present("labs", 0.9, now, q),)) is expected


def test_coverage_says_why_it_cannot_be_told():
    assert verdict("coverage", coverage="no bundle") is UNKNOWN
    assert verdict("coverage", coverage=(present("labs", 0.9, 0.1),), scored=99) is UNKNOWN


def test_with_a_share_of_none_that_is_let_pass_no_overdue_label_is_clear():
    rules = with_rule("labels_overdue", LabelsOverdue(least_share=0.0))
    assert verdict("labels-overdue", overdue=Overdue(overdue=0, ripe=100), rules=rules) is CLEAR
    assert verdict("labels-overdue", overdue=Overdue(overdue=1, ripe=100), rules=rules) is FIRES


@pytest.mark.parametrize(
    ("overdue", "ripe", "expected"), [(0, 19, UNKNOWN), (10, 1000, CLEAR), (30, 1000, BETWEEN), (50, 1000, FIRES)]
)
def test_labels_fire_when_too_many_are_overdue(overdue, ripe, expected):
    assert verdict("labels-overdue", overdue=Overdue(overdue=overdue, ripe=ripe)) is expected


def test_drift_is_what_the_drift_alarm_decides():
    assert verdict("drift", drift=alarm()) is FIRES
    assert verdict("drift", drift=alarm(raised=False)) is CLEAR
    assert verdict("drift", drift="no reference period") is UNKNOWN
    rules = with_rule("drift", msgspec.structs.replace(Rules().drift, least_shift=0.05))
    assert verdict("drift", drift=alarm(), rules=rules) is BETWEEN


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((500, 500), CLEAR), ((400, 600), FIRES), ((20, 20), UNKNOWN), ((450, 550), BETWEEN)],
)
def test_a_trial_whose_arms_are_not_as_drawn_fires(counts, expected):
    ratio = sample_ratio(dict(zip(("a", "b"), counts, strict=True)), {"a": 0.5, "b": 0.5})
    assert verdict("sample-ratio", sample_ratio=ratio) is expected


@pytest.mark.parametrize(
    ("shown", "value", "expected"), [(49, 1.0, UNKNOWN), (100, 0.95, FIRES), (100, 0.905, BETWEEN), (100, 0.8, CLEAR)]
)
def test_overrides_fire_when_nearly_all_are(shown, value, expected):
    assert verdict("overrides", shown=shown, overridden=around(value)) is expected


@pytest.mark.parametrize(
    ("before", "now", "per_day", "expected"),
    [
        (5.0, 12.0, None, FIRES),
        (5.0, 9.0, None, CLEAR),
        (None, 9.0, None, UNKNOWN),
        (None, 9.0, 8.0, FIRES),
        (5.0, 9.0, 20.0, CLEAR),
    ],
)
def test_burden_is_held_to_what_is_declared_or_was_before(before, now, per_day, expected):
    rules = with_rule("burden", Burden(per_day=per_day))
    assert verdict("burden", burden=around(now, 0.5), burden_before=before, rules=rules) is expected


def test_every_nightly_rule_is_told_of_where_there_is_something_to_tell():
    figures = Figures(
        model="m",
        scored=0,
        positives=0,
        negatives=0,
        auroc=WHY,
        stated=None,
        calibration=WHY,
        overdue=Overdue(overdue=0, ripe=0),
        coverage="none",
        drift="none",
        sample_ratio=None,
        shown=0,
        overridden=WHY,
        burden=WHY,
        burden_before=None,
    )
    found = list(of_figures(figures, Rules()))
    assert {each.rule for each in found} == set(NAMES) - {"sample-ratio"}
    assert {each.verdict for each in found} == {UNKNOWN}
