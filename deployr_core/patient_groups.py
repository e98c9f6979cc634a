"""What a packet says of its patient beside the features: groups that a model is to serve alike, and never scores by.

Both are coarse on purpose. The language is a language, not a dialect or a country; insurance is who pays, never which
company, plan or member.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from deployr_core.codes import Code

BCP_47 = "urn:ietf:bcp:47"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SELF_PAY = "http://terminology.hl7.org/CodeSystem/coverage-selfpay"
SOPT = frozenset({"https://nahdo.org/sopt", "urn:oid:2.16.840.1.113883.3.221.5"})
"""Source: FHIR R4, http://hl7.org/fhir/R4/valueset-coverage-type.html and valueset-languages.html; the Source of
Payment Typology, https://terminology.hl7.org/NamingSystem-SOPT.html [seen]."""

_TAG = re.compile(r"([A-Za-z]{2,3})(?:-[A-Za-z0-9]{1,8})*\Z", re.ASCII)
_NO_LANGUAGE = frozenset({"mis", "mul", "und", "zxx"})
"""Uncoded, several, undetermined, none. Source: RFC 5646 section 4.1, https://www.rfc-editor.org/rfc/rfc5646."""


class Payer(StrEnum):
    """Who pays for the patient's care. ``several``: more than one of them, and nobody says which comes first."""

    PUBLIC = "public"
    PRIVATE = "private"
    SELF_PAY = "self-pay"
    OTHER = "other"
    SEVERAL = "several"


PAYERS = frozenset(Payer)

_SOPT = {**dict.fromkeys("1234", Payer.PUBLIC), **dict.fromkeys("567", Payer.PRIVATE), "9": Payer.OTHER}
"""By the first digit: Medicare, Medicaid, other government, corrections; private, Blue Cross, managed care; others."""
_ACT_CODES = {
    **dict.fromkeys(("EHCPOL", "HSAPOL", "HIP", "HMO", "MCPOL", "POS", "PPO"), Payer.PRIVATE),
    **dict.fromkeys(("PUBLICPOL", "MANDPOL", "SAFNET", "SUBSIDIZ", "SUBSIDMC", "SUBSUPP", "GOVEMP"), Payer.PUBLIC),
    **dict.fromkeys(("DENTPRG", "DISEASEPRG", "CANPRG", "ENDRENAL", "HIVAIDS", "MENTPRG", "SUBPRG"), Payer.PUBLIC),
    **dict.fromkeys(("HIRISK", "IND", "MILITARY", "RETIRE", "SOCIAL", "VET"), Payer.PUBLIC),
    **dict.fromkeys(("WCBPOL", "AUTOPOL", "COL", "UNINSMOT", "CHAR", "CRIME", "EAP"), Payer.OTHER),
}


class PatientGroups(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``language``: the preferred one, by its primary subtag such as ``es``; ``insurance``: who pays. None: not known.

    Nothing is shown in a ``repr`` or by rich: both end up in logs and tracebacks.
    """

    language: str | None = None
    insurance: Payer | None = None

    def __repr__(self) -> str:
        return "<PatientGroups>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


def language_of(tag: str) -> str | None:
    """Give the primary subtag of a language tag in lower case: ``es`` of ``es-MX``; None where it names no language.

    Source: RFC 5646 section 2.2.1, https://www.rfc-editor.org/rfc/rfc5646 (BCP 47).
    """
    match = _TAG.match(tag)
    if match is None or match[1].lower() in _NO_LANGUAGE:
        return None
    return match[1].lower()


def payer_of(codes: Iterable[Code]) -> Payer | None:
    """Give who pays by the codes of one coverage's type; None where they do not say.

    The typology of payers counts before HL7's codes, which tell more of the product than of who stands behind it.
    """
    coded = tuple(codes)
    for code in coded:
        if code.system in SOPT and code.value:
            if code.value.startswith("8"):
                return Payer.SELF_PAY if code.value.startswith("81") else Payer.OTHER
            if code.value[0] in _SOPT:
                return _SOPT[code.value[0]]
    for code in coded:
        if code.system == SELF_PAY:
            return Payer.SELF_PAY
        if code.system == ACT_CODE and code.value in _ACT_CODES:
            return _ACT_CODES[code.value]
    return None


def payer_among(coverages: Sequence[tuple[int | None, Payer]]) -> Payer | None:
    """Give who pays where there are several coverages, each with its place in the order of paying, None if unknown.

    The first in order counts; where that does not tell them apart, what they have in common, or ``several``.
    """
    if not coverages:
        return None
    places = [place for place, _ in coverages if place is not None]
    first = [payer for place, payer in coverages if not places or place == min(places)]
    return first[0] if len(set(first)) == 1 else Payer.SEVERAL
