from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.codes import ICD9CM, ICD10CM, LOINC, RXNORM, Code
from deployr_core.concepts import ROUNDING, concepts_of, contributions_of
from deployr_core.contributions import Explanation
from deployr_core.declared import (
    Analyte,
    CountKind,
    EdgeBins,
    FixedCodes,
    MappedCode,
    MappedCodes,
    PrefixGrouping,
    Statistic,
)
from deployr_core.facts import DiagnosisList
from deployr_core.features import (
    AgeGroup,
    DiagnosisGroup,
    FeatureSpec,
    Group,
    LabGroup,
    MedicationGroup,
    RaceGroup,
    SexGroup,
)
from deployr_core.layout import layout_of
from deployr_core.packet import Contribution, Scored, StoredVector
from deployr_core.reasons import LONGEST, reasons

HEMATOCRIT = Analyte(
    system=LOINC, code="4544-3", name="Hematocrit", unit="%", bins=EdgeBins(edges=(26.9, 30.1, 36.0, 40.0))
)


def spec_of(*groups: Group) -> FeatureSpec:
    return FeatureSpec(schema_version=1, groups=groups)


def labs(*statistics: Statistic, days: int = 2, name: str = "labs", analyte: Analyte = HEMATOCRIT) -> LabGroup:
    return LabGroup(name=name, analytes=(analyte,), statistics=statistics, lookback_days=days)


def diagnoses(*codes: str, name: str = "problem_list", days: int = 3650, **more: Any) -> DiagnosisGroup:
    return DiagnosisGroup(
        name=name,
        systems=(ICD10CM,),
        codes=FixedCodes(codes=tuple(Code(ICD10CM, code) for code in codes), **more.pop("weights", {})),
        lookback_days=days,
        recorded_in=more.pop("recorded_in", (DiagnosisList.PROBLEM_LIST,)),
        **more,
    )


def said(spec: FeatureSpec, features: Mapping[str, float], concept: str, value: float = 0.25) -> str:
    """Give the one reason of a score to which the concept contributed."""
    names = layout_of(spec).names
    places = sorted(names.index(name) for name in features)
    vector = StoredVector(
        spec_sha256=spec.digest(),
        size=len(names),
        indices=tuple(places),
        values=tuple(float(features[names[place]]) for place in places),
    )
    told = (Contribution(concept=concept, value=value),)
    scored = Scored(score=0.5, vector=vector, coverage={}, entity_id=None, contributions=told)
    (reason,) = reasons(scored, spec)
    assert (reason.concept, reason.value) == (concept, value)
    return reason.text


# -- concepts


def test_a_test_is_one_concept_whatever_its_bins_statistics_and_look_backs() -> None:
    spec = spec_of(labs(Statistic.BINS, Statistic.LAST), labs(Statistic.COUNT, days=14, name="labs_14d"), SexGroup())
    assert concepts_of(spec).of_feature == ("Hematocrit",) * 7 + ("Sex", "Sex")


def test_a_code_is_one_concept_on_whichever_list() -> None:
    spec = spec_of(diagnoses("I48", "D64"), diagnoses("D64", name="encounter_diagnoses", days=365))
    i48, d64 = "Diagnosis ICD-10-CM I48", "Diagnosis ICD-10-CM D64"
    assert concepts_of(spec).of_feature == (i48, d64, d64)


def test_the_same_value_in_two_systems_is_two_concepts() -> None:
    codes = (Code(ICD10CM, "427"), Code(ICD9CM, "427"), Code("urn:fdb:hicl", "427"))
    group = DiagnosisGroup(
        name="d",
        systems=tuple(code.system for code in codes),
        codes=FixedCodes(codes=codes),
        lookback_days=30,
        recorded_in=(DiagnosisList.ENCOUNTER,),
    )
    assert concepts_of(spec_of(group)).of_feature == (
        "Diagnosis ICD-10-CM 427",
        "Diagnosis ICD-9-CM 427",
        "Diagnosis hicl 427",
    )


def test_a_mapped_group_of_codes_is_called_by_its_own_name() -> None:
    mapped = MappedCodes(name="ccs", sha256="0" * 64, codes=(MappedCode(ICD10CM, "I50", "heart failure"),))
    group = DiagnosisGroup(
        name="d",
        systems=(ICD10CM,),
        codes=FixedCodes(codes=(Code(mapped.system, "heart failure"),)),
        grouping=mapped,
        lookback_days=30,
        recorded_in=(DiagnosisList.ENCOUNTER,),
    )
    assert concepts_of(spec_of(group)).of_feature == ("Diagnosis heart failure",)


