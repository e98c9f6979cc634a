"""A source as data: which tables a warehouse has, and the query that makes each fact table of them.

docs/sources.md shows how to write one. What an extract cannot say about itself stands there too: the zone of its
times, the systems of its local codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Any, Literal

import msgspec

from deployr_core.instants import parse_zone
from deployr_dev.sources.fact_tables import FACT_TABLES
from deployr_dev.sources.kinds import Column, parse_column

DEFAULT_MAPPING = "omop54"
MAPPINGS_BESIDE_TABLES = ("source.json", "source.yaml", "source.yml")
_SHIPPED = Path(__file__).parent / "mappings"


class MappingInvalid(ValueError):
    """The mapping file does not say what it must; the message names the file and the key."""


class TableSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the warehouse, as far as it is read.

    ``columns``: name to kind (`deployr_dev.sources.kinds.Kind`), with a question mark where the column may be missing.
    ``also_named``: a column's other names in other releases. ``unique``: the columns that name a row, where rows are
    joined on them. ``moments``: name to the columns that say when, the time first, then the day; each moment ``x``
    gives the queries two columns in UTC, ``x_at`` and ``x_known_at``, and the first one dates the row.
    ``local_system``: the coding system of codes that name none. ``optional``: without the file, the table is empty.

    Raises:
        ValueError: a kind that is none, or a column that is not listed.
    """

    columns: dict[str, str]
    also_named: dict[str, tuple[str, ...]] = {}
    unique: tuple[str, ...] = ()
    moments: dict[str, tuple[str, ...]] = {}
    local_system: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        parsed = self.parsed()
        named = [*self.also_named, *self.unique, *(name for columns in self.moments.values() for name in columns)]
        if unknown := sorted(set(named) - set(parsed)):
            raise ValueError(f"expected columns that the table lists, got {', '.join(unknown)}")
        for moment, columns in self.moments.items():
            if not columns or any(not parsed[name].kind.is_dated for name in columns):
                raise ValueError(f"expected the moment {moment} to name columns of the kind date or datetime")

    def parsed(self) -> dict[str, Column]:
        """Give the columns by name, in the order in which they are listed."""
        return {name: parse_column(text) for name, text in self.columns.items()}


class SourceMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One warehouse's tables and conventions. What a file leaves out it takes from the shipped mapping it ``extends``.

    ``reads``: ``tables`` (CSV, Parquet, Excel) or ``fhir_ndjson`` (a Bulk FHIR export, first brought into tables).
    ``cdm_source_name_contains``: an extract whose ``cdm_source`` name or abbreviation holds one of these texts, in any
    case, gets this mapping unasked. ``time_zone``: of times written without one: ``UTC``, a fixed offset or an IANA
    name. ``local_systems``: table to the coding system (URI) of its source values, in place of the table's own.
    ``result_delay_minutes``: how long after the specimen a result whose release nobody recorded is taken to be known.
    ``lookups``: small tables with the columns ``key`` and ``value``. ``views``: queries that the facts' queries share.
    ``facts``: fact table to query.

    Raises:
        ValueError: no such zone, a table without local codes, a negative delay, or a fact table that there is not.
    """

    name: str
    extends: str | None = None
    describes: str = ""
    reads: Literal["tables", "fhir_ndjson"] = "tables"
    cdm_source_name_contains: tuple[str, ...] = ()
    time_zone: str = "UTC"
    local_systems: dict[str, str] = {}
    result_delay_minutes: int = 60
    tables: dict[str, TableSpec] = {}
    lookups: dict[str, dict[str, str]] = {}
    views: dict[str, str] = {}
    facts: dict[str, str] = {}

    def __post_init__(self) -> None:
        parse_zone(self.time_zone)
        coded = {name for name, table in self.tables.items() if table.local_system is not None}
        if unknown := set(self.local_systems) - coded:
            raise ValueError(f"expected local_systems of {', '.join(sorted(coded))}, got {sorted(unknown)}")
        if self.result_delay_minutes < 0:
            raise ValueError("expected result_delay_minutes of at least 0")
        if unknown := set(self.facts) - set(FACT_TABLES):
            raise ValueError(f"expected facts of {', '.join(FACT_TABLES)}, got {sorted(unknown)}")

    @property
    def zone(self) -> tzinfo:
        """The zone of times written without one."""
        return parse_zone(self.time_zone)

    def local_system(self, table: str) -> str | None:
        """Give the system of a table's codes that name none; None for a table without such codes."""
        return self.local_systems.get(table, self.tables[table].local_system)

    def is_meant_for(self, cdm_source_name: str) -> bool:
        """True when this mapping claims an extract of that name."""
        return any(part.casefold() in cdm_source_name.casefold() for part in self.cdm_source_name_contains)


