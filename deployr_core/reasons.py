"""Why a score is what it is, in words: the largest contributions, with what the vector says about each.

A packet keeps no facts, so that a reason says what the features say and no more: a last value where the declaration
has the last value, a range where it has bins, that there was no result where it can be told from a result of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, pairwise

from deployr_core.concepts import AnalyteColumns, CodeColumn, PictureColumns, Source, TermColumn, concepts_of
from deployr_core.declared import CountKind, Statistic
from deployr_core.documents import Documents
from deployr_core.facts import DiagnosisList
from deployr_core.features import AgeGroup, DiagnosisGroup, FeatureSpec
from deployr_core.layout import CategoryLayout, layout_of
from deployr_core.packet import Scored

LONGEST = 120
"""In characters, direction included."""

_UNITS = {"10*3/uL": "K/uL", "10*6/uL": "M/uL", "mm[Hg]": "mmHg", "Cel": "°C", "[degF]": "°F", "{INR}": "", "1": ""}
"""How clinicians write what UCUM writes otherwise."""

OMB_CATEGORIES = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
    "2135-2": "Hispanic or Latino",
    "2186-5": "not Hispanic or Latino",
}
"""Source: CDC race and ethnicity code set, urn:oid:2.16.840.1.113883.6.238, the OMB categories."""

_VERBS = {
    "diagnoses": "recorded",
    "medications": "ordered",
    "procedures": "done",
    "orders": "signed",
    "visits": "begun",
}
_Row = Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One concept's contribution and what to say about it: plain text, at most `LONGEST` characters."""

    concept: str
    value: float
    text: str


def reasons(
    scored: Scored, spec: FeatureSpec, documents: Documents | None = None, *, most: int = 3
) -> tuple[Reason, ...]:
    """Put the largest contributions into words.

    Args:
        scored: with the contributions; none give no reasons.
        spec: the declaration that the vector was computed by.
        documents: what the vector holds of documents, if anything.
        most: how many to give.

    Raises:
        ValueError: the vector is another declaration's.
    """
    if scored.vector.spec_sha256 != layout_of(spec).spec_digest:
        raise ValueError("expected the declaration that the vector was computed by")
    row = dict(zip(scored.vector.indices, scored.vector.values, strict=True))
    sources = concepts_of(spec, documents).sources
    told = islice((each for each in scored.contributions if each.concept in sources), most)
    return tuple(
        Reason(
            concept=each.concept,
            value=each.value,
            text=_with_direction(_in_words(each.concept, sources[each.concept], row), raises=each.value > 0.0),
        )
        for each in told
    )


def _with_direction(text: str, *, raises: bool) -> str:
    direction = " (raises)" if raises else " (lowers)"
    room = LONGEST - len(direction)
    return (text if len(text) <= room else text[: room - 1].rstrip() + "…") + direction


def _in_words(concept: str, sources: Sequence[Source], row: _Row) -> str:
    codes = [source for source in sources if isinstance(source, CodeColumn)]
    results = [source for source in sources if isinstance(source, AnalyteColumns)]
    categories = [source for source in sources if isinstance(source, CategoryLayout)]
    if codes:
        return _code_words(concept, codes, row)
    if results:
        return _result_words(concept, results, row)
    if isinstance(sources[0], TermColumn):
        return _term_words(sources[0], row)
    if isinstance(sources[0], PictureColumns):
        return sources[0].group
    return _category_words(concept, categories[0], row)


# -- demographics


def _category_words(concept: str, layout: CategoryLayout, row: _Row) -> str:
    group = layout.group
    if isinstance(group, AgeGroup):
        bounds = (-math.inf, *layout.edges, math.inf)
        for place, (low, high) in enumerate(pairwise(bounds)):
            if layout.first + place in row:
                return f"{concept} {_ages(low, high)}"
        return f"{concept} not known"
    held = [OMB_CATEGORIES.get(name, str(name)) for i, name in enumerate(group.categories) if layout.first + i in row]
    if held:
        return f"{concept}: {', '.join(held)}"
    return f"{concept}: none of those that the model knows"


def _ages(low: float, high: float) -> str:
    """Name the completed years from ``low`` to under ``high``."""
    if low == -math.inf and high == math.inf:
        return "known"
    if low == -math.inf:
        return f"under {math.ceil(high)}"
    if high == math.inf:
        return f"{math.ceil(low)} or over"
    return f"{math.ceil(low)} to {math.ceil(high) - 1}"


# -- documents


def _term_words(source: TermColumn, row: _Row) -> str:
    """Name the model's own term and no other word of the note."""
    if source.term is None:
        return f"{source.group}: {'there are some' if source.column in row else 'there are none'}"
    return f"{source.group}: {'' if source.column in row else 'without '}the word {source.term}"


# -- codes


