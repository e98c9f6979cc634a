"""When the patients are in hospital."""

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Floats, Integers, Persons, Stays
from mock_emr.population.config import HOURS_PER_DAY, PopulationConfig

FIRST_VISIT_ID = 500_001
FIRST_CSN = 300_000_000
# A stay with less than this left in the period is not begun: it would hold no laboratory day.
SHORTEST_STAY_H = 18.0
LONGEST_STAY_H = 45.0 * HOURS_PER_DAY
DISCHARGE_HOUR, DISCHARGE_HOUR_SD = 14.0, 2.5


def draw_stays(persons: Persons, config: PopulationConfig, *, rng: Generator) -> Stays:
    """Draw each patient's stays, at least one, log-normal in length, longer and likelier for the more ill.

    First admissions lean to the front of the period, later ones follow a log-normal gap; one that would
    begin too near the period's end is not drawn. A stay still open at the period's end ends there. From the week of
    the drift on, admissions are as much shorter or longer as the configuration says.
    """
    period, marginals = config.period_hours, config.marginals
    (median_stay, stay_log_sd), (median_gap, gap_log_sd) = marginals.stay_hours, marginals.gap_hours
    again = marginals.return_chance
    drift_begins = float(config.hours(np.array(config.week_start(config.shift.drift_from_week))))
    drift = np.log(config.shift.drift_stay_factor)
    severity = persons.illness.mean(axis=1)
    admitted = (period - SHORTEST_STAY_H) * rng.random(len(persons)) ** marginals.front_load
    present = np.arange(len(persons))
    person_rows: list[Integers] = []
    starts: list[Floats] = []
    ends: list[Floats] = []
    for number in range(marginals.most_stays):
        length = np.exp(
            np.log(median_stay)
            + 0.15 * severity[present]
            + stay_log_sd * rng.standard_normal(len(present))
            + drift * (admitted >= drift_begins)
        )
        discharged = _by_daylight(
            admitted + np.clip(length, SHORTEST_STAY_H, LONGEST_STAY_H), admitted, config, rng=rng
        )
        person_rows.append(present)
        starts.append(admitted)
        ends.append(np.minimum(discharged, period))
        if number + 1 == marginals.most_stays:
            break
        gap = np.exp(np.log(median_gap) + gap_log_sd * rng.standard_normal(len(present)))
        chance = again / (again + (1 - again) * np.exp(-0.5 * severity[present]))
        returns = (rng.random(len(present)) < chance) & (discharged + gap < period - SHORTEST_STAY_H)
        present, admitted = present[returns], (discharged + gap)[returns]
    return _in_order(np.concatenate(person_rows), np.concatenate(starts), np.concatenate(ends), config, rng=rng)


def _by_daylight(discharged: Floats, admitted: Floats, config: PopulationConfig, *, rng: Generator) -> Floats:
    """Move discharges to the afternoon of their local day, never making a stay shorter than the shortest."""
    since_midnight = (config.local_start_hour + discharged) % HOURS_PER_DAY
    hour = np.clip(rng.normal(DISCHARGE_HOUR, DISCHARGE_HOUR_SD, len(discharged)), 8, 21)
    return np.asarray(np.maximum(discharged - since_midnight + hour, admitted + SHORTEST_STAY_H))


def _in_order(person_row: Integers, start: Floats, end: Floats, config: PopulationConfig, *, rng: Generator) -> Stays:
    """Number the stays by admission, and point each to its patient's stay before it."""
    order = np.argsort(start, kind="stable")
    person_row, start, end = person_row[order], start[order], end[order]
    by_person = np.lexsort((start, person_row))
    preceding = np.full(len(order), -1, dtype=np.int64)
    again = person_row[by_person][1:] == person_row[by_person][:-1]
    preceding[by_person[1:][again]] = by_person[:-1][again]
    return Stays(
        visit_id=FIRST_VISIT_ID + np.arange(len(order)),
        csn=FIRST_CSN + np.cumsum(rng.integers(1, 90, len(order))),
        person_row=person_row,
        start=config.instants(start),
        end=config.instants(end),
        preceding_row=preceding,
        died=np.zeros(len(order), dtype=bool),
    )
