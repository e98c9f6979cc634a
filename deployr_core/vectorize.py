"""The reference engine: one patient's facts, as of one instant, to the features a model was promised.

This is the definition that every other engine is held to. It is written to be read first and to be fast second.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from deployr_core.codes import OMB_RACE_ETHNICITY, Code
from deployr_core.facts import Demographics, Diagnosis, Lab, Medication, PatientFacts
from deployr_core.features import (
    AgeGroup,
    CountKind,
    DiagnosisGroup,
    FeatureSpec,
    LabStatistic,
    RaceGroup,
    SexGroup,
)
from deployr_core.layout import (
    AnalyteLayout,
    CategoryLayout,
    CodeLayout,
    LabLayout,
    grouped_code,
    layout_of,
)
from deployr_core.units import MILLION, canonical_value


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeatureVector:
    """One row of features, without its zeros.

    ``indices``: int32, ascending, shape (n_nonzero,). ``values``: float64, shape (n_nonzero,), none of them 0.
    ``coverage`` counts, per group, what was seen and what could not be used: keys such as ``labs.results``,
    ``labs.unit_not_convertible``, ``problem_list.not_mapped``; never a value of a patient's.
    """

    spec_digest: str
    size: int
    indices: NDArray[np.int32] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    coverage: Mapping[str, int]

    def __eq__(self, other: object) -> bool:
        """Equal means the same declaration and the same bits; coverage is about the source, not the vector."""
        return (
            isinstance(other, FeatureVector)
            and (self.spec_digest, self.size) == (other.spec_digest, other.size)
            and np.array_equal(self.indices, other.indices)
            and self.values.tobytes() == other.values.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]

    def dense(self) -> NDArray[np.float64]:
        """Give the row with its zeros, float64, shape (size,)."""
        row = np.zeros(self.size)
        row[self.indices] = self.values
        return row


def vectorize(facts: PatientFacts, spec: FeatureSpec, as_of: datetime) -> FeatureVector:
    """Compute the features of one patient at one instant.

    Only facts known strictly before ``as_of`` are seen, and of those the ones that happened in the group's
    window ``[as_of - lookback, as_of)``. The order of the facts does not matter. A fact with several codes counts
    once for each feature that any of its codes maps to.

    Args:
        facts: of one patient, each fact once.
        spec: a fitted declaration.
        as_of: aware; usually when the order was signed.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
        ValueError: ``as_of`` is naive.
    """
    if as_of.tzinfo is None:
        raise ValueError("expected an aware as_of")
    as_of = as_of.astimezone(UTC)
    layout = layout_of(spec)
    row: dict[int, float] = {}
    coverage: Counter[str] = Counter()
    for group in layout.groups:
        match group:
            case CategoryLayout():
                row.update(dict.fromkeys(_category_columns(group, facts.demographics, as_of), 1.0))
            case CodeLayout():
                row.update(_code_counts(group, facts, as_of, coverage))
            case LabLayout():
                row.update(_lab_statistics(group, facts.labs, as_of, coverage))
    indices = sorted(column for column, value in row.items() if value != 0.0)
    return FeatureVector(
        spec_digest=layout.spec_digest,
        size=len(layout.names),
        indices=np.array(indices, dtype=np.int32),
        values=np.array([row[column] for column in indices], dtype=np.float64),
        coverage=dict(coverage),
    )


def exact_mean(values: list[float]) -> float:
    """Give the mean of canonical values (whole millionths, see `canonical_value`), the same bits in any order.

    Whole numbers of millionths add up exactly in every engine; one division and one scaling follow.
    """
    total = sum(math.floor(value * MILLION + 0.5) for value in values)
    return float(total) / float(len(values)) / MILLION


def _category_columns(layout: CategoryLayout, who: Demographics, as_of: datetime) -> list[int]:
    group = layout.group
    if isinstance(group, AgeGroup):
        if who.birth_date is None:
            return []
        return [layout.first + bisect_right(layout.edges, who.birth_date.age_in_years(as_of))]
    if isinstance(group, SexGroup):
        held = {who.sex.value}
    else:
        codes = who.races if isinstance(group, RaceGroup) else who.ethnicities
        held = {code.value for code in codes if code.system == OMB_RACE_ETHNICITY}
    return [layout.first + i for i, category in enumerate(group.categories) if category in held]


def _code_counts(layout: CodeLayout, facts: PatientFacts, as_of: datetime, coverage: Counter[str]) -> dict[int, float]:
    group = layout.group
    start = as_of - layout.lookback
    counts: dict[int, float] = {}
    seen = unmapped = 0
    for fact in _facts_of(layout, facts):
        if not (start <= fact.at < as_of and fact.known_at < as_of):
            continue
        seen += 1
        columns = {
            column
            for code in fact.codes
            if (column := layout.columns.get(grouped_code(code, layout.prefix_length))) is not None
        }
        if not columns:
            unmapped += 1
        for column in columns:
            counts[column] = 1.0 if group.count is CountKind.BINARY else counts.get(column, 0.0) + 1.0
    coverage[f"{group.name}.facts"] += seen
    coverage[f"{group.name}.not_mapped"] += unmapped
    return counts


def _facts_of(layout: CodeLayout, facts: PatientFacts) -> list[Diagnosis] | tuple[Medication, ...]:
    group = layout.group
    if isinstance(group, DiagnosisGroup):
        return [fact for fact in facts.diagnoses if fact.recorded_in in group.recorded_in]
    return facts.medications


def _lab_statistics(
    layout: LabLayout, labs: tuple[Lab, ...], as_of: datetime, coverage: Counter[str]
) -> dict[int, float]:
    start = as_of - layout.lookback
    lookup = layout.analytes
    results: dict[Code, list[tuple[datetime, datetime, float]]] = {}
    seen = no_value = no_unit = unmapped = 0
    for lab in labs:
        if not (start <= lab.at < as_of and lab.known_at < as_of):
            continue
        keys = {code for code in lab.codes if code in lookup}
        if not keys:
            unmapped += 1
            continue
        seen += 1
        for key in keys:
            factor = lookup[key].factor(lab.unit)
            if lab.value is None:
                no_value += 1
            elif factor is None:
                no_unit += 1
            elif (value := canonical_value(lab.value, factor)) is None:
                no_value += 1
            else:
                results.setdefault(key, []).append((lab.at, lab.known_at, value))
    name = layout.group.name
    coverage[f"{name}.results"] += seen
    coverage[f"{name}.not_mapped"] += unmapped
    coverage[f"{name}.no_number"] += no_value
    coverage[f"{name}.unit_not_convertible"] += no_unit
    row: dict[int, float] = {}
    for key, analyte in lookup.items():
        row.update(_analyte_statistics(analyte, results.get(key, [])))
    return row


def _analyte_statistics(layout: AnalyteLayout, results: list[tuple[datetime, datetime, float]]) -> dict[int, float]:
    columns = layout.columns
    if not results:
        return {columns[LabStatistic.MISSING]: 1.0} if LabStatistic.MISSING in columns else {}
    values = [value for _, _, value in results]
    row: dict[int, float] = {}
    for statistic, column in columns.items():
        match statistic:
            case LabStatistic.BINS:
                for value in values:
                    cell = column + bisect_right(layout.edges, value)
                    row[cell] = row.get(cell, 0.0) + 1.0
            case LabStatistic.LAST:
                row[column] = max(results)[2]
            case LabStatistic.MEAN:
                row[column] = exact_mean(values)
            case LabStatistic.MIN:
                row[column] = min(values)
            case LabStatistic.MAX:
                row[column] = max(values)
            case LabStatistic.COUNT:
                row[column] = float(len(values))
            case LabStatistic.MISSING:
                pass
    return row
