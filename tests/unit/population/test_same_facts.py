"""The extract and the resources are two tellings of one story: joined by id, every value and instant agrees."""

from collections.abc import Mapping
from datetime import UTC, datetime, timezone
from typing import Any

from mock_emr.population.config import PopulationConfig

Rows = Mapping[str, list[dict[str, Any]]]

UNIT_OF_CONCEPT = {8554: "%", 8713: "g/dL", 8840: "mg/dL", 8753: "mmol/L", 8848: "10*3/uL"}


def _local_to_utc(naive: datetime, config: PopulationConfig) -> datetime:
    return naive.replace(tzinfo=timezone(config.utc_offset)).astimezone(UTC)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _person_by_id(omop: Rows) -> dict[int, str]:
    return {row["person_id"]: row["person_source_value"] for row in omop["person"]}


def _person_by_reference(fhir: Rows) -> dict[str, str]:
    return {f"Patient/{one['id']}": one["identifier"][0]["value"] for one in fhir["Patient"]}


def _coding(concept: Mapping[str, Any]) -> str:
    (coding,) = concept["coding"]
    return str(coding["code"])


def test_people_agree(omop: Rows, fhir: Rows) -> None:
    race = {8527: "2106-3", 8516: "2054-5", 8515: "2028-9", 0: None}
    ethnicity = {38003563: "2135-2", 38003564: "2186-5", 0: None}
    told = {}
    for patient in fhir["Patient"]:
        (identifier,) = patient["identifier"]
        assert identifier["system"] == "urn:deployr:synthetic:person"
        by_url = {
            one["url"].rsplit("-", 1)[1]: one["extension"][0]["valueCoding"]["code"]
            for one in patient.get("extension", [])
        }
        told[identifier["value"]] = (
            patient["gender"],
            patient["birthDate"],
            by_url.get("race"),
            by_url.get("ethnicity"),
        )

    assert told == {
        row["person_source_value"]: (
            {8507: "male", 8532: "female"}[row["gender_concept_id"]],
            f"{row['year_of_birth']:04}-{row['month_of_birth']:02}-{row['day_of_birth']:02}",
            race[row["race_concept_id"]],
            ethnicity[row["ethnicity_concept_id"]],
        )
        for row in omop["person"]
    }
    for row in omop["person"]:
        written = f"{row['year_of_birth']:04}-{row['month_of_birth']:02}-{row['day_of_birth']:02}T00:00:00"
        assert row["birth_datetime"].isoformat() == written


def test_stays_agree(omop: Rows, fhir: Rows, config: PopulationConfig) -> None:
    people, patients = _person_by_id(omop), _person_by_reference(fhir)
    told = {}
    for encounter in fhir["Encounter"]:
        (identifier,) = encounter["identifier"]
        assert identifier["type"] == {"text": "CSN"}
        assert identifier["system"] == "urn:oid:1.2.840.114350.1.13.0.1.7.3.698084.8"
        told[encounter["id"]] = (
            patients[encounter["subject"]["reference"]],
            identifier["value"],
            _instant(encounter["period"]["start"]),
            _instant(encounter["period"]["end"]),
        )

    assert told == {
        f"syn-e-{row['visit_occurrence_id']}": (
            people[row["person_id"]],
            row["visit_source_value"],
            _local_to_utc(row["visit_start_datetime"], config),
            _local_to_utc(row["visit_end_datetime"], config),
        )
        for row in omop["visit_occurrence"]
    }


def test_diagnoses_agree(omop: Rows, fhir: Rows, config: PopulationConfig) -> None:
    people, patients = _person_by_id(omop), _person_by_reference(fhir)
    kind = {32840: "problem-list-item", 32817: "encounter-diagnosis"}
    told = {
        one["id"]: (
            patients[one["subject"]["reference"]],
            _coding(one["category"][0]),
            one.get("encounter", {}).get("reference"),
            _coding(one["code"]),
            _instant(one["recordedDate"]),
        )
        for one in fhir["Condition"]
    }

    assert told == {
        f"syn-c-{row['condition_occurrence_id']}": (
            people[row["person_id"]],
            kind[row["condition_type_concept_id"]],
            None if row["visit_occurrence_id"] is None else f"Encounter/syn-e-{row['visit_occurrence_id']}",
            row["condition_source_value"],
            _local_to_utc(row["condition_start_datetime"], config),
        )
        for row in omop["condition_occurrence"]
    }
    assert {row[1] for row in told.values()} == set(kind.values())


