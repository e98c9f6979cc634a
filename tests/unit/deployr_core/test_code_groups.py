"""What counts as what: groups of codes, weights, categories by mapping, and what coverage says of the rest."""

from __future__ import annotations

import functools
import operator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.codes import ICD9CM, ICD10CM, OMB_RACE_ETHNICITY, Code
from deployr_core.declared import CountKind, FixedCodes, PrefixGrouping
from deployr_core.facts import OrderStatus, PatientFacts
from deployr_core.features import (
    CodeGroup,
    DiagnosisGroup,
    EthnicityGroup,
    Group,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    VisitGroup,
)
from deployr_core.vectorize import vectorize

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

AS_OF = datetime.fromisoformat("2015-01-06T23:55:00+05:45").astimezone(UTC)
BARELY = timedelta(microseconds=1)
CCS = "urn:deployr:group:ccs"
KINDS = {"procedures": ProcedureGroup, "orders": OrderGroup, "visits": VisitGroup}


def by_mapping(make: Make, *groups: str, **changes: Any) -> DiagnosisGroup:
    """Give a group of diagnoses: I48.0 and I48.1 are ``af``, E11.9 is ``dm``; all in the vocabulary unless told."""
    mapping = make.mapping({"I48.0": "af", "I48.1": "af", "E11.9": "dm"})
    fixed = FixedCodes(codes=tuple(Code(CCS, group) for group in groups or ("af", "dm")))
    return make.diagnosis_group(grouping=mapping, fixed=changes.pop("fixed", fixed), **changes)


def local_group(kind: type[CodeGroup], *values: str, **changes: Any) -> CodeGroup:
    codes = tuple(Code("urn:local", value) for value in values or ("A",))
    fixed = {"name": "group", "systems": ("urn:local",), "codes": FixedCodes(codes=codes), "lookback_days": 30}
    return kind(**{**fixed, **changes})


def coverage(facts: PatientFacts, make: Make, *groups: Group) -> dict[str, int]:
    return dict(vectorize(facts, make.spec(*groups), AS_OF).coverage)


# Groups by mapping


def test_codes_count_as_the_group_that_they_are_mapped_to(make: Make) -> None:
    facts = make.patient(diagnoses=tuple(make.diagnosis(code) for code in ("I48.0", "I48.1", "I48.1", "E11.9", "R99")))
    assert make.row(facts, by_mapping(make)) == {"problem_list/af": 3.0, "problem_list/dm": 1.0}


def test_two_codes_of_one_fact_in_one_group_count_once(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("I48.0", "I48.1", "E11.9"), make.diagnosis("I48.0", "I48.0")))
    assert make.row(facts, by_mapping(make)) == {"problem_list/af": 2.0, "problem_list/dm": 1.0}


def test_binary_says_whether_any_code_of_the_group_was_there(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("I48.0"), make.diagnosis("I48.1")))
    assert make.row(facts, by_mapping(make, count=CountKind.BINARY)) == {"problem_list/af": 1.0}


def test_only_mapped_codes_of_the_declared_systems_count(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("I48.0"), make.diagnosis("427.31", system=ICD9CM)))
    mapping = msgspec.structs.replace(
        make.mapping({}),
        codes=make.mapping({"I48.0": "af"}).codes + make.mapping({"427.31": "af"}, system=ICD9CM).codes,
    )
    fixed = FixedCodes(codes=(Code(CCS, "af"),))
    one = make.diagnosis_group(grouping=mapping, fixed=fixed)
    both = make.diagnosis_group(grouping=mapping, fixed=fixed, systems=(ICD10CM, ICD9CM))
    assert make.row(facts, one) == {"problem_list/af": 1.0}
    assert make.row(facts, both) == {"problem_list/af": 2.0}


def test_coverage_tells_facts_that_no_mapping_knows_from_groups_without_a_feature(make: Make) -> None:
    diagnoses = (
        make.diagnosis("I48.0"),
        make.diagnosis("I48.1", "R99"),
        make.diagnosis("E11.9"),
        make.diagnosis("E11.9", "R99"),
        make.diagnosis("R99", "R98"),
        make.diagnosis("I48.0", system=ICD9CM),
        make.diagnosis("I48"),
        make.diagnosis("R99", known_at=AS_OF),
        make.diagnosis("E11.9", at=AS_OF - timedelta(days=31)),
    )
    assert coverage(make.patient(diagnoses=diagnoses), make, by_mapping(make, "af")) == {
        "problem_list.facts": 7,
        "problem_list.not_mapped": 3,
        "problem_list.not_in_vocabulary": 2,
    }


def test_a_fact_with_one_group_in_the_vocabulary_and_one_outside_is_covered(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("I48.0", "E11.9"),))
    assert coverage(facts, make, by_mapping(make, "af"))["problem_list.not_in_vocabulary"] == 0


