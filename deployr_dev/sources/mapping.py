"""What an extract does not say about itself: the zone of its times, the systems of its local codes."""

from __future__ import annotations

from datetime import tzinfo
from pathlib import Path
from typing import Any

import msgspec

from deployr_core.instants import parse_zone

DEFAULT_MAPPING = "omop54"
MAPPING_BESIDE_TABLES = "source.json"
CODED_TABLES = frozenset({"condition_occurrence", "drug_exposure", "measurement"})
_SHIPPED = Path(__file__).parent


class MappingInvalid(ValueError):
    """The mapping file does not say what it must; the message names the file and the key."""


class SourceMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One warehouse's conventions. What a file leaves out it takes from the shipped mapping that it ``extends``.

    ``cdm_source_name_contains``: an extract whose ``cdm_source`` name or abbreviation holds one of these texts,
    in any case, gets this mapping unasked. ``time_zone``: of times written without one: ``UTC``, a fixed offset
    or an IANA name. ``local_systems``: table to the coding system (URI) of its source values, used where a row
    names no concept. ``result_delay_minutes``: how long after the specimen a result without an order is taken
    to be known.

    Raises:
        ValueError: no such zone, a table without codes, or a negative delay.
    """

    name: str
    extends: str | None = None
    cdm_source_name_contains: tuple[str, ...] = ()
    time_zone: str = "UTC"
    local_systems: dict[str, str] = {}
    result_delay_minutes: int = 60

    def __post_init__(self) -> None:
        parse_zone(self.time_zone)
        if unknown := set(self.local_systems) - CODED_TABLES:
            raise ValueError(f"expected local_systems of {', '.join(sorted(CODED_TABLES))}, got {sorted(unknown)}")
        if self.result_delay_minutes < 0:
            raise ValueError("expected result_delay_minutes of at least 0")

    @property
    def zone(self) -> tzinfo:
        """The zone of times written without one."""
        return parse_zone(self.time_zone)

    def is_meant_for(self, cdm_source_name: str) -> bool:
        """True when this mapping claims an extract of that name."""
        return any(part.casefold() in cdm_source_name.casefold() for part in self.cdm_source_name_contains)


def load_mapping(path: Path) -> SourceMapping:
    """Read a mapping file, and under it the shipped ones that it extends.

    A file's ``local_systems`` are added to those of the mapping that it extends; any other key replaces.

    Raises:
        MappingInvalid: cannot be read, not JSON, a key unknown or of the wrong type, or ``extends`` leads nowhere.
    """
    keys: dict[str, Any] = {}
    seen: set[Path] = set()
    source: Path | None = path
    while source is not None:
        if source in seen:
            raise MappingInvalid(f"{path}: expected extends to end, but {source.stem!r} extends itself")
        seen.add(source)
        own = _read_object(source)
        systems = {**_local_systems(own, source), **keys.get("local_systems", {})}
        base = own.get("extends")
        if base is not None and base not in shipped_names():
            raise MappingInvalid(f"{source}: expected extends to be one of {', '.join(shipped_names())}, got {base!r}")
        # A site's mapping does not inherit which extracts its base claims.
        inherited = own if source == path else {k: v for k, v in own.items() if k != "cdm_source_name_contains"}
        keys = {**inherited, **keys, "local_systems": systems}
        source = None if base is None else _SHIPPED / f"{base}.json"
    try:
        return msgspec.convert(keys, type=SourceMapping)
    except (msgspec.ValidationError, ValueError) as error:
        raise MappingInvalid(f"{path}: {error}") from None


def shipped_names() -> tuple[str, ...]:
    """Name the shipped mappings."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob("*.json")))


def shipped_mapping(name: str) -> SourceMapping:
    """Read a shipped mapping.

    Raises:
        MappingInvalid: none of that name is shipped.
    """
    if name not in shipped_names():
        raise MappingInvalid(f"expected a shipped mapping ({', '.join(shipped_names())}), got {name!r}")
    return load_mapping(_SHIPPED / f"{name}.json")


def mapping_for(folder: Path, *, cdm_source_names: tuple[str, ...]) -> SourceMapping:
    """Choose the mapping of an extract: ``source.json`` beside its tables, else the one that claims its name.

    Args:
        folder: where the tables are.
        cdm_source_names: name and abbreviation in ``cdm_source``; empty without that table.

    Raises:
        MappingInvalid: ``source.json`` is not a mapping.
    """
    if (folder / MAPPING_BESIDE_TABLES).is_file():
        return load_mapping(folder / MAPPING_BESIDE_TABLES)
    for name in shipped_names():
        mapping = shipped_mapping(name)
        if any(mapping.is_meant_for(source) for source in cdm_source_names):
            return mapping
    return shipped_mapping(DEFAULT_MAPPING)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise MappingInvalid(f"{path}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MappingInvalid(f"{path}: expected a JSON object: {error}") from None


def _local_systems(own: dict[str, Any], source: Path) -> dict[str, Any]:
    systems = own.get("local_systems", {})
    if not isinstance(systems, dict):
        raise MappingInvalid(f"{source}: expected local_systems to be an object of table to system")
    return systems
