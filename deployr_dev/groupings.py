"""Mapping files: which code belongs to which group, read and checked before anything is fitted."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

import msgspec

from deployr_core.declared import MappedCode, MappedCodes, MappingFile
from deployr_core.features import CodeGroup, EthnicityGroup, FeatureSpec, Group, RaceGroup

COLUMNS = ("system", "code", "group")


class MappingFileInvalid(ValueError):
    """The mapping file is not what it must be; the message names the file and the line."""


def read_mapping(wish: MappingFile, *, beside: Path) -> MappedCodes:
    """Read a mapping: CSV in UTF-8 with the columns ``system`` (URI), ``code`` and ``group``.

    Args:
        wish: names the file; a relative path starts from ``beside``.
        beside: the folder of the declaration.

    Raises:
        MappingFileInvalid: no such file, other columns, an empty field, or a code that belongs to two groups.
    """
    path = beside / wish.path
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise MappingFileInvalid(f"{path}: expected a mapping file that can be read") from error
    except UnicodeDecodeError:
        raise MappingFileInvalid(f"{path}: expected a mapping file in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise MappingFileInvalid(f"{path}: expected the columns {', '.join(COLUMNS)}")
    lines: dict[tuple[str, str], MappedCode] = {}
    try:
        for row in reader:
            fields = [(row.get(column) or "").strip() for column in COLUMNS]
            where = f"{path}, line {reader.line_num}"
            if not all(fields) or None in row:
                raise MappingFileInvalid(f"{where}: expected {', '.join(COLUMNS)}, none of them empty")
            line = MappedCode(*fields)
            if lines.setdefault(line[:2], line) != line:
                raise MappingFileInvalid(
                    f"{path}, line {reader.line_num}: expected each code in one group, got a second one"
                )
    except csv.Error as error:
        raise MappingFileInvalid(f"{path}, line {reader.line_num}: expected CSV, got a broken line: {error}") from None
    if not lines:
        raise MappingFileInvalid(f"{path}: expected at least one code")
    return MappedCodes(
        name=wish.name, sha256=hashlib.sha256(content).hexdigest(), codes=tuple(lines[key] for key in sorted(lines))
    )


def resolve_mappings(spec: FeatureSpec, *, beside: Path) -> FeatureSpec:
    """Give the declaration with every mapping file read into it.

    Raises:
        MappingFileInvalid: see `read_mapping`.
    """
    return msgspec.structs.replace(spec, groups=tuple(_resolved(group, beside) for group in spec.groups))


def _resolved(group: Group, beside: Path) -> Group:
    if not isinstance(group, CodeGroup | RaceGroup | EthnicityGroup) or not isinstance(group.grouping, MappingFile):
        return group
    path = beside / group.grouping.path
    try:
        return msgspec.structs.replace(group, grouping=read_mapping(group.grouping, beside=beside))
    except MappingFileInvalid:
        raise
    except ValueError as error:
        raise MappingFileInvalid(f"{path}: {error}") from None
