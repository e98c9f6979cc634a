from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from itertools import permutations
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.codes import ICD9CM, ICD10CM, NDC, OMB_RACE_ETHNICITY, Code
from deployr_core.declared import CountKind, FixedCodes, LearnedCodes, PrefixGrouping, Statistic
from deployr_core.facts import BirthDate, DiagnosisList, PatientFacts, Sex
from deployr_core.features import (
    EthnicityGroup,
    Group,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    RaceGroup,
    SexGroup,
    VisitGroup,
)
from deployr_core.layout import SpecNotFitted, layout_of
from deployr_core.vectorize import FeatureVector, exact_mean, vectorize

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

AS_OF = datetime.fromisoformat("2015-01-06T23:55:00+05:45").astimezone(UTC)
BARELY = timedelta(microseconds=1)
YESTERDAY = AS_OF - timedelta(days=1)
WINDOW = timedelta(days=30)

Dated = Callable[[datetime, datetime], dict[str, float]]


@pytest.fixture(params=["labs", "vitals", "diagnoses", "medications", "procedures", "orders", "visits"])
def dated(request: pytest.FixtureRequest, make: Make) -> Dated:
    """Give the features of one fact of each kind, 30 days of look-back, by when it happened and was known."""
    local = {"systems": ("urn:local",), "codes": FixedCodes(codes=make.local("A")), "lookback_days": 30}
    make_fact, group = {
        "labs": (make.lab, make.lab_group("count")),
        "vitals": (make.vital, make.vital_group("count")),
        "diagnoses": (make.diagnosis, make.diagnosis_group()),
        "medications": (make.medication, make.medication_group()),
        "procedures": (make.procedure, ProcedureGroup(name="procedures", **local)),
        "orders": (make.order, OrderGroup(name="orders", **local)),
        "visits": (make.visit, VisitGroup(name="visits", **local)),
    }[request.param]

    def features(at: datetime, known_at: datetime) -> dict[str, float]:
        facts = {request.param: (make_fact(at=at, known_at=known_at),)}
        return make.row(make.patient(**facts), group)

    return features


def test_window_includes_its_start_and_excludes_its_end(dated: Dated) -> None:
    start = AS_OF - WINDOW
    assert set(dated(start, start).values()) == {1.0}
    assert dated(start - BARELY, start) == {}
    assert set(dated(AS_OF - BARELY, AS_OF - BARELY).values()) == {1.0}
    assert dated(AS_OF, YESTERDAY) == {}
    assert dated(AS_OF + BARELY, YESTERDAY) == {}


def test_a_fact_is_seen_only_if_it_was_known_strictly_before(dated: Dated) -> None:
    assert set(dated(YESTERDAY, AS_OF - BARELY).values()) == {1.0}
    assert dated(YESTERDAY, AS_OF) == {}
    assert dated(YESTERDAY, AS_OF + BARELY) == {}


def test_what_happened_before_the_window_stays_out_however_late_it_was_known(dated: Dated) -> None:
    assert dated(AS_OF - WINDOW - BARELY, AS_OF - BARELY) == {}


def test_each_group_looks_back_by_its_own_window(make: Make) -> None:
    week_old = AS_OF - timedelta(days=7)
    facts = make.patient(labs=(make.lab(at=week_old),), medications=(make.medication(at=week_old),))
    near, far = make.lab_group("count", lookback_days=6), make.medication_group(lookback_days=7)
    assert make.row(facts, near, far) == {"drugs/11289": 1.0}


def test_the_zone_of_as_of_does_not_matter(make: Make) -> None:
    facts = make.patient(labs=(make.lab(),), birth_date=BirthDate(year=1980, month=1, day=7))
    spec = make.spec(make.age_group(35), make.lab_group("last"))
    in_auckland = AS_OF.astimezone(timezone(timedelta(hours=13)))
    assert in_auckland.day == AS_OF.day + 1
    assert vectorize(facts, spec, in_auckland) == vectorize(facts, spec, AS_OF)


