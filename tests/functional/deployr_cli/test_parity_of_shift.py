"""Each knob of infrastructure shift, turned on alone, and what `deployr parity` says of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deployr_cli.demo.making import trained_model
from deployr_cli.parity import run_parity
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.parity import ParityReport
from deployr_dev.parity_kinds import CauseKind
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop
from mock_emr.population.profiles import HOSPITAL
from mock_emr.population.shift import InfrastructureShift

ORDERS = 20
BEFORE, WEEKS = 9, 12
CONFIG = replace(HOSPITAL, patients=120, weeks=WEEKS)
HEMOGLOBIN, CREATININE, GLUCOSE = "718-7", "2160-0", "2345-7"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the extract, which no knob over FHIR changes."""
    folder = tmp_path_factory.mktemp("warehouse")
    write_omop(generate(CONFIG), folder)
    return folder


@pytest.fixture(scope="module")
def bundle(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a model of all feature groups, trained on the weeks before the last three."""
    folder = tmp_path_factory.mktemp("bundle") / "hematocrit"
    before = CONFIG.start + timedelta(weeks=BEFORE)
    trained_model(
        warehouse, folder, task=shipped_task("hematocrit"), before=before, console=Console(file=io.StringIO())
    )
    return folder


@pytest.fixture
def parity(bundle: Path, warehouse: Path, tmp_path: Path) -> Callable[..., ParityReport]:
    """Give a function that tells the hospital through some knobs, and compares."""

    def run(**knobs: Any) -> ParityReport:
        population = generate(replace(CONFIG, shift=InfrastructureShift(**knobs)))
        source = warehouse
        if "omop" in (knobs.get("unmapped_side"), knobs.get("units_side")):
            source = tmp_path / "omop"
            write_omop(population, source)
        write_fhir(population, tmp_path / "fhir")
        console = Console(file=io.StringIO(), width=200)
        return run_parity(bundle, str(source), str(tmp_path / "fhir"), ORDERS, None, 1, console=console)

    return run


def test_with_all_knobs_off_both_sides_are_equal_and_no_cause_is_named(parity: Callable[..., ParityReport]) -> None:
    report = parity()

    assert report.features_equal == report.features_compared > 0
    assert (report.differences, report.causes) == ((), ())


@dataclass(frozen=True, kw_only=True)
class Named:
    """What is said of a knob: the kind of every cause, the groups, one example, and if it is some or all that show it.

    ``costs``: features differ.
    """

    kind: CauseKind
    groups: set[str]
    example: str
    all_of_them: bool
    costs: bool = True


DIAGNOSES, DRUGS, LABS = {"encounter_diagnoses", "problem_list"}, {"medications"}, {"labs_2d", "labs_14d"}


def missing(element: str, share: float) -> dict[str, Any]:
    return {"missing_elements": (element,), "missing_share": share}


def code_system(groups: set[str], example: str) -> Named:
    return Named(kind=CauseKind.CODE_SYSTEM, groups=groups, example=example, all_of_them=False)


def element(groups: set[str], example: str, *, all_of_them: bool = False, costs: bool = True) -> Named:
    kind = CauseKind.MISSING_ELEMENT
    return Named(kind=kind, groups=groups, example=example, all_of_them=all_of_them, costs=costs)


KNOBS = {
    "diagnoses unmapped": ({"unmapped_diagnoses": 0.3}, code_system(DIAGNOSES, "DX-")),
    "diagnoses unmapped in the warehouse": (
        {"unmapped_diagnoses": 0.3, "unmapped_side": "omop"},
        code_system(DIAGNOSES, "DX-"),
    ),
    "drugs unmapped": ({"unmapped_drugs": 0.3}, code_system(DRUGS, "RX-")),
    "drugs unmapped in the warehouse": ({"unmapped_drugs": 0.3, "unmapped_side": "omop"}, code_system(DRUGS, "RX-")),
    "laboratory codes unmapped": ({"unmapped_analytes": 0.2}, code_system(LABS, "LAB-")),
    "laboratory codes unmapped in the warehouse": (
        {"unmapped_analytes": 0.2, "unmapped_side": "omop"},
        code_system(LABS, "LAB-"),
    ),
    "units differ, unlabelled": (
        {"other_units": ("Creatinine",), "units_labelled": False},
        Named(kind=CauseKind.UNIT_FACTOR, groups=LABS, example=CREATININE, all_of_them=True),
    ),
    "units differ in the warehouse, unlabelled": (
        {"other_units": ("Creatinine",), "units_labelled": False, "units_side": "omop"},
        Named(kind=CauseKind.UNIT_FACTOR, groups=LABS, example=CREATININE, all_of_them=True),
    ),
    "units differ, labelled, and lose digits": (
        {"other_units": ("Glucose",)},
        Named(kind=CauseKind.OTHER_UNIT, groups=LABS, example=GLUCOSE, all_of_them=True),
    ),
    "units differ, labelled, and lose nothing": (
        {"other_units": ("Hemoglobin",)},
        Named(kind=CauseKind.OTHER_UNIT, groups=LABS, example=HEMOGLOBIN, all_of_them=True, costs=False),
    ),
    "results late": (
        {"late_share": 0.5, "late_hours": 12.0},
        Named(kind=CauseKind.LATE_RESULTS, groups=LABS, example="", all_of_them=False),
    ),
    "another analyser on a ward": (
        {"analyser_ward": "MED", "analyser_from_week": -3, "analyser_factor": 1.08},
        Named(kind=CauseKind.OTHER_ANALYSER, groups=LABS, example="", all_of_them=False),
    ),
    "some dates of birth missing": (missing("Patient.birthDate", 0.7), element({"age"}, "")),
    "some races missing": (missing("Patient.extension", 0.7), element({"race", "ethnicity"}, "")),
    "all races missing": (
        missing("Patient.extension", 1.0),
        Named(kind=CauseKind.MISSING_GROUP, groups={"race", "ethnicity"}, example="", all_of_them=True),
    ),
    "some dates of diagnoses missing": (
        missing("Condition.recordedDate", 0.3),
        element(DIAGNOSES, "Condition.recordedDate of "),
    ),
    "all dates of diagnoses missing": (
        missing("Condition.recordedDate", 1.0),
        element(DIAGNOSES, "Condition.recordedDate of ", all_of_them=True),
    ),
    "some codes of diagnoses missing": (missing("Condition.code", 0.3), element(DIAGNOSES, "Condition.code of ")),
    "some drugs missing": (
        missing("MedicationRequest.medicationCodeableConcept", 0.3),
        element(DRUGS, "MedicationRequest.medication[x] of "),
    ),
    "some release times missing": (missing("Observation.issued", 0.3), element(LABS, "Observation.issued of ")),
    "some numbers missing": (missing("Observation.valueQuantity", 0.3), element(LABS, "Observation.value[x] of ")),
    "some ranges missing": (
        missing("Observation.referenceRange", 0.3),
        element(LABS, "Observation.referenceRange of ", costs=False),
    ),
    "some flags missing": (
        missing("Observation.interpretation", 0.3),
        element(LABS, "Observation.interpretation of ", costs=False),
    ),
}


@pytest.mark.proof
@pytest.mark.parametrize(("knobs", "named"), KNOBS.values(), ids=KNOBS)
def test_a_knob_alone_is_named_by_its_cause(
    parity: Callable[..., ParityReport], knobs: dict[str, Any], named: Named
) -> None:
    report = parity(**knobs)

    assert (report.features_equal < report.features_compared) is named.costs
    assert {cause.kind for cause in report.causes} == {named.kind}
    assert {cause.group for cause in report.causes} == named.groups
    for cause in report.causes:
        assert cause.example.startswith(named.example)
        assert (0 < cause.facts < cause.of) or (named.all_of_them and cause.facts == cause.of)
        assert "SYN" not in cause.explanation + cause.example
        assert "syn-" not in cause.explanation + cause.example


@pytest.mark.proof
@pytest.mark.parametrize("name", ["MedicationRequest.encounter", "Observation.encounter"])
def test_what_nothing_reads_is_no_cause(parity: Callable[..., ParityReport], name: str) -> None:
    report = parity(**missing(name, 1.0))

    assert (report.differences, report.causes) == ((), ())


@pytest.mark.proof
@pytest.mark.parametrize(
    ("severity", "stay_factor", "patients"),
    [
        pytest.param(0.0, 1.0, 300, id="none"),
        pytest.param(1.0, 1.0, 300, id="more ill"),
        # What is known of a person varies so much that it takes more of them.
        pytest.param(0.0, 0.4, 1200, id="home sooner", marks=pytest.mark.slow),
    ],
)
def test_a_case_mix_that_drifts_is_named_where_a_later_period_is_compared(
    bundle: Path, tmp_path: Path, severity: float, stay_factor: float, patients: int
) -> None:
    shift = InfrastructureShift(drift_from_week=WEEKS // 2, drift_severity=severity, drift_stay_factor=stay_factor)
    drifted = generate(replace(CONFIG, patients=patients, shift=shift))
    write_omop(drifted, tmp_path / "omop")
    write_fhir(drifted, tmp_path / "fhir")
    console = Console(file=io.StringIO())
    day = (CONFIG.start + timedelta(weeks=WEEKS // 2)).date()

    source, fhir = str(tmp_path / "omop"), str(tmp_path / "fhir")

    report = run_parity(bundle, source, fhir, ORDERS, None, 1, reference_until=day, console=console)

    assert report.features_equal == report.features_compared > 0
    assert [cause.kind for cause in report.causes] == (
        [CauseKind.CASE_MIX] if (severity, stay_factor) != (0.0, 1.0) else []
    )