def test_two_tests_of_one_name_are_told_apart_by_their_codes() -> None:
    both = tuple(Analyte(system=LOINC, code=code, name="Glucose", unit="mg/dL") for code in ("2345-7", "2339-0"))
    group = LabGroup(name="labs", analytes=both, statistics=(Statistic.LAST,), lookback_days=2)
    assert concepts_of(spec_of(group)).of_feature == ("Glucose (LOINC 2345-7)", "Glucose (LOINC 2339-0)")


def test_one_test_that_two_groups_name_differently_is_one_concept() -> None:
    other = Analyte(system=LOINC, code="4544-3", name="Hct", unit="%")
    spec = spec_of(labs(Statistic.LAST), labs(Statistic.LAST, name="old", analyte=other))
    assert concepts_of(spec).of_feature == ("Hematocrit", "Hematocrit")


def test_nothing_in_a_name_can_be_taken_for_markup() -> None:
    evil = Analyte(system=LOINC, code="1-1", name="<script>\nalert(1)", unit="%")
    assert concepts_of(spec_of(labs(Statistic.LAST, analyte=evil))).of_feature == ("script alert(1)",)


def test_contributions_are_summed_by_concept_largest_first_and_without_zeros() -> None:
    spec = spec_of(SexGroup(), labs(Statistic.LAST, Statistic.MEAN, Statistic.COUNT), diagnoses("I48", "D64"))
    by_feature = np.array([0.0, 0.0625, 0.5, 0.25, -0.125, 0.03125, 0.0])
    told = contributions_of(Explanation(base=0.125, by_feature=by_feature, explained=0.84375, rounding=1e-12), spec)
    assert [(each.concept, each.value) for each in told] == [
        ("Hematocrit", 0.625),
        ("Sex", 0.0625),
        ("Diagnosis ICD-10-CM I48", 0.03125),
    ]


def test_a_concept_whose_features_cancel_is_left_out() -> None:
    spec = spec_of(labs(Statistic.LAST, Statistic.MEAN))
    nothing = Explanation(base=0.5, by_feature=np.array([0.25, -0.25]), explained=0.5, rounding=0.0)
    assert contributions_of(nothing, spec) == ()


def test_what_no_concept_can_hold_is_called_rounding() -> None:
    spec = spec_of(labs(Statistic.LAST))
    told = contributions_of(Explanation(base=1.0, by_feature=np.array([-1.0]), explained=1e-30, rounding=1e-9), spec)
    assert [(each.concept, each.value) for each in told] == [("Hematocrit", -1.0), (ROUNDING, 1e-30)]


def test_a_test_that_is_called_rounding_keeps_its_own_number() -> None:
    spec = spec_of(labs(Statistic.LAST, analyte=msgspec.structs.replace(HEMATOCRIT, name=ROUNDING)))
    told = contributions_of(Explanation(base=1.0, by_feature=np.array([-1.0]), explained=1e-30, rounding=1e-9), spec)
    assert [(each.concept, each.value) for each in told] == [(ROUNDING, -1.0), (ROUNDING, 1e-30)]


@given(parts=st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5), base=st.floats(-10, 10))
def test_concepts_add_up_with_the_base_to_the_last_bit(parts: list[float], base: float) -> None:
    spec = spec_of(SexGroup(), labs(Statistic.LAST, Statistic.MEAN), diagnoses("I48"))
    total = base
    for part in parts:
        total += part  # rounded at every step, as a model's own sum is
    size = abs(base) + sum(map(abs, parts))
    told = contributions_of(
        Explanation(base=base, by_feature=np.array(parts), explained=total, rounding=1e-15 * size + 1e-300), spec
    )
    assert math.fsum([base, *(each.value for each in told)]) == total
    assert [abs(each.value) for each in told] == sorted((abs(each.value) for each in told), reverse=True)


# -- words


AGES = spec_of(AgeGroup(bins=EdgeBins(edges=(18, 65.5, 80))))


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("age/(-inf,18)", "Age under 18 (raises)"),
        ("age/[18,65.5)", "Age 18 to 65 (raises)"),
        ("age/[65.5,80)", "Age 66 to 79 (raises)"),
        ("age/[80,inf)", "Age 80 or over (raises)"),
        (None, "Age not known (raises)"),
    ],
)
def test_an_age_is_named_by_its_completed_years(feature: str | None, text: str) -> None:
    assert said(AGES, {feature: 1.0} if feature else {}, "Age") == text


