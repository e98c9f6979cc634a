"""A mapping's queries: checked before they run, and said with its parameters and the names of its tables.

They are written in DuckDB's dialect; SQLGlot reads them, so that they can be said in another warehouse's too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployr_dev.sources.mapping import MappingInvalid, SourceMapping

DIALECT = "duckdb"


def check_queries(mapping: SourceMapping, *, named: str) -> None:
    """Check every query of a mapping: one SELECT, over the tables, lookups and views of the mapping alone.

    Raises:
        MappingInvalid: one is not; the message names the file and the query.
    """
    for kind, queries in (("view", mapping.views), ("fact table", mapping.facts)):
        for name, sql in queries.items():
            try:
                parsed = _parsed(sql)
                unknown = sorted(set(_tables_in(parsed)) - _known(mapping))
                if unknown:
                    raise ValueError(f"expected tables and views of the mapping, got {', '.join(unknown)}")
                for placeholder in _placeholders(parsed):
                    _value(mapping, placeholder)
            except ValueError as error:
                raise MappingInvalid(f"{named}: the query of the {kind} {name}: {error}") from None


def say_query(
    sql: str,
    mapping: SourceMapping,
    *,
    rename: Callable[[str], str],
    dialect: str = DIALECT,
    complete: Callable[[str], frozenset[str]] = lambda _: frozenset(),
) -> str:
    """Give a query of the mapping with the values of its parameters, and each table called what it is called there.

    ``:result_delay`` becomes the delay as an interval, ``:local_system_<table>`` the system of that table's own codes.

    Args:
        sql: one of the mapping's queries.
        mapping: where the values come from.
        rename: gives the SQL name of a table, lookup or view of the mapping.
        dialect: SQLGlot's name of the database's SQL.
        complete: gives a table's columns that are never NULL. In a query over one table what stands in for their NULL
            is left out: without it a filter on them reaches the file, which was seven times as fast on 10 million rows.

    Raises:
        ValueError: not one SELECT, or a parameter that there is not.
    """
    from sqlglot import exp

    parsed = _parsed(sql).copy()
    for placeholder in list(parsed.find_all(exp.Placeholder)):
        placeholder.replace(_literal(_value(mapping, placeholder.name)))
    own = _own_names(parsed)
    tables = list(parsed.find_all(exp.Table))
    if len(tables) == 1:
        parsed = _without_fallbacks(parsed, complete(tables[0].name))
        tables = list(parsed.find_all(exp.Table))
    for table in tables:
        if table.name not in own:
            renamed = exp.to_table(rename(table.name), dialect=DIALECT)
            renamed.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name)))
            table.replace(renamed)
    return str(parsed.sql(dialect=dialect))


def tables_behind(name: str, mapping: SourceMapping) -> frozenset[str]:
    """Give the warehouse's tables that a fact table is made of, also through views."""
    found: set[str] = set()
    waiting = [mapping.facts[name]] if name in mapping.facts else []
    while waiting:
        for table in _tables_in(_parsed(waiting.pop())):
            if table in mapping.views:
                waiting.append(mapping.views[table])
            elif table in mapping.tables:
                found.add(table)
    return frozenset(found)


def _parsed(sql: str):  # type: ignore[no-untyped-def]
    import sqlglot
    from sqlglot import exp

    try:
        statements = sqlglot.parse(sql, read=DIALECT)
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"is not SQL: {str(error).splitlines()[0]}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ValueError("expected one SELECT")
    return statements[0]


def _tables_in(parsed) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """Give the names that a query reads from; a function that reads files is not a name, and is refused."""
    from sqlglot import exp

    own = _own_names(parsed)
    for table in parsed.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier) or table.args.get("db"):
            raise ValueError("expected plain names of tables after FROM and JOIN")
        if table.name not in own:
            yield table.name


def _own_names(parsed) -> frozenset[str]:  # type: ignore[no-untyped-def]
    from sqlglot import exp

    return frozenset(cte.alias for cte in parsed.find_all(exp.CTE))


def _placeholders(parsed) -> Iterator[str]:  # type: ignore[no-untyped-def]
    from sqlglot import exp

    return (placeholder.name for placeholder in parsed.find_all(exp.Placeholder))


def _known(mapping: SourceMapping) -> frozenset[str]:
    return frozenset({*mapping.tables, *mapping.lookups, *mapping.views})


def _without_fallbacks(parsed, complete: frozenset[str]):  # type: ignore[no-untyped-def]
    """Say ``COALESCE(x, …)`` and ``CASE WHEN x IS NOT NULL THEN … END`` shorter where ``x`` is never NULL."""
    from sqlglot import exp

    def is_complete(node: object) -> bool:
        return isinstance(node, exp.Column) and node.name in complete

    def shorter(node):  # type: ignore[no-untyped-def]
        if isinstance(node, exp.Coalesce) and is_complete(node.this):
            return node.this
        if isinstance(node, exp.Case) and node.this is None and len(node.args["ifs"]) == 1:
            (branch,) = node.args["ifs"]
            held = branch.this
            if isinstance(held, exp.Not) and isinstance(held.this, exp.Is) and is_complete(held.this.this):
                return branch.args["true"].transform(shorter)
        return node

    return parsed.transform(shorter)


_DELAY = "result_delay"
_LOCAL_SYSTEM = "local_system_"


def _value(mapping: SourceMapping, parameter: str) -> int | str:
    if parameter == _DELAY:
        return mapping.result_delay_minutes
    table = parameter.removeprefix(_LOCAL_SYSTEM)
    if parameter.startswith(_LOCAL_SYSTEM) and table in mapping.tables:
        system = mapping.local_system(table)
        if system is not None:
            return system
    raise ValueError(
        f"expected the parameter :{_DELAY}, or :{_LOCAL_SYSTEM}TABLE of a table with a local_system, got :{parameter}"
    )


def _literal(value: int | str):  # type: ignore[no-untyped-def]
    from sqlglot import exp

    if isinstance(value, int):
        return exp.Interval(this=exp.Literal.string(str(value)), unit=exp.Var(this="MINUTE"))
    return exp.Literal.string(value)
