"""The diagnoses that are charted, and how each depends on latent illness."""

from dataclasses import dataclass, field
from typing import Final

from mock_emr.population.codes import LOCAL_CONCEPTS


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One ICD-10-CM code.

    Args:
        code: ICD-10-CM code with its dot.
        name: the code's title.
        prevalence: chance in a patient of average severity, in (0, 1).
        chronic: it can stand on the problem list; an acute one is only ever an encounter diagnosis.
        loading: change of the log odds per standard deviation of each latent axis.
    """

    code: str
    name: str
    prevalence: float
    chronic: bool
    loading: dict[str, float] = field(default_factory=dict)


def _chronic(code: str, name: str, prevalence: float, **loading: float) -> Diagnosis:
    return Diagnosis(code=code, name=name, prevalence=prevalence, chronic=True, loading=loading)


def _acute(code: str, name: str, prevalence: float, **loading: float) -> Diagnosis:
    return Diagnosis(code=code, name=name, prevalence=prevalence, chronic=False, loading=loading)


# Codes and titles: ICD-10-CM, fiscal year 2025 (CDC NCHS). Prevalences and loadings are chosen, not fitted.
DIAGNOSES: Final = (
    _chronic("D50.9", "Iron deficiency anemia, unspecified", 0.10, anemia=1.1),
    _chronic("D63.1", "Anemia in chronic kidney disease", 0.03, anemia=0.9, renal=1.3),
    _chronic("D63.8", "Anemia in other chronic diseases classified elsewhere", 0.05, anemia=0.9, inflammation=0.6),
    _chronic("D64.9", "Anemia, unspecified", 0.16, anemia=1.2),
    _acute("D62", "Acute posthemorrhagic anemia", 0.07, anemia=1.4),
    _acute("D69.6", "Thrombocytopenia, unspecified", 0.06, inflammation=0.5),
    _acute("D72.829", "Elevated white blood cell count, unspecified", 0.08, inflammation=1.2),
    _acute("N17.9", "Acute kidney failure, unspecified", 0.14, renal=1.2),
    _chronic("N18.30", "Chronic kidney disease, stage 3 unspecified", 0.09, renal=0.9),
    _chronic("N18.4", "Chronic kidney disease, stage 4 (severe)", 0.02, renal=1.3),
    _chronic("N18.6", "End stage renal disease", 0.01, renal=1.9, anemia=0.3),
    _acute("E87.5", "Hyperkalemia", 0.05, renal=1.1),
    _acute("E87.6", "Hypokalemia", 0.10, cardiac=0.3, renal=-0.5),
    _acute("E87.1", "Hypo-osmolality and hyponatremia", 0.08, cardiac=0.6),
    _acute("E87.20", "Acidosis, unspecified", 0.05, renal=1.0, inflammation=0.5),
    _acute("E83.42", "Hypomagnesemia", 0.06, renal=-0.3),
    _acute("E88.09", "Other disorders of plasma-protein metabolism, not elsewhere classified", 0.04, inflammation=0.8),
    _chronic("E11.9", "Type 2 diabetes mellitus without complications", 0.12, glycemic=1.2),
    _chronic("E11.22", "Type 2 diabetes mellitus with diabetic chronic kidney disease", 0.05, glycemic=1.2, renal=0.9),
    _acute("E11.65", "Type 2 diabetes mellitus with hyperglycemia", 0.07, glycemic=1.6),
    _chronic("E78.5", "Hyperlipidemia, unspecified", 0.38, cardiac=0.4, glycemic=0.3),
    _chronic("E03.9", "Hypothyroidism, unspecified", 0.11),
    _chronic("E66.9", "Obesity, unspecified", 0.16, glycemic=0.5),
    _acute("E46", "Unspecified protein-calorie malnutrition", 0.05, inflammation=0.6, anemia=0.4),
    _chronic("I10", "Essential (primary) hypertension", 0.45, cardiac=0.4),
    _chronic(
        "I25.10", "Atherosclerotic heart disease of native coronary artery without angina pectoris", 0.18, cardiac=0.8
    ),
    _chronic("I48.91", "Unspecified atrial fibrillation", 0.14, cardiac=0.7),
    _chronic("I50.22", "Chronic systolic (congestive) heart failure", 0.06, cardiac=1.3),
    _chronic("I50.9", "Heart failure, unspecified", 0.10, cardiac=1.1, renal=0.2),
    _chronic("J44.9", "Chronic obstructive pulmonary disease, unspecified", 0.13, cardiac=0.2),
    _acute("J18.9", "Pneumonia, unspecified organism", 0.09, inflammation=1.0),
    _acute("J96.01", "Acute respiratory failure with hypoxia", 0.09, inflammation=0.5, cardiac=0.5),
    _acute("A41.9", "Sepsis, unspecified organism", 0.06, inflammation=1.5),
    _acute("R65.21", "Severe sepsis with septic shock", 0.01, inflammation=1.7),
    _acute("N39.0", "Urinary tract infection, site not specified", 0.08, inflammation=0.6),
    _acute("L03.90", "Cellulitis, unspecified", 0.04, inflammation=0.7, glycemic=0.3),
    _acute("K92.2", "Gastrointestinal hemorrhage, unspecified", 0.03, anemia=1.2),
    _acute("K92.1", "Melena", 0.02, anemia=1.1),
    _chronic("K74.60", "Unspecified cirrhosis of liver", 0.04, anemia=0.3),
    _chronic("F32.A", "Depression, unspecified", 0.15),
    _chronic("G47.33", "Obstructive sleep apnea (adult) (pediatric)", 0.10, cardiac=0.3),
    _chronic("M17.9", "Osteoarthritis of knee, unspecified", 0.09),
    _acute("S72.001A", "Fracture of unspecified part of neck of right femur, initial encounter", 0.015, anemia=0.3),
)


def diagnosis_concept(row: int) -> int:
    """Number the local concept of ``DIAGNOSES[row]``."""
    return LOCAL_CONCEPTS + 100_000 + row
