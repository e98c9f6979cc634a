from collections.abc import Mapping
from typing import Any

from mock_emr.population.columns import Population
from mock_emr.population.diagnoses import DIAGNOSES
from mock_emr.population.drugs import DRUGS
from mock_emr.population.illness import AXES
from mock_emr.population.omop_schema import TABLES

Rows = Mapping[str, list[dict[str, Any]]]


def test_every_concept_id_has_one_concept_row(omop: Rows) -> None:
    known = [row["concept_id"] for row in omop["concept"]]
    used = {
        row[column]
        for table, rows in omop.items()
        for row in rows
        for column in row
        if column.endswith("_concept_id") and table != "concept" and row[column] is not None
    }

    assert len(known) == len(set(known))
    assert used <= set(known)


def test_every_source_code_has_a_concept_row_of_its_vocabulary(omop: Rows) -> None:
    known = {(row["vocabulary_id"], row["concept_code"]) for row in omop["concept"]}
    used = {("LOINC", row["measurement_source_value"]) for row in omop["measurement"]}
    used |= {("LOINC", row["panel_loinc"]) for row in omop["ext_lab_order"]}
    used |= {("UCUM", row["unit_source_value"]) for row in omop["measurement"]}
    used |= {("ICD10CM", row["condition_source_value"]) for row in omop["condition_occurrence"]}
    used |= {("RxNorm", row["drug_source_value"]) for row in omop["drug_exposure"]}

    assert used <= known


def test_concept_row_of_a_fact_holds_the_code_of_the_fact(omop: Rows) -> None:
    code = {row["concept_id"]: row["concept_code"] for row in omop["concept"]}

    for row in omop["condition_occurrence"]:
        assert code[row["condition_source_concept_id"]] == row["condition_source_value"]
    for row in omop["drug_exposure"]:
        assert code[row["drug_concept_id"]] == row["drug_source_value"]
    for row in omop["measurement"]:
        assert code[row["measurement_concept_id"]] == row["measurement_source_value"]
        assert code[row["unit_concept_id"]] == row["unit_source_value"]


def test_only_diagnoses_and_drugs_are_local_concepts(omop: Rows) -> None:
    for row in omop["concept"]:
        assert (row["concept_id"] > 2_000_000_000) == (row["vocabulary_id"] in {"ICD10CM", "RxNorm"})


def test_catalogues_name_each_code_once_and_only_known_axes() -> None:
    for catalogue in (DIAGNOSES, DRUGS):
        codes = [item.code for item in catalogue]
        assert len(codes) == len(set(codes))
        assert len(codes) >= 40
        for item in catalogue:
            assert set(item.loading) <= set(AXES)
            assert 0 < item.prevalence < 1


def test_every_result_has_the_range_of_its_sex(omop: Rows) -> None:
    women = {row["person_id"] for row in omop["person"] if row["gender_concept_id"] == 8532}
    ranges: dict[tuple[str, bool], set[tuple[float, float]]] = {}
    for row in omop["measurement"]:
        if row["range_low"] is not None:
            key = row["measurement_source_value"], row["person_id"] in women
            ranges.setdefault(key, set()).add((row["range_low"], row["range_high"]))

    assert ranges["4544-3", True] == {(35.0, 47.0)}
    assert ranges["4544-3", False] == {(40.0, 52.0)}
    assert ranges["718-7", True] == {(11.7, 15.7)}
    assert ranges["718-7", False] == {(13.5, 17.7)}
    assert all(len(seen) == 1 and low < high for seen in ranges.values() for low, high in seen)
    assert len(ranges) == 14 * 2


def test_extract_has_every_table_with_its_columns_in_order(omop: Rows) -> None:
    assert set(omop) == set(TABLES)
    for name, rows in omop.items():
        assert tuple(rows[0]) == TABLES[name]


def test_source_row_names_the_synthetic_population(omop: Rows) -> None:
    (row,) = omop["cdm_source"]

    assert row["cdm_source_name"] == "deployr synthetic population"
    assert row["cdm_source_abbreviation"] == "deployr-synthetic"
    assert row["cdm_version"] == "5.4"


def test_observation_period_covers_every_fact_of_its_person(omop: Rows) -> None:
    spans = {
        row["person_id"]: (row["observation_period_start_date"], row["observation_period_end_date"])
        for row in omop["observation_period"]
    }
    dated = {
        "visit_occurrence": ("visit_start_date", "visit_end_date"),
        "condition_occurrence": ("condition_start_date",),
        "drug_exposure": ("drug_exposure_start_date", "drug_exposure_end_date"),
        "measurement": ("measurement_date",),
    }

    assert len(spans) == len(omop["person"])
    for table, columns in dated.items():
        for row in omop[table]:
            first, last = spans[row["person_id"]]
            assert all(first <= row[column] <= last for column in columns)


def test_latent_truth_stays_out_of_both_tellings(population: Population, omop: Rows, fhir: Rows) -> None:
    assert population.persons.illness.shape == (60, len(AXES))
    assert not any("illness" in column or column in AXES for rows in omop.values() for column in rows[0])
    assert not any("illness" in key or key in AXES for rows in fhir.values() for row in rows for key in row)
