"""A Bulk FHIR export becomes the same facts that serving would read from the EMR."""

# ruff: noqa: DTZ001 — the fact tables hold UTC without saying so

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployr_core.codes import LOINC, UCUM, Code
from deployr_core.facts import BirthDate, DiagnosisList, OrderStatus, PatientFacts, Sex
from deployr_dev.sources.extract import Extract
from deployr_dev.sources.mapping import shipped_mapping
from deployr_dev.sources.tables import ExtractInvalid

EIGHT = datetime(2015, 1, 6, 8, tzinfo=UTC)
AT_EIGHT = "2015-01-06T13:45:00+05:45"
Resource = dict[str, Any]
Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Give a function that writes resources, a file per type; a patient is there unless others are."""

    def write(*resources: Resource, patients: tuple[Resource, ...] = ({"id": "p"},)) -> Path:
        files: dict[str, list[bytes]] = {}
        for resource in (*({"resourceType": "Patient", **patient} for patient in patients), *resources):
            files.setdefault(resource["resourceType"], []).append(msgspec.json.encode(resource))
        for kind, lines in files.items():
            (tmp_path / f"{kind}.ndjson").write_bytes(b"\n".join(lines) + b"\n")
        return tmp_path

    return write


def read(folder: Path, **changes: Any) -> tuple[PatientFacts, dict[str, int]]:
    mapping = msgspec.structs.replace(shipped_mapping("fhir_ndjson"), **changes)
    with Extract.open(folder, mapping) as extract:
        (patient,) = extract.patients()
        return patient, dict(extract.left_out)


def observation(**changes: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"coding": [{"system": LOINC, "code": "718-7"}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": AT_EIGHT,
        "issued": "2015-01-06T09:00:00Z",
        "valueQuantity": {"value": 13.5, "unit": "grams", "system": UCUM, "code": "g/dL"},
        **changes,
    }


def condition(**changes: Any) -> Resource:
    return {
        "resourceType": "Condition",
        "id": "c",
        "category": [{"coding": [{"code": "problem-list-item"}]}],
        "code": {"coding": [{"system": "urn:x", "code": "1"}, {"system": "urn:a", "code": "2"}]},
        "subject": {"reference": "https://emr.example/fhir/Patient/p"},
        "recordedDate": "2015-01-06",
        **changes,
    }


def test_a_result_is_dated_by_its_specimen_and_known_when_issued(export: Export):
    lab = observation(
        basedOn=[{"reference": "ServiceRequest/s"}],
        interpretation=[{"coding": [{"code": "L"}]}],
        referenceRange=[{"low": {"value": 12, "unit": "g/dL"}, "high": {"value": 16, "unit": "g/L"}}],
    )

    (fact,) = read(export(lab))[0].labs

    assert (fact.fact_id, fact.codes, fact.value, fact.unit) == ("o", (Code(LOINC, "718-7"),), 13.5, "g/dL")
    assert (fact.at, fact.known_at) == (EIGHT, EIGHT + timedelta(hours=1))
    assert (fact.reference_low, fact.reference_high, fact.abnormal, fact.order_id) == (12.0, None, True, "s")


def test_below_a_limit_is_no_number(export: Export):
    patient, _ = read(export(observation(valueQuantity={"value": 5, "comparator": "<", "unit": "mg/L"})))

    assert [(lab.value, lab.unit) for lab in patient.labs] == [(None, "mg/L")]


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (observation(status="preliminary"), "observations.status_not_final"),
        (observation(issued=None), "observations.no_release_time"),
        (observation(effectiveDateTime=None), "observations.no_id_or_specimen_time"),
        (observation(effectiveDateTime="2015-02-30"), "observations.impossible_time"),
        (observation(subject={"reference": "Patient/q"}), "observations.of_no_patient_of_the_export"),
        (observation(subject={"reference": "Group/p"}), "observations.of_no_patient_of_the_export"),
        (
            observation(category=[{"coding": [{"code": "survey"}]}]),
            "observations.neither_laboratory_nor_vital_sign",
        ),
        (condition(verificationStatus={"coding": [{"code": "refuted"}]}), "diagnoses.not_so"),
        (condition(category=[]), "diagnoses.no_single_list"),
        (condition(recordedDate=None), "diagnoses.no_recorded_date"),
        (
            {"resourceType": "MedicationRequest", "id": "m", "status": "draft", "subject": {"reference": "Patient/p"}},
            "medications.not_so",
        ),
        ({"resourceType": "Procedure", "id": "x", "status": "not-done"}, "procedures.not_done"),
        ({"resourceType": "ServiceRequest", "id": "s"}, "orders.no_order_time"),
        ({"resourceType": "Encounter", "id": "e", "status": "cancelled"}, "visits.not_so"),
    ],
)
def test_what_is_no_fact_is_counted_by_reason(export: Export, resource: Resource, reason: str):
    patient, left_out = read(export(resource))

    assert left_out == {reason: 1}
    assert not any((patient.labs, patient.diagnoses, patient.medications, patient.procedures, patient.orders))


def test_a_diagnosis_dated_by_the_day_is_known_at_the_sites_next_midnight(export: Export):
    (fact,) = read(export(condition()), time_zone="+05:45")[0].diagnoses

    assert fact.recorded_in is DiagnosisList.PROBLEM_LIST
    assert fact.codes == (Code("urn:a", "2"), Code("urn:x", "1"))
    assert (fact.at, fact.known_at) == (
        datetime(2015, 1, 5, 18, 15, tzinfo=UTC),
        datetime(2015, 1, 6, 18, 15, tzinfo=UTC),
    )


def test_a_blood_pressure_is_its_parts(export: Export):
    parts = [
        {"code": {"coding": [{"system": LOINC, "code": code}]}, "valueQuantity": {"value": value, "unit": "mmHg"}}
        for code, value in (("8480-6", 120), ("8462-4", 80))
    ]
    pressure = observation(category=[{"coding": [{"code": "vital-signs"}]}], issued=None, component=parts)
    del pressure["valueQuantity"]

    vitals = read(export(pressure))[0].vitals

    assert [(vital.fact_id, vital.codes[0].value, vital.value, vital.known_at) for vital in vitals] == [
        ("o.0", "8480-6", 120.0, EIGHT),
        ("o.1", "8462-4", 80.0, EIGHT),
    ]


@pytest.mark.parametrize(
    "effective", [{"effectivePeriod": {"start": AT_EIGHT, "end": "2015-01-07"}}, {"effectiveInstant": AT_EIGHT}]
)
def test_a_specimen_collected_over_a_time_is_dated_by_its_start(export: Export, effective: Resource):
    assert [lab.at for lab in read(export(observation(effectiveDateTime=None, **effective)))[0].labs] == [EIGHT]


def test_a_number_in_a_text_is_no_number(export: Export):
    patient, _ = read(export(observation(valueQuantity={"value": "13.5", "unit": "g/dL"})))

    assert [(lab.value, lab.unit) for lab in patient.labs] == [(None, "g/dL")]


def test_only_the_normal_range_is_the_reference_range(export: Export):
    def ranged(low: int, code: str | None) -> Resource:
        return {"low": {"value": low}, "type": {"coding": [{"code": code}]}} if code else {"low": {"value": low}}

    def low_of(*ranges: Resource) -> float | None:
        (lab,) = read(export(observation(referenceRange=list(ranges))))[0].labs
        return lab.reference_low

    assert low_of(ranged(12, "normal"), ranged(8, "treatment")) == 12.0
    assert low_of(ranged(8, "therapeutic")) is None
    assert low_of(ranged(12, None), ranged(8, "normal")) is None


def test_what_was_ordered_may_be_said_contained_or_referred_to(export: Export):
    def drug(number: str) -> Resource:
        return {"resourceType": "Medication", "id": "d", "code": {"coding": [{"system": "urn:rx", "code": number}]}}

    def order(order_id: str, **what: Any) -> Resource:
        subject = {"reference": "Patient/p"}
        return {
            "resourceType": "MedicationRequest", "id": order_id, "subject": subject, "authoredOn": AT_EIGHT, **what
        }  # fmt: skip

    folder = export(
        order("a", medicationCodeableConcept=drug("1")["code"]),
        order("b", medicationReference={"reference": "#d"}, contained=[drug("2")]),
        order("c", medicationReference={"reference": "Medication/d"}),
        order("e", medicationReference={"reference": "Medication/elsewhere"}),
        drug("3"),
    )
    patient, left_out = read(folder)

    assert {fact.fact_id: [code.value for code in fact.codes] for fact in patient.medications} == {
        "a": ["1"],
        "b": ["2"],
        "c": ["3"],
        "e": [],
    }
    assert left_out == {"medications.not_resolved": 1}


def test_orders_visits_procedures_and_deaths_are_read(export: Export):
    subject = {"reference": "Patient/p/_history/3"}
    folder = export(
        {
            "resourceType": "ServiceRequest",
            "id": "s",
            "status": "revoked",
            "subject": subject,
            "encounter": {"reference": "Encounter/e"},
            "authoredOn": AT_EIGHT,
        },
        {
            "resourceType": "Encounter",
            "id": "e",
            "status": "finished",
            "class": {"system": "urn:act", "code": "IMP"},
            "subject": subject,
            "period": {"start": AT_EIGHT, "end": "2015-01-08T08:00:00Z"},
            "hospitalization": {"dischargeDisposition": {"coding": [{"code": "home"}]}},
        },
        {
            "resourceType": "Procedure",
            "id": "x",
            "status": "completed",
            "subject": subject,
            "performedPeriod": {"start": AT_EIGHT},
        },
        patients=({"id": "p", "deceasedDateTime": "2015-02"},),
    )

    with Extract.open(folder) as extract:
        assert extract.mapping.name == "fhir_ndjson"
        (patient,) = extract.patients()
        visits = extract.connection.execute("SELECT code, ended_at, discharged_to FROM visits").fetchall()
        deaths = extract.connection.execute("SELECT happened_at, known_at FROM deaths").fetchall()

    assert [(order.status, order.encounter_id, order.at) for order in patient.orders] == [
        (OrderStatus.CANCELLED, "e", EIGHT)
    ]
    assert [fact.at for fact in patient.procedures] == [EIGHT]
    assert visits == [("IMP", datetime(2015, 1, 8, 8), "home")]
    assert deaths == [(datetime(2015, 2, 1), datetime(2015, 3, 1))]


def test_persons_are_numbered_by_their_id_and_named_by_their_one_identifier(export: Export):
    folder = export(
        patients=(
            {"id": "b", "identifier": [{"value": "MRN-1"}], "gender": "female", "birthDate": "1950-02-30"},
            {"id": "a", "identifier": [{"value": "1"}, {"value": "2"}], "gender": "x", "birthDate": "1950-03"},
            {"id": "0", "link": [{"type": "replaced-by"}]},
        )
    )

    with Extract.open(folder) as extract:
        assert extract.patient_source_values() == {1: "a", 2: "MRN-1"}
        people = [patient.demographics for patient in extract.patients()]
        assert extract.left_out == {"persons.merged_into_another": 1}

    assert [(who.sex, who.birth_date) for who in people] == [
        (Sex.UNKNOWN, BirthDate(year=1950, month=3)),
        (Sex.FEMALE, None),
    ]


def refusal(folder: Path) -> str:
    with pytest.raises(ExtractInvalid) as raised:
        Extract.open(folder, shipped_mapping("fhir_ndjson"))
    assert raised.value.__cause__ is None
    return str(raised.value)


def test_a_line_that_is_no_resource_is_named_by_number_and_never_repeated(export: Export):
    folder = export(observation())
    with (folder / "Observation.ndjson").open("a") as file:
        file.write('{"resourceType": "Observation", "id": "secret')

    message = refusal(folder)

    assert f"{folder / 'Observation.ndjson'}: expected a FHIR R4 resource in JSON in line 2" in message
    assert "secret" not in message


def test_a_gzip_file_that_was_cut_off_is_named(export: Export):
    folder = export()
    content = gzip.compress(b"\n".join(msgspec.json.encode(observation(id=f"{n}")) for n in range(2000)))
    (folder / "Observation.ndjson.gz").write_bytes(content[:-200])

    assert "Observation.ndjson.gz: cannot be read: cut off or damaged" in refusal(folder)


def test_a_patient_who_is_there_twice_is_refused(export: Export):
    assert "expected each Patient once" in refusal(export(patients=({"id": "p"}, {"id": "p"})))


def test_a_folder_without_patients_is_refused(export: Export, tmp_path: Path):
    assert "expected a Bulk FHIR export" in refusal(tmp_path)
    assert "expected Patient resources" in refusal(export(observation(), patients=()))


def test_a_file_may_hold_several_types_and_types_that_nobody_reads(export: Export):
    folder = export()
    lines = [observation(), {"resourceType": "Basic", "id": "z"}, condition()]
    (folder / "export-1.ndjson").write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))

    patient, left_out = read(folder)

    assert (len(patient.labs), len(patient.diagnoses), left_out) == (1, 1, {})
