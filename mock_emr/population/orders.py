"""Which laboratory orders are signed when, drawn when and resulted when."""

from typing import Final

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Floats, Instants, Integers, LabOrders, Stays
from mock_emr.population.config import HOURS_PER_DAY, PopulationConfig
from mock_emr.population.illness import ANEMIA, CARDIAC, GLYCEMIC, INFLAMMATION, RENAL, IllnessPaths, chance
from mock_emr.population.marginals import DrawKind

FIRST_ORDER_ID = 100_001
MINUTE_H: Final = 1 / 60


# Which axes make which panel likelier: sicker patients are drawn more often, as on a ward.
PANEL_AXES: Final = ((ANEMIA, INFLAMMATION), (RENAL, GLYCEMIC, CARDIAC), (RENAL, CARDIAC))
SEVERITY_WEIGHT: Final = 0.30


def draw_orders(stays: Stays, paths: IllnessPaths, config: PopulationConfig, *, rng: Generator) -> LabOrders:
    """Draw every laboratory order of every stay, in order of signing.

    Panels drawn on one occasion share the draw. An order whose result would come after the period's
    end is left out, for the extract could not know how it came out.
    """
    start, end = config.hours(stays.start), config.hours(stays.end)
    rounds = config.marginals.rounds
    occasions = (
        (rounds.admission, _admission_draws(start, rng=rng)),
        (rounds.morning, _morning_draws(start, end, config, rng=rng)),
        (rounds.other, _other_draws(start, end, config, rng=rng)),
    )
    parts = [_panels(kind, stay_row, drawn, start, paths, config, rng=rng) for kind, (stay_row, drawn) in occasions]
    stay_row, panel_row = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    ordered, collected, resulted = (np.concatenate([part[column] for part in parts]) for column in (2, 3, 4))

    kept = (collected < stays.end[stay_row]) & (resulted < config.end_instant)
    order = np.lexsort((panel_row, ordered))
    order = order[kept[order]]
    cancelled = rng.random(len(order)) < config.cancelled_share
    never = np.datetime64("NaT", "s")
    return LabOrders(
        order_id=FIRST_ORDER_ID + np.arange(len(order)),
        stay_row=stay_row[order],
        panel_row=panel_row[order],
        ordered=ordered[order],
        collected=np.where(cancelled, never, collected[order]),
        resulted=np.where(cancelled, never, resulted[order]),
    )


def _admission_draws(start: Floats, *, rng: Generator) -> tuple[Integers, Floats]:
    """One occasion a stay, half an hour to three hours after admission."""
    return np.arange(len(start)), start + rng.uniform(0.5, 3.0, len(start))


def _morning_draws(start: Floats, end: Floats, config: PopulationConfig, *, rng: Generator) -> tuple[Integers, Floats]:
    """One occasion each local morning, from three hours after admission on."""
    mean, spread, earliest, latest = config.marginals.rounds.morning_hour
    midnight = np.floor((start + config.local_start_hour) / HOURS_PER_DAY) * HOURS_PER_DAY - config.local_start_hour
    days = np.ceil((end - midnight) / HOURS_PER_DAY).astype(np.int64)
    stay_row = np.repeat(np.arange(len(start)), days)
    day = np.arange(len(stay_row)) - np.repeat(np.cumsum(days) - days, days)
    hour = np.clip(rng.normal(mean, spread, len(stay_row)), earliest, latest)
    drawn = midnight[stay_row] + HOURS_PER_DAY * day + hour
    inside = (drawn > start[stay_row] + 3) & (drawn < end[stay_row])
    return stay_row[inside], drawn[inside]


def _other_draws(start: Floats, end: Floats, config: PopulationConfig, *, rng: Generator) -> tuple[Integers, Floats]:
    """Occasions at any hour of the day or of the night, by the share of each."""
    rounds = config.marginals.rounds
    counts = rng.poisson(rounds.other_per_day * (end - start) / HOURS_PER_DAY)
    stay_row = np.repeat(np.arange(len(start)), counts)
    moment = start[stay_row] + rng.random(len(stay_row)) * (end - start)[stay_row]
    midnight = moment - (moment + config.local_start_hour) % HOURS_PER_DAY
    at_night = rng.random(len(stay_row)) < rounds.other_at_night
    share = rng.random(len(stay_row))
    by_day = rounds.day_begins + share * (rounds.night_begins - rounds.day_begins)
    by_night = (rounds.night_begins + share * rounds.night_hours) % HOURS_PER_DAY
    drawn = midnight + np.where(at_night, by_night, by_day)
    inside = (drawn > start[stay_row] + 3) & (drawn < end[stay_row])
    return stay_row[inside], drawn[inside]


def _panels(
    kind: DrawKind,
    stay_row: Integers,
    drawn: Floats,
    start: Floats,
    paths: IllnessPaths,
    config: PopulationConfig,
    *,
    rng: Generator,
) -> tuple[Integers, Integers, Instants, Instants, Instants]:
    """Choose the panels of each occasion, and give stay, panel, ordered, collected and resulted of each."""
    since_admission = drawn - start[stay_row]
    states = paths.at(stay_row, since_admission)
    severity = np.stack([states[:, axes].mean(axis=1) for axes in PANEL_AXES], axis=1)
    wanted = rng.random(severity.shape) < chance(np.array(kind.panel_chance), SEVERITY_WEIGHT * severity)
    lead = kind.lead_minutes * np.exp(0.6 * rng.standard_normal(len(drawn)))
    lead = np.clip(lead, *kind.lead_range_minutes)
    lead = np.minimum(lead, since_admission / MINUTE_H - 1)
    occasion, panel_row = np.nonzero(wanted)

    collected = config.instants(drawn)[occasion].astype("datetime64[m]").astype("datetime64[s]")
    # Each panel of an order set is signed within the next half minute; the lead is never that short.
    signing = rng.uniform(0, 30, len(occasion)) / 3600
    ordered = config.instants(drawn[occasion] - lead[occasion] * MINUTE_H + signing)
    fastest, slowest = np.array(config.marginals.rounds.turnaround_minutes)[panel_row].T
    minutes = fastest + (slowest - fastest) * rng.beta(2, 2, len(occasion))
    resulted = collected + (minutes * 60).astype("timedelta64[s]")
    return stay_row[occasion], panel_row, ordered, collected, resulted