def load_mapping(path: Path) -> SourceMapping:
    """Read a mapping file (JSON or YAML), and under it the shipped ones that it extends.

    Objects are merged key by key, the file's own going before; a key set to null is taken away. A file without queries
    of its own that extends nothing extends ``omop54``.

    Raises:
        MappingInvalid: cannot be read, a key unknown or of the wrong type, a query that is not one SELECT over the
            mapping's tables, or ``extends`` leads nowhere.
    """
    keys = _read_object(path)
    if "name" not in keys:
        raise MappingInvalid(f"{path}: expected the key name")
    if "facts" not in keys:
        keys.setdefault("extends", DEFAULT_MAPPING)
    for base in _bases(path, keys.get("extends")):
        # A site's mapping does not inherit which extracts its base claims.
        inherited = {key: value for key, value in base.items() if key not in {"cdm_source_name_contains", "extends"}}
        keys = _merged(inherited, keys)
    try:
        mapping = msgspec.convert(_without_nulls(keys), type=SourceMapping)
    except (msgspec.ValidationError, ValueError) as error:
        raise MappingInvalid(f"{path}: {error}") from None
    if path.parent != _SHIPPED:
        from deployr_dev.sources.queries import check_queries

        check_queries(mapping, named=str(path))
    return mapping


def shipped_names() -> tuple[str, ...]:
    """Name the shipped mappings."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob("*.yaml")))


def shipped_mapping(name: str) -> SourceMapping:
    """Read a shipped mapping.

    Raises:
        MappingInvalid: none of that name is shipped.
    """
    if name not in shipped_names():
        raise MappingInvalid(f"expected a shipped mapping ({', '.join(shipped_names())}), got {name!r}")
    return load_mapping(_shipped_file(name))


def _shipped_file(name: str) -> Path:
    return _SHIPPED / f"{name}.yaml"


def _bases(path: Path, extends: object) -> Iterator[dict[str, Any]]:
    """Give what the shipped mappings say that a file extends, the nearest first."""
    seen: set[object] = {path.stem} if path.parent == _SHIPPED else set()
    source = path
    while extends is not None:
        if extends not in shipped_names():
            raise MappingInvalid(
                f"{source}: expected extends to be one of {', '.join(shipped_names())}, got {extends!r}"
            )
        if extends in seen:
            raise MappingInvalid(f"{path}: expected extends to end, but {extends!r} extends itself")
        seen.add(extends)
        source = _shipped_file(str(extends))
        base = _read_object(source)
        yield base
        extends = base.get("extends")


def _read_object(path: Path) -> dict[str, Any]:
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MappingInvalid(f"{path}: cannot be read ({error.strerror})") from None
    try:
        keys: object = msgspec.json.decode(content) if kind == "JSON" else _yaml(content)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise MappingInvalid(f"{path}: expected a {kind} object: {error}") from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys):
        raise MappingInvalid(f"{path}: expected a {kind} object")
    return keys


def _yaml(content: bytes) -> object:
    import yaml

    try:
        # The C reader is five times as fast; both make plain objects only.
        return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _without_nulls(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in keys.items() if v is not None}
