"""What clinicians write down: problem lists, encounter diagnoses and medication orders, as illness shows itself."""

from typing import Final

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Conditions, Flags, Floats, Instants, Integers, Medications, Persons, Stays
from mock_emr.population.config import HOURS_PER_DAY, PopulationConfig
from mock_emr.population.diagnoses import DIAGNOSES
from mock_emr.population.drugs import DRUGS
from mock_emr.population.illness import IllnessPaths, chance, loading_matrix

# How long before the first admission of the period a problem was listed: at least, on average beyond that,
# at most. The last keeps problems of the youngest within their lifetime.
PROBLEM_AGE_DAYS: Final = (5.0, 700.0, 4000.0)
OFFICE_OPENS, OFFICE_CLOSES = 8.0, 18.0
# Median hours from admission to charting. Chronic illness is copied in with the admission note.
CHRONIC_CHARTED_H, ACUTE_CHARTED_H, CHARTED_LOG_SD = 5.0, 16.0, 1.0
# A listed problem is charted again far more readily than an unlisted one is discovered; in log odds.
LISTED, UNLISTED = 1.6, -1.2
ADMISSION_ORDERS_H, ADMISSION_ORDERS_LOG_SD = 2.5, 0.9
LATER_ORDERS: Final = -0.9
COURSE_LOG_SD: Final = 0.6


def draw_conditions(
    persons: Persons, stays: Stays, paths: IllnessPaths, config: PopulationConfig, *, rng: Generator
) -> Conditions:
    """Draw problem lists, which stand before the first stay, and what each stay adds.

    An encounter diagnosis depends on how ill the patient is at the moment of charting, not on the labs.
    """
    listed = _listed(persons, rng=rng)
    problem_person, problem_diagnosis = np.nonzero(listed)
    listing = _listing_instants(problem_person, persons, stays, config, rng=rng)
    stay_row, diagnosis_row, charted = _charted(listed, stays, paths, config, rng=rng)

    recorded = np.concatenate([listing, charted])
    diagnoses = np.concatenate([problem_diagnosis, diagnosis_row])
    order = np.lexsort((diagnoses, recorded))
    return Conditions(
        condition_id=1 + np.arange(len(order)),
        person_row=np.concatenate([problem_person, stays.person_row[stay_row]])[order],
        stay_row=np.concatenate([np.full(len(problem_person), -1), stay_row])[order],
        diagnosis_row=diagnoses[order],
        recorded=recorded[order],
    )


def draw_medications(stays: Stays, paths: IllnessPaths, config: PopulationConfig, *, rng: Generator) -> Medications:
    """Draw medication orders at two opportunities a drug: the admission orders, and one later in the stay."""
    shape = (len(stays), len(DRUGS))
    length = _lengths(stays, config)
    admission = ADMISSION_ORDERS_H * np.exp(ADMISSION_ORDERS_LOG_SD * rng.standard_normal(shape))
    later = rng.random(shape) * length[:, np.newaxis]
    prevalence = np.array([drug.prevalence for drug in DRUGS])
    weights = loading_matrix(tuple(drug.loading for drug in DRUGS))
    nothing = np.zeros(shape)
    found = [
        _emerging(moment, prevalence, weights, nothing + shift, length, paths, rng=rng)
        for moment, shift in ((admission, 0.0), (later, LATER_ORDERS))
    ]
    stay_row, drug_row, hours = (np.concatenate([part[column] for part in found]) for column in (0, 1, 2))

    course = np.array([drug.course_days for drug in DRUGS])[drug_row] * HOURS_PER_DAY
    course = course * np.exp(COURSE_LOG_SD * rng.standard_normal(len(course)))
    stopped = hours + course >= length[stay_row]
    ordered = config.instants(config.hours(stays.start)[stay_row] + hours)
    ended = config.instants(config.hours(stays.start)[stay_row] + hours + course)
    ended = np.where(stopped, stays.end[stay_row], ended)
    order = np.lexsort((drug_row, ordered))
    return Medications(
        medication_id=1 + np.arange(len(order)),
        stay_row=stay_row[order],
        drug_row=drug_row[order],
        ordered=ordered[order],
        ended=ended[order],
        stopped=stopped[order],
    )