def test_a_naive_as_of_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="aware as_of"):
        vectorize(make.patient(), make.spec(SexGroup()), AS_OF.replace(tzinfo=None))


def test_an_unfitted_declaration_is_refused_by_name(make: Make) -> None:
    wish = MedicationGroup(name="drugs", systems=(), codes=LearnedCodes(), lookback_days=1)
    with pytest.raises(SpecNotFitted, match="drugs"):
        vectorize(make.patient(), make.spec(wish), AS_OF)


# Demographics


@pytest.mark.parametrize(
    ("year", "feature"),
    [
        (2015 - 39, "age/(-inf,40)"),
        (2015 - 40, "age/[40,65)"),
        (2015 - 64, "age/[40,65)"),
        (2015 - 65, "age/[65,inf)"),
        (2015 - 115, "age/[65,inf)"),
    ],
)
def test_an_age_equal_to_an_edge_is_in_the_bin_above(make: Make, year: int, feature: str) -> None:
    assert make.row(make.patient(birth_date=BirthDate(year=year)), make.age_group(40, 65)) == {feature: 1.0}


def test_an_unknown_age_sets_no_bin(make: Make) -> None:
    assert make.row(make.patient(birth_date=None), make.age_group(40, 65)) == {}


def test_age_is_that_of_as_of_and_not_of_today(make: Make) -> None:
    facts = make.patient(birth_date=BirthDate(year=1975, month=1, day=6))
    assert make.row(facts, make.age_group(40), as_of=AS_OF) == {"age/[40,inf)": 1.0}
    assert make.row(facts, make.age_group(40), as_of=YESTERDAY) == {"age/(-inf,40)": 1.0}


@pytest.mark.parametrize(
    ("sex", "features"),
    [
        (Sex.FEMALE, {"sex/female": 1.0}),
        (Sex.MALE, {"sex/male": 1.0}),
        (Sex.OTHER, {}),
        (Sex.UNKNOWN, {}),
    ],
)
def test_a_sex_that_is_not_a_category_sets_none(make: Make, sex: Sex, features: dict[str, float]) -> None:
    assert make.row(make.patient(sex=sex), SexGroup()) == features


def omb(value: str) -> Code:
    return Code(OMB_RACE_ETHNICITY, value)


@pytest.mark.parametrize(
    ("races", "features"),
    [
        pytest.param((), {}, id="unknown"),
        pytest.param((omb("2106-3"),), {"race/2106-3": 1.0}, id="one"),
        pytest.param((omb("2054-5"), omb("2106-3")), {"race/2054-5": 1.0, "race/2106-3": 1.0}, id="two"),
        pytest.param((omb("2131-1"),), {}, id="not a declared category"),
        pytest.param((Code("urn:local", "2106-3"),), {}, id="another coding system"),
        pytest.param((omb("2106-3"), omb("2106-3")), {"race/2106-3": 1.0}, id="said twice"),
    ],
)
def test_each_race_sets_its_indicator(make: Make, races: tuple[Code, ...], features: dict[str, float]) -> None:
    assert make.row(make.patient(races=races), RaceGroup(categories=("2054-5", "2106-3"))) == features


def test_race_and_ethnicity_are_not_mixed_up(make: Make) -> None:
    facts = make.patient(races=(omb("2106-3"),), ethnicities=(omb("2135-2"),))
    both = ("2106-3", "2135-2")
    assert make.row(facts, RaceGroup(categories=both), EthnicityGroup(categories=both)) == {
        "race/2106-3": 1.0,
        "ethnicity/2135-2": 1.0,
    }


# Codes


def test_each_fact_counts_and_binary_only_says_whether_there_was_one(make: Make) -> None:
    facts = make.patient(
        diagnoses=(make.diagnosis("I48.0"),) * 3, medications=(make.medication("11289"), make.medication("11289"))
    )
    assert make.row(facts, make.diagnosis_group(), make.medication_group()) == {
        "problem_list/I48.0": 3.0,
        "drugs/11289": 2.0,
    }
    binary = CountKind.BINARY
    assert make.row(facts, make.diagnosis_group(count=binary), make.medication_group(count=binary)) == {
        "problem_list/I48.0": 1.0,
        "drugs/11289": 1.0,
    }


