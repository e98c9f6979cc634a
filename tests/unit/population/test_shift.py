"""Each knob of infrastructure shift does what it says, on the side or from the week that it says, and nothing else."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mock_emr.population.columns import Population
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop
from mock_emr.population.shift import NO_SHIFT, OTHER_UNITS, SHIFTED, InfrastructureShift, read_shift
from mock_emr.population.told import LOCAL_SYSTEM

Rows = Mapping[str, list[dict[str, Any]]]
Told = Callable[..., tuple[Rows, Rows]]
ROOT = Path(__file__).parents[3]
BASE = PopulationConfig(seed=11, patients=60, weeks=4, cancelled_share=0, corrected_share=0, rangeless_share=0)
LOINC_OF = {"Hemoglobin": "718-7", "Creatinine": "2160-0", "Glucose": "2345-7"}


def _omop(population: Population, folder: Path) -> Rows:
    write_omop(population, folder)
    return {path.stem: pq.read_table(path).to_pylist() for path in folder.iterdir()}


def _fhir(population: Population, folder: Path) -> Rows:
    write_fhir(population, folder)
    return {
        path.name.partition(".")[0]: [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for path in folder.iterdir()
    }


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """Give a function that tells the same hospital twice through some knobs."""

    def tell(**knobs: Any) -> tuple[Rows, Rows]:
        population = generate(replace(BASE, shift=InfrastructureShift(**knobs)))
        return _omop(population, tmp_path / "omop"), _fhir(population, tmp_path / "fhir")

    return tell


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, Rows]:
    """The same hospital without any knob."""
    folder, population = tmp_path_factory.mktemp("plain"), generate(BASE)
    return _omop(population, folder / "omop"), _fhir(population, folder / "fhir")


def _same_but(rows: Rows, others: Rows, *names: str) -> bool:
    return all(rows[name] == others[name] for name in rows if name not in names)


def test_no_knob_is_on_unless_asked_for() -> None:
    assert PopulationConfig().shift == NO_SHIFT == InfrastructureShift()


def test_unmapped_codes_are_local_codes_over_fhir_alone(told: Told, plain: tuple[Rows, Rows]) -> None:
    omop, fhir = told(unmapped_diagnoses=0.3, unmapped_drugs=0.25, unmapped_analytes=2 / 14)
    (systems, before) = (
        {one["code"]["coding"][0]["code"]: one["code"]["coding"][0]["system"] for one in rows["Condition"]}
        for rows in (fhir, plain[1])
    )
    local = [code for code, system in systems.items() if system == LOCAL_SYSTEM]

    assert omop == plain[0]
    # 3 in 10 of 43 diagnoses are 13; not every one occurs in so few patients.
    assert 8 <= len(local) <= 13
    assert len(systems) == len(before)
    results = {one["code"]["coding"][0]["code"] for one in fhir["Observation"]}
    assert len([code for code in results if code.startswith("LAB-")]) == 2
    drugs = [one["medicationCodeableConcept"]["coding"][0] for one in fhir["MedicationRequest"]]
    assert any(one["system"] == LOCAL_SYSTEM for one in drugs)
    assert _same_but(fhir, plain[1], "Condition", "MedicationRequest", "Observation")


def test_unmapped_codes_can_be_the_warehouse_s_own(told: Told, plain: tuple[Rows, Rows]) -> None:
    omop, fhir = told(unmapped_diagnoses=0.3, unmapped_drugs=0.3, unmapped_analytes=0.2, unmapped_side="omop")

    assert fhir == plain[1]
    assert _same_but(omop, plain[0], "condition_occurrence", "drug_exposure", "measurement")
    for row in omop["condition_occurrence"]:
        assert row["condition_source_value"].startswith("DX-") == (row["condition_source_concept_id"] == 0)
    unmapped = {row["measurement_source_value"] for row in omop["measurement"] if row["measurement_concept_id"] == 0}
    assert len(unmapped) == round(0.2 * 14)
    assert any(row["drug_source_value"].startswith("RX-") for row in omop["drug_exposure"])


@pytest.mark.parametrize("labelled", [True, False])
def test_other_units_are_told_over_fhir_alone(told: Told, plain: tuple[Rows, Rows], labelled: bool) -> None:
    omop, fhir = told(other_units=("Creatinine", "Hemoglobin"), units_labelled=labelled)
    before = {one["id"]: one for one in plain[1]["Observation"]}

    assert omop == plain[0]
    assert _same_but(fhir, plain[1], "Observation")
    for one in fhir["Observation"]:
        name, old, new = one["code"]["text"], before[one["id"]]["valueQuantity"], one["valueQuantity"]
        if name not in ("Creatinine", "Hemoglobin"):
            assert one == before[one["id"]]
            continue
        unit, factor, _ = OTHER_UNITS[name]
        # Both are reported without decimals there: half a unit at most.
        assert abs(new["value"] - old["value"] * factor) <= 0.5
        assert new["unit"] == new["code"] == (unit if labelled else old["unit"])
        limit = one["referenceRange"][0]["low"]
        assert abs(limit["value"] - before[one["id"]]["referenceRange"][0]["low"]["value"] * factor) <= 0.5
        assert limit["unit"] == new["unit"]


def test_other_units_can_be_the_warehouse_s(told: Told, plain: tuple[Rows, Rows]) -> None:
    omop, fhir = told(other_units=("Glucose",), units_side="omop")
    values = {row["measurement_id"]: row["value_as_number"] for row in plain[0]["measurement"]}

    assert fhir == plain[1]
    for row in omop["measurement"]:
        is_glucose = row["measurement_source_value"] == LOINC_OF["Glucose"]
        assert (row["unit_source_value"], row["unit_concept_id"] == 8753) == ("mmol/L", True) or not is_glucose
        expected = values[row["measurement_id"]] * (0.05551 if is_glucose else 1)
        assert abs(row["value_as_number"] - expected) <= (0.05 + 1e-9 if is_glucose else 0)


def test_late_results_come_late_over_fhir_alone(told: Told, plain: tuple[Rows, Rows]) -> None:
    omop, fhir = told(late_share=0.4, late_hours=10)
    before = {one["id"]: np.datetime64(one["issued"][:19]) for one in plain[1]["Observation"]}
    hours = np.array(
        [
            (np.datetime64(one["issued"][:19]) - before[one["id"]]) / np.timedelta64(1, "h")
            for one in fhir["Observation"]
        ]
    )
    late = hours[hours > 0]

    assert omop == plain[0]
    # Binomial: n is over 3,000, so four standard errors are 0.036.
    assert len(hours) > 3_000
    assert abs(len(late) / len(hours) - 0.4) < 0.036
    assert 5 <= late.min() < late.max() <= 15
    # Uniform on 5 to 15 hours: the standard error is 10 / sqrt(12 * 1,200) = 0.083.
    assert abs(late.mean() - 10) < 4 * 0.083
    for one in fhir["Observation"]:
        one.pop("issued")
    assert _same_but(fhir, plain[1], "Observation")
    assert fhir["Observation"] == [
        {name: value for name, value in one.items() if name != "issued"} for one in plain[1]["Observation"]
    ]


def test_elements_are_missing_over_fhir_alone_in_their_share(told: Told, plain: tuple[Rows, Rows]) -> None:
    elements = ("Condition.recordedDate", "Observation.referenceRange")
    omop, fhir = told(missing_elements=elements, missing_share=0.25)

    assert omop == plain[0]
    assert _same_but(fhir, plain[1], "Condition", "Observation")
    for path in elements:
        name, _, element = path.partition(".")
        missing = np.mean([element not in one for one in fhir[name]])
        assert abs(missing - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(fhir[name]))
        restored = [one | {element: old[element]} for one, old in zip(fhir[name], plain[1][name], strict=True)]
        assert restored == plain[1][name]


def test_a_new_analyser_multiplies_chemistry_of_its_ward_from_its_week_on(told: Told, plain: tuple[Rows, Rows]) -> None:
    omop, fhir = told(analyser_ward="MED", analyser_from_week=2, analyser_factor=1.5)
    before = {one["id"]: one for one in plain[1]["Observation"]}
    begins = np.datetime64("2025-01-20T00:00:00")
    where = {
        one["id"]: [
            (np.datetime64(place["period"]["start"][:19]), np.datetime64(place["period"]["end"][:19]))
            for place in one["location"]
            if place["location"]["identifier"]["value"] == "MED"
        ]
        for one in fhir["Encounter"]
    }
    changed = 0

    assert omop == plain[0]
    assert _same_but(fhir, plain[1], "Observation")
    for one in fhir["Observation"]:
        drawn = np.datetime64(one["effectiveDateTime"][:19])
        spans = where[one["encounter"]["reference"].removeprefix("Encounter/")]
        blood_count = one["code"]["text"] in ("Hematocrit", "Hemoglobin", "Leukocytes", "Platelets")
        new = drawn >= begins and any(start <= drawn < end for start, end in spans) and not blood_count
        old = before[one["id"]]["valueQuantity"]["value"]
        assert abs(one["valueQuantity"]["value"] - old * (1.5 if new else 1)) <= (0.5 + 1e-9 if new else 0)
        assert one["referenceRange"] == before[one["id"]]["referenceRange"]
        changed += bool(new)
    assert changed > 100


def test_case_mix_drifts_from_its_week_on_in_both_tellings_alike(told: Told, plain: tuple[Rows, Rows]) -> None:
    omop, fhir = told(drift_from_week=2, drift_severity=3.0)
    begins = np.datetime64("2025-01-20T00:00:00")
    by_id = {one["id"]: one["valueQuantity"]["value"] for one in fhir["Observation"]}

    assert omop["person"] == plain[0]["person"]
    assert omop["visit_occurrence"][0]["visit_start_datetime"] < begins
    assert all(by_id[f"syn-l-{row['measurement_id']}"] == row["value_as_number"] for row in omop["measurement"])
    means = {}
    for name, rows in (("drifted", omop), ("plain", plain[0])):
        started = {row["visit_occurrence_id"]: row["visit_start_datetime"] for row in rows["visit_occurrence"]}
        for after in (False, True):
            means[name, after] = np.mean(
                [
                    row["value_as_number"]
                    for row in rows["measurement"]
                    if row["measurement_source_value"] == LOINC_OF["Hemoglobin"]
                    and (np.datetime64(started[row["visit_occurrence_id"]]) >= begins) == after
                ]
            )
    # Three standard deviations of anemia take 3.9 g/dL of hemoglobin from women and 4.5 from men, down to a floor.
    assert means["drifted", True] < means["plain", True] - 2
    assert abs(means["drifted", False] - means["plain", False]) < 0.5


def test_stays_are_shorter_from_the_week_of_the_drift_on_in_both_tellings_alike(
    told: Told, plain: tuple[Rows, Rows]
) -> None:
    omop, fhir = told(drift_from_week=2, drift_stay_factor=0.5)
    begins = np.datetime64("2025-01-20T00:00:00")
    by_id = {one["id"]: one["valueQuantity"]["value"] for one in fhir["Observation"]}

    assert omop["person"] == plain[0]["person"]
    assert all(by_id[f"syn-l-{row['measurement_id']}"] == row["value_as_number"] for row in omop["measurement"])
    lengths = {}
    for name, rows in (("drifted", omop), ("plain", plain[0])):
        for after in (False, True):
            held = [row for row in rows["visit_occurrence"] if (row["visit_start_datetime"] >= begins) == after]
            lengths[name, after] = [row["visit_end_datetime"] - row["visit_start_datetime"] for row in held]
    assert lengths["drifted", False] == lengths["plain", False]
    # Half as long, but never shorter than the shortest stay, and until an afternoon.
    assert 0.45 < np.sum(lengths["drifted", True]) / np.sum(lengths["plain", True]) < 0.85


def test_knobs_are_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "shift.yaml"
    file.write_text("unmapped_diagnoses: 0.2\nother_units: [Glucose]\nanalyser_ward: ICU\n")

    assert read_shift(file) == InfrastructureShift(
        unmapped_diagnoses=0.2, other_units=("Glucose",), analyser_ward="ICU"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("late: 1", "expected knobs of"),
        ("- late_share", "expected knobs of"),
        ("late_share: [", "shift.yaml"),
        ("missing_elements: [Patient.id]", "cannot be missing"),
        ("analyser_ward: ATTIC", "analyser_ward must be one of"),
        ("units_side: left", "units_side"),
        ("late_hours: -1", "late_hours must be 0 or more"),
        ("analyser_factor: 0", "analyser_factor must be more than 0"),
        ("drift_stay_factor: 0", "drift_stay_factor must be more than 0"),
    ],
)
def test_a_file_that_sets_no_knob_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "shift.yaml"
    file.write_text(text)

    with pytest.raises(ValueError, match=said):
        read_shift(file)


def test_the_documented_file_is_the_shifted_profile() -> None:
    assert read_shift(ROOT / "docs" / "examples" / "mock-emr" / "infrastructure-shift.yaml") == SHIFTED


def test_the_shifted_profile_leaves_labels_readable() -> None:
    assert SHIFTED.unmapped_analytes == 0
    assert not {"Observation.referenceRange", "Observation.valueQuantity"} & set(SHIFTED.missing_elements)
