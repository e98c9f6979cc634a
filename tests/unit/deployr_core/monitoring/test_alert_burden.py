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
    assert value(found.per_day) == 3 / 4
    assert value(found.share_of_inferences) == 3 / 6


def test_a_clinicians_day_counts_if_there_was_an_inference_for_them() -> None:
    found = burden(clinicians=CLINICIANS)
    # One clinician on one day with two alerts; the other on three days with one.
    assert found.clinicians == 2
    assert value(found.per_clinician_day) == 3 / 4
    assert found.busiest_clinician_day == 2
    assert found.of_busiest_tenth == 2 / 3


@pytest.mark.parametrize("clinicians", [None, np.full(6, -1)], ids=["not told", "nobody known"])
def test_without_clinicians_only_days_are_told(clinicians: Any) -> None:
    found = burden(clinicians=clinicians)
    assert found.per_clinician_day == NotMeasured(why="expected to be told which clinician each inference was for")
    assert found.clinicians is None
    assert value(found.per_day) == 3 / 4


def test_a_period_without_inferences_has_no_alerts_and_no_share() -> None:
    found = alert_burden(
        np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64), first_day=1, last_day=7, rng=np.random.default_rng(1)
    )
    assert value(found.per_day) == 0
    assert found.share_of_inferences == NotMeasured(why="expected at least one inference")


def test_a_period_that_does_not_hold_the_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="inside the period"):
        burden(last_day=12)
    with pytest.raises(ValueError, match="at least one day"):
        burden(last_day=9)
