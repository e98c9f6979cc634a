"""Who the patients are: demographics and persistent illness."""

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Floats, Integers, Persons
from mock_emr.population.config import HOURS_PER_DAY, PopulationConfig
from mock_emr.population.illness import persistent_illness

DAYS_PER_YEAR = 365.25


def draw_persons(config: PopulationConfig, *, rng: Generator) -> Persons:
    """Draw adult inpatients, 18 to 98 years old at the period's start."""
    marginals = config.marginals
    age_years = 18 + 80 * rng.beta(*marginals.age_shape, config.patients)
    first_day = config.local(np.array([config.start_instant])).astype("datetime64[D]")
    # Rounding away from the birthday keeps the youngest at 18 or above.
    born = first_day - np.ceil(age_years * DAYS_PER_YEAR).astype("timedelta64[D]")
    return Persons(
        person_id=np.arange(1, config.patients + 1),
        birth_date=born,
        sex_row=_categories(marginals.sex_shares, config.patients, rng=rng),
        race_row=_categories(marginals.race_shares, config.patients, rng=rng),
        ethnicity_row=_categories(marginals.ethnicity_shares, config.patients, rng=rng),
        illness=persistent_illness(age_years, rng=rng),
    )


def age_years(persons: Persons, config: PopulationConfig) -> Floats:
    """Give each patient's age in years at the period's start."""
    hours = -config.hours(persons.birth_date.astype("datetime64[s]"))
    return hours / HOURS_PER_DAY / DAYS_PER_YEAR


def _categories(shares: tuple[float, ...], size: int, *, rng: Generator) -> Integers:
    """Draw rows of a catalogue by their shares."""
    weights = np.array(shares)
    return rng.choice(len(weights), size=size, p=weights / weights.sum())
