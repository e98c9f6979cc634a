"""The concept rows behind every code that the extract uses."""

from dataclasses import dataclass

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
    Category,
)
from mock_emr.population.diagnoses import DIAGNOSES, diagnosis_concept
from mock_emr.population.drugs import DRUGS, drug_concept
from mock_emr.population.labs import ANALYTES, PANELS


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One row of the OMOP CONCEPT table.

    Args:
        concept_id: OMOP's number, or a local one above two billion.
        name: concept_name.
        domain: domain_id.
        vocabulary: vocabulary_id.
        concept_class: concept_class_id.
        standard: whether it is a standard concept ("S").
        code: the code in its own vocabulary.
    """

    concept_id: int
    name: str
    domain: str
    vocabulary: str
    concept_class: str
    standard: bool
    code: str


UNIT_NAMES = {
    "%": "percent",
    "g/dL": "gram per deciliter",
    "mg/dL": "milligram per deciliter",
    "mmol/L": "millimole per liter",
    "10*3/uL": "thousand per microliter",
    "g/L": "gram per liter",
    "umol/L": "micromole per liter",
}

# Source: OMOP vocabularies, Type Concept and Visit.
_FIXED = (
    (0, "No matching concept", "Metadata", "None", "Undefined", False, "No matching concept"),
    (INPATIENT_VISIT, "Inpatient Visit", "Visit", "Visit", "Visit", True, "IP"),
    (TYPE_EHR, "EHR", "Type Concept", "Type Concept", "Type Concept", True, "OMOP4976890"),
    (TYPE_PRESCRIPTION, "EHR prescription", "Type Concept", "Type Concept", "Type Concept", True, "OMOP4976911"),
    (TYPE_PROBLEM_LIST, "EHR problem list", "Type Concept", "Type Concept", "Type Concept", True, "OMOP4976913"),
    (TYPE_LAB, "Lab", "Type Concept", "Type Concept", "Type Concept", True, "OMOP4976929"),
)


def concepts() -> tuple[Concept, ...]:
    """Give every concept row, in order of concept id, each id once."""
    rows = [
        Concept(
            concept_id=concept_id,
            name=name,
            domain=domain,
            vocabulary=vocabulary,
            concept_class=concept_class,
            standard=standard,
            code=code,
        )
        for concept_id, name, domain, vocabulary, concept_class, standard, code in _FIXED
    ]
    for vocabulary, categories in (("Gender", SEXES), ("Race", RACES), ("Ethnicity", ETHNICITIES)):
        rows.extend(_category(vocabulary, category) for category in categories if category.concept_id)
    rows.extend(
        _standard(number, UNIT_NAMES[unit], "Unit", "UCUM", "Unit", unit) for unit, number in UNIT_CONCEPTS.items()
    )
    rows.extend(
        _standard(analyte.concept_id, analyte.name, "Measurement", "LOINC", "Lab Test", analyte.loinc)
        for analyte in ANALYTES
    )
    rows.extend(
        _standard(panel.concept_id, panel.display, "Measurement", "LOINC", "Lab Test", panel.loinc)
        for panel in PANELS
        if len(panel.analyte_rows) > 1
    )
    rows.extend(
        _standard(drug_concept(row), drug.name, "Drug", "RxNorm", "Ingredient", drug.code)
        for row, drug in enumerate(DRUGS)
    )
    rows.extend(
        Concept(
            concept_id=diagnosis_concept(row),
            name=diagnosis.name,
            domain="Condition",
            vocabulary="ICD10CM",
            concept_class=f"{len(diagnosis.code.replace('.', ''))}-char billing code",
            standard=False,
            code=diagnosis.code,
        )
        for row, diagnosis in enumerate(DIAGNOSES)
    )
    return tuple(sorted(rows, key=lambda row: row.concept_id))


def _category(vocabulary: str, category: Category) -> Concept:
    """Give the row of one demographic category; OMOP codes genders and ethnicities by their own words."""
    code = {"Gender": category.source, "Race": category.code, "Ethnicity": category.source}[vocabulary]
    return _standard(category.concept_id, category.display, vocabulary, vocabulary, vocabulary, code)


def _standard(concept_id: int, name: str, domain: str, vocabulary: str, concept_class: str, code: str) -> Concept:
    """Give the row of a standard concept."""
    return Concept(
        concept_id=concept_id,
        name=name,
        domain=domain,
        vocabulary=vocabulary,
        concept_class=concept_class,
        standard=True,
        code=code,
    )
