"""Reviewed unit conversions, per analyte: a unit that is not in these tables is never guessed at."""

from __future__ import annotations

import math
from types import MappingProxyType

from deployr_core.codes import LOINC, Code

MILLION = 1_000_000.0
LIMIT = 1e9
"""No result is as large as this in any declared unit; what is, is a fault of the record."""

WIDEST = (-math.nextafter(LIMIT, 0.0), math.nextafter(LIMIT, 0.0))
"""The range of a test for which none was declared, both ends included."""

_SPELLINGS = {
    "%": ("%", "percent"),
    "g/dL": ("g/dL", "g/dl", "gm/dL", "gm/dl"),
    "g/L": ("g/L", "g/l"),
    "mg/dL": ("mg/dL", "mg/dl"),
    "mg/L": ("mg/L", "mg/l"),
    "mmol/L": ("mmol/L", "mmol/l", "mM"),
    "umol/L": ("umol/L", "umol/l", "µmol/L", "μmol/L"),
    "meq/L": ("meq/L", "mEq/L", "meq/l", "mEq/l"),
    "10*3/uL": (
        "10*3/uL",
        "10*3/ul",
        "10^3/uL",
        "K/uL",
        "k/uL",
        "K/ul",
        "10*9/L",
        "10^9/L",
        "/nL",
        "10*3/mm3",
    ),
    "/uL": ("/uL", "/ul", "/mm3"),
    "U/L": ("U/L", "u/L", "IU/L", "[iU]/L"),
    "{INR}": ("{INR}", "INR", "{ratio}", "ratio"),
    "1": ("1", "L/L", "l/l", "{fraction}"),
}
CANONICAL_SPELLING = MappingProxyType(
    {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}
)
"""Spellings that mean the same quantity to the digit, to the UCUM unit used here.

UCUM is case-sensitive (``Mg`` is not ``mg``), so only spellings seen in EMR exports are listed, each by hand.
"""

_HEMATOCRIT, _HEMOGLOBIN, _ALBUMIN = "4544-3", "718-7", "1751-7"
_PERCENT_FRACTION = {("1", "%"): 100.0}
_GRAMS = {("g/L", "g/dL"): 0.1, ("mg/dL", "g/dL"): 0.001}
_MILLIEQUIVALENTS = {("meq/L", "mmol/L"): 1.0}
_CELLS = {("/uL", "10*3/uL"): 0.001}

_FACTORS: dict[str, dict[tuple[str, str], float]] = {
    _HEMATOCRIT: _PERCENT_FRACTION,
    "20570-8": _PERCENT_FRACTION,
    _HEMOGLOBIN: {**_GRAMS, ("mmol/L", "g/dL"): 1.6114},
    _ALBUMIN: _GRAMS,
    "6690-2": _CELLS,
    "777-3": _CELLS,
    "2823-3": _MILLIEQUIVALENTS,
    "2951-2": _MILLIEQUIVALENTS,
    "2075-0": _MILLIEQUIVALENTS,
    "2028-9": _MILLIEQUIVALENTS,
    "2160-0": {("umol/L", "mg/dL"): 0.011312, ("mg/L", "mg/dL"): 0.1},
    "3094-0": {("mmol/L", "mg/dL"): 2.8014},
    "17861-6": {("mmol/L", "mg/dL"): 4.0078},
    "19123-9": {("mmol/L", "mg/dL"): 2.4305, ("meq/L", "mg/dL"): 1.21525},
    "2345-7": {("mmol/L", "mg/dL"): 18.0156},
    "1975-2": {("umol/L", "mg/dL"): 0.058467},
    "2777-1": {("mmol/L", "mg/dL"): 3.0974},
}
CONVERSIONS = MappingProxyType(
    {
        (Code(LOINC, loinc), source, target): factor
        for loinc, factors in _FACTORS.items()
        for (source, target), factor in factors.items()
    }
)
"""(analyte, unit it came in, unit wanted) to the factor. Both engines multiply the float64 value once by it.

Source: molar masses from the IUPAC 2021 standard atomic weights (creatinine 113.12 g/mol, urea nitrogen 28.014,
Ca 40.078, Mg 24.305, glucose 180.156, bilirubin 584.67, P 30.974); hemoglobin per monomer 16,114 g/mol.
"""


def conversion_factor(analyte: Code, *, unit: str, wanted: str) -> float | None:
    """Give the factor that takes a value of this analyte from ``unit`` to ``wanted``, or None where none was reviewed.

    1.0 means that the value is taken as it stands: same unit, or another spelling of it.
    """
    if unit == wanted:
        return 1.0
    source, target = CANONICAL_SPELLING.get(unit, unit), CANONICAL_SPELLING.get(wanted, wanted)
    if source == target:
        return 1.0
    return CONVERSIONS.get((analyte, source, target))


def canonical_value(value: float, factor: float, plausible: tuple[float, float] = WIDEST) -> float | None:
    """Give a result in the declared unit, in whole millionths of it; None for one outside its plausible range.

    Both ends of the range are plausible. They are compared with the converted value before it is rounded.

    ``floor(value * factor * 1e6 + 0.5) / 1e6``: the same three operations in every engine. Without the rounding, 0.29
    L/L would be 28.999999999999996 %, and fall into the bin below 29.
    """
    converted = value * factor
    if not plausible[0] <= converted <= plausible[1]:
        return None
    return math.floor(converted * MILLION + 0.5) / MILLION
