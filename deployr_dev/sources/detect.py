"""Which mapping an extract is read with, when nobody says: by what lies in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deployr_dev.sources.fact_tables import FACT_TABLES
from deployr_dev.sources.mapping import (
    DEFAULT_MAPPING,
    MAPPINGS_BESIDE_TABLES,
    MappingInvalid,
    SourceMapping,
    load_mapping,
    shipped_mapping,
    shipped_names,
)
from deployr_dev.sources.tables import ENDINGS, files_of, text_column

if TYPE_CHECKING:
    import duckdb

NDJSON = (".ndjson", ".ndjson.gz")
_OMOP_53 = ("5.3", "v5.3")


def detect_mapping(connection: duckdb.DuckDBPyConnection, folder: Path) -> SourceMapping:
    """Choose the mapping of an extract; ``cdm_source`` is read, if there is one.

    Raises:
        MappingInvalid: the mapping beside the tables is none, or there are several.
        ExtractInvalid: ``cdm_source`` cannot be read.
    """
    names: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    if folder.is_dir():
        for path in files_of(folder, "cdm_source"):
            names += tuple(text_column(connection, path, ("cdm_source_name", "cdm_source_abbreviation")))
            versions += tuple(text_column(connection, path, ("cdm_version",)))
    return mapping_for(folder, cdm_source_names=names, cdm_versions=versions)


def mapping_for(
    folder: Path, *, cdm_source_names: tuple[str, ...], cdm_versions: tuple[str, ...] = ()
) -> SourceMapping:
    """Choose the mapping of an extract by the first of these that holds.

    A mapping beside its tables (``source.json``, ``source.yaml``); the shipped one that claims its name; NDJSON files
    (``fhir_ndjson``); the tables of STARR; files named like the fact tables (``flat``); the version of OMOP that it
    names; else ``omop54``.

    Args:
        folder: where the tables are.
        cdm_source_names: name and abbreviation in ``cdm_source``; empty without that table.
        cdm_versions: the version in ``cdm_source``.

    Raises:
        MappingInvalid: the mapping beside the tables is none, or there are several.
    """
    beside = [folder / name for name in MAPPINGS_BESIDE_TABLES if (folder / name).is_file()]
    if len(beside) > 1:
        raise MappingInvalid(f"{folder}: expected one mapping, got {', '.join(path.name for path in beside)}")
    if beside:
        return load_mapping(beside[0])
    if cdm_source_names:
        for name in shipped_names():
            mapping = shipped_mapping(name)
            if any(mapping.is_meant_for(source) for source in cdm_source_names):
                return mapping
    return shipped_mapping(_by_files(folder, cdm_versions))


def _by_files(folder: Path, cdm_versions: tuple[str, ...]) -> str:
    names = {path.name.lower() for path in folder.iterdir()} if folder.is_dir() else set()
    tables = {name.removesuffix(end) for name in names for end in (*ENDINGS, "") if name.endswith(end)}
    if any(name.endswith(NDJSON) for name in names):
        return "fhir_ndjson"
    if {"demographic", "lab_result"} & tables and "person" not in tables:
        return "starr"
    if "persons" in tables or ("person" not in tables and not tables.isdisjoint(FACT_TABLES)):
        return "flat"
    return (
        "omop53" if any(version.strip().lower().startswith(_OMOP_53) for version in cdm_versions) else DEFAULT_MAPPING
    )
