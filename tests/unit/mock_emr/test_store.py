from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mock_emr.loading import LoadError, load_folder
from mock_emr.store import CSN_SYSTEM, Store, StoreError, csn_of, made_csn

Resource = dict[str, Any]
Make = Callable[..., Resource]
Stores = Callable[..., Store]

NOW = datetime(2015, 6, 1, tzinfo=UTC)
PATIENT = b'{"resourceType":"Patient","id":"p1"}'


def test_an_encounter_without_a_csn_gets_one_that_is_the_same_every_time(store_of: Stores, encounter: Make) -> None:
    form = store_of(encounter()).read("Encounter", "e1", now=NOW)
    assert form is not None
    (identifier,) = msgspec.json.decode(form.body)["identifier"]
    assert identifier == {"use": "usual", "type": {"text": "CSN"}, "system": CSN_SYSTEM, "value": made_csn("e1")}
    assert made_csn("e1") == made_csn("e1") != made_csn("e2")
    assert made_csn("e1").isdigit()


def test_an_encounter_keeps_the_identifiers_it_came_with(store_of: Stores, encounter: Make) -> None:
    visit = {"system": "urn:visit", "value": "1"}
    csn = {"system": CSN_SYSTEM, "value": "42"}
    store = store_of(encounter("e1", identifier=[visit]), encounter("e2", identifier=[visit, csn]))
    first, second = (store.read("Encounter", name, now=NOW) for name in ("e1", "e2"))
    assert first is not None
    assert second is not None
    assert [held["value"] for held in msgspec.json.decode(first.body)["identifier"]] == ["1", made_csn("e1")]
    assert msgspec.json.decode(second.body)["identifier"] == [visit, csn]


def test_an_identifier_that_is_called_csn_is_one_under_any_system() -> None:
    assert csn_of({"identifier": [{"type": {"text": "CSN"}, "system": "urn:site", "value": "9"}]}) == "9"
    assert csn_of({"identifier": [{"type": "CSN", "value": "9"}]}) is None


def test_an_encounter_is_found_by_its_csn_once_it_shows(store_of: Stores, encounter: Make) -> None:
    store = store_of(encounter())
    assert store.encounter_with_csn(made_csn("e1"), now=NOW) is not None
    assert store.encounter_with_csn(made_csn("e1"), now=datetime(2015, 1, 1, tzinfo=UTC)) is None
    assert store.encounter_with_csn("1", now=NOW) is None


def test_two_resources_with_one_id_are_refused(store_of: Stores, observation: Make) -> None:
    with pytest.raises(StoreError, match="line 2"):
        store_of(observation("l1"), observation("l1"))


def test_two_encounters_with_one_csn_are_refused(store_of: Stores, encounter: Make) -> None:
    csn = [{"system": CSN_SYSTEM, "value": "42"}]
    with pytest.raises(StoreError, match="line 2"):
        store_of(encounter("e1", identifier=csn), encounter("e2", identifier=csn))


@pytest.mark.parametrize("elements", [{"issued": "soon"}, {"effectiveDateTime": "soon"}])
def test_a_date_that_cannot_be_read_names_its_line(store_of: Stores, observation: Make, elements: Resource) -> None:
    with pytest.raises(StoreError, match="line 2"):
        store_of(observation("l1"), observation("l2", **elements))


def test_a_resource_is_answered_with_the_very_bytes_it_was_loaded_from(tmp_path: Path) -> None:
    line = b'{"resourceType": "Observation", "id": "l1", "valueQuantity": {"value": 37.50}}'
    (tmp_path / "Observation.ndjson").write_bytes(line + b"\n")
    form = load_folder(tmp_path).read("Observation", "l1", now=NOW)
    assert form is not None
    assert form.body == line


def test_plain_and_gzipped_files_are_loaded_and_empty_lines_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b"\n" + PATIENT + b"\r\n\n")
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(b'{"resourceType":"Medication","id":"m"}'))
    (tmp_path / "README.md").write_text("not data")
    store = load_folder(tmp_path)
    assert {name: store.count(name) for name in store.types()} == {"Medication": 1, "Patient": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"resourceType":"Patient"}',
        b'{"resourceType":"Patient","id":7}',
        b'{"resourceType":"Patient","id":"a/b"}',
        b'{"resourceType":"patient of ours","id":"p1"}',
        b'{"id":"p1"}',
        b'{"resourceType":"Patient","id":"p1","n":NaN}',
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "Patient.ndjson").write_bytes(PATIENT + b"\n\n" + line)
    with pytest.raises(LoadError, match=r"Patient\.ndjson: line 3: "):
        load_folder(tmp_path)


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    lines = b"\n".join(json.dumps({"resourceType": "Patient", "id": f"p{n}"}).encode() for n in range(1000))
    (tmp_path / "Patient.ndjson.gz").write_bytes(gzip.compress(lines)[:-20])
    with pytest.raises(LoadError, match=r"Patient\.ndjson\.gz: cannot be read after line"):
        load_folder(tmp_path)


def test_garbage_is_collected_again_after_loading_well_or_badly(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_bytes(PATIENT)
    load_folder(tmp_path)
    assert gc.isenabled()
    (tmp_path / "Patient.ndjson").write_bytes(b"{")
    with pytest.raises(LoadError):
        load_folder(tmp_path)
    assert gc.isenabled()


def test_a_folder_that_is_missing_or_holds_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="expected a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(LoadError, match="holds no"):
        load_folder(tmp_path)
