"""Writes a population as an OMOP 5.4 extract: one Parquet file a table, times naive in the hospital's zone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from mock_emr.population.codes import (
    ETHNICITIES,
    INPATIENT_VISIT,
    RACES,
    SEXES,
    TYPE_EHR,
    TYPE_LAB,
    TYPE_PRESCRIPTION,
    TYPE_PROBLEM_LIST,
    UNIT_CONCEPTS,
    person_value,
)
from mock_emr.population.columns import Instants, Population
from mock_emr.population.concepts import concepts
from mock_emr.population.diagnoses import DIAGNOSES, diagnosis_concept
from mock_emr.population.drugs import DRUGS, drug_concept
from mock_emr.population.labs import ANALYTES, PANELS
from mock_emr.population.omop_schema import TABLES, arrow_type
from mock_emr.population.places import dispositions
from mock_emr.population.told import local_code, telling
from mock_emr.population.wards import WARDS

COMPRESSION: Final = "zstd"

Column = Any
"""A NumPy array, a list, or one value that every row has. A column that is not given is all null."""


def write_omop(population: Population, folder: Path) -> None:
    """Write ``folder/<table>.parquet`` for every table, replacing what is there.

    Equal populations give equal bytes under one pyarrow version, whose name Parquet files carry.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name, table in arrow_tables(population).items():
        pq.write_table(table, folder / f"{name}.parquet", compression=COMPRESSION)


def arrow_tables(population: Population) -> Mapping[str, Any]:
    """Give every table as Arrow, with every column of its schema, in order."""
    return {name: _arrow_table(name, columns) for name, columns in omop_tables(population).items()}


def omop_tables(population: Population) -> Mapping[str, Mapping[str, Column]]:
    """Give every table's columns; not-a-time and NaN stand for null."""
    return {
        "person": _person(population),
        "visit_occurrence": _visit_occurrence(population),
        "visit_detail": _visit_detail(population),
        "death": _death(population),
        "condition_occurrence": _condition_occurrence(population),
        "drug_exposure": _drug_exposure(population),
        "measurement": _measurement(population),
        "observation_period": _observation_period(population),
        "concept": _concept(),
        "care_site": {
            "care_site_id": [ward.care_site_id for ward in WARDS],
            "care_site_name": [ward.name for ward in WARDS],
            "place_of_service_concept_id": 0,
            "care_site_source_value": [ward.code for ward in WARDS],
        },
        "cdm_source": {
            "cdm_source_name": ["deployr synthetic population"],
            "cdm_source_abbreviation": ["deployr-synthetic"],
            "cdm_version": ["5.4"],
            "source_description": ["Simulated patients; no record of any real person."],
        },
        "ext_lab_order": _ext_lab_order(population),
    }


def _person(population: Population) -> dict[str, Column]:
    persons = population.persons
    born = persons.birth_date.astype("datetime64[D]")
    months = born.astype("datetime64[M]")
    return {
        "person_id": persons.person_id,
        "gender_concept_id": np.array([sex.concept_id for sex in SEXES])[persons.sex_row],
        "year_of_birth": born.astype("datetime64[Y]").astype(np.int64) + 1970,
        "month_of_birth": months.astype(np.int64) % 12 + 1,
        "day_of_birth": (born - months.astype("datetime64[D]")).astype(np.int64) + 1,
        "birth_datetime": born.astype("datetime64[s]"),
        "race_concept_id": np.array([race.concept_id for race in RACES])[persons.race_row],
        "ethnicity_concept_id": np.array([one.concept_id for one in ETHNICITIES])[persons.ethnicity_row],
        "person_source_value": [person_value(number) for number in persons.person_id.tolist()],
        "gender_source_value": np.array([sex.source for sex in SEXES])[persons.sex_row],
        "gender_source_concept_id": 0,
        "race_source_value": np.array([race.source for race in RACES])[persons.race_row],
        "race_source_concept_id": 0,
        "ethnicity_source_value": np.array([one.source for one in ETHNICITIES])[persons.ethnicity_row],
        "ethnicity_source_concept_id": 0,
    }


