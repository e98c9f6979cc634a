"""Language and insurance of a patient: coarse, from codes alone, and absent where nobody says."""

from __future__ import annotations

import msgspec
import pytest
from rich.pretty import pretty_repr

from deployr_core.codes import LOINC, Code
from deployr_core.patient_groups import (
    ACT_CODE,
    SELF_PAY,
    PatientGroups,
    Payer,
    language_of,
    payer_among,
    payer_of,
)

SOPT = "https://nahdo.org/sopt"


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("es", "es"),
        ("es-MX", "es"),
        ("EN-us", "en"),
        ("zh-Hant-TW", "zh"),
        ("hmn", "hmn"),
        ("und", None),
        ("zxx", None),
        ("mul", None),
        ("", None),
        ("Spanish", None),
        ("x-private", None),
        ("es MX", None),
        ("es-", None),
    ],
)
def test_a_language_is_the_primary_subtag_of_its_tag(tag: str, language: str | None) -> None:
    assert language_of(tag) == language


@pytest.mark.parametrize(
    ("codes", "payer"),
    [
        # Source of Payment Typology: Medicare, Medicaid's HMO, TRICARE, prisons.
        ([(SOPT, "1")], Payer.PUBLIC),
        ([(SOPT, "211")], Payer.PUBLIC),
        ([(SOPT, "311")], Payer.PUBLIC),
        ([(SOPT, "4")], Payer.PUBLIC),
        # Commercial PPO, Blue Cross, managed care of no known payer.
        ([(SOPT, "512")], Payer.PRIVATE),
        ([("urn:oid:2.16.840.1.113883.3.221.5", "6")], Payer.PRIVATE),
        ([(SOPT, "7")], Payer.PRIVATE),
        # Self-pay, charity, worker's compensation.
        ([(SOPT, "81")], Payer.SELF_PAY),
        ([(SOPT, "821")], Payer.OTHER),
        ([(SOPT, "95")], Payer.OTHER),
        ([(ACT_CODE, "PUBLICPOL")], Payer.PUBLIC),
        ([(ACT_CODE, "VET")], Payer.PUBLIC),
        ([(ACT_CODE, "HMO")], Payer.PRIVATE),
        ([(ACT_CODE, "WCBPOL")], Payer.OTHER),
        ([(SELF_PAY, "pay")], Payer.SELF_PAY),
        # A veteran's programme that is a plan by its product: who pays counts.
        ([(ACT_CODE, "HIP"), (SOPT, "32")], Payer.PUBLIC),
        ([(SOPT, "?"), (ACT_CODE, "PPO")], Payer.PRIVATE),
        ([(ACT_CODE, "LIFE")], None),
        ([(LOINC, "1")], None),
        ([], None),
    ],
)
def test_who_pays_is_told_by_the_codes_of_the_coverages_type(codes: list[tuple[str, str]], payer: Payer | None) -> None:
    assert payer_of(Code(*each) for each in codes) == payer


@pytest.mark.parametrize(
    ("coverages", "payer"),
    [
        ([], None),
        ([(None, Payer.PUBLIC)], Payer.PUBLIC),
        # Medicare first, a supplement second.
        ([(2, Payer.PRIVATE), (1, Payer.PUBLIC)], Payer.PUBLIC),
        ([(None, Payer.PRIVATE), (1, Payer.PUBLIC)], Payer.PUBLIC),
        ([(None, Payer.PRIVATE), (None, Payer.PRIVATE)], Payer.PRIVATE),
        ([(None, Payer.PRIVATE), (None, Payer.PUBLIC)], Payer.SEVERAL),
        ([(1, Payer.PRIVATE), (1, Payer.PUBLIC)], Payer.SEVERAL),
    ],
)
def test_of_several_coverages_the_first_in_order_counts(
    coverages: list[tuple[int | None, Payer]], payer: Payer | None
) -> None:
    assert payer_among(coverages) == payer


def test_nothing_of_it_is_shown_in_logs_and_tracebacks_and_what_is_not_known_is_not_written() -> None:
    groups = PatientGroups(language="es", insurance=Payer.SELF_PAY)
    assert (repr(groups), pretty_repr(groups)) == ("<PatientGroups>", "PatientGroups()")
    assert msgspec.json.encode(PatientGroups(language="es")) == b'{"language":"es"}'
    assert msgspec.json.decode(msgspec.json.encode(groups), type=PatientGroups) == groups
