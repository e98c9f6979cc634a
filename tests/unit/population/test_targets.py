"""The teaching hospital's marginals are those that it is aimed at.

Results, orders and stays of one patient are alike, so patients are what counts: tolerances are four standard errors
that let patients vary as a whole. A share's is sqrt(sum over patients of (their sum - share * their count)^2) / count
(the ratio estimator; Cochran, Sampling Techniques, 3rd edition, 6.4); a correlation's is (1 - r^2) / sqrt(patients).
"""

from dataclasses import replace

import numpy as np
import pytest

from mock_emr.population import targets
from mock_emr.population.codes import FEMALE_ROW, RACES
from mock_emr.population.columns import Floats, Integers, Population
from mock_emr.population.generate import generate
from mock_emr.population.labs import ANALYTES, PANELS
from mock_emr.population.profiles import HOSPITAL
from mock_emr.population.targets import Target

PATIENTS = 2_000
ROW = {analyte.name: row for row, analyte in enumerate(ANALYTES)}
ERRORS = 4


@pytest.fixture(scope="module")
def teaching() -> Population:
    """Two thousand patients of the five years."""
    return generate(replace(HOSPITAL, patients=PATIENTS))


@pytest.fixture(scope="module")
def table(teaching: Population) -> Floats:
    """Results as shape (n_orders, n_analytes), NaN where nothing was reported."""
    filled = np.full((len(teaching.orders), len(ANALYTES)), np.nan)
    filled[teaching.results.order_row, teaching.results.analyte_row] = teaching.results.value
    return filled


def _share(happened: Floats, of: Floats, person_row: Integers) -> tuple[float, float]:
    """Give the sum of ``happened`` over the sum of ``of``, and its standard error with patients as clusters."""
    had = np.bincount(person_row, happened, minlength=PATIENTS)
    could = np.bincount(person_row, of, minlength=PATIENTS)
    ratio = had.sum() / could.sum()
    return float(ratio), float(np.sqrt(((had - ratio * could) ** 2).sum()) / could.sum())


def _near(value: float, target: Target, error: float) -> bool:
    return target.low - ERRORS * error <= value <= target.high + ERRORS * error


def _correlation(first: Floats, second: Floats) -> float:
    both = ~np.isnan(first) & ~np.isnan(second)
    return float(np.corrcoef(first[both], second[both])[0, 1])


@pytest.mark.parametrize("name", targets.ABNORMAL)
def test_as_many_results_are_abnormal(teaching: Population, name: str) -> None:
    results, orders = teaching.results, teaching.orders
    seen = (results.analyte_row == ROW[name]) & ~np.isnan(results.low)
    outside = (results.value < results.low) | (results.value > results.high)
    person_row = teaching.stays.person_row[orders.stay_row[results.order_row[seen]]]

    share, error = _share(outside[seen].astype(float), np.ones(int(seen.sum())), person_row)

    assert error < 0.02
    assert _near(share, targets.ABNORMAL[name], error)


@pytest.mark.parametrize("pair", targets.CORRELATION)
def test_results_of_one_draw_go_together(table: Floats, pair: tuple[str, str]) -> None:
    found = _correlation(table[:, ROW[pair[0]]], table[:, ROW[pair[1]]])

    assert _near(found, targets.CORRELATION[pair], (1 - found**2) / np.sqrt(PATIENTS))


@pytest.mark.parametrize("name", targets.ABNORMAL)
def test_a_result_resembles_the_one_before_it(teaching: Population, table: Floats, name: str) -> None:
    person_row = teaching.stays.person_row[teaching.orders.stay_row]
    order = np.lexsort((teaching.orders.ordered, person_row))
    order = order[~np.isnan(table[order, ROW[name]])]
    same = person_row[order][1:] == person_row[order][:-1]
    values = table[order, ROW[name]]

    assert targets.PERSISTENCE.low < _correlation(values[1:][same], values[:-1][same]) < targets.PERSISTENCE.high


@pytest.mark.parametrize("row", range(len(PANELS)))
def test_a_day_in_hospital_brings_as_many_orders(teaching: Population, row: int) -> None:
    stays, orders = teaching.stays, teaching.orders
    days = (stays.end - stays.start) / np.timedelta64(1, "D")
    count = np.bincount(orders.stay_row[orders.panel_row == row], minlength=len(stays))

    rate, error = _share(count.astype(float), days, stays.person_row)

    assert _near(rate, targets.ORDERS_A_DAY[PANELS[row].name], error)


@pytest.mark.parametrize("row", range(len(PANELS)))
def test_nine_tenths_of_results_come_in_the_usual_time(teaching: Population, row: int) -> None:
    orders, target = teaching.orders, targets.ORDER_TO_RESULT_MINUTES[PANELS[row].name]
    asked = (orders.panel_row == row) & ~orders.cancelled
    minutes = (orders.resulted[asked] - orders.ordered[asked]) / np.timedelta64(1, "m")

    inside = ((minutes >= target.low) & (minutes <= target.high)).mean()

    # Laboratory times are drawn one by one: a binomial standard error would be 0.002, and what is left over is that
    # the sum of two drawn times was fitted to whole minutes.
    assert abs(inside - 0.9) < 0.03


def test_a_third_of_orders_is_signed_at_night(teaching: Population) -> None:
    orders = teaching.orders
    local = teaching.config.local(orders.ordered)
    hour = (local - local.astype("datetime64[D]")) / np.timedelta64(1, "h")
    night = (hour >= 19) | (hour < 7)

    share, error = _share(night.astype(float), np.ones(len(night)), teaching.stays.person_row[orders.stay_row])

    assert _near(share, targets.AT_NIGHT, error)


def test_ages_and_sexes_are_as_aimed_at(teaching: Population) -> None:
    start = teaching.config.start_instant.astype("datetime64[D]")
    years = (start - teaching.persons.birth_date) / np.timedelta64(1, "D") / 365.25
    female = (teaching.persons.sex_row == FEMALE_ROW).mean()

    assert _near(years.mean(), targets.AGE_MEAN, 18 / np.sqrt(PATIENTS))
    # The standard error of a standard deviation is at most sd / sqrt(2 n) for a distribution without heavy tails.
    assert _near(years.std(), targets.AGE_SD, 18 / np.sqrt(2 * PATIENTS))
    assert _near(female, targets.FEMALE, np.sqrt(0.25 / PATIENTS))


@pytest.mark.parametrize("name", targets.RACE)
def test_races_are_as_aimed_at(teaching: Population, name: str) -> None:
    row = [race.source for race in RACES].index(name)
    target = targets.RACE[name]

    share = (teaching.persons.race_row == row).mean()

    assert _near(share, target, np.sqrt(target.low * (1 - target.low) / PATIENTS))


def test_readmissions_and_deaths_are_as_aimed_at(teaching: Population) -> None:
    stays = teaching.stays
    back = np.zeros(len(stays))
    again = np.flatnonzero(stays.preceding_row >= 0)
    before = stays.preceding_row[again]
    back[before] = (stays.start[again] - stays.end[before]) <= np.timedelta64(30, "D")
    followed = stays.end < teaching.config.end_instant - np.timedelta64(30, "D")

    share, error = _share(back[followed], np.ones(int(followed.sum())), stays.person_row[followed])
    died, uncertain = _share(stays.died.astype(float), np.ones(len(stays)), stays.person_row)

    assert _near(share, targets.READMITTED, error)
    assert _near(died, targets.DIED, uncertain)
