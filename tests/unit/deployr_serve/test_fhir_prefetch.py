"""What a CDS Hooks request hands over, and what of it stands for a search of our own."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from deployr_core.features import FeatureSpec, SexGroup
from deployr_serve.adapters import fhir_prefetch
from deployr_serve.adapters.fhir_page import STU3
from deployr_serve.adapters.fhir_plan import Search
from deployr_serve.adapters.fhir_prefetch import FRESH_FOR, prefetch_templates, usable
from deployr_serve.core.errors import Restricted, WrongPatient

SEARCHES = {
    "patient": Search(resource_type="Patient", parameters=(("_id", "p1"),)),
    "encounter": Search(resource_type="Encounter", parameters=(("_id", "e1"),)),
    "labs": Search(resource_type="Observation", parameters=(("patient", "p1"), ("date", "ge2014-12-07"))),
    "diagnoses": Search(resource_type="Condition", parameters=(("patient", "p1"),)),
    "medications": Search(resource_type="MedicationRequest", parameters=(("patient", "p1"),)),
}


@pytest.fixture
def handed(fhir_base, now):
    """Give a function that hands these values over: ids by name, and the reasons for the rest."""

    def run(**values):
        prefetch = {name: it if isinstance(it, bytes) else json.dumps(it).encode() for name, it in values.items()}
        found, refused = usable(prefetch, SEARCHES, patient_id="p1", fhir_base=fhir_base, now=now)
        return {name: [resource.id for resource in it.resources] for name, it in found.items()}, refused

    return run


def test_what_is_whole_and_about_the_patient_is_used(handed, patient, encounter, page_of, observation):
    found, refused = handed(
        patient=patient(), encounter=page_of(encounter(), total=1), labs=page_of(observation("a"), observation("b"))
    )
    assert found == {"patient": ["p1"], "encounter": ["e1"], "labs": ["a", "b"]}
    assert refused == {}


def test_a_missing_key_is_fetched_and_null_is_an_answer(handed):
    assert handed() == ({}, {})
    assert handed(labs=b" null\n") == ({"labs": []}, {})


def test_a_key_that_nobody_asked_for_is_passed_over(handed, patient):
    assert handed(other=patient("p2")) == ({}, {})


@pytest.mark.parametrize("name", ["patient", "encounter"])
def test_null_for_what_is_asked_for_by_its_id_is_fetched(handed, name):
    assert handed(**{name: b"null"}) == ({}, {name: "failed"})


def test_an_outcome_instead_of_a_value_is_a_failure_that_is_fetched(handed):
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}
    assert handed(labs=outcome) == ({}, {"labs": "failed"})


def test_an_error_among_the_entries_is_a_failure_that_is_fetched(handed, page_of, observation):
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}
    assert handed(labs=page_of(observation(), outcome)) == ({}, {"labs": "failed"})


def test_a_record_that_is_withheld_is_withheld_here_too(handed, page_of):
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "information", "code": "suppressed"}]}
    for value in (outcome, page_of(outcome)):
        with pytest.raises(Restricted):
            handed(labs=value)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"7", b"<html>", b'{"resourceType":"Bundle","type":"searchset"'])
def test_what_is_no_fhir_is_fetched(handed, body):
    assert handed(labs=body) == ({}, {"labs": "not-fhir"})


def test_a_bundle_that_is_no_searchset_is_fetched(handed, page_of, observation):
    assert handed(labs=page_of(observation(), type="collection")) == ({}, {"labs": "not-fhir"})


def test_what_is_not_whole_is_fetched(handed, page_of, observation, fhir_base):
    following = page_of(observation(), following=f"{fhir_base}/Observation?page=2")
    assert handed(labs=following) == ({}, {"labs": "incomplete"})
    assert handed(labs=page_of(observation(), total=2)) == ({}, {"labs": "incomplete"})
    full = [{"relation": "self", "url": f"{fhir_base}/Observation?_count=1"}]
    assert handed(labs=page_of(observation(), link=full)) == ({}, {"labs": "incomplete"})
    warned = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "incomplete"}]}
    assert handed(labs=page_of(observation(), warned)) == ({}, {"labs": "incomplete"})


def test_what_is_larger_than_10_mb_is_fetched_unread(handed, monkeypatch, page_of, observation):
    body = json.dumps(page_of(observation())).encode()
    monkeypatch.setattr(fhir_prefetch, "MAX_BYTES", len(body))
    assert handed(labs=body) == ({"labs": ["lab1"]}, {})
    assert handed(labs=body + b" ") == ({}, {"labs": "too-large"})


def test_more_entries_than_anybody_asks_for_are_fetched(handed, page_of, observation):
    assert handed(labs=page_of(*[observation()] * 5001)) == ({}, {"labs": "too-large"})


def test_what_is_old_is_fetched(handed, page_of, observation, now):
    def put_together(when):
        return page_of(observation(), meta={"lastUpdated": when.isoformat()})

    assert handed(labs=put_together(now - FRESH_FOR)) == ({"labs": ["lab1"]}, {})
    assert handed(labs=put_together(now - FRESH_FOR - timedelta(seconds=1))) == ({}, {"labs": "old"})


@pytest.mark.parametrize("reference", ["Patient/p2", "https://other.example/fhir/Patient/p1", "Group/p1"])
def test_one_resource_about_another_patient_stops_everything(handed, page_of, observation, condition, reference):
    with pytest.raises(WrongPatient):
        handed(labs=page_of(observation("a"), observation("b", subject={"reference": reference})))
    with pytest.raises(WrongPatient):
        handed(diagnoses=page_of(condition(subject={"reference": reference})))


def test_another_patient_or_encounter_than_the_requests_stops_everything(handed, patient, encounter, page_of):
    for value in (patient("p2"), page_of(patient("p2"))):
        with pytest.raises(WrongPatient):
            handed(patient=value)
    for value in (encounter("e2"), encounter(subject={"reference": "Patient/p2"})):
        with pytest.raises(WrongPatient):
            handed(encounter=value)


def test_another_type_than_was_asked_for_stops_everything(handed, page_of, condition, observation, patient):
    for value in (page_of(condition()), page_of(observation(), condition()), condition(), observation(), patient()):
        with pytest.raises(WrongPatient):
            handed(labs=value)
    with pytest.raises(WrongPatient):
        handed(patient=observation())


def test_a_resource_that_says_nothing_about_its_patient_is_left_to_the_reader(handed, page_of, observation):
    assert handed(labs=page_of(observation(subject=None))) == ({"labs": ["lab1"]}, {})


def test_what_was_included_comes_along_and_the_record_says_where_it_is_from(
    page_of, medication_request, fhir_base, now
):
    page = page_of(medication_request(), total=1, meta={"lastUpdated": (now - timedelta(seconds=20)).isoformat()})
    drug = {"resourceType": "Medication", "id": "d"}
    page["entry"].append({"resource": drug, "search": {"mode": "include"}})
    handed = {"medications": json.dumps(page).encode()}
    found, _ = usable(handed, SEARCHES, patient_id="p1", fhir_base=fhir_base, now=now)
    came = found["medications"]
    assert ([it.id for it in came.included], came.age_s) == (["d"], 20.0)
    record = came.record
    assert (record.name, record.resource, record.via, record.started_at) == (
        "medications", "MedicationRequest", "prefetch", now,
    )  # fmt: skip
    assert (record.resources, record.pages, record.requests, record.total) == (1, 1, 0, 1)


def test_stu3_is_read_as_stu3(page_of, condition, fhir_base, now):
    page = page_of(condition(recordedDate=None, assertedDate="2015-01-05", verificationStatus="confirmed"))
    handed = {"diagnoses": json.dumps(page).encode()}
    found, _ = usable(handed, SEARCHES, patient_id="p1", fhir_base=fhir_base, now=now, version=STU3)
    assert found["diagnoses"].resources[0].recorded_date == "2015-01-05"


# -- what is asked for


def test_templates_follow_from_the_declaration_without_its_dates(feature_spec):
    assert prefetch_templates(feature_spec) == {
        "patient": "Patient/{{context.patientId}}",
        "encounter": "Encounter/{{context.encounterId}}",
        "labs": "Observation?patient={{context.patientId}}&category=laboratory&code=http://loinc.org|4544-3",
        "diagnoses": "Condition?patient={{context.patientId}}&category=problem-list-item",
        "medications": "MedicationRequest?patient={{context.patientId}}&_include=MedicationRequest:medication",
    }


def test_demographics_alone_ask_for_patient_and_encounter():
    assert set(prefetch_templates(FeatureSpec(schema_version=1, groups=(SexGroup(),)))) == {"patient", "encounter"}
