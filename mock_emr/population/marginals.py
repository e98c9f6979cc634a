"""What kind of hospital it is: the numbers that set its marginals, once for the demo and once for a teaching hospital.

Where a number of `TEACHING_HOSPITAL` was set to meet a target, the target and its source stand in `targets.py`.
"""

from dataclasses import dataclass
from typing import Final

HOURS_PER_DAY: Final = 24.0

CENTRE: Final = (36.0, 12.0, 8.5, 225.0, 138.0, 4.1, 103.0, 25.2, 18.0, 0.95, 122.0, 8.7, 3.3, 1.95)
"""About the medians that the illness model gives, for each of `labs.ANALYTES`."""


@dataclass(frozen=True, kw_only=True)
class DrawKind:
    """One occasion for drawing blood.

    Args:
        panel_chance: chance of each panel of `labs.PANELS` at average severity.
        lead_minutes: median time from signing the order to the draw.
        lead_range_minutes: shortest and longest such time.
    """

    panel_chance: tuple[float, float, float]
    lead_minutes: float
    lead_range_minutes: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """When blood is drawn. Hours are local clock hours.

    Args:
        admission: the occasion soon after admission.
        morning: the occasion of the morning round.
        other: any other.
        morning_hour: mean, spread, earliest and latest hour of the morning round's draws.
        other_per_day: other occasions a day of stay.
        other_at_night: share of them that falls into the night.
        day_begins: hour from which other draws of the day are made; the day ends when the night begins.
        night_begins: first hour of the night.
        night_hours: how long the night lasts.
        turnaround_minutes: fastest and slowest time from draw to result, a pair for each of `labs.PANELS`.
    """

    admission: DrawKind
    morning: DrawKind
    other: DrawKind
    morning_hour: tuple[float, float, float, float]
    other_per_day: float
    other_at_night: float
    day_begins: float
    night_begins: float
    night_hours: float
    turnaround_minutes: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Marginals:
    """One hospital's numbers.

    Args:
        age_shape: both exponents of the beta distribution of age over 18 to 98 years.
        sex_shares: one share for each of `codes.SEXES`.
        race_shares: one share for each of `codes.RACES`.
        ethnicity_shares: one share for each of `codes.ETHNICITIES`.
        most_stays: of one patient in the period.
        front_load: exponent of the first admission's place in the period; above 1 leans to its front.
        stay_hours: median length of a stay, and the spread of its logarithm.
        gap_hours: median time from discharge to the next admission, and the spread of its logarithm.
        return_chance: of another stay at all, at average severity.
        death_chance: of dying in the last stay, at average severity.
        rounds: when blood is drawn.
        calcium_per_albumin: mg/dL of calcium that 1 g/dL of albumin binds.
        level: factor on the level of each of `labs.ANALYTES`.
        stretch: factor on how far values lie from ``centre``, on a logarithmic scale, for each of them. It widens or
            narrows a distribution and leaves correlations and persistence nearly as they were.
        centre: the value that stretching leaves where it is, for each of them.
    """

    age_shape: tuple[float, float]
    sex_shares: tuple[float, ...]
    race_shares: tuple[float, ...]
    ethnicity_shares: tuple[float, ...]
    most_stays: int
    front_load: float
    stay_hours: tuple[float, float]
    gap_hours: tuple[float, float]
    return_chance: float
    death_chance: float
    rounds: Rounds
    calcium_per_albumin: float
    level: tuple[float, ...]
    stretch: tuple[float, ...]
    centre: tuple[float, ...] = CENTRE


# A ward that a demo can show in ten weeks: many readmissions, first ones early, so that the census is level.
DEMO_WARD: Final = Marginals(
    age_shape=(3.0, 2.2),
    sex_shares=(0.51, 0.49),
    race_shares=(0.68, 0.19, 0.07, 0.06, 0.0, 0.0, 0.0),
    ethnicity_shares=(0.12, 0.84, 0.04),
    most_stays=3,
    front_load=1.2,
    stay_hours=(4.4 * HOURS_PER_DAY, 0.70),
    gap_hours=(13.0 * HOURS_PER_DAY, 0.8),
    return_chance=0.42,
    death_chance=0.007,
    rounds=Rounds(
        admission=DrawKind(panel_chance=(0.90, 0.94, 0.45), lead_minutes=20, lead_range_minutes=(3, 70)),
        morning=DrawKind(panel_chance=(0.55, 0.64, 0.42), lead_minutes=40, lead_range_minutes=(3, 115)),
        other=DrawKind(panel_chance=(0.66, 0.66, 0.30), lead_minutes=18, lead_range_minutes=(3, 80)),
        morning_hour=(5.0, 0.45, 4.0, 6.0),
        other_per_day=0.60,
        other_at_night=1 / 3,
        day_begins=6.0,
        night_begins=21.0,
        night_hours=7.0,
        turnaround_minutes=((26.0, 49.0), (42.0, 80.0), (42.0, 80.0)),
    ),
    calcium_per_albumin=0.55,
    level=(1.0,) * 14,
    stretch=(1.0,) * 14,
)

# Levels and stretches were fitted to the shares below and above the range, one analyte at a time, on 2,000 patients.
TEACHING_HOSPITAL: Final = Marginals(
    age_shape=(2.02, 1.92),
    sex_shares=(0.50, 0.50),
    race_shares=(0.50, 0.05, 0.18, 0.05, 0.005, 0.015, 0.20),
    ethnicity_shares=(0.17, 0.78, 0.05),
    most_stays=12,
    front_load=1.0,
    stay_hours=(3.6 * HOURS_PER_DAY, 0.80),
    gap_hours=(110.0 * HOURS_PER_DAY, 1.7),
    return_chance=0.65,
    death_chance=0.012,
    rounds=Rounds(
        admission=DrawKind(panel_chance=(0.90, 0.94, 0.60), lead_minutes=6, lead_range_minutes=(3, 12)),
        morning=DrawKind(panel_chance=(0.44, 0.58, 0.42), lead_minutes=6, lead_range_minutes=(3, 12)),
        other=DrawKind(panel_chance=(0.58, 0.77, 0.40), lead_minutes=6, lead_range_minutes=(3, 12)),
        morning_hour=(8.0, 0.5, 7.2, 9.5),
        other_per_day=0.85,
        other_at_night=0.65,
        day_begins=7.0,
        night_begins=19.0,
        night_hours=12.0,
        turnaround_minutes=((17.0, 44.0), (30.0, 79.0), (30.0, 79.0)),
    ),
    calcium_per_albumin=0.63,
    level=(0.991, 1.0, 0.987, 0.887, 1.0016, 0.9806, 1.0, 0.998, 0.945, 0.902, 1.0, 0.985, 0.9985, 0.957),
    stretch=(1.0, 1.0, 0.943, 1.134, 1.577, 1.405, 1.0, 1.689, 0.989, 1.0, 1.0, 1.651, 1.0, 1.673),
)
