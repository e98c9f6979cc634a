"""Named configurations, to start from."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from mock_emr.population.config import PopulationConfig
from mock_emr.population.marginals import TEACHING_HOSPITAL
from mock_emr.population.shift import SHIFTED

HOSPITAL: Final = PopulationConfig(marginals=TEACHING_HOSPITAL, patients=20_000, weeks=261)

PROFILES: Final[Mapping[str, PopulationConfig]] = MappingProxyType(
    {
        "plain": PopulationConfig(),
        "hospital": HOSPITAL,
        "shifted": replace(HOSPITAL, shift=SHIFTED),
    }
)
"""``plain``: the demo's ward, 400 patients in ten weeks. ``hospital``: a teaching hospital, 20,000 patients in five
years. ``shifted``: the same hospital behind an infrastructure that differs, `shift.SHIFTED`, for whose
weeks see `at_week`."""


def at_week(config: PopulationConfig, week: int) -> PopulationConfig:
    """Give the configuration with what changes in the course of time changing from a week on.

    Args:
        config: any.
        week: counted from the period's start, 0 the first; a trial's first prospective week.
    """
    return replace(config, shift=replace(config.shift, analyser_from_week=week, drift_from_week=week))
