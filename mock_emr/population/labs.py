"""The laboratory's catalogue: analytes with their units, ranges and spreads, and the panels that hold them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Analyte:
    """One thing the laboratory measures.

    Args:
        loinc: LOINC code.
        concept_id: OMOP concept of that code.
        name: as the result screen shows it.
        unit: UCUM code of the unit of every number here.
        decimals: digits after the point that the laboratory reports.
        low: lower end of the normal range, included: for women, for men.
        high: upper end of the normal range, included: for women, for men.
        floor: smallest value the analyser reports.
        ceiling: largest.
        between_cv: spread of people's habitual levels that illness does not explain, as a fraction.
        within_cv: spread of repeated draws from an unchanged person, as a fraction.
    """

    loinc: str
    concept_id: int
    name: str
    unit: str
    decimals: int
    low: tuple[float, float]
    high: tuple[float, float]
    floor: float
    ceiling: float
    between_cv: float
    within_cv: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One thing a clinician orders.

    Args:
        name: as the order screen shows it.
        loinc: LOINC code of the order.
        concept_id: OMOP concept of that code.
        display: LOINC long name.
        analyte_rows: its components, into `ANALYTES`, in reporting order.
    """

    name: str
    loinc: str
    concept_id: int
    display: str
    analyte_rows: tuple[int, ...]