def _listed(persons: Persons, *, rng: Generator) -> Flags:
    """Decide who has which chronic diagnosis on the problem list, shape (n_persons, n_diagnoses)."""
    prevalence = np.array([diagnosis.prevalence for diagnosis in DIAGNOSES])
    chronic = np.array([diagnosis.chronic for diagnosis in DIAGNOSES])
    score = persons.illness @ loading_matrix(tuple(diagnosis.loading for diagnosis in DIAGNOSES)).T
    return np.asarray((rng.random(score.shape) < chance(prevalence, score)) & chronic)


def _listing_instants(
    person_row: Integers, persons: Persons, stays: Stays, config: PopulationConfig, *, rng: Generator
) -> Instants:
    """Draw when each problem was listed: in office hours, days to years before the first stay."""
    first_admission = np.full(len(persons), np.inf)
    np.minimum.at(first_admission, stays.person_row, config.hours(stays.start))
    least, mean, most = PROBLEM_AGE_DAYS
    days = np.minimum(least + mean * rng.standard_exponential(len(person_row)), most)
    moment = first_admission[person_row] - HOURS_PER_DAY * days
    midnight = moment - (moment + config.local_start_hour) % HOURS_PER_DAY
    return config.instants(midnight + rng.uniform(OFFICE_OPENS, OFFICE_CLOSES, len(person_row)))


def _charted(
    listed: Flags, stays: Stays, paths: IllnessPaths, config: PopulationConfig, *, rng: Generator
) -> tuple[Integers, Integers, Instants]:
    """Draw encounter diagnoses as (stay row, diagnosis row, instant)."""
    chronic = np.array([diagnosis.chronic for diagnosis in DIAGNOSES])
    prevalence = np.array([diagnosis.prevalence for diagnosis in DIAGNOSES])
    weights = loading_matrix(tuple(diagnosis.loading for diagnosis in DIAGNOSES))
    median = np.where(chronic, CHRONIC_CHARTED_H, ACUTE_CHARTED_H)
    shape = (len(stays), len(DIAGNOSES))
    moment = median * np.exp(CHARTED_LOG_SD * rng.standard_normal(shape))
    shift = np.where(chronic, np.where(listed[stays.person_row], LISTED, UNLISTED), 0.0)
    stay_row, diagnosis_row, hours = _emerging(
        moment, prevalence, weights, shift, _lengths(stays, config), paths, rng=rng
    )
    return stay_row, diagnosis_row, config.instants(config.hours(stays.start)[stay_row] + hours)


def _emerging(
    moment: Floats,
    prevalence: Floats,
    weights: Floats,
    shift: Floats,
    length: Floats,
    paths: IllnessPaths,
    *,
    rng: Generator,
) -> tuple[Integers, Integers, Floats]:
    """Let items emerge from illness at candidate moments.

    Args:
        moment: hours after admission at which each item might be written, shape (n_stays, n_items).
        prevalence: chance at average severity, shape (n_items,).
        weights: log odds per standard deviation, shape (n_items, n_axes).
        shift: log odds added, shape (n_stays, n_items).
        length: of each stay, hours; a moment at or after it never comes.
        paths: severity during the stays.
        rng: where the draws come from.

    Returns:
        Stay row, item row and hours after admission of what was written.
    """
    luck = rng.random(moment.shape)
    stay_row, item_row = np.nonzero(moment < length[:, np.newaxis])
    hours = moment[stay_row, item_row]
    score = np.einsum("na,na->n", paths.at(stay_row, hours), weights[item_row]) + shift[stay_row, item_row]
    written = luck[stay_row, item_row] < chance(prevalence[item_row], score)
    return stay_row[written], item_row[written], hours[written]


def _lengths(stays: Stays, config: PopulationConfig) -> Floats:
    """Give each stay's length in hours."""
    return np.asarray(config.hours(stays.end) - config.hours(stays.start))