def test_demographics_are_said_as_they_are_recorded() -> None:
    spec = spec_of(SexGroup(), RaceGroup(categories=("2054-5", "2106-3")))
    assert said(spec, {"sex/female": 1.0}, "Sex", -0.1) == "Sex: female (lowers)"
    assert said(spec, {}, "Sex") == "Sex: none of those that the model knows (raises)"
    assert said(spec, {"race/2054-5": 1.0, "race/2106-3": 1.0}, "Race") == (
        "Race: Black or African American, White (raises)"
    )


HEMOGLOBIN = Analyte(system=LOINC, code="718-7", name="Hemoglobin", unit="g/dL")


@pytest.mark.parametrize(
    ("hours", "when"),
    [
        (0.2, "less than 1 hour ago"),
        (1.5, "1 hour ago"),
        (6.9, "6 hours ago"),
        (47.9, "47 hours ago"),
        (50.0, "2 days ago"),
    ],
)
def test_a_last_result_is_given_with_its_unit_and_its_age(hours: float, when: str) -> None:
    spec = spec_of(labs(Statistic.LAST, Statistic.HOURS_SINCE, analyte=HEMOGLOBIN))
    features = {"labs/718-7/last": 9.1, "labs/718-7/hours_since": hours}
    assert said(spec, features, "Hemoglobin", -0.2) == f"Hemoglobin 9.1 g/dL, {when} (lowers)"


@pytest.mark.parametrize(
    ("statistics", "features", "text"),
    [
        ((Statistic.LAST, Statistic.COUNT), {"last": 30.0, "count": 1}, "Hematocrit 30 %, the only one in 2 days"),
        ((Statistic.LAST, Statistic.COUNT), {"last": 30.0, "count": 3}, "Hematocrit 30 %, the latest of 3 in 2 days"),
        ((Statistic.LAST, Statistic.COUNT), {"count": 1}, "Hematocrit 0 %, the only one in 2 days"),
        ((Statistic.LAST, Statistic.COUNT), {}, "No Hematocrit result in 2 days"),
        ((Statistic.LAST,), {"last": 30.25}, "Hematocrit 30.25 %, the latest in 2 days"),
        ((Statistic.LAST,), {}, "No Hematocrit result other than 0 in 2 days"),
        ((Statistic.LAST, Statistic.MISSING), {"missing": 1}, "No Hematocrit result in 2 days"),
        ((Statistic.LAST, Statistic.MISSING), {}, "Hematocrit 0 %, the latest in 2 days"),
        ((Statistic.MIN, Statistic.MAX), {"min": 28.0, "max": 31.5}, "Hematocrit 28 to 31.5 % in 2 days"),
        ((Statistic.MIN, Statistic.MAX), {"min": 28.0, "max": 28.0}, "Hematocrit 28 % in 2 days"),
        ((Statistic.MEAN, Statistic.COUNT), {"mean": 28.5, "count": 2}, "Hematocrit mean 28.5 %, twice in 2 days"),
        ((Statistic.MIN,), {"min": 28.5}, "Hematocrit lowest 28.5 % in 2 days"),
        ((Statistic.COUNT,), {"count": 4}, "Hematocrit measured 4 times in 2 days"),
        ((Statistic.SLOPE,), {"slope": -2.5}, "Hematocrit measured in 2 days"),
        ((Statistic.BINS,), {"bins[26.9,30.1)": 2}, "Hematocrit between 26.9 and 30.1 %, twice in 2 days"),
        ((Statistic.BINS,), {"bins(-inf,26.9)": 1}, "Hematocrit under 26.9 %, once in 2 days"),
        ((Statistic.BINS,), {"bins[40,inf)": 1}, "Hematocrit 40 % or more, once in 2 days"),
        (
            (Statistic.BINS,),
            {"bins(-inf,26.9)": 1, "bins[40,inf)": 1},
            "Hematocrit from under 26.9 to 40 % or more, twice in 2 days",
        ),
        (
            (Statistic.BINS,),
            {"bins[26.9,30.1)": 2, "bins[36,40)": 3},
            "Hematocrit between 26.9 and 40 %, 5 times in 2 days",
        ),
        ((Statistic.BINS,), {}, "No Hematocrit result in 2 days"),
    ],
)
def test_a_reason_says_what_the_features_say_and_no_more(
    statistics: tuple[Statistic, ...], features: Mapping[str, float], text: str
) -> None:
    named = {f"labs/4544-3/{name}": value for name, value in features.items()}
    assert said(spec_of(labs(*statistics)), named, "Hematocrit") == f"{text} (raises)"