# Codes, concepts, units and ranges are those of the paired example extract; ranges are typical US adult.
# The within-person spreads are of the order published by Ricos et al. (1999), Scand J Clin Lab Invest 59:491,
# doi:10.1080/00365519950185229. Glucose is wider (meals and insulin on a ward), magnesium too; hematocrit's
# is the part it does not share with hemoglobin.
ANALYTES: Final = (
    Analyte(
        name="Hematocrit",
        loinc="4544-3",
        concept_id=3023314,
        unit="%",
        decimals=1,
        low=(35.0, 40.0),
        high=(47.0, 52.0),
        floor=10.0,
        ceiling=70.0,
        between_cv=0.02,
        within_cv=0.027,
    ),
    Analyte(
        name="Hemoglobin",
        loinc="718-7",
        concept_id=3000963,
        unit="g/dL",
        decimals=1,
        low=(11.7, 13.5),
        high=(15.7, 17.7),
        floor=3.0,
        ceiling=24.0,
        between_cv=0.05,
        within_cv=0.028,
    ),
    Analyte(
        name="Leukocytes",
        loinc="6690-2",
        concept_id=3000905,
        unit="10*3/uL",
        decimals=1,
        low=(4.0, 4.0),
        high=(11.0, 11.0),
        floor=0.1,
        ceiling=400.0,
        between_cv=0.2,
        within_cv=0.11,
    ),
    Analyte(
        name="Platelets",
        loinc="777-3",
        concept_id=3024929,
        unit="10*3/uL",
        decimals=0,
        low=(150.0, 150.0),
        high=(400.0, 400.0),
        floor=5.0,
        ceiling=1500.0,
        between_cv=0.33,
        within_cv=0.09,
    ),
    Analyte(
        name="Sodium",
        loinc="2951-2",
        concept_id=3019550,
        unit="mmol/L",
        decimals=0,
        low=(135.0, 135.0),
        high=(145.0, 145.0),
        floor=100.0,
        ceiling=190.0,
        between_cv=0.015,
        within_cv=0.007,
    ),
    Analyte(
        name="Potassium",
        loinc="2823-3",
        concept_id=3023103,
        unit="mmol/L",
        decimals=1,
        low=(3.5, 3.5),
        high=(5.5, 5.5),
        floor=1.5,
        ceiling=12.0,
        between_cv=0.05,
        within_cv=0.05,
    ),
    Analyte(
        name="Chloride",
        loinc="2075-0",
        concept_id=3014576,
        unit="mmol/L",
        decimals=0,
        low=(98.0, 98.0),
        high=(107.0, 107.0),
        floor=65.0,
        ceiling=150.0,
        between_cv=0.01,
        within_cv=0.012,
    ),
    Analyte(
        name="Carbon dioxide, total",
        loinc="2028-9",
        concept_id=3015632,
        unit="mmol/L",
        decimals=0,
        low=(20.0, 20.0),
        high=(30.0, 30.0),
        floor=5.0,
        ceiling=70.0,
        between_cv=0.05,
        within_cv=0.045,
    ),
    Analyte(
        name="Urea nitrogen",
        loinc="3094-0",
        concept_id=3013682,
        unit="mg/dL",
        decimals=0,
        low=(7.0, 7.0),
        high=(25.0, 25.0),
        floor=2.0,
        ceiling=250.0,
        between_cv=0.18,
        within_cv=0.12,
    ),
    Analyte(
        name="Creatinine",
        loinc="2160-0",
        concept_id=3016723,
        unit="mg/dL",
        decimals=2,
        low=(0.51, 0.67),
        high=(0.95, 1.17),
        floor=0.15,
        ceiling=25.0,
        between_cv=0.15,
        within_cv=0.055,
    ),
    Analyte(
        name="Glucose",
        loinc="2345-7",
        concept_id=3004501,
        unit="mg/dL",
        decimals=0,
        low=(70.0, 70.0),
        high=(140.0, 140.0),
        floor=20.0,
        ceiling=1500.0,
        between_cv=0.12,
        within_cv=0.17,
    ),
    Analyte(
        name="Calcium",
        loinc="17861-6",
        concept_id=3006906,
        unit="mg/dL",
        decimals=1,
        low=(8.4, 8.4),
        high=(10.5, 10.5),
        floor=4.0,
        ceiling=18.0,
        between_cv=0.03,
        within_cv=0.02,
    ),
    Analyte(
        name="Albumin",
        loinc="1751-7",
        concept_id=3024561,
        unit="g/dL",
        decimals=1,
        low=(3.5, 3.5),
        high=(5.2, 5.2),
        floor=0.8,
        ceiling=7.0,
        between_cv=0.08,
        within_cv=0.032,
    ),
    Analyte(
        name="Magnesium",
        loinc="19123-9",
        concept_id=3001420,
        unit="mg/dL",
        decimals=1,
        low=(1.6, 1.6),
        high=(2.4, 2.4),
        floor=0.5,
        ceiling=10.0,
        between_cv=0.08,
        within_cv=0.05,
    ),
)
(
    HEMATOCRIT,
    HEMOGLOBIN,
    LEUKOCYTES,
    PLATELETS,
    SODIUM,
    POTASSIUM,
    CHLORIDE,
    CARBON_DIOXIDE,
    UREA_NITROGEN,
    CREATININE,
    GLUCOSE,
    CALCIUM,
    ALBUMIN,
    MAGNESIUM,
) = range(14)

PANELS: Final = (
    Panel(
        name="CBC",
        loinc="58410-2",
        concept_id=40761511,
        display="CBC panel - Blood by Automated count",
        analyte_rows=(HEMATOCRIT, HEMOGLOBIN, LEUKOCYTES, PLATELETS),
    ),
    Panel(
        name="METABOLIC",
        loinc="24323-8",
        concept_id=3026023,
        display="Comprehensive metabolic 2000 panel - Serum or Plasma",
        analyte_rows=(
            SODIUM,
            POTASSIUM,
            CHLORIDE,
            CARBON_DIOXIDE,
            UREA_NITROGEN,
            CREATININE,
            GLUCOSE,
            CALCIUM,
            ALBUMIN,
        ),
    ),
    Panel(
        name="MAGNESIUM",
        loinc="19123-9",
        concept_id=3001420,
        display="Magnesium [Mass/volume] in Serum or Plasma",
        analyte_rows=(MAGNESIUM,),
    ),
)
CBC, METABOLIC, MAGNESIUM_ALONE = range(3)
