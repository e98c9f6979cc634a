"""From a configuration to a population, purely: no clock, no disk, no randomness but the seed."""

import numpy as np

from mock_emr.population.chart import draw_conditions, draw_medications
from mock_emr.population.columns import Population
from mock_emr.population.config import PopulationConfig
from mock_emr.population.illness import stay_paths
from mock_emr.population.orders import draw_orders
from mock_emr.population.people import draw_persons
from mock_emr.population.results import draw_results
from mock_emr.population.stays import draw_stays


def generate(config: PopulationConfig) -> Population:
    """Give the population that ``config`` describes; equal configurations give equal populations.

    One seeded generator is split into a stream per component, so that a change in how, say, medications
    are drawn leaves every stay and every lab as it was.
    """
    people, visits, course, chart, pharmacy, ordering, laboratory = np.random.default_rng(config.seed).spawn(7)
    persons = draw_persons(config, rng=people)
    stays = draw_stays(persons, config, rng=visits)
    hours = config.hours(stays.end) - config.hours(stays.start)
    paths = stay_paths(persons.illness[stays.person_row], hours, rng=course)
    orders = draw_orders(stays, paths, config, rng=ordering)
    return Population(
        config=config,
        persons=persons,
        stays=stays,
        conditions=draw_conditions(persons, stays, paths, config, rng=chart),
        medications=draw_medications(stays, paths, config, rng=pharmacy),
        orders=orders,
        results=draw_results(orders, stays, persons, paths, config, rng=laboratory),
    )
