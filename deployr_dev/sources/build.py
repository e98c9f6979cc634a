"""The fact tables of an open extract, made by its mapping's queries over the staged tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deployr_dev.sources.fact_tables import CLOSED_COLUMNS, FACT_TABLES, MAY_BE_LEFT_OUT
from deployr_dev.sources.mapping import MappingInvalid, SourceMapping
from deployr_dev.sources.queries import say_query, tables_behind
from deployr_dev.sources.staging import Staged
from deployr_dev.sources.tables import ExtractInvalid, quoted, quoted_name

if TYPE_CHECKING:
    import duckdb


def build_fact_tables(
    connection: duckdb.DuckDBPyConnection, folder: Path, mapping: SourceMapping, staged: Mapping[str, Staged]
) -> None:
    """Create every fact table in the schema ``main``; one that the mapping has no query for is empty.

    One that is made of Parquet files is a view, so that 100 million rows are never copied; any other is stored.

    Raises:
        MappingInvalid: a query does not run on the mapping's tables, or lacks a column of its fact table.
        ExtractInvalid: a person twice, a birth date that does not exist, a word where only some may stand.
    """
    for name, sql in mapping.views.items():
        _create_view(connection, mapping, name, sql, staged)
    for name, columns in FACT_TABLES.items():
        if name not in mapping.facts:
            typed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
            connection.execute(f"CREATE TABLE {name} ({typed})")
            continue
        select = _fact_select(connection, mapping, name, staged)
        stays_in_files = any(staged[table].is_parquet for table in tables_behind(name, mapping))
        if stays_in_files:
            connection.execute(f"CREATE VIEW {name} AS {select}")
        else:
            connection.execute(f"CREATE TABLE {name} AS {select} ORDER BY ALL")
    _check_persons(connection, folder)
    for (name, column), words in CLOSED_COLUMNS.items():
        _check_words(connection, folder, name, column, words)


def _create_view(
    connection: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    name: str,
    sql: str,
    staged: Mapping[str, Staged],
) -> None:
    import duckdb

    try:
        connection.execute(f"CREATE VIEW source.{quoted_name(name)} AS {_said(sql, mapping, staged)}")
    except (duckdb.Error, ValueError) as error:
        raise MappingInvalid(
            f"mapping {mapping.name}: the query of the view {name} does not run: {_why(error)}"
        ) from None


def _fact_select(
    connection: duckdb.DuckDBPyConnection, mapping: SourceMapping, name: str, staged: Mapping[str, Staged]
) -> str:
    """Give the SELECT of a fact table with its columns in order and of their types, and only rows that are dated."""
    import duckdb

    columns = FACT_TABLES[name]
    try:
        query = _said(mapping.facts[name], mapping, staged)
        described = {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE {query}").fetchall()}
    except (duckdb.Error, ValueError) as error:
        raise MappingInvalid(
            f"mapping {mapping.name}: the query of the fact table {name} does not run: {_why(error)}"
        ) from None
    may_be_left_out = MAY_BE_LEFT_OUT.get(name, frozenset())
    if missing := [column for column in columns if column not in described and column not in may_be_left_out]:
        raise MappingInvalid(
            f"mapping {mapping.name}: expected the query of the fact table {name} to give {', '.join(missing)}"
        )
    selected = []
    for column, kind in columns.items():
        if column not in described:
            selected.append(f"CAST(NULL AS {kind}) AS {column}")
        else:
            selected.append(column if described[column] == kind else f"CAST({column} AS {kind}) AS {column}")
    dated = " WHERE happened_at IS NOT NULL AND known_at IS NOT NULL" if "happened_at" in columns else ""
    return f"SELECT {', '.join(selected)} FROM ({query}) AS fact{dated}"


def _said(sql: str, mapping: SourceMapping, staged: Mapping[str, Staged]) -> str:
    def complete(table: str) -> frozenset[str]:
        return staged[table].complete if table in staged else frozenset()

    return say_query(sql, mapping, rename=lambda table: f"source.{quoted_name(table)}", complete=complete)


def _why(error: Exception) -> str:
    """Give the first line of a message about a query: it speaks of names, not of rows."""
    return str(error).splitlines()[0]


def _check_persons(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    born = "format('{:04d}-{:02d}-{:02d}', birth_year, coalesce(birth_month, 1), "
    born += "CASE WHEN birth_month IS NULL THEN 1 ELSE coalesce(birth_day, 1) END)"
    wrong, persons, rows = connection.execute(
        "SELECT count(*) FILTER (birth_year IS NOT NULL AND (birth_year NOT BETWEEN 1 AND 9999"
        f" OR TRY_CAST({born} AS DATE) IS NULL)), count(DISTINCT person_id), count(*) FROM persons"
    ).fetchall()[0]
    if wrong:
        raise ExtractInvalid(f"{folder}: expected dates of birth that exist, got {wrong} that do not")
    if rows != persons:
        raise ExtractInvalid(f"{folder}: expected each person once, got {rows} rows of {persons} persons")


def _check_words(
    connection: duckdb.DuckDBPyConnection, folder: Path, name: str, column: str, words: frozenset[str]
) -> None:
    allowed = ", ".join(quoted(str(word)) for word in sorted(words))
    (wrong,) = connection.execute(
        f"SELECT count(*) FROM {name} WHERE {column} NOT IN ({allowed}) OR {column} IS NULL"
    ).fetchall()[0]
    if wrong:
        raise ExtractInvalid(
            f"{folder}: expected the column {column} of {name} to say {' or '.join(sorted(words))}, got {wrong} rows"
            " that say something else"
        )
