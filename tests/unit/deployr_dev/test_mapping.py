"""Which conventions an extract is read with."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

import pytest

from deployr_dev.sources.detect import mapping_for
from deployr_dev.sources.mapping import (
    MappingInvalid,
    load_mapping,
    shipped_mapping,
    shipped_names,
)


def written(folder: Path, text: str) -> Path:
    path = folder / "source.json"
    path.write_text(text)
    return path


def test_every_shipped_mapping_can_be_read():
    assert [shipped_mapping(name).name for name in shipped_names()] == [
        "deployr_synthetic",
        "eicu_demo",
        "fhir_ndjson",
        "flat",
        "omop53",
        "omop54",
        "starr",
    ]


def test_the_default_assumes_utc_and_no_local_systems():
    mapping = shipped_mapping("omop54")

    assert (mapping.zone, mapping.local_systems, mapping.result_delay_minutes) == (UTC, {}, 60)


def test_the_eicu_demo_is_five_hours_behind_utc_and_codes_drugs_by_hicl():
    mapping = shipped_mapping("eicu_demo")

    assert mapping.zone.utcoffset(None) == timedelta(hours=-5)
    assert mapping.local_systems == {"drug_exposure": "urn:fdb:hicl"}


def test_a_file_replaces_keys_of_what_it_extends_and_adds_to_its_local_systems(tmp_path: Path):
    path = written(
        tmp_path,
        '{"name": "ours", "extends": "eicu_demo", "time_zone": "UTC", "local_systems": {"measurement": "urn:ours"}}',
    )

    mapping = load_mapping(path)

    assert mapping.name == "ours"
    assert mapping.zone is UTC
    assert mapping.local_systems == {"drug_exposure": "urn:fdb:hicl", "measurement": "urn:ours"}


def test_a_file_does_not_claim_the_extracts_that_its_base_claims(tmp_path: Path):
    assert not load_mapping(written(tmp_path, '{"name": "ours", "extends": "eicu_demo"}')).cdm_source_name_contains


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"name": "x", "timezone": "UTC"}', "timezone"),
        ('{"name": "x", "time_zone": "Mars/Olympus"}', "Mars/Olympus"),
        ('{"name": "x", "local_systems": {"persons": "urn:x"}}', "persons"),
        ('{"name": "x", "local_systems": 3}', "local_systems"),
        ('{"name": "x", "result_delay_minutes": -1}', "result_delay_minutes"),
        ('{"name": "x", "extends": "omop99"}', "omop99"),
        ('{"time_zone": "UTC"}', "name"),
        ("[]", "object"),
        ("{", "JSON"),
    ],
)
def test_a_file_that_does_not_say_what_it_must_is_refused_by_name(tmp_path: Path, text: str, named: str):
    path = written(tmp_path, text)

    with pytest.raises(MappingInvalid, match=named) as raised:
        load_mapping(path)

    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path):
    with pytest.raises(MappingInvalid, match=r"absent\.json: cannot be read"):
        load_mapping(tmp_path / "absent.json")


def test_an_unknown_shipped_mapping_is_refused_with_those_that_there_are():
    with pytest.raises(MappingInvalid, match="eicu_demo"):
        shipped_mapping("clarity")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("eICU-CRD demo subset (open, ODbL)",), "eicu_demo"),
        (("a hospital", "DEPLOYR SYNTHETIC"), "deployr_synthetic"),
        (("a hospital",), "omop54"),
        ((), "omop54"),
    ],
)
def test_the_name_in_cdm_source_chooses_the_mapping(tmp_path: Path, names: tuple[str, ...], chosen: str):
    assert mapping_for(tmp_path, cdm_source_names=names).name == chosen


def test_a_file_beside_the_tables_goes_before_the_name_in_cdm_source(tmp_path: Path):
    written(tmp_path, '{"name": "ours"}')

    assert mapping_for(tmp_path, cdm_source_names=("eICU-CRD demo",)).name == "ours"
