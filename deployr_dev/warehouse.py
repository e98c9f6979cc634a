"""The set engine: a fitted declaration and a cohort become one query, run where the data lives.

It computes what `deployr_core.vectorize` defines, to the same bits, for every row of a cohort at once. The query reads
the fact tables (docs/fact-tables.md) and small look-up tables that are made here from the declaration: everything that
would need arithmetic on dates, on codes or on units is looked up or computed beforehand, so that what is left is joins,
comparisons, counts and a few operations on float64 that every database does alike. It is written once, in DuckDB's
dialect, and SQLGlot says it in the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa

from deployr_core.declared import CountKind, Statistic
from deployr_core.features import (
    AgeGroup,
    CodeGroup,
    DiagnosisGroup,
    EthnicityGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    ResultGroup,
    SexGroup,
    VisitGroup,
    VitalGroup,
)
from deployr_core.layout import (
    CategoryLayout,
    CodeLayout,
    FeatureLayout,
    ResultLayout,
    layout_of,
)
from deployr_core.units import MILLION
from deployr_dev.lookups import Instant, code_table, cohort_table, since, test_table, unit_table

BASE_DIALECT = "duckdb"
DIALECTS = ("duckdb", "postgres", "spark", "databricks", "bigquery", "snowflake", "tsql")
"""What the query can be said in. Run in the tests: the first three; the others are parsed back."""

_TABLE_OF_GROUP = {
    DiagnosisGroup: "diagnoses",
    MedicationGroup: "medications",
    ProcedureGroup: "procedures",
    OrderGroup: "orders",
    VisitGroup: "visits",
    LabGroup: "labs",
    VitalGroup: "vitals",
}
_MILLION = f"CAST({MILLION:.0f} AS DOUBLE)"


@dataclass(frozen=True, kw_only=True, slots=True)
class WarehouseQuery:
    """The query and the small tables that it needs beside the fact tables, by name.

    The query gives ``row_id BIGINT, feature INTEGER, value DOUBLE``: the values that are not 0, by row and feature.
    """

    sql: str
    tables: dict[str, pa.Table]


def warehouse_query(spec: FeatureSpec, cohort: Sequence[Instant], *, dialect: str = BASE_DIALECT) -> WarehouseQuery:
    """Build the query of a fitted declaration for a cohort.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
        ValueError: an instant is naive, or the dialect is none of `DIALECTS`.
    """
    layout = layout_of(spec)
    return WarehouseQuery(
        sql=say(_sql(layout), dialect=dialect),
        tables={
            "cohort": cohort_table(layout, cohort),
            "feature_codes": code_table(layout),
            "feature_units": unit_table(layout),
            "feature_tests": test_table(layout),
        },
    )


def table_of(group: CodeGroup | ResultGroup) -> str:
    """Name the fact table that a group is made of."""
    return _TABLE_OF_GROUP[type(group)]


def say(sql: str, *, dialect: str) -> str:
    """Say a query that is written in DuckDB's dialect in another one.

    Raises:
        ValueError: the dialect is none of `DIALECTS`.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"expected a dialect of {', '.join(DIALECTS)}, got {dialect!r}")
    if dialect == BASE_DIALECT:
        return sql
    import sqlglot

    return str(sqlglot.parse_one(sql, read=BASE_DIALECT).sql(dialect=dialect, pretty=True))


def _sql(layout: FeatureLayout) -> str:
    parts: list[tuple[str, str]] = []
    selects: list[str] = []
    for number, group in enumerate(layout.groups):
        match group:
            case CategoryLayout():
                selects.append(_category_select(number, group))
            case CodeLayout():
                selects.append(_code_select(number, group))
            case ResultLayout():
                parts += _result_parts(number, group)
                selects += _result_selects(number, group)
    with_parts = ",\n".join(f"{name} AS ({sql})" for name, sql in parts)
    union = "\nUNION ALL\n".join(selects)
    query = f"SELECT row_id, feature, value FROM ({union}) AS found WHERE value <> 0 ORDER BY row_id, feature"
    return f"WITH {with_parts}\n{query}" if parts else query


