"""Alerts per day and per clinician, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployr_core.bootstrap import Interval, NotMeasured
from deployr_core.monitoring.alert_burden import AlertBurden, alert_burden

ALERTS = np.array([True, True, False, True, False, False])
DAYS = np.array([10, 10, 10, 12, 12, 13])
CLINICIANS = np.array([0, 0, 1, 1, -1, 1])


def burden(**more: Any) -> AlertBurden:
    return alert_burden(
        ALERTS, DAYS, **{"first_day": 10, "last_day": 13, "rng": np.random.default_rng(1), "resamples": 50, **more}
    )


def value(figure: Any) -> float:
    assert isinstance(figure, Interval)
    return figure.value


def test_a_day_without_inferences_counts_as_a_day_without_alerts() -> None:
    found = burden()
    assert (found.days, found.alerts) == (4, 3)
    # Two, none, one and none.
    assert value(found.per_day.mean) == 3 / 4
    assert value(found.share_of_inferences) == 3 / 6
    assert (value(found.per_day.median), value(found.per_day.percentile_90), found.per_day.most) == (0, 2, 2)


def test_a_clinicians_day_counts_if_there_was_an_inference_for_them() -> None:
    found = burden(clinicians=CLINICIANS)
    # One clinician on one day with two alerts; the other on three days with one.
    assert (found.clinicians, found.known) == (2, 5)
    by_day = found.per_clinician_day
    assert by_day is not None
    assert value(by_day.mean) == 3 / 4
    # Half of the four have none, and nine tenths no more than two.
    assert (value(by_day.median), value(by_day.percentile_90), by_day.most) == (0, 2, 2)
    assert by_day.frequencies == (2, 1, 1)
    assert found.of_busiest_tenth == 2 / 3


def test_a_clinicians_days_are_drawn_together() -> None:
    # Ten clinicians: five with four alerts on each of ten days, five with none. Days drawn one by one would never say
    # that the mean may be 1 or 3.
    who, days = np.repeat(np.arange(10), 40), np.tile(np.repeat(np.arange(10), 4), 10)
    found = alert_burden(
        who < 5, days, first_day=0, last_day=9, rng=np.random.default_rng(1), clinicians=who, resamples=500
    ).per_clinician_day
    assert found is not None
    assert isinstance(found.mean, Interval)
    assert found.mean.low <= 1.0
    assert found.mean.high >= 3.0
    assert isinstance(found.median, Interval)
    assert (found.median.low, found.median.high) == (0.0, 4.0)


@pytest.mark.parametrize("clinicians", [None, np.full(6, -1)], ids=["not told", "nobody known"])
def test_without_clinicians_only_days_are_told(clinicians: Any) -> None:
    found = burden(clinicians=clinicians)
    assert (found.clinicians, found.per_clinician_day, found.known) == (None, None, 0)
    assert value(found.per_day.mean) == 3 / 4


def test_a_period_without_inferences_has_no_alerts_and_no_share() -> None:
    found = alert_burden(
        np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64), first_day=1, last_day=7, rng=np.random.default_rng(1)
    )
    assert value(found.per_day.mean) == found.per_day.most == 0
    assert found.share_of_inferences == NotMeasured(why="expected at least one inference")


def test_a_period_that_does_not_hold_the_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="inside the period"):
        burden(last_day=12)
    with pytest.raises(ValueError, match="at least one day"):
        burden(last_day=9)


@pytest.mark.proof
@pytest.mark.parametrize(("clinicians", "least"), [(30, 0.90), (80, 0.93)])
def test_intervals_by_clinician_cover_the_truth_of_a_made_up_hospital(clinicians: int, least: float) -> None:
    # Clinicians differ: a day brings each a Poisson number of alerts around a rate of their own, 1.5 on average. By the
    # rates' gamma distribution half of their days have at most 1 and nine tenths at most 4.
    truth = {"mean": 1.5, "median": 1.0, "percentile_90": 4.0}
    covered = dict.fromkeys(truth, 0)
    for repetition in range(200):
        rng = np.random.default_rng(repetition)
        rate = rng.gamma(1.5, 1.0, clinicians)
        who, days = np.repeat(np.arange(clinicians), 28), np.tile(np.arange(28), clinicians)
        at_work = rng.random(who.size) < 0.4
        alerts = rng.poisson(rate[who])[at_work]
        times = np.maximum(alerts, 1)
        # Of each day's rows the first so many are alerts; a day without one has a row that is none.
        place = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        found = alert_burden(
            place < np.repeat(alerts, times),
            np.repeat(days[at_work], times),
            first_day=0,
            last_day=27,
            rng=rng,
            clinicians=np.repeat(who[at_work], times),
            resamples=200,
        ).per_clinician_day
        assert found is not None
        for name, true in truth.items():
            figure = getattr(found, name)
            covered[name] += figure.low <= true <= figure.high
    assert min(covered.values()) / 200 >= least
