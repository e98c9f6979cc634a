"""Training on real patients: the extract is read whole, the cohort is the paper's, the model is worth something."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deployr_core.instants import parse_instant
from deployr_core.label_rules import horizon
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.cohort import cohort_rows
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from deployr_dev.training import train_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def extract(eicu: Path) -> Iterator[Extract]:
    with Extract.open(eicu / "omop") as opened:
        yield opened


def resources(eicu: Path, kind: str) -> Iterator[dict[str, object]]:
    with gzip.open(eicu / "fhir" / f"{kind}.ndjson.gz", "rb") as lines:
        yield from (msgspec.json.decode(line) for line in lines)


def test_the_extract_is_recognised_and_read_whole(extract: Extract):
    facts = Counter[str]()
    for patient in extract.patients():
        facts.update(patients=1, labs=len(patient.labs), diagnoses=len(patient.diagnoses))
        facts.update(medications=len(patient.medications), uncoded=sum(not fact.codes for fact in patient.medications))

    assert extract.mapping.name == "eicu_demo"
    assert not any(extract.undated_rows.values())
    assert facts == {"patients": 100, "labs": 14704, "diagnoses": 861, "medications": 4674, "uncoded": 158}


def test_results_are_drawn_and_released_when_fhir_says_so(extract: Extract, eicu: Path):
    in_fhir = {
        str(observation["id"]).removeprefix("eicu-l-"): (
            parse_instant(str(observation["effectiveDateTime"])),
            parse_instant(str(observation["issued"])),
        )
        for observation in resources(eicu, "Observation")
    }
    in_omop = {lab.fact_id: (lab.at, lab.known_at) for patient in extract.patients() for lab in patient.labs}

    assert in_omop == in_fhir


def test_medications_are_ordered_when_fhir_says_so(extract: Extract, eicu: Path):
    in_fhir = {
        str(request["id"]).removeprefix("eicu-m-"): parse_instant(str(request["authoredOn"]))
        for request in resources(eicu, "MedicationRequest")
    }

    assert {fact.fact_id: fact.known_at for patient in extract.patients() for fact in patient.medications} == in_fhir


def test_persons_are_the_patients_of_fhir(extract: Extract, eicu: Path):
    identifiers = {patient["identifier"][0]["value"] for patient in resources(eicu, "Patient")}  # type: ignore[index]

    assert set(extract.patient_source_values().values()) == identifiers


def test_the_cohort_is_every_blood_count_and_four_fifths_of_the_labels_are_abnormal(extract: Extract):
    task = shipped_task("hematocrit")
    rows = cohort_rows(extract, task)
    labels = [row.label for row in rows if row.label is not None]
    late = horizon(task.label)
    assert late is not None

    # 938 of the 1,000 orders have a hematocrit; two were released more than 72 hours after their order.
    assert len(rows) == 1000
    assert len(labels) == 936
    assert sum(labels) / len(labels) == pytest.approx(0.81, abs=0.005)
    assert all(row.index_time < row.label_known_at + late for row in rows if row.label_known_at is not None)


def test_the_model_tells_orders_of_unseen_patients_apart_and_comes_out_the_same_twice(extract: Extract, tmp_path: Path):
    task, declaration = shipped_task("hematocrit"), shipped_declaration("hematocrit")

    first = train_bundle(extract, task, declaration, seed=0)
    second = train_bundle(extract, task, declaration, seed=0)

    auroc = first.manifest.evaluation.figures["auroc"]
    assert 0.75 < auroc.value < 0.95
    assert auroc.low < auroc.value
    assert (first.manifest.to_json(), first.parts) == (second.manifest.to_json(), second.parts)
    assert write_bundle(first, tmp_path / "hematocrit").manifest == first.manifest


@pytest.mark.parametrize(
    ("name", "figure", "least", "most"),
    [
        ("platelets_level", "auroc", 0.75, 1.0),
        ("cbc_panel", "auroc", 0.7, 1.0),
        ("hemoglobin_value", "mae", 0.4, 1.5),
        ("length_of_stay", "mae", 1.0, 10.0),
    ],
)
def test_other_targets_are_trained_measured_and_written(
    extract: Extract, tmp_path: Path, name: str, figure: str, least: float, most: float
):
    task = shipped_task(name)

    trained = train_bundle(extract, task, shipped_declaration(task.declaration), engine=SetEngine(extract), seed=0)

    assert least < trained.manifest.evaluation.figures[figure].value < most
    opened = write_bundle(trained, tmp_path / name)
    assert opened.manifest.task.outputs == task.outputs
