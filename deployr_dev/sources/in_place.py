"""A warehouse that stays where it is: its fact tables are views beside its tables, and every query runs there.

What comes here is what a query gives: the orders and results that rows and labels are made of, the facts that a
declaration is fitted to, and the feature matrix. The mapping's queries are those of an extract, said in the database's
own dialect; its tables must hold what their columns are of by their types, because nothing is parsed from text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from deployr_core.facts import Demographics, PatientFacts, Sex
from deployr_core.features import CodeGroup, FeatureSpec, ResultGroup
from deployr_dev.arrow import column
from deployr_dev.fitting import learns
from deployr_dev.sources.database import Columns, chosen_columns
from deployr_dev.sources.drivers import parse_database
from deployr_dev.sources.extract import SPARK_URL, open_source, parse_source
from deployr_dev.sources.fact_source import FactSource
from deployr_dev.sources.fact_tables import CLOSED_COLUMNS, FACT_TABLES, MAY_BE_LEFT_OUT
from deployr_dev.sources.in_place_engines import PostgreSqlEngine, SparkEngine
from deployr_dev.sources.kinds import AWARE, EXPECTED, SQL_TYPE, Kind
from deployr_dev.sources.mapping import MappingInvalid, SourceMapping, TableSpec
from deployr_dev.sources.queries import say_query
from deployr_dev.sources.reading import ByPerson, Row, facts_of, facts_query
from deployr_dev.sources.staging import conversion_in, moment_sql
from deployr_dev.sources.tables import ExtractInvalid, TableFile, quoted, quoted_name
from deployr_dev.sources.zones import wall_to_utc
from deployr_dev.warehouse import say, table_of

if TYPE_CHECKING:
    from deployr_dev.backends import Backend
    from deployr_dev.cohorts.rows import IndexRow
    from deployr_dev.matrix import PatientSource
    from deployr_dev.sources.database import Steps

_LIST_CONTAINS = re.compile(r"list_contains\((\$\d+|\?), (\w+)\)")
_UNNESTED = re.compile(r"\(SELECT unnest\((\$\d+|\?)\)\)")
_PARAMETER = re.compile(r"\$(\d+)")
_TEXTS = frozenset(name for columns in FACT_TABLES.values() for name, kind in columns.items() if kind == "VARCHAR")
_STORED = {
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): AWARE,
    pa.string(): "VARCHAR",
}
_AS_TEXT = frozenset({"VARCHAR", "BIGINT", "DATE"})
"""What may stand for text: every database writes these alike."""


class Engine(Protocol):
    """One open database. Names are lower case; SQL is in its own dialect."""

    @property
    def dialect(self) -> str:
        """What SQLGlot calls its SQL."""

    @property
    def shown(self) -> str:
        """What messages call it."""

    @property
    def backend(self) -> Backend:
        """Where the feature query runs."""

    def tables(self, names: Collection[str]) -> dict[str, tuple[str, Columns]]:
        """Give those of these tables that are there: what SQL calls each, and its columns."""

    def create_view(self, name: str, sql: str) -> None:
        """Make a query known under a name, for this session alone."""

    def columns(self, sql: str) -> tuple[str, ...]:
        """Give the names of a query's columns; it is not run."""

    def rows(self, sql: str, tables: Mapping[str, pa.Table]) -> Iterator[Row]:
        """Run a query beside small tables, which are there until it ends; several may be under way."""

    def close(self) -> None:
        """Let go of it."""