def _code_words(concept: str, sources: Sequence[CodeColumn], row: _Row) -> str:
    verb = _VERBS[str(sources[0].layout.group.__struct_config__.tag)]
    for source in sources:
        if source.column not in row:
            continue
        group = source.layout.group
        if isinstance(group, DiagnosisGroup) and group.recorded_in == (DiagnosisList.PROBLEM_LIST,):
            return f"{concept} on the problem list"
        window = _window(source.layout.lookback)
        if group.count is CountKind.BINARY:
            return f"{concept} {verb} {window}"
        return f"{concept} {verb} {_times(row[source.column] / source.layout.weights[source.column])} {window}"
    # On none of several lists: what is true of all is true of the shortest window.
    shortest = min(source.layout.lookback for source in sources)
    return f"No {concept[:1].lower()}{concept[1:]} {verb} {_window(shortest)}"


# -- results


def _result_words(concept: str, sources: Sequence[AnalyteColumns], row: _Row) -> str:
    by_window = sorted(sources, key=lambda source: source.layout.lookback)
    for source in by_window:
        if _has_results(source, row):
            return _measured(concept, source, row)
    longest = by_window[-1]
    window = _window(longest.layout.lookback)
    if {Statistic.MISSING, Statistic.COUNT, Statistic.BINS} & set(longest.analyte.columns):
        return f"No {concept} result {window}"
    return f"No {concept} result other than 0 {window}"


def _has_results(source: AnalyteColumns, row: _Row) -> bool:
    columns = source.analyte.columns
    if Statistic.MISSING in columns:
        return columns[Statistic.MISSING] not in row
    return any(column in row for column in columns.values()) or bool(_bins(source, row))


def _measured(concept: str, source: AnalyteColumns, row: _Row) -> str:
    columns, window = source.analyte.columns, _window(source.layout.lookback)
    unit = source.analyte.analyte.unit
    bins = _bins(source, row)
    count = row.get(columns[Statistic.COUNT], 0.0) if Statistic.COUNT in columns else sum(n for _, _, n in bins)

    def value(statistic: Statistic) -> str:
        return _number(row.get(columns[statistic], 0.0))

    since = f", {_times(count)} {window}" if count else f" {window}"
    if Statistic.LAST in columns:
        said = _with_unit(f"{concept} {value(Statistic.LAST)}", unit)
        if Statistic.HOURS_SINCE in columns:
            return f"{said}, {_ago(row.get(columns[Statistic.HOURS_SINCE], 0.0))}"
        if count == 1.0:
            return f"{said}, the only one {window}"
        return f"{said}, the latest {f'of {count:.0f} ' if count else ''}{window}"
    if {Statistic.MIN, Statistic.MAX} <= set(columns):
        low, high = value(Statistic.MIN), value(Statistic.MAX)
        return _with_unit(f"{concept} {low}" if low == high else f"{concept} {low} to {high}", unit) + since
    single: Mapping[Statistic, str] = {
        Statistic.MEAN: "mean",
        Statistic.MIN: "lowest",
        Statistic.MAX: "highest",
        Statistic.FIRST: "first",
    }
    for statistic, word in single.items():
        if statistic in columns:
            return _with_unit(f"{concept} {word} {value(statistic)}", unit) + since
    if bins and source.analyte.edges:
        return f"{concept} {_between(bins[0][0], bins[-1][1], source.analyte.edges, unit)}{since}"
    return f"{concept} measured {_times(count)} {window}" if count else f"{concept} measured {window}"


def _bins(source: AnalyteColumns, row: _Row) -> list[tuple[float, float, float]]:
    """Give the bins that hold results, lowest first: from, to under, how many."""
    first = source.analyte.columns.get(Statistic.BINS)
    if first is None:
        return []
    bounds = (-math.inf, *source.analyte.edges, math.inf)
    return [
        (low, high, row[first + place]) for place, (low, high) in enumerate(pairwise(bounds)) if first + place in row
    ]


def _between(low: float, high: float, edges: Sequence[float], unit: str) -> str:
    """Say that results lie from ``low`` to under ``high``, each an edge or infinite."""
    if low == -math.inf and high == math.inf:
        return f"from under {_number(edges[0])} to {_with_unit(_number(edges[-1]), unit)} or more"
    if low == -math.inf:
        return f"under {_with_unit(_number(high), unit)}"
    if high == math.inf:
        return f"{_with_unit(_number(low), unit)} or more"
    return f"between {_number(low)} and {_with_unit(_number(high), unit)}"


# -- words


def _with_unit(text: str, unit: str) -> str:
    written = _UNITS.get(unit, unit)
    return f"{text} {written}" if written else text


def _number(value: float) -> str:
    """Write four digits that count, never an exponent."""
    digits = 0 if value == 0.0 else max(0, 3 - math.floor(math.log10(abs(value))))
    written = f"{value:.{digits}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def _times(count: float) -> str:
    whole = round(count)
    return {1: "once", 2: "twice"}.get(whole, f"{whole} times")


def _window(lookback: timedelta) -> str:
    days = lookback.days
    if days % 365 == 0:
        return "in 1 year" if days == 365 else f"in {days // 365} years"
    return "in 1 day" if days == 1 else f"in {days} days"


def _ago(hours: float) -> str:
    whole = math.floor(hours)
    if whole < 1:
        return "less than 1 hour ago"
    if whole == 1:
        return "1 hour ago"
    return f"{whole} hours ago" if whole < 48 else f"{whole // 24} days ago"
