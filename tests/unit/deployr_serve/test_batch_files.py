"""Batches as data: what a file may say, how it is refused, and which sizes of a worklist are plausible."""

from __future__ import annotations

import pytest

from deployr_core.packet import Mode
from deployr_core.strict_yaml import parse_yaml
from deployr_serve.adapters.batch_files import read_batches
from deployr_serve.core.batch import Band, Batch, CsvDrop, EncounterSearch, SqlReport, UnitCensus
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.policy import Policies, Policy

WHOLE = """
schema_version: 1
name: icu
models: [hematocrit]
schedule: "0 0 6 * * *"
zone: America/Chicago
worklist: {from: census, units: ["10101"], patient_id_type: MRN}
chunk_size: 25
band: {at_least: 2, at_most: 40, least_of_usual: 0.5, most_of_usual: 2.0, usual_runs: 5}
start_within_minutes: 30
"""
SHORT = """
schema_version: 1
name: icu
models: [hematocrit]
schedule: "0 0 6 * * *"
worklist: {from: fhir, locations: [loc1]}
"""


@pytest.fixture
def read(tmp_path, models_of, bundle):
    """Give a function that reads a folder with these files, by name."""

    def make(policies=(), **files):
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        declared = Policies(declared={policy.model: policy for policy in policies})
        return read_batches(tmp_path, models=models_of(hematocrit=bundle), policies=declared)

    return make


def test_a_file_declares_a_batch(read):
    (batch,) = read(icu=WHOLE)
    assert batch.worklist == UnitCensus(units=("10101",), patient_id_type="MRN")
    assert batch.band == Band(at_least=2, at_most=40, least_of_usual=0.5, most_of_usual=2.0, usual_runs=5)
    assert (batch.chunk_size, batch.start_within_minutes, batch.zone) == (25, 30, "America/Chicago")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("{from: fhir, locations: [loc1]}", EncounterSearch),
        ("{from: csv, file: /drop/icu.csv}", CsvDrop),
        ("{from: sql, query: SELECT 1}", SqlReport),
    ],
)
def test_each_kind_of_worklist_is_named(text, shape):
    batch = parse_yaml(SHORT.replace("{from: fhir, locations: [loc1]}", text).encode(), Batch)
    assert isinstance(batch.worklist, shape)


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("schedule:", "shedule:", "icu.yaml: unknown key 'shedule'; did you mean 'schedule'"),
        ("at_least:", "at_leest:", "icu.yaml: unknown key 'at_leest' in band; did you mean 'at_least'"),
        ("units:", "unit:", "icu.yaml: unknown key 'unit' in worklist"),
        ("from: census", "from: list", "icu.yaml: .*worklist"),
        ("models: [hematocrit]", "models: [hemoglobin]", "icu.yaml: models: expected some that are deployed here"),
        ("models: [hematocrit]", "group: anemia", "icu.yaml: group: expected one that a deployment file names"),
        ("models: [hematocrit]", "models: []", "icu.yaml: .*either models or a group"),
        ('"0 0 6 * * *"', '"0 6 * * *"', "icu.yaml: .*six fields"),
        ("America/Chicago", "America/Chikago", "icu.yaml: "),
        ("name: icu", "name: ICU 7", "icu.yaml: .*name"),
        ("chunk_size: 25", "chunk_size: 0", "icu.yaml: .*chunk_size"),
        ("schema_version: 1", "schema_version: 2", "icu.yaml: .*schema_version"),
    ],
)
def test_what_is_wrong_is_refused_by_file_and_key(read, was, becomes, complaint):
    assert was in WHOLE
    with pytest.raises(SettingsInvalid, match=complaint):
        read(icu=WHOLE.replace(was, becomes))


def test_two_files_about_one_batch_are_refused(read):
    with pytest.raises(SettingsInvalid, match=r"icu2\.yaml: name: expected one file for icu"):
        read(icu=WHOLE, icu2=SHORT)


def test_a_group_is_the_models_that_name_it(read):
    policy = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, groups=("anemia",))
    (batch,) = read((policy,), icu=SHORT.replace("models: [hematocrit]", "group: anemia"))
    assert batch.group == "anemia"


def test_no_folder_is_no_batch(models_of):
    assert read_batches(None, models=models_of(), policies=Policies(declared={})) == ()


# -- how many are plausible

USUAL = (590, 600, 610)


def test_nobody_is_a_failure_even_where_nothing_is_known():
    assert Band().too_small(0, ())
    assert not Band().too_small(1, ())
    assert not Band(at_least=0).too_small(0, ())


def test_a_quarter_of_what_is_usual_is_enough_and_one_less_is_not():
    assert not Band().too_small(150, USUAL)
    assert Band().too_small(149, USUAL)


def test_four_times_what_is_usual_is_not_too_many_and_one_more_is():
    assert not Band().too_large(2400, USUAL)
    assert Band().too_large(2401, USUAL)
    assert Band().too_large(6000, USUAL)


def test_two_runs_tell_nothing_of_what_is_usual():
    assert not Band().too_small(1, (600, 600))
    assert not Band().too_large(5000, (600, 600))
    assert Band().too_large(5001, (600, 600))


def test_only_the_last_runs_count():
    assert not Band(usual_runs=3).too_small(10, (600, 600, 600, 10, 10, 10))


def test_a_unit_of_a_few_may_be_empty_and_may_fill_up():
    small = Band(at_least=0)
    assert not small.too_large(40, (0, 2, 1))
    assert small.too_large(41, (0, 2, 1))
    assert not small.too_small(0, (4, 4, 4))
    assert small.too_small(0, (10, 10, 10))
