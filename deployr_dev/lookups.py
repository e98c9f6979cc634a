"""The small tables that the set engine's query looks things up in, made from the declaration and the cohort.

Everything that databases would do differently (arithmetic on dates, prefixes of mappings, units) is done here, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa

from deployr_core.codes import OMB_RACE_ETHNICITY, Code
from deployr_core.declared import Statistic
from deployr_core.features import EthnicityGroup, RaceGroup
from deployr_core.layout import CategoryLayout, CodeLayout, FeatureLayout, ResultLayout
from deployr_core.units import CANONICAL_SPELLING, CONVERSIONS, conversion_factor
from deployr_dev.arrow import column, number_column

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Instant:
    """One row of a cohort: whose features, as of when (aware)."""

    row_id: int
    person_id: int
    as_of: datetime


def cohort_table(layout: FeatureLayout, cohort: Sequence[Instant]) -> pa.Table:
    """Give the cohort with the start of each window, and the calendar day that ages are counted on."""
    try:
        since_epoch = [(row.as_of - _EPOCH) // _MICROSECOND for row in cohort]
    except TypeError:
        raise ValueError("expected aware instants in the cohort") from None
    as_of = np.array(since_epoch, dtype=np.int64).astype("datetime64[us]")
    months = as_of.astype("datetime64[M]")
    month = months.astype(np.int64) % 12 + 1
    day = (as_of.astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64) + 1
    whole, instant = pa.int64(), pa.timestamp("us")
    columns = {
        "row_id": number_column(np.array([row.row_id for row in cohort], dtype=np.int64), whole),
        "person_id": number_column(np.array([row.person_id for row in cohort], dtype=np.int64), whole),
        "as_of": number_column(as_of, instant),
        "as_of_year": number_column(as_of.astype("datetime64[Y]").astype(np.int64) + 1970, pa.int32()),
        "as_of_day": number_column(month * 100 + day, pa.int32()),
    }
    for lookback in sorted({g.lookback for g in layout.groups if isinstance(g, CodeLayout | ResultLayout)}):
        columns[since(lookback)] = number_column(as_of - np.timedelta64(lookback.days, "D"), instant)
    return pa.table(columns)


def since(lookback: timedelta) -> str:
    """Name the cohort's column that holds where this window starts."""
    return f"since_{lookback.days}_days"


def code_table(layout: FeatureLayout) -> pa.Table:
    """Give which (grouped) code is which feature, per group, with its weight."""
    rows = [
        (number, code.system, code.value, feature, weight)
        for number, group in enumerate(layout.groups)
        for code, feature, weight in _codes_of(group)
    ]
    names = ("group_number", "system", "code", "feature", "weight")
    types = (pa.int32(), pa.string(), pa.string(), pa.int32(), pa.float64())
    return _table(names, types, rows)


def _codes_of(group: object) -> Iterator[tuple[Code, int, float]]:
    if isinstance(group, CodeLayout):
        for code, feature in group.columns.items():
            if group.code_groups.groups is None:
                yield code, feature, group.weights[feature]
            else:
                for source, to in group.code_groups.groups.items():
                    if to == code and source.system in group.code_groups.systems:
                        yield source, feature, group.weights[feature]
    elif isinstance(group, CategoryLayout) and isinstance(group.group, RaceGroup | EthnicityGroup):
        for place, category in enumerate(group.group.categories):
            if group.groups is None:
                yield Code(OMB_RACE_ETHNICITY, category), group.first + place, 1.0
            else:
                for source, mapped in group.groups.items():
                    if mapped == category:
                        yield source, group.first + place, 1.0


def unit_table(layout: FeatureLayout) -> pa.Table:
    """Give, per group, test and code, the factor of every spelling of every unit that can be converted.

    ``least`` and ``most`` are the ends of the plausible range, in the declared unit, both included.
    """
    rows = []
    for number, group in enumerate(layout.groups):
        if isinstance(group, ResultLayout):
            for place, analyte in enumerate(group.analytes):
                for rank, key in enumerate(analyte.analyte.keys):
                    # Most codes have no conversion of their own: what their units are spelled like is found once.
                    factors = _factors(key if key in _CONVERTED else _PLAIN, analyte.analyte.unit)
                    rows += [
                        (number, key.system, key.value, unit, place, rank, factor, *analyte.plausible)
                        for unit, factor in factors
                    ]
    names = ("group_number", "system", "code", "unit", "place", "code_rank", "factor", "least", "most")
    types = (pa.int32(), pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32(), *(pa.float64(),) * 3)
    return _table(names, types, rows)


_CONVERTED = frozenset(code for code, _, _ in CONVERSIONS)
_PLAIN = Code("", "")


@lru_cache(maxsize=1024)
def _factors(code: Code, wanted: str) -> tuple[tuple[str, float], ...]:
    """Give the units that can be converted to the wanted one, each with its factor."""
    units = sorted({wanted, *CANONICAL_SPELLING})
    factors = ((unit, conversion_factor(code, unit=unit, wanted=wanted)) for unit in units)
    return tuple((unit, factor) for unit, factor in factors if factor is not None)


def test_table(layout: FeatureLayout) -> pa.Table:
    """Give, per group and test, the feature of each statistic and the edges of its bins, NULL where there is none."""
    most_edges = _most_edges(layout)
    names = (
        "group_number",
        "place",
        *(f"feature_{s.value}" for s in Statistic),
        *(f"edge_{i}" for i in range(most_edges)),
    )
    types = (pa.int32(), pa.int32(), *(pa.int32() for _ in Statistic), *(pa.float64() for _ in range(most_edges)))
    rows = [
        (
            number,
            place,
            *(analyte.columns.get(statistic) for statistic in Statistic),
            *(analyte.edges[i] if i < len(analyte.edges) else None for i in range(most_edges)),
        )
        for number, group in enumerate(layout.groups)
        if isinstance(group, ResultLayout)
        for place, analyte in enumerate(group.analytes)
    ]
    return _table(names, types, rows)


def _most_edges(layout: FeatureLayout) -> int:
    return max(
        (len(a.edges) for group in layout.groups if isinstance(group, ResultLayout) for a in group.analytes), default=0
    )


def _table(names: Sequence[str], types: Sequence[pa.DataType], rows: Sequence[tuple[object, ...]]) -> pa.Table:
    columns = [column([row[i] for row in rows], kind) for i, kind in enumerate(types)]
    return pa.table(columns, names=list(names))
