"""Where patients lie, and how a stay ends: wards by what the illness is about, intensive care and death by how bad."""

from typing import Final

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Flags, Moves, Population, Stays
from mock_emr.population.config import PopulationConfig
from mock_emr.population.illness import IllnessPaths, chance, loading_matrix
from mock_emr.population.wards import WARDS

INTENSIVE: Final = 0
# Chance at average severity, change of its log odds per standard deviation, median hours and spread of the logarithm.
INTENSIVE_CHANCE: Final = 0.10
INTENSIVE_LOADING: Final = {"inflammation": 0.8, "cardiac": 0.5, "renal": 0.3}
INTENSIVE_HOURS, INTENSIVE_LOG_SD = 40.0, 0.7
DEATH_LOADING: Final = {"inflammation": 0.9, "cardiac": 0.5, "renal": 0.4, "anemia": 0.3}


def draw_moves(stays: Stays, paths: IllnessPaths, *, rng: Generator) -> Moves:
    """Draw one ward a stay, and for some intensive care before it. Moves of a stay abut and fill it."""
    rows = np.arange(len(stays))
    states = paths.at(rows, np.zeros(len(stays)))
    weights = np.array([ward.weight for ward in WARDS])
    pull = weights * np.exp(states @ loading_matrix(tuple(ward.loading for ward in WARDS)).T)
    edges = np.cumsum(pull, axis=1)
    ward = (rng.random(len(stays))[:, np.newaxis] * edges[:, -1:] >= edges).sum(axis=1)
    score = states @ loading_matrix((INTENSIVE_LOADING,))[0]
    begins_there = rng.random(len(stays)) < chance(np.full(len(stays), INTENSIVE_CHANCE), score)
    hours = INTENSIVE_HOURS * np.exp(INTENSIVE_LOG_SD * rng.standard_normal(len(stays)))
    left = np.minimum(stays.start + (hours * 3600).astype("timedelta64[s]"), stays.end)
    stays_on = ~begins_there | (left < stays.end)

    stay_row = np.concatenate([rows[begins_there], rows[stays_on]])
    start = np.concatenate([stays.start[begins_there], np.where(begins_there, left, stays.start)[stays_on]])
    end = np.concatenate([left[begins_there], stays.end[stays_on]])
    ward_row = np.concatenate([np.full(int(begins_there.sum()), INTENSIVE), ward[stays_on]])
    order = np.lexsort((start, stay_row))
    return Moves(
        move_id=1 + np.arange(len(order)),
        stay_row=stay_row[order],
        ward_row=ward_row[order],
        start=start[order],
        end=end[order],
    )


def draw_deaths(stays: Stays, paths: IllnessPaths, config: PopulationConfig, *, rng: Generator) -> Flags:
    """Decide which stays end in death: of each patient's last, those that ended within the period, by severity then.

    Nobody dies at home here, for nothing would tell of it.
    """
    length = config.hours(stays.end) - config.hours(stays.start)
    score = paths.at(np.arange(len(stays)), length) @ loading_matrix((DEATH_LOADING,))[0]
    last = np.ones(len(stays), dtype=bool)
    last[stays.preceding_row[stays.preceding_row >= 0]] = False
    fated = rng.random(len(stays)) < chance(np.full(len(stays), config.marginals.death_chance), score)
    return np.asarray(fated & last & (stays.end < config.end_instant))


def dispositions(population: Population) -> list[str]:
    """Say where each stay's patient went: ``exp``, ``home``, or nothing where the period ended before the stay did.

    Source: http://terminology.hl7.org/CodeSystem/discharge-disposition.
    """
    stays = population.stays
    left = np.where(stays.end < population.config.end_instant, "home", "")
    return [str(said) for said in np.where(stays.died, "exp", left).tolist()]
