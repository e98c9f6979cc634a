"""What the marginals of `marginals.TEACHING_HOSPITAL` are aimed at, and where each aim comes from.

A source is one of three. ``seen``: measured on the paired example extract, 100 intensive care patients of the eICU
demo. ``given``: given with the request for this generator; its own source we have not read. ``assumed``: our choice.
The tables of the paper that this product follows (JAMIA 2023;30:1532, doi:10.1093/jamia/ocad114) could not be read
where this was written, so no figure here is theirs: ages, sexes and races stand for its Table 1 by assumption.
"""

from dataclasses import dataclass
from typing import Final, Literal

Source = Literal["seen", "given", "assumed"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One figure to be near to.

    Args:
        low: lower end of what is aimed at, included; equal to ``high`` for a single figure.
        high: upper end, included.
        source: where it comes from.
    """

    low: float
    high: float
    source: Source


def _at(value: float, source: Source) -> Target:
    return Target(low=value, high=value, source=source)


ABNORMAL_IN_INTENSIVE_CARE: Final = {
    "Hematocrit": 0.808,
    "Hemoglobin": 0.834,
    "Leukocytes": 0.417,
    "Platelets": 0.319,
    "Sodium": 0.312,
    "Potassium": 0.172,
    "Carbon dioxide, total": 0.239,
    "Urea nitrogen": 0.377,
    "Creatinine": 0.586,
    "Calcium": 0.501,
    "Albumin": 0.767,
    "Magnesium": 0.249,
}
"""Share of results outside their reference range, by component: measured on the paired example extract."""

OUTSIDE_INTENSIVE_CARE: Final = 0.825
"""What brings the hematocrits of intensive care to two thirds abnormal. Assumed to hold for the other components."""

ABNORMAL: Final = {
    name: _at(OUTSIDE_INTENSIVE_CARE * share, "assumed") for name, share in ABNORMAL_IN_INTENSIVE_CARE.items()
}

# The extract has .978, .545 and .611.
CORRELATION: Final = {
    ("Hematocrit", "Hemoglobin"): _at(0.98, "given"),
    ("Urea nitrogen", "Creatinine"): Target(low=0.55, high=0.78, source="given"),
    ("Albumin", "Calcium"): _at(0.6, "given"),
}
"""Of two results of one draw, Pearson's."""

# The extract has .52 (magnesium) to .93 (creatinine).
PERSISTENCE: Final = Target(low=0.5, high=0.95, source="seen")
"""Correlation of a result with the same patient's one before it, for each of the twelve components."""

ORDERS_A_DAY: Final = {
    "CBC": _at(1.1, "given"),
    "METABOLIC": _at(1.4, "given"),
    "MAGNESIUM": Target(low=0.5, high=1.2, source="given"),
}
"""Orders of a panel a day of stay."""

ORDER_TO_RESULT_MINUTES: Final = {
    "CBC": Target(low=26.0, high=49.0, source="given"),
    "METABOLIC": Target(low=42.0, high=80.0, source="given"),
    "MAGNESIUM": Target(low=42.0, high=80.0, source="given"),
}
"""Read as the middle nine tenths of orders, which is an assumption. The extract's median and third quartile are 26 and
49 for the CBC, 42 and 64 for the metabolic panel, 49 and 74 for magnesium."""

AT_NIGHT: Final = _at(1 / 3, "given")
"""Share of laboratory orders signed from 19:00 to 07:00, the hours of the night shift: an assumption too."""

AGE_MEAN, AGE_SD = _at(59.0, "assumed"), _at(18.0, "assumed")
FEMALE: Final = _at(0.50, "assumed")
RACE: Final = {
    "White": _at(0.50, "assumed"),
    "Asian": _at(0.18, "assumed"),
    "Black or African American": _at(0.05, "assumed"),
    "Native Hawaiian or Other Pacific Islander": _at(0.015, "assumed"),
    "American Indian or Alaska Native": _at(0.005, "assumed"),
    "Other": _at(0.20, "assumed"),
    "Unknown": _at(0.05, "assumed"),
}
READMITTED: Final = _at(0.14, "assumed")
"""Share of discharges followed by another admission within 30 days."""

DIED: Final = Target(low=0.01, high=0.03, source="assumed")
"""Share of stays that end in death."""
