"""Which laboratory orders are signed when, drawn when and resulted when."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from mock_emr.population.columns import Floats, Instants, Integers, LabOrders, Stays
from mock_emr.population.config import HOURS_PER_DAY, PopulationConfig
from mock_emr.population.illness import ANEMIA, CARDIAC, GLYCEMIC, INFLAMMATION, RENAL, IllnessPaths, chance
from mock_emr.population.labs import PANELS

FIRST_ORDER_ID = 100_001
MINUTE_H: Final = 1 / 60


@dataclass(frozen=True, kw_only=True)
class DrawKind:
    """One occasion for drawing blood.

    Args:
        panel_chance: chance of each panel of `PANELS` at average severity.
        lead_minutes: median time from signing the order to the draw.
        lead_range_minutes: shortest and longest such time.
    """

    panel_chance: tuple[float, ...]
    lead_minutes: float
    lead_range_minutes: tuple[float, float]


ADMISSION: Final = DrawKind(panel_chance=(0.90, 0.94, 0.45), lead_minutes=20, lead_range_minutes=(3, 70))
MORNING: Final = DrawKind(panel_chance=(0.55, 0.64, 0.42), lead_minutes=40, lead_range_minutes=(3, 115))
OTHER: Final = DrawKind(panel_chance=(0.66, 0.66, 0.30), lead_minutes=18, lead_range_minutes=(3, 80))
OTHER_PER_DAY: Final = 0.60
OTHER_AT_NIGHT: Final = 1 / 3
NIGHT_BEGINS, NIGHT_HOURS = 21.0, 7.0
MORNING_HOUR, MORNING_HOUR_SD, MORNING_FROM, MORNING_TO = 5.0, 0.45, 4.0, 6.0
# Which axes make which panel likelier: sicker patients are drawn more often, as on a ward.
PANEL_AXES: Final = ((ANEMIA, INFLAMMATION), (RENAL, GLYCEMIC, CARDIAC), (RENAL, CARDIAC))
SEVERITY_WEIGHT: Final = 0.30


def draw_orders(stays: Stays, paths: IllnessPaths, config: PopulationConfig, *, rng: Generator) -> LabOrders:
    """Draw every laboratory order of every stay, in order of signing.

    Panels drawn on one occasion share the draw. An order whose result would come after the period's
    end is left out, for the extract could not know how it came out.
    """
    start, end = config.hours(stays.start), config.hours(stays.end)
    occasions = (
        (ADMISSION, _admission_draws(start, rng=rng)),
        (MORNING, _morning_draws(start, end, config, rng=rng)),
        (OTHER, _other_draws(start, end, config, rng=rng)),
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
    """One occasion each local morning, 04:00 to 06:00, from three hours after admission on."""
    midnight = np.floor((start + config.local_start_hour) / HOURS_PER_DAY) * HOURS_PER_DAY - config.local_start_hour
    days = np.ceil((end - midnight) / HOURS_PER_DAY).astype(np.int64)
    stay_row = np.repeat(np.arange(len(start)), days)
    day = np.arange(len(stay_row)) - np.repeat(np.cumsum(days) - days, days)
    hour = np.clip(rng.normal(MORNING_HOUR, MORNING_HOUR_SD, len(stay_row)), MORNING_FROM, MORNING_TO)
    drawn = midnight[stay_row] + HOURS_PER_DAY * day + hour
    inside = (drawn > start[stay_row] + 3) & (drawn < end[stay_row])
    return stay_row[inside], drawn[inside]


def _other_draws(start: Floats, end: Floats, config: PopulationConfig, *, rng: Generator) -> tuple[Integers, Floats]:
    """Occasions at any hour but the morning round's, a third of them from 21:00 to 04:00."""
    counts = rng.poisson(OTHER_PER_DAY * (end - start) / HOURS_PER_DAY)
    stay_row = np.repeat(np.arange(len(start)), counts)
    moment = start[stay_row] + rng.random(len(stay_row)) * (end - start)[stay_row]
    midnight = moment - (moment + config.local_start_hour) % HOURS_PER_DAY
    at_night = rng.random(len(stay_row)) < OTHER_AT_NIGHT
    share = rng.random(len(stay_row))
    by_day = MORNING_TO + share * (NIGHT_BEGINS - MORNING_TO)
    by_night = (NIGHT_BEGINS + share * NIGHT_HOURS) % HOURS_PER_DAY
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
    fastest, slowest = (np.array([panel.turnaround_minutes[end] for panel in PANELS])[panel_row] for end in (0, 1))
    minutes = fastest + (slowest - fastest) * rng.beta(2, 2, len(occasion))
    resulted = collected + (minutes * 60).astype("timedelta64[s]")
    return stay_row[occasion], panel_row, ordered, collected, resulted