def test_a_fact_with_several_codes_counts_once_for_each_feature(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("I48.0", "I48.1", "E11.9", "R99"),))
    assert make.row(facts, make.diagnosis_group("I48", "E11", grouping=PrefixGrouping(length=3))) == {
        "problem_list/I48": 1.0,
        "problem_list/E11": 1.0,
    }


def test_codes_are_grouped_by_prefix_without_dots(make: Make) -> None:
    facts = make.patient(diagnoses=tuple(make.diagnosis(code) for code in ("I48.0", "I480", "I48.20", "I48", "I47.0")))
    assert make.row(facts, make.diagnosis_group("I480", "I48", grouping=PrefixGrouping(length=4))) == {
        "problem_list/I480": 2.0,
        "problem_list/I48": 1.0,
    }


def test_without_a_prefix_a_code_is_taken_to_the_letter(make: Make) -> None:
    facts = make.patient(diagnoses=tuple(make.diagnosis(code) for code in ("I48.0", "I480", "I48.01", "i48.0")))
    assert make.row(facts, make.diagnosis_group("I48.0")) == {"problem_list/I48.0": 1.0}


def test_only_codes_of_the_declared_systems_count(make: Make) -> None:
    facts = make.patient(
        diagnoses=(make.diagnosis("E85", system=ICD9CM), make.diagnosis("E85", system=ICD10CM)),
        medications=(make.medication("11289", system=NDC),),
    )
    assert make.row(facts, make.diagnosis_group("E85", systems=(ICD10CM,)), make.medication_group()) == {
        "problem_list/E85": 1.0
    }


def test_the_same_code_of_two_systems_is_two_features(make: Make) -> None:
    facts = make.patient(diagnoses=(make.diagnosis("E85", system=ICD9CM),) * 2)
    both = FixedCodes(codes=(Code(ICD10CM, "E85"), Code(ICD9CM, "E85")))
    group = msgspec.structs.replace(make.diagnosis_group(systems=(ICD10CM, ICD9CM)), codes=both)
    assert make.row(facts, group) == {f"problem_list/{ICD9CM}|E85": 2.0}


def test_only_diagnoses_of_the_declared_lists_count(make: Make) -> None:
    facts = make.patient(diagnoses=tuple(make.diagnosis(recorded_in=where) for where in DiagnosisList))
    problems, both = (DiagnosisList.PROBLEM_LIST,), tuple(DiagnosisList)
    assert make.row(facts, make.diagnosis_group(recorded_in=problems)) == {"problem_list/I48.0": 1.0}
    assert make.row(facts, make.diagnosis_group(recorded_in=both)) == {"problem_list/I48.0": 2.0}


# Laboratory results


@pytest.mark.parametrize(
    ("value", "bin_"),
    [
        (34.999999, "(-inf,35)"),
        (35.0, "[35,47)"),
        (46.999999, "[35,47)"),
        (47.0, "[47,inf)"),
        (-999_999_999.0, "(-inf,35)"),
        (999_999_999.0, "[47,inf)"),
    ],
)
def test_a_result_equal_to_an_edge_is_in_the_bin_above(make: Make, value: float, bin_: str) -> None:
    row = make.row(make.patient(labs=(make.lab(value),)), make.lab_group("bins"))
    assert row == {f"labs/4544-3/bins{bin_}": 1.0}


def test_bins_count_results(make: Make) -> None:
    labs = tuple(make.lab(value) for value in (30.0, 35.0, 36.6, 46.9, 47.0))
    assert make.row(make.patient(labs=labs), make.lab_group("bins")) == {
        "labs/4544-3/bins(-inf,35)": 1.0,
        "labs/4544-3/bins[35,47)": 3.0,
        "labs/4544-3/bins[47,inf)": 1.0,
    }


