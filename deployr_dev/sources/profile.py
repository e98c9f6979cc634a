"""What an extract holds, counted: the numbers that `deployr_dev.sources.validate` judges. Names, codes, units, counts.

Every number comes from a query over the fact tables, so that 100 million rows are counted where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from deployr_core.codes import SYSTEM_OF_OMOP_VOCABULARY
from deployr_core.units import LIMIT
from deployr_dev.sources.extract import Extract
from deployr_dev.sources.fact_tables import CODED_TABLES, DATED_TABLES, FACT_TABLES, MEASURED_TABLES
from deployr_dev.sources.tables import quoted

KNOWN_SYSTEMS = frozenset({*SYSTEM_OF_OMOP_VOCABULARY.values(), "http://terminology.hl7.org/CodeSystem/v3-ActCode"})
"""Systems that declarations and groupings can name; a code of any other has to be mapped first."""
MOST_CODES = 10
FAR = 1000.0
"""A value so many times the median of its test and unit is counted as far outside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableCount:
    """A fact table's size and span. ``facts`` counts each once, whatever its codes; the instants are aware, in UTC."""

    table: str
    rows: int
    facts: int
    persons: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCount:
    """How many facts have this code and no other of a known system; ``system`` and ``code`` are None without one."""

    system: str | None
    code: str | None
    facts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmapped:
    """A table's facts of which no code is of a known system, in all and by their commonest codes."""

    table: str
    facts: int
    commonest: tuple[CodeCount, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitCount:
    """Results of one test in one unit, and how many of their values cannot be right.

    ``numbers`` counts the results that have a number, ``median`` is of the finite ones.
    """

    table: str
    system: str
    code: str
    unit: str
    results: int
    numbers: int
    median: float | None
    not_finite: int
    negative: int
    too_large: int
    far_outside: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeFaults:
    """Facts of a table whose instants cannot be: after the reading, known before they happened, before the birth."""

    table: str
    in_future: int
    known_too_early: int
    before_birth: int
    of_no_person: int
    doubled: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderCounts:
    """How orders and results hang together."""

    orders: int
    without_result: int
    results: int
    results_naming_no_order: int
    results_naming_absent_order: int
    released_before_order: int
    released_with_order: int
    drawn_before_order: int
    drawn_with_order: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Everything that was counted in an extract."""

    tables: tuple[TableCount, ...]
    unmapped: tuple[Unmapped, ...]
    units: tuple[UnitCount, ...]
    times: tuple[TimeFaults, ...]
    orders: OrderCounts
    persons_without_birth_year: int
    undated: Mapping[str, int]
    dates_only: tuple[tuple[str, str], ...]
    zoneless: tuple[str, ...]
    left_out: Mapping[str, int]


def profile_of(extract: Extract, *, as_of: datetime) -> Profile:
    """Count what an open extract holds.

    Args:
        extract: is read, not changed.
        as_of: what is later than this is in the future; aware.

    Raises:
        ExtractInvalid: a file could not be read to its end.
    """
    (without_birth_year,) = next(extract.rows("SELECT count(*) FROM persons WHERE birth_year IS NULL"))
    files = {name: staged for name, staged in extract.staged.items() if staged.file is not None}
    return Profile(
        tables=tuple(_table_count(extract, table) for table in FACT_TABLES),
        unmapped=tuple(found for table in CODED_TABLES if (found := _unmapped(extract, table)).facts),
        units=tuple(count for table in MEASURED_TABLES for count in _unit_counts(extract, table)),
        times=tuple(_time_faults(extract, table, as_of=as_of) for table in DATED_TABLES),
        orders=_order_counts(extract),
        persons_without_birth_year=int(without_birth_year),
        undated={table: count for table, count in extract.undated_rows.items() if count},
        dates_only=tuple((name, column) for name, staged in files.items() for column in sorted(staged.dates_only)),
        zoneless=tuple(name for name, staged in files.items() if staged.has_zoneless_times),
        left_out=extract.left_out,
    )


def _table_count(extract: Extract, table: str) -> TableCount:
    columns = FACT_TABLES[table]
    facts = "count(DISTINCT (person_id, fact_id))" if "fact_id" in columns else "count(*)"
    span = "min(happened_at), max(happened_at)" if "happened_at" in columns else "NULL, NULL"
    query = f"SELECT count(*), {facts}, count(DISTINCT person_id), {span} FROM {table}"
    rows, facts_, persons, first, last = next(extract.rows(query))
    return TableCount(table=table, rows=rows, facts=facts_, persons=persons, first=_utc(first), last=_utc(last))


def _unmapped(extract: Extract, table: str) -> Unmapped:
    known = ", ".join(quoted(system) for system in sorted(KNOWN_SYSTEMS))
    unmapped = (
        f"SELECT person_id, fact_id, min(system) AS system, min(code) AS code FROM {table} GROUP BY ALL"
        f" HAVING count(*) FILTER (system IN ({known})) = 0"
    ).replace("GROUP BY ALL", "GROUP BY person_id, fact_id")
    rows = extract.rows(
        f"SELECT system, code, count(*) AS n, sum(count(*)) OVER () FROM ({unmapped})"
        f" GROUP BY system, code ORDER BY n DESC, system, code LIMIT {MOST_CODES}"
    )
    counted = list(rows)
    return Unmapped(
        table=table,
        facts=int(counted[0][3]) if counted else 0,
        commonest=tuple(CodeCount(system=row[0], code=row[1], facts=row[2]) for row in counted),
    )


def _unit_counts(extract: Extract, table: str) -> list[UnitCount]:
    finite = "isfinite(f.value)"
    query = f"""
        WITH middle AS (
            SELECT system, code, unit, median(value) FILTER (isfinite(value)) AS median FROM {table}
            WHERE system IS NOT NULL GROUP BY system, code, unit)
        SELECT f.system, f.code, f.unit, count(*), count(f.value), any_value(m.median),
            count(*) FILTER (NOT {finite}), count(*) FILTER ({finite} AND f.value < 0),
            count(*) FILTER ({finite} AND abs(f.value) >= {LIMIT}),
            count(*) FILTER ({finite} AND m.median > 0 AND abs(f.value) < {LIMIT} AND f.value > m.median * {FAR})
        FROM {table} AS f JOIN middle AS m ON m.system = f.system AND m.code = f.code AND m.unit = f.unit
        GROUP BY f.system, f.code, f.unit ORDER BY f.system, f.code, count(*) DESC, f.unit
    """
    return [
        UnitCount(
            table=table,
            system=row[0],
            code=row[1],
            unit=row[2],
            results=row[3],
            numbers=row[4],
            median=row[5],
            not_finite=row[6],
            negative=row[7],
            too_large=row[8],
            far_outside=row[9],
        )
        for row in extract.rows(query)
    ]


def _time_faults(extract: Extract, table: str, *, as_of: datetime) -> TimeFaults:
    columns = FACT_TABLES[table]
    instant = f"TIMESTAMP '{as_of.astimezone(UTC):%Y-%m-%d %H:%M:%S}'"
    facts = f"(SELECT DISTINCT * EXCLUDE (system, code) FROM {table})" if "code" in columns else table
    future, early, unborn, nobody = next(
        extract.rows(
            f"SELECT count(*) FILTER (f.happened_at > {instant} OR f.known_at > {instant}),"
            " count(*) FILTER (f.known_at < f.happened_at),"
            " count(*) FILTER (year(f.happened_at) < p.birth_year), count(*) FILTER (p.person_id IS NULL)"
            f" FROM {facts} AS f LEFT JOIN persons AS p ON p.person_id = f.person_id"
        )
    )
    return TimeFaults(
        table=table,
        in_future=future,
        known_too_early=early,
        before_birth=unborn,
        of_no_person=nobody,
        doubled=_doubled(extract, table),
    )


def _doubled(extract: Extract, table: str) -> int:
    """Count ids under which there are several facts: rows that differ in more than their code, or not even in it."""
    columns = FACT_TABLES[table]
    key = "person_id, fact_id" if "fact_id" in columns else "person_id"
    rest = ", ".join(c for c in columns if c not in {"person_id", "fact_id", "system", "code"})
    repeated = "count(*) > count(DISTINCT (system, code))" if "code" in columns else "count(*) > 1"
    query = (
        f"SELECT count(*) FROM (SELECT {key} FROM {table} GROUP BY {key}"
        f" HAVING count(*) > 1 AND ({repeated} OR count(DISTINCT ({rest})) > 1))"
    )
    return int(next(extract.rows(query))[0])


def _order_counts(extract: Extract) -> OrderCounts:
    query = """
        WITH placed AS (SELECT person_id, fact_id, min(happened_at) AS placed_at, min(resulted_at) AS resulted_at
                        FROM orders GROUP BY person_id, fact_id),
             result AS (SELECT DISTINCT person_id, fact_id, order_id, happened_at, known_at FROM labs),
             paired AS (SELECT r.*, o.fact_id AS found, o.placed_at FROM result AS r
                        LEFT JOIN placed AS o ON o.person_id = r.person_id AND o.fact_id = r.order_id),
             answered AS (SELECT DISTINCT person_id, order_id FROM result WHERE order_id IS NOT NULL)
        SELECT (SELECT count(*) FROM placed),
               (SELECT count(*) FROM placed AS o LEFT JOIN answered AS a
                ON a.person_id = o.person_id AND a.order_id = o.fact_id
                WHERE a.order_id IS NULL AND o.resulted_at IS NULL),
               count(*), count(*) FILTER (order_id IS NULL),
               count(*) FILTER (order_id IS NOT NULL AND found IS NULL),
               count(*) FILTER (known_at < placed_at), count(*) FILTER (known_at = placed_at),
               count(*) FILTER (happened_at < placed_at), count(*) FILTER (happened_at = placed_at)
        FROM paired
    """
    row = next(extract.rows(query))
    return OrderCounts(
        orders=row[0],
        without_result=row[1],
        results=row[2],
        results_naming_no_order=row[3],
        results_naming_absent_order=row[4],
        released_before_order=row[5],
        released_with_order=row[6],
        drawn_before_order=row[7],
        drawn_with_order=row[8],
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
