"""The marginals are near their targets. Tolerances allow for few patients, not for few results.

Results of one patient are alike, so the number that counts is that of patients, 400: the standard error of a
share near 2/3 is at most sqrt(2/9 / 400) = 0.024, and four of them are 0.094.
"""

import numpy as np

from mock_emr.population.columns import Floats, Population
from mock_emr.population.labs import (
    ANALYTES,
    CBC,
    CREATININE,
    HEMATOCRIT,
    HEMOGLOBIN,
    MAGNESIUM_ALONE,
    METABOLIC,
    UREA_NITROGEN,
)

FOUR_STANDARD_ERRORS = 4 * np.sqrt(2 / 9 / 400)


def _by_order(population: Population) -> Floats:
    """Give results as shape (n_orders, n_analytes), NaN where nothing was reported."""
    table = np.full((len(population.orders), len(ANALYTES)), np.nan)
    table[population.results.order_row, population.results.analyte_row] = population.results.value
    return table


def _correlation(first: Floats, second: Floats) -> float:
    both = ~np.isnan(first) & ~np.isnan(second)
    return float(np.corrcoef(first[both], second[both])[0, 1])


def test_orders_a_day_are_those_of_a_ward(hospital: Population) -> None:
    stays = hospital.stays
    days = ((stays.end - stays.start) / np.timedelta64(1, "D")).sum()
    a_day = np.bincount(hospital.orders.panel_row) / days

    # About 3,000 days, so a Poisson count's standard error is sqrt(1.1 / 3000) = 0.02; that patients differ
    # widens it to a few hundredths.
    np.testing.assert_allclose(a_day[[CBC, METABOLIC, MAGNESIUM_ALONE]], [1.1, 1.2, 0.7], atol=0.1)


def test_two_thirds_of_hematocrits_are_abnormal(hospital: Population) -> None:
    results = hospital.results
    seen = (results.analyte_row == HEMATOCRIT) & ~np.isnan(results.low)
    value = results.value[seen]
    abnormal = (value < results.low[seen]) | (value > results.high[seen])

    assert abs(abnormal.mean() - 2 / 3) < FOUR_STANDARD_ERRORS


def test_many_hematocrits_lie_near_the_limit(hospital: Population) -> None:
    results = hospital.results
    seen = (results.analyte_row == HEMATOCRIT) & ~np.isnan(results.low)

    # With a spread of about 6 points around a mean near the limit, +-2 points hold
    # 2 * (normal cdf(2 / 6) - 1/2) = 0.26.
    assert abs((np.abs(results.value[seen] - results.low[seen]) < 2).mean() - 0.26) < FOUR_STANDARD_ERRORS


def test_hematocrit_and_hemoglobin_nearly_repeat_each_other(hospital: Population) -> None:
    table = _by_order(hospital)

    assert 0.97 < _correlation(table[:, HEMATOCRIT], table[:, HEMOGLOBIN]) < 0.99


def test_kidneys_show_in_two_results(hospital: Population) -> None:
    table = np.log(_by_order(hospital))

    assert _correlation(table[:, CREATININE], table[:, UREA_NITROGEN]) > 0.5


def test_a_patient_resembles_himself(hospital: Population) -> None:
    orders, stays = hospital.orders, hospital.stays
    hematocrit = _by_order(hospital)[:, HEMATOCRIT]
    counted = np.flatnonzero(~np.isnan(hematocrit))
    counted = counted[np.lexsort((orders.collected[counted], stays.person_row[orders.stay_row[counted]]))]
    person = stays.person_row[orders.stay_row[counted]]
    same = person[1:] == person[:-1]
    value = hematocrit[counted]

    persistence = _correlation(value[1:][same], value[:-1][same])

    # Strong, as ward results are, and well short of a copy: there is something left to predict.
    assert 0.7 < persistence < 0.95


def test_anemia_shows_in_what_is_charted(hospital: Population) -> None:
    anemia = hospital.persons.illness[:, 0]
    orders, stays = hospital.orders, hospital.stays
    hematocrit = _by_order(hospital)[:, HEMATOCRIT]
    seen = ~np.isnan(hematocrit)
    person = stays.person_row[orders.stay_row[seen]]
    counts = np.bincount(person, minlength=len(anemia))
    mean = np.bincount(person, hematocrit[seen], minlength=len(anemia)) / np.maximum(counts, 1)

    assert _correlation(anemia[counts > 0], mean[counts > 0]) < -0.6


def test_shares_of_hospital_reality_are_as_configured(hospital: Population) -> None:
    config, results = hospital.config, hospital.results
    full = np.array([4, 9, 1])[hospital.orders.panel_row[~hospital.orders.cancelled]]
    missing = 1 - (len(results) - (full == 1).sum()) / full[full > 1].sum()

    # Here draws are independent: binomial standard errors, n near 9,000 orders and 47,000 results.
    assert abs(hospital.orders.cancelled.mean() - config.cancelled_share) < 4 * np.sqrt(0.01 / 9000)
    assert abs(missing - config.missing_component_share) < 4 * np.sqrt(0.02 / 45000)
    assert abs((results.status > 0).mean() - config.corrected_share) < 4 * np.sqrt(0.004 / 47000)
    assert abs(np.isnan(results.low).mean() - config.rangeless_share) < 4 * np.sqrt(0.004 / 47000)


def test_patients_are_adults(hospital: Population) -> None:
    start = hospital.config.start_instant.astype("datetime64[D]")
    years = (start - hospital.persons.birth_date) / np.timedelta64(1, "D") / 365.25

    assert years.min() >= 18
    assert years.max() < 100
    # 18 + 80 * 3 / 5.2 years, spread 16: standard error 16 / sqrt(400) = 0.8.
    assert abs(years.mean() - (18 + 80 * 3 / 5.2)) < 4 * 0.8