def test_each_statistic_says_what_it_is_called(make: Make) -> None:
    day = timedelta(days=1)
    labs = (make.lab(30.0, at=AS_OF - 3 * day), make.lab(45.0, at=AS_OF - 2 * day), make.lab(36.6, at=AS_OF - day))
    assert make.row(make.patient(labs=labs), make.lab_group("last", "mean", "min", "max", "count", "missing")) == {
        "labs/4544-3/last": 36.6,
        "labs/4544-3/mean": 37.2,  # (30 + 45 + 36.6) / 3
        "labs/4544-3/min": 30.0,
        "labs/4544-3/max": 45.0,
        "labs/4544-3/count": 3.0,
    }


def test_without_a_result_every_statistic_is_0_but_the_missing_indicator(make: Make) -> None:
    group = make.lab_group(*Statistic)
    assert make.row(make.patient(), group) == {"labs/4544-3/missing": 1.0}


def test_missing_is_per_analyte(make: Make) -> None:
    group = make.lab_group("missing", analytes=(make.analyte(), make.analyte(code="718-7", unit="g/dL")))
    assert make.row(make.patient(labs=(make.lab(),)), group) == {"labs/718-7/missing": 1.0}


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        pytest.param(None, "%", id="no number"),
        pytest.param(math.nan, "%", id="not a number"),
        pytest.param(math.inf, "%", id="infinite"),
        pytest.param(36.6, "furlong", id="no reviewed conversion"),
        pytest.param(36.6, "", id="no unit"),
    ],
)
def test_a_result_that_cannot_be_used_is_no_result(make: Make, value: float | None, unit: str) -> None:
    facts = make.patient(labs=(make.lab(value, unit=unit),))
    assert make.row(facts, make.lab_group("last", "count", "missing")) == {"labs/4544-3/missing": 1.0}


def test_a_result_of_0_is_a_result(make: Make) -> None:
    facts = make.patient(labs=(make.lab(0.0),))
    assert make.row(facts, make.lab_group("last", "count", "missing")) == {"labs/4544-3/count": 1.0}


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [("%", 36.5, 36.5), ("percent", 36.5, 36.5), ("L/L", 0.375, 37.5), ("1", 0.5, 50.0)],
)
def test_results_are_converted_before_anything_else(make: Make, unit: str, value: float, expected: float) -> None:
    facts = make.patient(labs=(make.lab(value, unit=unit),))
    assert make.row(
        facts, make.lab_group("bins", "last", "mean", "min", "max", analytes=(make.analyte(37.5, 45),))
    ) == {
        f"labs/4544-3/bins{'(-inf,37.5)' if expected < 37.5 else '[37.5,45)' if expected < 45 else '[45,inf)'}": 1.0,
        "labs/4544-3/last": expected,
        "labs/4544-3/mean": expected,
        "labs/4544-3/min": expected,
        "labs/4544-3/max": expected,
    }


@pytest.mark.parametrize("percent", [29, 57, 58])
def test_a_converted_result_equal_to_an_edge_is_in_the_bin_above(make: Make, percent: int) -> None:
    facts = make.patient(labs=(make.lab(percent / 100, unit="L/L"),))
    row = make.row(facts, make.lab_group("bins", analytes=(make.analyte(percent),)))
    assert row == {f"labs/4544-3/bins[{percent},inf)": 1.0}


def test_results_in_several_units_meet_in_one(make: Make) -> None:
    labs = (make.lab(0.25, unit="L/L"), make.lab(75.0, unit="%"))
    assert make.row(make.patient(labs=labs), make.lab_group("mean")) == {"labs/4544-3/mean": (25 + 75) / 2}


def test_last_is_the_latest_specimen_and_not_the_latest_release(make: Make) -> None:
    labs = (
        make.lab(30.0, at=YESTERDAY - BARELY, known_at=AS_OF - BARELY),
        make.lab(40.0, at=YESTERDAY, known_at=YESTERDAY),
    )
    assert make.row(make.patient(labs=labs), make.lab_group("last")) == {"labs/4544-3/last": 40.0}


