"""The columns of each table of the extract, in order, and the Arrow type of each.

Source: OMOP Common Data Model 5.4, https://ohdsi.github.io/CommonDataModel/cdm54.html. ``ext_lab_order`` is
our own table: OMOP has no place for when a laboratory order was signed, drawn and resulted.
"""

from collections.abc import Mapping
from typing import Any, Final

TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(columns.split())
    for name, columns in {
        "person": """person_id gender_concept_id year_of_birth month_of_birth day_of_birth birth_datetime
            race_concept_id ethnicity_concept_id location_id provider_id care_site_id person_source_value
            gender_source_value gender_source_concept_id race_source_value race_source_concept_id
            ethnicity_source_value ethnicity_source_concept_id""",
        "visit_occurrence": """visit_occurrence_id person_id visit_concept_id visit_start_date
            visit_start_datetime visit_end_date visit_end_datetime visit_type_concept_id provider_id
            care_site_id visit_source_value visit_source_concept_id admitted_from_concept_id
            admitted_from_source_value discharged_to_concept_id discharged_to_source_value
            preceding_visit_occurrence_id""",
        "condition_occurrence": """condition_occurrence_id person_id condition_concept_id
            condition_start_date condition_start_datetime condition_end_date condition_end_datetime
            condition_type_concept_id condition_status_concept_id stop_reason provider_id
            visit_occurrence_id visit_detail_id condition_source_value condition_source_concept_id
            condition_status_source_value""",
        "drug_exposure": """drug_exposure_id person_id drug_concept_id drug_exposure_start_date
            drug_exposure_start_datetime drug_exposure_end_date drug_exposure_end_datetime
            verbatim_end_date drug_type_concept_id stop_reason refills quantity days_supply sig
            route_concept_id lot_number provider_id visit_occurrence_id visit_detail_id drug_source_value
            drug_source_concept_id route_source_value dose_unit_source_value""",
        "measurement": """measurement_id person_id measurement_concept_id measurement_date
            measurement_datetime measurement_time measurement_type_concept_id operator_concept_id
            value_as_number value_as_concept_id unit_concept_id range_low range_high provider_id
            visit_occurrence_id visit_detail_id measurement_source_value measurement_source_concept_id
            unit_source_value unit_source_concept_id value_source_value measurement_event_id
            meas_event_field_concept_id""",
        "observation_period": """observation_period_id person_id observation_period_start_date
            observation_period_end_date period_type_concept_id""",
        "concept": """concept_id concept_name domain_id vocabulary_id concept_class_id standard_concept
            concept_code valid_start_date valid_end_date invalid_reason""",
        "visit_detail": """visit_detail_id person_id visit_detail_concept_id visit_detail_start_date
            visit_detail_start_datetime visit_detail_end_date visit_detail_end_datetime
            visit_detail_type_concept_id provider_id care_site_id visit_detail_source_value
            visit_detail_source_concept_id admitted_from_concept_id admitted_from_source_value
            discharged_to_concept_id discharged_to_source_value preceding_visit_detail_id
            parent_visit_detail_id visit_occurrence_id""",
        "death": """person_id death_date death_datetime death_type_concept_id cause_concept_id
            cause_source_value cause_source_concept_id""",
        "care_site": """care_site_id care_site_name place_of_service_concept_id location_id
            care_site_source_value place_of_service_source_value""",
        "cdm_source": "cdm_source_name cdm_source_abbreviation cdm_version source_description",
        "ext_lab_order": """order_id person_id visit_occurrence_id panel panel_loinc order_datetime
            collect_datetime result_datetime""",
    }.items()
}

_WORDS = frozenset({"domain_id", "vocabulary_id", "concept_class_id"})
_WHOLE = frozenset({"year_of_birth", "month_of_birth", "day_of_birth", "refills", "days_supply"})
_REAL = frozenset({"value_as_number", "range_low", "range_high", "quantity"})


def arrow_type(column: str) -> Any:
    """Give the Arrow type of a column from OMOP's naming rules and their few exceptions."""
    import pyarrow as pa

    if column in _WORDS:
        return pa.string()
    if column.endswith("_id") or column in _WHOLE:
        return pa.int64()
    if column.endswith("_datetime"):
        return pa.timestamp("us")
    if column.endswith("_date"):
        return pa.date32()
    return pa.float64() if column in _REAL else pa.string()
