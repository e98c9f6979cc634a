"""An extract is recognised by what lies in its folder, and a source can be named on a command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deployr_dev.sources.detect import mapping_for
from deployr_dev.sources.extract import open_source
from deployr_dev.sources.mapping import MappingInvalid
from deployr_dev.sources.tables import ExtractInvalid

MakeExtract = Callable[..., Path]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["Patient.ndjson.gz"], "fhir_ndjson"),
        (["PERSON.csv", "MEASUREMENT.csv", "deaths.csv"], "omop54"),
        (["persons.xlsx"], "flat"),
        (["labs.parquet", "persons"], "flat"),
        (["demographic.csv", "lab_result.parquet"], "starr"),
        ([], "omop54"),
    ],
)
def test_the_files_choose_the_mapping(tmp_path: Path, files: list[str], name: str):
    for file in files:
        (tmp_path / file).touch()

    assert mapping_for(tmp_path, cdm_source_names=()).name == name


def test_the_version_in_cdm_source_chooses_omop_53(tmp_path: Path):
    assert mapping_for(tmp_path, cdm_source_names=("a hospital",), cdm_versions=("v5.3.1",)).name == "omop53"


def test_two_mappings_beside_the_tables_are_refused(tmp_path: Path):
    for name in ("source.json", "source.yaml"):
        (tmp_path / name).write_text('{"name": "ours"}')

    with pytest.raises(MappingInvalid, match=r"expected one mapping, got source\.json, source\.yaml"):
        mapping_for(tmp_path, cdm_source_names=())


def test_a_source_is_a_folder_or_a_mapping_and_a_folder(make_extract: MakeExtract, tmp_path: Path):
    folder = make_extract()
    ours = tmp_path / "ours.json"
    ours.write_text('{"name": "ours", "time_zone": "-05:00"}')

    for source, mapping, name in ((f"{folder}", None, "omop54"), (f"omop53:{folder}", None, "omop53")):
        with open_source(source, mapping) as extract:
            assert extract.mapping.name == name
    with open_source(str(folder), ours) as extract:
        assert extract.mapping.time_zone == "-05:00"


def test_a_source_without_a_folder_or_with_a_name_that_is_none_is_refused():
    with pytest.raises(ExtractInvalid, match="expected a folder after omop54:"):
        open_source("omop54:")
    with pytest.raises(MappingInvalid, match=r"expected a shipped mapping \(.*starr\), got 'clarity'"):
        open_source("clarity:at/all")


def test_a_name_and_a_file_are_one_too_many(make_extract: MakeExtract, tmp_path: Path):
    with pytest.raises(ExtractInvalid, match="got both"):
        open_source(f"omop54:{make_extract()}", tmp_path / "ours.json")