def test_medication_orders_agree(omop: Rows, fhir: Rows, config: PopulationConfig) -> None:
    people, patients = _person_by_id(omop), _person_by_reference(fhir)
    told = {
        one["id"]: (
            patients[one["subject"]["reference"]],
            one["encounter"]["reference"],
            _coding(one["medicationCodeableConcept"]),
            one["status"],
            _instant(one["authoredOn"]),
            _instant(one["dispenseRequest"]["validityPeriod"]["end"]),
        )
        for one in fhir["MedicationRequest"]
    }

    assert told == {
        f"syn-m-{row['drug_exposure_id']}": (
            people[row["person_id"]],
            f"Encounter/syn-e-{row['visit_occurrence_id']}",
            row["drug_source_value"],
            {"discharge": "stopped", None: "completed"}[row["stop_reason"]],
            _local_to_utc(row["drug_exposure_start_datetime"], config),
            _local_to_utc(row["drug_exposure_end_datetime"], config),
        )
        for row in omop["drug_exposure"]
    }


def test_laboratory_orders_agree(omop: Rows, fhir: Rows, config: PopulationConfig) -> None:
    people, patients = _person_by_id(omop), _person_by_reference(fhir)
    told = {
        one["id"]: (
            patients[one["subject"]["reference"]],
            one["encounter"]["reference"],
            one["code"]["text"],
            _coding(one["code"]),
            one["status"],
            _instant(one["authoredOn"]),
        )
        for one in fhir["ServiceRequest"]
    }

    assert told == {
        f"syn-o-{row['order_id']}": (
            people[row["person_id"]],
            f"Encounter/syn-e-{row['visit_occurrence_id']}",
            row["panel"],
            row["panel_loinc"],
            "revoked" if row["result_datetime"] is None else "completed",
            _local_to_utc(row["order_datetime"], config),
        )
        for row in omop["ext_lab_order"]
    }
    assert {row[4] for row in told.values()} == {"revoked", "completed"}


def test_results_agree(omop: Rows, fhir: Rows, config: PopulationConfig) -> None:
    people, patients = _person_by_id(omop), _person_by_reference(fhir)
    released = {row["order_id"]: row["result_datetime"] for row in omop["ext_lab_order"]}
    told = {}
    for one in fhir["Observation"]:
        (order,) = one["basedOn"]
        (span,) = one.get("referenceRange", [{}])
        assert one["valueQuantity"]["unit"] == one["valueQuantity"]["code"]
        told[one["id"]] = (
            patients[one["subject"]["reference"]],
            one["encounter"]["reference"],
            order["reference"],
            _coding(one["code"]),
            one["valueQuantity"]["value"],
            one["valueQuantity"]["code"],
            span.get("low", {}).get("value"),
            span.get("high", {}).get("value"),
            _instant(one["effectiveDateTime"]),
            _instant(one["issued"]),
        )

    assert told == {
        f"syn-l-{row['measurement_id']}": (
            people[row["person_id"]],
            f"Encounter/syn-e-{row['visit_occurrence_id']}",
            f"ServiceRequest/syn-o-{row['measurement_event_id']}",
            row["measurement_source_value"],
            row["value_as_number"],
            UNIT_OF_CONCEPT[row["unit_concept_id"]],
            row["range_low"],
            row["range_high"],
            _local_to_utc(row["measurement_datetime"], config),
            _local_to_utc(released[row["measurement_event_id"]], config),
        )
        for row in omop["measurement"]
    }
    for row in omop["measurement"]:
        assert float(row["value_source_value"]) == row["value_as_number"]


def test_flag_follows_from_value_and_range(fhir: Rows) -> None:
    flags = set()
    for one in fhir["Observation"]:
        if "referenceRange" not in one:
            assert "interpretation" not in one
            continue
        (span,), value = one["referenceRange"], one["valueQuantity"]["value"]
        expected = "L" if value < span["low"]["value"] else "H" if value > span["high"]["value"] else "N"
        assert _coding(one["interpretation"][0]) == expected
        flags.add(expected)
    assert flags == {"L", "N", "H"}


def test_oddities_of_a_hospital_are_there_on_both_sides(omop: Rows, fhir: Rows) -> None:
    statuses = {one["status"] for one in fhir["Observation"]}
    reported: dict[int, set[str]] = {row["order_id"]: set() for row in omop["ext_lab_order"]}
    for row in omop["measurement"]:
        reported[row["measurement_event_id"]].add(row["measurement_source_value"])
    cbc = [codes for row in omop["ext_lab_order"] if row["panel"] == "CBC" and (codes := reported[row["order_id"]])]

    assert statuses == {"final", "corrected", "amended"}
    assert any(row["range_low"] is None for row in omop["measurement"])
    assert any(len(codes) < 4 for codes in cbc)
    assert any(codes == {"4544-3", "718-7", "6690-2", "777-3"} for codes in cbc)
    for row in omop["ext_lab_order"]:
        cancelled = row["result_datetime"] is None
        assert cancelled == (row["collect_datetime"] is None)
        assert cancelled == (not reported[row["order_id"]])


def test_fhir_spells_the_offset_and_the_extract_is_naive(omop: Rows, fhir: Rows) -> None:
    assert all(one["effectiveDateTime"].endswith("-05:00") for one in fhir["Observation"])
    assert all(row["order_datetime"].tzinfo is None for row in omop["ext_lab_order"])
