"""The reference engine: one patient's facts, as of one instant, to the features a model was promised.

This is the definition that every other engine is held to. It is written to be read first and to be fast second.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployr_core.codes import OMB_RACE_ETHNICITY
from deployr_core.declared import CountKind, Statistic
from deployr_core.facts import (
    Demographics,
    Diagnosis,
    Lab,
    Medication,
    Order,
    PatientFacts,
    Procedure,
    Visit,
    Vital,
)
from deployr_core.features import (
    AgeGroup,
    CodeGroup,
    DiagnosisGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    ResultGroup,
    SexGroup,
    VisitGroup,
)
from deployr_core.layout import AnalyteLayout, CategoryLayout, CodeLayout, ResultLayout, ResultReading, layout_of
from deployr_core.units import MILLION, canonical_value

_Dated = tuple[datetime, datetime, float]
CodedFacts = Sequence[Diagnosis] | Sequence[Medication] | Sequence[Procedure] | Sequence[Order] | Sequence[Visit]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_UNREAD = ("not_mapped", "no_number", "unit_not_convertible", "implausible")
"""Why a result gives no value, as `FeatureVector.coverage` names it."""


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
    results: dict[ResultReading, _Results] = {}
    for group in layout.groups:
        match group:
            case CategoryLayout():
                row.update(dict.fromkeys(_category_columns(group, facts.demographics, as_of, coverage), 1.0))
            case CodeLayout():
                row.update(_code_counts(group, facts, as_of, coverage))
            case ResultLayout():
                if group.reading not in results:
                    results[group.reading] = _read_results(group.reading, result_facts(group.group, facts), as_of)
                row.update(_result_statistics(group, results[group.reading], as_of, coverage))
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
    total = sum([math.floor(value * MILLION + 0.5) for value in values])
    return float(total) / float(len(values)) / MILLION


def seconds_between(earlier: datetime, later: datetime) -> int:
    """Give the whole seconds of the clock from one instant to the other: both are cut to their second first."""
    return (later - _EPOCH) // _SECOND - (earlier - _EPOCH) // _SECOND


def _category_columns(layout: CategoryLayout, who: Demographics, as_of: datetime, coverage: Counter[str]) -> list[int]:
    group = layout.group
    if isinstance(group, AgeGroup):
        if who.birth_date is None:
            return []
        return [layout.first + bisect_right(layout.edges, who.birth_date.age_in_years(as_of))]
    if isinstance(group, SexGroup):
        held = {who.sex.value}
    else:
        codes = who.races if isinstance(group, RaceGroup) else who.ethnicities
        if layout.groups is None:
            held = {code.value for code in codes if code.system == OMB_RACE_ETHNICITY}
        else:
            held = {layout.groups[code] for code in codes if code in layout.groups}
            coverage[f"{group.name}.not_mapped"] += sum(code not in layout.groups for code in codes)
    return [layout.first + i for i, category in enumerate(group.categories) if category in held]


def _code_counts(layout: CodeLayout, facts: PatientFacts, as_of: datetime, coverage: Counter[str]) -> dict[int, float]:
    group, start, remembered = layout.group, as_of - layout.lookback, layout.remembered
    counts: dict[int, float] = {}
    seen = not_mapped = not_in_vocabulary = 0
    for fact in coded_facts(group, facts):
        if not (start <= fact.at < as_of and fact.known_at < as_of):
            continue
        seen += 1
        is_mapped, columns = remembered.get(fact.codes) or layout.remember(fact.codes)
        not_mapped += not is_mapped
        not_in_vocabulary += is_mapped and not columns
        for column in columns:
            counts[column] = 1.0 if group.count is CountKind.BINARY else counts.get(column, 0.0) + 1.0
    coverage[f"{group.name}.facts"] += seen
    coverage[f"{group.name}.not_mapped"] += not_mapped
    coverage[f"{group.name}.not_in_vocabulary"] += not_in_vocabulary
    if group.count is CountKind.TFIDF:
        return {column: count * layout.weights[column] for column, count in counts.items()}
    return counts


def coded_facts(group: CodeGroup, facts: PatientFacts) -> CodedFacts:
    """Give the facts that a group counts, whenever they happened."""
    match group:
        case DiagnosisGroup(recorded_in=lists):
            return [fact for fact in facts.diagnoses if fact.recorded_in in lists]
        case MedicationGroup():
            return facts.medications
        case ProcedureGroup():
            return facts.procedures
        case OrderGroup():
            return facts.orders
        case VisitGroup():
            return facts.visits


def result_facts(group: ResultGroup, facts: PatientFacts) -> Sequence[Lab] | Sequence[Vital]:
    """Give the results that a group computes from, whenever they happened."""
    return facts.labs if isinstance(group, LabGroup) else facts.vitals


class _Results(NamedTuple):
    """What was read of the results in a window: values by test, the instants of all, and why some gave no value."""

    dated: list[list[_Dated]]
    at: list[datetime]
    unread: list[tuple[datetime, str]]

    def since(self, start: datetime) -> _Results:
        """Give those of a shorter window."""
        return _Results(
            dated=[[each for each in dated if each[0] >= start] for dated in self.dated],
            at=[at for at in self.at if at >= start],
            unread=[each for each in self.unread if each[0] >= start],
        )


def _read_results(reading: ResultReading, facts: Sequence[Lab] | Sequence[Vital], as_of: datetime) -> _Results:
    """Read what is known, of the longest window that any group has."""
    start, remembered, analytes = as_of - reading.lookback, reading.remembered, reading.analytes
    ranges = [analyte.plausible_range for analyte in analytes]
    read = _Results(dated=[[] for _ in analytes], at=[], unread=[])
    for fact in facts:
        at, known_at = fact.at, fact.known_at
        if not (start <= at < as_of and known_at < as_of):
            continue
        read.at.append(at)
        reported, conversions = fact.value, remembered.get((fact.codes, fact.unit))
        if conversions is None:
            conversions = reading.remember(fact.codes, fact.unit)
        if not conversions:
            read.unread.append((at, "not_mapped"))
        for place, factor in conversions:
            if reported is None or reported != reported:
                read.unread.append((at, "no_number"))
            elif factor is None:
                read.unread.append((at, "unit_not_convertible"))
            elif (value := canonical_value(reported, factor, ranges[place])) is None:
                read.unread.append((at, "implausible"))
            else:
                read.dated[place].append((at, known_at, value))
    return read


def _result_statistics(
    layout: ResultLayout, read: _Results, as_of: datetime, coverage: Counter[str]
) -> dict[int, float]:
    name = layout.group.name
    if layout.lookback < layout.reading.lookback:
        read = read.since(as_of - layout.lookback)
    coverage[f"{name}.results"] += len(read.at)
    for reason in _UNREAD:
        coverage[f"{name}.{reason}"] += sum(why == reason for _, why in read.unread)
    row: dict[int, float] = {}
    for analyte, dated in zip(layout.analytes, read.dated, strict=True):
        row.update(_analyte_statistics(analyte, dated, as_of))
    return row


def _analyte_statistics(layout: AnalyteLayout, results: list[_Dated], as_of: datetime) -> dict[int, float]:
    columns = layout.columns
    if not results:
        return {columns[Statistic.MISSING]: 1.0} if Statistic.MISSING in columns else {}
    row: dict[int, float] = {}
    values = [value for _, _, value in results]
    for statistic, column in columns.items():
        if statistic is Statistic.BINS:
            for value in values:
                cell = column + bisect_right(layout.edges, value)
                row[cell] = row.get(cell, 0.0) + 1.0
        elif statistic in _OF_VALUES:
            row[column] = _OF_VALUES[statistic](values)
        elif statistic is not Statistic.MISSING:
            row[column] = _OF_DATED[statistic](results, as_of)
    return row


def _slope(results: list[_Dated], _: datetime) -> float:
    first, last = min(results), max(results)
    seconds = seconds_between(first[0], last[0])
    return (last[2] - first[2]) / (float(seconds) / 86400.0) if seconds else 0.0


_OF_VALUES: Mapping[Statistic, Callable[[list[float]], float]] = {
    Statistic.MEAN: exact_mean,
    Statistic.MIN: min,
    Statistic.MAX: max,
    Statistic.COUNT: lambda values: float(len(values)),
}

_OF_DATED: Mapping[Statistic, Callable[[list[_Dated], datetime], float]] = {
    Statistic.LAST: lambda results, _: max(results)[2],
    Statistic.FIRST: lambda results, _: min(results)[2],
    Statistic.SLOPE: _slope,
    Statistic.HOURS_SINCE: lambda results, as_of: float(seconds_between(max(results)[0], as_of)) / 3600.0,
}
