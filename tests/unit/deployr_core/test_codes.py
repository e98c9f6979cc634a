from __future__ import annotations

from deployr_core.codes import ICD9CM, ICD10CM, SYSTEM_OF_OMOP_VOCABULARY, Code


def test_a_code_of_another_system_is_another_code() -> None:
    assert Code(ICD10CM, "E85") != Code(ICD9CM, "E85")
    assert len({Code(ICD10CM, "E85"), Code(ICD9CM, "E85")}) == 2


def test_the_same_code_is_found_again() -> None:
    assert {Code(ICD10CM, "E85"): "found"}[Code(ICD10CM, "E85")] == "found"


def test_every_omop_vocabulary_stands_for_its_own_system() -> None:
    systems = list(SYSTEM_OF_OMOP_VOCABULARY.values())
    assert len(set(systems)) == len(systems)
    assert all(system.startswith(("http://", "urn:oid:")) for system in systems)