def test_of_several_look_backs_the_shortest_that_has_a_result_speaks() -> None:
    spec = spec_of(labs(Statistic.LAST, name="long", days=14), labs(Statistic.LAST, Statistic.COUNT, days=2))
    both = {"long/4544-3/last": 30.0, "labs/4544-3/last": 30.0, "labs/4544-3/count": 1.0}
    assert said(spec, both, "Hematocrit") == "Hematocrit 30 %, the only one in 2 days (raises)"
    older = {"long/4544-3/last": 31.0}
    assert said(spec, older, "Hematocrit") == "Hematocrit 31 %, the latest in 14 days (raises)"


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("10*3/uL", 6.75, "6.75 K/uL"),
        ("{INR}", 1.1, "1.1"),
        ("mm[Hg]", 120.0, "120 mmHg"),
        ("U/L", 48123.4, "48123 U/L"),
        ("mg/dL", 0.01234, "0.01234 mg/dL"),
        ("mg/dL", 1 / 3, "0.3333 mg/dL"),
        ("Cel", -0.5, "-0.5 °C"),
    ],
)
def test_numbers_and_units_are_written_as_clinicians_write_them(unit: str, value: float, text: str) -> None:
    analyte = Analyte(system=LOINC, code="1-1", name="Test", unit=unit)
    assert said(spec_of(labs(Statistic.LAST, analyte=analyte)), {"labs/1-1/last": value}, "Test") == (
        f"Test {text}, the latest in 2 days (raises)"
    )


def test_codes_are_said_with_how_often_and_since_when() -> None:
    encounter = {"recorded_in": (DiagnosisList.ENCOUNTER,), "grouping": PrefixGrouping(length=3)}
    spec = spec_of(diagnoses("I48"), diagnoses("I48", name="encounter", days=365, **encounter))
    concept = "Diagnosis ICD-10-CM I48"
    assert said(spec, {"problem_list/I48": 1.0}, concept) == f"{concept} on the problem list (raises)"
    assert said(spec, {"encounter/I48": 2.0}, concept) == f"{concept} recorded twice in 1 year (raises)"
    assert said(spec, {}, concept, -0.1) == "No diagnosis ICD-10-CM I48 recorded in 1 year (lowers)"


def test_a_weighted_count_is_said_as_the_count() -> None:
    drugs = MedicationGroup(
        name="drugs",
        systems=(RXNORM,),
        codes=FixedCodes(codes=(Code(RXNORM, "161"),), weights=(1.7,)),
        count=CountKind.TFIDF,
        lookback_days=28,
    )
    text = said(spec_of(drugs), {"drugs/161": 3 * 1.7}, "Medication RxNorm 161")
    assert text == "Medication RxNorm 161 ordered 3 times in 28 days (raises)"


def test_an_indicator_does_not_say_how_often() -> None:
    encounter = {"recorded_in": (DiagnosisList.ENCOUNTER,), "count": CountKind.BINARY}
    spec = spec_of(diagnoses("I48", days=1, **encounter))
    text = said(spec, {"problem_list/I48": 1.0}, "Diagnosis ICD-10-CM I48")
    assert text == "Diagnosis ICD-10-CM I48 recorded in 1 day (raises)"


def test_a_long_name_is_cut_and_keeps_its_direction() -> None:
    analyte = Analyte(system=LOINC, code="1-1", name="x" * 200, unit="%")
    text = said(spec_of(labs(Statistic.LAST, analyte=analyte)), {"labs/1-1/last": 1.0}, "x" * 200)
    assert (len(text), text[-12:]) == (LONGEST, "xx… (raises)")


def test_only_the_largest_are_given_and_rounding_is_no_reason() -> None:
    spec = spec_of(SexGroup(), labs(Statistic.LAST))
    told = tuple(
        Contribution(concept=name, value=value) for name, value in (("Sex", -2.0), (ROUNDING, 1.0), ("Hematocrit", 0.5))
    )
    vector = StoredVector(spec_sha256=spec.digest(), size=3, indices=(), values=())
    scored = Scored(score=0.5, vector=vector, coverage={}, entity_id=None, contributions=told)
    assert [reason.concept for reason in reasons(scored, spec)] == ["Sex", "Hematocrit"]
    assert [reason.concept for reason in reasons(scored, spec, most=1)] == ["Sex"]


def test_a_vector_of_another_declaration_has_no_reasons() -> None:
    vector = StoredVector(spec_sha256="0" * 64, size=2, indices=(), values=())
    scored = Scored(score=0.5, vector=vector, coverage={}, entity_id=None)
    with pytest.raises(ValueError, match="declaration"):
        reasons(scored, spec_of(SexGroup()))
