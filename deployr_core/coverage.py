"""What a model must be told before it may score: declared in its bundle, decided here, answered as abstained.

An empty record is not a healthy patient, a child is not a small adult, and yesterday's chart is not today's. Corbin et
al. (2023), doi:10.1093/jamia/ocad114, advise to look at performance by the number of features that are present (their
figure S4, which the evaluation report draws): that is where `Requirements.features_present` is read off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import chain

import msgspec

from deployr_core.codes import Code
from deployr_core.declared import Statistic
from deployr_core.facts import PatientFacts
from deployr_core.features import CategoryGroup, FeatureSpec
from deployr_core.layout import ResultLayout, layout_of
from deployr_core.vectorize import FeatureVector


class Shortfall(StrEnum):
    """Why a model may not score; the values are reason codes of the glossary."""

    OUT_OF_COHORT = "out-of-cohort"
    STALE = "stale"
    SPARSE = "sparse"


class Requirements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Below any of these a model abstains; the defaults ask for nothing but an answer of the last five minutes.

    ``groups``: feature groups that must have at least one feature set. ``features_present``: how many features must
    be set, demographics not counted. ``newest_fact_hours``: how long ago, at most, the newest fact may have become
    known; the end is included. ``answer_age_s``: how old the EMR's own answer may be, where a cache or a replica owns
    up to it. ``age_at_least`` is included, ``age_below`` excluded, in completed years; with either, an unknown age is
    outside. ``visit_classes``: of which class the visit must be; then an unknown visit is outside.

    Raises:
        ValueError: a number below 0, or an empty range.
    """

    groups: tuple[str, ...] = ()
    features_present: int = 0
    newest_fact_hours: int | None = None
    answer_age_s: int = 300
    age_at_least: int | None = None
    age_below: int | None = None
    visit_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("features_present", "newest_fact_hours", "answer_age_s", "age_at_least", "age_below"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise ValueError(f"expected {name} of at least 0")
        if self.age_at_least is not None and self.age_below is not None and self.age_at_least >= self.age_below:
            raise ValueError("expected age_at_least below age_below")

    def expect_known_groups(self, spec: FeatureSpec) -> None:
        """Refuse requirements of groups that the declaration does not have, or that hold demographics.

        Raises:
            ValueError: the message names them.
        """
        known = {group.name for group in spec.groups if not isinstance(group, CategoryGroup)}
        unknown = sorted(set(self.groups) - known)
        if unknown:
            raise ValueError(f"expected required groups that the declaration has, got {', '.join(unknown)}")


def shortfall(
    requirements: Requirements,
    *,
    facts: PatientFacts,
    vector: FeatureVector,
    spec: FeatureSpec,
    as_of: datetime,
    visit_classes: tuple[Code, ...] = (),
    oldest_answer_s: float = 0.0,
) -> Shortfall | None:
    """Say which requirement is not met, who the patient is before how much is known; None if all are.

    Args:
        requirements: the bundle's.
        facts: what was fetched; only what was known strictly before ``as_of`` is looked at.
        vector: the features of these facts.
        spec: the fitted declaration.
        as_of: the instant that is scored.
        visit_classes: the classes of the visit that the event belongs to; empty if there is none.
        oldest_answer_s: how old the oldest of the EMR's answers was when it came, in seconds.
    """
    if not _in_cohort(requirements, facts, as_of, visit_classes):
        return Shortfall.OUT_OF_COHORT
    if oldest_answer_s > requirements.answer_age_s or not _fresh(requirements, facts, as_of):
        return Shortfall.STALE
    present = features_present(vector, spec)
    if sum(present.values()) < requirements.features_present or not all(
        present.get(name) for name in requirements.groups
    ):
        return Shortfall.SPARSE
    return None


def features_present(vector: FeatureVector, spec: FeatureSpec) -> Mapping[str, int]:
    """Count, per group but demographics, the features that something known has set; ``missing`` indicators are none."""
    telling, groups = _telling(spec)
    counts = dict.fromkeys(groups, 0)
    for column in vector.indices.tolist():
        if column in telling:
            counts[telling[column]] += 1
    return counts


@lru_cache(maxsize=64)
def _telling(spec: FeatureSpec) -> tuple[Mapping[int, str], tuple[str, ...]]:
    """Give the group of each column that is set by a fact, and these groups."""
    layout = layout_of(spec)
    silent = {
        analyte.columns[Statistic.MISSING]
        for group in layout.groups
        if isinstance(group, ResultLayout)
        for analyte in group.analytes
        if Statistic.MISSING in analyte.columns
    }
    windowed = {group.name for group in spec.groups if not isinstance(group, CategoryGroup)}
    named = enumerate(layout.groups_of)
    telling = {column: name for column, name in named if name in windowed and column not in silent}
    return telling, tuple(dict.fromkeys(telling.values()))


def _in_cohort(
    requirements: Requirements, facts: PatientFacts, as_of: datetime, visit_classes: tuple[Code, ...]
) -> bool:
    if requirements.age_at_least is not None or requirements.age_below is not None:
        born = facts.demographics.birth_date
        if born is None:
            return False
        age = born.age_in_years(as_of)
        if age < max(0, requirements.age_at_least or 0):
            return False
        if requirements.age_below is not None and age >= requirements.age_below:
            return False
    wanted = requirements.visit_classes
    return not wanted or any(code.value in wanted for code in visit_classes)


def _fresh(requirements: Requirements, facts: PatientFacts, as_of: datetime) -> bool:
    if requirements.newest_fact_hours is None:
        return True
    newest = max((known for known in _known(facts) if known < as_of), default=None)
    return newest is not None and as_of - newest <= timedelta(hours=requirements.newest_fact_hours)


def _known(facts: PatientFacts) -> Iterator[datetime]:
    dated = chain(
        facts.labs, facts.diagnoses, facts.medications, facts.vitals, facts.procedures, facts.orders, facts.visits
    )
    return (fact.known_at for fact in dated)