def test_a_fact_without_a_code_is_not_mapped(make: Make) -> None:
    bare = msgspec.structs.replace(make.diagnosis(), codes=())
    assert coverage(make.patient(diagnoses=(bare,)), make, make.diagnosis_group()) == {
        "problem_list.facts": 1,
        "problem_list.not_mapped": 1,
        "problem_list.not_in_vocabulary": 0,
    }


def test_without_a_mapping_a_code_is_outside_the_vocabulary_and_another_system_is_not_mapped(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("R99"), make.diagnosis("I48.0", system=ICD9CM)))
    for grouping in (None, PrefixGrouping(length=5)):
        group = make.diagnosis_group("I480", grouping=grouping)
        assert coverage(facts, make, group) == {
            "problem_list.facts": 2,
            "problem_list.not_mapped": 1,
            "problem_list.not_in_vocabulary": 1,
        }


# Weights


def weighted(make: Make, *weights: float) -> DiagnosisGroup:
    fixed = FixedCodes(codes=(Code(ICD10CM, "I48.0"), Code(ICD10CM, "E11.9")), weights=weights)
    return make.diagnosis_group(fixed=fixed, count=CountKind.TFIDF)


def test_each_fact_counts_as_much_as_its_codes_weight(make: Make) -> None:
    facts = make.patient(diagnoses=tuple(make.diagnosis(code) for code in ("I48.0", "I48.0", "I48.0", "E11.9", "R99")))
    assert make.row(facts, weighted(make, 1.25, 0.5)) == {
        "problem_list/I48.0": 3 * 1.25,
        "problem_list/E11.9": 0.5,
    }


def test_a_weight_multiplies_the_count_once_and_is_not_summed(make: Make) -> None:
    # 0.1 added up ten times is 0.9999999999999999; both engines must multiply. (Python 3.12's sum() compensates.)
    facts = make.patient(diagnoses=(make.diagnosis("I48.0"),) * 10)
    assert make.row(facts, weighted(make, 0.1, 1.0)) == {"problem_list/I48.0": 10 * 0.1}
    assert functools.reduce(operator.add, [0.1] * 10) != 10 * 0.1


def test_weights_are_of_groups_where_codes_are_mapped(make: Make) -> None:
    fixed = FixedCodes(codes=(Code(CCS, "dm"), Code(CCS, "af")), weights=(3.0, 1.5))
    facts = make.patient(diagnoses=(make.diagnosis("I48.0", "I48.1"), make.diagnosis("I48.1"), make.diagnosis("E11.9")))
    group = by_mapping(make, fixed=fixed, count=CountKind.TFIDF)
    assert make.row(facts, group) == {"problem_list/af": 2 * 1.5, "problem_list/dm": 3.0}


def test_a_weighted_group_without_codes_has_no_feature(make: Make) -> None:
    group = make.diagnosis_group(fixed=FixedCodes(codes=()), count=CountKind.TFIDF)
    assert make.row(make.patient(diagnoses=(make.diagnosis(),)), group) == {}


# Procedures, orders and visits


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_counts_its_own_facts_and_no_others(kind: str, make: Make) -> None:
    everything = {"procedures": (make.procedure(),), "orders": (make.order(),) * 2, "visits": (make.visit(),) * 3}
    expected = {"procedures": 1.0, "orders": 2.0, "visits": 3.0}[kind]
    codes = make.patient(
        **everything,
        diagnoses=(make.diagnosis("A", system="urn:local"),),
        medications=(make.medication("A", system="urn:local"),),
    )
    assert make.row(codes, local_group(KINDS[kind])) == {"group/A": expected}
    assert coverage(codes, make, local_group(KINDS[kind]))["group.facts"] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_counts_binary_weighted_and_by_prefix(kind: str, make: Make) -> None:
    one = {"procedures": make.procedure, "orders": make.order, "visits": make.visit}[kind]
    facts = make.patient(**{kind: (one("A.1"), one("A2", "A3"), one("B"))})
    cut = {"grouping": PrefixGrouping(length=1)}
    both = local_group(KINDS[kind], "A", "B").codes
    assert make.row(facts, local_group(KINDS[kind], "A", "B", **cut)) == {"group/A": 2.0, "group/B": 1.0}
    assert make.row(facts, local_group(KINDS[kind], "A", "B", **cut, count=CountKind.BINARY)) == {
        "group/A": 1.0,
        "group/B": 1.0,
    }
    tfidf = {"codes": FixedCodes(codes=both.codes, weights=(1.5, 2.0)), "count": CountKind.TFIDF}
    assert make.row(facts, local_group(KINDS[kind], **cut, **tfidf)) == {"group/A": 2 * 1.5, "group/B": 2.0}


@pytest.mark.parametrize("earlier", [timedelta(0), BARELY])
def test_the_order_of_the_event_itself_is_never_seen(earlier: timedelta, make: Make) -> None:
    # The event is the signing: the order happens at as_of, even if its source says that it was known before.
    event = make.order("A", at=AS_OF, known_at=AS_OF - earlier)
    before = make.order("A", at=AS_OF - BARELY)
    assert make.row(make.patient(orders=(event,)), local_group(OrderGroup)) == {}
    assert make.row(make.patient(orders=(event, before)), local_group(OrderGroup)) == {"group/A": 1.0}


