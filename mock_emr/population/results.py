"""What the laboratory finds: values that follow from illness, sex and the person, with measurement noise."""

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mock_emr.population.codes import FEMALE_ROW
from mock_emr.population.columns import (
    RESULT_AMENDED,
    RESULT_CORRECTED,
    RESULT_FINAL,
    Flags,
    Floats,
    Integers,
    LabOrders,
    LabResults,
    Persons,
    Stays,
)
from mock_emr.population.config import PopulationConfig
from mock_emr.population.illness import ANEMIA, CARDIAC, GLYCEMIC, INFLAMMATION, RENAL, IllnessPaths
from mock_emr.population.labs import (
    ALBUMIN,
    ANALYTES,
    CALCIUM,
    CARBON_DIOXIDE,
    CHLORIDE,
    CREATININE,
    GLUCOSE,
    HEMATOCRIT,
    HEMOGLOBIN,
    LEUKOCYTES,
    MAGNESIUM,
    PANELS,
    PLATELETS,
    POTASSIUM,
    SODIUM,
    UREA_NITROGEN,
)
from mock_emr.population.marginals import Marginals

FIRST_RESULT_ID = 1_000_001
HEMATOCRIT_PER_HEMOGLOBIN: Final = 3.03


def draw_results(
    orders: LabOrders,
    stays: Stays,
    persons: Persons,
    paths: IllnessPaths,
    config: PopulationConfig,
    *,
    rng: Generator,
) -> LabResults:
    """Draw the components of every order that was not cancelled."""
    habits = rng.standard_normal((len(persons), len(ANALYTES)))
    resulted = np.flatnonzero(~orders.cancelled)
    stay_row = orders.stay_row[resulted]
    person_row = stays.person_row[stay_row]
    female = persons.sex_row[person_row] == FEMALE_ROW
    since_admission = config.hours(orders.collected[resulted]) - config.hours(stays.start[stay_row])
    measured = measure(
        paths.at(stay_row, since_admission), female, habits[person_row], rng=rng, marginals=config.marginals
    )

    reported = _reported(orders.panel_row[resulted], config, rng=rng)
    among, analyte_row = _in_reporting_order(orders.panel_row[resulted], reported)
    value = measured[among, analyte_row]
    fate = rng.random(len(value))
    half = config.corrected_share / 2
    status = np.select([fate < half, fate < 2 * half], [RESULT_CORRECTED, RESULT_AMENDED], RESULT_FINAL)
    rangeless = rng.random(len(value)) < config.rangeless_share
    sex = np.where(female[among], 0, 1)
    low = np.array([analyte.low for analyte in ANALYTES])[analyte_row, sex]
    high = np.array([analyte.high for analyte in ANALYTES])[analyte_row, sex]
    return LabResults(
        result_id=FIRST_RESULT_ID + np.arange(len(value)),
        order_row=resulted[among],
        analyte_row=analyte_row,
        value=value,
        low=np.where(rangeless, np.nan, low),
        high=np.where(rangeless, np.nan, high),
        status=status.astype(np.int64),
    )


def measure(states: Floats, female: Flags, habits: Floats, *, rng: Generator, marginals: Marginals) -> Floats:
    """Give one draw's reported value of every analyte.

    Args:
        states: latent severities at the draw, shape (n_draws, n_axes).
        female: shape (n_draws,).
        habits: the person's standing deviation in units of each analyte's between-person spread,
            shape (n_draws, n_analytes).
        rng: where this draw's noise comes from.
        marginals: whose levels and spreads are meant.

    Returns:
        Shape (n_draws, n_analytes), rounded, in `ANALYTES` order.
    """
    between = np.array([analyte.between_cv for analyte in ANALYTES])
    within = np.array([analyte.within_cv for analyte in ANALYTES])
    factor = np.exp(between * habits + within * rng.standard_normal(habits.shape))
    level = np.array(marginals.level)
    values = _levels(states, female, marginals) * factor
    for row, (stretch, centre) in enumerate(zip(marginals.stretch, marginals.centre, strict=True)):
        if stretch != 1:
            values[:, row] = centre * (values[:, row] / centre) ** stretch
    values *= level
    # What is bound in the blood moves together: hematocrit follows the hemoglobin that was measured, and
    # chloride is what sodium, bicarbonate and the anion gap leave over.
    values[:, HEMATOCRIT] = HEMATOCRIT_PER_HEMOGLOBIN * values[:, HEMOGLOBIN] * factor[:, HEMATOCRIT]
    values[:, HEMATOCRIT] *= level[HEMATOCRIT]
    gap = 9.5 + 1.2 * np.maximum(states[:, RENAL], 0)
    values[:, CHLORIDE] = (values[:, SODIUM] - values[:, CARBON_DIOXIDE] - gap) * factor[:, CHLORIDE] * level[CHLORIDE]
    floors = np.array([analyte.floor for analyte in ANALYTES])
    ceilings = np.array([analyte.ceiling for analyte in ANALYTES])
    values = np.clip(values, floors, ceilings)
    return np.stack([np.round(values[:, row], analyte.decimals) for row, analyte in enumerate(ANALYTES)], axis=1)