def _visit_occurrence(population: Population) -> dict[str, Column]:
    stays, config = population.stays, population.config
    start, end = config.local(stays.start), config.local(stays.end)
    preceding = [stays.visit_id[row].item() if row >= 0 else None for row in stays.preceding_row.tolist()]
    return {
        "visit_occurrence_id": stays.visit_id,
        "person_id": population.persons.person_id[stays.person_row],
        "visit_concept_id": INPATIENT_VISIT,
        "visit_start_date": _dates(start),
        "visit_start_datetime": start,
        "visit_end_date": _dates(end),
        "visit_end_datetime": end,
        "visit_type_concept_id": TYPE_EHR,
        "visit_source_value": stays.csn.astype(str),
        "visit_source_concept_id": 0,
        "admitted_from_concept_id": 0,
        "discharged_to_concept_id": 0,
        "discharged_to_source_value": [said or None for said in dispositions(population)],
        "preceding_visit_occurrence_id": preceding,
    }


def _visit_detail(population: Population) -> dict[str, Column]:
    moves, stays, config = population.moves, population.stays, population.config
    start, end = config.local(moves.start), config.local(moves.end)
    return {
        "visit_detail_id": moves.move_id,
        "person_id": population.persons.person_id[stays.person_row[moves.stay_row]],
        "visit_detail_concept_id": INPATIENT_VISIT,
        "visit_detail_start_date": _dates(start),
        "visit_detail_start_datetime": start,
        "visit_detail_end_date": _dates(end),
        "visit_detail_end_datetime": end,
        "visit_detail_type_concept_id": TYPE_EHR,
        "care_site_id": np.array([ward.care_site_id for ward in WARDS])[moves.ward_row],
        "visit_detail_source_value": np.array([ward.code for ward in WARDS])[moves.ward_row],
        "visit_occurrence_id": stays.visit_id[moves.stay_row],
    }


def _death(population: Population) -> dict[str, Column]:
    stays = population.stays
    died = population.config.local(stays.end[stays.died])
    return {
        "person_id": population.persons.person_id[stays.person_row[stays.died]],
        "death_date": _dates(died),
        "death_datetime": died,
        "death_type_concept_id": TYPE_EHR,
    }


def _condition_occurrence(population: Population) -> dict[str, Column]:
    conditions = population.conditions
    start = population.config.local(conditions.recorded)
    listed = conditions.stay_row < 0
    visit_id = population.stays.visit_id
    mapped = telling(population, "omop").diagnosis_mapped
    codes = np.array([one.code if mapped[row] else local_code("DX", row) for row, one in enumerate(DIAGNOSES)])
    source_concepts = np.array([diagnosis_concept(row) * mapped[row] for row in range(len(DIAGNOSES))])
    return {
        "condition_occurrence_id": conditions.condition_id,
        "person_id": population.persons.person_id[conditions.person_row],
        "condition_concept_id": 0,
        "condition_start_date": _dates(start),
        "condition_start_datetime": start,
        "condition_type_concept_id": np.where(listed, TYPE_PROBLEM_LIST, TYPE_EHR),
        "condition_status_concept_id": 0,
        "visit_occurrence_id": [visit_id[row].item() if row >= 0 else None for row in conditions.stay_row.tolist()],
        "condition_source_value": codes[conditions.diagnosis_row],
        "condition_source_concept_id": source_concepts[conditions.diagnosis_row],
        # The paired example keeps the source vocabulary's name here; so do we, for one reader of both.
        "condition_status_source_value": "ICD10CM",
    }


def _drug_exposure(population: Population) -> dict[str, Column]:
    medications, stays = population.medications, population.stays
    start, end = population.config.local(medications.ordered), population.config.local(medications.ended)
    mapped = telling(population, "omop").drug_mapped
    codes = np.array([one.code if mapped[row] else local_code("RX", row) for row, one in enumerate(DRUGS)])
    drug_concepts = np.array([drug_concept(row) * mapped[row] for row in range(len(DRUGS))])[medications.drug_row]
    return {
        "drug_exposure_id": medications.medication_id,
        "person_id": population.persons.person_id[stays.person_row[medications.stay_row]],
        "drug_concept_id": drug_concepts,
        "drug_exposure_start_date": _dates(start),
        "drug_exposure_start_datetime": start,
        "drug_exposure_end_date": _dates(end),
        "drug_exposure_end_datetime": end,
        "drug_type_concept_id": TYPE_PRESCRIPTION,
        "stop_reason": [("discharge" if stopped else None) for stopped in medications.stopped.tolist()],
        "route_concept_id": 0,
        "visit_occurrence_id": stays.visit_id[medications.stay_row],
        "drug_source_value": codes[medications.drug_row],
        "drug_source_concept_id": drug_concepts,
    }


