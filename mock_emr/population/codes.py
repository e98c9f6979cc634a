"""Coding systems, demographic categories and identifiers that both writers share."""

from dataclasses import dataclass

ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
LOINC = "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
UCUM = "http://unitsofmeasure.org"
WARD_SYSTEM = "urn:deployr:synthetic:ward"
PERSON_SYSTEM = "urn:deployr:synthetic:person"
CSN_SYSTEM = "urn:oid:1.2.840.114350.1.13.0.1.7.3.698084.8"
OMB_CATEGORY = "urn:oid:2.16.840.1.113883.6.238"

# Concept ids above this are a site's own. Source: OMOP CDM 5.4, CONCEPT table conventions (2-billionaires).
LOCAL_CONCEPTS = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class Category:
    """One value of a demographic column, as each side writes it.

    Args:
        concept_id: OMOP standard concept; 0 for unknown.
        source: what the hospital's registration screen says.
        code: FHIR administrative gender, or the OMB category code; empty for unknown.
        display: the code's name.
    """

    concept_id: int
    source: str
    code: str
    display: str


FEMALE_ROW, MALE_ROW = 0, 1

# Source of the codes: US Core race and ethnicity extensions (OMB 1997 categories); OMOP vocabularies.
SEXES = (
    Category(concept_id=8532, source="F", code="female", display="FEMALE"),
    Category(concept_id=8507, source="M", code="male", display="MALE"),
)
RACES = (
    Category(concept_id=8527, source="White", code="2106-3", display="White"),
    Category(
        concept_id=8516,
        source="Black or African American",
        code="2054-5",
        display="Black or African American",
    ),
    Category(concept_id=8515, source="Asian", code="2028-9", display="Asian"),
    Category(concept_id=0, source="Unknown", code="", display=""),
    Category(
        concept_id=8657,
        source="American Indian or Alaska Native",
        code="1002-5",
        display="American Indian or Alaska Native",
    ),
    Category(
        concept_id=8557,
        source="Native Hawaiian or Other Pacific Islander",
        code="2076-8",
        display="Native Hawaiian or Other Pacific Islander",
    ),
    # The OMB categories know no other race: an EMR that has it leaves the category out, as for the unknown.
    Category(concept_id=0, source="Other", code="", display=""),
)
ETHNICITIES = (
    Category(concept_id=38003563, source="Hispanic", code="2135-2", display="Hispanic or Latino"),
    Category(
        concept_id=38003564,
        source="Not Hispanic",
        code="2186-5",
        display="Not Hispanic or Latino",
    ),
    Category(concept_id=0, source="Unknown", code="", display=""),
)

UNIT_CONCEPTS = {"%": 8554, "g/dL": 8713, "mg/dL": 8840, "mmol/L": 8753, "10*3/uL": 8848, "g/L": 8636, "umol/L": 8749}

INPATIENT_VISIT = 9201
TYPE_EHR = 32817
TYPE_PRESCRIPTION = 32838
TYPE_PROBLEM_LIST = 32840
TYPE_LAB = 32856


def person_value(person_id: int) -> str:
    """Name the patient as ``person_source_value`` and as ``Patient.identifier.value``."""
    return f"SYN{person_id:07d}"


def patient_id(person_id: int) -> str:
    """Name the patient's FHIR resource."""
    return f"syn-p-{person_id}"


def encounter_id(visit_id: int) -> str:
    """Name the stay's FHIR resource."""
    return f"syn-e-{visit_id}"


def condition_id(number: int) -> str:
    """Name the diagnosis's FHIR resource."""
    return f"syn-c-{number}"


def medication_request_id(number: int) -> str:
    """Name the medication order's FHIR resource."""
    return f"syn-m-{number}"


def service_request_id(order_id: int) -> str:
    """Name the laboratory order's FHIR resource."""
    return f"syn-o-{order_id}"


def observation_id(result_id: int) -> str:
    """Name the laboratory result's FHIR resource."""
    return f"syn-l-{result_id}"