def test_last_of_one_specimen_is_what_was_known_latest_and_then_the_largest(make: Make) -> None:
    later = YESTERDAY + timedelta(hours=1)
    corrected = (make.lab(40.0, known_at=YESTERDAY), make.lab(30.0, known_at=later))
    undecided = (*corrected, make.lab(31.0, known_at=later))
    for labs, last in ((corrected, 30.0), (undecided, 31.0)):
        for order in permutations(labs):
            assert make.row(make.patient(labs=order), make.lab_group("last")) == {"labs/4544-3/last": last}


def test_a_correction_that_is_not_known_yet_changes_nothing(make: Make) -> None:
    labs = (make.lab(40.0, known_at=YESTERDAY), make.lab(30.0, known_at=AS_OF))
    row = make.row(make.patient(labs=labs), make.lab_group("last", "count"))
    assert row == {"labs/4544-3/last": 40.0, "labs/4544-3/count": 1.0}


def test_a_result_with_several_codes_counts_once_for_each_analyte(make: Make) -> None:
    twice = (make.hematocrit, Code("http://loinc.org", "20570-8"), make.hematocrit, Code("urn:local", "HCT"))
    group = make.lab_group("count", analytes=(make.analyte(), make.analyte(code="20570-8")))
    assert make.row(make.patient(labs=(make.lab(codes=twice),)), group) == {
        "labs/4544-3/count": 1.0,
        "labs/20570-8/count": 1.0,
    }


def test_a_code_of_another_system_is_another_analyte(make: Make) -> None:
    facts = make.patient(labs=(make.lab(codes=(Code("urn:local", "4544-3"),)),))
    assert make.row(facts, make.lab_group("count")) == {}


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        pytest.param(1e303, "%", id="no mean could hold it"),
        pytest.param(1e307, "L/L", id="infinite once converted"),
        pytest.param(1e9, "%", id="a thousand million"),
    ],
)
def test_an_absurdly_large_result_is_implausible_whatever_is_declared_and_stops_nothing(
    make: Make, value: float, unit: str
) -> None:
    facts = make.patient(labs=(make.lab(value, unit=unit), make.lab(36.6)))
    group = make.lab_group("mean", "max", "count")
    assert make.row(facts, group) == {"labs/4544-3/mean": 36.6, "labs/4544-3/max": 36.6, "labs/4544-3/count": 1.0}
    assert coverage(facts, make, group)["labs.implausible"] == 1


@pytest.mark.parametrize(
    ("value", "unit", "is_a_result"),
    [
        (1, "%", True),
        (90, "%", True),
        (0.999, "%", False),
        (90.001, "%", False),
        (0.9, "L/L", True),
        (42, "L/L", False),
    ],
)
def test_a_result_outside_the_plausible_range_is_none_and_its_ends_are_inside(
    make: Make, value: float, unit: str, is_a_result: bool
) -> None:
    hematocrit = msgspec.structs.replace(make.analyte(), plausible=(1.0, 90.0))
    group = make.lab_group("count", "missing", analytes=(hematocrit,))
    facts = make.patient(labs=(make.lab(value, unit=unit),))
    assert make.row(facts, group) == ({"labs/4544-3/count": 1.0} if is_a_result else {"labs/4544-3/missing": 1.0})
    assert coverage(facts, make, group)["labs.implausible"] == (0 if is_a_result else 1)


# Order


MILLIONTHS = st.integers(-(10**12), 10**12).map(lambda millionths: millionths / 1_000_000)