def _category_select(number: int, layout: CategoryLayout) -> str:
    group = layout.group
    persons = "FROM cohort AS c JOIN persons AS p ON p.person_id = c.person_id"
    match group:
        case AgeGroup():
            birthday = "COALESCE(p.birth_month, 1) * 100 + COALESCE(p.birth_day, 1)"
            age = f"c.as_of_year - p.birth_year - CASE WHEN c.as_of_day < {birthday} THEN 1 ELSE 0 END"
            bins = _steps([f"{age} >= {edge!r}" for edge in layout.edges])
            return _select(f"{layout.first} + {bins}", "1", f"{persons} WHERE p.birth_year IS NOT NULL")
        case SexGroup():
            cases = " ".join(
                f"WHEN p.sex = '{category}' THEN {layout.first + place}"
                for place, category in enumerate(group.categories)
            )
            held = ", ".join(f"'{category}'" for category in group.categories)
            return _select(f"CASE {cases} END", "1", f"{persons} WHERE p.sex IN ({held})")
        case RaceGroup() | EthnicityGroup():
            kind = "race" if isinstance(group, RaceGroup) else "ethnicity"
            return (
                "SELECT DISTINCT c.row_id, k.feature, CAST(1 AS DOUBLE) AS value FROM cohort AS c"
                f" JOIN person_categories AS p ON p.person_id = c.person_id AND p.kind = '{kind}'"
                f" JOIN feature_codes AS k ON k.group_number = {number} AND k.system = p.system AND k.code = p.code"
            )


def _code_select(number: int, layout: CodeLayout) -> str:
    group = layout.group
    table = table_of(group)
    length = layout.code_groups.prefix_length
    code = "f.code" if length is None else f"SUBSTRING(REPLACE(f.code, '.', ''), 1, {length})"
    joins = (
        f"FROM cohort AS c JOIN {table} AS f ON {_window(layout.lookback)}"
        f" JOIN feature_codes AS k ON k.group_number = {number} AND k.system = f.system AND k.code = {code}"
    )
    if isinstance(group, DiagnosisGroup):
        lists = ", ".join(f"'{name}'" for name in group.recorded_in)
        joins += f" WHERE f.recorded_in IN ({lists})"
    count = "CAST(COUNT(DISTINCT f.fact_id) AS DOUBLE)"
    if group.count is CountKind.BINARY:
        count = "CAST(1 AS DOUBLE)"
    if group.count is CountKind.TFIDF:
        count = f"{count} * MAX(k.weight)"
    return f"SELECT c.row_id, k.feature, {count} AS value {joins} GROUP BY c.row_id, k.feature"


def _window(lookback: timedelta) -> str:
    return (
        f"f.person_id = c.person_id AND f.happened_at >= c.{since(lookback)}"
        " AND f.happened_at < c.as_of AND f.known_at < c.as_of"
    )


def _result_parts(number: int, layout: ResultLayout) -> list[tuple[str, str]]:
    """Give the group's usable results in whole millionths, and one line of statistics per row and test."""
    table = table_of(layout.group)
    several = any(analyte.analyte.also for analyte in layout.analytes)
    micro = f"FLOOR(f.value * u.factor * {_MILLION} + CAST(0.5 AS DOUBLE))"
    facts = f"FROM cohort AS c JOIN {table} AS f ON {_window(layout.lookback)}"
    usable = "f.value * u.factor BETWEEN u.least AND u.most"
    if not several:
        seen = (
            f"SELECT c.row_id, c.as_of, u.place, f.happened_at, f.known_at, {micro} AS micro {facts}"
            f" JOIN feature_units AS u ON u.group_number = {number} AND {_same_system(layout)} AND u.code = f.code"
            f" AND u.unit = f.unit WHERE {usable}"
        )
        parts = [(f"seen_{number}", seen)]
    else:
        # A fact may carry several codes of one test: the first that the declaration names decides, usable or not.
        coded = (
            "SELECT c.row_id, c.as_of, k.place, f.fact_id, f.system, f.code, f.unit, f.value, f.happened_at,"
            " f.known_at,"
            " ROW_NUMBER() OVER (PARTITION BY c.row_id, k.place, f.fact_id ORDER BY k.code_rank) AS turn"
            f" {facts} JOIN (SELECT DISTINCT system, code, place, code_rank FROM feature_units"
            f" WHERE group_number = {number}) AS k ON k.system = f.system AND k.code = f.code"
        )
        seen = (
            f"SELECT f.row_id, f.as_of, f.place, f.happened_at, f.known_at, {micro} AS micro FROM coded_{number} AS f"
            f" JOIN feature_units AS u ON u.group_number = {number} AND u.system = f.system AND u.code = f.code"
            f" AND u.unit = f.unit AND u.place = f.place WHERE f.turn = 1 AND {usable}"
        )
        parts = [(f"coded_{number}", coded), (f"seen_{number}", seen)]
    if _needs(layout, Statistic.LAST, Statistic.FIRST, Statistic.SLOPE, Statistic.HOURS_SINCE):
        parts.append((f"ends_{number}", _ends(number)))
    if _needs(layout, Statistic.MEAN, Statistic.MIN, Statistic.MAX, Statistic.COUNT, Statistic.MISSING):
        stats = (
            "SELECT row_id, place, COUNT(*) AS n, MIN(micro) AS least, MAX(micro) AS most,"
            f" SUM(CAST(micro AS BIGINT)) AS total FROM seen_{number} GROUP BY row_id, place"
        )
        parts.append((f"stats_{number}", stats))
    return parts