@pytest.mark.parametrize("status", OrderStatus)
def test_an_order_counts_whatever_became_of_it(status: OrderStatus, make: Make) -> None:
    assert make.row(make.patient(orders=(make.order(status=status),)), local_group(OrderGroup)) == {"group/A": 1.0}


def test_the_visit_of_the_event_counts_once_it_has_begun(make: Make) -> None:
    present = make.visit(at=AS_OF - timedelta(hours=2))
    to_come = make.visit(at=AS_OF + timedelta(hours=2), known_at=AS_OF - timedelta(days=9))
    assert make.row(make.patient(visits=(present, to_come)), local_group(VisitGroup)) == {"group/A": 1.0}


# Race and ethnicity by mapping


def omb(*values: str) -> tuple[Code, ...]:
    return tuple(Code(OMB_RACE_ETHNICITY, value) for value in values)


def test_races_set_the_category_that_they_are_mapped_to(make: Make) -> None:
    mapping = make.mapping({"2106-3": "white", "2054-5": "other", "2028-9": "other"}, system=OMB_RACE_ETHNICITY)
    group = RaceGroup(categories=("other", "white"), grouping=mapping)
    for races, expected in (
        (omb("2106-3"), {"race/white": 1.0}),
        (omb("2054-5", "2028-9"), {"race/other": 1.0}),
        (omb("2106-3", "2028-9"), {"race/other": 1.0, "race/white": 1.0}),
        (omb("2076-8"), {}),
        ((), {}),
    ):
        assert make.row(make.patient(races=races), group) == expected


def test_ethnicities_set_the_category_that_they_are_mapped_to(make: Make) -> None:
    mapping = make.mapping({"2135-2": "hispanic", "2148-5": "hispanic"}, system=OMB_RACE_ETHNICITY)
    group = EthnicityGroup(categories=("hispanic",), grouping=mapping)
    assert make.row(make.patient(ethnicities=omb("2148-5", "2135-2")), group) == {"ethnicity/hispanic": 1.0}
    assert make.row(make.patient(ethnicities=omb("2186-5"), races=omb("2135-2")), group) == {}


def test_a_mapping_may_map_races_of_another_system_and_then_not_its_own_codes(make: Make) -> None:
    group = RaceGroup(categories=("white",), grouping=make.mapping({"W": "white"}, system="urn:local"))
    assert make.row(make.patient(races=make.local("W")), group) == {"race/white": 1.0}
    assert make.row(make.patient(races=omb("white", "W")), group) == {}


def test_a_category_that_is_not_declared_sets_none_and_is_mapped(make: Make) -> None:
    mapping = make.mapping({"2106-3": "white", "2054-5": "other"}, system=OMB_RACE_ETHNICITY)
    facts, group = make.patient(races=omb("2054-5")), RaceGroup(categories=("white",), grouping=mapping)
    assert make.row(facts, group) == {}
    assert coverage(facts, make, group) == {"race.not_mapped": 0}


def test_coverage_counts_races_and_ethnicities_that_no_mapping_knows(make: Make) -> None:
    mapping = make.mapping({"2106-3": "white", "2135-2": "hispanic"}, system=OMB_RACE_ETHNICITY)
    facts = make.patient(races=omb("2106-3", "2054-5", "2028-9"), ethnicities=(*omb("2135-2"), *make.local("H")))
    groups = (
        RaceGroup(categories=("white",), grouping=mapping),
        EthnicityGroup(categories=("hispanic",), grouping=mapping),
    )
    assert coverage(facts, make, *groups) == {"race.not_mapped": 2, "ethnicity.not_mapped": 1}
    assert coverage(facts, make, RaceGroup(categories=("2106-3",))) == {}


# Order


@given(data=st.data())
def test_any_order_of_facts_and_of_their_codes_gives_the_same_bits(make: Make, data: st.DataObject) -> None:
    values = st.lists(st.sampled_from(["I48.0", "I48.1", "E11.9", "R99"]), min_size=1, max_size=4)
    drawn = data.draw(st.lists(values, max_size=8))
    fixed = FixedCodes(codes=(Code(CCS, "dm"), Code(CCS, "af")), weights=(1.1, 1.7))
    spec = make.spec(by_mapping(make, fixed=fixed, count=CountKind.TFIDF))
    one = make.patient(diagnoses=tuple(make.diagnosis(*codes) for codes in drawn))
    shuffled = [data.draw(st.permutations(codes)) for codes in data.draw(st.permutations(drawn))]
    other = make.patient(diagnoses=tuple(make.diagnosis(*codes) for codes in shuffled))
    assert vectorize(one, spec, AS_OF) == vectorize(other, spec, AS_OF)
    assert vectorize(one, spec, AS_OF).coverage == vectorize(other, spec, AS_OF).coverage
