"""Each knob of infrastructure shift, turned on alone, and what `deployr parity` says of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deployr_cli.demo.making import trained_model
from deployr_cli.parity import run_parity
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.parity import ParityReport
from deployr_dev.parity_causes import CauseKind
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop
from mock_emr.population.profiles import HOSPITAL
from mock_emr.population.shift import InfrastructureShift

ORDERS = 12
BEFORE = 9
CONFIG = replace(HOSPITAL, patients=120, weeks=12)


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
    """Give a function that tells the hospital over FHIR through some knobs, and compares."""

    def run(**knobs: Any) -> ParityReport:
        write_fhir(generate(replace(CONFIG, shift=InfrastructureShift(**knobs))), tmp_path / "fhir")
        console = Console(file=io.StringIO(), width=200)
        return run_parity(bundle, str(warehouse), str(tmp_path / "fhir"), ORDERS, None, 1, console=console)

    return run


def test_without_a_knob_both_sides_are_equal(parity: Callable[..., ParityReport]) -> None:
    report = parity()

    assert report.features_equal == report.features_compared > 0
    assert (report.differences, report.causes) == ((), ())


@pytest.mark.parametrize(
    ("knobs", "kind", "groups"),
    [
        pytest.param(
            {"unmapped_diagnoses": 0.3, "unmapped_drugs": 0.3},
            CauseKind.CODE_SYSTEM,
            {"encounter_diagnoses", "medications", "problem_list"},
            id="codes unmapped",
        ),
        pytest.param(
            {"other_units": ("Creatinine", "Hemoglobin"), "units_labelled": False},
            CauseKind.UNIT_FACTOR,
            {"labs_2d", "labs_14d"},
            id="units differ and nobody says so",
        ),
        pytest.param(
            {"late_share": 0.5, "late_hours": 12.0}, CauseKind.LATE_RESULTS, {"labs_2d", "labs_14d"}, id="results late"
        ),
        pytest.param(
            {"analyser_ward": "MED", "analyser_from_week": 0},
            CauseKind.UNIT_FACTOR,
            {"labs_2d", "labs_14d"},
            id="another analyser",
        ),
        pytest.param(
            {"missing_elements": ("Patient.extension",), "missing_share": 1.0},
            CauseKind.MISSING_GROUP,
            {"ethnicity", "race"},
            id="race and ethnicity missing",
        ),
        pytest.param(
            {"missing_elements": ("Condition.recordedDate",), "missing_share": 1.0},
            CauseKind.MISSING_GROUP,
            {"encounter_diagnoses", "problem_list"},
            id="dates of all diagnoses missing",
        ),
    ],
)
def test_a_knob_alone_is_named_by_its_cause(
    parity: Callable[..., ParityReport], knobs: dict[str, Any], kind: CauseKind, groups: set[str]
) -> None:
    report = parity(**knobs)

    assert report.features_equal < report.features_compared
    assert {cause.kind for cause in report.causes} == {kind}
    assert {cause.group for cause in report.causes} == groups


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"missing_elements": ("Condition.recordedDate",), "missing_share": 0.3}, id="some dates missing"),
        pytest.param({"unmapped_analytes": 0.2}, id="laboratory codes unmapped: a search by code finds nothing"),
        pytest.param({"other_units": ("Glucose",)}, id="another unit, labelled: digits lost in rounding"),
    ],
)
def test_what_fits_no_pattern_is_listed_without_a_cause(
    parity: Callable[..., ParityReport], knobs: dict[str, Any]
) -> None:
    report = parity(**knobs)

    assert report.differences
    assert report.causes == ()


def test_another_unit_that_is_labelled_and_loses_no_digit_costs_nothing(parity: Callable[..., ParityReport]) -> None:
    report = parity(other_units=("Hemoglobin",))

    assert report.features_equal == report.features_compared > 0


def test_drift_of_the_case_mix_is_no_matter_of_parity(bundle: Path, tmp_path: Path) -> None:
    drifted = generate(replace(CONFIG, shift=InfrastructureShift(drift_from_week=BEFORE, drift_severity=1.0)))
    write_omop(drifted, tmp_path / "omop")
    write_fhir(drifted, tmp_path / "fhir")
    console = Console(file=io.StringIO())

    report = run_parity(bundle, str(tmp_path / "omop"), str(tmp_path / "fhir"), ORDERS, None, 1, console=console)

    assert report.features_equal == report.features_compared > 0
