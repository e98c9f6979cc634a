"""From a configuration to a population, purely: no clock, no disk, no randomness but the seed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from mock_emr.population.chart import draw_conditions, draw_medications
from mock_emr.population.columns import Floats, Persons, Population, Stays
from mock_emr.population.config import PopulationConfig
from mock_emr.population.illness import stay_paths
from mock_emr.population.orders import draw_orders
from mock_emr.population.people import draw_persons
from mock_emr.population.places import draw_deaths, draw_moves
from mock_emr.population.results import draw_results
from mock_emr.population.stays import draw_stays

BLOCK: Final = 2_000
"""Patients that are drawn together. It belongs to what a population is: another size would be other patients."""

_IDS_A_BLOCK: Final = 10_000_000


def generate(config: PopulationConfig) -> Population:
    """Give the population that ``config`` describes, if it is one block; equal configurations give equal populations.

    Raises:
        ValueError: more patients than `BLOCK`, which `write_population` writes block by block.
    """
    if config.patients > BLOCK:
        raise ValueError(f"expected at most {BLOCK} patients at once, got {config.patients}: use write_population")
    return generate_block(config, 0)


def block_count(config: PopulationConfig) -> int:
    """Count the blocks that a configuration's patients are drawn in."""
    return -(-config.patients // BLOCK)


def blocks(config: PopulationConfig) -> Iterator[Population]:
    """Give a population block by block: one at a time in memory, if the caller keeps none."""
    return (generate_block(config, block) for block in range(block_count(config)))


def generate_block(config: PopulationConfig, block: int) -> Population:
    """Give the patients of one block, whatever the others are; ids of different blocks differ.

    One seeded generator a block is split into a stream per component, so that a change in how, say, medications
    are drawn leaves every stay and every lab as it was.

    Args:
        config: of the whole population.
        block: 0 or more, less than `block_count`.
    """
    whole, config = config, replace(config, patients=min(BLOCK, config.patients - block * BLOCK))
    seed = [whole.seed, block] if block else whole.seed
    people, visits, course, chart, pharmacy, ordering, laboratory, places, fates = np.random.default_rng(seed).spawn(9)
    persons = draw_persons(config, rng=people)
    stays = draw_stays(persons, config, rng=visits)
    hours = config.hours(stays.end) - config.hours(stays.start)
    paths = stay_paths(_illness_of_stays(persons, stays, config), hours, rng=course)
    stays = replace(stays, died=draw_deaths(stays, paths, config, rng=fates))
    orders = draw_orders(stays, paths, config, rng=ordering)
    drawn = Population(
        config=config,
        persons=persons,
        stays=stays,
        moves=draw_moves(stays, paths, rng=places),
        conditions=draw_conditions(persons, stays, paths, config, rng=chart),
        medications=draw_medications(stays, paths, config, rng=pharmacy),
        orders=orders,
        results=draw_results(orders, stays, persons, paths, config, rng=laboratory),
    )
    return _numbered(drawn, block) if block else drawn


def _illness_of_stays(persons: Persons, stays: Stays, config: PopulationConfig) -> Floats:
    """Give how ill each stay's patient is, with the drift of the case mix, shape (n_stays, n_axes)."""
    illness = persons.illness[stays.person_row]
    drifted = stays.start >= config.week_start(config.shift.drift_from_week)
    return np.asarray(illness + config.shift.drift_severity * drifted[:, np.newaxis])


def _numbered(drawn: Population, block: int) -> Population:
    """Give the same block with ids that no other block has."""
    first = block * _IDS_A_BLOCK
    return replace(
        drawn,
        persons=replace(drawn.persons, person_id=drawn.persons.person_id + block * BLOCK),
        stays=replace(drawn.stays, visit_id=drawn.stays.visit_id + first, csn=drawn.stays.csn + first),
        moves=replace(drawn.moves, move_id=drawn.moves.move_id + first),
        conditions=replace(drawn.conditions, condition_id=drawn.conditions.condition_id + first),
        medications=replace(drawn.medications, medication_id=drawn.medications.medication_id + first),
        orders=replace(drawn.orders, order_id=drawn.orders.order_id + first),
        results=replace(drawn.results, result_id=drawn.results.result_id + first),
    )