def _same_system(layout: ResultLayout) -> str:
    """Compare coding systems; where there is only one, by a filter on the facts instead of a wider join."""
    systems = {key.system for analyte in layout.analytes for key in analyte.analyte.keys}
    if len(systems) > 1:
        return "u.system = f.system"
    system = systems.pop().replace("'", "''")
    return f"f.system = '{system}'"


def _ends(number: int) -> str:
    """Give the first and the last result of each row and test."""
    order = "PARTITION BY row_id, place ORDER BY happened_at {0}, known_at {0}, micro {0}"
    ranked = (
        "SELECT row_id, place, as_of, happened_at, micro,"
        f" ROW_NUMBER() OVER ({order.format('DESC')}) AS from_last,"
        f" ROW_NUMBER() OVER ({order.format('ASC')}) AS from_first FROM seen_{number}"
    )
    picked = ", ".join(
        f"MAX(CASE WHEN {rank} = 1 THEN {column} END) AS {name}_{column}"
        for name, rank in (("last", "from_last"), ("first", "from_first"))
        for column in ("happened_at", "micro")
    )
    return f"SELECT row_id, place, MAX(as_of) AS as_of, {picked} FROM ({ranked}) AS ranked GROUP BY row_id, place"


def _result_selects(number: int, layout: ResultLayout) -> list[str]:
    tests = f"JOIN feature_tests AS t ON t.group_number = {number} AND t.place = s.place"
    selects = []
    for statistic in layout.group.statistics:
        feature = f"t.feature_{statistic.value}"
        if statistic is Statistic.BINS:
            value = f"s.micro / {_MILLION}"
            edges = max((len(analyte.edges) for analyte in layout.analytes), default=0)
            cell = f"{feature} + {_steps([f'{value} >= t.edge_{i}' for i in range(edges)])}"
            selects.append(
                f"SELECT s.row_id, {cell} AS feature, CAST(COUNT(*) AS DOUBLE) AS value FROM seen_{number} AS s {tests}"
                f" GROUP BY s.row_id, {cell}"
            )
        elif statistic is Statistic.MISSING:
            selects.append(
                f"SELECT c.row_id, {feature} AS feature, CAST(1 AS DOUBLE) AS value FROM cohort AS c"
                f" CROSS JOIN feature_tests AS t LEFT JOIN stats_{number} AS s"
                f" ON s.row_id = c.row_id AND s.place = t.place WHERE t.group_number = {number} AND s.row_id IS NULL"
            )
        else:
            part, value = _VALUE[statistic]
            selects.append(f"SELECT s.row_id, {feature} AS feature, {value} AS value FROM {part}_{number} AS s {tests}")
    return selects


def _seconds(earlier: str, later: str) -> str:
    """Count whole seconds of the clock: both are cut to their second first."""
    return f"DATE_DIFF('second', DATE_TRUNC('second', {earlier}), DATE_TRUNC('second', {later}))"


_BETWEEN = f"CAST({_seconds('s.first_happened_at', 's.last_happened_at')} AS DOUBLE)"
_VALUE = {
    Statistic.LAST: ("ends", f"s.last_micro / {_MILLION}"),
    Statistic.FIRST: ("ends", f"s.first_micro / {_MILLION}"),
    Statistic.MIN: ("stats", f"s.least / {_MILLION}"),
    Statistic.MAX: ("stats", f"s.most / {_MILLION}"),
    Statistic.COUNT: ("stats", "CAST(s.n AS DOUBLE)"),
    Statistic.MEAN: ("stats", f"CAST(s.total AS DOUBLE) / CAST(s.n AS DOUBLE) / {_MILLION}"),
    Statistic.SLOPE: (
        "ends",
        f"CASE WHEN {_BETWEEN} = 0 THEN CAST(0 AS DOUBLE) ELSE (s.last_micro / {_MILLION} - s.first_micro / {_MILLION})"
        f" / ({_BETWEEN} / CAST(86400 AS DOUBLE)) END",
    ),
    Statistic.HOURS_SINCE: (
        "ends",
        f"CAST({_seconds('s.last_happened_at', 's.as_of')} AS DOUBLE) / CAST(3600 AS DOUBLE)",
    ),
}
"""Which part of the query a statistic is taken from, and how."""


def _needs(layout: ResultLayout, *statistics: Statistic) -> bool:
    return any(statistic in layout.group.statistics for statistic in statistics)


def _steps(conditions: Sequence[str]) -> str:
    """Count how many of the conditions hold; one on NULL does not."""
    return "(" + " + ".join(f"CASE WHEN {c} THEN 1 ELSE 0 END" for c in conditions) + ")" if conditions else "0"


def _select(feature: str, value: str, rest: str) -> str:
    return f"SELECT c.row_id, {feature} AS feature, CAST({value} AS DOUBLE) AS value {rest}"
