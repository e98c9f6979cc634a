"""What is asked of an extract's tables, and how each answer's columns are called.

The first two columns of every query over facts are the person's id and the row's own.
"""

from __future__ import annotations

from typing import Any

from deployr_dev.sources.omop_facts import (
    CodeColumns,
    ConditionRow,
    DrugRow,
    MeasurementRow,
    PersonRow,
    TimeColumns,
)

_CODES = "s.vocabulary_id, s.concept_code, c.vocabulary_id, c.concept_code"


def _concepts(source: str, standard: str) -> str:
    """Join the source concept as ``s`` and the standard one as ``c``; concept 0 is OMOP's "no matching concept"."""
    return (
        f"LEFT JOIN concept s ON s.concept_id = {source} AND s.concept_id <> 0 "
        f"LEFT JOIN concept c ON c.concept_id = {standard} AND c.concept_id <> 0"
    )


PERSONS = f"SELECT {', '.join(PersonRow._fields)} FROM person"  # noqa: S608 — our names

MEASUREMENTS = f"""
    SELECT f.person_id, f.measurement_id, {_CODES}, f.measurement_source_value, NULL,
           f.measurement_datetime, f.measurement_date, f.value_as_number, f.range_low, f.range_high,
           u.concept_code, f.unit_source_value, o.order_id, o.result_datetime
    FROM measurement f
    {_concepts("f.measurement_source_concept_id", "f.measurement_concept_id")}
    LEFT JOIN concept u ON u.concept_id = f.unit_concept_id AND u.vocabulary_id = 'UCUM'
    LEFT JOIN ext_lab_order o ON o.order_id = f.measurement_event_id AND o.person_id = f.person_id
"""  # noqa: S608 — our names

RESULTS_OF_COMPONENTS = """
    WHERE (s.vocabulary_id = $1 AND list_contains($2, s.concept_code))
       OR (c.vocabulary_id = $1 AND list_contains($2, c.concept_code))
       OR (s.concept_code IS NULL AND c.concept_code IS NULL AND list_contains($2, f.measurement_source_value))
"""
"""Appended to `MEASUREMENTS`; parameters: the vocabulary's id and the codes."""

CONDITIONS = f"""
    SELECT f.person_id, f.condition_occurrence_id, {_CODES}, f.condition_source_value,
           f.condition_status_source_value, f.condition_start_datetime, f.condition_start_date,
           f.condition_type_concept_id
    FROM condition_occurrence f
    {_concepts("f.condition_source_concept_id", "f.condition_concept_id")}
"""  # noqa: S608 — our names

DRUGS = f"""
    SELECT f.person_id, f.drug_exposure_id, {_CODES}, f.drug_source_value, NULL,
           f.drug_exposure_start_datetime, f.drug_exposure_start_date
    FROM drug_exposure f
    {_concepts("f.drug_source_concept_id", "f.drug_concept_id")}
"""  # noqa: S608 — our names

LAB_ORDERS = """
    SELECT person_id, order_id, visit_occurrence_id, panel_loinc, order_datetime, collect_datetime, result_datetime
    FROM ext_lab_order
    WHERE list_contains($1, panel_loinc) AND order_datetime IS NOT NULL
    ORDER BY person_id, order_datetime, order_id
"""
"""Parameter: the panels' codes."""


def measurement_row(row: tuple[Any, ...]) -> MeasurementRow:
    """Name the columns of an answer to `MEASUREMENTS`."""
    return MeasurementRow(
        person_id=row[0],
        measurement_id=row[1],
        code=CodeColumns(*row[2:8]),
        time=TimeColumns(row[8], row[9]),
        value=row[10],
        range_low=row[11],
        range_high=row[12],
        unit_concept_code=row[13],
        unit_source_value=row[14],
        order_id=row[15],
        released=TimeColumns(row[16], None),
    )


def condition_row(row: tuple[Any, ...]) -> ConditionRow:
    """Name the columns of an answer to `CONDITIONS`."""
    return ConditionRow(row[0], row[1], CodeColumns(*row[2:8]), TimeColumns(row[8], row[9]), row[10])


def drug_row(row: tuple[Any, ...]) -> DrugRow:
    """Name the columns of an answer to `DRUGS`."""
    return DrugRow(row[0], row[1], CodeColumns(*row[2:8]), TimeColumns(row[8], row[9]))