@given(st.data())
def test_any_order_of_the_facts_gives_the_same_bits(make: Make, data: st.DataObject) -> None:
    when = st.sampled_from([YESTERDAY, YESTERDAY - BARELY, AS_OF - BARELY, AS_OF])
    a_lab = st.builds(
        make.lab,
        st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3, -0.0, 35.0]), MILLIONTHS),
        unit=st.sampled_from(["%", "L/L", "furlong"]),
        at=when,
        known_at=when,
    )
    a_diagnosis = st.builds(make.diagnosis, st.sampled_from(["I48.0", "I48.1", "E11.9"]), at=when, known_at=when)
    a_medication = st.builds(make.medication, st.sampled_from(["1", "2", "3"]), at=when, known_at=when)
    labs = data.draw(st.lists(a_lab, max_size=12))
    diagnoses = data.draw(st.lists(a_diagnosis, max_size=6))
    medications = data.draw(st.lists(a_medication, max_size=6))
    spec = make.spec(
        make.lab_group("bins", "last", "first", "slope", "hours_since", "mean", "min", "max", "count", "missing"),
        make.diagnosis_group("I48", grouping=PrefixGrouping(length=3)),
        make.medication_group("1", "2"),
    )
    in_order = vectorize(
        make.patient(labs=tuple(labs), diagnoses=tuple(diagnoses), medications=tuple(medications)), spec, AS_OF
    )
    shuffled = vectorize(
        make.patient(
            labs=tuple(data.draw(st.permutations(labs))),
            diagnoses=tuple(data.draw(st.permutations(diagnoses))),
            medications=tuple(data.draw(st.permutations(medications))),
        ),
        spec,
        AS_OF,
    )
    assert shuffled.values.tobytes() == in_order.values.tobytes()
    assert shuffled.indices.tobytes() == in_order.indices.tobytes()
    assert shuffled.coverage == in_order.coverage


@given(st.data())
def test_the_exact_mean_is_the_same_bits_in_any_order(data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
    assert exact_mean(data.draw(st.permutations(values))).hex() == exact_mean(values).hex()


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=100))
def test_the_exact_mean_is_the_true_one_within_its_two_roundings(millionths: list[int]) -> None:
    true = Fraction(sum(millionths), len(millionths) * 1_000_000)
    mean = exact_mean([number / 1_000_000 for number in millionths])
    # Each of the division and the scaling is off by half a unit in the last place at most: 2**-53 of the value.
    assert abs(Fraction(mean) - true) <= abs(true) * Fraction(3, 2**53)


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([36.6], 36.6),
        ([0.1, 0.2, 0.3], 0.2),
        ([0.1] * 10, 0.1),
        ([1.0, 0.0, 0.0], 1 / 3),
        ([-1.5, 1.5], 0.0),
        ([1e-6, 2e-6], 1.5e-6),
        ([4e-7], 0.0),
        ([5e-7], 1e-6),
        ([-5e-7], 0.0),
        ([-6e-7], -1e-6),
    ],
)
def test_the_exact_mean_is_over_values_rounded_half_up_to_a_millionth(values: list[float], mean: float) -> None:
    assert exact_mean(values) == pytest.approx(mean, rel=2**-52, abs=0)


def test_a_plain_sum_would_depend_on_the_order() -> None:
    one, other = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert exact_mean(one) == exact_mean(other)


# Coverage


def coverage(facts: PatientFacts, make: Make, *groups: Group) -> dict[str, int]:
    return dict(vectorize(facts, make.spec(*groups), AS_OF).coverage)


def test_coverage_of_results_says_what_was_seen_and_what_could_not_be_used(make: Make) -> None:
    labs = (
        make.lab(),
        make.lab(0.3, unit="L/L"),
        make.lab(None),
        make.lab(math.nan),
        make.lab(unit="furlong"),
        make.lab(codes=(Code("urn:local", "HCT"),)),
        make.lab(codes=()),
        make.lab(known_at=AS_OF),
        make.lab(at=AS_OF - WINDOW - BARELY),
    )
    assert coverage(make.patient(labs=labs), make, make.lab_group("last")) == {
        "labs.results": 7,
        "labs.not_mapped": 2,
        "labs.no_number": 2,
        "labs.unit_not_convertible": 1,
        "labs.implausible": 0,
    }


