from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.codes import LOINC, Code
from deployr_core.units import CANONICAL_SPELLING, CONVERSIONS, canonical_value, conversion_factor

HEMATOCRIT, HEMOGLOBIN, CREATININE = "4544-3", "718-7", "2160-0"


def factor(loinc: str, unit: str, wanted: str) -> float | None:
    return conversion_factor(Code(LOINC, loinc), unit=unit, wanted=wanted)


@given(unit=st.text())
def test_a_value_in_the_wanted_unit_is_taken_as_it_stands(unit: str) -> None:
    assert factor("0000-0", unit, unit) == 1.0


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [("g/dl", "g/dL"), ("K/uL", "10*3/uL"), ("10*9/L", "10^3/uL"), ("mEq/L", "meq/L"), ("µmol/L", "umol/L")],
)
def test_another_spelling_of_the_unit_is_the_unit_for_any_analyte(unit: str, wanted: str) -> None:
    assert factor("0000-0", unit, wanted) == 1.0


def test_both_letters_mu_mean_micro() -> None:
    micro_sign, greek_mu = "\u00b5mol/L", "\u03bcmol/L"
    assert CANONICAL_SPELLING[micro_sign] == CANONICAL_SPELLING[greek_mu] == "umol/L"


@pytest.mark.parametrize(
    ("loinc", "unit", "wanted", "expected"),
    [
        pytest.param("4544-3", "1", "%", 100, id="hematocrit, fraction"),
        pytest.param("20570-8", "L/L", "%", 100, id="hematocrit, litre per litre"),
        pytest.param("718-7", "g/L", "g/dL", 1 / 10, id="hemoglobin, per litre"),
        pytest.param("718-7", "mmol/L", "g/dL", 16_114 / 10_000, id="hemoglobin, monomers"),
        pytest.param("1751-7", "mg/dL", "g/dL", 1 / 1000, id="albumin"),
        pytest.param("6690-2", "/uL", "10*3/uL", 1 / 1000, id="leukocytes"),
        pytest.param("777-3", "/mm3", "K/uL", 1 / 1000, id="platelets"),
        pytest.param("2823-3", "mEq/L", "mmol/L", 1, id="potassium, one charge"),
        pytest.param("2160-0", "mg/L", "mg/dL", 1 / 10, id="creatinine, per litre"),
        pytest.param("2160-0", "umol/L", "mg/dL", 113.12 / 10_000, id="creatinine"),
        pytest.param("3094-0", "mmol/L", "mg/dL", 28.014 / 10, id="urea nitrogen"),
        pytest.param("17861-6", "mmol/L", "mg/dL", 40.078 / 10, id="calcium"),
        pytest.param("19123-9", "mmol/L", "mg/dL", 24.305 / 10, id="magnesium"),
        pytest.param("19123-9", "meq/L", "mg/dL", 24.305 / 10 / 2, id="magnesium, two charges"),
        pytest.param("2345-7", "mmol/L", "mg/dL", 180.156 / 10, id="glucose"),
        pytest.param("1975-2", "umol/L", "mg/dL", 584.67 / 10_000, id="bilirubin"),
        pytest.param("2777-1", "mmol/L", "mg/dL", 30.974 / 10, id="phosphate"),
    ],
)
def test_a_factor_follows_from_the_molar_mass(loinc: str, unit: str, wanted: str, expected: float) -> None:
    assert factor(loinc, unit, wanted) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("loinc", "unit", "wanted"),
    [
        pytest.param(HEMATOCRIT, "", "%", id="no unit"),
        pytest.param(HEMATOCRIT, "furlong", "%", id="no such unit"),
        pytest.param(HEMOGLOBIN, "1", "%", id="reviewed for another analyte only"),
        pytest.param(CREATININE, "mg/dL", "umol/L", id="reviewed the other way round only"),
        pytest.param(HEMOGLOBIN, "G/DL", "g/dL", id="capitals are another unit"),
        pytest.param(HEMOGLOBIN, " g/dL", "g/dL", id="a blank is another unit"),
    ],
)
def test_a_unit_without_a_reviewed_conversion_is_never_guessed_at(loinc: str, unit: str, wanted: str) -> None:
    assert factor(loinc, unit, wanted) is None


def test_a_conversion_belongs_to_its_coding_system() -> None:
    assert conversion_factor(Code("urn:local", HEMATOCRIT), unit="1", wanted="%") is None


def test_every_conversion_is_between_canonical_spellings_by_a_positive_number() -> None:
    for (_, source, target), number in CONVERSIONS.items():
        assert CANONICAL_SPELLING[source] == source != target == CANONICAL_SPELLING[target]
        assert math.isfinite(number)
        assert number > 0


@pytest.mark.parametrize(
    ("value", "factor", "canonical"),
    [
        pytest.param(36.6, 1.0, 36.6, id="as it stands"),
        pytest.param(0.29, 100.0, 29.0, id="0.29 L/L is 29 %"),
        pytest.param(123.0, 0.1, 12.3, id="123 g/L is 12.3 g/dL"),
        pytest.param(math.nextafter(35, 0), 1.0, 35.0, id="a bit below an edge is the edge"),
        pytest.param(34.9999994, 1.0, 34.999999, id="rounded down"),
        pytest.param(34.9999996, 1.0, 35.0, id="rounded up"),
        pytest.param(5e-7, 1.0, 1e-6, id="half a millionth, up"),
        pytest.param(-5e-7, 1.0, 0.0, id="minus half a millionth, up"),
        pytest.param(4e-7, 1.0, 0.0, id="under half a millionth"),
        pytest.param(-0.0, 1.0, 0.0, id="minus zero"),
    ],
)
def test_a_result_becomes_whole_millionths_of_the_declared_unit(value: float, factor: float, canonical: float) -> None:
    found = canonical_value(value, factor)
    assert found is not None
    assert found.hex() == canonical.hex()


@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_whole_millionths_stay_as_they_are(millionths: int) -> None:
    value = millionths / 1_000_000
    assert canonical_value(value, 1.0) == value


@pytest.mark.parametrize(
    ("value", "factor", "usable"),
    [
        (999_999_999.0, 1.0, True),
        (1e9, 1.0, False),
        (-999_999_999.0, 1.0, True),
        (-1e9, 1.0, False),
        (1e9, 0.1, True),
        (1e7, 100.0, False),
        (1e308, 100.0, False),
        (math.inf, 1.0, False),
        (-math.inf, 1.0, False),
        (math.nan, 1.0, False),
    ],
)
def test_a_thousand_million_or_more_of_the_declared_unit_is_no_number(
    value: float, factor: float, usable: bool
) -> None:
    assert (canonical_value(value, factor) is not None) == usable
