"""Which tables and columns of OMOP 5.4 are read, and what each column must hold.

``ext_lab_order`` is ours: OMOP has no table of orders, and no time at which a result was released.

Source: OMOP CDM 5.4, https://ohdsi.github.io/CommonDataModel/cdm54.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from deployr_dev.sources.tables import Columns, Kind

REQUIRED_TABLES: Mapping[str, Columns] = MappingProxyType(
    {
        "person": {
            "person_id": Kind.KEY,
            "gender_concept_id": Kind.INTEGER,
            "year_of_birth": Kind.INTEGER,
            "month_of_birth": Kind.INTEGER,
            "day_of_birth": Kind.INTEGER,
            "race_concept_id": Kind.INTEGER,
            "ethnicity_concept_id": Kind.INTEGER,
            "person_source_value": Kind.TEXT,
        },
        "visit_occurrence": {"visit_occurrence_id": Kind.KEY, "person_id": Kind.KEY},
        "condition_occurrence": {
            "condition_occurrence_id": Kind.KEY,
            "person_id": Kind.KEY,
            "condition_concept_id": Kind.INTEGER,
            "condition_start_date": Kind.DATE,
            "condition_start_datetime": Kind.DATETIME,
            "condition_type_concept_id": Kind.INTEGER,
            "condition_source_value": Kind.TEXT,
            "condition_source_concept_id": Kind.INTEGER,
            "condition_status_source_value": Kind.TEXT,
        },
        "drug_exposure": {
            "drug_exposure_id": Kind.KEY,
            "person_id": Kind.KEY,
            "drug_concept_id": Kind.INTEGER,
            "drug_exposure_start_date": Kind.DATE,
            "drug_exposure_start_datetime": Kind.DATETIME,
            "drug_source_value": Kind.TEXT,
            "drug_source_concept_id": Kind.INTEGER,
        },
        "measurement": {
            "measurement_id": Kind.KEY,
            "person_id": Kind.KEY,
            "measurement_concept_id": Kind.INTEGER,
            "measurement_date": Kind.DATE,
            "measurement_datetime": Kind.DATETIME,
            "value_as_number": Kind.NUMBER,
            "unit_concept_id": Kind.INTEGER,
            "range_low": Kind.NUMBER,
            "range_high": Kind.NUMBER,
            "measurement_source_value": Kind.TEXT,
            "measurement_source_concept_id": Kind.INTEGER,
            "unit_source_value": Kind.TEXT,
            "measurement_event_id": Kind.INTEGER,
        },
        "concept": {"concept_id": Kind.KEY, "vocabulary_id": Kind.TEXT, "concept_code": Kind.TEXT},
        "ext_lab_order": {
            "order_id": Kind.KEY,
            "person_id": Kind.KEY,
            "visit_occurrence_id": Kind.INTEGER,
            "panel": Kind.TEXT,
            "panel_loinc": Kind.TEXT,
            "order_datetime": Kind.DATETIME,
            "collect_datetime": Kind.DATETIME,
            "result_datetime": Kind.DATETIME,
        },
    }
)
OPTIONAL_TABLES: Mapping[str, Columns] = MappingProxyType(
    {"cdm_source": {"cdm_source_name": Kind.TEXT, "cdm_source_abbreviation": Kind.TEXT}}
)
UNIQUE_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"person": ("person_id",), "concept": ("concept_id",), "ext_lab_order": ("person_id", "order_id")}
)
"""What the reading joins on: a key there twice would double facts."""
