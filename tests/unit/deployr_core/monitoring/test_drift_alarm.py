"""Whether drift is an alarm: by hand on looks, and on a made-up ward at rest and not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from deployr_core.monitoring.drift_alarm import (
    RULE,
    AlarmRule,
    DriftLook,
    KindLook,
    decided,
    drift_alarm,
    drift_look,
)
from deployr_core.monitoring.drift_reference import ReferencePeriod
from deployr_core.monitoring.served_rows import DriftKind, ServedRows
from tests.unit.deployr_core.monitoring.served import BEGIN, ward

TWICE = AlarmRule(windows=(7, 28), levels=(1e-3, 1e-4), looks=2)


def look(p: Mapping[tuple[DriftKind, int], float | None], *, day: int = 0) -> DriftLook:
    kinds = tuple(KindLook(kind=kind, days=days, rows=100, tested=1, p=value) for (kind, days), value in p.items())
    return DriftLook(until=BEGIN + timedelta(days=day), kinds=kinds, score_shift=0.01)


@pytest.fixture(scope="module")
def reference() -> ReferencePeriod:
    return ReferencePeriod.of(ward(56), model_id="m", version="1", bundle_sha256="b" * 64)


def later(**changes: float) -> ServedRows:
    return ward(28, since=BEGIN + timedelta(days=60), seed=1, **changes)


def test_one_look_is_no_alarm_where_the_rule_asks_for_two() -> None:
    clear = look({(DriftKind.SCORES, 7): 1e-9})
    assert not decided([clear], rule=TWICE).raised
    assert not decided([look({}), clear], rule=TWICE).raised
    found = decided([clear, clear], rule=TWICE)
    assert found.raised
    assert found.kinds == (DriftKind.SCORES,)


def test_two_looks_at_different_kinds_or_windows_confirm_nothing() -> None:
    one, other = look({(DriftKind.SCORES, 7): 1e-9}), look({(DriftKind.LABELS, 7): 1e-9})
    assert not decided([one, other], rule=TWICE).raised
    assert not decided([one, look({(DriftKind.SCORES, 28): 1e-9})], rule=TWICE).raised


def test_each_window_has_its_own_level_which_is_included() -> None:
    short, long = look({(DriftKind.SCORES, 7): 1e-3}), look({(DriftKind.SCORES, 28): 1e-3})
    assert decided([short, short], rule=TWICE).raised
    assert not decided([long, long], rule=TWICE).raised


def test_what_could_not_be_told_is_no_alarm() -> None:
    unknown = look({(DriftKind.SCORES, 7): None})
    assert not decided([unknown, unknown], rule=TWICE).raised
    with pytest.raises(ValueError, match="at least one look"):
        decided([])


def test_the_clearest_kind_comes_first() -> None:
    both = look({(DriftKind.SCORES, 7): 1e-5, (DriftKind.FEATURES, 28): 1e-12, (DriftKind.LABELS, 7): 1e-7})
    assert decided([both, both], rule=TWICE).kinds == (DriftKind.FEATURES, DriftKind.LABELS, DriftKind.SCORES)


def test_a_look_can_be_kept_as_json(reference: ReferencePeriod) -> None:
    now = drift_look(reference, later(lost=0.5))
    assert msgspec.json.decode(msgspec.json.encode(now), type=DriftLook) == now


def test_a_ward_at_rest_gives_no_alarm_and_one_whose_results_fail_does_and_says_what(
    reference: ReferencePeriod,
) -> None:
    assert not drift_alarm(reference, later(), [drift_look(reference, later())]).raised
    failing = later(lost=0.5)
    found = drift_alarm(reference, failing, [drift_look(reference, failing)] * (RULE.looks - 1))
    assert found.raised
    assert {DriftKind.FEATURES, DriftKind.COVERAGE} <= set(found.kinds)
    assert DriftKind.SCORES not in found.kinds
    assert "coverage in the last 28 days (labs)" in found.why
    labs = found.look.of(DriftKind.COVERAGE, 28)
    assert labs is not None
    # Nearly everybody has one of thirty features; half of them lost all.
    assert labs.moved[0].share_before == pytest.approx(1.0, abs=0.05)
    assert labs.moved[0].share_now == pytest.approx(0.5, abs=0.05)


def test_what_it_does_to_the_score_is_the_difference_of_means(reference: ReferencePeriod) -> None:
    higher = later(raised=0.8)
    found = drift_alarm(reference, higher, [drift_look(reference, higher)] * (RULE.looks - 1))
    assert DriftKind.SCORES in found.kinds
    assert found.score_shift == pytest.approx(higher.scores.mean() - ward(56).scores.mean(), abs=1e-4)


def test_a_day_whose_requests_stay_away_is_told_from_how_patients_come_again(reference: ReferencePeriod) -> None:
    """At 30 a day, patients of about four requests: none in a week is as likely as exp(-210 / 4), by Poisson."""
    rows = later()
    nobody = rows.of(np.zeros(rows.rows, dtype=np.bool_))
    volume = drift_look(reference, nobody).of(DriftKind.VOLUME, 7)
    assert volume is not None
    assert volume.p is not None
    mean = reference.requests / 56
    assert math.log(volume.p) == pytest.approx(-7 * mean / reference.recurrence, rel=1e-6)
    assert reference.recurrence == pytest.approx(3.8, abs=0.3)


def test_volume_that_halves_is_found_and_volume_at_rest_is_not(reference: ReferencePeriod) -> None:
    def p(rows: ServedRows) -> float:
        found = drift_look(reference, rows).of(DriftKind.VOLUME, 28)
        assert found is not None
        assert found.p is not None
        return found.p

    half = later()
    assert p(half.of(half.patients % 2 == 0)) < 1e-6
    assert p(later()) > 0.01


def test_p_of_volume_at_rest_is_uniform_though_patients_come_again() -> None:
    """Of 300 weeks at rest 5 % are expected under .05: 15, with a standard deviation of 3.8; 4 of these are allowed."""
    reference = ReferencePeriod.of(ward(364), model_id="m", version="1", bundle_sha256="b" * 64)
    year = [ward(350, since=BEGIN + timedelta(days=400), seed=seed) for seed in range(2, 8)]
    low = 0
    for rows in year:
        for week in range(50):
            since = rows.since + timedelta(weeks=week)
            found = drift_look(reference, _only_volume(rows.between(since, since + timedelta(weeks=1)))).kinds
            low += sum(each.p is not None and each.p < 0.05 for each in found if each.days == 7)
    assert abs(low - 15) <= 4 * 3.8


def _only_volume(rows: ServedRows) -> ServedRows:
    """Leave out all that is not volume: what the rows know nothing of is no drift."""
    return replace(rows, scores=np.full(rows.rows, np.nan), calls={})


def test_windows_are_whole_weeks_and_take_in_nothing_of_the_reference_period(reference: ReferencePeriod) -> None:
    rows = ward(66, seed=0)
    looks = drift_look(reference, rows)
    last_week = rows.between(rows.until - timedelta(weeks=1), rows.until).rows
    assert {(each.days, each.rows) for each in looks.kinds if each.kind is DriftKind.VOLUME} == {
        (7, last_week),
        (28, last_week),
    }
    assert drift_look(reference, rows.between(BEGIN, BEGIN + timedelta(days=62))).kinds == ()
    assert drift_look(reference, rows.between(BEGIN + timedelta(days=61), rows.until)).kinds == ()
