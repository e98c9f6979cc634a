from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from deployr_core.codes import ICD9CM, ICD10CM, LOINC, Code
from deployr_core.declared import Analyte, FixedCodes, LearnedCodes, QuantileBins
from deployr_core.features import EthnicityGroup, MedicationGroup, RaceGroup, SexGroup
from deployr_core.layout import SpecNotFitted, grouped_by_prefix, layout_of

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make


def test_features_stand_in_the_declared_order(make: Make) -> None:
    layout = layout_of(
        make.spec(
            SexGroup(),
            make.age_group(65),
            RaceGroup(categories=("2106-3", "1002-5")),
            EthnicityGroup(categories=("2135-2",)),
            make.medication_group("9", "1"),
            make.lab_group("count", "bins", analytes=(make.analyte(35), make.analyte(12, code="718-7"))),
        )
    )
    assert layout.names == (
        "sex/female",
        "sex/male",
        "age/(-inf,65)",
        "age/[65,inf)",
        "race/2106-3",
        "race/1002-5",
        "ethnicity/2135-2",
        "drugs/9",
        "drugs/1",
        "labs/4544-3/count",
        "labs/4544-3/bins(-inf,35)",
        "labs/4544-3/bins[35,inf)",
        "labs/718-7/count",
        "labs/718-7/bins(-inf,12)",
        "labs/718-7/bins[12,inf)",
    )
    assert (
        layout.groups_of
        == ("sex",) * 2 + ("age",) * 2 + ("race",) * 2 + ("ethnicity",) + ("drugs",) * 2 + ("labs",) * 6
    )


def test_the_layout_carries_the_digest_of_its_declaration(make: Make) -> None:
    spec = make.spec(make.age_group(40, 65))
    assert layout_of(spec).spec_digest == spec.digest()


def test_a_declaration_with_wishes_has_no_layout_and_the_wishes_are_named(make: Make) -> None:
    wish = Analyte(system=LOINC, code="718-7", name="", unit="g/dL", bins=QuantileBins(n=5))
    learned = MedicationGroup(name="drugs", systems=(), codes=LearnedCodes(), lookback_days=1)
    spec = make.spec(SexGroup(), learned, make.lab_group("bins", analytes=(make.analyte(35), wish)))
    with pytest.raises(SpecNotFitted, match=r"still to be learned: drugs, labs/718-7\Z"):
        layout_of(spec)


@pytest.mark.parametrize(
    ("code", "prefix_length", "group"),
    [
        ("I48.0", None, "I48.0"),
        ("I48.0", 3, "I48"),
        ("I48.0", 4, "I480"),
        ("I48.0", 9, "I480"),
        ("I48", 3, "I48"),
        ("I4", 3, "I4"),
        ("250.00", 3, "250"),
        ("250.00", 5, "25000"),
        ("E850.1", 4, "E850"),
        ("S72.001A", 7, "S72001A"),
        ("1.2.3.4", 3, "123"),
        ("", 3, ""),
    ],
)
def test_a_code_is_cut_to_its_first_characters_not_counting_dots(
    code: str, prefix_length: int | None, group: str
) -> None:
    assert grouped_by_prefix(Code(ICD10CM, code), prefix_length) == Code(ICD10CM, group)


def test_the_same_code_of_two_systems_makes_two_names_that_tell_the_system(make: Make) -> None:
    here, there = (Analyte(system=system, code="1", name="", unit="%") for system in (LOINC, "urn:local"))
    names = layout_of(make.spec(make.lab_group("last", analytes=(here, there, make.analyte())))).names
    assert names == ("labs/http://loinc.org|1/last", "labs/urn:local|1/last", "labs/4544-3/last")


def test_the_same_diagnosis_of_two_systems_makes_two_names_that_tell_the_system(make: Make) -> None:
    systems = (ICD10CM, ICD9CM)
    codes = FixedCodes(codes=(Code(ICD10CM, "E85"), Code(ICD9CM, "E85"), Code(ICD9CM, "427")))
    group = msgspec.structs.replace(make.diagnosis_group(systems=systems), codes=codes)
    assert layout_of(make.spec(group)).names == (
        f"problem_list/{ICD10CM}|E85",
        f"problem_list/{ICD9CM}|E85",
        "problem_list/427",
    )
