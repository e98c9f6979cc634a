"""What a column of a warehouse may hold, and how its text or its stored type becomes a typed value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Kind(Enum):
    """What a column holds, by the word that mappings call it."""

    KEY = "key"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    CODE = "code"
    NAME = "name"
    DATE = "date"
    DATETIME = "datetime"

    @property
    def is_dated(self) -> bool:
        """True for a day or a time."""
        return self in {Kind.DATE, Kind.DATETIME}

    @property
    def is_required(self) -> bool:
        """True when every row must have a value."""
        return self in {Kind.KEY, Kind.NAME}

    @property
    def is_text(self) -> bool:
        """True when any text will do."""
        return self in {Kind.TEXT, Kind.CODE, Kind.NAME}


EXPECTED = MappingProxyType(
    {
        Kind.KEY: "a whole number in every row",
        Kind.INTEGER: "a whole number",
        Kind.NUMBER: "a number",
        Kind.BOOLEAN: "true or false",
        Kind.TEXT: "text",
        Kind.CODE: "text",
        Kind.NAME: "a text in every row",
        Kind.DATE: "a date such as 2015-01-06",
        Kind.DATETIME: "a date and time without a zone, such as 2015-01-06 20:55:00",
    }
)
"""What messages say was expected."""

SQL_TYPE = MappingProxyType(
    {
        Kind.KEY: "BIGINT",
        Kind.INTEGER: "BIGINT",
        Kind.NUMBER: "DOUBLE",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.TEXT: "VARCHAR",
        Kind.CODE: "VARCHAR",
        Kind.NAME: "VARCHAR",
        Kind.DATE: "DATE",
        Kind.DATETIME: "TIMESTAMP",
    }
)
_INTEGERS = "U?(BIG|SMALL|TINY)?INT(EGER)?"
_NATIVE = {
    Kind.KEY: _INTEGERS,
    Kind.INTEGER: _INTEGERS,
    Kind.NUMBER: f"{_INTEGERS}|DOUBLE|FLOAT|DECIMAL.*",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.DATE: "DATE|TIMESTAMP(_S|_MS|_NS)?",
    Kind.DATETIME: "DATE|TIMESTAMP(_S|_MS|_NS| WITH TIME ZONE)?",
}
"""The types that a Parquet column of each kind may have to be taken as it is, by DuckDB's names."""
AWARE = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What a column holds, and whether the table may come without it."""

    kind: Kind
    may_be_missing: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The SQL of one column: is it absent, is it of its kind, and its typed value.

    ``is_certain``: every stored value is of its kind, so that nothing has to be checked.
    """

    absent: str
    good: str
    value: str
    is_certain: bool


def parse_column(text: str) -> Column:
    """Read a column's kind as mappings write it, such as ``integer`` or, where it may be missing, ``integer?``.

    Raises:
        ValueError: no such kind.
    """
    word = text.removesuffix("?")
    if word not in {kind.value for kind in Kind}:
        kinds = ", ".join(kind.value for kind in Kind)
        raise ValueError(f"expected a column's kind to be one of {kinds}, got {text[:40]!r}")
    kind = Kind(word)
    if kind.is_required and word != text:
        raise ValueError(f"expected a column of the kind {word} never to be missing")
    return Column(kind=kind, may_be_missing=word != text)


def conversion(spelling: str, stored: str, kind: Kind) -> Conversion:
    """Give the SQL that reads a column.

    DuckDB's own conversions of text are too kind: it reads ``1.5`` into an integer as 2 and drops the ``-05:00`` of a
    time without a word (both seen with 2.0). Empty text is absent, but in Parquet a `Kind.CODE` or `Kind.NAME` is taken
    as it stands, so that a filter on it still reaches the file.

    Args:
        spelling: the column's name in the file, as SQL.
        stored: DuckDB's type of it in a Parquet file, VARCHAR in any other.
        kind: what it must hold.
    """
    absent = f"{spelling} IS NULL"
    if kind in {Kind.CODE, Kind.NAME} and stored == "VARCHAR":
        return Conversion(absent=absent, good="true", value=spelling, is_certain=True)
    if not kind.is_text and re.fullmatch(_NATIVE[kind], stored):
        value = spelling if stored == SQL_TYPE[kind] else f"CAST({spelling} AS {SQL_TYPE[kind]})"
        if stored == AWARE:
            value = f"make_timestamp(epoch_us({spelling}))"
        return Conversion(absent=absent, good="true", value=value, is_certain=True)
    text = f"nullif(CAST({spelling} AS VARCHAR), '')"
    good = "true"
    match kind:
        case Kind.KEY | Kind.INTEGER:
            # pandas writes an integer column with gaps as 8532.0
            good = rf"regexp_full_match({text}, '-?[0-9]{{1,18}}(\.0*)?')"
            value = f"TRY_CAST(split_part({text}, '.', 1) AS BIGINT)"
        case Kind.NUMBER | Kind.DATE | Kind.BOOLEAN:
            value = f"TRY_CAST({text} AS {SQL_TYPE[kind]})"
            good = f"{value} IS NOT NULL"
        case Kind.DATETIME:
            value = f"TRY_CAST({text} AS TIMESTAMP)"
            good = rf"{value} IS NOT NULL AND NOT regexp_matches({text}, ':[0-9.]+ ?([A-Za-z]|[+-][0-9])')"
        case _:
            value = text
    return Conversion(absent=f"{text} IS NULL", good=good, value=value, is_certain=kind.is_text)