class InPlace(FactSource):
    """See `FactSource`. ``connection``: the fact tables, for queries in DuckDB's dialect that are said in the other."""

    def __init__(self, engine: Engine, mapping: SourceMapping) -> None:
        """Check the tables, and make the fact tables of them; no row is read but to count.

        Raises:
            ExtractInvalid: a table or column missing or of another kind, a key that is missing or there twice.
            MappingInvalid: the mapping's queries do not run there.
        """
        if mapping.reads != "tables":
            raise ExtractInvalid(f"expected a mapping of tables for a database; {mapping.name} reads files")
        self.mapping = mapping
        self.folder = Path(engine.shown)
        self._engine = engine
        self.connection = _Connection(self)
        try:
            self._stage()
            self._make_facts()
        except BaseException:
            engine.close()
            raise

    @property
    def backend(self) -> Backend:
        """See `FactSource.backend`."""
        return self._engine.backend

    def close(self) -> None:
        """See `FactSource.close`."""
        self._engine.close()

    def rows(self, query: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """See `FactSource.rows`."""
        tables: dict[str, pa.Table] = {}

        def listed(mark: str) -> str:
            values = parameters[0 if mark == "?" else int(mark[1:]) - 1]
            name = f"wanted_{len(tables)}"
            tables[name] = _one_column(values)
            return f"(SELECT wanted FROM {name})"

        query = _LIST_CONTAINS.sub(lambda found: f"{found[2]} IN {listed(found[1])}", query)
        query = _UNNESTED.sub(lambda found: listed(found[1]), query)
        query = _PARAMETER.sub(lambda found: quoted(str(parameters[int(found[1]) - 1])), query)
        return self._run(query, tables)

    def learned_from(self, declaration: FeatureSpec, rows: Sequence[IndexRow]) -> PatientSource:
        """Give a source of the facts that a row of these sees, of the groups that learn, and of nothing else."""
        return _Seen(self._run, declaration, rows)

    def _run(self, query: str, tables: Mapping[str, pa.Table]) -> Iterator[Row]:
        return self._engine.rows(_ordered(query, self._engine.dialect), tables)

    def _stage(self) -> None:
        engine, mapping = self._engine, self.mapping
        there = engine.tables(mapping.tables)
        chosen = chosen_columns(engine.shown, mapping, there)
        for table, spec in mapping.tables.items():
            file = None
            if table in chosen:
                file = TableFile(
                    table=table,
                    path=self.folder / table,
                    content=self.folder / table,
                    spellings={name: spelling for name, (spelling, _) in chosen[table].items()},
                    types={name: _STORED[held] for name, (_, held) in chosen[table].items()},
                )
            typed = ", ".join(_typed(spec, file))
            where = "" if file is None else f" FROM {there[table][0]}"
            self._view(f"typed_{table}", f"SELECT {typed}{where}{'' if file else ' WHERE 1 = 0'}")
            dates_only = frozenset() if file is None else self._look_over(table, spec, file)
            self._view(f"source_{table}", _with_moments(table, spec, file, dates_only, mapping))
        for name, pairs in mapping.lookups.items():
            pairs_said = ", ".join(f"({quoted(key)}, {quoted(value)})" for key, value in pairs.items())
            values = f"(VALUES {pairs_said})" if pairs else "(SELECT NULL AS key, NULL AS value WHERE 1 = 0)"
            text = "CAST(key AS VARCHAR) AS key, CAST(value AS VARCHAR) AS value"
            self._view(f"source_{name}", f"SELECT {text} FROM {values} AS pairs(key, value)")
        for name, sql in mapping.views.items():
            self._view(f"source_{name}", self._said(sql))

    def _look_over(self, table: str, spec: TableSpec, file: TableFile) -> frozenset[str]:
        """Count keys that are missing or repeated, and name the time columns that hold midnights alone."""
        kinds = {name: parsed.kind for name, parsed in spec.parsed().items()}
        required = [name for name, kind in kinds.items() if kind.is_required]
        times = [
            name
            for name, kind in kinds.items()
            if kind is Kind.DATETIME and name in file.spellings and not file.is_aware(name)
        ]
        counted = ["count(*)", *(f"count({quoted_name(name)})" for name in (*required, *times))]
        by_day = "count(CASE WHEN {0} <> date_trunc('day', {0}) THEN 1 END)"
        counted += [by_day.format(quoted_name(name)) for name in times]
        total, *counts = next(self._run(f"SELECT {', '.join(counted)} FROM typed_{table}", {}))
        present = dict(zip((*required, *times), counts, strict=False))
        timed = dict(zip(times, counts[len(present) :], strict=True))
        for name in required:
            if present[name] != total:
                raise ExtractInvalid(
                    f"{file.path}: expected {EXPECTED[kinds[name]]} in column {name}, got rows without"
                )
        if spec.unique:
            key = ", ".join(spec.unique)
            repeated = f"SELECT {key} FROM typed_{table} GROUP BY {key} HAVING count(*) > 1"
            ((found,),) = self._run(f"SELECT count(*) FROM ({repeated}) AS repeated", {})
            if found:
                raise ExtractInvalid(f"{file.path}: expected each {key} once, got {found} of them more than once")
        return frozenset(name for name in times if present[name] > 1 and not timed[name])

    def _make_facts(self) -> None:
        for name, columns in FACT_TABLES.items():
            if name not in self.mapping.facts:
                empty = ", ".join(f"CAST(NULL AS {kind}) AS {each}" for each, kind in columns.items())
                self._view(name, f"SELECT {empty} WHERE 1 = 0")
                continue
            sql = self._said(self.mapping.facts[name])
            given = {each.lower() for each in self._engine.columns(say(sql, dialect=self._engine.dialect))}
            missing = [each for each in columns if each not in given | MAY_BE_LEFT_OUT.get(name, frozenset())]
            if missing:
                raise MappingInvalid(
                    f"mapping {self.mapping.name}: expected the query of the fact table {name} to give"
                    f" {', '.join(missing)}"
                )
            selected = ", ".join(
                f"CAST({each if each in given else 'NULL'} AS {kind}) AS {each}" for each, kind in columns.items()
            )
            dated = " WHERE happened_at IS NOT NULL AND known_at IS NOT NULL" if "happened_at" in columns else ""
            self._view(name, f"SELECT {selected} FROM ({sql}) AS fact{dated}")
        persons, rows = next(self._run("SELECT count(DISTINCT person_id), count(*) FROM persons", {}))
        if persons != rows:
            raise ExtractInvalid(f"{self.folder}: expected each person once, got {rows} rows of {persons} persons")
        for (name, word), words in CLOSED_COLUMNS.items():
            allowed = ", ".join(quoted(str(each)) for each in sorted(words))
            wrong = f"SELECT count(*) FROM {name} WHERE {word} NOT IN ({allowed}) OR {word} IS NULL"
            ((found,),) = self._run(wrong, {})
            if found:
                raise ExtractInvalid(
                    f"{self.folder}: expected the column {word} of {name} to say {' or '.join(sorted(words))}, got"
                    f" {found} rows that say something else"
                )

    def _said(self, sql: str) -> str:
        return say_query(sql, self.mapping, rename=lambda table: f"source_{table}")

    def _view(self, name: str, sql: str) -> None:
        self._engine.create_view(name, say(sql, dialect=self._engine.dialect))


def open_warehouse(source: str, mapping: Path | None = None, *, steps: Steps | None = None) -> FactSource:
    """Open what a command line calls a source, to train from: Spark, and a database that says so, where it is.

    Args:
        source: as `deployr_dev.sources.extract.open_source` has it, or ``NAME:spark://[HOST:PORT]/?schema=cdm``, or
            ``NAME:postgresql://host/db?in_place=yes``.
        mapping: a mapping file, in place of a name.
        steps: opens a step of the work, for progress bars.

    Raises:
        ExtractInvalid, MappingInvalid: it cannot be read.
    """
    place, chosen = parse_source(source, mapping)
    if isinstance(place, str) and chosen is not None:
        if place.startswith(SPARK_URL):
            return InPlace(SparkEngine(place), chosen)
        if (database := parse_database(place)).in_place:
            return InPlace(PostgreSqlEngine(database), chosen)
    return open_source(source, mapping, steps=steps)


_Run = Callable[[str, Mapping[str, pa.Table]], Iterator[Row]]


class _Seen:
    """The facts that at least one row sees, of the tables that a declaration learns from; see `PatientSource`."""

    def __init__(self, run: _Run, declaration: FeatureSpec, rows: Sequence[IndexRow]) -> None:
        self._run = run
        self._rows = rows
        self._groups = [
            group for group in declaration.groups if isinstance(group, CodeGroup | ResultGroup) and learns(group)
        ]

    def patients(self, person_ids: Collection[int] | None = None) -> Iterator[PatientFacts]:
        """Give these persons' facts, as far as they matter; of who they are nothing is said."""
        facts = {
            table: ByPerson(facts_of(table, self._of(table)))
            for table in sorted({table_of(group) for group in self._groups})
        }
        nobody = Demographics(birth_date=None, sex=Sex.UNKNOWN)
        for person_id in sorted({row.person_id for row in self._rows} if person_ids is None else set(person_ids)):
            held = {table: tuple(of_table.take(person_id)) for table, of_table in facts.items()}
            yield PatientFacts(patient_id=str(person_id), demographics=nobody, **held)

    def _of(self, table: str) -> Iterator[Row]:
        groups = [group for group in self._groups if table_of(group) == table]
        lookback = timedelta(days=max(group.lookback_days for group in groups))
        as_of = [row.index_time.astimezone(UTC).replace(tzinfo=None) for row in self._rows]
        tables = {
            "seeing": pa.table(
                {
                    "person_id": column([row.person_id for row in self._rows], pa.int64()),
                    "as_of": pa.array(as_of, pa.timestamp("us")),
                    "since": pa.array([each - lookback for each in as_of], pa.timestamp("us")),
                }
            )
        }
        codes = ""
        results = [group for group in groups if isinstance(group, ResultGroup)]
        if len(results) == len(groups):
            wanted = {key.value for group in results for analyte in group.analytes for key in analyte.keys}
            tables["wanted_codes"] = _one_column(sorted(wanted))
            codes = " AND code IN (SELECT wanted FROM wanted_codes)"
        seen = (
            "SELECT 1 FROM seeing AS row WHERE row.person_id = fact.person_id AND fact.happened_at >= row.since"
            " AND fact.happened_at < row.as_of AND fact.known_at < row.as_of"
        )
        query = facts_query(table, where=f"AS fact WHERE EXISTS ({seen}){codes}")
        return self._run(f"{query} ORDER BY person_id, fact_id, system, code", tables)


class _Connection:
    """As much of DB-API as those need who read fact tables on an extract's connection."""

    def __init__(self, source: InPlace) -> None:
        self._source = source

    def cursor(self) -> _Cursor:
        return _Cursor(self._source)


class _Cursor:
    def __init__(self, source: InPlace) -> None:
        self._source = source
        self._rows: Iterator[Row] = iter(())

    def execute(self, query: str, parameters: Sequence[object] = ()) -> None:
        self._rows = self._source.rows(query, parameters)

    def fetchmany(self, size: int) -> list[Row]:
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def close(self) -> None:
        self._rows = iter(())


def _typed(spec: TableSpec, file: TableFile | None) -> Iterator[str]:
    """Give the SQL of each column, typed.

    Raises:
        ExtractInvalid: a column is of a type that does not hold its kind.
    """
    for name, parsed in spec.parsed().items():
        kind, value = SQL_TYPE[parsed.kind], "NULL"
        read = None if file is None else conversion_in(file, name, parsed.kind)
        if file is not None and read is not None:
            stored = file.types[name]
            if not read.is_certain or (parsed.kind.is_text and stored not in _AS_TEXT):
                raise ExtractInvalid(
                    f"{file.path}: expected {EXPECTED[parsed.kind]} in column {name}, by its type, got"
                    f" {stored.lower()}; a view over the table can convert it"
                )
            # A session in UTC takes an instant's time in UTC; what else SQL calls it differs.
            value = quoted_name(file.spellings[name]) if stored == AWARE else read.value
        yield f"CAST({value} AS {kind}) AS {quoted_name(name)}"


def _with_moments(
    table: str, spec: TableSpec, file: TableFile | None, dates_only: frozenset[str], mapping: SourceMapping
) -> str:
    kinds = {name: parsed.kind for name, parsed in spec.parsed().items()}
    added = []
    for moment, columns in spec.moments.items():
        both = moment_sql(columns, kinds, file, dates_only, lambda wall: f"({wall_to_utc(f'({wall})', mapping.zone)})")
        for end, sql in zip(("_at", "_known_at"), both, strict=True):
            added.append(f"{sql} AS {quoted_name(moment + end)}")
    return f"SELECT {', '.join(['*', *added])} FROM typed_{table}"


def _one_column(values: Any) -> pa.Table:
    held = list(values)
    kind = pa.int64() if held and isinstance(held[0], int) else pa.string()
    return pa.table({"wanted": column(held, kind)})


def _ordered(query: str, dialect: str) -> str:
    """Say a query in a dialect; texts come in the order of their bytes, for which PostgreSQL has to be asked."""
    if dialect != "postgres":
        return say(query, dialect=dialect)
    import sqlglot
    from sqlglot import exp

    parsed = sqlglot.parse_one(query, read="duckdb")
    for ordered in parsed.find_all(exp.Ordered):
        if isinstance(ordered.this, exp.Column) and ordered.this.name in _TEXTS:
            ordered.set("this", exp.Collate(this=ordered.this.copy(), expression=exp.to_identifier("C", quoted=True)))
    return str(parsed.sql(dialect=dialect))
