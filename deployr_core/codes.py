"""Coding systems and codes: what a code means is its system and its value together."""

from __future__ import annotations

from typing import NamedTuple

LOINC = "http://loinc.org"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
ICD9CM = "http://hl7.org/fhir/sid/icd-9-cm"
SNOMED = "http://snomed.info/sct"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
NDC = "http://hl7.org/fhir/sid/ndc"
UCUM = "http://unitsofmeasure.org"
OMB_RACE_ETHNICITY = "urn:oid:2.16.840.1.113883.6.238"

SYSTEM_OF_OMOP_VOCABULARY = {
    "LOINC": LOINC,
    "ICD10CM": ICD10CM,
    "ICD9CM": ICD9CM,
    "SNOMED": SNOMED,
    "RxNorm": RXNORM,
    "NDC": NDC,
    "UCUM": UCUM,
}
"""OMOP's vocabulary_id to the FHIR system URI. Source: OHDSI Athena; http://hl7.org/fhir/R4/terminologies-systems.html."""


class Code(NamedTuple):
    """A code of a coding system; hashable, and cheap enough to look up for every fact on the hot path.

    ``system`` is the URI that FHIR gives the coding system, ``value`` the code as the system spells it.
    """

    system: str
    value: str