def _measurement(population: Population) -> dict[str, Column]:
    results, orders, stays = population.results, population.orders, population.stays
    stay_row = orders.stay_row[results.order_row]
    drawn = population.config.local(orders.collected[results.order_row])
    told = telling(population, "omop")
    mapped = told.analyte_mapped
    concept_ids = np.array([one.concept_id * mapped[row] for row, one in enumerate(ANALYTES)])[results.analyte_row]
    codes = np.array([one.loinc if mapped[row] else local_code("LAB", row) for row, one in enumerate(ANALYTES)])
    decimals = np.array(told.decimals)[results.analyte_row]
    return {
        "measurement_id": results.result_id,
        "person_id": population.persons.person_id[stays.person_row[stay_row]],
        "measurement_concept_id": concept_ids,
        "measurement_date": _dates(drawn),
        "measurement_datetime": drawn,
        "measurement_type_concept_id": TYPE_LAB,
        "operator_concept_id": 0,
        "value_as_number": told.value,
        "unit_concept_id": np.array([UNIT_CONCEPTS[unit] for unit in told.units])[results.analyte_row],
        "range_low": told.low,
        "range_high": told.high,
        "visit_occurrence_id": stays.visit_id[stay_row],
        "measurement_source_value": codes[results.analyte_row],
        "measurement_source_concept_id": concept_ids,
        "unit_source_value": np.array(told.units)[results.analyte_row],
        "value_source_value": [
            f"{value:.{digits}f}" for value, digits in zip(told.value.tolist(), decimals.tolist(), strict=True)
        ],
        "measurement_event_id": orders.order_id[results.order_row],
    }


def _observation_period(population: Population) -> dict[str, Column]:
    """From the day of the first charted fact to the day of the last discharge or, if later, last result."""
    persons, stays, conditions = population.persons, population.stays, population.conditions
    orders, config = population.orders, population.config
    first = np.full(len(persons), config.end_instant)
    np.minimum.at(first, stays.person_row, stays.start)
    np.minimum.at(first, conditions.person_row, conditions.recorded)
    last = np.full(len(persons), config.start_instant)
    np.maximum.at(last, stays.person_row, stays.end)
    done = ~orders.cancelled
    np.maximum.at(last, stays.person_row[orders.stay_row[done]], orders.resulted[done])
    return {
        "observation_period_id": persons.person_id,
        "person_id": persons.person_id,
        "observation_period_start_date": _dates(config.local(first)),
        "observation_period_end_date": _dates(config.local(last)),
        "period_type_concept_id": TYPE_EHR,
    }


def _concept() -> dict[str, Column]:
    rows = concepts()
    return {
        "concept_id": [row.concept_id for row in rows],
        "concept_name": [row.name for row in rows],
        "domain_id": [row.domain for row in rows],
        "vocabulary_id": [row.vocabulary for row in rows],
        "concept_class_id": [row.concept_class for row in rows],
        "standard_concept": [("S" if row.standard else None) for row in rows],
        "concept_code": [row.code for row in rows],
        "valid_start_date": np.full(len(rows), np.datetime64("1970-01-01")),
        "valid_end_date": np.full(len(rows), np.datetime64("2099-12-31")),
    }


def _ext_lab_order(population: Population) -> dict[str, Column]:
    orders, stays, config = population.orders, population.stays, population.config
    return {
        "order_id": orders.order_id,
        "person_id": population.persons.person_id[stays.person_row[orders.stay_row]],
        "visit_occurrence_id": stays.visit_id[orders.stay_row],
        "panel": np.array([panel.name for panel in PANELS])[orders.panel_row],
        "panel_loinc": np.array([panel.loinc for panel in PANELS])[orders.panel_row],
        "order_datetime": config.local(orders.ordered),
        "collect_datetime": config.local(orders.collected),
        "result_datetime": config.local(orders.resulted),
    }


def _dates(local: Instants) -> Instants:
    """Give the local calendar days of naive local times."""
    return local.astype("datetime64[D]")


def _arrow_table(name: str, columns: Mapping[str, Column]) -> Any:
    """Build the table with every column of its schema, in order."""
    import pyarrow as pa

    rows = len(next(iter(columns.values())))
    arrays = []
    for column in TABLES[name]:
        values = columns.get(column)
        kind = arrow_type(column)
        if values is None:
            arrays.append(pa.nulls(rows, kind))
        elif isinstance(values, int | str):
            arrays.append(pa.array([values] * rows, kind))
        else:
            arrays.append(pa.array(values, kind, from_pandas=True))
    unknown = set(columns) - set(TABLES[name])
    if unknown:
        raise ValueError(f"{name} has no column {sorted(unknown)}")
    return pa.table(arrays, names=list(TABLES[name]))
