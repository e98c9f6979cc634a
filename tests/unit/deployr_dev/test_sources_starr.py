"""The tables of STARR's shc_core, as the published cohorts query them, become the fact tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployr_core.codes import ICD9CM, ICD10CM, Code
from deployr_core.facts import BirthDate, DiagnosisList, PatientFacts, Sex
from deployr_dev.sources.extract import Extract

BASE = {
    "demographic": "anon_id,birth_date_jittered,gender,canonical_race,canonical_ethnicity\n"
    "JC02,1950-03-04,Female,White,Non-Hispanic\nJC01,1960-01-01,Male,Unknown,\n",
    "lab_result": "anon_id,order_id_coded,base_name,ord_num_value,reference_unit,reference_low,reference_high,"
    "result_flag,taken_time_utc,result_time_utc,order_time_utc\n",
}


@pytest.fixture
def starr(tmp_path: Path) -> Callable[..., PatientFacts]:
    """Give a function that writes tables and reads the patient JC02."""

    def read(**tables: str) -> PatientFacts:
        for name, text in BASE.items():
            (tmp_path / f"{name}.csv").write_text(text + tables.pop(name, ""))
        for name, text in tables.items():
            (tmp_path / f"{name}.csv").write_text(text)
        with Extract.open(tmp_path) as extract:
            assert extract.mapping.name == "starr"
            assert extract.patient_source_values() == {1: "JC01", 2: "JC02"}
            return next(extract.patients({2}))

    return read


def at(hour: int) -> datetime:
    return datetime(2015, 1, 6, hour, tzinfo=UTC)


def test_demographics_are_read(starr: Callable[..., PatientFacts]):
    who = starr().demographics

    assert (who.sex, who.birth_date) == (Sex.FEMALE, BirthDate(year=1950, month=3, day=4))
    assert ([code.value for code in who.races], [code.value for code in who.ethnicities]) == (["2106-3"], ["2186-5"])


def test_results_are_coded_by_base_name_and_known_when_resulted(starr: Callable[..., PatientFacts]):
    row = "JC02,77,HCT,31.5,%,35,47,Low,2015-01-06 08:00:00,2015-01-06 09:00:00,2015-01-06 07:00:00\n"

    (lab,) = starr(lab_result=row + row).labs

    assert (lab.codes, lab.value, lab.unit, lab.order_id) == ((Code("urn:starr:base-name", "HCT"),), 31.5, "%", "77")
    assert (lab.reference_low, lab.reference_high, lab.abnormal) == (35.0, 47.0, True)
    assert (lab.at, lab.known_at) == (at(8), at(9))


def test_the_number_that_epic_writes_for_a_text_is_none(starr: Callable[..., PatientFacts]):
    row = "JC02,77,HCT,9999999,%,,see note,,2015-01-06 08:00:00,2015-01-06 09:00:00,\n"

    (lab,) = starr(lab_result=row).labs

    assert (lab.value, lab.reference_high) == (None, None)


def test_diagnoses_have_a_row_per_revision_of_the_icd(starr: Callable[..., PatientFacts]):
    rows = "JC02,427.31,I48.91,Problem List,2015-01-06 08:00:00\n"

    facts = starr(diagnosis="anon_id,icd9,icd10,source,start_date_utc\n" + rows).diagnoses

    assert {fact.codes[0] for fact in facts} == {Code(ICD9CM, "427.31"), Code(ICD10CM, "I48.91")}
    assert {fact.recorded_in for fact in facts} == {DiagnosisList.PROBLEM_LIST}


def test_orders_medications_and_visits_are_read_under_the_names_of_later_releases(starr: Callable[..., PatientFacts]):
    who = starr(
        order_med="anon_id,order_med_id_coded,medication_id,order_inst_jittered_utc\nJC02,5,6464,2015-01-06 08:00:00\n",
        order_proc="anon_id,order_proc_id_coded,pat_enc_csn_id_coded,proc_code,order_time_jittered_utc\n"
        "JC02,9,131,LABCBCD,2015-01-06 07:00:00\n",
        encounter="anon_id,pat_enc_csn_id_coded,hosp_admsn_time_jittered_utc\nJC02,131,2015-01-06 06:00:00\n",
        adt="anon_id,pat_enc_csn_id_coded,pat_class,effective_time_jittered_utc\n"
        "JC02,131,Inpatient,2015-01-06 06:30:00\n",
    )

    assert [(fact.codes, fact.at) for fact in who.medications] == [((Code("urn:starr:medication-id", "6464"),), at(8))]
    assert [(fact.codes, fact.at, fact.encounter_id) for fact in who.orders] == [
        ((Code("urn:starr:proc-code", "LABCBCD"),), at(7), "131")
    ]
    assert [(fact.codes[0].value, fact.at) for fact in who.visits] == [("IMP", at(6))]