def test_coverage_of_codes_says_what_was_seen_and_what_is_no_feature(make: Make) -> None:
    facts = make.patient(
        diagnoses=(
            make.diagnosis("I48.0"),
            make.diagnosis("I48.0", "R99"),
            make.diagnosis("R99"),
            make.diagnosis("I48.0", system=ICD9CM),
            make.diagnosis("I48.0", known_at=AS_OF),
            make.diagnosis("I48.0", recorded_in=DiagnosisList.ENCOUNTER),
        ),
        medications=(make.medication("0"),),
    )
    assert coverage(facts, make, make.diagnosis_group(), make.medication_group()) == {
        "problem_list.facts": 4,
        "problem_list.not_mapped": 1,
        "problem_list.not_in_vocabulary": 1,
        "drugs.facts": 1,
        "drugs.not_mapped": 0,
        "drugs.not_in_vocabulary": 1,
    }


def test_coverage_counts_0_where_nothing_was_found(make: Make) -> None:
    assert coverage(make.patient(), make, SexGroup(), make.lab_group("last"), make.medication_group()) == {
        "labs.results": 0,
        "labs.not_mapped": 0,
        "labs.no_number": 0,
        "labs.unit_not_convertible": 0,
        "labs.implausible": 0,
        "drugs.facts": 0,
        "drugs.not_mapped": 0,
        "drugs.not_in_vocabulary": 0,
    }


# The vector


def test_a_vector_holds_no_zeros_and_its_indices_ascend(make: Make) -> None:
    spec = make.spec(make.lab_group("count", "last", "min"), SexGroup(), make.age_group(40))
    facts = make.patient(labs=(make.lab(0.0), make.lab(-0.0)), sex=Sex.MALE, birth_date=BirthDate(year=1990))
    vector = vectorize(facts, spec, AS_OF)
    assert layout_of(spec).names[vector.indices[0]] == "labs/4544-3/count"
    assert vector.indices.tolist() == [0, 4, 5]
    assert vector.values.tolist() == [2.0, 1.0, 1.0]
    assert (vector.indices.dtype, vector.values.dtype) == (np.int32, np.float64)
    assert vector.size == 7
    assert vector.spec_digest == spec.digest()


def test_the_dense_row_has_the_zeros(make: Make) -> None:
    facts = make.patient(sex=Sex.MALE, birth_date=BirthDate(year=1990))
    vector = vectorize(facts, make.spec(SexGroup(), make.age_group(40)), AS_OF)
    assert vector.dense().tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_patient_of_whom_nothing_is_known_has_an_empty_vector(make: Make) -> None:
    vector = vectorize(make.patient(), make.spec(SexGroup(), make.diagnosis_group()), AS_OF)
    assert (vector.indices.size, vector.values.size) == (0, 0)
    assert vector.dense().tolist() == [0.0, 0.0, 0.0]


def test_a_declaration_without_features_gives_a_vector_of_none(make: Make) -> None:
    nothing = MedicationGroup(name="drugs", systems=(), codes=FixedCodes(codes=()), lookback_days=1)
    assert vectorize(make.patient(), make.spec(nothing), AS_OF).dense().shape == (0,)


def a_vector(**changes: Any) -> FeatureVector:
    ordinary = {
        "spec_digest": "d",
        "size": 3,
        "indices": np.array([1], dtype=np.int32),
        "values": np.array([36.6]),
        "coverage": {},
    }
    return FeatureVector(**{**ordinary, **changes})


def test_vectors_are_equal_by_declaration_and_bits_whatever_their_coverage() -> None:
    assert a_vector() == a_vector(coverage={"labs.results": 1})
    assert a_vector() != a_vector(spec_digest="e")
    assert a_vector() != a_vector(size=4)
    assert a_vector() != a_vector(indices=np.array([2], dtype=np.int32))
    assert a_vector() != a_vector(values=np.array([math.nextafter(36.6, 37)]))
    assert a_vector() != "a vector"


def test_a_vector_cannot_be_hashed_or_changed() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(a_vector())
    with pytest.raises(AttributeError):
        a_vector().size = 4  # type: ignore[misc]


def test_the_repr_of_a_vector_shows_no_value() -> None:
    assert "36.6" not in repr(a_vector())
