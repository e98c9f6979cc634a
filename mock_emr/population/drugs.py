"""The drugs that are ordered, and how each depends on latent illness."""

from dataclasses import dataclass, field
from typing import Final

from mock_emr.population.codes import LOCAL_CONCEPTS


@dataclass(frozen=True, kw_only=True)
class Drug:
    """One RxNorm ingredient.

    Args:
        code: RxNorm concept unique identifier.
        name: ingredient name.
        prevalence: chance of an order at one opportunity, at average severity, in (0, 1).
        course_days: median length of a course.
        loading: change of the log odds per standard deviation of each latent axis.
    """

    code: str
    name: str
    prevalence: float
    course_days: float
    loading: dict[str, float] = field(default_factory=dict)


def _drug(code: str, name: str, prevalence: float, course_days: float, **loading: float) -> Drug:
    return Drug(code=code, name=name, prevalence=prevalence, course_days=course_days, loading=loading)


# Codes: RxNorm (US National Library of Medicine). Prevalences, courses and loadings are chosen, not fitted.
DRUGS: Final = (
    _drug("24947", "ferrous sulfate", 0.07, 6.0, anemia=0.9),
    _drug("24909", "iron sucrose", 0.015, 2.0, anemia=1.1, renal=0.4),
    _drug("105694", "epoetin alfa", 0.01, 4.0, anemia=0.9, renal=1.3),
    _drug("4511", "folic acid", 0.05, 6.0, anemia=0.5),
    _drug("11248", "cyanocobalamin", 0.03, 6.0, anemia=0.5),
    _drug("4603", "furosemide", 0.16, 3.0, cardiac=1.1, renal=0.3),
    _drug("1808", "bumetanide", 0.03, 3.0, cardiac=0.9, renal=0.5),
    _drug("9997", "spironolactone", 0.05, 5.0, cardiac=0.8),
    _drug("6918", "metoprolol", 0.18, 5.0, cardiac=0.8),
    _drug("20352", "carvedilol", 0.06, 5.0, cardiac=0.9),
    _drug("29046", "lisinopril", 0.12, 5.0, cardiac=0.5, renal=-0.4),
    _drug("17767", "amlodipine", 0.11, 5.0, renal=0.3),
    _drug("5470", "hydralazine", 0.05, 3.0, renal=0.6),
    _drug("83367", "atorvastatin", 0.24, 6.0, cardiac=0.5, glycemic=0.3),
    _drug("1191", "aspirin", 0.20, 6.0, cardiac=0.6),
    _drug("32968", "clopidogrel", 0.06, 6.0, cardiac=0.6),
    _drug("11289", "warfarin", 0.04, 4.0, cardiac=0.5),
    _drug("1364430", "apixaban", 0.08, 5.0, cardiac=0.6),
    _drug("5224", "heparin", 0.22, 4.0, cardiac=0.2, renal=0.4),
    _drug("67108", "enoxaparin", 0.22, 4.0, renal=-0.6),
    _drug("11124", "vancomycin", 0.10, 2.5, inflammation=1.1),
    _drug("8339", "piperacillin", 0.08, 3.0, inflammation=1.1),
    _drug("20481", "cefepime", 0.05, 3.0, inflammation=1.1),
    _drug("2193", "ceftriaxone", 0.13, 3.0, inflammation=0.8),
    _drug("29561", "meropenem", 0.015, 4.0, inflammation=1.2),
    _drug("6922", "metronidazole", 0.05, 3.0, inflammation=0.8),
    _drug("18631", "azithromycin", 0.05, 3.0, inflammation=0.6),
    _drug("82122", "levofloxacin", 0.04, 4.0, inflammation=0.7),
    _drug("86009", "insulin lispro", 0.16, 4.0, glycemic=1.3),
    _drug("274783", "insulin glargine", 0.08, 4.0, glycemic=1.4),
    _drug("6809", "metformin", 0.05, 4.0, glycemic=1.0, renal=-0.7),
    _drug("40790", "pantoprazole", 0.22, 5.0, anemia=0.4),
    _drug("8640", "prednisone", 0.06, 4.0, inflammation=0.3),
    _drug("6902", "methylprednisolone", 0.05, 2.0, inflammation=0.4),
    _drug("8591", "potassium chloride", 0.15, 1.5, cardiac=0.4, renal=-0.5),
    _drug("6585", "magnesium sulfate", 0.11, 1.0, renal=-0.3),
    _drug("36676", "sodium bicarbonate", 0.02, 2.0, renal=1.2),
    _drug("1894", "calcitriol", 0.015, 6.0, renal=1.5),
    _drug("161", "acetaminophen", 0.45, 4.0),
    _drug("26225", "ondansetron", 0.25, 2.0),
    _drug("7804", "oxycodone", 0.16, 3.0),
    _drug("3423", "hydromorphone", 0.07, 1.5),
    _drug("10582", "levothyroxine", 0.08, 6.0),
    _drug("435", "albuterol", 0.10, 4.0),
    _drug("25480", "gabapentin", 0.10, 5.0, glycemic=0.4),
    _drug("36387", "sennosides", 0.18, 4.0),
)


def drug_concept(row: int) -> int:
    """Number the local concept of ``DRUGS[row]``."""
    return LOCAL_CONCEPTS + 200_000 + row