def _levels(states: Floats, female: Flags, marginals: Marginals) -> Floats:
    """Give the level of each analyte that illness and sex imply, shape (n_draws, n_analytes).

    Slopes are chosen so that an average inpatient lies a little below the ranges for red cells and near the
    middle of the others, with the tails of an acute hospital.
    """
    anemia, renal, inflammation, glycemic, cardiac = states[:, [ANEMIA, RENAL, INFLAMMATION, GLYCEMIC, CARDIAC]].T
    levels = np.empty((len(states), len(ANALYTES)))
    levels[:, HEMOGLOBIN] = np.where(female, 11.15 - 1.30 * anemia, 12.75 - 1.50 * anemia)
    levels[:, HEMOGLOBIN] = np.maximum(levels[:, HEMOGLOBIN], 4.5)
    levels[:, HEMATOCRIT] = HEMATOCRIT_PER_HEMOGLOBIN * levels[:, HEMOGLOBIN]
    levels[:, LEUKOCYTES] = np.exp(np.log(8.0) + 0.28 * inflammation)
    levels[:, PLATELETS] = np.exp(np.log(225.0) + 0.10 * inflammation + 0.03 * anemia)
    levels[:, SODIUM] = 138.6 - 1.2 * cardiac - 0.5 * inflammation
    levels[:, POTASSIUM] = 4.02 + 0.20 * renal + 0.07 * np.maximum(renal, 0) ** 2 - 0.08 * cardiac
    levels[:, CARBON_DIOXIDE] = 25.6 - 1.5 * renal - 0.5 * inflammation + 0.9 * cardiac
    levels[:, CHLORIDE] = levels[:, SODIUM] - levels[:, CARBON_DIOXIDE] - 9.5
    levels[:, UREA_NITROGEN] = np.exp(np.log(17.0) + 0.42 * renal + 0.08 * cardiac)
    clearance_loss = 0.30 * renal + 0.09 * np.maximum(renal, 0) ** 2
    levels[:, CREATININE] = np.where(female, 0.78, 0.98) * np.exp(clearance_loss)
    levels[:, GLUCOSE] = np.exp(np.log(120.0) + 0.22 * glycemic + 0.04 * inflammation)
    levels[:, ALBUMIN] = 3.4 - 0.30 * inflammation - 0.12 * anemia
    levels[:, CALCIUM] = 8.75 + marginals.calcium_per_albumin * (levels[:, ALBUMIN] - 3.4)
    levels[:, MAGNESIUM] = 1.93 + 0.10 * renal - 0.05 * cardiac
    return levels


def _reported(panel_row: Integers, config: PopulationConfig, *, rng: Generator) -> NDArray[np.bool_]:
    """Decide which analytes come back, shape (n_orders, n_analytes).

    A panel of one component always comes back, and so does the first of a panel that would lose all: a
    resulted order without any result would be another kind of fact.
    """
    belongs = np.array([[row in panel.analyte_rows for row in range(len(ANALYTES))] for panel in PANELS])
    size = np.array([len(panel.analyte_rows) for panel in PANELS])
    first = np.array([panel.analyte_rows[0] for panel in PANELS])
    present = belongs[panel_row]
    lost = (rng.random(present.shape) < config.missing_component_share) & (size[panel_row] > 1)[:, np.newaxis]
    kept = np.asarray(present & ~lost)
    empty = np.flatnonzero(~kept.any(axis=1))
    kept[empty, first[panel_row[empty]]] = True
    return kept


def _in_reporting_order(panel_row: Integers, reported: Flags) -> tuple[Integers, Integers]:
    """List (row among the orders, analyte row) of everything reported, as each panel lists its components."""
    among, analyte_row = np.nonzero(reported)
    rank = np.array(
        [
            [panel.analyte_rows.index(row) if row in panel.analyte_rows else -1 for row in range(len(ANALYTES))]
            for panel in PANELS
        ]
    )
    order = np.lexsort((rank[panel_row[among], analyte_row], among))
    return among[order], analyte_row[order]
